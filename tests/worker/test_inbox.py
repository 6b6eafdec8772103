"""A conversation begins with the person's first message, follows what both sides say, and loses nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests import make, people
from tests.conftest import Clock
from worker import channels, clock, db, delivery, direct, inbox, optouts, talk
from worker.models import Audit, Broadcast, Channel, Conversation, Direct, Inbound, Message, MessageTemplate, OptOut
from worker.problems import Invalid
from worker.providers import base
from worker.providers.sandbox_waba import SandboxWaba
from worker.sender import Sender
from worker.settings import Settings

ANNA, BORIS = "+79010000001", "+79010000002"
TEMPLATE = [{"type": "BODY", "text": "{{1}}, we are here"}]


@pytest.fixture
def waba(database: Settings, settings: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[0]


def hear(
    channel: Channel, text: str = "hello", phone: str = ANNA, *, at: int | None = None, key: str = "", **facts: Any
) -> Conversation | None:
    """A person's message comes in; their conversation."""
    now = clock.now()
    when = now if at is None else at
    item = base.InboundMessage(key or f"in-{random.random()}", phone, when, text=text, **facts)
    with db.write():
        delivery.receive_inbound(channel.id, item, now)
    return Conversation.get_or_none((Conversation.channel_id == channel.id) & (Conversation.phone == phone))


def heard(channel: Channel, text: str = "hello", phone: str = ANNA, **facts: Any) -> Conversation:
    found = hear(channel, text, phone, **facts)
    assert found is not None
    return found


def wrote(channel: Channel, phone: str = ANNA, text: str = "Sale, {{ name }}", **columns: Any) -> Message:
    """A broadcast's message that was sent to a person."""
    broadcast = make.broadcast(channel=channel, state="finished", text=text, **columns)
    file = make.file(broadcast, columns=["phone", "name"])
    row = f'["{phone}","Anna"]'
    facts = {"phone": phone, "row": row, "text_version": 1, "provider_id": f"p{broadcast.id}"}
    return make.messages(file, "delivered", sending_at=clock.now(), **facts)[0]


def texts(conversation: Conversation) -> list[str | None]:
    return [entry.text for entry in talk.page(conversation).items]


# --- when there is a conversation


def test_whoever_was_only_written_to_has_no_conversation(sms: Channel, frozen: Clock) -> None:
    wrote(sms)
    assert inbox.find(inbox.Filter()).items == []
    assert inbox.unread_number() == 0


def test_the_first_reply_makes_it_with_the_answered_message_above(sms: Channel, frozen: Clock) -> None:
    message = wrote(sms)
    frozen.tick(minutes=5)
    conversation = heard(sms, "When?", name="Anna")
    assert (conversation.message_id, conversation.broadcast_id) == (message.id, message.broadcast_id)
    assert (conversation.name, conversation.unread, conversation.state) == ("Anna", 1, "open")
    above, reply = talk.page(conversation).items
    assert (above.direction, above.text, above.status) == ("out", "Sale, Anna", "delivered")
    assert (reply.direction, reply.text, reply.broadcast_id) == ("in", "When?", message.broadcast_id)


def test_a_reply_to_nothing_makes_one_too(sms: Channel, frozen: Clock) -> None:
    assert heard(sms, "Hello?").broadcast_id is None


def test_repeats_and_disorder_change_nothing(sms: Channel, frozen: Clock) -> None:
    sent = [("in-1", 1_000, "one"), ("in-2", 2_000, "two"), ("in-3", 3_000, "three")] * 3
    random.Random(7).shuffle(sent)
    began = frozen.tick(hours=1) - 3_600_000
    for key, after, text in sent:
        hear(sms, text, at=began + after, key=key)
    conversation = Conversation.get()
    assert (conversation.unread, conversation.last_text) == (3, "three")
    assert conversation.last_in_at == conversation.last_at == began + 3_000
    assert texts(conversation) == ["one", "two", "three"]


def test_the_quoted_message_counts_before_the_latest(sms: Channel, frozen: Clock) -> None:
    first = wrote(sms, text="First")
    frozen.tick(minutes=1)
    wrote(sms, text="Second")
    conversation = heard(sms, context=first.provider_id)
    assert conversation.broadcast_id == first.broadcast_id


def test_a_reply_of_the_same_second_stands_below_what_it_answers(sms: Channel, frozen: Clock) -> None:
    frozen.tick(700)
    wrote(sms)
    conversation = heard(sms, "quick", at=frozen.ms // 1000 * 1000)
    assert texts(conversation) == ["Sale, Anna", "quick"]


def test_one_person_on_two_channels_has_two_that_know_of_each_other(sms: Channel, waba: Channel, frozen: Clock) -> None:
    here, there = heard(sms), heard(waba)
    assert here.id != there.id
    assert [other.id for other in inbox.elsewhere(here)] == [there.id]
    assert [other.id for other in inbox.elsewhere(there)] == [here.id]


def test_a_new_reply_opens_a_closed_one_again(sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms)
    assert inbox.close(conversation, "anna") and not inbox.close(conversation, "boris")
    assert (inbox.unread_number(), Conversation.get().state) == (0, "closed")
    frozen.tick(minutes=1)
    again = heard(sms, "and another thing")
    assert (again.id, again.state, again.unread, again.closed_at) == (conversation.id, "open", 1, None)


def test_reactions_begin_nothing_and_are_shown_once_there_is_something(waba: Channel, frozen: Clock) -> None:
    message = wrote(waba)
    assert hear(waba, "👍", kind="reaction", context=message.provider_id) is None
    frozen.tick(minutes=1)
    conversation = heard(waba, "Great")
    seen = conversation.last_in_at
    frozen.tick(minutes=1)
    hear(waba, "❤", kind="reaction")
    conversation = Conversation.get()
    assert (conversation.unread, conversation.last_in_at, conversation.last_text) == (1, seen, "Great")
    assert texts(conversation)[1:] == ["👍", "Great", "❤"]


def test_a_sender_who_cannot_be_named_makes_none(sms: Channel, frozen: Clock) -> None:
    assert hear(sms, "who am I", "") is None
    assert Inbound.select().count() == 1


def test_a_clock_that_is_ahead_keeps_no_window_open(waba: Channel, frozen: Clock) -> None:
    conversation = heard(waba, at=frozen.ms + 10 * 365 * 24 * clock.HOUR)
    assert inbox.window_until(conversation, waba) == frozen.ms + inbox.WINDOW


def test_a_stop_word_is_shown_as_one(sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms, "СТОП")
    assert OptOut.get().phone == ANNA
    hear(sms, "start")
    hear(sms, "не стоп")
    assert sorted(str(entry.word) for entry in talk.page(conversation).items) == ["None", "back", "out"]
    assert OptOut.get_or_none() is None


def test_a_text_that_was_changed_since_is_not_put_into_old_messages(sms: Channel, frozen: Clock) -> None:
    message = wrote(sms)
    Broadcast.update(text="Something else", text_version=2).where(Broadcast.id == message.broadcast_id).execute()
    assert texts(heard(sms)) == [None, "hello"]


def test_messages_that_never_reached_anybody_are_not_shown(sms: Channel, frozen: Clock) -> None:
    message = wrote(sms)
    Message.update(status="failed").where(Message.id == message.id).execute()
    assert texts(heard(sms)) == ["hello"]


# --- finding


def test_filters_and_search_find_what_they_say(sms: Channel, waba: Channel, frozen: Clock) -> None:
    message = wrote(sms)
    frozen.tick(minutes=1)
    anna = heard(sms, "Где мой Заказ 17?", name="Анна Ёлкина")
    frozen.tick(minutes=1)
    boris = heard(waba, "100% [sure] *", BORIS, name="Boris")
    operator = people.person("sender")
    inbox.assign(boris, operator.email, "test")
    inbox.read(anna)

    def found(**chosen: Any) -> list[int]:
        return [one.id for one in inbox.find(inbox.Filter(**chosen)).items]

    assert found() == [boris.id, anna.id]
    assert found(unread=True) == [boris.id]
    assert found(assignee_id=operator.id) == [boris.id]
    assert found(channel_id=sms.id) == [anna.id]
    assert found(broadcast_id=message.broadcast_id) == [anna.id]
    for q in ("анна", "ёлк", "заказ", "79010000001", "+7 901 000-00-01", "000001"):
        assert found(q=q) == [anna.id], q
    for q in ("BORIS", "0% [SURE", "] *", "0000002"):
        assert found(q=q) == [boris.id], q
    assert found(q="nobody") == found(q='"') == found(q='" OR "') == []
    inbox.close(anna, "test")
    assert (found(state="open"), found(state="closed")) == ([boris.id], [anna.id])
    with pytest.raises(ValueError, match="state"):
        found(state="lost")


def test_words_are_found_as_they_are_now(sms: Channel, frozen: Clock) -> None:
    heard(sms, "ключ под ковриком")
    assert inbox.find(inbox.Filter(q="КОВРИК")).items
    Inbound.update(text="ничего").execute()
    assert not inbox.find(inbox.Filter(q="коврик")).items and inbox.find(inbox.Filter(q="ничего")).items
    Inbound.delete().execute()
    assert not inbox.find(inbox.Filter(q="ничего")).items
    if not db.is_shared():
        assert db.value("INSERT INTO inbound_words (inbound_words) VALUES ('integrity-check') RETURNING 1") == 1


def test_who_answered_two_broadcasts_is_found_by_either(sms: Channel, frozen: Clock) -> None:
    first = wrote(sms)
    frozen.tick(minutes=1)
    heard(sms)
    second = wrote(sms)
    frozen.tick(minutes=1)
    conversation = heard(sms)
    for message in (first, second):
        found = inbox.find(inbox.Filter(broadcast_id=message.broadcast_id)).items
        assert [one.id for one in found] == [conversation.id]


def test_pages_of_the_list_leave_nobody_out(sms: Channel, frozen: Clock) -> None:
    for n in range(25):
        heard(sms, phone=f"+7902{n:07d}")
        frozen.tick(n % 2)  # some at the same moment
    seen: list[int] = []
    after: str | None = ""
    while after is not None:
        page = inbox.find(inbox.Filter(), after, 4)
        seen += [one.id for one in page.items]
        after = page.next
    assert sorted(seen) == sorted(one.id for one in Conversation.select()) and len(seen) == 25


@pytest.mark.parametrize("cursor", ["x", "1", "1.", "1.2.3", "-1.2", "1.²", "9" * 30 + ".1"])
def test_a_made_up_cursor_is_refused(sms: Channel, cursor: str) -> None:
    with pytest.raises(ValueError, match="after"):
        inbox.find(inbox.Filter(), cursor)
    with pytest.raises(ValueError, match="before"):
        talk.page(make_conversation(sms), cursor)


def make_conversation(channel: Channel) -> Conversation:
    return heard(channel)


def test_earlier_pages_hold_each_message_once(settings: Settings, sms: Channel, frozen: Clock) -> None:
    said = []
    for n in range(12):
        frozen.tick(seconds=10)
        wrote(sms, text=f"broadcast {n}")
        frozen.tick(seconds=10)
        conversation = heard(sms, f"reply {n}")
        frozen.tick(seconds=10)
        answer(settings, conversation, f"answer {n}")
        said += [f"broadcast {n}", f"reply {n}", f"answer {n}"]
    seen: list[str | None] = []
    before: str | None = ""
    while before is not None:
        page = talk.page(conversation, before, 5)
        seen = [entry.text for entry in page.items] + seen
        before = page.earlier
    assert seen == said


# --- reading, assigning


def test_reading_leaves_unread_what_came_after(sms: Channel, frozen: Clock) -> None:
    heard(sms, "one", key="in-1")
    seen = Inbound.get().id
    conversation = heard(sms, "two", key="in-2")
    inbox.read(conversation, seen)
    assert Conversation.get().unread == 1
    inbox.read(conversation)
    assert (Conversation.get().unread, inbox.unread_number()) == (0, 0)


def test_only_an_operator_can_be_given_a_conversation(sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms)
    viewer, operator = people.person("viewer"), people.person("sender")
    for email in (viewer.email, "nobody@example.org", ""):
        with pytest.raises(Invalid):
            inbox.assign(conversation, email, "test")
    inbox.assign(conversation, operator.email, "test")
    assert Conversation.get().assignee_id == operator.id
    inbox.assign(conversation, None, "test")
    assert Conversation.get().assignee_id is None
    assert [line.detail for line in Audit.select().where(Audit.action == "conversation.assign")] == [
        {"to": operator.email},
        {"to": None},
    ]


# --- answering


def answer(settings: Settings, conversation: Conversation, text: str = "Yes", **given: Any) -> Direct:
    return inbox.answer(settings, conversation, inbox.Given(text, **given), "anna")


def problem(settings: Settings, conversation: Conversation, text: str = "Yes", **given: Any) -> str:
    with pytest.raises(Invalid) as caught:
        answer(settings, conversation, text, **given)
    return next(iter(caught.value.problems.values())).code


def test_inside_the_window_a_text_and_outside_a_template(settings: Settings, waba: Channel, frozen: Clock) -> None:
    facts = {"status": "APPROVED", "category": "UTILITY", "synced_at": 1}
    MessageTemplate.create(channel=waba, name="here", language="en", components=TEMPLATE, **facts)
    conversation = heard(waba)
    frozen.tick(hours=23, minutes=59)
    answer(settings, conversation)
    frozen.tick(minutes=1)
    assert problem(settings, conversation) == "window_closed"
    template: dict[str, Any] = {"template": ("here", "en")}
    assert problem(settings, conversation, **template) == "slot_unbound"
    assert problem(settings, conversation, values={"body.1": "a\nb"}, **template) == "slot_invalid"
    assert problem(settings, conversation, template=("gone", "en")) == "template_unknown"
    answer(settings, conversation, values={"body.1": "Anna"}, **template)
    sent = talk.page(conversation).items[-1]
    assert (sent.kind, sent.text, sent.status) == ("template", "Anna, we are here", "queued")
    # The person writes, and a text may go again.
    hear(waba)
    answer(settings, Conversation.get())


def test_sms_has_no_window_and_at_most_ten_parts(settings: Settings, sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms)
    frozen.tick(days=100)
    answer(settings, conversation, "я" * 670)
    assert problem(settings, conversation, "я" * 671) == "too_many_segments"
    assert problem(settings, conversation, " \r\n ") == "text_required"
    assert problem(settings, conversation, template=("a", "b")) == "template_needs_waba"


def test_whatsapp_takes_4096_characters(settings: Settings, waba: Channel, frozen: Clock) -> None:
    conversation = heard(waba)
    answer(settings, conversation, "я" * 4_096)
    assert problem(settings, conversation, "я" * 4_097) == "text_too_long"


def test_who_asked_for_silence_is_answered_only_knowingly(settings: Settings, sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms, "STOP")
    assert problem(settings, conversation) == "optout_unconfirmed"
    assert Direct.select().count() == 0
    answer(settings, conversation, confirm_optout=True)


def test_who_stopped_marketing_gets_none_without_a_tick(settings: Settings, waba: Channel, frozen: Clock) -> None:
    facts = {"status": "APPROVED", "synced_at": 1, "language": "en", "components": [{"type": "BODY", "text": "Hi"}]}
    MessageTemplate.create(channel=waba, name="sale", category="MARKETING", **facts)
    MessageTemplate.create(channel=waba, name="order", category="UTILITY", **facts)
    conversation = heard(waba)
    with db.write():
        optouts.record(ANNA, optouts.PROVIDER, scope=optouts.MARKETING)
    answer(settings, conversation, "A text is no advertisement")
    answer(settings, conversation, template=("order", "en"))
    assert problem(settings, conversation, template=("sale", "en")) == "optout_unconfirmed"
    answer(settings, conversation, template=("sale", "en"), confirm_optout=True)


def test_the_same_form_makes_one_answer_and_a_corrected_one_another(
    settings: Settings, sms: Channel, frozen: Clock
) -> None:
    conversation = heard(sms)
    first = answer(settings, conversation, "Yes", key="form")
    assert answer(settings, conversation, "Yes", key="form").id == first.id
    assert answer(settings, conversation, "Yes, tomorrow", key="form").id != first.id
    assert answer(settings, heard(sms, phone=BORIS), "Yes", key="form").id != first.id
    assert Audit.select().where(Audit.action == "conversation.answer").count() == 3


def test_an_answer_is_the_latest_in_the_list_and_everything_is_read(
    settings: Settings, sms: Channel, frozen: Clock
) -> None:
    conversation = heard(sms)
    frozen.tick(minutes=1)
    answer(settings, conversation, "Of\ncourse")
    fresh = Conversation.get()
    assert (fresh.last_text, fresh.last_direction, fresh.unread, fresh.last_at) == ("Of course", "out", 0, frozen.ms)
    # A message that was written before it and comes late does not take its place.
    hear(sms, "late", at=frozen.ms - 30_000)
    late = Conversation.get()
    assert (late.last_text, late.unread) == ("Of course", 1)


def test_nothing_goes_out_by_a_channel_that_is_off(settings: Settings, sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms)
    for state, code in (("stopped", "channel_off"), ("deleted", "channel_gone")):
        Channel.update(state=state).where(Channel.id == sms.id).execute()
        assert problem(settings, conversation) == code


# --- the whole way


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[base.Outgoing]:
    found: list[base.Outgoing] = []

    def send(_provider: SandboxWaba, out: base.Outgoing) -> base.Accepted:
        found.append(out)
        if out.text == "unclear":
            raise base.SendError(base.UNCLEAR, "timeout")
        return base.Accepted(f"id-{out.token}")

    monkeypatch.setattr(SandboxWaba, "send", send)
    return found


def until(conversation: Conversation, done: Callable[[talk.Entry], bool]) -> talk.Entry:
    deadline = time.monotonic() + 15
    while not done(last := talk.page(conversation).items[-1]):
        assert time.monotonic() < deadline, last
        time.sleep(0.02)
    return last


def test_an_answer_leaves_once_and_its_ticks_follow_the_reports(
    settings: Settings, waba: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    conversation = heard(waba)
    for _press in range(3):
        answer(settings, conversation, "Yes", key="form")
    sent = until(conversation, lambda entry: entry.status == "sent")
    assert [(out.phone, out.text, out.template) for out in taken] == [(ANNA, "Yes", None)]
    with db.write():
        delivery.apply_updates(waba.id, [base.StatusUpdate("read", clock.now(), sent.provider_id)], clock.now())
    assert talk.page(conversation).items[-1].status == "read"
    # A reply that quotes our answer belongs to no broadcast.
    hear(waba, "thanks", context=sent.provider_id)
    assert Conversation.get().broadcast_id is None


def test_an_uncertain_answer_goes_again_only_by_a_person(
    settings: Settings, waba: Channel, sending: Sender, taken: list[base.Outgoing]
) -> None:
    conversation = heard(waba)
    answer(settings, conversation, "unclear")
    lost = until(conversation, lambda entry: entry.status == "uncertain")
    assert delivery.resolve(lost.id, "resend", "anna")
    until(conversation, lambda entry: entry.status == "uncertain" and len(taken) == 2)
    assert delivery.resolve(lost.id, "sent", "anna")
    assert talk.page(conversation).items[-1].status == "sent"
    assert direct.of_conversation(conversation.id)[0].text == "unclear"


# --- quick answers


def test_quick_answers_are_kept_changed_and_forgotten(database: Settings) -> None:
    row = inbox.keep_quick("  Hours ", "We are open\r\n9 to 6", "anna")
    assert [(one.title, one.text) for one in inbox.quick_answers()] == [("Hours", "We are open\n9 to 6")]
    inbox.keep_quick("Hours", "10 to 6", "anna", row)
    assert [one.text for one in inbox.quick_answers()] == ["10 to 6"]
    for title, text in (("", "x"), ("x", " "), ("x", "y" * 5_000)):
        with pytest.raises(Invalid):
            inbox.keep_quick(title, text, "anna")
    inbox.forget_quick(row, "anna")
    assert inbox.quick_answers() == []


# --- to what a reply belongs


def failed(channel: Channel, status: str) -> Message:
    """A broadcast's message that did not reach Anna."""
    file = make.file(make.broadcast(channel=channel, state="finished"), columns=["phone", "name"])
    return make.messages(file, status, sending_at=clock.now(), phone=ANNA, row=f'["{ANNA}","Anna"]')[0]


@pytest.mark.parametrize("status", ["failed", "undelivered"])
def test_a_reply_belongs_to_a_message_that_arrived(sms: Channel, frozen: Clock, status: str) -> None:
    first = wrote(sms)
    frozen.tick(minutes=1)
    failed(sms, status)
    frozen.tick(minutes=1)
    assert heard(sms).message_id == first.id


def test_a_reply_to_what_is_called_undelivered_belongs_to_it_all_the_same(sms: Channel, frozen: Clock) -> None:
    only = failed(sms, "undelivered")
    frozen.tick(minutes=1)
    assert heard(sms).message_id == only.id


def test_a_reply_that_comes_late_belongs_to_what_the_person_had_then(sms: Channel, frozen: Clock) -> None:
    first = wrote(sms)
    said = frozen.tick(minutes=1)
    frozen.tick(minutes=1)
    wrote(sms)
    assert heard(sms, at=said).message_id == first.id


def test_a_page_of_an_hour_ago_makes_nothing_unread_again(sms: Channel, frozen: Clock) -> None:
    for text in ("one", "two", "three"):
        frozen.tick(minutes=1)
        conversation = heard(sms, text)
    inbox.read(conversation)
    frozen.tick(minutes=1)
    assert heard(sms, "four").unread == 1
    inbox.read(conversation, Inbound.get(Inbound.text == "one").id)
    assert Conversation.get().unread == 1


def test_signs_that_no_text_may_hold_are_looked_for_without_fault(sms: Channel, frozen: Clock) -> None:
    heard(sms, "hello there")
    assert len(inbox.find(inbox.Filter(q="hel\0lo")).items) == 1
    assert inbox.find(inbox.Filter(q="\udcffabc")).items == []
