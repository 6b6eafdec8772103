"""Whom of a queue a message may be sent to now. Three reasons speak against it: the person is on the stop list,
sleeps, or got another broadcast a short time ago."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from worker import clock, db, quiet
from worker.states import GOT, sql_list

HELD = "quiet_hours"  # the cause that a queued message has while its person sleeps
# Who got a message of another broadcast, or of an earlier run, since then.
_RECENT = (
    "SELECT m.id FROM json_each(?) j JOIN message m ON m.id = CAST(j.value AS BIGINT) WHERE EXISTS ("  # noqa: S608
    "SELECT 1 FROM message o JOIN broadcast b ON b.id = o.broadcast_id"
    f" WHERE o.phone = m.phone AND o.status <> 'queued' AND o.status IN {sql_list(GOT)} AND o.sending_at > ?"
    " AND b.kind = 'list' AND (o.broadcast_id <> m.broadcast_id OR o.run <> m.run))"
)


class Queued(NamedTuple):
    """One queued message. `cells`: its row as JSON; `opt_out`: the id of what forbids it, or None."""

    id: int
    phone: str
    cells: str | None
    tries: int
    opt_out: int | None


class Rules(NamedTuple):
    """What a broadcast says about whom to spare; None where it says nothing."""

    timezone: str
    quiet_from: int | None = None  # minutes after midnight
    quiet_to: int | None = None
    cooldown_days: int | None = None


class Sieve:
    """Sifts the queue of one broadcast in one turn.

    `zones`: file → which of its columns holds the time zones, filled in as files are met; `skipped` learns of
    every (file, number) that was taken out for good.
    """

    def __init__(
        self, rules: Rules, now: int, zones: dict[int, int | None], skipped: Callable[[int, int], None]
    ) -> None:
        self._rules = rules
        self._now = now
        self._zones = zones
        self._skipped = skipped
        self._ends: dict[str, int | None] = {}  # zone → when its quiet hours end
        self.passed = 0  # how many have been passed over

    def sift(self, file_id: int, found: Sequence[Queued]) -> list[Queued]:
        """Those of one file who may get their message now, inside the transaction that claims them.

        The others are skipped, or held in the queue until their night is over.
        """
        rows = [row for row in found if row.opt_out is None]
        self._skip(file_id, "opted_out", [row.id for row in found if row.opt_out is not None])
        if rows and self._rules.quiet_from is not None and self._rules.quiet_to is not None:
            rows = self._awake(file_id, rows, self._rules.quiet_from, self._rules.quiet_to)
        if rows and self._rules.cooldown_days:
            rows = self._rested(file_id, rows, self._rules.cooldown_days)
        self.passed += len(found) - len(rows)
        return rows

    def _skip(self, file_id: int, cause: str, ids: Sequence[int]) -> None:
        if ids:
            db.execute(
                "UPDATE message SET status = 'skipped', cause = ?, cause_text = NULL"
                " WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) AND status = 'queued'",
                [cause, json.dumps(ids)],
            )
            self._skipped(file_id, len(ids))

    def _rested(self, file_id: int, rows: list[Queued], days: int) -> list[Queued]:
        found = db.rows(_RECENT, [json.dumps([row.id for row in rows]), self._now - days * clock.DAY])
        recent = {id_ for (id_,) in found}
        self._skip(file_id, "cooldown", sorted(recent))
        return [row for row in rows if row.id not in recent]

    def _awake(self, file_id: int, rows: list[Queued], quiet_from: int, quiet_to: int) -> list[Queued]:
        column = self._zone_column(file_id)
        awake: list[Queued] = []
        asleep: dict[int, list[int]] = {}  # until when → who
        for row in rows:
            place = quiet.zone(row.phone, _cell(row, column), self._rules.timezone).name
            if place not in self._ends:
                self._ends[place] = quiet.held_until(self._now, place, quiet_from, quiet_to)
            end = self._ends[place]
            if end is None:
                awake.append(row)
            else:
                asleep.setdefault(end, []).append(row.id)
        for end, ids in asleep.items():
            db.execute(
                "UPDATE message SET not_before = ?, cause = ?, cause_text = NULL"
                " WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) AND status = 'queued'",
                [end, HELD, json.dumps(ids)],
            )
        return awake

    def _zone_column(self, file_id: int) -> int | None:
        if file_id not in self._zones:
            columns: Any = json.loads(db.value("SELECT columns FROM recipient_file WHERE id = ?", [file_id]))
            self._zones[file_id] = quiet.zone_column(columns)
        return self._zones[file_id]


def _cell(row: Queued, column: int | None) -> str:
    """What the file says about this person in that column; empty where it says nothing."""
    if column is None or row.cells is None:
        return ""
    cells: list[str] = json.loads(row.cells)
    return cells[column] if column < len(cells) else ""


# --- those who wait ---------------------------------------------------------------------------------

# The files whose queue is sent; `f` is recipient_file.
SENDABLE = "f.state = 'ready' AND (f.removed_at IS NULL OR f.removed_how = 'keep')"
# Per file, for then the index gives it at once; `f.id` names the file of a message for a list that is not whole.
_PUT_OFF = (
    "SELECT m.not_before, m.cause FROM recipient_file f JOIN message m ON m.id = (SELECT q.id FROM message q"  # noqa: S608
    " WHERE q.file_id = f.id AND q.run = ? AND q.status = 'queued' AND q.not_before > ? ORDER BY q.not_before LIMIT 1)"
    f" WHERE f.broadcast_id = ? AND {SENDABLE} ORDER BY m.not_before LIMIT 1"
)
# In the order of the lines, which COALESCE keeps the index of the queue from.
_HELD_AFTER = (
    "SELECT m.id, m.line FROM message m WHERE m.file_id = ? AND m.run = ? AND m.line > ?"
    " AND COALESCE(m.status, '') = 'queued' AND m.cause = ? AND m.not_before > ? ORDER BY m.line LIMIT ?"
)
STEP = 2_000
RETRY = "retry"


class PutOff(NamedTuple):
    """The next one of those who wait: until when (ms), and the code of what for: HELD or RETRY."""

    until: int
    code: str


def put_off(broadcast_id: int, run: int, after: int) -> PutOff | None:
    """Whose turn comes next of those whose time lies after that moment (ms); None when there is nobody."""
    found = db.rows(_PUT_OFF, [run, after, broadcast_id])
    return PutOff(found[0][0], HELD if found[0][1] == HELD else RETRY) if found else None


def wake(broadcast_id: int, run: int) -> None:
    """Let everybody who is held be looked at anew, in short transactions: the quiet hours have changed."""
    if put_off(broadcast_id, run, clock.now()) is None:
        return
    for (file_id,) in db.rows(
        f"SELECT f.id FROM recipient_file f WHERE f.broadcast_id = ? AND {SENDABLE}",  # noqa: S608
        [broadcast_id],
    ):
        line = -1  # who is held again meanwhile has been passed already
        while found := db.rows(_HELD_AFTER, [file_id, run, line, HELD, clock.now(), STEP]):
            line = found[-1][1]
            with db.write():
                db.execute(
                    "UPDATE message SET not_before = 1, cause = NULL WHERE status = 'queued' AND cause = ?"
                    " AND id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
                    [HELD, json.dumps([id_ for id_, _line in found])],
                )
