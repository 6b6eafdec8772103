"""Bytes → text → records: encoding, delimiter and quoting of a recipient file."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Iterator
from typing import Any

MAX_CELL = 200 * 1024
MAX_COLUMNS = 1_000
MAX_ROWS = 1_000_000
DELIMITERS = (";", ",", "\t", "|")
ENCODINGS = ("utf-8", "cp1251", "utf-16")
# What a file of another kind begins with: ZIP (XLSX), old Excel, PNG, JPEG, GIF, PDF, gzip.
_SIGNATURES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"\x1f\x8b")
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<svg", b'{"')

csv.field_size_limit(16 * 1024 * 1024)


class FileRefused(ValueError):
    """A file that cannot be used as a whole: one of DESIGN's file codes, and facts for the sentence."""

    def __init__(self, code: str, **detail: Any) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def decode(data: bytes, chosen: str | None = None) -> tuple[str, str]:
    """(text, encoding). Raises FileRefused: file_empty, file_binary, encoding_unknown.

    Strict UTF-8 over the whole file first, then cp1251, but never for a file that is mostly UTF-8:
    the mojibake would go out to everybody.
    """
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        raise FileRefused("file_binary" if data.strip(b" \t\r\n\xef\xbb\xbf") else "file_empty")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise FileRefused("encoding_unknown")
    if data.startswith(_SIGNATURES) or data[:64].lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(_MARKUP):
        raise FileRefused("file_binary")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if chosen == "utf-16" or (chosen is None and utf16):
        return _strict(data, "utf-16" if utf16 else "utf-16-le"), "utf-16"
    if b"\0" in data:
        raise FileRefused("file_binary")
    if chosen is not None:
        return _strict(data, "utf-8-sig" if chosen == "utf-8" else chosen), chosen
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        if data.startswith(codecs.BOM_UTF8) or _mostly_utf8(data):
            raise FileRefused("encoding_unknown") from None
    return _strict(data, "cp1251"), "cp1251"


def _strict(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise FileRefused("encoding_unknown") from None
    if "\0" in text:
        raise FileRefused("file_binary")
    return text.removeprefix("\ufeff")


def _mostly_utf8(data: bytes) -> bool:
    """Whether the letters outside ASCII are in the main well-formed UTF-8 pairs."""
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    good = sum(1 for c in text if c > "\x7f" and c != "\ufffd")
    return good > 0 and good * 2 >= broken


def separator(text: str) -> tuple[str | None, str]:
    """(delimiter named by a leading sep= line, text after it)."""
    if text[:4].lower() == "sep=" and len(text) > 4:
        line, _, rest = text.partition("\n")
        value = line.strip("\r\n")[4:5]
        if value in DELIMITERS:
            return value, rest
    return None, text


def detect_delimiter(text: str) -> str:
    """The delimiter that cuts the first rows into the same number of cells; the header decides a tie."""
    sample = text[:65_536]
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        rows = _widths(sample, delimiter)
        if not rows or rows[0] < 2:
            continue
        same = sum(1 for n in rows if n == rows[0]) / len(rows)
        score = (round(same, 2), rows[0])
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _widths(sample: str, delimiter: str) -> list[int]:
    """How many cells the first fifty rows have."""
    widths: list[int] = []
    with contextlib.suppress(csv.Error):
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in row):
                widths.append(len(row))
            if len(widths) == 50:
                break
    return widths


def _lines(text: str) -> io.TextIOWrapper:
    """The text as a file whose line ends stay as they are; io.StringIO would hold four bytes for every letter."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8", newline="")


def records(text: str, delimiter: str) -> Iterator[list[str]]:
    """Rows of cells. A quote inside a cell is a character; one that never closes refuses the file.

    Raises FileRefused: bad_quoting, cell_too_large.
    """
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=False)
    del text  # ten megabytes that this generator would keep to its end
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if row and len(max(row, key=len)) > MAX_CELL:
                at, cell = next((at, cell) for at, cell in enumerate(row, 1) if len(cell) > MAX_CELL)
                if cell.count("\n") > 3:
                    raise FileRefused("bad_quoting", n=number)
                raise FileRefused("cell_too_large", n=number, c=at)
            yield row
    except csv.Error:
        raise FileRefused("bad_quoting", n=number + 1) from None


def unclosed_quote(text: str, delimiter: str) -> bool:
    """Whether the text ends inside quotes, so that rows vanished into the last cell."""
    if '"' not in text:
        return False
    try:
        for _ in csv.reader(_lines(text), delimiter=delimiter, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False
