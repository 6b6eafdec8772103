"""Lines that receive by themselves: one process at a time keeps each, sends on it and stores what comes in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import peewee
import pytest

from tests import make
from worker import channels, db, delivery, lines
from worker.lines import Lines
from worker.models import Broadcast, Callback, Channel, Message
from worker.providers import PROVIDERS
from worker.providers.base import Accepted, Outgoing, Provider, RawCallback, Receive
from worker.sender import Sender
from worker.settings import Settings


class Phone(Provider):
    """A Provider with a line that the test holds in its hand."""

    key = "phone_line"
    kind = "sms"
    label = "Line"
    line = True
    opened: ClassVar[list[Phone]] = []

    def __post_init__(self) -> None:
        self.receive: Receive | None = None
        self.closed = False

    def open(self, receive: Receive) -> None:
        self.receive = receive
        self.opened.append(self)

    def most(self) -> int:
        return 3

    def send(self, out: Outgoing) -> Accepted:
        return Accepted(out.token, parts=(f"{out.token}-1", f"{out.token}-2"))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def phone_line(monkeypatch: pytest.MonkeyPatch, database: Settings) -> None:
    monkeypatch.setitem(PROVIDERS, Phone.key, Phone)
    monkeypatch.setattr(lines, "PROVIDERS_WITH_LINE", frozenset({Phone.key}))
    Phone.opened.clear()


@pytest.fixture
def channel(settings: Settings) -> Channel:
    return make.channel(provider=Phone.key)


@pytest.fixture
def two(settings: Settings) -> Iterator[tuple[Lines, Lines]]:
    """The lines of two processes."""
    both = tuple(Lines(settings, channels.Providers(settings)) for _ in range(2))
    yield both[0], both[1]
    for one in both:
        one.close()


def test_only_one_process_keeps_a_line_and_another_takes_over(channel: Channel, two: tuple[Lines, Lines]) -> None:
    first, second = two
    first.keep()
    second.keep()
    assert [one.may_send(channel.id, Phone.key) for one in two] == [True, False]
    assert len(Phone.opened) == 1
    first.close()
    second.keep()
    assert [one.may_send(channel.id, Phone.key) for one in two] == [False, True]
    assert [phone.closed for phone in Phone.opened] == [True, False]


def test_channels_without_a_line_are_sent_on_by_every_process(two: tuple[Lines, Lines]) -> None:
    assert all(one.may_send(1, "sandbox_sms") for one in two)


def test_changed_settings_open_the_line_anew_and_a_deleted_channel_ends_it(
    channel: Channel, two: tuple[Lines, Lines]
) -> None:
    first, _ = two
    first.keep()
    first.keep()
    assert len(Phone.opened) == 1
    Channel.update(settings={"host": "another"}).where(Channel.id == channel.id).execute()
    first.keep()
    assert [phone.closed for phone in Phone.opened] == [True, False]
    channel.delete_instance()
    first.keep()
    assert [phone.closed for phone in Phone.opened] == [True, True]
    assert not first.may_send(channel.id, Phone.key)


def test_what_comes_in_is_on_the_disk_before_it_is_acknowledged(
    channel: Channel, two: tuple[Lines, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    two[0].keep()
    receive = Phone.opened[0].receive
    assert receive is not None
    assert receive([RawCallback("SMPP", "", {}, {}, b"\x00\x01")]) is True
    assert [(row.channel_id, bytes(row.body)) for row in Callback.select()] == [(channel.id, b"\x00\x01")]

    def full(_callbacks: object) -> None:
        raise peewee.OperationalError("database or disk is full")

    monkeypatch.setattr(delivery, "receive_all", full)
    assert receive([RawCallback("SMPP", "", {}, {}, b"\x02")]) is False


def test_a_sender_claims_on_a_line_only_where_it_is_kept_and_no_more_than_it_carries(
    settings: Settings, channel: Channel
) -> None:
    broadcast = make.broadcast(channel=channel, state="running", rate_per_minute=60_000)
    make.messages(make.file(broadcast), *["queued"] * 8)
    sender = Sender(settings, 1)
    assert sender._turn([]) == []
    assert Broadcast.get_by_id(broadcast.id).state == "running"
    sender.lines.keep()
    sender._lanes[broadcast.id].rest_until = 0.0
    sender._lanes[broadcast.id].confirmed = True
    jobs = []
    for _ in range(20):
        Broadcast.update(next_slot=0).execute()
        jobs += sender._turn([])
    assert len(jobs) == 3
    results = [sender._send(job) for job in jobs]
    sender._turn(results)
    sent = list(Message.select().where(Message.status == "sent"))
    assert len(sent) == 3
    first = sent[0]
    assert first.provider_id == first.token
    found = db.rows("SELECT provider_id FROM part WHERE message_id = ? ORDER BY provider_id", [first.id])
    assert [row[0] for row in found] == [f"{first.token}-1", f"{first.token}-2"]
    sender.lines.close()
