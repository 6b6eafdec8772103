"""The second person on the page and through the API."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import Browser, person, signed_in
from worker.models import Broadcast


@pytest.fixture(autouse=True)
def rule(clock: Clock, admin: Browser) -> None:
    assert admin.post("/people/rules", {"above": "1"}).status_code == 303


@pytest.fixture
def made(rule: None) -> Broadcast:
    made = make.broadcast(changed_by="sender@example.org", created_by="sender@example.org")
    make.messages(make.file(made, accepted=2), "queued", "queued")
    return made


def test_the_rule_is_set_on_the_page_and_switched_off_by_leaving_it_empty(admin: Browser) -> None:
    assert 'value="1"' in admin.page("/people")
    for wrong in ("-1", "many", "1.5"):
        assert admin.post("/people/rules", {"above": wrong}).status_code == 422
    assert admin.post("/people/rules", {"above": "60 000"}).status_code == 303
    assert 'value="60000"' in admin.page("/people")
    assert admin.post("/people/rules", {"above": ""}).status_code == 303
    assert 'name="above" inputmode="numeric" class="short" value=""' in admin.page("/people")


def test_the_maker_sees_who_is_needed_the_second_person_a_button(app: Flask, sender: Browser, made: Broadcast) -> None:
    other = signed_in(app, person("sender", "boris@example.org"))
    url = f"/broadcasts/{made.id}"
    assert "должен одобрить второй человек" in sender.page(url)
    assert f'action="{url}/approve"' not in sender.page(url)
    refused = sender.post(f"{url}/start", htmx=True)
    assert "approval" not in refused.text and Broadcast.get_by_id(made.id).state == "draft"
    assert f'action="{url}/approve"' in other.page(url)
    assert other.post(f"{url}/approve", {"seen": str(made.updated_at)}).status_code == 303
    assert "Одобрено: boris@example.org" in sender.page(url)
    assert sender.post(f"{url}/start").status_code == 303
    assert Broadcast.get_by_id(made.id).state == "running"


def test_the_maker_cannot_press_it_either(sender: Browser, made: Broadcast) -> None:
    sender.post(f"/broadcasts/{made.id}/approve", {"seen": str(made.updated_at)})
    assert Broadcast.get_by_id(made.id).approved_by is None


def test_a_viewer_may_not(viewer: Browser, made: Broadcast) -> None:
    assert viewer.post(f"/broadcasts/{made.id}/approve").status_code == 403
    assert "одобрить" not in viewer.page(f"/broadcasts/{made.id}")


def test_what_changed_since_the_page_was_drawn_is_not_approved(admin: Browser, made: Broadcast) -> None:
    answer = admin.post(f"/broadcasts/{made.id}/approve", {"seen": "1"}, htmx=True)
    assert answer.status_code == 200
    assert Broadcast.get_by_id(made.id).approved_by is None


def test_the_api_says_what_is_missing_and_lets_another_token_approve(app: Flask, api: Any, made: Broadcast) -> None:
    client, path = app.test_client(), f"/api/v1/broadcasts/{made.id}"
    assert client.get(path, headers=api["viewer"]).json["approval"] == {"needed": True, "by": None, "at": None}
    refused = client.post(f"{path}/start", headers=api["sender"])
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "approval_needed")
    approved = client.post(f"{path}/approve", headers=api["sender"])
    assert approved.json["approval"]["by"] == "token test sender"
    assert client.post(f"{path}/start", headers=api["sender"]).json["state"] == "running"
    assert client.post(f"{path}/approve", headers=api["admin"]).status_code == 409


def test_a_token_does_not_approve_what_it_made(app: Flask, api: Any) -> None:
    channel = make.channel()
    client = app.test_client()
    values = {"name": "N", "channel_id": channel.id, "text": "Hi", "rate_per_minute": 60}
    made = client.post("/api/v1/broadcasts", json=values, headers=api["sender"]).json
    answer = client.post(f"/api/v1/broadcasts/{made['id']}/approve", headers=api["sender"])
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "approval_own")
