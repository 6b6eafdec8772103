"""The operator desk in a real browser: a conversation appears by itself, typing is never disturbed, answers arrive."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Window, sign_in, sign_up
from tests.product import Product, wait
from worker import broadcasts, channels, clock, db, delivery, inbox, recipients, tasks
from worker.models import Broadcast, Channel, Conversation, RecipientFile
from worker.providers import base

REPLIES, PICTURE = "+79000001009", "+79000001012"


@pytest.fixture(autouse=True)
def database(product: Product) -> Iterator[None]:
    """The tables of the running product."""
    db.open_database(product.settings)
    with db.connection():
        yield
    db.close()


def broadcast(product: Product) -> None:
    """A finished broadcast to two of the sandbox's people, of whom both reply."""
    channel = Channel.get(Channel.provider == "sandbox_waba")
    tasks.configure(product.settings)
    wait(lambda: channels.template(channel.id, "welcome", "ru") is not None, 20)
    values = {
        "name": "Autumn",
        "channel_id": channel.id,
        "template": {"name": "welcome", "language": "ru"},
        "variables": {"body.1": {"column": "name"}},
        "rate_per_minute": 600,
    }
    row = broadcasts.create(product.settings, values, "test")
    people = io.BytesIO(f"phone,name\n{REPLIES},Olga\n{PICTURE},Anna".encode())
    file = recipients.receive(row, people, "a.csv", product.settings.uploads, {}, "test")
    tasks.read_file(file.id)
    wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 20)
    tasks.wake(broadcasts.start(product.settings, Broadcast.get_by_id(row.id), "test").id)


def hear(phone: str, text: str) -> None:
    """The person writes once more."""
    row = Conversation.get(Conversation.phone == phone)
    with db.write():
        item = base.InboundMessage(f"more-{text}", phone, clock.now(), text=text)
        delivery.receive_inbound(row.channel_id, item, clock.now())


def test_an_operator_answers_people(window: Callable[..., Window], product: Product) -> None:
    desk = window("inbox", viewport={"width": 1280, "height": 800})
    page: Any = desk.page
    sign_up(desk, product.code)
    desk.open("/inbox")
    assert "Диалог появится, когда кто-нибудь ответит" in page.inner_text(".empty")
    broadcast(product)
    # Nobody reloads: both appear by themselves, and the menu counts them.
    page.wait_for_selector("[data-conversation] >> nth=1", timeout=40_000)
    desk.shot("both")
    olga = Conversation.get(Conversation.phone == REPLIES)
    page.click(f"#to-{olga.id}")
    page.wait_for_selector(".entry-in")
    first, reply = page.locator(".entry").all()
    assert "Здравствуйте, Olga" in first.inner_text() and "часы работы" in reply.inner_text()
    page.wait_for_selector("#unread:has-text('1')")
    assert Conversation.get_by_id(olga.id).unread == 0

    # While one types, the person writes again: the message comes, the typed text and the focus stay.
    inbox.keep_quick("Hours", "from 9 to 6", "test")
    desk.open(f"/inbox/{olga.id}")
    page.fill("#answer-text", "We are open ")
    hear(REPLIES, "are you there?")
    page.wait_for_selector("text=are you there?")
    assert page.input_value("#answer-text") == "We are open "
    assert page.evaluate("document.activeElement.id") == "answer-text"
    page.click("details.quick summary")
    page.click(".quick-one")
    assert page.input_value("#answer-text") == "We are open from 9 to 6"
    page.press("#answer-text", "Control+Enter")
    ours = page.locator(".entry-out", has_text="We are open from 9 to 6")
    ours.wait_for()
    assert page.input_value("#answer-text") == "" and page.evaluate("document.activeElement.id") == "answer-text"
    ours.locator(".badge", has_text=re.compile("Доставлено|Прочитано")).wait_for()
    desk.shot("answered")
    assert [facts["text"] for facts in product.accepted() if "open" in facts["text"]] == ["We are open from 9 to 6"]

    # From one to the next by keyboard, where a picture waits.
    page.keyboard.press("Alt+ArrowDown")
    page.wait_for_url(re.compile(rf"/inbox/(?!{olga.id})\d+"))
    page.wait_for_selector(".entry-picture img")
    wait(lambda: page.evaluate("document.querySelector('.entry-picture img').naturalWidth") == 240, 10)
    desk.shot("picture")
    page.click("text=Взять себе")
    page.wait_for_selector(".talk-deeds .badge:has-text('я')")
    page.click("text=Закрыть диалог")
    page.wait_for_selector("text=Открыть снова")


def test_it_fits_a_phone_in_the_dark_and_works_without_scripts(window: Callable[..., Window], product: Product) -> None:
    narrow = window("inbox-narrow", viewport={"width": 320, "height": 640}, color_scheme="dark", locale="en-US")
    sign_in(narrow)
    olga = Conversation.get(Conversation.phone == REPLIES)
    for path in ("/inbox?view=all", f"/inbox/{olga.id}", "/inbox/quick"):
        narrow.open(path)
        narrow.shot("page")
        assert narrow.fits(), path
    plain = window("inbox-plain", java_script_enabled=False, locale="en-US")
    sign_in(plain)
    plain.open(f"/inbox/{olga.id}")
    plain.page.fill("#answer-text", "Without scripts")
    plain.page.click(".answer-text .button-primary")
    plain.page.locator(".entry-out", has_text="Without scripts").wait_for()
    plain.page.click("text=Close conversation")
    plain.page.wait_for_selector("text=Reopen")
    plain.shot("closed")
