"""How an SMS text is counted and split: GSM 03.38 with its extension table, else UCS-2 (UTF-16 units)."""

from __future__ import annotations

from typing import NamedTuple

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"
_BASIC = frozenset(BASIC)
_EXTENSION = frozenset(EXTENSION)
_GSM = _BASIC | _EXTENSION
GSM_ONE, GSM_PART = 160, 153
UCS_ONE, UCS_PART = 70, 67
MAX_SEGMENTS = 10

_TYPOGRAPHIC = {
    "«": '"',
    "»": '"',
    "“": '"',
    "”": '"',
    "„": '"',
    "‘": "'",
    "’": "'",
    "‚": "'",
    "–": "-",
    "—": "-",
    "‑": "-",
    "−": "-",
    "…": "...",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "№": "N",
}


class Segments(NamedTuple):
    """`encoding` is GSM-7 or UCS-2; `units` are septets or UTF-16 units; `offending` forces UCS-2."""

    encoding: str
    units: int
    segments: int
    offending: list[str]


def count(text: str) -> Segments:
    """Encoding, length and number of parts of one text."""
    offending = sorted({c for c in text if c not in _GSM}, key=text.index)
    if offending:
        units = len(text) + sum(c > "\uffff" for c in text)
        one, encoding = UCS_ONE, "UCS-2"
    else:
        units = len(text) + sum(c in _EXTENSION for c in text)
        one, encoding = GSM_ONE, "GSM-7"
    if units == 0:
        return Segments(encoding, 0, 0, [])
    return Segments(encoding, units, 1 if units <= one else len(split(text)), offending)


def split(text: str, *, ucs2: bool | None = None, reserved: int = 0) -> list[str]:
    """The parts of a text; a character of two units is never cut in two.

    ucs2: the encoding, when something else than the text decides it. reserved: units that the header of each
    part takes beyond the usual one.
    """
    gsm = not ucs2 if ucs2 is not None else is_gsm(text)
    one, limit = (GSM_ONE, GSM_PART) if gsm else (UCS_ONE, UCS_PART)
    widths = [2 if (c in _EXTENSION if gsm else c > "\uffff") else 1 for c in text]
    if sum(widths) <= one:
        return [text] if text else []
    parts, start, used = [], 0, 0
    for at, width in enumerate(widths):
        if used + width > limit - reserved:
            parts.append(text[start:at])
            start, used = at, 0
        used += width
    parts.append(text[start:])
    return parts


def is_gsm(text: str) -> bool:
    """Whether every character is in GSM 03.38 or its extension table."""
    return all(c in _GSM for c in text)


def plain(text: str) -> str:
    """Typographic quotes, dashes and spaces as their plain forms: an offer, never done silently."""
    return "".join(_TYPOGRAPHIC.get(c, c) for c in text)
