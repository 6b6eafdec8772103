"""The facts of a report that no counter keeps: when messages left and arrived, how long that took, why others did not.

They are counted from the rows: at once for a small broadcast, for a large one by the worker while somebody looks,
into the table `snapshot`. Each statement reads one stretch of a file, so that none lasts; nothing is locked.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from worker import broadcasts, clock, db, reports
from worker.models import Broadcast, Snapshot

SMALL = 20_000  # messages that are counted while a person waits
STEP = 50_000  # lines of a file that one statement reads
FRESH, SHARE = 10 * clock.SECOND, 20  # counted anew after so long, and after so many times as long as it took
ALL_RUNS = 0
SERIES = ("sent", "delivered", "read", "replied")
BUCKETS = 60  # of the timeline, at most
SHOWN = 0.98  # of what happened lies within the timeline; the rest trickles in for days
_STEPS = [s * clock.SECOND for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)]
_STEPS += [h * clock.HOUR for h in (1, 2, 3, 6, 12, 24, 48, 168)]
# The ends of the classes in which times to delivery are shown, in seconds; the last class has no end.
CLASSES = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)
_MINUTES, _HOURS = 120, 7200  # from here on a time to delivery is counted in minutes, in hours

Tally = Counter[int]


class Timeline(NamedTuple):
    """How many messages got on by one step, in each stretch of `step` ms from `begin`; `later`: after the last."""

    begin: int
    step: int
    series: dict[str, list[int]]
    later: dict[str, int]


class Delays(NamedTuple):
    """How long delivery took, in seconds, of those that were delivered; None where nothing was.

    Whole seconds, from two minutes on whole minutes, from two hours on whole hours. `classes`: how many took less
    than each end of CLASSES and more than the one before; one more for the rest.
    """

    number: int
    median: int | None
    p95: int | None
    classes: list[int]


class Facts(NamedTuple):
    """What was counted of one run, or of all. `mark` changes with what can be counted; `causes`: (status, cause,
    number); `replied`: people."""

    mark: str
    made_at: int
    took: int
    timeline: Timeline | None
    delays: Delays
    causes: list[tuple[str, str, int]]
    replied: int


def facts(broadcast: Broadcast, run: int | None) -> tuple[Facts | None, bool]:
    """What is known, and whether the worker has to count anew; None when nothing has been counted yet."""
    numbers = broadcasts.count(broadcast, run)
    if numbers["total"] <= SMALL:
        return count(broadcast, run), False
    found = kept(broadcast.id, run)
    return found, found is None or is_stale(found, mark(numbers))


def is_stale(found: Facts, now: str) -> bool:
    """Whether something has changed, and so much time gone by that counting anew is worth what it costs."""
    return found.mark != now and clock.now() - found.made_at > max(FRESH, SHARE * found.took)


def mark(numbers: Mapping[str, int]) -> str:
    """Another one when a message has moved or somebody has replied."""
    last = db.value("SELECT MAX(id) FROM inbound")
    return f"{zlib.crc32(repr((sorted(numbers.items()), last)).encode()):08x}"


def kept(broadcast_id: int, run: int | None) -> Facts | None:
    """What the worker counted last."""
    number = run or ALL_RUNS
    row = Snapshot.get_or_none((Snapshot.broadcast_id == broadcast_id) & (Snapshot.run == number))
    if row is None:
        return None
    body = row.body
    timeline = Timeline(*body["timeline"]) if body["timeline"] else None
    causes = [(status, cause, n) for status, cause, n in body["causes"]]
    return Facts(body["mark"], row.made_at, row.took, timeline, Delays(*body["delays"]), causes, body["replied"])


_counting = threading.Lock()


def renew(broadcast_id: int, run: int) -> bool:
    """Count a large broadcast and keep the result, unless that has just been done or is being done here."""
    if not _counting.acquire(blocking=False):
        return False
    try:
        broadcast = Broadcast.get_or_none(Broadcast.id == broadcast_id)
        if broadcast is None or not facts(broadcast, run or None)[1]:
            return False
        keep(broadcast_id, run, count(broadcast, run or None))
        return True
    finally:
        _counting.release()


def keep(broadcast_id: int, run: int, found: Facts) -> None:
    """Store what was counted in place of what was known."""
    body = {
        "mark": found.mark,
        "timeline": found.timeline,
        "delays": found.delays,
        "causes": found.causes,
        "replied": found.replied,
    }
    with db.write():
        db.execute(
            "INSERT INTO snapshot (broadcast_id, run, made_at, took, body) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (broadcast_id, run) DO UPDATE SET made_at = excluded.made_at, took = excluded.took,"
            " body = excluded.body",
            [broadcast_id, run, found.made_at, found.took, json.dumps(body, ensure_ascii=False)],
        )


# --- counting ---------------------------------------------------------------------------------------


def count(broadcast: Broadcast, run: int | None) -> Facts:
    """Go over all messages of a run (None: of all runs)."""
    began, made_at, now = clock.monotonic(), clock.now(), mark(broadcasts.count(broadcast, run))
    unit = _unit(broadcast, run)
    times: dict[str, Tally] = {name: Counter() for name in SERIES}
    delays: Tally = Counter()
    for stretch in _stretches(broadcast, run):
        for name in ("sent", "delivered", "read"):
            times[name].update(_grouped(f"{name}_at / {unit}", f"{name}_at IS NOT NULL", stretch))
        delays.update(_grouped(_DELAY, "delivered_at IS NOT NULL AND sent_at IS NOT NULL", stretch))
    sql, parameters = reports.answers(broadcast.id, run)
    times["replied"].update(dict(db.rows(f"SELECT i.at / {unit}, COUNT(*) {sql} GROUP BY 1", parameters)))
    people = reports.replied(broadcast.id, run)
    causes = reports.cause_groups(broadcast, run)
    took = round((clock.monotonic() - began) * 1000)
    return Facts(now, made_at, took, _timeline(times, unit), _delays(delays), causes, people)


_DELAY = (
    "CASE WHEN delivered_at <= sent_at THEN 0"
    f" WHEN delivered_at - sent_at < {_MINUTES * 1000} THEN (delivered_at - sent_at) / 1000"
    f" WHEN delivered_at - sent_at < {_HOURS * 1000} THEN (delivered_at - sent_at) / 60000 * 60"
    " ELSE (delivered_at - sent_at) / 3600000 * 3600 END"
)


def _grouped(value: str, where: str, stretch: tuple[int, int, int, int]) -> dict[int, int]:
    """How often each value occurs among the messages of a stretch."""
    sql = (
        f"SELECT {value}, COUNT(*) FROM message WHERE file_id = ? AND run = ? AND line > ? AND line <= ?"  # noqa: S608
        f" AND {where} GROUP BY 1"
    )
    return dict(db.rows(sql, stretch))


def _stretches(broadcast: Broadcast, run: int | None) -> Iterator[tuple[int, int, int, int]]:
    """(file, run, after this line, up to this line) of every part of the run that one statement reads."""
    for number, file_id in reports.lists_of(broadcast, reports.Filter(run=run)):
        last = int(db.value("SELECT MAX(line) FROM message WHERE file_id = ? AND run = ?", [file_id, number]) or 0)
        for line in range(0, last, STEP):
            yield file_id, number, line, line + STEP


def _unit(broadcast: Broadcast, run: int | None) -> int:
    """The ms in which times are counted: as fine as it may be shown, as coarse as keeps the groups few."""
    last = broadcast.last_sent_at or 0
    begun = [one.started_at or last for one in reports.runs(broadcast) if run is None or one.number == run]
    span = last - min(begun, default=last)
    if span <= 5 * clock.MINUTE:
        return clock.SECOND
    return 10 * clock.SECOND if span <= 6 * clock.HOUR else clock.MINUTE


def _timeline(times: dict[str, Tally], unit: int) -> Timeline | None:
    """The counted times in stretches that a picture can show; None when nothing has happened."""
    moments = sorted(at for tally in times.values() for at in tally)
    if not moments:
        return None
    everything: Tally = sum(times.values(), Counter())
    begin = moments[0]
    end = max(times["sent"], default=begin)
    end = max(end, _at_share(everything, SHOWN))
    step = next((s for s in _STEPS if s >= unit and (end + 1 - begin) * unit <= s * BUCKETS), _STEPS[-1])
    begin = begin * unit // step * step
    number = min(BUCKETS + 1, (end * unit - begin) // step + 1)
    series = {name: [0] * number for name in SERIES}
    later = dict.fromkeys(SERIES, 0)
    for name, tally in times.items():
        for at, n in tally.items():
            place = (at * unit - begin) // step
            if place < number:
                series[name][place] += n
            else:
                later[name] += n
    return Timeline(begin, step, series, later)


def _at_share(tally: Tally, share: float) -> int:
    """The value that this share of all lie at or below."""
    left = share * tally.total()
    value = 0
    for value in sorted(tally):
        left -= tally[value]
        if left <= 0:
            break
    return value


def _delays(tally: Tally) -> Delays:
    number = tally.total()
    if not number:
        return Delays(0, None, None, [])
    classes = [0] * (len(CLASSES) + 1)
    for seconds, n in tally.items():
        classes[_class_of(seconds, CLASSES)] += n
    return Delays(number, _at_share(tally, 0.5), _at_share(tally, 0.95), classes)


def _class_of(seconds: int, ends: Iterable[int]) -> int:
    return sum(seconds >= end for end in ends)


def as_json(found: Facts | None) -> dict[str, Any]:
    """The facts as the API gives them; times in ISO 8601, lengths in seconds; null before anything was counted."""
    if found is None:
        return dict.fromkeys(("as_of", "replied", "time_to_delivery", "timeline"))
    timeline, delays = found.timeline, found.delays
    ends = zip((*CLASSES, None), delays.classes, strict=False)
    return {
        "as_of": clock.iso(found.made_at),
        "replied": found.replied,
        "time_to_delivery": {
            "delivered": delays.number,
            "median": delays.median,
            "p95": delays.p95,
            "classes": [{"below": end, "n": n} for end, n in ends],
        },
        "timeline": {
            "begin": clock.iso(timeline.begin),
            "step": timeline.step // clock.SECOND,
            **timeline.series,
            "later": timeline.later,
        }
        if timeline
        else None,
    }
