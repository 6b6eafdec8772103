"""Whom a message may be sent to now: nobody in their night, nobody who got another one a short time ago."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from tests.driving import Driven, draft, people, upload
from worker import broadcasts, counters, db, delivery, sender, sieve, watchdog
from worker.clock import HOUR, MINUTE
from worker.models import Broadcast, Channel, Message
from worker.providers import base

NIGHT = {"from": "21:00", "to": "09:00"}
ZONES = "phone,name,time zone"


def started(driven: Driven, sms: Channel, *rows: str, head: str = "phone,name", **values: Any) -> Broadcast:
    broadcast = draft(driven.settings, sms.id, **values)
    upload(driven.settings, broadcast, *rows, head=head)
    return broadcasts.start(driven.settings, Broadcast.get_by_id(broadcast.id), "test")


def fresh(broadcast: Broadcast) -> Broadcast:
    return Broadcast.get_by_id(broadcast.id)


def numbers(broadcast: Broadcast) -> dict[str, int]:
    """The counters that are not zero; they agree with the rows."""
    assert not counters.drift(broadcast.id)
    return {status: n for status, n in broadcasts.count(broadcast, None).items() if n}


# --- quiet hours ------------------------------------------------------------------------------------


def test_who_sleeps_waits_for_the_morning_and_the_others_do_not_wait(
    driven: Driven, sms: Channel, clock: Clock
) -> None:
    rows = ["+79010000001,A,Asia/Kamchatka", "+79010000002,B,", "+79010000003,C,UTC+12", "+79010000004,D,МСК"]
    broadcast = started(driven, sms, *rows, head=ZONES, quiet_hours=NIGHT)
    noon = clock.ms
    driven.run(2)
    assert driven.phones == ["+79010000002", "+79010000004"]
    assert numbers(broadcast) == {"total": 4, "queued": 2, "sent": 2}
    morning = noon + 12 * HOUR  # nine o'clock there: it is 21:00 in Kamchatka when it is noon in Moscow
    held = Message.select().where(Message.status == "queued")
    assert {(row.phone, row.not_before, row.cause) for row in held} == {
        ("+79010000001", morning, "quiet_hours"),
        ("+79010000003", morning, "quiet_hours"),
    }
    now = fresh(broadcast)
    assert (now.state, now.waiting) == ("running", {"code": "quiet_hours", "until": morning})
    make.worker()
    assert watchdog.why(now) == now.waiting
    driven.clock.ms = morning
    driven.run(2)
    assert numbers(broadcast) == {"total": 4, "sent": 4}
    assert fresh(broadcast).state == "finished" and len(set(driven.phones)) == 4
    assert not Message.select().where(Message.cause.is_null(False)).exists()


@pytest.mark.sqlite
def test_nothing_is_claimed_or_written_while_all_sleep(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=10)  # 22:00 in Moscow
    broadcast = started(driven, sms, *people(50), quiet_hours=NIGHT)
    driven.run(2)
    before = db.value("SELECT total_changes()")
    for _again in range(60):
        driven.run(1, step=0.2)
    assert not driven.sent and fresh(broadcast).state == "running"
    assert db.value("SELECT total_changes()") - before == 0


def test_the_morning_begins_at_the_rate_and_never_above_it(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=20, minutes=50)  # 08:50
    broadcast = started(driven, sms, *people(200), quiet_hours=NIGHT, rate=60)
    driven.run(11 * 60, step=0.5)
    nine = fresh(broadcast).created_at + 10 * MINUTE
    moments = [at for _phone, at in driven.sent]
    assert min(moments) >= nine
    assert 55 <= len(moments) <= 60
    assert sum(at < nine + 5_000 for at in moments) <= 6  # evenly from the first second on


def test_a_long_night_is_looked_through_in_short_turns(
    driven: Driven, sms: Channel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.tick(hours=10)
    broadcast = started(driven, sms, *people(6_000), quiet_hours=NIGHT)
    held = Message.select().where(Message.not_before > 0)
    most, before = 0, 0
    while held.count() < 6_000:
        assert driven.claim() == []
        clock.tick(seconds=sender.BREATH)
        most, before = max(most, held.count() - before), held.count()
    assert most <= sender.LOOKED + sender.LOOK_STEP
    monkeypatch.setattr(sender, "LOOK", -1.0)  # a slow disk: a turn is over after its first step
    sieve.wake(broadcast.id, 1)
    clock.tick(seconds=1)
    driven.claim()
    assert Message.select().where(Message.not_before > 1).count() <= sender.LOOK_STEP


@pytest.mark.parametrize(
    ("change", "goes"),
    [
        ({"quiet_hours": None}, 3),
        ({"quiet_hours": {"from": "23:00", "to": "08:00"}}, 3),
        ({"quiet_hours": {"from": "20:00", "to": "10:00"}}, 0),
        ({"timezone": "Europe/London"}, 3),
    ],
)
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_other_hours_let_go_at_once_who_is_awake_by_them(
    driven: Driven, sms: Channel, clock: Clock, change: dict[str, Any], goes: int, state: str
) -> None:
    clock.tick(hours=10)  # 22:00
    broadcast = started(driven, sms, *people(3), quiet_hours=NIGHT)
    driven.run(2)
    assert numbers(broadcast) == {"total": 3, "queued": 3}
    if state == "stopped" or "timezone" in change:
        broadcasts.stop(fresh(broadcast), "test")
    broadcasts.update(driven.settings, fresh(broadcast), change, "test")
    if fresh(broadcast).state == "stopped":
        broadcasts.resume(fresh(broadcast), "test")
    driven.run(3)
    assert len(driven.sent) == goes
    if not goes:
        assert fresh(broadcast).waiting["until"] == clock.ms - 5_000 + 12 * HOUR  # ten in the morning


def test_who_is_tried_again_later_is_not_let_go_with_the_sleepers(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=10)
    broadcast = started(driven, sms, "+79010000001,A,UTC+0", "+79010000002,B,", head=ZONES, quiet_hours=NIGHT)

    def later(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.LATER, "sms_throttled", retry_after=600)

    driven.answer = later
    driven.run(2)
    retry = Message.get(Message.phone == "+79010000001").not_before
    broadcasts.update(driven.settings, fresh(broadcast), {"quiet_hours": None}, "test")
    assert Message.get(Message.phone == "+79010000001").not_before == retry > clock.ms
    assert Message.get(Message.phone == "+79010000002").not_before == 1


def test_a_try_that_falls_into_the_night_waits_for_the_morning(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=8, minutes=55)  # 20:55
    broadcast = started(driven, sms, *people(1), quiet_hours=NIGHT)

    def later(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.LATER, "sms_throttled", retry_after=600)

    driven.answer = later
    driven.run(1)
    driven.answer = lambda out: base.Accepted("id")
    driven.run(15 * 60, step=1)
    assert len(driven.sent) == 1 and fresh(broadcast).waiting["code"] == "quiet_hours"
    clock.tick(hours=12)
    driven.run(5)
    assert numbers(broadcast) == {"total": 1, "sent": 1}


def test_a_night_survives_a_restart(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=10)
    broadcast = started(driven, sms, *people(10), quiet_hours=NIGHT)
    driven.run(2)
    driven.restart()
    driven.run(2)
    assert not driven.sent and fresh(broadcast).waiting["code"] == "quiet_hours"
    clock.tick(hours=11)
    driven.restart()
    driven.run(5)
    assert numbers(broadcast) == {"total": 10, "sent": 10}


def test_a_night_that_is_cleared_leaves_nobody_behind(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=10)
    broadcast = started(driven, sms, *people(10), quiet_hours=NIGHT)
    driven.run(2)
    broadcasts.clear(fresh(broadcast), "test")
    assert numbers(broadcast) == {"total": 10, "cancelled": 10}
    assert not Message.select().where(Message.cause.is_null(False)).exists()


def test_who_sleeps_and_opts_out_is_skipped(driven: Driven, sms: Channel, clock: Clock) -> None:
    from worker import optouts

    clock.tick(hours=10)
    broadcast = started(driven, sms, *people(2), quiet_hours=NIGHT)
    driven.run(2)
    with db.write():
        optouts.record("+79010000001", "test", "stop")
    clock.tick(hours=12)
    driven.run(2)
    assert numbers(broadcast) == {"total": 2, "sent": 1, "skipped": 1}
    assert Message.get(Message.status == "skipped").cause == "opted_out"


def test_the_end_is_told_with_the_nights_in_it(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=8)  # 20:00
    broadcast = started(driven, sms, *people(180), quiet_hours=NIGHT, rate=1)
    # An hour before the night, two after it.
    assert broadcasts.eta(fresh(broadcast), broadcasts.count(broadcast, 1)) == clock.ms + 15 * HOUR
    broadcasts.update(driven.settings, fresh(broadcast), {"quiet_hours": None}, "test")
    assert broadcasts.eta(fresh(broadcast), broadcasts.count(broadcast, 1)) == clock.ms + 3 * HOUR


# --- the break between two broadcasts ---------------------------------------------------------------


def history(days: float, clock: Clock, status: str = "sent", phone: str = "+79010000000", **columns: Any) -> None:
    """A message of another broadcast, so many days ago."""
    then = clock.ms - round(days * 24 * HOUR)
    make.messages(make.file(make.broadcast(state="finished", **columns)), status, phone=phone, sending_at=then)


@pytest.mark.parametrize(
    ("days", "status", "spared"),
    [
        (1, "sent", True),
        (2.9, "delivered", True),
        (1, "read", True),
        (1, "uncertain", True),
        (1, "undelivered", False),
        (3.1, "sent", False),
        (1, "failed", False),
        (1, "cancelled", False),
        (1, "skipped", False),
    ],
)
def test_who_got_a_broadcast_a_short_time_ago_is_spared(
    driven: Driven, sms: Channel, clock: Clock, days: float, status: str, spared: bool
) -> None:
    history(days, clock, status)
    broadcast = started(driven, sms, *people(2), cooldown_days=3)
    driven.run(2)
    assert numbers(broadcast) == ({"total": 2, "sent": 1, "skipped": 1} if spared else {"total": 2, "sent": 2})
    assert fresh(broadcast).state == "finished"
    if spared:
        skipped = Message.get((Message.status == "skipped") & (Message.broadcast_id == broadcast.id))
        assert (skipped.phone, skipped.cause) == ("+79010000000", "cooldown")


def test_without_a_break_nobody_is_spared(driven: Driven, sms: Channel, clock: Clock) -> None:
    history(1, clock)
    broadcast = started(driven, sms, *people(2))
    driven.run(2)
    assert numbers(broadcast) == {"total": 2, "sent": 2}


def test_an_answer_to_a_person_is_no_broadcast(driven: Driven, sms: Channel, clock: Clock) -> None:
    history(1, clock, kind="direct")
    broadcast = started(driven, sms, *people(2), cooldown_days=3)
    driven.run(2)
    assert numbers(broadcast) == {"total": 2, "sent": 2}


def test_a_second_run_spares_whom_the_first_one_reached(driven: Driven, sms: Channel, clock: Clock) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        if out.phone.endswith("1"):
            raise base.SendError(base.REFUSED, "sms_barred")
        return base.Accepted("id")

    driven.answer = answer
    broadcast = started(driven, sms, *people(3), cooldown_days=1)
    driven.run(2)
    broadcasts.restart(fresh(broadcast), "everyone", "test")
    broadcasts.copy_run(broadcast.id)
    driven.run(2)
    second = Counter({k: n for k, n in broadcasts.count(broadcast, 2).items() if n})
    assert second == {"total": 3, "failed": 1, "skipped": 2}


def test_the_same_number_twice_in_one_list_is_another_matter(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(
        driven, sms, "+79010000001,A", "+79010000001,B", ignore_duplicates=False, cooldown_days=1, rate=60
    )
    driven.run(3)
    assert numbers(broadcast) == {"total": 2, "sent": 2}


def test_two_broadcasts_at_once_reach_everybody_once(driven: Driven, sms: Channel, clock: Clock) -> None:
    both = [started(driven, sms, *people(40), cooldown_days=1, rate=600) for _each in range(2)]
    driven.run(15)
    assert len(driven.sent) == len(set(driven.phones)) == 40
    for broadcast in both:
        found = numbers(broadcast)
        assert found["sent"] + found["skipped"] == 40
        assert fresh(broadcast).state == "finished"


def test_many_nights_at_once_share_one_turn(
    driven: Driven, sms: Channel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.tick(hours=10)
    several = [started(driven, sms, *people(600, 1_000 * n), quiet_hours=NIGHT) for n in range(3)]
    monkeypatch.setattr(sender, "LOOK", -1.0)  # the first one has used up the time of all
    driven.claim()
    held = Message.select().where(Message.not_before > 0)
    assert held.count() == 3  # one each, so that none of them waits for the others
    monkeypatch.setattr(sender, "LOOK", 1.0)
    driven.run(5)
    assert held.count() == 1_800
    assert all(fresh(broadcast).waiting["code"] == "quiet_hours" for broadcast in several)


def test_whom_a_message_did_not_reach_gets_the_next_one_at_once(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(driven, sms, *people(2), cooldown_days=7)
    driven.run(2)
    with db.write():
        failed = [base.StatusUpdate("failed", clock.ms, row.provider_id, code="sms_absent") for row in Message.select()]
        delivery.apply_updates(sms.id, failed, clock.ms)
    clock.tick(hours=1)
    broadcasts.restart(fresh(broadcast), "undelivered", "test")
    broadcasts.copy_run(broadcast.id)
    driven.run(2)
    assert numbers(broadcast) == {"total": 4, "undelivered": 2, "sent": 2}
