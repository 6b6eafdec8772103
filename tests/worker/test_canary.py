"""A canary: a few get their message first, and nobody beyond them before a person says so."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conftest import Clock
from tests.driving import Driven, draft, people, upload
from worker import breaker, broadcasts, canary, counters, db, delivery, recipients
from worker.clock import HOUR
from worker.models import Broadcast, Channel, Message, RecipientFile
from worker.problems import Invalid
from worker.providers import base


def ready(driven: Driven, sms: Channel, *lists: list[str], **values: Any) -> Broadcast:
    """A draft with these lists, one file each."""
    broadcast = draft(driven.settings, sms.id, **values)
    for rows in lists:
        upload(driven.settings, broadcast, *rows)
    return fresh(broadcast)


def started(
    driven: Driven, sms: Channel, *lists: list[str], n: int = 20, pick: str = "first", **more: Any
) -> Broadcast:
    return broadcasts.start(driven.settings, ready(driven, sms, *lists, **more), "test", n, pick)


def fresh(broadcast: Broadcast) -> Broadcast:
    return Broadcast.get_by_id(broadcast.id)


def numbers(broadcast: Broadcast) -> dict[str, int]:
    """The counters that are not zero; they agree with the rows."""
    assert not counters.drift(broadcast.id)
    return {status: n for status, n in broadcasts.count(broadcast, None).items() if n}


def through(broadcast: Broadcast) -> bool:
    row = fresh(broadcast)
    return (row.state, row.stop_reason) == ("stopped", "canary")


def test_the_first_twenty_go_and_it_stops_by_itself_then_the_rest_goes(driven: Driven, sms: Channel) -> None:
    broadcast = started(driven, sms, people(100))
    driven.run(10)
    assert through(broadcast) and fresh(broadcast).stop_detail == {"n": 20}
    assert driven.phones == [f"+7901{n:07d}" for n in range(20)]
    assert numbers(broadcast) == {"total": 100, "queued": 80, "sent": 20}
    rest = broadcasts.resume(fresh(broadcast), "test")
    assert (rest.state, rest.canary) == ("running", None)
    driven.run(10)
    assert fresh(broadcast).state == "finished"
    assert numbers(broadcast) == {"total": 100, "sent": 100} and len(set(driven.phones)) == 100


def test_a_random_canary_comes_from_all_files(driven: Driven, sms: Channel) -> None:
    lists = [people(400), people(200, 1_000), people(200, 2_000)]
    broadcast = started(driven, sms, *lists, n=200, pick="random")
    driven.run(30)
    assert through(broadcast)
    chosen = {int(phone[-7:]) for phone in driven.phones}
    assert len(chosen) == len(driven.phones) == 200
    share = Counter(number // 1_000 for number in chosen)
    assert 70 <= share[0] <= 130 and 25 <= share[1] <= 75 and 25 <= share[2] <= 75
    assert len([n for n in chosen if n < 200]) < share[0] * 0.75  # not the beginning of a file


@pytest.mark.parametrize("pick", canary.PICKS)
def test_all_but_one_can_be_a_canary(driven: Driven, sms: Channel, pick: str) -> None:
    broadcast = started(driven, sms, people(6), people(5, 100), n=10, pick=pick)
    driven.run(5)
    assert through(broadcast) and numbers(broadcast) == {"total": 11, "queued": 1, "sent": 10}


@pytest.mark.parametrize("n", [-1, 5, 1_001])
def test_a_canary_is_smaller_than_its_list(driven: Driven, sms: Channel, n: int) -> None:
    broadcast = ready(driven, sms, people(5 if n < 1_000 else 1_100))
    with pytest.raises(Invalid) as refused:
        broadcasts.start(driven.settings, broadcast, "test", n)
    assert refused.value.problems["canary"].code == "canary_range"
    assert fresh(broadcast).state == "draft" and fresh(broadcast).canary is None  # nothing half-done stays
    assert not Message.select().where(Message.not_before != 0).exists()
    with pytest.raises(Invalid):
        broadcasts.start(driven.settings, broadcast, "test", 3, "best")


def test_who_is_tried_again_belongs_to_the_canary_and_draws_nobody_in(driven: Driven, sms: Channel) -> None:
    refused: set[str] = set()

    def answer(out: base.Outgoing) -> base.Accepted:
        if out.phone not in refused and int(out.phone[-1]) % 2:
            refused.add(out.phone)
            raise base.SendError(base.LATER, "sms_throttled", retry_after=30, counts=False)
        return base.Accepted("id-" + out.token)

    driven.answer = answer
    broadcast = started(driven, sms, people(60), n=10)
    driven.run(10)
    now = fresh(broadcast)
    assert now.state == "running" and now.waiting["code"] == "retry"
    assert numbers(broadcast) == {"total": 60, "queued": 55, "sent": 5}
    driven.run(60)
    assert through(broadcast) and numbers(broadcast) == {"total": 60, "queued": 50, "sent": 10}


def test_what_comes_back_unsent_stays_in_the_canary(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(driven, sms, people(60), n=10, rate=60_000)
    jobs = driven.claim()
    clock.tick(seconds=30)  # the machine slept: too late to begin
    results = [driven.sender._send(job) for job in jobs]
    assert not driven.sent and {result.action for result in results} == {"postpone"}
    driven.run(20, late=results)
    assert through(broadcast) and sorted(driven.phones) == [f"+7901{n:07d}" for n in range(10)]


def test_a_worker_killed_in_a_canary_sends_to_nobody_beyond_it(driven: Driven, sms: Channel) -> None:
    broadcast = started(driven, sms, people(60), n=10, rate=60_000)
    lost = []
    for _turn in range(4):
        lost += driven.claim()  # committed; dies before the first byte
        driven.clock.tick(1)
    driven.restart()
    assert delivery.recover(driven.settings) == len(lost) > 0
    driven.run(20)
    found = numbers(broadcast)
    assert through(broadcast)
    assert found == {"total": 60, "queued": 50, "uncertain": len(lost), "sent": 10 - len(lost)}


def test_a_person_who_stops_in_mid_canary_resumes_the_canary(driven: Driven, sms: Channel) -> None:
    broadcast = started(driven, sms, people(60), n=10, rate=60)
    driven.run(4)
    broadcasts.stop(fresh(broadcast), "test")
    assert 0 < len(driven.sent) < 10
    assert broadcasts.resume(fresh(broadcast), "test").canary == 10
    driven.run(30)
    assert through(broadcast) and len(driven.sent) == 10


def test_a_wrong_text_burns_no_more_than_the_canary(driven: Driven, sms: Channel) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.REFUSED, "sms_bad_text", about_message=True)

    driven.answer = answer
    broadcast = started(driven, sms, people(60), n=5)
    driven.run(10)
    assert through(broadcast) and numbers(broadcast) == {"total": 60, "queued": 55, "failed": 5}


def test_its_end_is_seen_while_nothing_can_be_sent(
    driven: Driven, sms: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_UNCLEAR", HOUR)

    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.UNCLEAR, "timeout", counts=False, breaker=True)

    driven.answer = answer
    broadcast = started(driven, sms, people(60), n=5)
    driven.run(10)
    assert Channel.get_by_id(sms.id).opened_at is not None
    assert through(broadcast) and numbers(broadcast) == {"total": 60, "queued": 55, "uncertain": 5}


def test_a_list_added_meanwhile_waits_for_the_rest(driven: Driven, sms: Channel) -> None:
    broadcast = started(driven, sms, people(20), n=10, rate=60)
    driven.run(4)
    upload(driven.settings, broadcast, *people(20, 500))
    driven.run(30)
    assert through(broadcast) and sorted(driven.phones) == [f"+7901{n:07d}" for n in range(10)]
    broadcasts.resume(fresh(broadcast), "test")
    driven.run(60)
    assert numbers(broadcast) == {"total": 40, "sent": 40}


def test_a_message_sent_again_after_the_canary_leaves_with_the_rest(driven: Driven, sms: Channel) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        if out.phone.endswith("3"):
            raise base.SendError(base.UNCLEAR, "timeout")
        return base.Accepted("id-" + out.token)

    driven.answer = answer
    broadcast = started(driven, sms, people(20), n=5)
    driven.run(5)
    assert through(broadcast)
    assert delivery.resolve(Message.get(Message.status == "uncertain").id, "resend", "test")
    driven.answer = lambda out: base.Accepted("id-" + out.token)
    driven.run(5)
    assert len(driven.sent) == 5
    broadcasts.resume(fresh(broadcast), "test")
    driven.run(5)
    assert numbers(broadcast) == {"total": 20, "sent": 20}


def test_a_scheduled_start_keeps_its_canary(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = ready(driven, sms, people(30), send_at=clock.ms + HOUR)
    scheduled = broadcasts.start(driven.settings, broadcast, "test", 10, "random")
    assert (scheduled.state, scheduled.canary) == ("scheduled", 10)
    clock.tick(hours=1)
    assert broadcasts.start_due() == [broadcast.id]
    driven.run(10)
    assert through(broadcast) and len(driven.sent) == 10


def test_a_list_that_was_replaced_before_the_start_has_a_canary_as_large(
    driven: Driven, sms: Channel, clock: Clock
) -> None:
    broadcast = ready(driven, sms, people(30), send_at=clock.ms + HOUR)
    broadcasts.start(driven.settings, broadcast, "test", 10)
    recipients.remove(RecipientFile.get(), "remove", "test")
    upload(driven.settings, broadcast, *people(30, 500))
    clock.tick(hours=1)
    broadcasts.start_due()
    driven.run(10)
    assert through(broadcast) and driven.phones == [f"+7901{n:07d}" for n in range(500, 510)]


def test_starting_a_scheduled_one_now_can_choose_anew(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = ready(driven, sms, people(30), send_at=clock.ms + HOUR)
    broadcasts.start(driven.settings, broadcast, "test", 10)
    assert broadcasts.start(driven.settings, fresh(broadcast), "test").canary == 10  # nothing else was said
    broadcasts.clear(fresh(broadcast), "test")
    assert fresh(broadcast).canary is None
    other = ready(driven, sms, people(30, 100), send_at=clock.ms + HOUR)
    broadcasts.start(driven.settings, other, "test", 10)
    broadcasts.start(driven.settings, fresh(other), "test", 4)
    driven.run(5)
    assert through(other) and len(driven.sent) == 4
    third = ready(driven, sms, people(30, 200), send_at=clock.ms + HOUR)
    broadcasts.start(driven.settings, third, "test", 10)
    assert broadcasts.start(driven.settings, fresh(third), "test", 0).canary is None
    driven.run(10)
    assert numbers(third) == {"total": 30, "sent": 30}


def test_the_rest_can_be_set_for_later(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(driven, sms, people(30), n=10)
    driven.run(5)
    broadcasts.update(driven.settings, fresh(broadcast), {"send_at": clock.ms + HOUR}, "test")
    assert broadcasts.start(driven.settings, fresh(broadcast), "test").canary is None
    clock.tick(hours=1)
    broadcasts.start_due()
    driven.run(10)
    assert fresh(broadcast).state == "finished" and len(set(driven.phones)) == 30


def test_a_second_canary_of_what_has_begun_is_refused(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(driven, sms, people(30), n=10)
    driven.run(5)
    broadcasts.update(driven.settings, fresh(broadcast), {"send_at": clock.ms + HOUR}, "test")
    with pytest.raises(Invalid) as refused:
        broadcasts.start(driven.settings, fresh(broadcast), "test", 5)
    assert refused.value.problems["canary"].code == "canary_late"
    assert through(broadcast)


def test_clear_after_a_canary_cancels_the_rest(driven: Driven, sms: Channel) -> None:
    broadcast = started(driven, sms, people(30), n=10)
    driven.run(5)
    broadcasts.clear(fresh(broadcast), "test")
    assert (fresh(broadcast).state, fresh(broadcast).canary) == ("draft", None)
    assert numbers(broadcast) == {"total": 30, "sent": 10, "cancelled": 20}


def test_a_canary_in_the_night_waits_and_holds_nobody_else(driven: Driven, sms: Channel, clock: Clock) -> None:
    clock.tick(hours=10)
    broadcast = started(driven, sms, people(30), n=10, quiet_hours={"from": "21:00", "to": "09:00"})
    driven.run(5)
    assert fresh(broadcast).waiting["code"] == "quiet_hours" and not driven.sent
    assert db.value("SELECT COUNT(*) FROM message WHERE not_before = 0") == 20
    broadcasts.update(driven.settings, fresh(broadcast), {"quiet_hours": None}, "test")
    driven.run(5)
    assert through(broadcast) and len(driven.sent) == 10


def test_its_end_time_is_that_of_the_canary(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = started(driven, sms, people(100), n=10, rate=60)

    def eta() -> int | None:
        row = fresh(broadcast)
        return broadcasts.eta(row, broadcasts.count(row, row.run))

    assert eta() == clock.ms + 10_000
    driven.run(15)
    assert through(broadcast) and eta() == clock.ms + 90_000  # of the rest


def test_a_finished_canary_keeps_nothing_that_is_sent_again_later(driven: Driven, sms: Channel) -> None:
    def lost(_out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.UNCLEAR, "timeout")

    driven.answer = lost
    broadcast = started(driven, sms, people(2), people(3, 1_000), n=2)
    jobs = []
    while len(jobs) < 2:
        jobs += driven.claim()
        driven.clock.tick(seconds=0.1)
    late = [driven.sender._send(job) for job in jobs]
    rest = RecipientFile.select().where(RecipientFile.broadcast == broadcast.id).order_by(RecipientFile.id.desc()).get()
    recipients.remove(rest, "remove", "test")
    driven.run(1, late=late)
    assert fresh(broadcast).state == "finished"
    driven.answer = lambda out: base.Accepted(f"id-{out.token}")
    again = Message.get(Message.status == "uncertain")
    assert delivery.resolve(again.id, "resend", "anna")
    driven.run(2)
    assert fresh(broadcast).state == "finished"
    assert numbers(broadcast) == {"total": 5, "uncertain": 1, "sent": 1, "cancelled": 3}


def test_a_number_of_any_size_is_refused_in_words(driven: Driven, sms: Channel) -> None:
    with pytest.raises(Invalid, match="canary"):
        broadcasts.start(driven.settings, ready(driven, sms, people(3)), "test", 10**30)
