"""Who sees whose number, the timers on their page, and one person's data found, downloaded and erased."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import Browser, signed_in
from tests.webapp.test_matrix import Route, routes
from worker import retention
from worker.models import (
    Broadcast,
    Conversation,
    Direct,
    Inbound,
    Message,
    OptOut,
    OptOutEvent,
    RejectedRow,
    User,
)
from worker.people import ROLES

PHONE = "+79995554711"
SPELLINGS = re.compile(r"9\W{0,3}9\W{0,3}9\W{0,3}5\W{0,3}5\W{0,3}5\W{0,3}4\W{0,3}7\W{0,3}1\W{0,3}1")


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """Time stands before anybody signs in."""


@pytest.fixture
def known(clock: Clock, database: object) -> Broadcast:
    """The number stands wherever a page, an answer of the API or an export may take it from; every id is 1."""
    made = make.broadcast(channel=make.channel(), name="First")
    file = make.file(
        made, columns=["phone", "name"], sample=[[PHONE, "Anna"]], rejected={"phone_invalid": 1}, rows=2,
        repairs={"count": 1, "examples": [["8 999 555 47 11", PHONE]]},
    )  # fmt: skip
    columns = {"row": json.dumps([PHONE, "Anna"]), "cause": "unknown", "cause_text": f"bad number {PHONE}"}
    for message in make.messages(file, "failed", "uncertain", "queued", "sent", provider_id=f"w{PHONE}", **columns):
        Message.update(phone=PHONE).where(Message.id == message.id).execute()
    RejectedRow.create(file_id=file.id, line=3, code="phone_invalid", value=PHONE, original=f"{PHONE};Anna")
    now = clock.now()
    Conversation.create(channel_id=1, phone=PHONE, name="Anna", last_in_at=now, last_at=now, created_at=now)
    Inbound.create(
        channel_id=1, provider_id="in1", phone=PHONE, kind="text", text="Hi", at=now, received_at=now,
        conversation_id=1, broadcast_id=made.id, message_id=1,
    )  # fmt: skip
    OptOut.create(phone=PHONE, source="person", at=now)
    OptOutEvent.create(phone=PHONE, scope="all", action="add", source="person", reason="", actor="", at=now)
    Direct.create(channel_id=1, message_id=2, kind="test", phone=PHONE, about_id=1, made_by="test", at=now)
    return made


def looks(app: Flask, role: str) -> Iterator[Route]:
    """Every address that this role may look at."""
    for route in routes(app):
        closed = route.role in ROLES and ROLES.index(role) < ROLES.index(route.role)
        if route.method == "GET" and route.role and not closed:
            yield route


def texts(app: Flask, user: User, api: Any) -> Iterator[tuple[str, str]]:
    """(address, what stands there) of everything that this person, or a token of the role, may look at."""
    browser = signed_in(app, user)
    for route in looks(app, user.role):
        for query in ("", "?run=all"):
            path = route.path() + query
            if route.of_api:
                answer = app.test_client().get(path, headers=api[user.role])
            else:
                answer = browser.get(path, headers={"HX-Request": "true"} if "/list" in path else {})
            assert answer.status_code != 500, path
            heads = " ".join(f"{name}: {value}" for name, value in answer.headers)
            yield path, f"{heads}\n{answer.data.decode('utf-8', 'replace')}"


def test_a_viewer_meets_no_number_anywhere(
    app: Flask, users: dict[str, User], api: Any, known: Broadcast, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = {path for path, text in texts(app, users["viewer"], api) if SPELLINGS.search(text)}
    assert seen == set()
    assert not SPELLINGS.search(caplog.text)


def test_what_a_viewer_sees_is_the_mask(viewer: Browser, app: Flask, api: Any, known: Broadcast) -> None:
    assert "+7999•••••11" in viewer.page(f"/broadcasts/{known.id}/report")
    assert "+7999•••••11" in viewer.get(f"/broadcasts/{known.id}/report.csv").data.decode()
    items = app.test_client().get(f"/api/v1/broadcasts/{known.id}/messages", headers=api["viewer"]).json["items"]
    assert {item["phone"] for item in items} == {"+7999•••••11"}


def test_a_viewer_cannot_search_figure_by_figure(viewer: Browser, app: Flask, api: Any, known: Broadcast) -> None:
    assert viewer.get(f"/broadcasts/{known.id}/report?phone=7999").status_code == 403
    url = f"/api/v1/broadcasts/{known.id}/messages?phone=7999"
    assert app.test_client().get(url, headers=api["viewer"]).status_code == 403


def test_a_sender_sees_whole_numbers_by_a_click_and_in_exports(
    sender: Browser, app: Flask, api: Any, known: Broadcast
) -> None:
    assert not SPELLINGS.search(sender.page(f"/broadcasts/{known.id}/report"))
    assert "999 555-47-11" in sender.page(f"/broadcasts/{known.id}/messages/1").replace("\u00a0", " ")
    assert PHONE in sender.get(f"/broadcasts/{known.id}/report.csv").data.decode()
    items = app.test_client().get(f"/api/v1/broadcasts/{known.id}/messages", headers=api["sender"]).json["items"]
    assert {item["phone"] for item in items} == {PHONE}


def test_no_title_holds_a_number(app: Flask, users: dict[str, User], api: Any, known: Broadcast) -> None:
    for path, text in texts(app, users["admin"], api):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
        assert title is None or not SPELLINGS.search(title[1]), path


# ---- timers


def test_timers_are_set_on_the_page(admin: Browser) -> None:
    assert admin.post("/privacy/timers", {"texts": "90", "numbers": "1 80"}).status_code == 303
    assert retention.days() == {
        "texts": 90, "files": None, "callbacks": None, "numbers": 180, "inbox": None, "audit": None
    }  # fmt: skip
    page = admin.page("/privacy")
    assert 'name="texts" class="short" size="6" inputmode="numeric" value="90"' in page


@pytest.mark.parametrize(("name", "value"), [("audit", "365"), ("texts", "0"), ("files", "-1"), ("inbox", "soon"), ("texts", "9" * 50)])  # fmt: skip
def test_a_timer_that_cannot_be_changes_none(admin: Browser, name: str, value: str) -> None:
    answer = admin.post("/privacy/timers", {"callbacks": "3", name: value})
    assert answer.status_code == 422
    assert f'value="{value}"' in answer.text
    assert set(retention.days().values()) == {None}


def test_the_page_says_what_is_stored_and_what_was_removed(admin: Browser, clock: Clock) -> None:
    from worker import privacy

    retention.set_days({"inbox": 365}, "admin")
    page = admin.page("/privacy")
    assert all(f"<code>{one.table}</code>" in page for one in privacy.STORED)
    assert "365 дней" in page and "Пока ничего" in page
    kept = {one.table: page.split(f"<code>{one.table}</code>")[1].split("</tr>")[0] for one in privacy.STORED}
    assert "7 дней" in kept["webhook_delivery"] and "7 дней" in kept["callback"] and "1 день" in kept["repeat_answer"]
    assert "без срока" in kept["message"]


# ---- one person


def test_a_person_is_found_downloaded_and_erased(admin: Browser, known: Broadcast) -> None:
    page = admin.post("/privacy/person", {"phone": "8 (999) 555-47-11"}).text
    assert "Стоп-лист" in page and "Сообщения:" in page
    answer = admin.post("/privacy/person.json", {"phone": PHONE})
    found = json.loads(answer.data)
    assert found["phone"] == PHONE and len(found["message"]) == 4
    assert answer.headers["Content-Disposition"].startswith("attachment")
    erased = admin.post("/privacy/person/erase", {"phone": PHONE, "again": "8 999 555 47 11"})
    assert erased.status_code == 200
    assert "сообщения обезличены: 4" in erased.text
    assert not Message.select().where(Message.phone == PHONE).exists()
    assert "Ничего не найдено" in admin.post("/privacy/person", {"phone": PHONE}).text


def test_erasing_asks_for_the_number_again(admin: Browser, known: Broadcast) -> None:
    for again in ("", "+79995554712", "yes"):
        assert admin.post("/privacy/person/erase", {"phone": PHONE, "again": again}).status_code == 422
    assert Message.select().where(Message.phone == PHONE).count() == 4


def test_nobody_is_erased_while_a_file_may_bring_them_back(admin: Browser, known: Broadcast) -> None:
    make.file(known, state="checking")
    answer = admin.post("/privacy/person/erase", {"phone": PHONE, "again": PHONE})
    assert answer.status_code == 409
    assert Message.select().where(Message.phone == PHONE).count() == 4


@pytest.mark.parametrize("typed", ["", "Anna", "123", "<script>", "+7999555471100000"])
def test_what_is_no_number_finds_nobody(admin: Browser, typed: str) -> None:
    for path in ("person", "person.json"):
        answer = admin.post(f"/privacy/{path}", {"phone": typed})
        assert answer.status_code == 422 and "<script>" not in answer.text


@pytest.mark.parametrize("path", ["timers", "person", "person.json", "person/erase"])
def test_all_of_it_asks_for_the_password_again(admin: Browser, clock: Clock, path: str) -> None:
    clock.tick(minutes=11)
    assert admin.post(f"/privacy/{path}", {"phone": PHONE, "again": PHONE}).status_code == 403
