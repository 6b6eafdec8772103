"""Single messages take the way of all others: once, with reports, by the channel's rules."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.conftest import Clock
from worker import broadcasts, channels, clock, counters, db, delivery, direct, optouts
from worker.models import Broadcast, Channel, Direct, RecipientFile
from worker.problems import Invalid
from worker.providers import base
from worker.providers.sandbox_sms import SandboxSms
from worker.sender import Sender
from worker.settings import Settings

PHONE = "+79010000001"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[base.Outgoing]:
    found: list[base.Outgoing] = []

    def send(_provider: SandboxSms, out: base.Outgoing) -> base.Accepted:
        found.append(out)
        if out.text == "refuse":
            raise base.SendError(base.STOP_BROADCAST, "132001", "no such template")
        if out.text == "account":
            raise base.SendError(base.STOP_CHANNEL, "190", "token")
        return base.Accepted(f"id-{out.token}")

    monkeypatch.setattr(SandboxSms, "send", send)
    return found


def answer(settings: Settings, sms: Channel, text: str = "Hello", **more: str) -> Direct:
    channel = Channel.get_by_id(sms.id)
    return direct.send(settings, channel, PHONE, kind=direct.ANSWER, actor="anna", text=text, conversation_id=7, **more)


def until(ids: list[int], done: Callable[[list[direct.Sent]], bool]) -> list[direct.Sent]:
    deadline = time.monotonic() + 15
    while not done(found := direct.by_ids(ids)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_it_leaves_once_and_a_report_moves_it(
    settings: Settings, sms: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    made = answer(settings, sms)
    (sent,) = until([made.id], lambda found: found[0].status == "sent")
    assert [(out.phone, out.text) for out in taken] == [(PHONE, "Hello")]
    with db.write():
        delivery.apply_updates(sms.id, [base.StatusUpdate("delivered", clock.now(), sent.provider_id)], clock.now())
    (sent,) = direct.of_conversation(7)
    assert (sent.status, sent.text, sent.made_by) == ("delivered", "Hello", "anna")
    broadcast = Broadcast.get(Broadcast.kind == direct.DIRECT)
    assert not counters.drift(broadcast.id)


def test_the_next_one_wakes_what_had_finished(
    settings: Settings, sms: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    first = answer(settings, sms, "1")
    until([first.id], lambda found: found[0].status == "sent")
    deadline = time.monotonic() + 10
    while Broadcast.get(Broadcast.kind == direct.DIRECT).state != "finished":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = answer(settings, sms, "2")
    until([second.id], lambda found: found[0].status == "sent")
    assert [out.text for out in taken] == ["1", "2"]


def test_the_same_form_sent_twice_is_one_message(settings: Settings, sms: Channel) -> None:
    assert answer(settings, sms, form_token="a").id == answer(settings, sms, form_token="a").id
    assert Direct.select().count() == 1


def test_an_opted_out_person_may_be_answered(
    settings: Settings, sms: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    with db.write():
        optouts.record(PHONE, "reply", "STOP")
    made = answer(settings, sms)
    until([made.id], lambda found: found[0].status == "sent")


def test_what_would_stop_a_broadcast_fails_one_message_alone(
    settings: Settings, sms: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    first, second = answer(settings, sms, "refuse"), answer(settings, sms, "2")
    one, two = until([first.id, second.id], lambda found: {f.status for f in found} == {"failed", "sent"})
    assert (one.status, one.cause, two.status) == ("failed", "132001", "sent")


def test_a_channel_that_stops_keeps_it_until_it_is_on_again(
    settings: Settings, sms: Channel, sending: Sender, taken: list[base.Outgoing], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = answer(settings, sms, "account")
    (sent,) = until([made.id], lambda found: found[0].waiting == "190")
    assert sent.status == "queued"
    with pytest.raises(Invalid):
        answer(settings, sms)
    monkeypatch.setattr(SandboxSms, "send", lambda _provider, out: base.Accepted(f"id-{out.token}"))
    channels.switch_on(sms.id, "anna")
    assert direct.tend() == 1
    until([made.id], lambda found: found[0].status == "sent")


def test_it_is_in_no_list_of_broadcasts_and_keeps_no_channel_from_being_deleted(
    settings: Settings, sms: Channel
) -> None:
    answer(settings, sms)
    assert broadcasts.find() == []
    assert channels.use_of(sms) is None


def test_what_waited_for_a_day_is_given_up_before_its_channel_is_on_again(
    settings: Settings, sms: Channel, frozen: Clock
) -> None:
    made = answer(settings, sms)
    with db.write():
        channels.stop(sms.id, "190")
        broadcasts.stop_all(sms.id, "190")
    frozen.tick(hours=23)
    later = answer_of(settings, sms)
    direct.tend()
    assert [one.status for one in direct.by_ids([made.id, later.id])] == ["queued", "queued"]
    frozen.tick(hours=2)
    direct.tend()
    first, second = direct.by_ids([made.id, later.id])
    assert (first.status, first.cause, second.status) == ("cancelled", "postponed_too_long", "queued")
    assert not counters.drift(Broadcast.get(Broadcast.kind == direct.DIRECT).id)


def answer_of(settings: Settings, sms: Channel) -> Direct:
    """An answer that was queued a moment before the channel stopped."""
    channel = Channel.get_by_id(sms.id)
    channel.state = "on"
    made = direct.send(settings, channel, PHONE, kind=direct.ANSWER, actor="anna", text="later", conversation_id=7)
    with db.write():
        broadcasts.stop_all(sms.id, "190")
    return made


def test_what_a_person_sends_again_is_not_given_up(settings: Settings, sms: Channel, frozen: Clock) -> None:
    made = answer(settings, sms)
    with db.write():
        db.execute("UPDATE message SET status = 'uncertain', token = 't', sending_at = ?", [frozen.ms])
        file = RecipientFile.get()
        counters.add({(file.broadcast_id, 1, file.id, "queued"): -1, (file.broadcast_id, 1, file.id, "uncertain"): 1})
    frozen.tick(days=2)
    assert delivery.resolve(made.message_id, "resend", "anna")
    direct.tend()
    assert direct.by_ids([made.id])[0].status == "queued"


def test_a_report_about_one_keeps_the_others_going(settings: Settings, sms: Channel) -> None:
    made = answer(settings, sms)
    broadcast = Broadcast.get(Broadcast.kind == direct.DIRECT)
    with db.write():
        db.execute("UPDATE message SET status = 'sent', provider_id = 'p1', sending_at = ?", [clock.now()])
        file = RecipientFile.get()
        counters.add({(broadcast.id, 1, file.id, "queued"): -1, (broadcast.id, 1, file.id, "sent"): 1})
    answer(settings, sms, "2")
    failed = base.StatusUpdate("failed", clock.now(), "p1", code="132015")
    with db.write():
        delivery.apply_updates(sms.id, [failed], clock.now(), lambda _code: base.STOP_BROADCAST)
    assert direct.by_ids([made.id])[0].status == "undelivered"
    assert Broadcast.get_by_id(broadcast.id).state == "running"
