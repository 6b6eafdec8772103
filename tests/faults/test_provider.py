"""F07-F16, F18: a provider that hangs, breaks, refuses, redirects, answers nonsense, or reports too early."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.faults.world import World, phone, sleep
from tests.product import wait
from worker import broadcasts, clock, db
from worker.models import Broadcast, Channel, Message

pytestmark = pytest.mark.faults


def waiting(world: World, broadcast: Broadcast) -> str:
    found: dict[str, Any] = world.fresh(broadcast).waiting or {}
    return str(found.get("code", ""))


def probe_now() -> None:
    """The time of the next probe has come."""
    with db.write():
        Channel.update(probe_at=0).execute()


def test_f08_an_error_500_after_acceptance_is_never_sent_again(world: World) -> None:
    scattered = [phone(n) for n in range(15, 300, 30)]
    world.control(rules=[{"fault": "accept_500", "numbers": scattered}])
    broadcast = world.broadcast(300)
    world.state(broadcast, "finished")
    numbers = world.judge(broadcast)
    assert (numbers["uncertain"], numbers["sent"]) == (10, 290)


LONG = [pytest.param(fault, marks=pytest.mark.long) for fault in ("reset", "html", "empty", "huge")]


@pytest.mark.parametrize("fault", ["accept_reset", "garbage", *LONG])
def test_f10_f15_an_answer_that_says_nothing_is_uncertain(world: World, fault: str) -> None:
    scattered = [phone(n) for n in range(20, 120, 40)]
    world.control(rules=[{"fault": fault, "numbers": scattered}])
    broadcast = world.broadcast(120)
    world.state(broadcast, "finished")
    numbers = world.judge(broadcast)
    assert (numbers["uncertain"], numbers["sent"]) == (3, 117)
    assert {m.phone for m in Message.select().where(Message.status == "uncertain")} == set(scattered)


def test_f12_all_500_opens_the_breaker_and_a_cure_goes_on(world: World) -> None:
    world.control(rules=[{"fault": "refuse_500", "after": 100}])
    broadcast = world.broadcast(400)
    wait(lambda: waiting(world, broadcast) == "breaker", 60)
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= world.concurrency + 20 and numbers["queued"] > 250
    gone = numbers["sent"] + numbers["uncertain"]
    world.control(rules=[])
    probe_now()
    world.state(broadcast, "finished")
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 400
    assert world.control()["seen"] == 400 - gone  # one request for each of the rest: the probe was one of them


@pytest.mark.long
def test_f09_a_provider_that_is_away_costs_nobody_a_message(world: World) -> None:
    broadcast = world.broadcast(300)
    world.left(broadcast, 200)
    world.stop_stub()
    wait(lambda: waiting(world, broadcast) in ("breaker", "retry"), 60)
    sleep(1)
    lost = world.numbers(broadcast)["uncertain"]
    assert lost <= world.concurrency  # what was in flight when it died
    world.start_stub()
    world.control(delay=[0.01, 0.03])
    probe_now()
    world.state(broadcast, "finished", 90)
    numbers = world.judge(broadcast)
    assert (numbers["sent"], numbers["uncertain"], numbers["failed"]) == (300 - lost, lost, 0)
    assert db.value("SELECT MAX(tries) FROM message") == 0


@pytest.mark.long
def test_f13_too_fast_waits_as_long_as_it_is_asked(world: World) -> None:
    world.control(rules=[{"fault": "refuse_429", "after": 50, "count": 1, "retry_after": 4}])
    broadcast = world.broadcast(200)
    wait(lambda: waiting(world, broadcast) == "provider_asked", 30)
    until = int((world.fresh(broadcast).waiting or {})["until"])
    world.state(broadcast, "finished")
    moments = sorted(facts["at"] for facts in world.accepted())
    longest = max(later - earlier for earlier, later in itertools.pairwise(moments))
    assert 3.5 <= longest <= 7 and until > clock.now() - 60_000
    assert world.judge(broadcast)["sent"] == 200


def test_f14_a_refused_key_stops_the_channel_and_burns_nobody(world: World) -> None:
    world.control(rules=[{"fault": "refuse_401", "after": 100}])
    broadcast = world.broadcast(300)
    world.state(broadcast, "stopped")
    stopped = world.fresh(broadcast)
    assert (stopped.stop_reason, stopped.stop_detail["cause"]) == ("channel", "190")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert numbers["failed"] == numbers["uncertain"] == 0
    assert world.control()["seen"] <= 100 + 2 * world.concurrency
    world.control(rules=[])
    world.press(broadcast, "resume")
    world.state(broadcast, "finished")
    assert world.judge(broadcast)["sent"] == 300


def test_a_wrong_template_burns_ten_people_not_the_list(world: World) -> None:
    world.control(rules=[{"fault": "refuse:131008", "after": 50}])
    broadcast = world.broadcast(300)
    world.state(broadcast, "stopped")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert world.fresh(broadcast).stop_reason == "same_error"
    assert 10 <= numbers["failed"] <= 10 + world.concurrency


def test_f16_a_redirect_is_not_followed(world: World) -> None:
    world.control(rules=[{"fault": "redirect"}])
    broadcast = world.broadcast(50)
    world.state(broadcast, "stopped")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert (numbers["queued"], len(world.accepted())) == (50, 0)
    assert Channel.get_by_id(world.channel()).state == "stopped"


def test_f18_reports_that_overtake_the_answer_are_not_lost(world: World) -> None:
    world.callbacks(before_answer=True, statuses=["sent", "delivered"], delay=[0.0, 0.02])
    broadcast = world.broadcast(150)
    world.state(broadcast, "finished")
    world.settled(broadcast)
    assert world.judge(broadcast)["delivered"] == 150
    assert db.value("SELECT COUNT(*) FROM delivery_report WHERE message_id IS NULL") == 0


def test_f19_reports_repeated_and_shuffled_count_once(world: World) -> None:
    world.callbacks(statuses=["sent", "delivered", "read"], repeat=3, shuffle=True, delay=[0.0, 0.2])
    broadcast = world.broadcast(100)
    world.state(broadcast, "finished")
    wait(lambda: world.numbers(broadcast)["read"] == 100, 60)
    world.settled(broadcast)
    world.judge(broadcast)
    times = db.value(
        "SELECT COUNT(*) FROM message WHERE sent_at IS NOT NULL AND delivered_at IS NOT NULL AND read_at IS NOT NULL"
    )
    assert times == 100
    assert db.value("SELECT COUNT(*) FROM delivery_report") == 300  # each said once, however often it came


def test_an_uncertain_message_is_settled_by_its_report(world: World) -> None:
    world.callbacks(statuses=["delivered"], delay=[0.5, 1.0])
    world.control(rules=[{"fault": "accept_500", "numbers": [phone(n) for n in range(10, 60, 12)]}])
    broadcast = world.broadcast(60)
    world.state(broadcast, "finished")
    wait(lambda: world.numbers(broadcast)["delivered"] == 60, 30)
    assert world.judge(broadcast)["uncertain"] == 0


def test_f23_start_pressed_twenty_times_at_once(world: World) -> None:
    import threading

    draft = world.draft(50)
    wins: list[bool] = []

    def press() -> None:
        with db.connection():
            try:
                broadcasts.start(world.settings, Broadcast.get_by_id(draft.id), "test")
                wins.append(True)
            except broadcasts.NotAllowed:
                wins.append(False)

    threads = [threading.Thread(target=press) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins.count(True) == 1
    world.state(draft, "finished")
    assert world.judge(draft)["sent"] == 50


@pytest.mark.long
def test_f07_a_hundred_read_timeouts(world: World) -> None:
    world.control(rules=[{"fault": "accept_hang", "after": 100, "count": 100}])
    broadcast = world.broadcast(400)
    wait(lambda: waiting(world, broadcast) == "breaker", 120)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] + numbers["sending"] <= world.concurrency + 20
    world.control(rules=[])
    probe_now()
    world.state(broadcast, "finished", 120)
    world.judge(broadcast)


@pytest.mark.long
def test_f32_a_database_locked_for_five_seconds_is_not_noticed(world: World) -> None:
    import sqlite3

    broadcast = world.broadcast(300)
    world.left(broadcast, 200)
    foreign = sqlite3.connect(world.settings.database_path, timeout=10, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    sleep(5)
    foreign.execute("COMMIT")
    foreign.close()
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 300 and numbers["uncertain"] == 0
