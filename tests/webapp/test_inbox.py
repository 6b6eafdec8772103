"""The operator desk: who may see it, what strangers write stays text, answers leave once, nothing typed is lost."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import attachments, channels, clock, db, delivery, files, inbox
from worker.models import (
    Attachment,
    Broadcast,
    Channel,
    Conversation,
    Direct,
    Message,
    MessageTemplate,
    QuickAnswer,
    User,
)
from worker.providers import base
from worker.settings import Settings

ANNA, BORIS = "+79010000001", "+79010000002"
PNG = b"\x89PNG\r\n\x1a\n"
ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def accounts(database: Settings, settings: Settings, frozen: Clock) -> list[Channel]:
    return channels.ensure_sandbox(settings)


@pytest.fixture
def waba(accounts: list[Channel]) -> Channel:
    return accounts[0]


@pytest.fixture
def sms(accounts: list[Channel]) -> Channel:
    return accounts[1]


def heard(channel: Channel, text: str = "hello", phone: str = ANNA, **facts: Any) -> Conversation:
    item = base.InboundMessage(f"in-{clock.now()}-{phone}-{text[:20]}", phone, clock.now(), text=text, **facts)
    with db.write():
        delivery.receive_inbound(channel.id, item, clock.now())
    return Conversation.get((Conversation.channel_id == channel.id) & (Conversation.phone == phone))


def fresh() -> Conversation:
    return Conversation.get()


# --- who may


ROUTES = ("/inbox", "/inbox/list", "/inbox/unread", "/inbox/quick", "/inbox/1", "/inbox/1/talk", "/inbox/1/assign")


@pytest.mark.parametrize("path", [*ROUTES, "/inbox/1/template", "/inbox/attachments/1"])
def test_a_viewer_sees_nothing_of_it(viewer: Browser, sms: Channel, path: str) -> None:
    heard(sms)
    assert viewer.get(path).status_code == 403
    assert "/inbox" not in viewer.page("/broadcasts")


@pytest.mark.parametrize("path", ["answer", "read", "close", "reopen", "assign", "messages/1/resolve"])
def test_a_viewer_changes_nothing(viewer: Browser, sms: Channel, path: str) -> None:
    heard(sms)
    assert viewer.post(f"/inbox/1/{path}", {"text": "hi", "as": "sent"}).status_code == 403
    assert Direct.select().count() == 0


def test_what_is_not_there_is_not_found(sender: Browser, sms: Channel) -> None:
    heard(sms)
    for path in ("/inbox/2", "/inbox/999999999999999999999", "/inbox/attachments/1", "/inbox?view=x", "/inbox?after=x"):
        assert sender.get(path).status_code == 404, path
    assert sender.get("/inbox/1?before=x").status_code == 404
    assert sender.get("/inbox?channel=x").status_code == 404


# --- what it shows


def test_an_empty_inbox_says_when_something_will_come(sender: Browser, sms: Channel) -> None:
    assert "Диалог появится, когда кто-нибудь ответит на рассылку" in sender.page("/inbox")


def test_a_conversation_shows_the_broadcast_message_above_the_reply(
    sender: Browser, sms: Channel, frozen: Clock
) -> None:
    broadcast = make.broadcast(channel=sms, name="Spring", text="Sale!", state="finished")
    facts = {"phone": ANNA, "row": f'["{ANNA}"]', "text_version": 1, "sending_at": clock.now()}
    (message,) = make.messages(make.file(broadcast), "read", **facts)
    frozen.tick(minutes=1)
    heard(sms, "How much?", name="Anna")
    page = sender.page("/inbox/1")
    assert page.rindex("Sale!") < page.rindex("How much?")
    assert f"/broadcasts/{broadcast.id}/messages/{message.id}" in page
    assert f'<a href="/broadcasts/{broadcast.id}">Ответ на рассылку «Spring»</a>' in page
    listed = sender.page(f"/inbox?broadcast={broadcast.id}")
    assert f'<option value="{broadcast.id}" selected>Spring</option>' in listed and "Anna" in listed


def test_the_menu_says_how_much_is_unread(sender: Browser, sms: Channel) -> None:
    for n in range(101):
        heard(sms, phone=f"+7902{n:07d}")
    assert ">99+<" in sender.page("/broadcasts")
    Conversation.update(unread=0).where(Conversation.id > 3).execute()
    answer = sender.partial("/inbox/unread?n=101")
    assert ">3<" in answer.text
    assert sender.partial("/inbox/unread?n=3").status_code == 204


def test_looking_reads_nothing_and_being_shown_does(sender: Browser, sms: Channel) -> None:
    heard(sms)
    page = sender.page("/inbox/1")
    assert fresh().unread == 1
    seen = re.search(r'name="seen" value="(\d+)"', page)
    assert seen is not None
    heard(sms, "one more")
    answer = sender.post("/inbox/1/read", {"seen": seen[1]}, htmx=True)
    assert (answer.status_code, fresh().unread) == (204, 1)
    assert "inbox-changed" in answer.headers["HX-Trigger"]
    assert sender.post("/inbox/1/read").status_code == 303
    assert fresh().unread == 0


def test_live_parts_are_silent_while_nothing_changes(sender: Browser, sms: Channel, frozen: Clock) -> None:
    heard(sms)
    for part in ("/inbox/1/talk", "/inbox/list"):
        page = sender.page("/inbox/1")
        url = re.search(rf'hx-get="({part}\?[^"]+)"', page)
        assert url is not None
        address = url[1].replace("&amp;", "&")
        assert sender.partial(address).status_code == 204
        heard(sms, f"news for {part}")
        fragment = sender.partial(address)
        assert fragment.status_code == 200 and "news for" in fragment.text
        assert "answer-text" not in fragment.text  # the form and what was typed stay


PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 77*77*77 }}",
    "' hx-get=/x '",
    "javascript:alert(1)",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_strangers_write_is_text_everywhere(sender: Browser, sms: Channel, payload: str) -> None:
    attached = (base.Attached("1", payload, payload),)
    heard(sms, payload, name=payload, kind="document", attached=attached)
    Attachment.update(state="failed", cause="timeout").execute()
    Broadcast.update(name=payload).execute()
    pages = [sender.page(path) for path in ("/inbox", "/inbox/1", "/inbox/list", "/inbox/1/talk")]
    sender.post("/inbox/quick", {"title": payload, "text": payload})
    pages += [sender.page("/inbox/quick"), sender.page("/inbox/1")]
    for page in pages:
        assert "456533" not in page
        seen = Tags()
        seen.feed(page)
        for tag, attributes in seen.found:
            assert tag != "script" or attributes["src"].startswith("/static/")
            assert tag != "img" or attributes["src"].startswith("/inbox/")
            assert not any(name.startswith(("on", "hx-on")) or name == "style" for name in attributes)
            assert attributes.get("hx-get", "") != "/x" and not attributes.get("href", "").startswith("java")


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_filters_keep_to_the_address(sender: Browser, sms: Channel, users: dict[str, User]) -> None:
    heard(sms, "hello", name="Anna")
    heard(sms, "bye", BORIS, name="Boris")
    inbox.assign(Conversation.get(Conversation.phone == BORIS), users["sender"].email, "test")
    mine = sender.page("/inbox?view=mine")
    assert "Boris" in mine and "Anna" not in mine
    found = sender.page("/inbox?view=all&q=ann")
    assert "Anna" in found and "Boris" not in found
    assert 'href="/inbox/1?view=all&amp;q=ann"' in found
    typed = sender.partial("/inbox/list?q=ann&view=all", headers={"HX-Trigger-Name": "q"})
    assert typed.headers["HX-Replace-Url"] == "/inbox?view=all&q=ann"
    assert "Таких диалогов нет" in sender.page("/inbox?q=nobody")


def test_long_conversations_are_shown_in_parts(sender: Browser, sms: Channel, frozen: Clock) -> None:
    for n in range(120):
        frozen.tick(seconds=1)
        heard(sms, f"message {n:03d}")
    page = sender.page("/inbox/1")
    assert "message 070" in page and "message 069" not in page
    assert "message 020" in sender.partial("/inbox/1/talk?n=100").text
    whole = sender.page("/inbox/1?n=500")
    assert "message 000" in whole and "before=" not in whole


# --- answering


def form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_double_click_sends_one_answer(sender: Browser, sms: Channel) -> None:
    heard(sms)
    typed = {"text": "Of course", "form_token": form_token(sender.page("/inbox/1"))}
    first = sender.post("/inbox/1/answer", typed, htmx=True)
    assert first.status_code == 200 and "Of course" in first.text
    assert form_token(first.text) != typed["form_token"]
    assert sender.post("/inbox/1/answer", typed, htmx=True).status_code == 200
    assert sender.post("/inbox/1/answer", typed).status_code == 303  # as a browser without scripts
    assert Direct.select().count() == Message.select().count() == 1
    assert (Direct.get().made_by, fresh().unread) == ("sender@example.org", 0)


def test_a_refused_answer_keeps_what_was_typed(sender: Browser, waba: Channel, frozen: Clock) -> None:
    heard(waba)
    frozen.tick(hours=25)
    for htmx in (True, False):
        answer = sender.post("/inbox/1/answer", {"text": "Too late <b>"}, htmx=htmx)
        assert answer.status_code == 422
        assert "Окно ответа закрыто: отправьте шаблон" in answer.text and "Too late &lt;b&gt;" in answer.text
    assert Direct.select().count() == 0


def test_outside_the_window_a_template_is_offered_with_its_fields(
    sender: Browser, waba: Channel, frozen: Clock
) -> None:
    components = [{"type": "BODY", "text": "{{1}}, we are here"}]
    facts = {"status": "APPROVED", "category": "UTILITY", "synced_at": 1, "components": components}
    MessageTemplate.create(channel=waba, name="here", language="en", **facts)
    MessageTemplate.create(channel=waba, name="paused", language="en", **{**facts, "status": "PAUSED"})
    heard(waba)
    frozen.tick(hours=25)
    page = sender.page("/inbox/1")
    assert 'class="window window-closed"' in page and 'value="here/en"' in page and 'value="paused/en"' not in page
    assert 'name="slot.body.1"' in sender.partial("/inbox/1/template?template=here/en").text
    assert 'name="slot.body.1"' in sender.post("/inbox/1/answer", {"template": "here/en", "refresh": "1"}).text
    missing = sender.post("/inbox/1/answer", {"template": "here/en"}, htmx=True)
    assert missing.status_code == 422 and Direct.select().count() == 0
    sent = sender.post("/inbox/1/answer", {"template": "here/en", "slot.body.1": "Anna"}, htmx=True)
    assert sent.status_code == 200 and "Anna, we are here" in sent.text
    for other in ("", "gone/en", "paused/en", "nothing"):
        assert sender.post("/inbox/1/answer", {"template": other}, htmx=True).status_code == 422
    assert Direct.select().count() == 1


def test_somebody_on_the_stop_list_is_answered_after_a_tick(sender: Browser, sms: Channel) -> None:
    heard(sms, "Стоп")
    page = sender.page("/inbox/1")
    assert "Человек прислал «Стоп»: номер в стоп-листе, рассылки ему не уйдут" in page
    assert 'name="confirm_optout"' in page
    refused = sender.post("/inbox/1/answer", {"text": "Sorry"}, htmx=True)
    assert refused.status_code == 422 and "Sorry" in refused.text
    assert sender.post("/inbox/1/answer", {"text": "Sorry", "confirm_optout": "1"}, htmx=True).status_code == 200


def test_a_stop_is_told_of_for_as_long_as_it_holds(sender: Browser, sms: Channel, frozen: Clock) -> None:
    conversation = heard(sms, "STOP")
    told = "the number is on the stop list, no broadcast will reach it"
    assert told in sender.get(f"/inbox/{conversation.id}", headers=ENGLISH).text
    frozen.tick(minutes=1)
    heard(sms, "START")
    page = sender.get(f"/inbox/{conversation.id}", headers=ENGLISH).text
    assert told not in page and "they take back their own stop" in page


def test_an_uncertain_answer_is_settled_by_a_person(sender: Browser, sms: Channel) -> None:
    heard(sms)
    sender.post("/inbox/1/answer", {"text": "Yes"}, htmx=True)
    message = Message.get()
    Message.update(status="uncertain", sending_at=clock.now()).execute()
    db.execute("UPDATE counter SET status = 'uncertain' WHERE status = 'queued'")
    page = sender.page("/inbox/1", headers=ENGLISH)
    assert "Send it again" in page and "Count as sent" in page
    heard(sms, phone=BORIS)
    assert sender.post(f"/inbox/2/messages/{message.id}/resolve", {"as": "sent"}).status_code == 404
    assert sender.post(f"/inbox/1/messages/{message.id}/resolve", {"as": "gone"}).status_code == 404
    assert sender.post(f"/inbox/1/messages/{message.id}/resolve", {"as": "sent"}, htmx=True).status_code == 200
    assert Message.get_by_id(message.id).status == "sent"


# --- whose it is


def test_it_is_taken_handed_over_closed_and_opened(sender: Browser, sms: Channel, users: dict[str, User]) -> None:
    heard(sms)
    sender.post("/inbox/1/assign", htmx=True)
    assert fresh().assignee_id == users["sender"].id
    assert "admin@example.org" in sender.page("/inbox/1/assign")
    sender.post("/inbox/1/assign", {"user": users["admin"].email})
    assert fresh().assignee_id == users["admin"].id
    refused = sender.post("/inbox/1/assign", {"user": users["viewer"].email}, htmx=True)
    assert '"level": "error"' in refused.headers["HX-Trigger"]
    sender.post("/inbox/1/assign", {"user": ""})  # nothing was chosen
    assert fresh().assignee_id == users["admin"].id
    sender.post("/inbox/1/assign", {"user": "-"})
    assert fresh().assignee_id is None
    sender.post("/inbox/1/close", htmx=True)
    assert fresh().state == "closed"
    assert 'href="/inbox/1?view=closed"' in sender.page("/inbox?view=closed")
    assert 'href="/inbox/1"' not in sender.page("/inbox")
    sender.post("/inbox/1/reopen")
    assert fresh().state == "open"


# --- files


def kept(settings: Settings, channel: Channel, data: bytes, mime: str, name: str = "") -> Attachment:
    """A fetched file."""
    heard(channel, "look", kind="image", attached=(base.Attached("1", mime, name),))
    path = settings.media / ("a" * 32)
    path.write_bytes(data)
    files.keep(path)
    Attachment.update(state="ready", path=path.name, size=len(data), mime=mime).execute()
    return Attachment.get()


def test_a_picture_is_shown_and_can_do_nothing(sender: Browser, settings: Settings, waba: Channel) -> None:
    row = kept(settings, waba, PNG, "image/png")
    assert f'src="/inbox/attachments/{row.id}"' in sender.page("/inbox/1")
    answer = sender.get(f"/inbox/attachments/{row.id}")
    assert (answer.data, answer.mimetype) == (PNG, "image/png")
    assert answer.headers["Content-Disposition"] == f"inline; filename=file-{row.id}.png"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    answer.close()


@pytest.mark.parametrize("mime", ["text/html", "image/svg+xml", "application/pdf", "application/octet-stream"])
def test_everything_else_is_only_handed_out(sender: Browser, settings: Settings, waba: Channel, mime: str) -> None:
    row = kept(settings, waba, b"<script>alert(1)</script>", mime, "../../счёт\r\n\u202egpj.exe")
    assert "<img" not in sender.page("/inbox/1")
    answer = sender.get(f"/inbox/attachments/{row.id}")
    assert answer.mimetype == attachments.BINARY
    said = answer.headers["Content-Disposition"]
    assert said.startswith("attachment; ") and "/" not in said.replace("UTF-8''", "") and "%E2%80%AE" not in said
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    answer.close()


@pytest.mark.parametrize(
    ("name", "mime", "shown"),
    [
        ("price.pdf", "application/pdf", "price.pdf"),
        ("", "application/pdf", "file-1.pdf"),
        ("..", "image/png", "file-1.png"),
        ("a/b\\c:d*e?.txt", "text/plain", "abcde.txt"),
        ("x" * 300 + ".docx", "", "x" * 100 + ".docx"),
        ("no ending", "", "no ending"),
        ("\x00\x1b[2J\u2066evil", "", "[2Jevil"),
    ],
)
def test_names_of_files_are_made_safe(database: Settings, name: str, mime: str, shown: str) -> None:
    assert attachments.file_name(Attachment(id=1, name=name, mime=mime)) == shown


def test_a_failed_file_says_why_and_can_be_tried_again(sender: Browser, waba: Channel) -> None:
    heard(waba, "look", kind="document", attached=(base.Attached("1", "", "a.pdf"),))
    assert "файл загружается" in sender.page("/inbox/1")
    assert sender.get("/inbox/attachments/1").status_code == 404
    Attachment.update(state="failed", cause="131052").execute()
    assert "Попробовать ещё раз" in sender.page("/inbox/1")
    assert sender.post("/inbox/attachments/1/again", htmx=True).status_code == 200
    assert Attachment.get().state == "waiting"


# --- quick answers


def test_quick_answers_are_kept_and_offered(sender: Browser, sms: Channel) -> None:
    heard(sms)
    assert sender.post("/inbox/quick", {"title": "Hours", "text": 'We are "open"'}).status_code == 303
    assert 'data-insert="We are &#34;open&#34;" data-into="answer-text"' in sender.page("/inbox/1")
    refused = sender.post("/inbox/quick/1", {"title": "", "text": "typed"})
    assert refused.status_code == 422 and "typed" in refused.text
    sender.post("/inbox/quick/1", {"title": "Hours", "text": "closed"})
    assert QuickAnswer.get().text == "closed"
    sender.post("/inbox/quick/1/delete")
    assert QuickAnswer.select().count() == 0
    assert sender.post("/inbox/quick/1/delete").status_code == 404
