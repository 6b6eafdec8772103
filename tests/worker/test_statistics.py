"""What is counted from the rows is right, bounded, and kept for those who look."""

from __future__ import annotations

import pytest

from tests import make
from tests.conftest import Clock
from worker import clock, counters, db, statistics
from worker.models import Broadcast, Message, RecipientFile, Run, Snapshot
from worker.settings import Settings

SECOND, MINUTE = clock.SECOND, clock.MINUTE


@pytest.fixture
def file(database: Settings, frozen: Clock) -> RecipientFile:
    """A list of a run that began just now."""
    row = make.broadcast(state="finished", last_sent_at=frozen.ms + MINUTE)
    Run.update(started_at=frozen.ms).where(Run.broadcast == row.id).execute()
    return make.file(row, run=1)


def delivered(file: RecipientFile, after: int, number: int = 1, **columns: int) -> list[Message]:
    """Messages that were delivered so many ms after they were sent."""
    sent = clock.now()
    return make.messages(file, *["delivered"] * number, sent_at=sent, delivered_at=sent + after, **columns)


def count(file: RecipientFile, run: int | None = 1) -> statistics.Facts:
    return statistics.count(file.broadcast, run)


def test_nothing_has_happened_yet(file: RecipientFile) -> None:
    make.messages(file, "queued")
    found = count(file)
    assert found.timeline is None
    assert found.delays == statistics.Delays(0, None, None, [])
    assert (found.causes, found.replied) == ([], 0)


def test_the_timeline_has_everybody_at_their_time(file: RecipientFile, frozen: Clock) -> None:
    delivered(file, 3 * SECOND, 4)
    frozen.tick(seconds=30)
    delivered(file, 3 * SECOND, 2, read_at=frozen.ms + 8 * SECOND)
    found = count(file).timeline
    assert found is not None
    assert {name: sum(counts) + found.later[name] for name, counts in found.series.items()} == {
        "sent": 6,
        "delivered": 6,
        "read": 2,
        "replied": 0,
    }
    first, last = found.series["sent"][0], (30 * SECOND) // found.step
    assert (first, found.series["sent"][last]) == (4, 2)
    assert found.begin <= frozen.ms - 30 * SECOND < found.begin + found.step


@pytest.mark.parametrize("hours", [0.01, 1, 30, 24 * 30])
def test_the_timeline_is_short_however_long_it_took(file: RecipientFile, frozen: Clock, hours: float) -> None:
    delivered(file, SECOND, 3)
    frozen.tick(hours=hours)
    delivered(file, SECOND, 3)
    Broadcast.update(last_sent_at=frozen.ms).where(Broadcast.id == file.broadcast_id).execute()
    found = count(file).timeline
    assert found is not None
    assert 2 <= len(found.series["sent"]) <= statistics.BUCKETS + 1
    assert sum(found.series["sent"]) == 6


def test_what_trickles_in_for_days_does_not_squeeze_the_picture(file: RecipientFile, frozen: Clock) -> None:
    delivered(file, SECOND, 199)
    delivered(file, SECOND, 1, read_at=frozen.ms + 70 * clock.HOUR)
    found = count(file).timeline
    assert found is not None
    assert found.later == {"sent": 0, "delivered": 0, "read": 1, "replied": 0}
    assert found.step * len(found.series["sent"]) < MINUTE


def test_times_to_delivery(file: RecipientFile) -> None:
    for after, number in ((-5, 1), (500, 9), (4_200, 80), (61 * MINUTE, 9), (26 * clock.HOUR, 1)):
        delivered(file, after, number)
    found = count(file).delays
    assert (found.number, found.median, found.p95) == (100, 4, 61 * 60)
    of_class = dict(zip((*statistics.CLASSES, None), found.classes, strict=True))
    assert {end: n for end, n in of_class.items() if n} == {1: 10, 5: 80, 6 * 3600: 9, None: 1}


def test_runs_are_counted_each_and_together(file: RecipientFile) -> None:
    (message,) = delivered(file, SECOND)
    make.messages(file, "failed", cause="131026")
    Broadcast.update(run=2).where(Broadcast.id == file.broadcast_id).execute()
    Run.create(broadcast=file.broadcast_id, number=2, started_at=clock.now())
    again = RecipientFile.get_by_id(file.id)
    (other,) = delivered(again, SECOND)
    for n, (phone, about) in enumerate([(message.phone, message.id), (message.phone, message.id), ("+7999", other.id)]):
        db.execute(
            "INSERT INTO inbound (channel_id, provider_id, phone, kind, text, message_id, broadcast_id, at, received_at)"
            " VALUES (1, ?, ?, 'text', 'hi', ?, ?, ?, ?)",
            [str(n), phone, about, file.broadcast_id, clock.now(), clock.now()],
        )
    first, second, both = (count(again, run) for run in (1, 2, None))
    assert [found.delays.number for found in (first, second, both)] == [1, 1, 2]
    assert [found.replied for found in (first, second, both)] == [1, 1, 2]
    assert (first.causes, second.causes) == ([("failed", "131026", 1)], [])


def test_a_small_broadcast_is_counted_at_once(file: RecipientFile) -> None:
    delivered(file, SECOND)
    found, due = statistics.facts(file.broadcast, 1)
    assert found is not None and found.delays.number == 1
    assert not due
    assert Snapshot.select().count() == 0


@pytest.fixture
def large(file: RecipientFile, monkeypatch: pytest.MonkeyPatch) -> RecipientFile:
    """A list that is not counted while a person waits."""
    monkeypatch.setattr(statistics, "SMALL", 2)
    monkeypatch.setattr(statistics, "STEP", 2)
    delivered(file, SECOND, 5)
    return file


def test_a_large_one_is_counted_by_the_worker_and_kept(large: RecipientFile, frozen: Clock) -> None:
    row = large.broadcast
    assert statistics.facts(row, 1) == (None, True)
    assert statistics.renew(row.id, 1)
    found, due = statistics.facts(row, 1)
    assert found is not None and not due
    assert found == statistics.count(row, 1)
    assert statistics.facts(row, None) == (None, True)
    assert statistics.renew(row.id, statistics.ALL_RUNS)
    assert not statistics.facts(row, None)[1]


def test_it_is_counted_anew_only_when_something_has_changed_and_not_all_the_time(
    large: RecipientFile, frozen: Clock
) -> None:
    row = large.broadcast
    statistics.renew(row.id, 1)
    frozen.tick(days=30)
    assert not statistics.facts(row, 1)[1], "nothing has changed"
    delivered(large, SECOND)
    assert statistics.facts(row, 1)[1]
    assert statistics.renew(row.id, 1)
    delivered(large, SECOND)
    assert not statistics.facts(row, 1)[1], "it was counted this very moment"
    assert not statistics.renew(row.id, 1)
    Snapshot.update(took=3_000).execute()
    frozen.tick(seconds=59)
    assert not statistics.facts(row, 1)[1], "counting takes 3 s: once a minute is enough"
    frozen.tick(seconds=2)
    assert statistics.facts(row, 1)[1]


def test_no_statement_reads_more_than_a_stretch(large: RecipientFile, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    rows = db.rows
    monkeypatch.setattr(
        db,
        "rows",
        lambda sql, parameters=(): (
            seen.append((parameters[2], parameters[3])) if "line <= ?" in sql else None,
            rows(sql, parameters),
        )[1],
    )
    statistics.count(large.broadcast, 1)
    assert seen and all(end - begin == statistics.STEP for begin, end in seen)
    assert max(end for _, end in seen) >= 6


def test_a_broadcast_that_is_gone_is_nobodys_concern(database: Settings) -> None:
    assert not statistics.renew(4711, 1)


def test_counting_blocks_no_writer(large: RecipientFile) -> None:
    began = statistics._stretches(large.broadcast, 1)
    next(began)
    with db.write():
        counters.add({(large.broadcast_id, 1, large.id, "sent"): 1})
    assert len(list(began)) == 2
