"""Webhooks on their pages and in the API: set up by administrators, the secret shown once, a test at a press."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.people import Browser, signed_in
from tests.providers.stub import Stub, answer
from webapp import create_app
from worker import webhooks
from worker.models import Audit, User, Webhook
from worker.settings import Settings

Headers = dict[str, dict[str, str]]
EVENTS = ["broadcast.finished", "message.inbound"]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running


@pytest.fixture
def app(database: Settings, stub: Stub) -> Flask:
    """The application of a server whose configuration allows the receiver on this machine."""
    app = create_app(replace(database, allowed_private_hosts=("127.0.0.1",)))
    app.testing = True
    return app


def add(admin: Browser, stub: Stub, **changes: Any) -> Any:
    return admin.post("/webhooks", {"url": f"{stub.url}/in", "events": EVENTS, **changes})


def test_the_secret_is_shown_once(admin: Browser, stub: Stub, settings: Settings) -> None:
    answer_ = add(admin, stub)
    secret = re.findall(r'data-copy="(whsec_[\w-]+)"', answer_.text)[0]
    assert Webhook.get().events == EVENTS
    assert secret not in admin.page("/webhooks") + admin.page("/webhooks/1")
    assert "webhook.add" in [row.action for row in Audit.select()]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"url": ""}, "Заполните"),
        ({"url": "http://93.184.215.14/"}, "https://"),
        ({"url": "https://10.0.0.1/"}, "10.0.0.1"),
        ({"events": []}, "Выберите"),
        ({"events": ["everything"]}, "everything"),
    ],
)
def test_what_cannot_be_used_is_said_beside_its_field(admin: Browser, stub: Stub, changes: Any, word: str) -> None:
    answer_ = add(admin, stub, **changes)
    assert answer_.status_code == 422 and Webhook.select().count() == 0
    assert word in "".join(re.findall(r'class="error".*?</p>', answer_.text)), answer_.text


def test_a_test_says_what_came_back_and_stands_in_the_log(admin: Browser, stub: Stub) -> None:
    add(admin, stub)
    assert admin.post("/webhooks/1/test").status_code == 303
    assert "принял тест: ответ 200" in admin.page("/webhooks/1")
    stub.behave = answer(503)
    admin.post("/webhooks/1/test")
    page = admin.page("/webhooks/1")
    assert page.count("<tr>") == 3 and "Ответ 503" in page
    assert [request.json["type"] for request in stub.requests] == ["test", "test"]


def test_it_is_changed_switched_and_deleted(admin: Browser, stub: Stub) -> None:
    add(admin, stub)
    assert admin.post("/webhooks/1", {"url": f"{stub.url}/other", "events": ["message.status"]}).status_code == 303
    row = Webhook.get()
    assert (row.url, row.events) == (f"{stub.url}/other", ["message.status"])
    admin.post("/webhooks/1/stopped")
    assert "Выключен вручную" in admin.page("/webhooks")
    admin.post("/webhooks/1/on")
    assert Webhook.get().state == "on"
    assert stub.url in admin.page("/webhooks/1/delete")
    admin.post("/webhooks/1/delete")
    assert Webhook.select().count() == 0 and admin.get("/webhooks/1").status_code == 404


def test_a_reason_to_look_is_on_the_page(admin: Browser, stub: Stub) -> None:
    add(admin, stub)
    Webhook.update(state="stopped", stop_reason="timeout").execute()
    assert "Нет ответа за 10\u00a0секунд" in admin.page("/webhooks")


@pytest.mark.parametrize("role", ["sender", "viewer"])
def test_only_administrators_get_there(app: Flask, users: dict[str, User], stub: Stub, role: str) -> None:
    browser = signed_in(app, users[role])
    assert browser.get("/webhooks").status_code == 403
    assert add(browser, stub).status_code == 403


def test_an_address_with_markup_is_text(admin: Browser, stub: Stub) -> None:
    add(admin, stub, url=f"{stub.url}/?<script>alert(1)</script>")
    assert "<script>alert" not in admin.page("/webhooks") + admin.page("/webhooks/1") + admin.page("/webhooks/1/delete")


def test_the_api_does_the_same(client: FlaskClient, api: Headers, stub: Stub) -> None:
    head, url = api["admin"], "/api/v1/webhooks"
    made = client.post(url, json={"url": stub.url, "events": EVENTS}, headers=head)
    assert made.status_code == 201 and made.json["secret"].startswith("whsec_")
    one = f"{url}/{made.json['id']}"
    shown = client.get(one, headers=head).json
    assert shown == {k: v for k, v in made.json.items() if k != "secret"}
    assert client.get(url, headers=head).json["items"] == [shown]
    assert client.post(f"{one}/test", headers=head).json["ok"] is True
    log = client.get(f"{one}/deliveries", headers=head).json
    assert [(line["event"], line["ok"], line["http_status"]) for line in log["items"]] == [("test", True, 200)]
    changed = client.patch(one, json={"state": "stopped", "events": ["message.status"]}, headers=head).json
    assert (changed["state"], changed["stop_reason"], changed["events"]) == ("stopped", "person", ["message.status"])
    assert client.patch(one, json={"state": "on"}, headers=head).json["stop_reason"] is None
    assert client.patch(one, json={"secret": "mine"}, headers=head).status_code == 422
    assert client.delete(one, headers=head).status_code == 204
    assert client.get(one, headers=head).status_code == 404
    assert client.get(url, headers=api["sender"]).status_code == 403


def test_the_log_comes_in_pages(client: FlaskClient, api: Headers, stub: Stub, settings: Settings) -> None:
    house = replace(settings, allowed_private_hosts=("127.0.0.1",))
    row, _secret = webhooks.add(house, {"url": stub.url, "events": EVENTS}, "anna")
    for _ in range(51):
        webhooks.test(house, row)
    first = client.get(f"/api/v1/webhooks/{row.id}/deliveries", headers=api["admin"]).json
    rest = client.get(f"/api/v1/webhooks/{row.id}/deliveries?after={first['next']}", headers=api["admin"]).json
    assert [line["id"] for line in first["items"] + rest["items"]] == list(range(51, 0, -1)) and rest["next"] is None


def test_one_that_does_not_answer_does_not_look_as_if_it_worked(admin: Browser, stub: Stub) -> None:
    english = {"Accept-Language": "en"}
    add(admin, stub)
    Webhook.update(failing_since=1).execute()
    row = Webhook.get()
    assert "Not responding" in admin.page(f"/webhooks/{row.id}", headers=english)
    assert "In use" not in admin.page("/webhooks", headers=english)
    Webhook.update(state="stopped", stop_reason="timeout").where(Webhook.id == row.id).execute()
    page = admin.page(f"/webhooks/{row.id}", headers=english)
    assert "Check the address, then switch it on again" in page and "Not responding" not in page
