"""Who of the queue will be passed over, or has received this text lately.

No index knows the numbers in the queue, so the queue is gone through: at once where it is short, else in small
steps by the worker, and what was counted is kept until something that it depends on has changed. Nothing is
counted at all where nobody can be found.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from worker import broadcasts, clock, db, optouts
from worker.models import Broadcast, Overlap
from worker.states import GOT, TAKEN, sql_list

LATELY = 30 * clock.DAY  # for so long it matters that somebody has received the same text
OTHERS = 50  # broadcasts with the same text, the latest ones
SHORT = 2_000  # a queue that is gone through while a person waits for the page
STEP = 2_000
NOTE_EVERY = clock.SECOND
ABANDONED = 10 * clock.SECOND  # whoever counted and has noted nothing for so long is gone
STEADY = 10 * clock.MINUTE  # what goes on all the time elsewhere is heeded so often


class Same(NamedTuple):
    """A broadcast whose messages said the same; `version`: those of this version of its text."""

    id: int
    version: int
    last_at: int


@dataclass
class Found:
    """How many of the queue: `received` the same text lately, for the last time at `last_at` (ms); are on the stop
    list by now (`stopped`), or on the one for `marketing`; got any broadcast within the days of the cool-down
    (`cooling`)."""

    received: int = 0
    last_at: int = 0
    stopped: int = 0
    marketing: int = 0
    cooling: int = 0

    @property
    def skipped(self) -> int:
        """How many of the queue will get nothing: whoever is in one of these numbers is in no other."""
        return self.stopped + self.marketing + self.cooling


@dataclass(frozen=True)
class Question:
    """What is to be found out about the queue of one broadcast."""

    broadcast: Broadcast
    same: list[Same]
    files: list[tuple[int, int, int]]  # (id, how many of it are in the queue, when it was checked)
    stopped: bool  # whether the stop list may have grown since
    marketing: bool
    news: int  # of the stop list

    @property
    def queued(self) -> int:
        return sum(n for _file, n, _checked in self.files)

    @property
    def idle(self) -> bool:
        """Whether nobody can be found."""
        asked = self.same or self.stopped or self.marketing or self.broadcast.cooldown_days
        return not (asked and self.queued)

    @property
    def mark(self) -> str:
        """Changes with everything that the answer depends on."""
        row, steady = self.broadcast, [(one.id, one.version, one.last_at // STEADY) for one in self.same]
        own = (row.run, row.text_version, row.cooldown_days, self.files, self.marketing)
        return hashlib.sha256(repr((own, steady, self.news // STEADY)).encode()).hexdigest()


def queue(broadcast: Broadcast) -> list[tuple[int, int, int]]:
    """Its files: (id, how many of it are in the queue, when it was checked)."""
    return db.rows(
        "SELECT f.id, c.n, COALESCE(f.checked_at, 0) FROM counter c JOIN recipient_file f ON f.id = c.file_id"
        " WHERE c.broadcast_id = ? AND c.run = ? AND c.status = 'queued' AND c.n > 0 ORDER BY f.id",
        [broadcast.id, broadcast.run],
    )


def question(broadcast: Broadcast) -> Question:
    """What to look for in the queue; a few short reads."""
    files = queue(broadcast)
    news = int(db.value("SELECT at FROM opt_out ORDER BY id DESC LIMIT 1") or 0)
    marketing = broadcasts.is_marketing(broadcast) and bool(
        db.value("SELECT 1 FROM opt_out WHERE scope = ? LIMIT 1", [optouts.MARKETING])
    )
    grown = any(news >= checked for _file, _n, checked in files)
    return Question(broadcast, same_text(broadcast), files, grown, marketing, news)


def same_text(broadcast: Broadcast) -> list[Same]:
    """The broadcasts by which the same text or template left lately, latest first; earlier runs of this one too."""
    what, values = "b.text = ?", [broadcast.text]
    if broadcast.template_name:
        what = "b.template_name = ? AND b.template_language = ?"
        values = [broadcast.template_name, broadcast.template_language]
    elif not broadcast.text:
        return []
    # In its first run it reaches nobody twice, unless it is told to.
    own = broadcast.id if broadcast.run == 1 and broadcast.ignore_duplicates else 0
    found = db.rows(
        "SELECT b.id, b.text_version, b.last_sent_at FROM broadcast b WHERE b.kind = 'list' AND b.last_sent_at >= ?"  # noqa: S608
        f" AND b.id <> ? AND {what} ORDER BY b.last_sent_at DESC LIMIT ?",
        [clock.now() - LATELY, own, *values, OTHERS],
    )
    return [Same(*row) for row in found]


def of(asked: Question) -> Found | None:
    """The answer; None while it is being counted, which `tasks.count_overlap` begins."""
    if asked.idle:
        return Found()
    if asked.queued <= SHORT:
        found = Found()
        for file_id, _n, _checked in asked.files:
            place: Place | None = Place(file_id)
            while place is not None:
                place = _step(asked, place, found)
        return found
    kept = Overlap.get_or_none((Overlap.broadcast_id == asked.broadcast.id) & (Overlap.mark == asked.mark))
    return Found(**kept.body["found"]) if kept is not None and kept.done else None


def count(broadcast_id: int) -> None:
    """Go through the queue and keep the answer; takes up what another process left. Nothing while one is at it."""
    broadcast = Broadcast.get_or_none(Broadcast.id == broadcast_id)
    if broadcast is None or broadcast.state == "running":
        return
    asked = question(broadcast)
    if asked.idle or asked.queued <= SHORT:
        return
    body = _begin(asked)
    if body is None:
        return
    found, begun = Found(**body["found"]), Place(*body["place"]) if body["place"] else None
    noted = clock.now()
    for file_id, _n, _checked in asked.files:
        if begun is not None and file_id < begun.file_id:
            continue
        place: Place | None = begun if begun is not None and begun.file_id == file_id else Place(file_id)
        while place is not None:
            began = clock.monotonic()
            place = _step(asked, place, found)
            if clock.now() - noted >= NOTE_EVERY and place is not None:
                if not _note(asked, found, place, done=False):
                    return
                noted = clock.now()
            clock.sleep(min(clock.monotonic() - began, 0.1))  # sending goes first
    _note(asked, found, None, done=True)


def _begin(asked: Question) -> dict[str, Any] | None:
    """Take the count up; None when it is done, or another process is at it."""
    fresh = {"found": asdict(Found()), "place": None}
    with db.write():
        kept = Overlap.get_or_none(Overlap.broadcast_id == asked.broadcast.id)
        if kept is not None and kept.mark == asked.mark:
            if kept.done or kept.at > clock.now() - ABANDONED:
                return None
            fresh = kept.body
        values = {"mark": asked.mark, "body": fresh, "done": False, "at": clock.now()}
        Overlap.insert(broadcast_id=asked.broadcast.id, **values).on_conflict(
            conflict_target=[Overlap.broadcast_id], update=values
        ).execute()
    return fresh


def _note(asked: Question, found: Found, place: Place | None, done: bool) -> bool:
    """Keep how far it went; False when something else is asked by now, or it is being sent."""
    body = {"found": asdict(found), "place": place}
    with db.write():
        same = (Overlap.broadcast_id == asked.broadcast.id) & (Overlap.mark == asked.mark)
        kept = Overlap.update(body=body, done=done, at=clock.now()).where(same).execute()
        begun = db.value("SELECT epoch FROM broadcast WHERE id = ?", [asked.broadcast.id]) != asked.broadcast.epoch
    return bool(kept) and not begun


class Place(NamedTuple):
    """How far one file has been gone through, in the order of the queue."""

    file_id: int
    not_before: int = -(2**62)
    id: int = 0


_LEFT = f"o.phone = m.phone AND o.status <> 'queued' AND o.status IN {sql_list(TAKEN)} AND o.sending_at > ?"
_RECEIVED = (
    f"(SELECT MAX(o.sending_at) FROM message o WHERE {_LEFT}"  # noqa: S608
    " AND (o.broadcast_id, o.text_version) IN (VALUES {same}))"
)
_STOPPED = "EXISTS (SELECT 1 FROM opt_out s WHERE s.phone = m.phone AND s.scope = ?)"
# As the sender skips them.
_COOLING = (
    f"EXISTS (SELECT 1 FROM message o JOIN broadcast b ON b.id = o.broadcast_id WHERE {_LEFT}"  # noqa: S608
    f" AND o.status IN {sql_list(GOT)} AND b.kind = 'list' AND (o.broadcast_id <> m.broadcast_id OR o.run <> m.run))"
)


def _step(asked: Question, place: Place, found: Found) -> Place | None:
    """Look at the next few of one file and add to `found`; where to go on, None at its end."""
    now, row = clock.now(), asked.broadcast
    received, values = "NULL", []
    if asked.same:
        received = _RECEIVED.format(same=", ".join("(?, ?)" for _ in asked.same))
        values = [now - LATELY, *(value for one in asked.same for value in one[:2])]
    cooling, since = ("0", []) if not row.cooldown_days else (_COOLING, [now - row.cooldown_days * clock.DAY])
    seen = [*values, optouts.ALL, optouts.MARKETING if asked.marketing else "", *since, place.file_id, row.run]
    rows: list[tuple[Any, ...]] = []
    # By the index of the queue, which holds nothing else; as one condition it would lead to the beginning each time.
    for after, by in (("= ? AND m.id > ?", [place.not_before, place.id]), ("> ?", [place.not_before])):
        rows += db.rows(
            f"SELECT m.not_before, m.id, {received}, {_STOPPED}, {_STOPPED}, {cooling}"  # noqa: S608
            " FROM message m INDEXED BY message_queue WHERE m.file_id = ? AND m.run = ? AND m.status = 'queued'"
            f" AND m.not_before {after} ORDER BY m.not_before, m.id LIMIT ?",
            [*seen, *by, STEP - len(rows)],
        )
    for _not_before, _id, at, stopped, marketing, cools in rows:
        found.stopped += stopped
        found.marketing += marketing and not stopped
        found.cooling += cools and not stopped
        if at is not None:
            found.received += 1
            found.last_at = max(found.last_at, at)
    return Place(place.file_id, *rows[-1][:2]) if len(rows) == STEP else None
