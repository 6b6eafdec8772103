"""F07-F20, F32: a provider that hangs, breaks, refuses, redirects, answers nonsense, or reports in any order."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tls
from tests.faults.world import ACCOUNT, LONG, PATIENT, World, phone, sleep
from tests.product import wait
from worker import broadcasts, db
from worker.models import Broadcast, Channel, Message

pytestmark = pytest.mark.faults
MakeWorld = Callable[..., World]


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
    assert {m.phone for m in Message.select().where(Message.status == "uncertain")} == set(scattered)


UNCLEAR = ("accept_reset", "garbage", "accept_hang", "reset", "html", "empty", "huge")
SHORT = ("accept_reset",)


@pytest.mark.parametrize("fault", [f if f in SHORT else pytest.param(f, marks=PATIENT) for f in UNCLEAR])
def test_f10_f15_an_answer_that_says_nothing_is_uncertain(world: World, fault: str) -> None:
    scattered = [phone(n) for n in range(40, 160, 40)]
    world.control(rules=[{"fault": fault, "numbers": scattered}])
    broadcast = world.broadcast(160, 9_000)
    world.left(broadcast, 125)
    before = world.worker_peak()
    world.state(broadcast, "finished")
    numbers = world.judge(broadcast)
    assert (numbers["uncertain"], numbers["sent"]) == (3, 157)
    assert {m.phone for m in Message.select().where(Message.status == "uncertain")} == set(scattered)
    assert world.worker_peak() - before <= 20  # MB, were the answers 50 MB each
    if fault != "reset":
        world.report_all()
        assert world.judge(broadcast)["delivered"] == 160


@pytest.mark.parametrize("people", [pytest.param(60, marks=LONG), pytest.param(600, marks=PATIENT)])
def test_f11_a_connection_closed_between_two_messages_costs_nothing(world: World, people: int) -> None:
    # Closed in the pause between two messages: seen before the next one is written, unless that one comes
    # in the very moment of the close (that nothing is lost to a close that was seen is proved at the adapter).
    world.control(rules=[{"fault": "close_after", "seconds": 0.01}])
    slow = world.broadcast(people, 600)
    world.state(slow, "finished", 120)
    assert world.judge(slow)["uncertain"] <= people * 0.05
    # Closed at any moment, even while the next request is on its way: never more than one for each close.
    before = world.control()["injected"]["close_after"]
    world.control(rules=[{"fault": "close_after", "share": 0.1, "seconds": 0.0}])
    fast = world.broadcast(300, first=1_000)
    world.state(fast, "finished", 120)
    closed = world.control()["injected"]["close_after"] - before
    assert 0 < closed < 100
    assert world.judge(slow, fast)["uncertain"] <= closed


@pytest.mark.long
def test_f11_a_connection_closed_before_the_request_is_read_reaches_nobody_twice(world: World) -> None:
    broadcast = world.draft(200)
    world.control(rules=[{"fault": "close_unread", "count": 4}])
    broadcasts.start(world.settings, broadcast, "test")
    world.state(broadcast, "finished", 90)
    numbers = world.judge(broadcast)
    assert world.control()["injected"]["close_unread"] == 4
    assert numbers["sent"] + numbers["uncertain"] == 200 and numbers["uncertain"] <= 4


@pytest.mark.long
@pytest.mark.parametrize("fault", ["accept_500", "refuse_500"])
def test_f12_all_500_opens_the_breaker_and_a_cure_goes_on(world: World, fault: str) -> None:
    world.control(rules=[{"fault": fault, "after": 100}])
    broadcast = world.broadcast(400)
    wait(lambda: waiting(world, broadcast) == "breaker", 60)
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= world.concurrency + 20 and numbers["queued"] > 250
    gone = numbers["sent"] + numbers["uncertain"]
    assert world.why(broadcast) == "breaker"
    world.control(rules=[])
    probe_now()
    world.state(broadcast, "finished")
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 400
    assert world.control()["seen"] == 400 - gone  # one request for each of the rest: the probe was one of them


@pytest.mark.parametrize("seconds", [pytest.param(3, marks=LONG), pytest.param(120, marks=PATIENT)])
def test_f09_a_provider_that_is_away_costs_nobody_a_message(world: World, seconds: int) -> None:
    broadcast = world.broadcast(300)
    world.left(broadcast, 200)
    # Every connection has a message on it when it dies, and no new one is taken while it dies.
    world.control(rules=[{"fault": "accept_hang"}])
    wait(lambda: world.numbers(broadcast)["sending"] == world.concurrency, 30)
    world.control(deaf=True)
    world.stop_stub()
    wait(lambda: waiting(world, broadcast) in ("breaker", "retry"), 60)
    sleep(seconds)
    assert world.why(broadcast) in ("breaker", "retry")
    lost = world.numbers(broadcast)["uncertain"]
    assert lost <= world.concurrency  # what was in flight when it died
    world.start_stub()
    world.control(delay=[0.01, 0.03])
    if seconds < 30:
        probe_now()
    world.state(broadcast, "finished", 400)  # the longest back-off is five minutes
    numbers = world.judge(broadcast)
    assert (numbers["sent"], numbers["uncertain"], numbers["failed"]) == (300 - lost, lost, 0)
    assert db.value("SELECT MAX(tries) FROM message") == 0


@pytest.mark.parametrize("asked", [pytest.param(4, marks=LONG), pytest.param(30, marks=PATIENT)])
def test_f13_too_fast_waits_as_long_as_it_is_asked(world: World, asked: int) -> None:
    world.control(rules=[{"fault": "refuse_429", "after": 50, "count": 1, "retry_after": asked, "account": ACCOUNT}])
    other = world.broadcast(40 * (asked + 10), 1_800, 10_000, "1002")
    wait(lambda: len(world.moments("1002")) > 30, 30)
    slowed = world.broadcast(300, 3_000)
    wait(lambda: waiting(world, slowed) == "provider_asked", 30)
    assert world.why(slowed) == "provider_asked"
    world.state(slowed, "finished", asked + 60)
    if world.fresh(other).state == "running":
        world.press(other, "stop")
    gap, began = max((later - earlier, earlier) for earlier, later in itertools.pairwise(world.moments(ACCOUNT)))
    assert asked - 1 <= gap <= asked + 2
    meanwhile = [moment for moment in world.moments("1002") if began <= moment <= began + gap]
    assert len(meanwhile) >= 0.9 * gap * 30  # the other channel went on at its thirty a second
    world.in_flight_stored(slowed, other)
    numbers = world.judge(slowed, other)
    assert numbers["uncertain"] == numbers["failed"] == 0
    assert world.numbers(slowed)["sent"] == 300


@pytest.mark.long
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


@pytest.mark.long
def test_a_wrong_template_burns_ten_people_not_the_list(world: World) -> None:
    world.control(rules=[{"fault": "refuse:131008", "after": 50}])
    broadcast = world.broadcast(300)
    world.state(broadcast, "stopped")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert world.fresh(broadcast).stop_reason == "same_error"
    # Ten in a row; what was accepted in between at the beginning, and what was in flight at the end.
    assert 10 <= numbers["failed"] <= 10 + 2 * world.concurrency


@pytest.mark.long
def test_f16_a_redirect_is_not_followed(world: World) -> None:
    world.control(rules=[{"fault": "redirect"}])
    broadcast = world.broadcast(50)
    world.state(broadcast, "stopped")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    numbers = world.judge(broadcast)
    assert (numbers["queued"], len(world.accepted())) == (50, 0)
    assert Channel.get_by_id(world.channel()).state == "stopped"


WRONG = {
    "another name": {"address": "127.0.0.2"},
    "expired": {"days": -1},
    "unknown issuer": {},
}


@pytest.mark.long
@pytest.mark.parametrize("kind", list(WRONG))
def test_f17_a_certificate_that_proves_nothing_gets_no_message(
    make_world: MakeWorld, tmp_path: Path, kind: str
) -> None:
    shown = tls.certificate(tmp_path, **WRONG[kind])  # type: ignore[arg-type]
    trusted = tls.certificate(tmp_path, name="other") if kind == "unknown issuer" else shown
    world = make_world(certificate=shown, SSL_CERT_FILE=str(trusted))
    broadcast = world.broadcast(50)
    wait(lambda: waiting(world, broadcast) == "breaker", 30)
    world.press(broadcast, "stop")  # or a probe would be on its way
    world.in_flight_stored(broadcast)
    assert (world.judge(broadcast)["queued"], len(world.accepted())) == (50, 0)
    found = world.ask("GET", f"/broadcasts/{broadcast.id}/messages?status=queued").json()["items"]
    assert {item["cause"]["code"] for item in found if item["cause"]} == {"tls"}


def test_f18_reports_that_overtake_the_answer_are_not_lost(world: World) -> None:
    world.callbacks(before_answer=True, statuses=["sent", "delivered"], delay=[0.0, 0.02])
    broadcast = world.broadcast(150)
    world.state(broadcast, "finished")
    world.settled(broadcast)
    assert world.judge(broadcast)["delivered"] == 150
    assert db.value("SELECT COUNT(*) FROM delivery_report WHERE message_id IS NULL") == 0


def test_f19_reports_repeated_and_shuffled_count_once(world: World) -> None:
    world.callbacks(statuses=["read", "delivered", "sent"], repeat=5, shuffle=True, delay=[0.0, 0.2])
    broadcast = world.broadcast(100)
    world.state(broadcast, "finished")
    wait(lambda: world.numbers(broadcast)["read"] == 100, 60)
    world.settled(broadcast)
    world.judge(broadcast)
    times = db.value(
        "SELECT COUNT(*) FROM message WHERE sent_at IS NOT NULL AND delivered_at IS NOT NULL AND read_at IS NOT NULL"
    )
    assert times == 100
    assert db.value("SELECT COUNT(*) FROM message WHERE read_at - delivered_at = 1000") == 100  # the provider's times
    assert db.value("SELECT COUNT(*) FROM delivery_report") == 300  # each said once, however often it came


@pytest.mark.long
@pytest.mark.parametrize("order", [["delivered", "failed"], ["failed", "delivered"]])
def test_f20_delivery_beats_failure_in_both_orders(world: World, order: list[str]) -> None:
    world.callbacks(statuses=order, delay=[0.05, 0.3])
    broadcast = world.broadcast(60)
    world.state(broadcast, "finished")
    world.settled(broadcast)
    wait(lambda: world.numbers(broadcast)["delivered"] == 60, 30)
    world.judge(broadcast)
    kept = db.rows("SELECT status, effect, COUNT(*) FROM delivery_report GROUP BY status, effect")
    assert sorted(kept) == [("delivered", "moved", 60), ("failed", "conflict", 60)]


@pytest.mark.long
def test_forged_reports_are_refused_and_strangers_lose_nobody(world: World) -> None:
    world.callbacks(statuses=["delivered"], forged=True, strangers=3, delay=[0.0, 0.1])
    broadcast = world.broadcast(60)
    world.state(broadcast, "finished")
    world.settled(broadcast)
    assert world.judge(broadcast)["delivered"] == 60
    assert world.control()["callback_answers"] == {"forged 403": 60, "200": 60}
    assert db.value("SELECT COUNT(*) FROM delivery_report WHERE status = 'failed'") == 0
    assert db.value("SELECT COUNT(*) FROM delivery_report WHERE message_id IS NULL") == 180  # kept for 72 hours


@pytest.mark.long
def test_an_uncertain_message_is_settled_by_its_report(world: World) -> None:
    world.callbacks(statuses=["delivered"], delay=[0.5, 1.0])
    world.control(rules=[{"fault": "accept_500", "numbers": [phone(n) for n in range(10, 60, 12)]}])
    broadcast = world.broadcast(60)
    world.state(broadcast, "finished")
    wait(lambda: world.numbers(broadcast)["delivered"] == 60, 30)
    assert world.judge(broadcast)["uncertain"] == 0


@pytest.mark.patient
@pytest.mark.long
def test_f07_a_hundred_read_timeouts(world: World) -> None:
    world.control(rules=[{"fault": "accept_hang", "after": 100, "count": 100}])
    broadcast = world.broadcast(400)
    wait(lambda: waiting(world, broadcast) == "breaker", 120)
    world.in_flight_stored(broadcast)
    numbers = world.judge(broadcast)
    assert 0 < numbers["uncertain"] <= world.concurrency + 20
    world.control(rules=[])
    probe_now()
    world.state(broadcast, "finished", 120)
    world.judge(broadcast)
    world.report_all()
    assert world.judge(broadcast)["delivered"] == 400


@pytest.mark.patient
@pytest.mark.long
@pytest.mark.parametrize("seconds", [5, 60])
def test_f32_a_database_that_another_program_locks(world: World, seconds: int) -> None:
    broadcast = world.broadcast(900, 6_000)
    assert world.why(broadcast) == ""
    world.left(broadcast, 600)
    foreign = sqlite3.connect(world.settings.database_path, timeout=10, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    began, found = time.monotonic(), set()
    while time.monotonic() - began < seconds:
        found.add(world.why(broadcast))
        sleep(0.5)
    foreign.execute("COMMIT")
    foreign.close()
    world.state(broadcast, "finished", 90)
    numbers = world.judge(broadcast)
    assert (numbers["sent"], numbers["uncertain"]) == (900, 0)
    assert found == ({""} if seconds == 5 else {"", "locked"})  # five seconds are not noticed, a minute is explained
