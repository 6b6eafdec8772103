"""What comes back: in any order, any number of times, for the wrong address, with bad neighbours."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import channels, clock, counters, db, delivery, optouts
from worker.models import (
    Audit,
    Broadcast,
    Callback,
    Channel,
    DeliveryReport,
    Inbound,
    InboundPart,
    Message,
    MessageTemplate,
    OptOut,
    Part,
)
from worker.providers.base import (
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    InboundMessage,
    Notice,
    Provider,
    RawCallback,
    StatusUpdate,
)
from worker.sender import Sender
from worker.settings import Settings

CALLED = 1_000  # when a callback came


@pytest.fixture
def broadcast(sms: Channel) -> Broadcast:
    return make.broadcast(channel=sms, state="running")


@pytest.fixture(autouse=True)
def balanced(database: Settings) -> Iterator[None]:
    """After every test here, as after every step of one: the counters are what the rows are."""
    yield
    check_balance()


def check_balance() -> None:
    rows = db.rows("SELECT broadcast_id, run, file_id, status, COUNT(*) FROM message GROUP BY 1, 2, 3, 4")
    counted = db.rows("SELECT broadcast_id, run, file_id, status, n FROM counter WHERE n <> 0")
    assert sorted(counted) == sorted(rows)


def one(broadcast: Broadcast, status: str, provider_id: str | None = "p1", **columns: Any) -> Message:
    """One message that left with a token."""
    message = make.messages(make.file(broadcast), status, provider_id=provider_id, sending_at=5, **columns)[0]
    Message.update(token=f"{message.id}.abc").where(Message.id == message.id).execute()
    return fresh(message)


def fresh(message: Message) -> Message:
    return Message.get_by_id(message.id)


def report(channel: Channel, *updates: StatusUpdate, at: int = CALLED) -> None:
    """Apply each report in a transaction of its own, as if each came alone."""
    for update in updates:
        with db.write():
            delivery.apply_updates(channel.id, [update], at)
        check_balance()


def effects() -> list[tuple[str, str | None]]:
    return [(row.status, row.effect) for row in DeliveryReport.select().order_by(DeliveryReport.id)]


# --- order and repeats --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_reports_in_any_order_each_five_times_end_the_same(sms: Channel, broadcast: Broadcast, seed: int) -> None:
    message = one(broadcast, "sending")
    updates = [StatusUpdate(status, at, "p1") for status, at in (("sent", 10), ("delivered", 20), ("read", 30))] * 5
    random.Random(seed).shuffle(updates)
    report(sms, *updates)
    found = fresh(message)
    assert found.status == "read"
    assert (found.sent_at, found.delivered_at, found.read_at) == (10, 20, 30)
    assert sorted(status for status, _effect in effects()) == ["delivered", "read", "sent"]


def test_reports_that_come_together_count_once(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent", sent_at=8)
    updates = [StatusUpdate(status, at, "p1") for at, status in ((30, "read"), (20, "delivered"), (10, "sent"))] * 5
    with db.write():
        delivery.apply_updates(sms.id, updates, CALLED)
    found = fresh(message)
    assert (found.status, found.sent_at, found.delivered_at, found.read_at) == ("read", 8, 20, 30)
    assert effects() == [("read", "moved"), ("delivered", "kept"), ("sent", "kept")]


def test_nothing_is_sent_before_it_was_taken_from_the_queue(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sending")
    report(sms, StatusUpdate("sent", 1, "p1"))  # a vendor's clock that is slow, or knows whole seconds only
    assert fresh(message).sent_at == 5


@pytest.mark.parametrize("proof", ["delivered", "read"])
@pytest.mark.parametrize("first", ["proof", "failure"])
def test_proof_of_delivery_beats_a_failure_whichever_came_first(
    sms: Channel, broadcast: Broadcast, proof: str, first: str
) -> None:
    message = one(broadcast, "sent")
    arrived, failed = StatusUpdate(proof, 20, "p1"), StatusUpdate("failed", 30, "p1", code="131026", detail="no")
    report(sms, *((arrived, failed) if first == "proof" else (failed, arrived)))
    found = fresh(message)
    assert (found.status, found.cause, found.cause_text, found.undelivered_at) == (proof, None, None, None)
    assert set(effects()) == {(proof, "moved"), ("failed", "conflict")}


def test_a_late_lower_status_changes_nothing_but_is_kept(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "undelivered", cause="131026", undelivered_at=20)
    report(sms, StatusUpdate("sent", 10, "p1"))
    assert (fresh(message).status, fresh(message).cause) == ("undelivered", "131026")
    assert effects() == [("sent", "kept")]


@pytest.mark.parametrize("status", ["queued", "failed", "cancelled", "skipped"])
def test_proof_for_what_surely_did_not_leave_is_a_conflict_and_changes_nothing(
    sms: Channel, broadcast: Broadcast, status: str
) -> None:
    message = one(broadcast, status, None)
    report(sms, StatusUpdate("delivered", 20, "p9", message.token), StatusUpdate("failed", 21, "p9", message.token))
    assert fresh(message).__data__ == message.__data__
    assert effects() == [("delivered", "conflict"), ("failed", "conflict")]


# --- whose report it is -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["sent", "delivered", "read", "failed", "held"])
def test_a_report_with_our_token_settles_an_uncertain_message(sms: Channel, broadcast: Broadcast, status: str) -> None:
    message = one(broadcast, "uncertain", None, cause="timeout")
    report(sms, StatusUpdate(status, 20, "p7", message.token, code="131026" if status == "failed" else None))
    settled = {"failed": ("undelivered", "131026"), "held": ("uncertain", "timeout")}.get(status, (status, None))
    assert (fresh(message).status, fresh(message).cause) == settled
    assert fresh(message).provider_id == "p7"


def test_forged_and_foreign_ids_change_nothing(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent")
    foreign = make.channel()
    tokens = (f"{message.id}.forged", f"{message.id}", f"-{message.id}.abc", f"{message.id}.ABC", ".abc", "", "9" * 30)
    report(sms, *(StatusUpdate("read", 20, None, token) for token in tokens))
    report(sms, StatusUpdate("read", 20, "p2"), StatusUpdate("read", 20, "P1"), StatusUpdate("read", 20))
    report(foreign, StatusUpdate("read", 20, "p1"), StatusUpdate("read", 20, "p1", message.token))
    assert fresh(message).__data__ == message.__data__
    assert delivery.join_orphans() == 0
    assert fresh(message).__data__ == message.__data__
    assert not DeliveryReport.select().where(DeliveryReport.message_id.is_null(False)).exists()


def test_the_vendors_id_is_believed_where_the_token_is_cut_off(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent")
    report(sms, StatusUpdate("failed", 20, "p1", f"{message.id}.a", code="131026"))
    assert fresh(message).status == "undelivered"


def test_the_failure_of_an_earlier_try_does_not_undo_the_later_one(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent", "p2")
    lost(message, "old")
    report(sms, StatusUpdate("failed", 20, "p1", f"{message.id}.old", code="131026"))
    assert fresh(message).status == "sent"
    report(sms, StatusUpdate("delivered", 30, "p1", f"{message.id}.old"))
    assert fresh(message).status == "delivered"
    assert effects() == [("failed", "kept"), ("delivered", "moved")]


def lost(message: Message, token: str) -> None:
    with db.write():
        db.execute(
            "INSERT INTO attempt (message_id, token, at, outcome) VALUES (?, ?, 1, 'lost')",
            [message.id, f"{message.id}.{token}"],
        )


def test_proof_that_comes_before_a_resent_message_left_saves_the_person_a_second_one(
    sms: Channel, broadcast: Broadcast
) -> None:
    message = one(broadcast, "uncertain", None)
    lost(message, "abc")
    assert delivery.resolve(message.id, "resend", "ann")
    report(sms, StatusUpdate("failed", 15, "p1", message.token))
    assert fresh(message).status == "queued"  # no proof: it is still sent again
    report(sms, StatusUpdate("delivered", 20, "p1", message.token))
    assert (fresh(message).status, fresh(message).delivered_at) == ("delivered", 20)


# --- reports that overtake their message --------------------------------------------------------------


def test_orphans_join_by_the_vendors_id_as_soon_as_it_is_known(
    sms: Channel, broadcast: Broadcast, frozen: Clock
) -> None:
    message = one(broadcast, "sending", None)
    updates = [StatusUpdate(status, at, "p5") for status, at in (("read", 30), ("sent", 10), ("delivered", 20))]
    report(sms, *updates, *updates, at=frozen.ms)
    assert (delivery.join_orphans(), fresh(message).status) == (0, "sending")
    Message.update(provider_id="p5").where(Message.id == message.id).execute()
    assert delivery.join_orphans() == 3
    found = fresh(message)
    assert (found.status, found.sent_at, found.delivered_at, found.read_at) == ("read", 10, 20, 30)
    assert delivery.join_orphans() == 0
    report(sms, *updates)  # and once more, now that it is known
    assert DeliveryReport.select().count() == 3


def test_orphans_join_by_our_token(sms: Channel, broadcast: Broadcast, frozen: Clock) -> None:
    message = one(broadcast, "uncertain", None)
    report(sms, StatusUpdate("delivered", 20, None, f"{message.id}.later"), at=frozen.ms)
    assert delivery.join_orphans() == 0
    Message.update(token=f"{message.id}.later").where(Message.id == message.id).execute()
    assert delivery.join_orphans() == 1
    assert fresh(message).status == "delivered"


def test_a_joined_failure_is_marked_when_proof_was_joined_after_it(
    sms: Channel, broadcast: Broadcast, frozen: Clock
) -> None:
    message = one(broadcast, "sent", None)
    report(sms, StatusUpdate("failed", 30, "p1"), StatusUpdate("delivered", 20, "p1"), at=frozen.ms)
    Message.update(provider_id="p1").where(Message.id == message.id).execute()
    assert delivery.join_orphans() == 2
    assert fresh(message).status == "delivered"
    assert effects() == [("failed", "conflict"), ("delivered", "moved")]


def test_unknown_reports_of_another_program_keep_nobody_from_joining(
    sms: Channel, broadcast: Broadcast, frozen: Clock
) -> None:
    message = one(broadcast, "sent", None)
    foreign = make.channel()
    Message.update(provider_id="p1").where(Message.id == message.id).execute()
    report(foreign, *(StatusUpdate("read", at, "p1") for at in range(5)), at=frozen.ms)
    Message.update(provider_id=None).where(Message.id == message.id).execute()
    report(sms, StatusUpdate("delivered", 20, "p1"), at=frozen.ms)
    Message.update(provider_id="p1").where(Message.id == message.id).execute()
    assert delivery.join_orphans(limit=2) == 1
    assert fresh(message).status == "delivered"


def test_orphans_wait_for_72_hours_and_are_then_forgotten(sms: Channel, broadcast: Broadcast, frozen: Clock) -> None:
    message = one(broadcast, "sent", "p1")
    report(sms, StatusUpdate("sent", 20, "p1"), StatusUpdate("delivered", 20, "p5"), at=frozen.ms)
    frozen.tick(hours=72)
    assert delivery.forget_orphans() == 0
    frozen.tick(ms=1)
    Message.update(provider_id="p5").where(Message.id == message.id).execute()
    assert delivery.join_orphans() == 0
    assert delivery.forget_orphans() == 1
    assert effects() == [("sent", "kept")]


# --- batches ------------------------------------------------------------------------------------------


class Says(Provider):
    """Stands for the provider of every channel: what each raw body means."""

    def __init__(self, meaning: dict[bytes, Iterable[StatusUpdate | InboundMessage]], notices: Any = ()) -> None:
        self.meaning = meaning
        self.said = notices
        self.locked: dict[int, float] = {}

    def get(self, _channel: Channel) -> Says:
        return self

    def parse(self, callback: RawCallback) -> Iterable[StatusUpdate | InboundMessage]:
        return self.meaning[callback.body]

    def notices(self, callback: RawCallback) -> Iterable[Notice]:
        return self.said

    def outcome(self, code: str) -> str:
        return {"132015": STOP_BROADCAST, "131042": STOP_CHANNEL}.get(code, REFUSED)


def came(channel: Channel, *bodies: bytes) -> None:
    delivery.receive_all((channel.id, RawCallback("POST", "", {}, {}, body), CALLED) for body in bodies)


def test_one_bad_item_never_loses_its_neighbours(sms: Channel, broadcast: Broadcast) -> None:
    good = [one(broadcast, "sent", f"p{n}") for n in range(4)]

    def broken() -> Iterator[StatusUpdate | InboundMessage]:
        yield StatusUpdate("delivered", 20, "p2")
        raise ValueError("the rest cannot be read")

    bad: list[Any] = [
        StatusUpdate("delivered", 2**70, "p0"),
        StatusUpdate("delivered", 20, "\ud800"),
        StatusUpdate("flown", 20, "p0"),
        InboundMessage("in-1", "+79010000001", -(2**70), text="hi"),
        InboundMessage("in-2", {"not": "a phone"}, 20, text="hi"),  # type: ignore[arg-type]
    ]
    items = [StatusUpdate("delivered", 20, "p0"), *bad, InboundMessage("in-3", "+79010000001", 20, text="hi")]
    meaning = {
        b"before": [StatusUpdate("delivered", 20, "p1")],
        b"bad": items,
        b"broken": broken(),
        b"after": [StatusUpdate("delivered", 20, "p3")],
    }
    came(sms, b"before", b"bad", b"broken", b"unknown", b"after")
    assert delivery.apply_waiting(Says(meaning)) == 5  # type: ignore[arg-type]
    assert [fresh(message).status for message in good] == ["delivered"] * 4
    assert [row.provider_id for row in Inbound.select()] == ["in-3"]
    assert DeliveryReport.select().count() == 5  # with the one whose id was cut in two, of nobody we know
    faults = {bytes(row.body): bool(row.error) for row in Callback.select()}
    assert faults == {b"before": False, b"bad": True, b"broken": True, b"unknown": True, b"after": False}
    assert delivery.apply_waiting(Says(meaning)) == 0  # type: ignore[arg-type]


def test_the_callback_of_a_channel_that_is_gone_is_put_aside(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent")
    gone = make.channel()
    came(gone, b"x")
    gone.delete_instance()
    came(sms, b"y")
    assert delivery.apply_waiting(Says({b"y": [StatusUpdate("read", 20, "p1")]})) == 2  # type: ignore[arg-type]
    assert fresh(message).status == "read"


# --- people who write back ----------------------------------------------------------------------------


def test_a_persons_message_is_stored_once_however_often_it_comes(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "delivered")
    for _time in range(3):
        with db.write():
            for n in range(10):
                delivery.receive_inbound(sms.id, InboundMessage(f"in-{n}", message.phone, 1 + n, text="hi"), CALLED)
    assert [(row.at, row.message_id) for row in Inbound.select().order_by(Inbound.id)] == [
        (1 + n, message.id) for n in range(10)
    ]


def test_what_has_no_time_of_its_own_counts_from_when_it_came_and_a_repeat_is_still_a_repeat(
    sms: Channel, broadcast: Broadcast
) -> None:
    message = one(broadcast, "sent")
    report(sms, StatusUpdate("delivered", 0, "p1"), at=CALLED)
    report(sms, StatusUpdate("delivered", 0, "p1"), at=CALLED + 5_000)
    assert fresh(message).delivered_at == CALLED
    assert effects() == [("delivered", "moved")]
    with db.write():
        delivery.receive_inbound(sms.id, InboundMessage("in-1", message.phone, 0, text="hi"), CALLED)
    assert Inbound.get().at == CALLED
    # The same in a batch, where ordinary reports have a way of their own.
    other = one(broadcast, "sent", "p2")
    came(sms, b"other", b"other")
    says = Says({b"other": [StatusUpdate("delivered", 0, "p2")]})
    assert delivery.apply_waiting(says) == 2  # type: ignore[arg-type]
    assert fresh(other).delivered_at == CALLED
    assert effects() == [("delivered", "moved"), ("delivered", "moved")]


@pytest.mark.parametrize("word", ["STOP", "Стоп!", "CTOП"])
def test_a_stop_word_takes_the_person_out_of_what_is_still_queued(
    sms: Channel, settings: Settings, frozen: Clock, word: str
) -> None:
    broadcast = make.broadcast(channel=sms, state="running", rate_per_minute=60_000)
    flying = one(broadcast, "sending", owner=1, lease_until=frozen.ms + 60_000)
    others = make.messages(make.file(broadcast), "queued", "queued", "queued")
    Message.update(phone=flying.phone).where(Message.id.in_([others[0].id, others[2].id])).execute()
    with db.write():
        delivery.receive_inbound(sms.id, InboundMessage("in-1", flying.phone, 1, text=word), CALLED)
    assert [(row.phone, row.source, row.channel_id) for row in OptOut.select()] == [(flying.phone, "reply", sms.id)]
    sender, jobs = Sender(settings, 1), []
    for _turn in range(5):
        jobs += sender._turn([])
        frozen.tick(seconds=1)
        check_balance()
    assert [job.id for job in jobs] == [others[1].id]
    assert [fresh(row).status for row in others] == ["skipped", "sending", "skipped"]
    assert fresh(others[0]).cause == "opted_out"
    assert fresh(flying).status == "sending"  # it had left already


# --- what a person settles ----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("resend", "resend"), ("sent", "resend"), ("resend", "sent")])
def test_of_two_people_who_settle_one_message_one_wins(broadcast: Broadcast, first: str, second: str) -> None:
    message = one(broadcast, "uncertain", None)
    gate, won = threading.Barrier(2), []

    def press(actor: str, how: str) -> None:
        with db.connection():
            gate.wait(5)
            if delivery.resolve(message.id, how, actor):
                won.append((actor, how))

    people = [threading.Thread(target=press, args=given) for given in (("ann", first), ("bob", second))]
    for person in people:
        person.start()
    for person in people:
        person.join(10)
    assert len(won) == 1
    assert fresh(message).status == {"resend": "queued", "sent": "sent"}[won[0][1]]
    assert [(row.actor, row.action) for row in Audit.select()] == [(won[0][0], f"message.{won[0][1]}")]


@pytest.mark.parametrize("status", ["queued", "sending", "sent", "delivered", "failed", "cancelled"])
def test_only_the_uncertain_can_be_settled(broadcast: Broadcast, status: str) -> None:
    message = one(broadcast, status)
    assert not delivery.resolve(message.id, "resend", "ann")
    assert not delivery.resolve(message.id, "sent", "ann")
    assert not delivery.resolve(10**6, "sent", "ann")
    assert fresh(message).__data__ == message.__data__


def test_a_cleared_list_takes_nothing_back_and_a_finished_broadcast_runs_again(sms: Channel) -> None:
    cleared, finished = (make.broadcast(channel=sms, state=state) for state in ("draft", "finished"))
    gone, back = one(cleared, "uncertain"), one(finished, "uncertain")
    with db.write():
        db.execute("UPDATE recipient_file SET removed_at = 1, removed_how = 'clear' WHERE id = ?", [gone.file_id])
    assert not delivery.resolve(gone.id, "resend", "ann")
    assert delivery.resolve(gone.id, "sent", "ann")
    assert delivery.resolve(back.id, "resend", "ann")
    assert Broadcast.get_by_id(finished.id).state == "running"


# --- recovery -----------------------------------------------------------------------------------------


def test_a_live_lease_is_never_taken_and_a_lapsed_one_always(
    sms: Channel, broadcast: Broadcast, settings: Settings, frozen: Clock
) -> None:
    mine, lapsed, dead, flying = (
        one(broadcast, "sending", None, owner=owner, lease_until=frozen.ms + lease)
        for owner, lease in ((7, 60_000), (7, -1), (8, 60_000), (7, -1))
    )
    assert delivery.recover(settings, own=7, in_flight={flying.id}) == 2
    assert [fresh(row).status for row in (mine, lapsed, dead, flying)] == [
        "sending",
        "uncertain",
        "uncertain",
        "sending",
    ]
    report(sms, StatusUpdate("delivered", 20, "p1", dead.token))
    assert fresh(dead).status == "delivered"


def test_what_waits_goes_back_with_the_clock(broadcast: Broadcast, sms: Channel, frozen: Clock) -> None:
    late, due = make.messages(make.file(broadcast), "queued", "queued")
    hours, now = 2 * clock.HOUR, frozen.ms
    Message.update(not_before=now + 5_000).where(Message.id == late.id).execute()
    Channel.update(slow_until=now + 30_000, opened_at=now - 1_000, probe_at=now + 9_000).execute()
    frozen.tick(hours=-2)
    assert delivery.take_jump(1) and not delivery.take_jump(2)  # one process of two
    delivery.clock_set_back(hours)
    assert fresh(late).not_before == frozen.ms + 5_000 and fresh(due).not_before == 0
    channel = Channel.get_by_id(sms.id)
    assert channel.slow_until == frozen.ms + 30_000
    assert (channel.opened_at, channel.probe_at) == (frozen.ms - 1_000, frozen.ms + 9_000)


def test_counters_that_differ_from_the_rows_are_put_right_and_said(
    broadcast: Broadcast, caplog: pytest.LogCaptureFixture
) -> None:
    file = make.file(broadcast)
    make.messages(file, "queued", "queued", "sent")
    assert counters.check(0) == 0
    with db.write():
        db.execute("UPDATE counter SET n = 7 WHERE status = 'sent'")
        db.execute("DELETE FROM counter WHERE status = 'queued'")
    assert counters.check(clock.now() + clock.HOUR) == 0  # nothing has changed since then
    assert counters.check(0) == 1 and counters.check(0) == 0
    assert "put right" in caplog.text


def test_a_pressed_stop_button_opts_out_whatever_its_label_is(sms: Channel) -> None:
    pressed = InboundMessage("in-1", "+79000000001", 1, kind="button", text="Больше не писать", payload="STOP")
    with db.write():
        delivery.receive_inbound(sms.id, pressed, CALLED)
    assert [(row.phone, row.scope, row.reason) for row in OptOut.select()] == [
        ("+79000000001", "all", "Больше не писать")
    ]


# --- long messages, part by part ------------------------------------------------------------------------


def in_parts(broadcast: Broadcast, *ids: str) -> Message:
    message = one(broadcast, "sent", ids[0])
    for identity in ids:
        Part.create(channel_id=broadcast.channel_id, provider_id=identity, message_id=message.id)
    return message


@pytest.mark.parametrize("order", list(itertools.permutations(("a", "b", "c"))))
def test_a_long_message_is_delivered_with_its_last_part(
    sms: Channel, broadcast: Broadcast, order: tuple[str, ...]
) -> None:
    message = in_parts(broadcast, "a", "b", "c")
    for n, part in enumerate(order, 1):
        report(sms, *[StatusUpdate("delivered", 10 + n, part)] * 2)
        assert fresh(message).status == ("delivered" if n == 3 else "sent")
    assert fresh(message).provider_id == "a"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_one_part_that_is_lost_makes_the_message_undelivered(
    sms: Channel, broadcast: Broadcast, order: tuple[int, ...]
) -> None:
    message = in_parts(broadcast, "a", "b", "c")
    updates = [
        StatusUpdate("delivered", 10, "a"),
        StatusUpdate("failed", 11, "b", code="sms_expired"),
        StatusUpdate("delivered", 12, "c"),
    ]
    report(sms, *(updates[n] for n in order))
    assert (fresh(message).status, fresh(message).cause) == ("undelivered", "sms_expired")
    report(sms, StatusUpdate("delivered", 13, "b"))  # proof beats a failure
    assert (fresh(message).status, fresh(message).cause) == ("delivered", None)


def test_reports_of_parts_that_overtake_the_answer_are_joined(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sending", None)
    report(sms, StatusUpdate("delivered", 10, "b"), StatusUpdate("delivered", 11, "a"), at=clock.now())
    assert fresh(message).status == "sending"
    for identity in ("a", "b"):
        Part.create(channel_id=sms.id, provider_id=identity, message_id=message.id)
    assert delivery.join_orphans() == 2
    assert fresh(message).status == "delivered"


@pytest.mark.parametrize("known_as", ["ab0001", "11206657"])
def test_an_id_is_known_by_its_other_spelling_as_well(sms: Channel, broadcast: Broadcast, known_as: str) -> None:
    message = one(broadcast, "sending", None)
    early = StatusUpdate("delivered", 10, "11206657", also=("ab0001",), phone=message.phone)
    report(sms, early, at=clock.now())
    Message.update(provider_id=known_as, status="sending").where(Message.id == message.id).execute()
    assert delivery.join_orphans() == 1
    assert fresh(message).status == "delivered"
    other = one(broadcast, "sent", f"{known_as}0")
    report(sms, StatusUpdate("delivered", 10, "112066570", also=("ab00010",), phone=other.phone))
    assert fresh(other).status == "delivered"


def test_an_id_that_is_somebody_elses_in_another_spelling_goes_to_the_person_it_names(
    sms: Channel, broadcast: Broadcast
) -> None:
    mine, strangers = one(broadcast, "sent", "10"), one(broadcast, "sent", "16")
    came(sms, b"x")
    receipt = StatusUpdate("delivered", 10, "16", also=("10",), phone=mine.phone)
    delivery.apply_waiting(Says({b"x": [receipt]}))  # type: ignore[arg-type]
    assert (fresh(mine).status, fresh(strangers).status) == ("delivered", "sent")


# --- what a report means for the others -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "state", "channel_state"),
    [("131026", "running", "on"), ("132015", "stopped", "on"), ("131042", "stopped", "stopped")],
)
def test_a_report_that_speaks_of_template_or_account_stops_it(
    sms: Channel, broadcast: Broadcast, code: str, state: str, channel_state: str
) -> None:
    one(broadcast, "sent", sent_at=5)
    Broadcast.update(updated_at=1).execute()
    came(sms, b"x")
    delivery.apply_waiting(Says({b"x": [StatusUpdate("failed", 20, "p1", code=code)]}))  # type: ignore[arg-type]
    found = Broadcast.get_by_id(broadcast.id)
    assert (found.state, Channel.get_by_id(sms.id).state) == (state, channel_state)
    assert state == "running" or found.stop_detail["cause"] == code


def test_a_late_report_does_not_stop_what_was_mended_since(sms: Channel, broadcast: Broadcast) -> None:
    one(broadcast, "sent")  # left at 5, long before the broadcast was resumed
    came(sms, b"x")
    delivery.apply_waiting(Says({b"x": [StatusUpdate("failed", 20, "p1", code="131042")]}))  # type: ignore[arg-type]
    assert Broadcast.get_by_id(broadcast.id).state == "running"
    assert Channel.get_by_id(sms.id).state == "on"


def heed(channel: Channel, *notices: Notice) -> None:
    came(channel, b"n")
    delivery.apply_waiting(Says({b"n": []}, notices))  # type: ignore[arg-type]


@pytest.fixture
def waba(database: Settings, settings: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[0]


def template(channel: Channel, **columns: Any) -> MessageTemplate:
    given = {"name": "hello", "language": "en", "status": "APPROVED", "category": "UTILITY", "components": []}
    return MessageTemplate.create(channel=channel, synced_at=1, **{**given, **columns})


@pytest.mark.parametrize("event", ["PAUSED", "DISABLED", "FLAGGED"])
def test_a_paused_template_stops_its_broadcasts_and_no_others(waba: Channel, event: str) -> None:
    template(waba)
    mine = make.broadcast(channel=waba, state="running", template_name="hello", template_language="en")
    other = make.broadcast(channel=waba, state="running", template_name="hello", template_language="ru")
    heed(waba, *[Notice("template", event, STOP_BROADCAST, "hello", "en")] * 2)
    assert Broadcast.get_by_id(mine.id).state == "stopped"
    assert Broadcast.get_by_id(mine.id).stop_detail["text"] == event
    assert Broadcast.get_by_id(other.id).state == "running"
    assert MessageTemplate.get().status == event
    heed(waba, Notice("template", "REINSTATED", "", "hello", "en"), Notice("category", "MARKETING", "", "hello", "en"))
    assert (MessageTemplate.get().status, MessageTemplate.get().category) == ("APPROVED", "MARKETING")


def test_an_account_that_is_closed_stops_all_its_channels(waba: Channel) -> None:
    Channel.update(account="77").where(Channel.id == waba.id).execute()
    sister = make.channel(kind="waba", provider=waba.provider, account="77")
    stranger = make.channel(kind="waba", provider=waba.provider, account="78")
    running = [make.broadcast(channel=c, state="running") for c in (waba, sister, stranger)]
    heed(waba, Notice("account", "DISABLED_UPDATE", STOP_CHANNEL))
    assert [Channel.get_by_id(c.id).state for c in (waba, sister, stranger)] == ["stopped", "stopped", "on"]
    assert [Broadcast.get_by_id(b.id).state for b in running] == ["stopped", "stopped", "running"]
    heed(waba, Notice("limit", "2000"), Notice("number", "RED"))
    assert [Channel.get_by_id(c.id).vendor_limit for c in (waba, sister, stranger)] == [2000, 2000, None]
    assert Channel.get_by_id(waba.id).quality is None, "it may be the sister's number"
    heed(stranger, Notice("number", "RED"))
    assert Channel.get_by_id(stranger.id).quality == "RED"
    heed(waba, Notice("limit", "-1"))
    assert Channel.get_by_id(waba.id).vendor_limit is None


def test_a_paused_template_stops_the_broadcasts_of_all_numbers_of_the_account(waba: Channel) -> None:
    Channel.update(account="77").where(Channel.id == waba.id).execute()
    sister = make.channel(kind="waba", provider=waba.provider, account="77")
    template(sister)
    running = make.broadcast(channel=sister, state="running", template_name="hello", template_language="en")
    heed(waba, Notice("template", "PAUSED", STOP_BROADCAST, "hello", "en"))
    assert Broadcast.get_by_id(running.id).state == "stopped"
    assert MessageTemplate.get().status == "PAUSED"


def test_callbacks_of_all_numbers_may_come_to_one_of_them(waba: Channel, settings: Settings) -> None:
    other = {**waba.settings, "phone_number_id": "777"}
    sister = make.channel(kind="waba", provider=waba.provider, settings=other, secrets=waba.secrets, account="77")
    Channel.update(account="77").where(Channel.id == waba.id).execute()
    hers = one(make.broadcast(channel=sister, state="running"), "sent", "wamid.1")
    ours = one(make.broadcast(channel=waba, state="running"), "sent", "wamid.1")
    status = {"id": "wamid.1", "status": "delivered", "timestamp": "1793869200"}
    reply = {"id": "wamid.in", "from": "79000000001", "timestamp": "1793869200", "type": "text", "text": {"body": "hi"}}
    value = {"metadata": {"phone_number_id": "777"}, "statuses": [status], "messages": [reply]}
    came(waba, json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode())
    delivery.apply_waiting(channels.Providers(settings))
    assert (fresh(hers).status, fresh(ours).status) == ("delivered", "sent")
    assert [row.channel_id for row in Inbound.select()] == [sister.id]


def test_callbacks_wait_for_the_key_that_opens_their_channel(
    waba: Channel, sms: Channel, settings: Settings, broadcast: Broadcast, frozen: Clock
) -> None:
    sealed = waba.secrets
    Channel.update(secrets=b"sealed with another key").where(Channel.id == waba.id).execute()
    message = one(broadcast, "sent")
    came(waba, b'{"entry": []}')
    came(sms, json.dumps({"id": "p1", "status": "delivered", "time": 1_793_869_200}).encode())
    providers = channels.Providers(settings)
    for _ in range(3):
        delivery.apply_waiting(providers)
    assert fresh(message).status == "delivered"
    assert [row.processed_at is None for row in Callback.select().order_by(Callback.id)] == [True, False]
    Channel.update(secrets=sealed).where(Channel.id == waba.id).execute()
    frozen.tick(seconds=61)
    delivery.apply_waiting(providers)
    assert all(row.processed_at for row in Callback.select())


def test_half_an_emoji_from_a_vendor_costs_no_report(sms: Channel, broadcast: Broadcast) -> None:
    message = one(broadcast, "sent", sent_at=5)
    came(sms, b"x")
    update = StatusUpdate("failed", 20, "p1", code="sms_absent", detail="cut \ud83d here")
    delivery.apply_waiting(Says({b"x": [update]}))  # type: ignore[arg-type]
    assert (fresh(message).status, fresh(message).cause_text) == ("undelivered", "cut ? here")


def test_who_stops_marketing_gets_none_until_they_allow_it_again(waba: Channel, settings: Settings) -> None:
    template(waba, category="MARKETING")
    template(waba, name="receipt")
    person = "+79000000001"
    heed(waba, Notice("marketing", "stop", phone=person, at=2_000))
    heed(waba, Notice("marketing", "resume", phone=person, at=1_000))  # said before, brought late
    assert [(o.phone, o.scope) for o in OptOut.select()] == [(person, "marketing")]
    statuses = {}
    for name in ("hello", "receipt"):
        row = make.broadcast(
            channel=waba, state="running", template_name=name, template_language="en", rate_per_minute=60_000
        )
        make.messages(make.file(row), "queued", phone=person)
        Sender(settings, 1)._turn([])
        statuses[name] = Message.get(Message.broadcast_id == row.id).status
        Broadcast.update(state="stopped").where(Broadcast.id == row.id).execute()
    assert statuses == {"hello": "skipped", "receipt": "sending"}
    with db.write():
        optouts.record(person, "reply", "STOP")
    heed(waba, Notice("marketing", "resume", phone=person, at=3_000))
    heed(waba, Notice("marketing", "stop", phone=person, at=2_000))
    assert [(o.phone, o.scope) for o in OptOut.select()] == [(person, "all")], "their own STOP stays"


# --- long replies ---------------------------------------------------------------------------------------


def in_pieces(person: str, *texts: str, reference: str = "7") -> list[InboundMessage]:
    return [
        InboundMessage(f"{reference}.{n}", person, 100 + n, text=text, part=(reference, n, len(texts)))
        for n, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_long_reply_is_put_together_in_whatever_order_it_comes(sms: Channel, order: tuple[int, ...]) -> None:
    pieces = in_pieces("+79000000001", "one ", "two ", "three")
    with db.write():
        for n in order:
            delivery.receive_inbound(sms.id, pieces[n], CALLED)
            delivery.receive_inbound(sms.id, pieces[n], CALLED)
    assert [(row.text, row.phone) for row in Inbound.select()] == [("one two three", "+79000000001")]
    assert all(part.joined for part in InboundPart.select())
    assert delivery.join_late_parts() == 0


def test_a_reply_with_a_lost_part_is_shown_after_a_while(sms: Channel, frozen: Clock) -> None:
    pieces = in_pieces("+79000000001", "one ", "two ", "three")
    with db.write():
        for piece in pieces[:2]:
            delivery.receive_inbound(sms.id, piece, frozen.ms)
        delivery.receive_inbound(sms.id, in_pieces("+79000000002", "x", "y", reference="8")[0], frozen.ms)
    assert delivery.join_late_parts() == 0
    frozen.tick(minutes=6)
    assert delivery.join_late_parts() == 2
    assert {row.text for row in Inbound.select()} == {"one two ", "x"}


# --- many at once ---------------------------------------------------------------------------------------


def everything(table: str, *leave: str) -> list[tuple[Any, ...]]:
    names = [column.name for column in db.database.get_columns(table) if column.name not in leave]
    return db.rows(f"SELECT {', '.join(names)} FROM {table} ORDER BY {', '.join(names)}")


@pytest.mark.parametrize("seed", range(25))
def test_a_batch_ends_as_if_each_report_had_come_alone(sms: Channel, broadcast: Broadcast, seed: int) -> None:
    chance = random.Random(seed)
    people = [
        one(broadcast, status, chance.choice([f"p{n}", None]) if status == "sending" else f"p{n}")
        for n, status in enumerate(
            chance.choice(("sending", "sent", "held", "delivered", "read", "uncertain", "undelivered", "failed"))
            for _ in range(12)
        )
    ]
    in_parts(broadcast, "long-1", "long-2")
    before = {table: db.rows(f"SELECT * FROM {table}") for table in ("message", "counter", "part", "delivery_report")}
    updates = []
    for _ in range(60):
        n = chance.randrange(len(people) + 2)
        known = n < len(people)
        token = chance.choice([people[n].token, None, f"{people[n].id}.earlier"]) if known else None
        updates.append(
            StatusUpdate(
                chance.choice(("sent", "delivered", "read", "failed", "held")),
                chance.choice((10, 20, 30)),
                chance.choice([f"p{n}", f"p{n}", "long-1", "stranger"]),
                token,
                chance.choice((None, "131026")),
            )
        )
    report(sms, *updates)
    alone = [
        everything("message"),
        everything("counter"),
        everything("part", "id"),
        everything("delivery_report", "id"),
    ]
    with db.write():
        for table, rows in before.items():
            db.execute(f"DELETE FROM {table}")
            if rows:
                db.many(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    groups = [updates[at : at + 3] for at in range(0, len(updates), 3)]
    delivery.receive_all((sms.id, RawCallback("POST", "", {}, {}, b"%d" % n), CALLED) for n in range(len(groups)))
    delivery.apply_waiting(Says({b"%d" % n: group for n, group in enumerate(groups)}))  # type: ignore[arg-type]
    together = [
        *(everything("message"), everything("counter"), everything("part", "id")),
        everything("delivery_report", "id"),
    ]
    assert [row for row in together[1] if row[-1]] == [row for row in alone[1] if row[-1]]
    assert (together[0], *together[2:]) == (alone[0], *alone[2:])
