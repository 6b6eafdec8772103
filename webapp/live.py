"""A broadcast, its files and its controls as pages show them right now; everything cheap enough to poll."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import url_for

from webapp import sentences
from worker import broadcasts, clock, db, quiet, recipients, reports, undo, watchdog
from worker.models import Broadcast, RecipientFile, Run
from worker.states import MESSAGE_STATUSES, TAKEN

MEASURED = clock.MINUTE  # a speed is news for as long as it was measured over
SHOWN_PROBLEMS = 50


def face(broadcast: Broadcast, numbers: Mapping[str, int], finished_at: int | None) -> str:
    """The state as people see it: a finished broadcast awaits reports, is completed, or has uncertain ones."""
    if broadcast.state != "finished":
        return str(broadcast.state)
    if not broadcasts.is_completed(broadcast, numbers, finished_at):
        return "awaiting"
    return "uncertain" if numbers["uncertain"] else "finished"


@dataclass(frozen=True)
class Live:
    """What the live part of a broadcast's page is drawn from."""

    broadcast: Broadcast
    numbers: dict[str, int]
    run: Run | None
    face: str
    eta: int | None
    why: Mapping[str, Any] | None  # what it waits for, as the watchdog sees it
    checking: bool

    @property
    def every(self) -> int | None:
        """Seconds between two looks at it; None when nothing can change by itself."""
        if self.face == "running" or self.checking:
            return 1
        return 5 if self.face in ("scheduled", "stopped", "awaiting") else None

    @property
    def parts(self) -> list[tuple[str, int, str]]:
        """(status, number, where its rows are) for the balance line."""
        return [(status, self.numbers[status], self._rows(status)) for status in MESSAGE_STATUSES]

    @property
    def all_rows(self) -> str:
        return self._rows(None)

    def _rows(self, status: str | None) -> str:
        return url_for(
            "reports.report", number=self.broadcast.id, run=self.broadcast.run, status=status, _anchor="messages"
        )

    @property
    def sent(self) -> int:
        return reports.taken(self.numbers)

    @property
    def not_sent(self) -> list[tuple[str, int, str]]:
        """The parts of the balance that no provider has taken over, as in `parts`."""
        return [part for part in self.parts if part[0] not in TAKEN and part[1]]

    @property
    def gone(self) -> int:
        """How many have left the queue, whatever became of them: they stay in the report."""
        return self.numbers["total"] - self.numbers["queued"] - self.numbers["cancelled"]

    @property
    def ahead(self) -> bool:
        """Whether Start means: at the start time."""
        return broadcasts.lies_ahead(self.broadcast)

    @property
    def left(self) -> int:
        return broadcasts.left(self.numbers)

    @property
    def whole(self) -> bool:
        """Whether nobody of the list has left the queue."""
        return self.numbers["queued"] == self.numbers["total"]

    @property
    def in_canary(self) -> bool:
        """Whether only some people get their message before it stops by itself."""
        return bool(self.broadcast.canary) and not self.canary_sent

    @property
    def canary_sent(self) -> bool:
        return broadcasts.canary_through(self.broadcast)

    @property
    def canary_left(self) -> int:
        """How many of the canary still have to go out."""
        return max(0, (self.broadcast.canary or 0) - self.done)

    @property
    def done(self) -> int:
        """How many need nothing more from the sender."""
        return self.numbers["total"] - self.left

    @property
    def speed(self) -> int:
        """Messages that left within the last minute, as a rate."""
        last = self.broadcast.last_sent_at
        fresh = last is not None and clock.now() - last < MEASURED
        return int(self.broadcast.speed) if fresh else 0

    @property
    def channel_limit(self) -> int | None:
        """Messages per minute that the channel lets through, when that is less than what was asked for."""
        rate = broadcasts.effective_rate(self.broadcast)
        return round(rate) if rate < self.broadcast.rate_per_minute else None

    @property
    def stopped(self) -> str:
        """Why it stands still, in words."""
        if self.broadcast.state != "stopped":
            return ""
        return sentences.stop_reason(self.broadcast.stop_reason, self.broadcast.stop_detail)

    @property
    def cure(self) -> str:
        """What to do about the cause of a stop, in words; empty when a person stopped it."""
        detail = self.broadcast.stop_detail or {}
        if self.broadcast.state != "stopped" or not detail.get("cause"):
            return ""
        channel = self.broadcast.channel
        if self.broadcast.stop_reason == "channel" and channel is not None and channel.state == "on":
            return sentences.channel_again()
        found = sentences.cause(detail["cause"], detail.get("text"))
        return found["advice"] if found else ""

    @property
    def waiting(self) -> str:
        """Why it does not move, in words; empty while it moves."""
        return sentences.waiting(self.why)

    @property
    def alarm(self) -> bool:
        """Whether it stands until a person does something."""
        return self.why is not None and self.why["code"] in watchdog.NEEDS_A_PERSON

    @property
    def waiting_cure(self) -> str:
        return sentences.waiting_advice(self.why)

    @property
    def late(self) -> str:
        """By how much a scheduled start was late because the server was down; empty when it was not."""
        return sentences.late_start(self.broadcast.send_at, self.run.started_at if self.run else None)

    @property
    def cleared(self) -> int:
        """How many files a Clear has just removed, while it can be taken back."""
        return len(undo.clear_offered(self.broadcast)) if self.broadcast.state == "draft" else 0

    @property
    def mark(self) -> str:
        """Changes with everything that the picture depends on, and every ten seconds: "2 minutes ago" ages."""
        row = self.broadcast
        found = (row.state, row.epoch, row.run, row.stop_reason, row.rate_per_minute, row.send_at, row.updated_at)
        activity = (
            row.speed,
            self.waiting,
            self.face,
            self.checking,
            self.channel_limit,
            self.cleared,
            clock.now() // 10_000,
        )
        return f"{zlib.crc32(repr((*found, *activity, *self.numbers.values())).encode()):08x}"


def live(broadcast: Broadcast) -> Live:
    """Look at one broadcast: a handful of indexed reads, whatever its size."""
    numbers = broadcasts.count(broadcast, broadcast.run)
    run = reports.run_of(broadcast, broadcast.run)
    shown = face(broadcast, numbers, run.finished_at if run else None)
    checking = broadcasts.is_checking(broadcast)
    why = watchdog.why(broadcast)
    return Live(broadcast, numbers, run, shown, broadcasts.eta(broadcast, numbers), why, checking)


class Item(NamedTuple):
    """One line of a list of broadcasts."""

    broadcast: Broadcast
    numbers: dict[str, int]
    face: str
    channel: str

    @property
    def sent(self) -> int:
        return reports.taken(self.numbers)

    @property
    def done(self) -> int:
        return self.numbers["total"] - broadcasts.left(self.numbers)

    @property
    def lost(self) -> int:
        return self.numbers["failed"] + self.numbers["undelivered"]

    @property
    def arrived(self) -> int:
        return self.numbers["delivered"] + self.numbers["read"]

    @property
    def why(self) -> str:
        """Who or what has stopped it; "" while it is not stopped."""
        if self.broadcast.state != "stopped":
            return ""
        return sentences.stop_cause(self.broadcast.stop_reason, self.broadcast.stop_detail)


def items(found: Sequence[Broadcast], channel_names: Mapping[int, str]) -> list[Item]:
    """The lines of a list, in three reads however long it is."""
    if not found:
        return []
    numbers, ended = broadcasts.count_each(found), broadcasts.finished_at_each(found)
    return [
        Item(b, numbers[b.id], face(b, numbers[b.id], ended[b.id]), channel_names.get(b.channel_id or 0, ""))
        for b in found
    ]


# --- files ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileShown:
    """One file with what its check found."""

    file: RecipientFile
    queued: int
    left_queue: int
    same: RecipientFile | None

    @property
    def rejected(self) -> dict[str, int]:
        """duplicates, invalid, opted_out and blank; with the accepted ones they are all the rows."""
        return recipients.breakdown(self.file.rejected)

    @property
    def zone_column(self) -> str | None:
        """The column that says in which time zone a recipient lives, which quiet hours need; None without one."""
        at = quiet.zone_column(self.file.columns)
        return None if at is None else str(self.file.columns[at])

    @property
    def listed(self) -> int:
        """How many rows stand in the list of problems: all that were refused but the blank ones."""
        return sum(n for code, n in self.file.rejected.items() if code != "blank_row")

    @property
    def problems(self) -> list[tuple[Any, str]]:
        """The first refused rows, each with its sentence."""
        rows = recipients.errors(self.file.id, 0, SHOWN_PROBLEMS) if self.file.state != "checking" else []
        return [(row, sentences.row_reason(row.code, row.line, row.value, row.column, row.other)) for row in rows]

    @property
    def refusal(self) -> str:
        return sentences.file_code(self.file.code, self.file.detail) if self.file.code else ""

    @property
    def can_be_checked_again(self) -> bool:
        return self.left_queue == 0 and self.file.removed_at is None


def file(row: RecipientFile) -> FileShown:
    """One file, from its own row and the counters."""
    queued, gone = recipients.removal_numbers(row)
    return FileShown(row, queued, gone, recipients.same_content(row))


def files(broadcast: Broadcast) -> list[FileShown]:
    """The files that were not removed, oldest first."""
    return [file(row) for row in broadcasts.live_files(broadcast)]


def lists(broadcast: Broadcast | None) -> dict[str, Any]:
    """What the section of the recipients is drawn from."""
    if broadcast is None:
        return {"files": [], "removed": [], "back": []}
    return {"files": files(broadcast), "removed": _kept(broadcast), "back": undo.offered(broadcast)}


def _kept(broadcast: Broadcast) -> list[tuple[str, int]]:
    """Names of files that were deleted while their recipients stayed in the queue, with how many still wait."""
    return [
        (name, n)
        for name, n in db.rows(
            "SELECT f.name, c.n FROM counter c JOIN recipient_file f ON f.id = c.file_id"
            " WHERE c.broadcast_id = ? AND c.run = ? AND c.status = 'queued' AND c.n > 0"
            " AND f.removed_how = 'keep' ORDER BY f.id",
            [broadcast.id, broadcast.run],
        )
    ]
