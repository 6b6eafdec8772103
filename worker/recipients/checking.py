"""Rows → messages or rejected rows, in short transactions; the file turns ready in one last statement.

accepted + rejected of every kind = rows, always. Rows of a file that is not ready cannot be claimed, so a
half-read file never sends; a file whose reader died starts again from its first byte.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import threading
from collections import Counter as Tally
from itertools import chain
from pathlib import Path
from typing import Any

import peewee

from worker import clock, counters, db, files, optouts
from worker.models import Broadcast, RecipientFile
from worker.phone import Parser
from worker.recipients.decoding import MAX_ROWS, FileRefused
from worker.recipients.facts import Facts
from worker.recipients.rows import Head, Table, read_head, table
from worker.recipients.seen import Seen
from worker.rendering import Content, MissingColumns, Rendered, Renderer, RowError

log = logging.getLogger("molva.recipients")

BATCH = 2_000
# One statement for a whole batch is three times as fast as executemany, and holds the write lock as much shorter.
_INSERT = (
    "INSERT INTO message (broadcast_id, run, file_id, line, phone, row, status, not_before, tries)"
    " SELECT ?, ?, ?, CAST(json_extract(value, '$[0]') AS BIGINT), json_extract(value, '$[1]'),"
    " json_extract(value, '$[2]'), 'queued', 0, 0 FROM json_each(?)"
)
VALUE_MAX = 200
RAW_MAX = 4_000
SAMPLE_ROWS = 5
EXAMPLES = 5
_one_at_a_time = threading.Lock()
_put_off: set[int] = set()


def check(file_id: int, owner: int | None, content: Content | None, mobile_only: bool, uploads: Path) -> None:
    """Check one file from its first byte. Ends with the state ready or refused, or with nothing if it was removed."""
    pass_of = None
    with _one_at_a_time:
        try:
            if not _take(file_id, owner):
                return
            forget(file_id)
            file = RecipientFile.get_by_id(file_id)
            pass_of = file.created_at
            _Check(file, content, mobile_only, uploads).run()
        except FileRefused as refusal:
            forget(file_id)
            _end(file_id, "refused", pass_of, code=refusal.code, detail=refusal.detail)
        except Gone:
            forget(file_id)
        except (peewee.PeeweeException, OSError) as error:
            _unfinished(file_id, error)


def _take(file_id: int, owner: int | None) -> bool:
    with db.write():
        taken = RecipientFile.update(owner=owner).where(
            (RecipientFile.id == file_id) & (RecipientFile.state == "checking") & RecipientFile.removed_at.is_null()
        )
        return bool(taken.execute() == 1)


def _unfinished(file_id: int, error: Exception) -> None:
    """The storage failed in mid-check: refuse for a full disk, else leave the file to be read again later."""
    found = db.trouble(error)
    if found is None:
        raise error
    log.error("file %d: the storage failed: %s", file_id, found.value)
    try:
        if found is db.Trouble.FULL:
            forget(file_id)
            _end(file_id, "refused", None, code="storage_full", detail={})
        else:
            with db.write():
                RecipientFile.update(owner=None).where(RecipientFile.id == file_id).execute()
    except peewee.PeeweeException:
        _put_off.add(file_id)  # not even that could be stored; rows of an unfinished file never leave


def waits(file_id: int) -> bool:
    """Whether this process had to give up the check of a file and nobody could be told; says so once."""
    if file_id not in _put_off:
        return False
    _put_off.discard(file_id)
    return True


class Gone(Exception):
    """The file was removed while it was being read."""


def forget(file_id: int) -> None:
    """Take away every row that an earlier check of this file made; only ever queued ones."""
    while True:
        with db.write():
            gone = db.rows(
                "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE file_id = ? AND status = 'queued'"
                " LIMIT ?) RETURNING broadcast_id, run",
                [file_id, BATCH],
            )
            tally = Tally(gone)
            counters.add({(b, run, file_id, "queued"): -n for (b, run), n in tally.items()})
        if len(gone) < BATCH:
            break
    sql = "DELETE FROM rejected_row WHERE id IN (SELECT id FROM rejected_row WHERE file_id = ? LIMIT ?)"
    for _n in db.in_steps(sql, [file_id], BATCH * 5):
        pass
    with db.write():
        db.execute("DELETE FROM counter WHERE file_id = ? AND n = 0", [file_id])


def _end(file_id: int, state: str, pass_of: int | None, **columns: Any) -> None:
    """Store the outcome of a pass, unless the file is gone, or another pass is wanted since (`created_at`)."""
    this = (RecipientFile.id == file_id) & (RecipientFile.state == "checking") & RecipientFile.removed_at.is_null()
    if pass_of is not None:
        this &= RecipientFile.created_at == pass_of
    with db.write():
        RecipientFile.update(state=state, checked_at=clock.now(), owner=None, **columns).where(this).execute()


class _Check:
    """One pass over one file."""

    def __init__(self, file: RecipientFile, content: Content | None, mobile_only: bool, uploads: Path) -> None:
        self.file = file
        self.broadcast: Broadcast = file.broadcast
        self.content = content
        self.path = uploads / file.path
        self.parser = Parser(self.broadcast.region, mobile_only)
        self.unique: bool = self.broadcast.ignore_duplicates
        self.seen = Seen()
        self.names: dict[int, str] = {}
        self.rows = self.accepted = 0
        self.rejected: Tally[str] = Tally()
        self.repairs: dict[str, Any] = {"count": 0, "examples": []}
        self.good: list[tuple[int, str, list[str] | None]] = []  # line, phone, cells
        self.texts: list[str] = []  # what the messages of the good ones say, where they differ
        self.fixed: Rendered | None = None  # what they say where it is the same for all
        self.facts: Facts | None = None
        self.bad: list[tuple[Any, ...]] = []

    def run(self) -> None:
        try:
            found = self._open()
        except FileRefused:
            self._note(columns=[], sample=[], unused=[])
            raise
        sample: list[list[str]] = []
        for row in found.rows:
            sample.append(row)
            if len(sample) >= 20 and any(any(cell.strip() for cell in r) for r in sample):
                break
        seen = {
            "encoding": found.encoding,
            "delimiter": found.delimiter,
            "sample": [[cell[:VALUE_MAX] for cell in row[:50]] for row in sample[: SAMPLE_ROWS + 1]],
        }
        try:
            head = read_head(
                sample, self.parser, self.file.options.get("phone_column"), self.content.columns if self.content else []
            )
            renderer = self._bind(head)
        except FileRefused:
            # By what was read a person chooses the encoding, the delimiter or the phone column.
            self._note(**seen, columns=_top(sample), unused=[])
            raise
        self._note(**seen, columns=head.columns, unused=head.unused, phone_column=head.columns[head.phone])
        self._load_seen()
        self.seen.begin(None)
        # Excel counts the header as row 1; without a header the first person stands in row 1.
        for number, row in enumerate(chain(sample, found.rows), 1):
            if number <= head.first:
                continue
            self._row(number, row, head, renderer)
            if len(self.good) + len(self.bad) >= BATCH:
                self._flush()
        self._flush()
        if self.accepted == 0:
            # The reasons stay: they are what the person needs now.
            self._finish("refused", code="no_valid_rows", detail={})
        else:
            self._finish("ready", code=None, detail=None)

    def _note(self, **columns: Any) -> None:
        """Keep what is known of the file before its rows are read."""
        with db.write():
            RecipientFile.update(**columns).where(RecipientFile.id == self.file.id).execute()

    def _open(self) -> Table:
        try:
            data = files.read(self.path)
        except FileNotFoundError:
            raise FileRefused("upload_lost") from None
        return table(data, self.file.options.get("encoding"), self.file.options.get("delimiter"))

    def _bind(self, head: Head) -> Renderer | None:
        if self.content is None:
            return None
        try:
            renderer = self.content.bind(head.columns)
        except MissingColumns as missing:
            raise FileRefused("missing_columns", cols=missing.columns) from None
        self.fixed, self.facts = renderer.fixed, Facts(self.content, head.columns)
        return None if self.fixed else renderer

    def _load_seen(self) -> None:
        """Numbers that this run already has from other files, so that nobody occurs twice across files."""
        if not self.broadcast.ignore_duplicates:
            return
        others = RecipientFile.select(RecipientFile.id, RecipientFile.name).where(
            (RecipientFile.broadcast == self.broadcast.id) & (RecipientFile.id != self.file.id)
        )
        self.names = {f.id: f.name for f in others}
        for other in self.names:
            found = db.execute(
                "SELECT phone, line FROM message WHERE file_id = ? AND run IN (?, ?) AND status <> 'cancelled'",
                [other, self.file.run, self.broadcast.run],
            )
            self.seen.extend(other, ((int(phone[1:]), line) for phone, line in found))

    def _row(self, number: int, row: list[str], head: Head, renderer: Renderer | None) -> None:
        self.rows += 1
        if self.rows > MAX_ROWS:
            raise FileRefused("too_many_rows", n=self.rows, max=MAX_ROWS)
        if len(row) > len(head.columns) and any(cell.strip() for cell in row[len(head.columns) :]):
            self._reject(number, row, "too_many_columns", None, "")
            return
        raw = row[head.phone] if head.phone < len(row) else ""
        phone = self.parser.parse(raw)
        if phone.e164 is None:
            if not any(cell.strip() for cell in row):
                # A blank row needs no line in the error list: it is only counted.
                self.rejected["blank_row"] += 1
                return
            self._reject(number, row, phone.reason or "phone_invalid", head.columns[head.phone], raw)
            return
        digits = int(phone.e164[1:])
        # Whoever's message cannot be written has no place here: the number may come again with a better row.
        if self.unique and (digits in self.seen if renderer is not None else not self.seen.add(digits, number)):
            self._reject(number, row, "duplicate", head.columns[head.phone], raw, self._first_place(digits))
            return
        if renderer is not None:
            try:
                self.texts.append(renderer.render(row if len(head.columns) > 1 else [raw]).text)
            except RowError as error:
                self._reject(number, row, error.code, error.column, _cell(row, head, error.column), error.detail)
                return
        if phone.repaired:
            self._repair(raw, phone.e164)
        if self.unique and renderer is not None:
            self.seen.add(digits, number)
        self.good.append((number, phone.e164, row if len(head.columns) > 1 else None))

    def _first_place(self, digits: int) -> dict[str, Any]:
        """Where a repeated number stands first: the line, and the file when it is another one."""
        file, line = self.seen.first(digits)
        return {"line": line} if file is None else {"line": line, "file": self.names.get(file, "")}

    def _reject(
        self, number: int, row: list[str], code: str, column: str | None, value: str, other: Any = None
    ) -> None:
        self.rejected[code] += 1
        line = io.StringIO()
        # No formulas for spreadsheets: kept for us, made safe where it is handed out.
        csv.writer(line, delimiter=";", lineterminator="").writerow(row)  # nosemgrep: use-defusedcsv
        self.bad.append(
            (
                self.file.id,
                number,
                code,
                column,
                value[:VALUE_MAX],
                line.getvalue()[:RAW_MAX],
                json.dumps(other, ensure_ascii=False) if other else None,
            )
        )

    def _repair(self, raw: str, e164: str) -> None:
        self.repairs["count"] += 1
        if len(self.repairs["examples"]) < EXAMPLES:
            self.repairs["examples"].append([raw[:40], e164])

    def _flush(self) -> None:
        """Write what has gathered, unless the file is gone."""
        out = optouts.opted_out_among(phone for _, phone, _ in self.good)
        if out:
            for line, phone, cells in [r for r in self.good if r[1] in out]:
                self._reject(line, cells or [phone], "opted_out", None, phone)
            self.texts = [text for text, r in zip(self.texts, self.good, strict=False) if r[1] not in out]
            self.good = [r for r in self.good if r[1] not in out]
        self._learn()
        given = json.dumps(self.good, ensure_ascii=False, separators=(",", ":"))
        with db.write():
            if self._is_over():
                raise Gone
            db.execute(_INSERT, [self.broadcast.id, self.file.run, self.file.id, given])
            counters.add({(self.broadcast.id, self.file.run, self.file.id, "queued"): len(self.good)})
            db.many(
                'INSERT INTO rejected_row (file_id, line, code, "column", value, original, other)'
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                self.bad,
            )
            self.accepted += len(self.good)
            db.execute(
                "UPDATE recipient_file SET rows = ?, accepted = ?, done = ? WHERE id = ?",
                [self.rows, self.accepted, min(self.file.size, self.rows * 12), self.file.id],
            )
        self.good, self.texts, self.bad = [], [], []

    def _is_over(self) -> bool:
        """Whether the file was removed, or is to be read anew, since this pass began."""
        sql = "SELECT 1 FROM recipient_file WHERE id = ? AND removed_at IS NULL AND created_at = ?"
        return db.value(sql, [self.file.id, self.file.created_at]) is None

    def _learn(self) -> None:
        """Gather the facts of what is about to be written."""
        if self.facts is None or not self.good:
            return
        self.facts.people(self.good)
        if self.fixed is not None:
            self.facts.text(self.good[0][0], self.fixed.text, len(self.good))
            return
        for text, (line, _phone, cells) in zip(self.texts, self.good, strict=True):
            self.facts.text(line, text)
            if cells is not None:
                self.facts.cells(line, cells)

    def _finish(self, state: str, code: str | None, detail: dict[str, Any] | None) -> None:
        _end(
            self.file.id,
            state,
            self.file.created_at,
            code=code,
            detail=detail,
            rows=self.rows,
            accepted=self.accepted,
            rejected=dict(self.rejected),
            repairs=self.repairs,
            facts=self.facts.json() if self.facts is not None else None,
            done=self.file.size,
        )


def _top(sample: list[list[str]]) -> list[str]:
    """The first row that is not blank, for people to choose a column from."""
    first = next((row for row in sample if any(cell.strip() for cell in row)), [])
    return [cell.strip()[:VALUE_MAX] for cell in first[:50]]


def _cell(row: list[str], head: Head, column: str | None) -> str:
    if column is None or column not in head.columns:
        return ""
    at = head.columns.index(column)
    return row[at] if at < len(row) else ""
