"""A file of numbers for the stop list: read like a recipient file, put on the list in short transactions.

The list may be long and sending goes on meanwhile, so there is no one transaction for all of it. The whole file is
read once before the first number is stored; a number that is on the list already changes nothing, so a file that
was cut short by a crash is simply imported again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import BinaryIO, NamedTuple

from worker import audit, db, optouts
from worker.optouts import Entry
from worker.phone import Parser
from worker.problems import Invalid, Problem
from worker.recipients import ENCODINGS, MAX_BYTES
from worker.recipients.decoding import MAX_ROWS, FileRefused
from worker.recipients.rows import Head, read_head, table
from worker.rendering import column_key

BATCH = 500  # at a time: sending waits for the lock meanwhile
SHOWN = 50
VALUE_MAX = 60
# Columns beside the number that an exported list has, in both languages.
REASON_COLUMNS = frozenset(map(column_key, ("reason", "причина")))
SCOPE_COLUMNS = frozenset(map(column_key, ("scope", "what is stopped", "что не отправлять")))
SCOPE_WORDS = {
    **dict.fromkeys(("all", "all broadcasts", "все рассылки"), optouts.ALL),
    **dict.fromkeys(("marketing", "marketing only", "только рекламу"), optouts.MARKETING),
}


class Line(NamedTuple):
    """A line that was not taken: its number as Excel counts, what stood there, and why, as a row reason."""

    number: int
    value: str
    code: str


class Result(NamedTuple):
    """What became of a list. `known` were on the stop list already or stand in the list twice; `lines` are the
    first of the `invalid`."""

    rows: int
    added: int
    known: int
    invalid: int
    lines: list[Line]


def read(
    stream: BinaryIO,
    region: str,
    actor: str,
    *,
    reason: str = "",
    scope: str = optouts.ALL,
    encoding: str = "",
    phone_column: str = "",
) -> Result:
    """Put every number of a file on the list. What the file says of reason and scope goes before `reason` and `scope`.

    Raises FileRefused or Invalid before anything is stored.
    """
    optouts.checked(reason, scope)
    if encoding and encoding not in ENCODINGS:
        raise FileRefused("encoding_unknown")
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FileRefused("file_too_large", size=len(data))
    parser = Parser(region)
    rows = sum(1 for _row in table(data, encoding or None).rows)
    if rows > MAX_ROWS:
        raise FileRefused("too_many_rows", n=rows, max=MAX_ROWS)
    found = table(data, encoding or None).rows
    sample = list(islice(found, 20))
    head = read_head(sample, parser, phone_column or None, [])
    numbered = islice(enumerate(chain(sample, found), 1), head.first, None)
    return _List(head, parser, reason.strip(), scope).put(numbered, optouts.IMPORT, actor)


def paste(text: str, region: str, actor: str, *, reason: str = "", scope: str = optouts.ALL) -> Result:
    """Put numbers on the list that a person typed or pasted, one a line or with commas and semicolons between.

    Raises Invalid where there is none; nothing is stored then.
    """
    optouts.checked(reason, scope)
    parser = Parser(region)
    numbered = [
        (number, [part])
        for number, line in enumerate(text.splitlines(), 1)
        for part in line.replace(";", ",").split(",")
    ]
    if not any(parser.parse(row[0]).e164 for _, row in numbered):
        typed = text.strip()[:VALUE_MAX]
        raise Invalid({"phones": Problem("phone_invalid", {"v": typed}) if typed else Problem("phone_missing")})
    return _List(Head(["phone"], 0, 0), parser, reason.strip(), scope).put(iter(numbered), optouts.PERSON, actor)


class _List:
    """One pass over the rows of one list."""

    def __init__(self, head: Head, parser: Parser, reason: str, scope: str) -> None:
        keys = [column_key(name) for name in head.columns]
        self.phone = head.phone
        self.reason_at = next((at for at, key in enumerate(keys) if key in REASON_COLUMNS), None)
        self.scope_at = next((at for at, key in enumerate(keys) if key in SCOPE_COLUMNS), None)
        self.parser, self.reason, self.scope = parser, reason, scope
        self.rows = self.added = self.known = self.invalid = 0
        self.lines: list[Line] = []

    def put(self, numbered: Iterator[tuple[int, list[str]]], source: str, actor: str) -> Result:
        while batch := list(islice(numbered, BATCH)):
            entries = [entry for entry in (self._entry(number, row) for number, row in batch) if entry is not None]
            with db.write():
                added = optouts.put(entries, source, actor=actor)
            self.added += added
            self.known += len(entries) - added
        found = Result(self.rows, self.added, self.known, self.invalid, self.lines)
        with db.write():
            action = "optout.import" if source == optouts.IMPORT else "optout.add"
            audit.record(actor, action, rows=found.rows, added=found.added, known=found.known, invalid=found.invalid)
        return found

    def _entry(self, number: int, row: Sequence[str]) -> Entry | None:
        """The entry of one row; None for a blank one and for one without a number, which is noted."""
        raw = _cell(row, self.phone)
        phone = self.parser.parse(raw)
        if phone.e164 is None:
            if any(cell.strip() for cell in row):
                self.rows += 1
                self.invalid += 1
                if len(self.lines) < SHOWN:
                    self.lines.append(Line(number, raw.strip()[:VALUE_MAX], phone.reason or "phone_invalid"))
            return None
        self.rows += 1
        said = " ".join(_cell(row, self.reason_at).split())[: optouts.REASON_MAX]
        words = " ".join(_cell(row, self.scope_at).casefold().split())
        return Entry(phone.e164, SCOPE_WORDS.get(words, self.scope), said.removeprefix("'") or self.reason)


def _cell(row: Sequence[str], at: int | None) -> str:
    return row[at] if at is not None and at < len(row) else ""
