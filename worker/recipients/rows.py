"""Records → columns: is there a header, and which column holds the phone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.phone import Parser
from worker.recipients import sheets
from worker.recipients.decoding import (
    MAX_COLUMNS,
    FileRefused,
    decode,
    detect_delimiter,
    records,
    separator,
    unclosed_quote,
)
from worker.rendering import column_key

PHONE_NAMES = frozenset(
    column_key(name)
    for name in (
        "phone",
        "phones",
        "phone number",
        "telephone",
        "tel",
        "mobile",
        "mobile phone",
        "cell",
        "cellphone",
        "msisdn",
        "number",
        "whatsapp",
        "телефон",
        "телефоны",
        "тел",
        "тел.",
        "номер",
        "номер телефона",
        "мобильный",
        "мобильный телефон",
        "моб",
        "сотовый",
        "контакт",
        "контактный телефон",
        "phonenumber",
        "№ телефона",
        "to",
        "recipient",
        "получатель",
    )
)
# Names so general that another phone name beside them wins.
_WEAK = frozenset(column_key(name) for name in ("number", "номер", "to", "recipient", "получатель", "контакт", "cell"))


@dataclass(frozen=True)
class Head:
    """How a file is laid out. `first` is the number of records before the data (0 or 1)."""

    columns: list[str]
    phone: int
    first: int
    unused: list[str] = field(default_factory=list)


class Table(NamedTuple):
    """The rows of a file, and how they were read; None for what a workbook does not have."""

    encoding: str | None
    delimiter: str | None
    rows: Iterator[list[str]]


def table(data: bytes, encoding: str | None = None, delimiter: str | None = None) -> Table:
    """A workbook or a text as a table; what is not chosen is detected. Raises FileRefused, also on the way."""
    if sheets.is_xlsx(data):
        return Table(None, None, sheets.records(data))
    text, encoding = decode(data, encoding)
    named, text = separator(text)
    delimiter = delimiter or named or detect_delimiter(text)
    if unclosed_quote(text, delimiter):
        raise FileRefused("bad_quoting")
    return Table(encoding, delimiter, records(text, delimiter))


def read_head(sample: list[list[str]], parser: Parser, chosen: str | None, needed: list[str]) -> Head:
    """Find header and phone column in the first records.

    Raises FileRefused: no_header, repeated_column, no_phone_column, phone_column_ambiguous, missing_columns.
    """
    at = next((i for i, row in enumerate(sample) if any(cell.strip() for cell in row)), None)
    if at is None:
        raise FileRefused("file_empty")
    top = sample[at]
    if len(top) > MAX_COLUMNS:
        raise FileRefused("bad_quoting", n=at + 1)
    if any(parser.parse(cell).e164 for cell in top):
        return _without_header(top, parser, needed)
    names = [" ".join(cell.replace("\ufeff", "").split()) for cell in top]
    keys = [column_key(name) for name in names]
    repeated = next((n for n, k in zip(names, keys, strict=True) if k and keys.count(k) > 1), None)
    if repeated is not None:
        raise FileRefused("repeated_column", c=repeated)
    phone = _phone_column(names, keys, chosen)
    missing = [name for name in needed if column_key(name) not in keys]
    if missing:
        raise FileRefused("missing_columns", cols=missing)
    wanted = {column_key(name) for name in needed} | {keys[phone]}
    unused = [n for n, k in zip(names, keys, strict=True) if k and k not in wanted]
    return Head(names, phone, at + 1, unused)


def _without_header(top: list[str], parser: Parser, needed: list[str]) -> Head:
    """A list whose first row is already a person; it can have no variables, for nothing names them."""
    if needed:
        raise FileRefused("no_header")
    phone = next(i for i, cell in enumerate(top) if parser.parse(cell).e164)
    names = [f"{i + 1}" if i != phone else "phone" for i in range(len(top))]
    return Head(names, phone, 0, [n for i, n in enumerate(names) if i != phone])


def _phone_column(names: list[str], keys: list[str], chosen: str | None) -> int:
    if chosen:
        key = column_key(chosen)
        if key not in keys:
            raise FileRefused("no_phone_column")
        return keys.index(key)
    found = [i for i, key in enumerate(keys) if key in PHONE_NAMES]
    strong = [i for i in found if keys[i] not in _WEAK] or found
    if not strong:
        raise FileRefused("no_phone_column")
    if len(strong) > 1:
        raise FileRefused("phone_column_ambiguous", cols=[names[i] for i in strong])
    return strong[0]
