"""A long message whose parts the gateway reports one by one: delivered with the last, undelivered with the first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests import make
from tests.providers import stub
from tests.providers.stub import Stub
from worker import channels, clock, counters, db, delivery
from worker.models import Channel, Message, Part
from worker.providers.base import Outgoing, Provider, RawCallback
from worker.settings import Settings

LONG = "ж" * 100  # two parts
ANSWER = {"messages": [{"status": "0", "message-id": "A"}, {"status": "0", "message-id": "B"}]}


class Vonage:
    """A channel of the preset with one message that is on its way."""

    def __init__(self, settings: Settings, vendor: Stub) -> None:
        given = {"base_url": vendor.url, "username": "me", "password": "secret", "sender": "Molva"}
        self.channel: Channel = channels.create(settings, "vonage", "Vonage", given)
        self.providers = channels.Providers(settings)
        self.vendor = vendor
        made = make.messages(make.file(make.broadcast(channel=self.channel, state="running")), "sending")[0]
        self.id, self.token = made.id, f"{made.id}.0123abcd"
        Message.update(token=self.token, sending_at=clock.now()).where(Message.id == made.id).execute()

    @property
    def provider(self) -> Provider:
        return self.providers.get(self.channel)

    @property
    def status(self) -> str:
        return str(Message.get_by_id(self.id).status)

    def turn(self, status: str) -> None:
        with db.write():
            message = Message.get_by_id(self.id)
            key = (message.broadcast_id, message.run, message.file_id)
            counters.add({(*key, message.status): -1, (*key, status): 1})
            Message.update(status=status).where(Message.id == self.id).execute()

    def answered(self, text: str = LONG) -> None:
        """Hand the message over and store the answer as the sender does."""
        accepted = self.provider.send(Outgoing("+79161234567", self.token, text))
        if self.status == "sending":
            self.turn("sent")
        Message.update(provider_id=accepted.provider_id).where(Message.id == self.id).execute()
        for identity in accepted.parts:
            Part.create(channel_id=self.channel.id, provider_id=identity, message_id=self.id)
        delivery.join_orphans()

    def reported(self, identity: str, status: str, parts: int = 2) -> None:
        code = "&err-code=2" if status == "failed" else ""
        body = f"messageId={identity}&status={status}{code}&client-ref={self.token}/{parts}".encode()
        delivery.receive_all([(self.channel.id, RawCallback("POST", "status", {}, {}, body), clock.now())])
        assert delivery.apply_waiting(self.providers) == 1


@pytest.fixture
def vonage(settings: Settings, database: Settings) -> Iterator[Vonage]:
    with Stub(stub.answer(200, ANSWER)) as vendor:
        found = Vonage(replace(settings, allowed_private_hosts=("127.0.0.1",)), vendor)
        yield found
        found.provider.close()


def test_the_vendor_is_told_how_many_parts_there_are(vonage: Vonage) -> None:
    accepted = vonage.provider.send(Outgoing("+79161234567", vonage.token, LONG))
    assert (accepted.provider_id, accepted.parts) == ("A", ("A", "B"))
    assert f"client-ref={vonage.token}%2F2".encode() in vonage.vendor.requests[0].body


REPORTS = [("A", "delivered"), ("B", "failed")]


@pytest.mark.parametrize("order", list(itertools.permutations(("answer", *REPORTS))))
def test_a_message_with_a_lost_part_is_undelivered_in_whatever_order_that_is_heard(
    vonage: Vonage, order: tuple[Any, ...]
) -> None:
    for event in order:
        vonage.answered() if event == "answer" else vonage.reported(*event)
    assert vonage.status == "undelivered"


@pytest.mark.parametrize("order", list(itertools.permutations(("answer", "A", "B"))))
def test_a_message_is_delivered_once_all_parts_are(vonage: Vonage, order: tuple[str, ...]) -> None:
    heard = set()
    for event in order:
        vonage.answered() if event == "answer" else vonage.reported(event, "delivered")
        heard.add(event)
        assert vonage.status == ("delivered" if len(heard) == 3 else "sent")


def test_a_part_proves_that_a_message_left_whose_answer_was_lost(vonage: Vonage) -> None:
    vonage.turn("uncertain")
    vonage.reported("A", "delivered")
    assert vonage.status == "sent"


def test_a_message_of_one_part_is_settled_by_our_own_reference(vonage: Vonage) -> None:
    vonage.turn("uncertain")
    vonage.reported("A", "delivered", parts=1)
    assert vonage.status == "delivered"


def test_a_message_that_the_vendor_did_not_cut_is_delivered_with_its_one_report(vonage: Vonage) -> None:
    vonage.vendor.behave = stub.answer(200, {"messages": [{"status": "0", "message-id": "A"}]})
    vonage.answered()
    vonage.reported("A", "delivered")
    assert (vonage.status, Part.select().count()) == ("delivered", 0)
