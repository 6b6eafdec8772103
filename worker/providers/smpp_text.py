"""Texts on the SMPP wire: alphabets, the parts of a long message, and the headers of those that come in."""

from __future__ import annotations

from typing import NamedTuple

from worker import segments

DEFAULT, ASCII, LATIN1, CYRILLIC, HEBREW, UCS2 = 0, 1, 3, 6, 7, 8  # data_coding
BINARY = (2, 4)
ALPHABETS = ("gsm7", "latin1", "ascii")  # what data_coding 0 is at one SMSC
FORMS = ("udh8", "udh16", "sar", "payload")  # how a long message travels
MOST_PARTS = 255
HAS_HEADER = 0x40  # esm_class: the text begins with a user data header

_ESCAPE = 0x1B
_CODES = {c: bytes([at if at < _ESCAPE else at + 1]) for at, c in enumerate(segments.BASIC)}
_CODES |= {
    c: bytes([_ESCAPE, code])
    for c, code in zip(segments.EXTENSION, (0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40, 0x65), strict=True)
}
_BASIC = {code[0]: c for c, code in _CODES.items() if len(code) == 1}
_EXTENSION = {code[1]: c for c, code in _CODES.items() if len(code) == 2}
_CODECS = {ASCII: "ascii", LATIN1: "latin-1", CYRILLIC: "iso8859-5", HEBREW: "iso8859-8"}
_OWN_ALPHABET = 0x25  # header element: the whole text is in a national alphabet


class Part(NamedTuple):
    """One submit. `sar`: (reference, total, number) where the part's place stands in optional parameters."""

    coding: int
    octets: bytes
    header: bytes = b""
    sar: tuple[int, int, int] | None = None
    payload: bool = False


def parts(text: str, *, alphabet: str, form: str, reference: int) -> list[Part]:
    """What to submit for one text, in order; empty for an empty text. `reference` is cut to the form's size.

    Raises ValueError for more parts than the wire can number.
    """
    plain = segments.is_gsm(text) and (alphabet == "gsm7" or _fits(text, alphabet))
    coding = DEFAULT if plain else UCS2
    reserved = 1 if form == "udh16" else 0
    pieces = segments.split(text, ucs2=not plain, reserved=reserved)
    encoded = [_encoded(piece, alphabet, plain) for piece in pieces]
    if len(encoded) < 2:
        return [Part(coding, octets) for octets in encoded]
    if form == "payload":
        return [Part(coding, b"".join(encoded), payload=True)]
    total = len(encoded)
    if total > MOST_PARTS:
        raise ValueError(f"{total} parts")
    high, low = reference >> 8 & 0xFF, reference & 0xFF
    if form == "sar":
        return [Part(coding, octets, sar=(high << 8 | low, total, n)) for n, octets in enumerate(encoded, 1)]
    head = (6, 8, 4, high, low) if form == "udh16" else (5, 0, 3, low)
    return [Part(coding, octets, bytes((*head, total, n))) for n, octets in enumerate(encoded, 1)]


def _fits(text: str, alphabet: str) -> bool:
    try:
        text.encode(_codec(alphabet))
    except UnicodeEncodeError:
        return False
    return True


def _codec(alphabet: str) -> str:
    return "latin-1" if alphabet == "latin1" else "ascii"


def _encoded(text: str, alphabet: str, plain: bool) -> bytes:
    if not plain:
        return text.encode("utf-16-be", "replace")
    if alphabet == "gsm7":
        return b"".join(_CODES[c] for c in text)
    return text.encode(_codec(alphabet))


class Header(NamedTuple):
    """What a user data header says. `part`: (reference, number, total) of one part of a long message."""

    size: int
    part: tuple[str, int, int] | None
    own_alphabet: bool


def header(octets: bytes) -> Header:
    """Read the header at the beginning of a text; one that makes no sense has size 0."""
    size = octets[0] + 1 if octets else 0
    if size > len(octets):
        return Header(0, None, False)
    part, own, at = None, False, 1
    while at + 2 <= size:
        element, length = octets[at], octets[at + 1]
        value = octets[at + 2 : at + 2 + length]
        at += 2 + length
        if at > size:
            break
        if (element, length) == (0, 3):
            part = _part(f"{value[0]:02x}", value[2], value[1])
        elif (element, length) == (8, 4):
            part = _part(value[:2].hex(), value[3], value[2])
        elif element == _OWN_ALPHABET:
            own = True
    return Header(size, part, own)


def _part(reference: str, number: int, total: int) -> tuple[str, int, int] | None:
    """A place in a long message, if it is one."""
    return (reference, number, total) if 1 <= number <= total and total > 1 else None


def sar_part(reference: int, number: int, total: int) -> tuple[str, int, int] | None:
    """The same from optional parameters; a reference of its own kind, as the two are counted apart."""
    return _part(f"s{reference:04x}", number, total)


def decoded(octets: bytes, coding: int, alphabet: str) -> str | None:
    """The text that came in, None for one that is no text. What cannot be read becomes U+FFFD, never an error."""
    if coding & 0xF0 == 0x10:  # the phone's own numbering, with a message class
        coding = {0x04: BINARY[1], 0x08: UCS2}.get(coding & 0x0C, DEFAULT)
    elif coding & 0xF0 == 0xF0:
        coding = BINARY[1] if coding & 0x04 else DEFAULT
    if coding in BINARY:
        return None
    if coding == UCS2:
        return octets[: len(octets) & ~1].decode("utf-16-be", "replace")
    if coding == DEFAULT:
        if alphabet == "gsm7" and not any(octet & 0x80 for octet in octets):
            return _septets(octets)
        coding = LATIN1
    codec = _CODECS.get(coding, "latin-1")
    if codec == "ascii" and not octets.isascii():
        codec = "latin-1"
    return octets.decode(codec, "replace")


def _septets(octets: bytes) -> str:
    found, escaped = [], False
    for octet in octets:
        if escaped:
            found.append(_EXTENSION.get(octet, "\ufffd"))
            escaped = False
        elif octet == _ESCAPE:
            escaped = True
        else:
            found.append(_BASIC[octet])
    return "".join(found)
