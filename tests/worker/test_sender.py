"""The sender and what comes back, with the network edge replaced and nothing else."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable

import peewee
import pytest

from tests.product import wait
from worker import breaker, broadcasts, channels, clock, db, delivery, recipients
from worker.models import Broadcast, Channel, Message, OptOut, RecipientFile
from worker.providers import base
from worker.providers.sandbox_sms import SandboxSms
from worker.sender import Sender
from worker.settings import Settings

Send = Callable[[base.Outgoing], base.Accepted]


class Wire:
    """Stands for the provider: notes what it is given and answers as the test says."""

    def __init__(self) -> None:
        self.taken: list[base.Outgoing] = []
        self.answer: Send = lambda out: base.Accepted(f"id-{out.token}")
        self.ping: Callable[[], None] = lambda: None

    def __call__(self, _provider: SandboxSms, out: base.Outgoing) -> base.Accepted:
        self.taken.append(out)
        return self.answer(out)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    found = Wire()
    monkeypatch.setattr(SandboxSms, "send", lambda provider, out: found(provider, out))
    monkeypatch.setattr(SandboxSms, "ping", lambda _provider: found.ping())
    return found


def running(settings: Settings, sms: Channel, people: int = 3, rate: int = 60_000) -> Broadcast:
    broadcast = broadcasts.create(
        settings, {"name": "Sale", "channel_id": sms.id, "text": "Hi {{name}}", "rate_per_minute": rate}, "test"
    )
    upload(settings, broadcast.id, people)
    return broadcasts.start(settings, Broadcast.get_by_id(broadcast.id), "test")


def upload(settings: Settings, number: int, people: int, first: int = 0) -> None:
    broadcast = Broadcast.get_by_id(number)
    lines = "\n".join(f"+7901{n:07d},P{n}" for n in range(first, first + people))
    file = recipients.receive(
        broadcast, io.BytesIO(f"phone,name\n{lines}".encode()), "a.csv", settings.uploads, {}, "t"
    )
    recipients.check(file.id, None, broadcasts.content(broadcast), True, settings.uploads)


def until(broadcast: Broadcast, done: Callable[[Broadcast, dict[str, int]], bool]) -> dict[str, int]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        fresh = Broadcast.get_by_id(broadcast.id)
        numbers = broadcasts.count(fresh, None)
        assert numbers["total"] == sum(n for status, n in numbers.items() if status != "total")
        if done(fresh, numbers):
            return numbers
        time.sleep(0.02)
    raise AssertionError(f"still {fresh.state} {numbers}")


def finished(broadcast: Broadcast, _numbers: dict[str, int]) -> bool:
    return bool(broadcast.state == "finished")


def test_everybody_gets_one_message_with_their_own_words(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 50)
    assert until(broadcast, finished)["sent"] == 50
    assert sorted(out.text for out in wire.taken) == sorted(f"Hi P{n}" for n in range(50))
    assert len({out.phone for out in wire.taken}) == 50


def test_an_unclear_answer_is_uncertain_and_never_sent_again(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.UNCLEAR, "timeout")

    wire.answer = answer
    broadcast = running(settings, sms, 3)
    assert until(broadcast, finished)["uncertain"] == 3
    assert len(wire.taken) == 3


def test_what_was_surely_not_sent_is_tried_again(settings: Settings, sms: Channel, wire: Wire, sending: Sender) -> None:
    tries: list[str] = []

    def answer(out: base.Outgoing) -> base.Accepted:
        tries.append(out.token)
        if len(tries) == 1:
            raise base.SendError(base.LATER, "sms_throttled", retry_after=0.3, slow_channel=True, counts=False)
        return base.Accepted("id")

    wire.answer = answer
    broadcast = running(settings, sms, 1)
    assert until(broadcast, finished)["sent"] == 1
    assert len(set(tries)) == 2


def test_a_refused_account_stops_the_channel_and_burns_nobody(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.STOP_CHANNEL, "sms_bad_token")

    wire.answer = answer
    broadcast = running(settings, sms, 40)
    numbers = until(broadcast, lambda b, n: b.state == "stopped" and n["sending"] == 0)
    assert numbers["queued"] == 40
    assert Channel.get_by_id(sms.id).state == "stopped"
    wire.answer = lambda out: base.Accepted("id-" + out.token)
    broadcasts.resume(Broadcast.get_by_id(broadcast.id), "test")
    sending.wake()
    assert until(broadcast, finished)["sent"] == 40
    assert Channel.get_by_id(sms.id).state == "on"


def test_the_same_refusal_for_ten_people_stops_the_broadcast(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.REFUSED, "sms_bad_text", about_message=True)

    wire.answer = answer
    broadcast = running(settings, sms, 200)
    numbers = until(broadcast, lambda b, n: b.state == "stopped" and n["sending"] == 0)
    assert 10 <= numbers["failed"] <= 20
    assert Broadcast.get_by_id(broadcast.id).stop_reason == "same_error"


def test_after_stop_nothing_leaves_and_resume_goes_on(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 300, rate=6_000)
    until(broadcast, lambda b, n: n["sent"] > 20)
    broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    until(broadcast, lambda b, n: n["sending"] == 0)
    stopped_at = len(wire.taken)
    time.sleep(0.3)
    assert len(wire.taken) == stopped_at
    with pytest.raises(broadcasts.NotAllowed):
        broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    broadcasts.resume(Broadcast.get_by_id(broadcast.id), "test")
    assert until(broadcast, finished)["sent"] == 300
    assert len({out.phone for out in wire.taken}) == len(wire.taken) == 300


def test_clear_cancels_the_rest_and_a_new_list_is_a_new_run(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 100, rate=600)
    until(broadcast, lambda b, n: n["sent"] >= 1)
    broadcasts.clear(Broadcast.get_by_id(broadcast.id), "test")
    numbers = until(broadcast, lambda b, n: n["sending"] == 0)
    assert numbers["queued"] == 0 and numbers["cancelled"] == 100 - numbers["sent"]
    assert Broadcast.get_by_id(broadcast.id).state == "draft"
    recipients.receive(
        Broadcast.get_by_id(broadcast.id), io.BytesIO(b"phone,name\n+79010000001,A"), "b.csv", settings.uploads, {}, "t"
    )
    assert Broadcast.get_by_id(broadcast.id).run == 2


@pytest.mark.parametrize(("who", "again"), [("everyone", 4), ("failed", 1)])
def test_restart_sends_a_second_run(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, who: str, again: int
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        if out.phone.endswith("1"):
            raise base.SendError(base.REFUSED, "sms_barred")
        return base.Accepted("id-" + out.token)

    wire.answer = answer
    broadcast = running(settings, sms, 4)
    until(broadcast, finished)
    assert broadcasts.restart_numbers(Broadcast.get_by_id(broadcast.id)) == {
        "everyone": 4,
        "new": 0,
        "failed": 1,
        "undelivered": 1,
    }
    broadcasts.restart(Broadcast.get_by_id(broadcast.id), who, "test")
    broadcasts.copy_run(broadcast.id)
    sending.wake()
    until(broadcast, finished)
    fresh = Broadcast.get_by_id(broadcast.id)
    assert fresh.run == 2
    assert broadcasts.count(fresh, 2)["total"] == again
    assert broadcasts.count(fresh, 1)["total"] == 4


def test_a_report_that_overtakes_the_answer_is_kept(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        with db.connection(), db.write():
            delivery.apply_updates(sms.id, [base.StatusUpdate("delivered", 5, "id-1", out.token)], 5)
        return base.Accepted("id-1")

    wire.answer = answer
    broadcast = running(settings, sms, 1)
    assert until(broadcast, finished)["delivered"] == 1
    row = Message.get()
    assert (row.provider_id, row.delivered_at) == ("id-1", 5)


def test_an_answer_that_does_not_come_keeps_no_settled_broadcast_running(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    answered = threading.Event()

    def answer(out: base.Outgoing) -> base.Accepted:
        with db.connection(), db.write():
            delivery.apply_updates(sms.id, [base.StatusUpdate("delivered", 5, "id-1", out.token)], 5)
        answered.wait(15)
        return base.Accepted("id-1")

    wire.answer = answer
    broadcast = running(settings, sms, 1)
    try:
        assert until(broadcast, finished)["delivered"] == 1
        assert not answered.is_set()
    finally:
        answered.set()


def test_reports_in_any_order_and_any_number_end_the_same(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 1)
    until(broadcast, finished)
    row = Message.get()
    for status, at in (("read", 30), ("delivered", 20), ("sent", 10), ("failed", 40), ("read", 30)):
        with db.write():
            delivery.apply_updates(sms.id, [base.StatusUpdate(status, at, row.provider_id, row.token)], 50)
    assert broadcasts.count(broadcast, None)["read"] == 1
    effects = [e for (e,) in db.rows("SELECT effect FROM delivery_report ORDER BY id")]
    assert effects == ["moved", "kept", "kept", "conflict"]


def test_a_report_for_an_unknown_id_waits_for_its_message(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    wire.answer = lambda out: base.Accepted("late-id")
    with db.write():
        delivery.apply_updates(sms.id, [base.StatusUpdate("delivered", 5, "late-id")], delivery.clock.now())
    broadcast = running(settings, sms, 1)
    until(broadcast, finished)
    assert delivery.join_orphans() == 1
    assert broadcasts.count(broadcast, None)["delivered"] == 1


def test_a_lost_worker_makes_uncertain_and_two_people_settle_once(settings: Settings, sms: Channel, wire: Wire) -> None:
    broadcast = running(settings, sms, 2)
    lost = Sender(settings, 99)
    claimed: list[object] = []
    while len(claimed) < 2:  # claimed and committed; the process dies before the first byte
        claimed += lost._turn([])
    assert delivery.recover(settings) == 2
    assert broadcasts.count(broadcast, None)["uncertain"] == 2
    first, second = (row.id for row in Message.select().order_by(Message.id))
    assert delivery.resolve(first, "sent", "ann")
    assert not delivery.resolve(first, "resend", "bob")
    assert delivery.resolve(second, "resend", "bob")
    assert not delivery.resolve(second, "resend", "ann")
    numbers = broadcasts.count(broadcast, None)
    assert (numbers["sent"], numbers["queued"]) == (1, 1)


def test_a_stop_word_skips_what_is_still_queued(settings: Settings, sms: Channel, wire: Wire) -> None:
    broadcast = running(settings, sms, 2)
    with db.write():
        delivery.receive_inbound(sms.id, base.InboundMessage("in-1", "+79010000001", 1, text="Стоп!"), 1)
    sender = Sender(settings, 1)
    sender.start()
    try:
        numbers = until(broadcast, finished)
    finally:
        sender.stop()
    assert (numbers["sent"], numbers["skipped"]) == (1, 1)
    assert [out.phone for out in wire.taken] == ["+79010000000"]


def test_a_missed_start_does_not_fire_late(settings: Settings, sms: Channel) -> None:
    broadcast = running(settings, sms, 1)
    for late, state in ((20, "stopped"), (5, "running")):
        with db.write():
            Broadcast.update(state="scheduled", send_at=delivery.clock.now() - late * 60_000).where(
                Broadcast.id == broadcast.id
            ).execute()
        broadcasts.start_due()
        assert Broadcast.get_by_id(broadcast.id).state == state


# --- the channel as a whole -------------------------------------------------------------------------


def fail(outcome: str, cause: str) -> Send:
    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(outcome, cause, counts=False, breaker=True)

    return answer


def waits_for(code: str) -> Callable[[Broadcast, dict[str, int]], bool]:
    return lambda broadcast, _numbers: bool(broadcast.waiting) and broadcast.waiting["code"] == code


def test_a_provider_that_never_answers_does_not_burn_the_list(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    wire.answer = fail(base.UNCLEAR, "timeout")
    numbers = until(running(settings, sms, 200), waits_for("breaker"))
    assert numbers["uncertain"] <= 20 and numbers["queued"] >= 180


def test_a_good_probe_lets_the_rest_go(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_LINE", 300)
    monkeypatch.setattr(breaker, "PROBE_UNCLEAR", 300)
    wire.answer = fail(base.UNCLEAR, "http_500")
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("breaker"))
    before = len(wire.taken)
    time.sleep(1.0)
    assert 1 <= len(wire.taken) - before <= 4  # one at a time, not the list
    wire.answer = lambda out: base.Accepted(f"id-{out.token}")
    numbers = until(broadcast, finished)
    assert numbers["sent"] + numbers["uncertain"] == 100 and len(wire.taken) == 100


def test_the_reason_stands_while_a_probe_is_on_its_way(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_LINE", 100)
    wire.answer = fail(base.LATER, "connect_failed")
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("breaker"))
    said: list[str | None] = []

    def ping() -> None:
        with db.connection():
            said.append(db.value("SELECT waiting FROM broadcast WHERE id = ?", [broadcast.id]))
        raise base.SendError(base.LATER, "connect_failed", breaker=True)

    wire.ping = ping
    wait(lambda: len(said) > 3, 15)
    assert all(one and '"code":"breaker"' in one for one in said)
    wire.ping, wire.answer = lambda: None, lambda out: base.Accepted(f"id-{out.token}")
    assert until(broadcast, finished)["sent"] == 100
    assert Broadcast.get_by_id(broadcast.id).waiting is None


def test_a_line_that_is_down_leaves_nothing_uncertain(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_LINE", 200)
    monkeypatch.setattr("worker.sender.BACKOFF", (0.1,))
    wire.answer = fail(base.LATER, "connect_failed")
    broadcast = running(settings, sms, 50)
    until(broadcast, waits_for("breaker"))
    wire.answer = lambda out: base.Accepted(f"id-{out.token}")
    numbers = until(broadcast, finished)
    assert (numbers["sent"], numbers["uncertain"], numbers["failed"]) == (50, 0, 0)


def test_after_half_an_hour_the_channel_stops_until_a_person_resumes(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    wire.answer = fail(base.UNCLEAR, "timeout")
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("breaker"))
    Channel.update(opened_at=clock.now() - 31 * clock.MINUTE).where(Channel.id == sms.id).execute()
    until(broadcast, lambda fresh, _numbers: fresh.state == "stopped")
    channel = Channel.get_by_id(sms.id)
    assert (channel.state, channel.stop_reason) == ("stopped", "timeout")
    wire.answer = lambda out: base.Accepted(f"id-{out.token}")
    broadcasts.resume(Broadcast.get_by_id(broadcast.id), "test")
    sending.wake()
    until(broadcast, finished)
    assert Channel.get_by_id(sms.id).state == "on"


def test_the_end_is_seen_while_the_breaker_is_open(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    wire.answer = fail(base.UNCLEAR, "timeout")
    assert until(running(settings, sms, 5), finished)["uncertain"] == 5


def test_a_daily_limit_holds_the_rest_and_says_until_when(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    Channel.update(per_day=30).where(Channel.id == sms.id).execute()
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("daily_limit"))
    time.sleep(0.3)
    assert len(wire.taken) == 30
    fresh = Broadcast.get_by_id(broadcast.id)
    assert 23 * clock.HOUR < fresh.waiting["until"] - clock.now() < 25 * clock.HOUR
    with db.write():
        db.execute("UPDATE departure SET minute = minute - 1441")  # a day later
    sending.wake()
    until(broadcast, waits_for("daily_limit"))
    assert until(broadcast, lambda _fresh, numbers: numbers["sent"] == 60)["queued"] == 40


@pytest.mark.parametrize(("typed", "vendor", "left"), [(None, 30, 18), (20, 30, 18), (10, 30, 10), (20, None, 20)])
def test_a_vendors_limit_counts_all_channels_of_the_account_and_a_typed_one_its_own(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, typed: int | None, vendor: int | None, left: int
) -> None:
    Channel.update(per_day=typed, vendor_limit=vendor, account="77").where(Channel.id == sms.id).execute()
    sister = channels.create(settings, "sandbox_sms", "Sister", {})
    Channel.update(account="77").where(Channel.id == sister.id).execute()
    with db.write():
        db.execute(
            "INSERT INTO departure (channel_id, minute, n) VALUES (?, ?, 12)",
            [sister.id, clock.now() // clock.MINUTE],
        )
    broadcast = running(settings, sms, 60)
    until(broadcast, waits_for("daily_limit"))
    assert len(wire.taken) == left


@pytest.mark.parametrize("where", ["detail", "cause", "id"])
def test_half_an_emoji_in_an_answer_stops_nobody(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, where: str
) -> None:
    def answer(out: base.Outgoing) -> base.Accepted:
        if out.text.endswith("P1"):
            half = "x\ud83d"
            if where == "id":
                return base.Accepted(half, parts=(half, "y"))
            raise base.SendError(base.REFUSED, half if where == "cause" else "sms_barred", half)
        return base.Accepted(f"id-{out.token}")

    wire.answer = answer
    numbers = until(running(settings, sms, 5), finished)
    assert numbers["sent"] + numbers["failed"] == 5


def test_a_result_that_cannot_be_stored_holds_up_nobody_else(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Sender._judge

    def broken(sender: Sender, writer: object, result: object, *rest: object) -> None:
        if result.job.phone.endswith("2") and result.action == "accept":  # type: ignore[attr-defined]
            raise ValueError("a fault of our own")
        judge(sender, writer, result, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Sender, "_judge", broken)
    numbers = until(running(settings, sms, 5), finished)
    assert (numbers["sent"], numbers["uncertain"]) == (4, 1)
    assert not sending._in_flight and not sending._busy.total()


@pytest.mark.parametrize("fault", [peewee.InterfaceError("closed"), ValueError("of our own")])
def test_no_result_is_dropped_while_nothing_can_be_written(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    write, pause, answers, broken = db.write, Sender._pause, threading.Event(), threading.Event()
    wire.answer = lambda out: answers.wait(10) and base.Accepted(f"id-{out.token}")  # type: ignore[return-value]
    broadcast = running(settings, sms, 5)
    wait(lambda: len(wire.taken) == 5, 15)

    def failing() -> object:
        if broken.is_set() and threading.current_thread().name == "sender":
            raise fault
        return write()

    def mending(self: Sender, results: object, again: float) -> float:
        if again > clock.monotonic():
            broken.clear()  # what could not be written has been tried in every way
        return pause(self, results, again)  # type: ignore[arg-type]

    monkeypatch.setattr(db, "write", failing)
    monkeypatch.setattr(Sender, "_pause", mending)
    broken.set()
    answers.set()
    assert until(broadcast, finished)["sent"] == 5 and not broken.is_set()
    assert not sending._in_flight and not sending._busy.total()


def test_a_changed_pace_does_not_leave_the_sender_with_a_closed_line(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: set[int] = set()
    monkeypatch.setattr(SandboxSms, "close", lambda provider: closed.add(id(provider)))
    used: list[int] = []

    def send(provider: SandboxSms, out: base.Outgoing) -> base.Accepted:
        used.append(id(provider))
        return base.Accepted(f"id-{out.token}")

    monkeypatch.setattr(SandboxSms, "send", send)
    until(running(settings, sms, 3), finished)
    Channel.update(per_second=500.0).where(Channel.id == sms.id).execute()
    stale = Channel.get_by_id(sms.id)
    stale.per_second = None
    sending.providers.get(Channel.get_by_id(sms.id))
    assert sending.providers.get(stale) is sending.providers.get(Channel.get_by_id(sms.id))
    used.clear()
    until(running(settings, sms, 3), finished)
    assert len(used) == 3 and not closed & set(used)


def test_a_clock_that_was_set_back_stalls_nothing(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 30, rate=6_000)
    ahead = (clock.now() + 2 * clock.HOUR) * 1_000
    with db.write():
        Broadcast.update(next_slot=ahead).where(Broadcast.id == broadcast.id).execute()
        Channel.update(next_slot=ahead, per_second=100).where(Channel.id == sms.id).execute()
    sending.wake()
    assert until(broadcast, finished)["sent"] == 30


def test_a_channel_that_cannot_be_used_stops_alone(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    other = channels.create(settings, "sandbox_sms", "Other", {"token": "t", "secret": "s"})
    Channel.update(secrets=b"nobody can read this").where(Channel.id == other.id).execute()
    broken, good = running(settings, other, 5), running(settings, sms, 50)
    sending.wake()
    assert until(good, finished)["sent"] == 50
    until(broken, lambda fresh, numbers: fresh.state == "stopped" and numbers["queued"] == 5)
    assert Broadcast.get_by_id(broken.id).stop_detail["cause"] == "settings_invalid"
    assert Channel.get_by_id(sms.id).state == "on" and sending.alive


def test_what_goes_wrong_counts_for_the_channel_it_left_by(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    other = channels.create(settings, "sandbox_sms", "Other", {"token": "t", "secret": "s"})
    broadcast = running(settings, sms, 20, rate=600)
    until(broadcast, lambda _fresh, numbers: numbers["sent"] > 1)
    broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    until(broadcast, lambda _fresh, numbers: numbers["sending"] == 0)
    cleared = broadcasts.clear(Broadcast.get_by_id(broadcast.id), "test")
    broadcasts.update(settings, cleared, {"channel_id": other.id}, "test")
    upload(settings, broadcast.id, 20, 100)
    wire.answer = fail(base.STOP_CHANNEL, "sms_bad_token")
    broadcasts.start(settings, Broadcast.get_by_id(broadcast.id), "test")
    sending.wake()
    until(broadcast, lambda fresh, numbers: fresh.state == "stopped" and numbers["sending"] == 0)
    assert (Channel.get_by_id(other.id).state, Channel.get_by_id(sms.id).state) == ("stopped", "on")


def test_a_provider_in_trouble_burns_nobody_however_it_says_so(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_LINE", 50)
    monkeypatch.setattr("worker.sender.BACKOFF", (0.01,))

    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.LATER, "131000", http_status=500, breaker=True, budget=3)

    wire.answer = answer
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("breaker"))
    before = len(wire.taken)
    time.sleep(1.0)
    assert 2 <= len(wire.taken) - before <= 6  # probes, one at a time
    assert broadcasts.count(broadcast, None)["failed"] == 0
    wire.answer = lambda out: base.Accepted(f"id-{out.token}")
    assert until(broadcast, finished)["sent"] == 100


def test_a_probe_asks_before_it_risks_a_message(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PROBE_LINE", 50)
    monkeypatch.setattr(breaker, "PROBE_UNCLEAR", 50)
    monkeypatch.setattr("worker.sender.BACKOFF", (0.01,))
    asked: list[float] = []

    def ping() -> None:
        asked.append(clock.monotonic())
        raise base.SendError(base.UNCLEAR, "timeout")

    wire.answer, wire.ping = fail(base.UNCLEAR, "timeout"), ping
    broadcast = running(settings, sms, 100)
    until(broadcast, waits_for("breaker"))
    before = len(wire.taken)
    time.sleep(1.0)
    assert len(asked) > 2 and len(wire.taken) == before
    wire.answer, wire.ping = (lambda out: base.Accepted(f"id-{out.token}")), lambda: None
    numbers = until(broadcast, finished)
    assert numbers["sent"] + numbers["uncertain"] == 100 and numbers["uncertain"] == before


def test_a_fault_of_our_own_fails_its_message_and_no_other(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast = running(settings, sms, 20, rate=600)
    broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    until(broadcast, lambda _fresh, numbers: numbers["sending"] == 0)
    Message.update(row="no list at all").where(Message.phone == "+79010000015").execute()
    Broadcast.update(rate_per_minute=60_000).where(Broadcast.id == broadcast.id).execute()
    broadcasts.resume(Broadcast.get_by_id(broadcast.id), "test")
    sending.wake()
    numbers = until(broadcast, finished)
    assert (numbers["sent"], numbers["failed"]) == (19, 1)
    assert Message.get(Message.status == "failed").cause == "internal"


def test_a_list_that_does_not_fit_its_text_stops_alone(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    bad, good = running(settings, sms, 5, rate=60), running(settings, sms, 30)
    RecipientFile.update(columns=["phone", "another"]).where(RecipientFile.broadcast == bad.id).execute()
    Broadcast.update(epoch=Broadcast.epoch + 1, rate_per_minute=6_000).where(Broadcast.id == bad.id).execute()
    sending.wake()
    assert until(good, finished)["sent"] == 30
    until(bad, lambda fresh, numbers: fresh.state == "stopped" and numbers["queued"] >= 3)
    assert Broadcast.get_by_id(bad.id).stop_reason == "content_missing"


def test_a_start_that_comes_due_finds_its_channel_stopped(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    broadcast = running(settings, sms, 5, rate=600)
    broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    until(broadcast, lambda _fresh, numbers: numbers["sending"] == 0)
    left = broadcasts.count(broadcast, None)["queued"]
    with db.write():
        channels.stop(sms.id, "131048")
        Broadcast.update(state="scheduled", send_at=clock.now() - 1).where(Broadcast.id == broadcast.id).execute()
    before = len(wire.taken)
    broadcasts.start_due()
    sending.wake()
    until(broadcast, lambda fresh, _numbers: fresh.state == "stopped")
    fresh = Broadcast.get_by_id(broadcast.id)
    assert (fresh.stop_reason, fresh.stop_detail["cause"]) == ("channel", "131048")
    assert len(wire.taken) == before and broadcasts.count(broadcast, None)["queued"] == left


def test_what_was_surely_not_sent_is_not_of_the_days_number(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.sender.BACKOFF", (0.01,))
    Channel.update(per_day=30).where(Channel.id == sms.id).execute()
    refused: set[str] = set()

    def answer(out: base.Outgoing) -> base.Accepted:
        if out.phone not in refused:
            refused.add(out.phone)
            raise base.SendError(base.LATER, "131056", http_status=400, retry_after=0.01)
        return base.Accepted(f"id-{out.token}")

    wire.answer = answer
    broadcast = running(settings, sms, 100)
    until(broadcast, lambda _fresh, numbers: numbers["sent"] == 30)
    time.sleep(0.3)
    assert broadcasts.count(broadcast, None)["sent"] == 30
    assert db.value("SELECT SUM(n) FROM departure") == 30


def test_who_has_stopped_marketing_goes_on_the_stop_list(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    wire.answer = fail(base.REFUSED, "131050")
    until(running(settings, sms, 2), finished)
    assert {(row.phone, row.source) for row in OptOut.select()} == {
        ("+79010000000", "provider"),
        ("+79010000001", "provider"),
    }


def test_an_answer_from_before_the_cure_stops_nothing_after_it(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    held: list[str] = []

    def answer(out: base.Outgoing) -> base.Accepted:
        if not held:
            held.append(out.phone)
            time.sleep(1.0)
            raise base.SendError(base.STOP_CHANNEL, "190", http_status=401)
        return base.Accepted(f"id-{out.token}")

    wire.answer = answer
    broadcast = running(settings, sms, 200, 6_000)
    until(broadcast, lambda _fresh, numbers: numbers["sent"] > 5)
    broadcasts.stop(Broadcast.get_by_id(broadcast.id), "test")
    broadcasts.resume(Broadcast.get_by_id(broadcast.id), "test")
    sending.wake()
    assert until(broadcast, finished)["sent"] == 200
    assert Channel.get_by_id(sms.id).state == "on"


def test_ten_in_a_row_are_ten_also_when_storing_them_failed(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, failures = Sender._store, iter([True] * 3)

    def failing(self: Sender, results: object) -> None:
        stored(self, results)  # type: ignore[arg-type]
        if results and next(failures, False):
            raise peewee.OperationalError("disk full")

    monkeypatch.setattr(Sender, "_store", failing)

    def answer(out: base.Outgoing) -> base.Accepted:
        raise base.SendError(base.REFUSED, "sms_bad_text", about_message=True)

    wire.answer = answer
    broadcast = running(settings, sms, 200)
    numbers = until(broadcast, lambda fresh, n: fresh.state == "stopped" and n["sending"] == 0)
    assert 10 <= numbers["failed"] <= 20


def test_those_that_were_put_off_do_not_wait_for_the_end_of_the_list(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    tried: list[str] = []

    def answer(out: base.Outgoing) -> base.Accepted:
        tried.append(out.phone)
        if len(tried) == 1:
            raise base.SendError(base.LATER, "131056", http_status=400, retry_after=0.2)
        return base.Accepted(f"id-{out.token}")

    wire.answer = answer
    broadcast = running(settings, sms, 100, rate=3_000)
    assert until(broadcast, finished)["sent"] == 100
    assert 1 < tried.index(tried[0], 1) < 60


def test_what_left_is_remembered_only_as_long_as_a_limit_needs_it(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender
) -> None:
    Channel.update(per_second=None).where(Channel.id == sms.id).execute()
    until(running(settings, sms, 50), finished)
    assert len(sending._window("channel", sms.id)) == 0  # no pace of its own: nothing to remember
    Channel.update(per_second=1_000).where(Channel.id == sms.id).execute()
    until(running(settings, sms, 50), finished)
    assert 0 < len(sending._window("channel", sms.id)) <= 50


def test_a_turn_that_always_fails_ends_nothing(
    settings: Settings, sms: Channel, wire: Wire, sending: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Sender._claim
    faults = iter([peewee.OperationalError("full"), KeyError("a fault of our own"), peewee.OperationalError("full")])

    def failing(self: Sender) -> object:
        jobs = claim(self)
        if jobs and (fault := next(faults, None)) is not None:
            raise fault
        return jobs

    monkeypatch.setattr(Sender, "_claim", failing)
    broadcast = running(settings, sms, 30)
    assert until(broadcast, finished)["sent"] == 30
    assert len({out.phone for out in wire.taken}) == len(wire.taken) == 30
    assert db.value("SELECT COUNT(*) FROM attempt") == 0  # none of them had been claimed
