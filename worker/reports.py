"""The report of a broadcast: pages of messages by keyset, causes, and the rows of an export.

Messages are listed run by run, file by file, line by line: the order people know from their file, and
the one the unique index (file, run, line) gives for nothing at any size.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NamedTuple

from worker import clock, db
from worker.models import PROBLEMS, Broadcast, RecipientFile, Run
from worker.states import MESSAGE_STATUSES, REPORT_LIFE

PAGE = 50
PAGE_MAX = 500
# SQLite takes the partial index of the problems only for these very words; one status of them is not enough.
_PROBLEM = "status IN (" + ", ".join(f"'{status}'" for status in sorted(PROBLEMS)) + ")"


class Row(NamedTuple):
    """One message as pages and exports show it; times in ms since the epoch."""

    id: int
    run: int
    file_id: int
    line: int
    phone: str
    status: str
    cause: str | None
    cause_text: str | None
    provider_id: str | None
    sending_at: int | None
    sent_at: int | None
    delivered_at: int | None
    read_at: int | None
    undelivered_at: int | None
    row: str | None


_COLUMNS = ", ".join(Row._fields)


@dataclass(frozen=True)
class Filter:
    """What to list. `run` None means every run; `phone` is E.164 or its beginning digits."""

    run: int | None = None
    status: str = ""
    cause: str = ""
    file_id: int | None = None
    phone: str = ""


@dataclass(frozen=True)
class Page:
    items: list[Row]
    next: str | None


def runs(broadcast: Broadcast) -> list[Run]:
    """The runs that have begun, first to last."""
    return list(
        Run.select().where((Run.broadcast == broadcast.id) & Run.started_at.is_null(False)).order_by(Run.number)
    )


def run_of(broadcast: Broadcast, number: int) -> Run | None:
    return Run.get_or_none((Run.broadcast == broadcast.id) & (Run.number == number))


def _segments(broadcast: Broadcast, chosen: Filter) -> list[tuple[int, int]]:
    """(run, file) pairs that hold messages, in the order of the report; known from the counters."""
    sql = "SELECT DISTINCT run, file_id FROM counter WHERE broadcast_id = ? AND run > 0 AND n > 0"
    parameters: list[Any] = [broadcast.id]
    for column, value in (("run", chosen.run), ("file_id", chosen.file_id), ("status", chosen.status or None)):
        if value is not None:
            sql += f" AND {column} = ?"
            parameters.append(value)
    return [(run, file) for run, file in db.rows(sql + " ORDER BY run, file_id", parameters)]


def messages(broadcast: Broadcast, chosen: Filter, after: str = "", limit: int = PAGE) -> Page:
    """One page of messages and the cursor of the next; a cursor is opaque to the caller.

    Raises ValueError for a cursor that is not one of ours or a status that does not exist.
    """
    if chosen.status and chosen.status not in MESSAGE_STATUSES:
        raise ValueError("status")
    limit = max(1, min(limit, PAGE_MAX))
    start = _cursor(after) if after else None
    found: list[Row] = []
    for run, file in _segments(broadcast, chosen):
        if start is not None and (run, file) < start[:2]:
            continue
        line = start[2] if start is not None and (run, file) == start[:2] else 0
        found += _lines(broadcast.id, run, file, line, chosen, limit + 1 - len(found))
        if len(found) > limit:
            last = found[limit - 1]
            return Page(found[:limit], f"{last.run}.{last.file_id}.{last.line}")
    return Page(found, None)


def _cursor(after: str) -> tuple[int, int, int]:
    parts = after.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
        raise ValueError("after")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _lines(broadcast_id: int, run: int, file: int, line: int, chosen: Filter, limit: int) -> list[Row]:
    """Up to `limit` messages of one file in one run after `line`."""
    if chosen.phone:
        return _by_phone(broadcast_id, run, file, line, chosen, limit)
    where, parameters = _conditions(chosen)
    if chosen.status in PROBLEMS:
        # These are few: their partial index leads straight to them.
        sql = f"broadcast_id = ? AND run = ? AND file_id = ? AND line > ? AND {_PROBLEM}"
        values: list[Any] = [broadcast_id, run, file, line]
    else:
        sql = "file_id = ? AND run = ? AND line > ?"
        values = [file, run, line]
    return [
        Row(*row)
        for row in db.rows(
            f"SELECT {_COLUMNS} FROM message WHERE {sql}{where} ORDER BY line LIMIT ?",  # noqa: S608
            [*values, *parameters, limit],
        )
    ]


def _conditions(chosen: Filter) -> tuple[str, list[Any]]:
    sql, parameters = "", []
    if chosen.status:
        sql += " AND status = ?"
        parameters.append(chosen.status)
    if chosen.cause:
        sql += " AND cause = ?"
        parameters.append(chosen.cause)
    return sql, parameters


def _by_phone(broadcast_id: int, run: int, file: int, line: int, chosen: Filter, limit: int) -> list[Row]:
    """Messages to numbers that begin with `chosen.phone`: by index once they left the queue, else by looking."""
    where, parameters = _conditions(chosen)
    end = chosen.phone[:-1] + chr(ord(chosen.phone[-1]) + 1)
    found: list[Row] = []
    for status in ("status <> 'queued'", "status = 'queued'"):
        found += [
            Row(*row)
            for row in db.rows(
                f"SELECT {_COLUMNS} FROM message WHERE {status} AND phone >= ? AND phone < ?"  # noqa: S608
                f" AND file_id = ? AND run = ? AND line > ?{where} ORDER BY line LIMIT ?",
                [chosen.phone, end, file, run, line, *parameters, limit],
            )
        ]
    return sorted(found, key=lambda row: row.line)[:limit]


def message(message_id: int) -> Row | None:
    """One message, or None."""
    found = db.rows(f"SELECT {_COLUMNS} FROM message WHERE id = ?", [message_id])  # noqa: S608
    return Row(*found[0]) if found else None


def broadcast_id(row: Row) -> int:
    """The broadcast that a message belongs to."""
    return int(db.value("SELECT broadcast_id FROM recipient_file WHERE id = ?", [row.file_id]) or 0)


def cells(file: RecipientFile, row: Row) -> list[tuple[str, str]]:
    """(column, value) of the row of the file that a message was made of."""
    values = json.loads(row.row) if row.row else [row.phone]
    names = file.columns or ["phone"]
    return [(name, value) for name, value in zip(names, values, strict=False) if name]


class Event(NamedTuple):
    """One line of a message's story. `kind`: own, attempt, report, reply; `code` a status or an outcome."""

    at: int
    kind: str
    code: str
    cause: str | None
    detail: str | None


def story(message_id: int) -> list[Event]:
    """What happened to one message, oldest first: attempts, reports, replies."""
    events = [
        Event(at, "attempt", outcome, code, detail)
        for at, outcome, code, detail in db.rows(
            "SELECT at, outcome, code, detail FROM attempt WHERE message_id = ? ORDER BY id LIMIT 100", [message_id]
        )
    ]
    events += [
        Event(at, "report", status, code, detail)
        for at, status, code, detail in db.rows(
            "SELECT at, status, code, detail FROM delivery_report WHERE message_id = ? ORDER BY id LIMIT 100",
            [message_id],
        )
    ]
    events += [
        Event(at, "reply", kind, None, text)
        for at, kind, text in db.rows(
            "SELECT at, kind, text FROM inbound WHERE message_id = ? ORDER BY id LIMIT 100", [message_id]
        )
    ]
    row = message(message_id)
    if row is not None:
        for at, code in ((row.sending_at, "sending"), (row.sent_at, "sent")):
            if at is not None:
                events.append(Event(at, "own", code, None, row.provider_id if code == "sent" else None))
    return sorted(events, key=lambda event: event.at)


PATIENCE = 15 * clock.MINUTE  # a report of a message that left comes within this time, or hardly ever
AROUND = 150 * clock.SECOND  # messages that left so near in time tell how well the channel reports
NEIGHBOURS = 200
HEALTHY = 0.95


def hint(row: Row) -> str:
    """What is likely true of an uncertain message: wait, not_sent, unknown or silent.

    Silence proves nothing by itself. It does when nearly all that left within the same five minutes
    have a report and this one, a quarter of an hour later, has none.
    """
    now, at = clock.now(), row.sending_at
    if at is None or now - at < PATIENCE:
        return "wait"
    answered = db.rows(
        "SELECT EXISTS (SELECT 1 FROM delivery_report d WHERE d.message_id = m.id) FROM message m"
        " WHERE m.id BETWEEN ? AND ? AND m.file_id = ? AND m.run = ? AND m.provider_id IS NOT NULL"
        " AND m.sending_at BETWEEN ? AND ? LIMIT ?",
        [row.id - NEIGHBOURS, row.id + NEIGHBOURS, row.file_id, row.run, at - AROUND, at + AROUND, NEIGHBOURS],
    )
    if answered and sum(found for (found,) in answered) >= HEALTHY * len(answered):
        return "not_sent"
    return "silent" if now - at > REPORT_LIFE else "unknown"


def cause_groups(broadcast: Broadcast, run: int | None) -> list[tuple[str, str, int]]:
    """(status, cause, number) of the messages that did not arrive, most frequent first.

    Read through the partial index of the problem statuses: its size is the number of problems.
    """
    where, parameters = ("AND run = ?", [broadcast.id, run]) if run is not None else ("", [broadcast.id])
    return [
        (status, cause or "", int(n))
        for status, cause, n in db.rows(
            "SELECT status, cause, COUNT(*) FROM message WHERE broadcast_id = ?"  # noqa: S608
            f" {where} AND {_PROBLEM} AND status NOT IN ('skipped', 'cancelled')"
            " GROUP BY status, cause ORDER BY 3 DESC LIMIT 100",
            parameters,
        )
    ]


def replied(broadcast: Broadcast) -> int:
    """How many people answered this broadcast, whichever run they got."""
    return int(db.value("SELECT COUNT(DISTINCT phone) FROM inbound WHERE broadcast_id = ?", [broadcast.id]) or 0)


# --- export -----------------------------------------------------------------------------------------

FIXED = (
    "phone",
    "status",
    "cause_code",
    "cause",
    "provider_id",
    "run",
    "file",
    "line",
    "sent_at",
    "delivered_at",
    "read_at",
    "undelivered_at",
)


def export_columns(broadcast: Broadcast, run: int | None) -> tuple[list[RecipientFile], list[str]]:
    """The files of the export and every original column they have, each named once."""
    ids = sorted({file for _, file in _segments(broadcast, Filter(run=run))})
    files = list(RecipientFile.select().where(RecipientFile.id.in_(ids)).order_by(RecipientFile.id)) if ids else []
    names: dict[str, None] = {}
    for file in files:
        names.update(dict.fromkeys(file.columns))
    return files, list(names)


class Exported(NamedTuple):
    """One message of the export. Times in seconds since the epoch, None for what has not happened."""

    phone: str
    status: str
    cause: str | None
    cause_text: str | None
    provider_id: str | None
    run: int
    line: int
    sent: int | None
    delivered: int | None
    read: int | None
    undelivered: int | None


# Divided by SQLite, which costs a tenth of what it costs here. The cells come last and are split off.
_EXPORT = (
    "SELECT phone, status, cause, cause_text, provider_id, run, line, sent_at / 1000, delivered_at / 1000,"
    " read_at / 1000, undelivered_at / 1000, row FROM message WHERE file_id = ? AND run = ? AND line > ?"
    " ORDER BY line LIMIT ?"
)
_LINE = Exported._fields.index("line")
Cells = list[str]


def export(
    broadcast: Broadcast, run: int | None, step: int = 2_000
) -> Iterator[tuple[str, list[tuple[Any, ...]], list[Cells]]]:
    """Every message of the run (None: of all) in the order of the report, `step` at a time.

    Yields (file name, the values of Exported and one more, the original cells under the export's columns).
    """
    files, columns = export_columns(broadcast, run)
    by_id = {file.id: file for file in files}
    for run_number, file_id in _segments(broadcast, Filter(run=run)):
        file, line = by_id[file_id], 0
        while batch := db.rows(_EXPORT, [file_id, run_number, line, step]):
            yield file.name, batch, _cells(batch, file, columns)
            line = batch[-1][_LINE]


def _cells(batch: list[tuple[Any, ...]], file: RecipientFile, columns: list[str]) -> list[Cells]:
    """The original cells of these messages of one file under the columns of the export."""
    if all(row[-1] for row in batch):
        found: list[Cells] = json.loads(f"[{','.join([row[-1] for row in batch])}]")  # at once: a third of the time
    else:
        found = [json.loads(row[-1]) if row[-1] else [row[0]] for row in batch]
    at = [file.columns.index(name) if name in file.columns else None for name in columns]
    if at == list(range(len(at))) and all(len(cells) == len(at) for cells in found):
        return found
    return [[cells[i] if i is not None and i < len(cells) else "" for i in at] for cells in found]


DANGEROUS = frozenset("=+-@\t\r\n＝＋－＠")  # first signs of a cell that may be taken for a formula


def safe_cell(value: str) -> str:
    """A cell that a spreadsheet will not take for a formula: a leading sign gets an apostrophe."""
    return "'" + value if value[:1] in DANGEROUS else value


def csv_lines(batches: Iterator[Iterable[Sequence[Any]]], delimiter: str) -> Iterator[bytes]:
    """Batches of rows as CSV in UTF-8 with a BOM, all cells quoted, a piece for each batch."""
    buffer = io.StringIO()
    buffer.write("\ufeff")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    for rows in batches:
        writer.writerows(rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


class Seconds(dict[int | None, str]):
    """Local date and time to the second by seconds since the epoch; an export meets the same ones again and again."""

    MOST = 50_000

    def __init__(self, zone: tzinfo) -> None:
        super().__init__({None: ""})
        self._zone = zone

    def __missing__(self, second: int | None) -> str:
        assert second is not None, "known from the beginning"
        if len(self) >= self.MOST:
            self.clear()
            self[None] = ""
        moment = clock.utc(second * clock.SECOND).astimezone(self._zone)
        text = self[second] = moment.strftime("%Y-%m-%d %H:%M:%S")
        return text
