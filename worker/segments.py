"""How an SMS text is counted and split: GSM 03.38 with its extension table, else UCS-2 (UTF-16 units)."""

from __future__ import annotations

import re
from typing import NamedTuple

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = "\f^{}\\[~]|€"
_BASIC = frozenset(BASIC)
_EXTENSION = frozenset(EXTENSION)
_GSM = _BASIC | _EXTENSION
_EXTENDED = re.compile(f"[{re.escape(EXTENSION)}]")
_FOREIGN = re.compile(f"[^{re.escape(BASIC + EXTENSION)}]")
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


class Length(NamedTuple):
    """How long a text is as an SMS: in GSM-7 or UCS-2, in its units, in parts."""

    gsm: bool
    units: int
    segments: int

    @property
    def encoding(self) -> str:
        return "GSM-7" if self.gsm else "UCS-2"


def measure(text: str) -> Length:
    """The length of one text; quick, for lists of them."""
    gsm, units = True, len(text)
    if not _BASIC.issuperset(text):
        if _GSM.issuperset(text):
            units += len(_EXTENDED.findall(text))
        else:
            gsm, units = False, len(text.encode("utf-16-le", "surrogatepass")) // 2
    one, part = (GSM_ONE, GSM_PART) if gsm else (UCS_ONE, UCS_PART)
    if units <= one:
        return Length(gsm, units, 1 if units else 0)
    # Where no character takes two units, none can stand across the end of a part.
    return Length(gsm, units, -(-units // part) if units == len(text) else len(split(text)))


def count(text: str) -> Segments:
    """Encoding, length and number of parts of one text."""
    found = measure(text)
    return Segments(found.encoding, found.units, found.segments, list(dict.fromkeys(_FOREIGN.findall(text))))


FEW = 5  # one of so many characters


def few_foreign(text: str) -> list[str]:
    """The characters beside the GSM ones, when they are so few that one would rather do without them."""
    if len(text) - len(text.encode("ascii", "ignore")) > len(text) // FEW:
        return []  # written in another script: nearly all of them are foreign
    return _FOREIGN.findall(text)


def told(text: str) -> Segments:
    """As `count`, but naming the characters that force UCS-2 only where somebody would rather do without them."""
    return count(text)._replace(offending=list(dict.fromkeys(few_foreign(text))))


def native(text: str) -> str:
    """The text with a GSM character in the place of each foreign one: what it costs without them."""
    return _FOREIGN.sub("?", text)


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
