"""Webhooks: told in order, at least once, signed, never twice under different ids, and not for ever."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests import make
from tests.providers.stub import Stub, answer, silent
from tests.readme import block
from worker import broadcasts, clock, db, delivery, vault, webhooks
from worker.models import Attempt, Audit, Broadcast, DeliveryReport, Event, Message, Webhook, WebhookDelivery
from worker.problems import Invalid
from worker.providers.base import InboundMessage, StatusUpdate
from worker.providers.http import HttpClient
from worker.settings import Settings

ALL = list(webhooks.EVENTS)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running


@pytest.fixture
def house(database: Settings, stub: Stub) -> Settings:
    """An installation whose configuration allows the receiver on this machine."""
    return replace(database, allowed_private_hosts=(f"127.0.0.1:{stub.port}",))


class Receiver:
    """A webhook at the stub, told step by step as the worker does."""

    def __init__(self, house: Settings, stub: Stub, events: list[str]) -> None:
        self.house, self.stub = house, stub
        self.row, self.secret = webhooks.add(house, {"url": f"{stub.url}/in?key=1", "events": events}, "admin")
        self.client = webhooks.client_of(house)

    def tell(self) -> int:
        """Everything there is; how many events."""
        n = 0
        while webhooks.deliver(self.house, self.client, self.row.id, webhooks.heads()):
            n += 1
        return n

    @property
    def now(self) -> Webhook:
        return Webhook.get_by_id(self.row.id)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [request.json for request in self.stub.requests]


@pytest.fixture
def receiver(house: Settings, stub: Stub) -> Iterator[Receiver]:
    made = Receiver(house, stub, ALL)
    yield made
    made.client.close()


def channel_of(message: Message) -> int:
    return int(Broadcast.get_by_id(message.broadcast_id).channel_id)


def reported(message: Message, status: str = "delivered") -> None:
    """The provider said this about a message."""
    update = StatusUpdate(status, clock.now(), message.provider_id, None)
    with db.write():
        delivery.apply_updates(channel_of(message), [update], clock.now())


@pytest.fixture
def sent(database: Settings) -> list[Message]:
    """Three messages that their provider took."""
    now = clock.now()
    found = make.messages(make.file(make.broadcast(state="running")), *["sent"] * 3, sent_at=now, sending_at=now)
    for message in found:
        message.provider_id = f"wamid.{message.id}"
        message.save()
    return found


# ---- what is told


def test_a_finished_broadcast_is_told_with_its_numbers(receiver: Receiver) -> None:
    broadcast = make.broadcast(state="running", name="Sale")
    make.messages(make.file(broadcast), "delivered", "failed")
    with db.write():
        broadcasts.advance(broadcast.id, "finish")
    assert receiver.tell() == 1
    event = receiver.events[0]
    assert (event["type"], event["data"]["broadcast"]["id"]) == ("broadcast.finished", broadcast.id)
    assert event["data"]["broadcast"]["name"] == "Sale"
    numbers = event["data"]["broadcast"]["counters"]
    assert (numbers["total"], numbers["delivered"], numbers["failed"]) == (2, 1, 1)


def test_a_stop_is_told_with_its_reason_whoever_stopped_it(receiver: Receiver) -> None:
    by_person, by_itself, missed = (make.broadcast(state=state) for state in ("running", "running", "scheduled"))
    broadcasts.stop(by_person, "anna@example.org")
    with db.write():
        broadcasts.stop_by_itself(by_itself.id, "same_error", cause="131026", n=10)
        broadcasts.advance(missed.id, "miss", stop_reason="missed")
    assert receiver.tell() == 3
    told = [(e["data"]["broadcast"]["id"], e["data"]["broadcast"]["stop_reason"]) for e in receiver.events]
    assert told == [(by_person.id, "person"), (by_itself.id, "same_error"), (missed.id, "missed")]


def test_single_messages_have_no_broadcast_that_anybody_knows(receiver: Receiver) -> None:
    hidden = make.broadcast(state="running", kind="direct")
    message = make.messages(make.file(hidden), "failed")[0]
    with db.write():
        broadcasts.advance(hidden.id, "finish")
    Attempt.create(message_id=message.id, token="1.a", at=clock.now(), outcome="rejected")
    assert receiver.tell() == 1
    item = receiver.events[0]["data"]["messages"][0]
    assert (item["id"], item["broadcast_id"], item["line"]) == (message.id, None, None)


def test_reports_of_many_messages_go_in_one_event_each_as_it_stands(receiver: Receiver, sent: list[Message]) -> None:
    for message in sent:
        reported(message)
    reported(sent[0], "read")
    assert receiver.tell() == 1
    event = receiver.events[0]
    assert event["type"] == "message.status"
    assert [(m["id"], m["status"]) for m in event["data"]["messages"]] == [
        (sent[0].id, "read"),
        (sent[1].id, "delivered"),
        (sent[2].id, "delivered"),
    ]
    item = event["data"]["messages"][0]
    assert item["phone"] == sent[0].phone and item["read_at"] is not None and item["provider_id"]


def test_a_report_that_changes_nothing_is_not_told(receiver: Receiver, sent: list[Message]) -> None:
    reported(sent[0], "read")
    assert receiver.tell() == 1
    reported(sent[0], "delivered")  # late, and lower
    assert receiver.tell() == 0
    assert receiver.now.positions == webhooks.heads()


def test_a_report_that_overtook_its_answer_is_told_once_its_message_is_known(
    receiver: Receiver, sent: list[Message]
) -> None:
    known_as, sent[0].provider_id = sent[0].provider_id, None
    sent[0].save()
    early = StatusUpdate("delivered", clock.now(), known_as, None)
    with db.write():
        delivery.apply_updates(channel_of(sent[0]), [early], clock.now())
    assert receiver.tell() == 0
    Message.update(provider_id=known_as).where(Message.id == sent[0].id).execute()
    assert delivery.join_orphans() == 1
    assert receiver.tell() == 1
    assert [m["status"] for m in receiver.events[0]["data"]["messages"]] == ["delivered"]


def test_failed_and_lost_tries_are_told_and_put_off_ones_not(receiver: Receiver) -> None:
    messages = make.messages(make.file(make.broadcast(state="running")), "failed", "uncertain", "queued")
    for message, outcome in zip(messages, ("rejected", "lost", "postponed"), strict=True):
        Attempt.create(message_id=message.id, token="1.a", at=clock.now(), outcome=outcome)
    assert receiver.tell() == 1
    assert [m["status"] for m in receiver.events[0]["data"]["messages"]] == ["failed", "uncertain"]


def test_what_a_person_settled_is_told(receiver: Receiver) -> None:
    message = make.messages(make.file(make.broadcast(state="finished")), "uncertain")[0]
    assert delivery.resolve(message.id, "sent", "admin")
    assert receiver.tell() == 1
    assert [m["status"] for m in receiver.events[0]["data"]["messages"]] == ["sent"]


def test_replies_are_told_with_their_text(receiver: Receiver, sent: list[Message]) -> None:
    with db.write():
        for n, text in enumerate(("Да", "No")):
            delivery.receive_inbound(
                channel_of(sent[0]), InboundMessage(f"in.{n}", sent[0].phone, clock.now(), text=text), clock.now()
            )
    assert receiver.tell() == 1
    event = receiver.events[0]
    assert event["type"] == "message.inbound"
    assert [(m["text"], m["phone"], m["message_id"]) for m in event["data"]["messages"]] == [
        ("Да", sent[0].phone, sent[0].id),
        ("No", sent[0].phone, sent[0].id),
    ]


def test_only_what_was_asked_for_is_told(house: Settings, stub: Stub, sent: list[Message]) -> None:
    receiver = Receiver(house, stub, ["broadcast.finished"])
    reported(sent[0])
    broadcasts.stop(Broadcast.get(), "anna")
    assert receiver.tell() == 0
    broadcast = make.broadcast(state="running")
    with db.write():
        broadcasts.advance(broadcast.id, "finish")
    assert receiver.tell() == 1
    assert [event["type"] for event in receiver.events] == ["broadcast.finished"]
    receiver.client.close()


def test_what_was_before_a_webhook_is_not_told(house: Settings, stub: Stub, sent: list[Message]) -> None:
    reported(sent[0])
    receiver = Receiver(house, stub, ALL)
    assert receiver.tell() == 0
    receiver.client.close()


def test_nothing_is_noted_while_nobody_listens(database: Settings) -> None:
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert Event.select().count() == 0


def test_a_long_backlog_comes_in_bounded_events(
    receiver: Receiver, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "BATCH", 2)
    for message in sent:
        reported(message)
    reported(sent[0], "read")
    reported(sent[1], "read")
    assert receiver.tell() == 3
    assert [len(e["data"]["messages"]) for e in receiver.events] == [2, 2, 1]
    assert len({e["id"] for e in receiver.events}) == 3


def test_what_is_older_than_a_week_is_passed_over(receiver: Receiver, sent: list[Message], clock: Any) -> None:
    reported(sent[0])
    clock.tick(days=8)
    reported(sent[1])
    assert receiver.tell() == 1
    assert [m["id"] for m in receiver.events[0]["data"]["messages"]] == [sent[1].id]


def test_where_the_last_rows_were_deleted_the_next_ones_are_told_all_the_same(
    receiver: Receiver, sent: list[Message]
) -> None:
    for message in sent[:2]:
        reported(message)
    receiver.tell()
    DeliveryReport.delete().where(DeliveryReport.id == 2).execute()
    assert receiver.tell() == 0  # looks again
    reported(sent[2])
    assert DeliveryReport.select().count() == 2 and receiver.tell() == 1
    assert receiver.events[-1]["data"]["messages"][0]["id"] == sent[2].id


# ---- how it is told


def test_the_signature_is_over_the_time_and_the_raw_body(receiver: Receiver) -> None:
    broadcasts.stop(make.broadcast(state="running"), "anna")
    receiver.tell()
    request = receiver.stub.requests[0]
    said = request.headers["molva-timestamp"].encode() + b"." + request.body
    expected = hmac.new(receiver.secret.encode(), said, hashlib.sha256).hexdigest()
    assert request.headers["molva-signature"] == f"v1={expected}"
    assert request.headers["molva-event"] == request.json["id"]
    assert abs(int(request.headers["molva-timestamp"]) * 1000 - clock.now()) < 60_000
    assert (request.method, request.path, request.headers["content-type"]) == ("POST", "/in?key=1", "application/json")


def test_the_example_of_the_readme_believes_what_we_send_and_nothing_else(receiver: Receiver) -> None:
    found: dict[str, Any] = {}
    exec(block("webhook"), found)
    event_of = found["event_of"]
    webhooks.test(receiver.house, receiver.row)
    sent = receiver.stub.requests[0]
    told = {name: sent.headers[name.lower()] for name in ("Molva-Timestamp", "Molva-Signature")}
    assert event_of(receiver.secret, told, sent.body)["type"] == "test"
    old = str(int(told["Molva-Timestamp"]) - 301)
    signed = "v1=" + webhooks.signature(receiver.secret, old, sent.body)
    for secret, changes, body in (
        ("another", {}, sent.body),
        (receiver.secret, {}, sent.body + b" "),
        (receiver.secret, {"Molva-Timestamp": old}, sent.body),
        (receiver.secret, {"Molva-Timestamp": old, "Molva-Signature": signed}, sent.body),
    ):
        with pytest.raises(ValueError):
            event_of(secret, {**told, **changes}, body)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_success(receiver: Receiver, status: int) -> None:
    receiver.stub.behave = answer(status)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert receiver.tell() == 1
    assert receiver.now.last_at is not None


@pytest.mark.parametrize("status", [301, 302, 400, 404, 429, 500, 503])
def test_everything_else_is_tried_again_with_the_same_id(receiver: Receiver, status: int, clock: Any) -> None:
    receiver.stub.script = [answer(status, Location="http://127.0.0.1/elsewhere")]
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert receiver.tell() == 0
    assert receiver.tell() == 0 and len(receiver.stub.requests) == 1  # not before its time
    clock.tick(seconds=5)
    assert receiver.tell() == 1
    first, second = receiver.events
    assert first == second
    assert [row.cause for row in WebhookDelivery.select().order_by(WebhookDelivery.id)] == [f"http_{status}", None]
    assert (receiver.now.tries, receiver.now.failing_since, receiver.now.pending) == (0, None, None)


def test_a_receiver_that_does_not_answer_is_left_after_the_time_limit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.client = HttpClient(
        allowed_hosts=receiver.house.allowed_private_hosts, timeouts=webhooks.TIMEOUTS._replace(read=0.2, total=0.2)
    )
    receiver.stub.behave = silent
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert receiver.tell() == 0
    assert WebhookDelivery.get().cause == "timeout"


def test_the_pauses_grow_and_after_a_day_a_person_has_to_look(receiver: Receiver, clock: Any) -> None:
    receiver.stub.behave = answer(500)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    began = clock.now()
    pauses = []
    while receiver.now.state == "on":
        receiver.tell()
        pauses.append(receiver.now.next_at - clock.now())
        clock.tick(max(0, pauses[-1]))
    assert [pause // 1000 for pause in pauses[:8]] == [5, 15, 60, 300, 900, 1800, 3600, 3600]
    assert 24 <= (clock.now() - began) / 3_600_000 < 27 and len(pauses) < 40
    assert (receiver.now.state, receiver.now.stop_reason) == ("stopped", "http_500")
    asked = len(receiver.stub.requests)
    receiver.stub.behave = answer(200)
    assert receiver.tell() == 0 and len(receiver.stub.requests) == asked
    webhooks.change(receiver.house, receiver.now, {"state": "on"}, "anna")
    assert receiver.tell() == 1 and receiver.events[-1] == receiver.events[0]


def test_an_address_that_is_gone_for_good_is_given_up_at_once(receiver: Receiver) -> None:
    receiver.stub.behave = answer(410)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    receiver.tell()
    assert (receiver.now.state, receiver.now.stop_reason) == ("stopped", "http_410")


def test_after_a_crash_between_answer_and_commit_the_same_event_is_told_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    broadcasts.stop(make.broadcast(state="running"), "anna")
    with monkeypatch.context() as broken:
        broken.setattr(webhooks, "_taken", lambda *_given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            receiver.tell()
    assert receiver.tell() == 0  # somebody may still be at it
    clock.tick(seconds=61)
    assert receiver.tell() == 1
    assert receiver.events[0] == receiver.events[1]


def test_two_workers_tell_everything_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    broadcasts.stop(make.broadcast(state="running"), "anna")
    stale = receiver.now
    assert receiver.tell() == 1
    with monkeypatch.context() as behind:
        behind.setattr(Webhook, "get_or_none", lambda *_given: stale)
        assert not webhooks.deliver(receiver.house, receiver.client, receiver.row.id, webhooks.heads())
    assert len(receiver.stub.requests) == 1


def test_a_broadcast_that_was_deleted_meanwhile_stops_nothing(receiver: Receiver) -> None:
    gone, after = (make.broadcast(state="running") for _ in range(2))
    broadcasts.stop(gone, "anna")
    broadcasts.stop(after, "anna")
    broadcasts.delete(Broadcast.get_by_id(gone.id), "anna")
    receiver.tell()
    assert [event["data"]["broadcast"]["id"] for event in receiver.events] == [after.id]


# ---- the courier of a worker process


def test_what_is_new_waits_until_everything_before_it_is_committed(house: Settings, stub: Stub, frozen: Any) -> None:
    webhooks.add(house, {"url": stub.url, "events": ALL}, "admin")
    over = False
    courier = webhooks.Courier(house, lambda: over)

    def step() -> int:
        courier.step()
        for thread in courier._threads.values():
            thread.join(10)
        return len(stub.requests)

    step()
    frozen.tick(seconds=3)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert step() == 0
    frozen.tick(seconds=1)
    assert step() == 0
    frozen.tick(seconds=1)
    assert step() == 1
    frozen.tick(seconds=5)
    assert step() == 1
    over = True
    broadcasts.stop(make.broadcast(state="running"), "anna")
    step()
    frozen.tick(seconds=5)
    assert step() == 1
    courier.close()


# ---- what people set up


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_invalid"),
        (None, "url_invalid"),
        (7, "url_invalid"),
        ("ftp://example.org/", "url_invalid"),
        ("https://", "url_invalid"),
        ("https://user:secret@example.org/", "url_password"),
        ("http://93.184.215.14/", "url_insecure"),
        ("https://127.0.0.1/", "address_private"),
        ("https://10.0.0.1/", "address_private"),
        ("https://[::1]/", "address_private"),
        ("https://169.254.169.254/latest/meta-data/", "address_private"),
        ("https://93.184.215.14:22/", "address_port"),
        ("https://example.org/\x00", "url_invalid"),
        ("https://example.org/" + "x" * 1000, "url_invalid"),
    ],
)
def test_an_address_that_may_not_be_asked_is_refused(database: Settings, url: Any, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        webhooks.add(database, {"url": url, "events": ALL}, "admin")
    assert refused.value.problems["url"].code == code
    assert Webhook.select().count() == 0


@pytest.mark.parametrize("events", [None, [], ["everything"], "message.status", [["x"]]])
def test_events_are_chosen_from_those_that_there_are(house: Settings, stub: Stub, events: Any) -> None:
    with pytest.raises(Invalid) as refused:
        webhooks.add(house, {"url": stub.url, "events": events}, "admin")
    assert set(refused.value.problems) == {"events"}


def test_there_is_a_bound_to_their_number(house: Settings, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST", 1)
    webhooks.add(house, {"url": stub.url, "events": ALL}, "admin")
    with pytest.raises(Invalid):
        webhooks.add(house, {"url": stub.url, "events": ALL}, "admin")


def test_the_secret_is_sealed_and_opens_with_a_new_key(receiver: Receiver, house: Settings) -> None:
    assert receiver.secret.encode() not in bytes(receiver.now.secret)
    both = replace(house, secret_key=f"{'n' * 40}\n{house.secret_key}")
    assert webhooks.reseal(both) == []
    assert vault.unseal(replace(house, secret_key="n" * 40), receiver.now.secret)["secret"] == receiver.secret
    with pytest.raises(vault.VaultError):
        vault.unseal(house, receiver.now.secret)
    assert webhooks.reseal(replace(house, secret_key="x" * 40)) == ["127.0.0.1"]


def test_a_secret_that_no_key_opens_is_a_failure_with_a_reason(receiver: Receiver) -> None:
    receiver.house = replace(receiver.house, secret_key="x" * 40)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    assert receiver.tell() == 0
    assert WebhookDelivery.get().cause == "credentials_locked" and receiver.stub.requests == []


def test_a_test_is_sent_at_once_and_changes_nothing(receiver: Receiver) -> None:
    found = webhooks.test(receiver.house, receiver.row)
    assert (found.http_status, found.cause) == (200, None)
    assert (receiver.events[0]["type"], receiver.events[0]["data"]) == ("test", {})
    receiver.stub.behave = answer(500)
    assert webhooks.test(receiver.house, receiver.row).cause == "http_500"
    assert (receiver.now.tries, receiver.now.state) == (0, "on")
    assert [row.event for row in webhooks.deliveries(receiver.row.id)] == ["test", "test"]


def test_the_log_keeps_a_week_and_its_bound(receiver: Receiver, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "LOG_MAX", 3)
    broadcasts.stop(make.broadcast(state="running"), "anna")
    webhooks.test(receiver.house, receiver.row)
    clock.tick(days=8)
    for _ in range(5):
        webhooks.test(receiver.house, receiver.row)
    webhooks.forget()
    assert len(webhooks.deliveries(receiver.row.id)) == 3
    assert Event.select().count() == 1  # the newest stays: its id is not given out again


def test_a_webhook_goes_with_its_log(receiver: Receiver) -> None:
    webhooks.test(receiver.house, receiver.row)
    webhooks.remove(receiver.row, "anna")
    assert (Webhook.select().count(), WebhookDelivery.select().count()) == (0, 0)
    assert {row.subject for row in Audit.select()} == {"127.0.0.1"}  # the rest of an address may hold a key


def test_json_is_what_it_says(receiver: Receiver) -> None:
    broadcasts.stop(make.broadcast(state="running", name='Распродажа "50 %"'), "anna")
    receiver.tell()
    assert json.loads(receiver.stub.requests[0].body)["data"]["broadcast"]["name"] == 'Распродажа "50 %"'
    assert "Распродажа".encode() in receiver.stub.requests[0].body
