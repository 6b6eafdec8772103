"""API tokens: made by administrators, shown once, limited, and never stronger than who made them."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.people import Browser
from worker import clock, db, people
from worker.models import ApiToken, Audit, User

FORM = {"name": "Nightly report", "role": "viewer", "days": "30"}


def made(admin: Browser, **changes: object) -> str:
    """The token that the page shows after one was made."""
    text = admin.post("/tokens", {**FORM, **changes}).text
    return re.findall(r'data-copy="(molva_[\w-]+)"', text)[0]


def asked(client: FlaskClient, token: str, path: str = "/api/v1/broadcasts") -> int:
    return client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_is_shown_once_and_works(admin: Browser, client: FlaskClient) -> None:
    token = made(admin)
    assert asked(client, token) == 200
    page = admin.page("/tokens")
    assert "Nightly report" in page and token[:12] in page and token not in page
    assert db.value("SELECT COUNT(*) FROM api_token WHERE token_hash = ?", [token]) == 0
    assert [row.action for row in Audit.select().where(Audit.subject == "Nightly report")] == ["token.create"]


@pytest.mark.parametrize(
    "changes", [{"name": ""}, {"name": "x" * 101}, {"role": "owner"}, {"days": "9999"}, {"areas": ["everything"]}]
)
def test_a_wrong_value_makes_no_token(admin: Browser, changes: dict[str, object]) -> None:
    answer = admin.post("/tokens", {**FORM, **changes})
    assert answer.status_code == 422
    assert ApiToken.select().count() == 0


def test_a_token_ends_at_its_time(admin: Browser, client: FlaskClient, frozen: object) -> None:
    token = made(admin, days="30")
    frozen.tick(days=29)
    assert asked(client, token) == 200
    frozen.tick(days=1)
    assert asked(client, token) == 401


def test_the_last_use_is_noted(admin: Browser, client: FlaskClient) -> None:
    token = made(admin)
    assert ApiToken.get().last_used_at is None
    asked(client, token)
    assert ApiToken.get().last_used_at >= clock.now() - clock.MINUTE


def test_a_revoked_token_is_refused_at_once(admin: Browser, client: FlaskClient) -> None:
    token = made(admin)
    question = admin.page("/tokens/1/revoke")
    assert "Nightly report" in question and ApiToken.select().count() == 1
    assert admin.post("/tokens/1/revoke").status_code == 303
    assert asked(client, token) == 401
    assert admin.get("/tokens/1/revoke").status_code == 404


def test_a_token_reaches_its_areas_alone(admin: Browser, client: FlaskClient) -> None:
    token = made(admin, role="admin", areas=["channels"])
    assert asked(client, token, "/api/v1/channels") == 200
    assert asked(client, token, "/api/v1/channels/providers") == 200
    for path in ("/api/v1/broadcasts", "/api/v1/broadcasts/999", "/metrics"):
        assert asked(client, token, path) == 403, path
    answer = client.post("/api/v1/phones/parse", json={"phones": []}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200  # touches nothing
    refused = client.get("/api/v1/broadcasts", headers={"Authorization": f"Bearer {token}", "Accept-Language": "en"})
    assert "not for this part" in refused.json["error"]["message"]


def test_a_token_without_areas_reaches_everything(admin: Browser, client: FlaskClient) -> None:
    token = made(admin)
    assert {asked(client, token, path) for path in ("/api/v1/channels", "/api/v1/broadcasts")} == {200}


def test_a_token_can_do_no_more_than_who_made_it_can_now(
    admin: Browser, client: FlaskClient, users: dict[str, User]
) -> None:
    token = made(admin, role="admin")
    headers = {"Authorization": f"Bearer {token}"}
    User.update(role="viewer").where(User.id == users["admin"].id).execute()
    assert asked(client, token) == 200
    assert client.post("/api/v1/broadcasts", json={}, headers=headers).status_code == 403
    User.update(active=False).where(User.id == users["admin"].id).execute()
    assert asked(client, token) == 401


def test_a_token_of_the_command_line_belongs_to_nobody(client: FlaskClient, users: dict[str, User]) -> None:
    token = people.create_token("cron", "viewer", actor="command line")
    User.update(active=False).execute()
    assert asked(client, token) == 200


@pytest.mark.parametrize("who", ["sender", "viewer"])
def test_only_administrators_see_and_make_tokens(app: Flask, request: pytest.FixtureRequest, who: str) -> None:
    browser: Browser = request.getfixturevalue(who)
    assert browser.get("/tokens").status_code == 403
    assert browser.post("/tokens", FORM).status_code == 403
    assert ApiToken.select().count() == 0


def test_the_name_of_a_token_is_text(admin: Browser) -> None:
    made(admin, name="<script>alert(1)</script>")
    assert "<script>alert" not in admin.page("/tokens") + admin.page("/tokens/1/revoke")
