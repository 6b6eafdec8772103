"""The report of a broadcast: pages of messages by keyset, causes, the rows of an export; all broadcasts compared.

Messages are listed run by run, file by file, line by line: the order people know from their file, and
the one the unique index (file, run, line) gives for nothing at any size.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any, NamedTuple

from peewee import JOIN

from worker import broadcasts, clock, db, segments
from worker.models import PROBLEM, PROBLEMS, Broadcast, Channel, RecipientFile, Run
from worker.states import MESSAGE_STATUSES, REPORT_LIFE, TAKEN

PAGE = 50
PAGE_MAX = 500
LOOK = 0.07  # seconds that a page may look for what no index leads to
STRETCH = 20_000  # lines of a file that are read at once then
NARROW = 10_000


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


def lists_of(broadcast: Broadcast, chosen: Filter) -> list[tuple[int, int]]:
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

    What no index leads to is looked for as long as a page may take; such a page may be short, even empty, and still
    have a next one. Raises ValueError for a cursor that is not one of ours or a status that does not exist.
    """
    if chosen.status and chosen.status not in MESSAGE_STATUSES:
        raise ValueError("status")
    limit = max(1, min(limit, PAGE_MAX))
    start = _cursor(after) if after else (0, 0, 0, 0)
    deadline = clock.monotonic() + LOOK
    found: list[tuple[int, Row]] = []
    for phase, wanted in enumerate(_phases(chosen)):
        for run, file in lists_of(broadcast, wanted):
            if (phase, run, file) < start[:3]:
                continue
            line = start[3] if (phase, run, file) == start[:3] else 0
            for rows, looked in _walk(Row._fields, broadcast.id, run, file, line, wanted, limit + 1):
                found += [(phase, Row(*row)) for row in rows]
                if len(found) > limit:
                    phase, last = found[limit - 1]
                    return Page([row for _, row in found[:limit]], _mark(phase, last.run, last.file_id, last.line))
                if clock.monotonic() > deadline:
                    return Page([row for _, row in found], _mark(phase, run, file, looked))
    return Page([row for _, row in found], None)


def _mark(phase: int, run: int, file: int, line: int) -> str:
    return f"{run}.{file}.{line}" + (f".{phase}" if phase else "")


def _cursor(after: str) -> tuple[int, int, int, int]:
    """(phase, run, file, line)."""
    parts = after.split(".")
    if len(parts) not in (3, 4) or not all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
        raise ValueError("after")
    run, file, line, *phase = map(int, parts)
    return (phase[0] if phase else 0), run, file, line


def _phases(chosen: Filter) -> list[_Wanted]:
    """How to look for it, one after the other. A number is found by an index once it has left the queue."""
    if not chosen.phone or not _is_narrow(chosen.phone):
        return [_Wanted(**vars(chosen))]
    led = [] if chosen.status == "queued" else [_Wanted(**vars(chosen), by_phone=True)]
    waiting = [_Wanted(**vars(replace(chosen, status="queued")))] if chosen.status in ("", "queued") else []
    return led + waiting


@dataclass(frozen=True)
class _Wanted(Filter):
    """`by_phone`: of what has left the queue alone, led by the index of the numbers."""

    by_phone: bool = False


def _phone_range(phone: str) -> list[str]:
    return [phone, phone[:-1] + chr(ord(phone[-1]) + 1)]


def _is_narrow(phone: str) -> bool:
    """Whether so few messages went to numbers with this beginning that an index finds them all at once."""
    few = "SELECT 1 FROM message WHERE status <> 'queued' AND phone >= ? AND phone < ? LIMIT ?"
    return int(db.value(f"SELECT COUNT(*) FROM ({few}) AS few", [*_phone_range(phone), NARROW + 1])) <= NARROW  # noqa: S608


def _walk(
    columns: Sequence[str], broadcast_id: int, run: int, file: int, line: int, wanted: Filter, size: int
) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
    """These columns of the messages of one list that are wanted, from `line` on, up to `size` at a time, each time with
    the line up to which was looked."""
    led, also, given = _leads(broadcast_id, run, file, wanted)
    select = f"SELECT {', '.join(columns)} FROM message WHERE"  # noqa: S608
    at = columns.index("line")
    while led:
        found = [
            row
            for sql, parameters in led
            for row in db.rows(
                f"{select} {sql} AND line > ?{also} ORDER BY line LIMIT ?", [*parameters, line, *given, size]
            )
        ]
        found = sorted(found, key=lambda row: row[at])[:size] if len(led) > 1 else found
        if found:
            line = found[-1][at]
            yield found, line
        if len(found) < size:
            return
    here = "file_id = ? AND run = ?"
    last = int(db.value(f"SELECT MAX(line) FROM message WHERE {here}", [file, run]) or 0)  # noqa: S608
    while line < last:
        found = db.rows(
            f"{select} {here} AND line > ? AND line <= ?{also} ORDER BY line LIMIT ?",
            [file, run, line, line + STRETCH, *given, size],
        )
        line = found[-1][at] if len(found) == size else line + STRETCH
        yield found, line


def _leads(
    broadcast_id: int, run: int, file: int, wanted: Filter
) -> tuple[list[tuple[str, list[Any]]], str, list[Any]]:
    """The searches, each led by an index, that together find what is wanted in one list; none where the list itself
    has to be read. And the conditions that go with every search."""
    also, given = "", []
    for column, value in (("status", wanted.status), ("cause", wanted.cause)):
        if value:
            also += f" AND {column} = ?"
            given.append(value)
    if wanted.phone:
        also += " AND phone >= ? AND phone < ?"
        given += _phone_range(wanted.phone)
    # With a sign before it, a column leads to no index: the one that is named first does.
    here = "+file_id = ? AND +run = ?"
    if isinstance(wanted, _Wanted) and wanted.by_phone:
        return [(f"status <> 'queued' AND {here}", [file, run])], also, given
    if wanted.status == "sending":
        return [(f"status = 'sending' AND {here}", [file, run])], also, given
    if wanted.status in PROBLEMS or (wanted.cause and not wanted.status):
        # These are few: their partial index leads straight to them.
        sql = f"broadcast_id = ? AND run = ? AND status = ? AND {PROBLEM} AND file_id = ?"
        statuses = [wanted.status] if wanted.status else PROBLEMS
        return [(sql, [broadcast_id, run, status, file]) for status in statuses], also, given
    return [], also, given


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
    """One line of a message's story. `kind`: own, attempt, report, reply, stop; `code` a status, an outcome or a deed.

    `cause` of a change to the stop list: who said it. `effect` of a report: moved, kept or conflict. `http`: the status
    of the answer to an attempt.
    """

    at: int
    kind: str
    code: str
    cause: str | None = None
    detail: str | None = None
    effect: str | None = None
    http: int | None = None


STORY_MAX = 100  # lines of each kind


def story(row: Row) -> list[Event]:
    """What happened to one message, oldest first: attempts, reports, replies, and the stop list since it was taken."""
    sources = (
        (
            "SELECT at, 'attempt', outcome, code, detail, NULL, http_status FROM attempt WHERE message_id = ?",
            [row.id],
        ),
        ("SELECT at, 'report', status, code, detail, effect FROM delivery_report WHERE message_id = ?", [row.id]),
        ("SELECT at, 'reply', kind, NULL, text FROM inbound WHERE message_id = ?", [row.id]),
        (
            "SELECT at, 'stop', action, source, reason FROM opt_out_event WHERE phone = ? AND at >= ?",
            [row.phone, row.sending_at or clock.now()],
        ),
    )
    events = [
        Event(*found)
        for sql, parameters in sources
        for found in db.rows(f"{sql} ORDER BY id LIMIT {STORY_MAX}", parameters)
    ]
    reported = any(event.kind == "report" for event in events)
    later = (("delivered", row.delivered_at), ("read", row.read_at), ("undelivered", row.undelivered_at))
    for code, at in (("sending", row.sending_at), ("sent", row.sent_at), *(() if reported else later)):
        if at is not None:
            events.append(Event(at, "own", code, None, row.provider_id if code == "sent" else None))
    return sorted(events, key=lambda event: event.at)


def conversation_of(broadcast: Broadcast, phone: str) -> int | None:
    """The conversation with this person on the broadcast's channel, if there is one."""
    sql = "SELECT id FROM conversation WHERE channel_id = ? AND phone = ?"
    found = db.value(sql, [broadcast.channel_id, phone])
    return int(found) if found is not None else None


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
            f" {where} AND {PROBLEM} AND status NOT IN ('skipped', 'cancelled')"
            " GROUP BY status, cause ORDER BY 3 DESC LIMIT 100",
            parameters,
        )
    ]


class Compared(NamedTuple):
    """One run among all runs of all broadcasts; `replied` counts people, `cost` is None where it is not known."""

    broadcast: Broadcast
    run: int
    started_at: int
    numbers: dict[str, int]
    replied: int
    cost: float | None

    @property
    def sent(self) -> int:
        """How many the provider has taken over, certainly or most likely."""
        return taken(self.numbers)


def taken(numbers: Mapping[str, int]) -> int:
    """How many the provider has taken over, certainly or most likely: what the rates of a report are of."""
    return sum(numbers[status] for status in TAKEN if status != "sending")


def compare(name: str = "", before: int | None = None, limit: int = PAGE) -> tuple[list[Compared], int | None]:
    """Runs of all broadcasts, the latest first, found by a part of the name; and the cursor of the next page."""
    sql = (
        "SELECT r.id, r.number, r.started_at, r.broadcast_id FROM run r JOIN broadcast b ON b.id = r.broadcast_id"
        " WHERE r.started_at IS NOT NULL AND b.kind <> ? AND r.id < ?"
    )
    parameters: list[Any] = [broadcasts.DIRECT, before or 2**62]
    if name:
        sql += " AND casefold(b.name) LIKE ? ESCAPE '\\'"
        parameters.append(broadcasts.like(name))
    found = db.rows(f"{sql} ORDER BY r.id DESC LIMIT ?", [*parameters, limit + 1])
    following = found[limit - 1][0] if len(found) > limit else None
    return _compared(found[:limit]), following


def _compared(found: Sequence[tuple[Any, ...]]) -> list[Compared]:
    """The numbers of these (run id, run, start, broadcast id), in three reads however many there are."""
    ids = json.dumps([broadcast_id for *_, broadcast_id in found])
    of_these = "broadcast_id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
    chosen = Broadcast.select(Broadcast, Channel).join(Channel, JOIN.LEFT_OUTER)
    rows = {row.id: row for row in chosen.where(Broadcast.id.in_({broadcast_id for *_, broadcast_id in found}))}
    numbers: dict[tuple[int, int], dict[str, int]] = {}
    for broadcast_id, run, status, n in db.rows(
        f"SELECT broadcast_id, run, status, SUM(n) FROM counter WHERE {of_these} GROUP BY 1, 2, 3",  # noqa: S608
        [ids],
    ):
        of_run = numbers.setdefault((broadcast_id, run), broadcasts.nothing())
        of_run[status] = int(n)
        of_run["total"] += int(n)
    once = {broadcast_id for broadcast_id, run in numbers if run > 0}
    once -= {broadcast_id for broadcast_id, run in numbers if run > 1}
    answered = {
        (broadcast_id, run): replied(broadcast_id, None if broadcast_id in once else run)
        for _, run, _, broadcast_id in found
    }
    return [
        Compared(
            row := rows[broadcast_id],
            run,
            started_at,
            own := numbers.get((broadcast_id, run), broadcasts.nothing()),
            answered.get((broadcast_id, run), 0),
            cost(row, own),
        )
        for _, run, started_at, broadcast_id in found
    ]


def by_file(broadcast: Broadcast, run: int | None) -> list[tuple[RecipientFile, dict[str, int]]]:
    """Every file that has messages in the run (None: in any) with their numbers, oldest first; from the counters."""
    where, parameters = ("run > 0", [broadcast.id]) if run is None else ("run = ?", [broadcast.id, run])
    numbers: dict[int, dict[str, int]] = {}
    for file_id, status, n in db.rows(
        f"SELECT file_id, status, SUM(n) FROM counter WHERE broadcast_id = ? AND {where} GROUP BY 1, 2",  # noqa: S608
        parameters,
    ):
        of_file = numbers.setdefault(file_id, broadcasts.nothing())
        of_file[status] = int(n)
        of_file["total"] += int(n)
    files = RecipientFile.select().where(RecipientFile.broadcast == broadcast.id).order_by(RecipientFile.id)
    return [(file, numbers[file.id]) for file in files if numbers.get(file.id, broadcasts.nothing())["total"]]


def answers(broadcast_id: int, run: int | None) -> tuple[str, list[Any]]:
    """FROM and WHERE for the replies `i` to the messages of a run (None: of all)."""
    if run is None:
        return "FROM inbound i WHERE i.broadcast_id = ?", [broadcast_id]
    sql = "FROM inbound i JOIN message m ON m.id = i.message_id WHERE i.broadcast_id = ? AND m.run = ?"
    return sql, [broadcast_id, run]


def replied(broadcast_id: int, run: int | None) -> int:
    """How many people answered the messages of a run, whatever they said and how often."""
    sql, parameters = answers(broadcast_id, run)
    return int(db.value(f"SELECT COUNT(DISTINCT i.phone) {sql}", parameters) or 0)


def cost(broadcast: Broadcast, numbers: Mapping[str, int]) -> float | None:
    """What the messages that left cost at the channel's price; None without one, or where the parts are not known."""
    channel = broadcast.channel
    each = parts_each(broadcast)
    if channel is None or channel.price is None or each is None:
        return None
    return float(channel.price * taken(numbers) * each)


def parts_each(broadcast: Broadcast) -> float | None:
    """How many units of its price one message of a broadcast is: one, or the parts of an SMS on the average, as far as
    they are known from the text alone or from the check of every file."""
    if not broadcasts.mobile_only(broadcast):
        return 1
    content = broadcasts.content(broadcast)
    if content is not None and not content.columns:
        return segments.count(broadcast.text or "").segments
    files = RecipientFile.select(RecipientFile.facts).where(
        (RecipientFile.broadcast == broadcast.id) & (RecipientFile.state == "ready")
    )
    counted = [(file.facts or {}).get("segments") for file in files]
    tally = [(int(parts), rows) for found in counted for parts, rows in (found or {}).items()]
    if not tally or not all(counted):
        return None
    return float(sum(parts * rows for parts, rows in tally) / sum(rows for _, rows in tally))


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


def export_columns(broadcast: Broadcast, chosen: Filter) -> tuple[list[RecipientFile], list[str]]:
    """The files of the export and every original column they have, each named once."""
    ids = sorted({file for _, file in lists_of(broadcast, chosen)})
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
    *("phone", "status", "cause", "cause_text", "provider_id", "run", "line"),
    *("sent_at / 1000", "delivered_at / 1000", "read_at / 1000", "undelivered_at / 1000", "row"),
)
Cells = list[str]


def export(
    broadcast: Broadcast, chosen: Filter, step: int = 2_000
) -> Iterator[tuple[str, list[tuple[Any, ...]], list[Cells]]]:
    """Every chosen message in the order of the report, `step` at a time.

    Yields (file name, the values of Exported and one more, the original cells under the export's columns).
    """
    files, columns = export_columns(broadcast, chosen)
    by_id = {file.id: file for file in files}
    for run, file_id in lists_of(broadcast, chosen):
        file = by_id[file_id]
        for batch, _ in _walk(_EXPORT, broadcast.id, run, file_id, 0, chosen, step):
            if batch:
                yield file.name, batch, _cells(batch, file, columns)


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
    # nosemgrep: use-defusedcsv (the caller has made the cells safe)
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
