"""Who of the queue has received the text before, or is on the stop list by now."""

from __future__ import annotations

from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import broadcasts, channels, db, optouts, overlap
from worker.models import Broadcast, Message, MessageTemplate, Overlap, RecipientFile
from worker.settings import Settings

HOUR = 3_600_000


def sent(text: str, phones: list[str], at: int, **columns: Any) -> Broadcast:
    """A broadcast that has left."""
    row = make.broadcast(text=text, state="finished", last_sent_at=at, **columns)
    file = make.file(row)
    for phone in phones:
        make.messages(file, "delivered", phone=phone, sending_at=at, sent_at=at, text_version=row.text_version)
    return row


def queued(phones: list[str], **columns: Any) -> Broadcast:
    row = make.broadcast(**columns)
    file = make.file(row, checked_at=1)
    for phone in phones:
        make.messages(file, "queued", phone=phone)
    return row


def found(row: Broadcast) -> overlap.Found | None:
    return overlap.of(overlap.question(Broadcast.get_by_id(row.id)))


def phones(*numbers: int) -> list[str]:
    return [f"+7901{n:07d}" for n in numbers]


def test_only_the_same_text_to_the_same_people_counts(database: Settings, clock: Clock) -> None:
    now = clock.now()
    sent("Sale", phones(1, 2, 9), now - 3 * HOUR)
    sent("Sale", phones(2), now - 5 * HOUR)
    sent("Other", phones(3), now - HOUR)
    sent("Sale", phones(4), now - 31 * 24 * HOUR)
    row = queued(phones(1, 2, 3, 4), text="Sale")
    assert found(row) == overlap.Found(received=2, last_at=now - 3 * HOUR)


def test_what_did_not_leave_was_not_received(database: Settings, clock: Clock) -> None:
    now = clock.now()
    other = sent("Sale", [], now)
    for n, status in enumerate(("failed", "skipped", "cancelled", "sent", "uncertain", "undelivered")):
        make.messages(RecipientFile.get(broadcast=other), status, phone=phones(n)[0], sending_at=now, text_version=1)
    row = queued(phones(0, 1, 2, 3, 4, 5), text="Sale")
    answer = found(row)
    assert answer is not None and answer.received == 3


def test_a_text_that_was_changed_since_is_another_one(settings: Settings, database: Settings, clock: Clock) -> None:
    channel = channels.ensure_sandbox(settings)[1]
    row = make.broadcast(text="Old", channel=channel, run=2, last_sent_at=clock.now())
    make.messages(make.file(row), "delivered", phone=phones(1)[0], run=1, sending_at=clock.now(), text_version=1)
    fresh = make.file(row, checked_at=clock.now(), run=2)
    make.messages(fresh, "queued", phone=phones(1)[0])
    answer = found(row)
    assert answer is not None and answer.received == 1  # its own earlier run
    changed, _again = broadcasts.update(settings, Broadcast.get_by_id(row.id), {"text": "New"}, "test")
    assert changed.text_version == 2 and found(changed) == overlap.Found()


def test_who_came_to_the_stop_list_since_is_counted(database: Settings, clock: Clock) -> None:
    row = queued(phones(1, 2, 3))
    RecipientFile.update(checked_at=clock.now()).execute()
    clock.tick(minutes=1)
    with db.write():
        optouts.record(phones(2)[0], "reply", "STOP")
        optouts.record(phones(8)[0], "reply", "STOP")
        optouts.record(phones(3)[0], "provider", scope=optouts.MARKETING)
    assert found(row) == overlap.Found(stopped=1)


def test_who_wants_no_advertising_counts_for_what_advertises(settings: Settings, database: Settings) -> None:
    waba = channels.ensure_sandbox(settings)[0]
    for name, category in (("ad", "MARKETING"), ("bill", "UTILITY")):
        values = {"name": name, "language": "ru", "status": "APPROVED", "category": category, "components": []}
        MessageTemplate.create(channel=waba, synced_at=1, **values)
    with db.write():
        optouts.record(phones(1)[0], "provider", scope=optouts.MARKETING)
    for name, expected in (("ad", 1), ("bill", 0)):
        row = queued(phones(1, 2), channel=waba, text=None, template_name=name, template_language="ru")
        answer = found(row)
        assert answer is not None and (answer.marketing, answer.stopped) == (expected, 0)


def test_the_break_counts_whoever_got_any_broadcast(database: Settings, clock: Clock) -> None:
    sent("Other", phones(1), clock.now() - 30 * HOUR)
    sent("Other", phones(2), clock.now() - 80 * HOUR)
    row = queued(phones(1, 2, 3), cooldown_days=2)
    assert found(row) == overlap.Found(cooling=1)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Broadcast:
    """A queue that is too long for a page to wait for."""
    monkeypatch.setattr(overlap, "SHORT", 1)
    monkeypatch.setattr(overlap, "STEP", 2)
    monkeypatch.setattr(overlap, "NOTE_EVERY", 0)
    sent("Sale", phones(1, 2, 3, 5), clock.now())
    return queued(phones(1, 2, 3, 4, 5), text="Sale")


def test_a_long_queue_is_counted_by_the_worker_and_kept(database: Settings, long: Broadcast) -> None:
    assert found(long) is None
    overlap.count(long.id)
    answer = found(long)
    assert answer is not None and answer.received == 4
    make.messages(RecipientFile.get(broadcast=long), "queued", phone=phones(6)[0])
    assert found(long) is None  # another queue, another answer


def test_a_count_that_was_broken_off_goes_on_where_it_was(
    database: Settings, long: Broadcast, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = overlap._step, []

    def dies(asked: overlap.Question, place: overlap.Place, answer: overlap.Found) -> overlap.Place | None:
        if len(seen) == 1:
            seen.append(None)
            raise KeyboardInterrupt
        seen.append(place)
        return step(asked, place, answer)

    monkeypatch.setattr(overlap, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        overlap.count(long.id)
    overlap.count(long.id)
    assert len(seen) == 2  # whoever counts may still be alive
    clock.tick(overlap.ABANDONED)
    overlap.count(long.id)
    assert seen[2] is not None and seen[2].id == Message.select().where(Message.status == "queued")[1].id
    answer = found(long)
    assert answer is not None and answer.received == 4


def test_nothing_is_counted_where_nobody_can_be_found(database: Settings, long: Broadcast) -> None:
    other = queued(phones(1, 2, 3), text="Nobody got this")
    assert found(other) == overlap.Found()
    overlap.count(other.id)
    assert not Overlap.select().where(Overlap.broadcast_id == other.id).exists()


def test_a_broadcast_that_starts_is_left_alone(database: Settings, long: Broadcast) -> None:
    Broadcast.update(state="running").where(Broadcast.id == long.id).execute()
    overlap.count(long.id)
    assert not Overlap.select().exists()


@pytest.mark.sqlite
def test_the_queue_is_read_by_its_index(database: Settings, long: Broadcast) -> None:
    made: list[str] = []
    rows = db.rows
    try:
        db.rows = lambda sql, values=(): made.append(sql) or rows(sql, values)  # type: ignore[assignment,func-returns-value]
        overlap._step(overlap.question(long), overlap.Place(1), overlap.Found())
    finally:
        db.rows = rows
    for sql, way in zip(made[-2:], ("not_before=? AND id>?", "not_before>?"), strict=True):
        plan = " ".join(row[3] for row in db.rows("EXPLAIN QUERY PLAN " + sql, [0] * sql.count("?")))
        assert f"USING INDEX message_queue (file_id=? AND run=? AND {way})" in plan, plan
        assert "USE TEMP B-TREE" not in plan
