"""What costs the server much is held to a number in a sliding window, and refused with words and a time."""

from __future__ import annotations

import io

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import Browser, person, signed_in
from webapp.limits import RULES, Limits
from worker.models import Channel


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """Time stands before anybody signs in."""


def test_the_window_slides(clock: Clock) -> None:
    limits, rule = Limits(), RULES["export"]
    pause = rule.seconds / rule.n
    for _ in range(rule.n):
        assert limits.take("export", "anna") == 0
        clock.tick(seconds=pause / 2)
    wait = limits.take("export", "anna")
    assert 0 < wait <= rule.seconds
    assert limits.take("export", "boris") == 0
    clock.tick(seconds=wait)
    assert limits.take("export", "anna") == 0
    assert limits.take("export", "anna") > 0 or pause < 1


def test_a_refusal_is_not_counted(clock: Clock) -> None:
    limits, rule = Limits(), RULES["setup"]
    for _ in range(rule.n * 3):
        limits.take("setup", "a")
    clock.tick(seconds=rule.seconds)
    assert limits.take("setup", "a") == 0


def test_many_strangers_do_not_fill_the_memory(clock: Clock) -> None:
    limits = Limits()
    for n in range(25_000):
        limits.take("export", str(n))
    assert len(limits._times) <= 10_001


def test_exports_per_person(sender: Browser, app: Flask) -> None:
    made = make.broadcast()
    url = f"/broadcasts/{made.id}/report.csv"
    statuses = [sender.get(url).status_code for _ in range(RULES["export"].n + 1)]
    assert statuses[:-1] == [200] * RULES["export"].n and statuses[-1] == 429
    refused = sender.get(url)
    assert int(refused.headers["Retry-After"]) > 0 and "Слишком много попыток, подождите" in refused.text
    other = signed_in(app, person("sender", "other@example.org"))
    assert other.get(url).status_code == 200


def test_exports_per_token_in_json(app: Flask, api: dict[str, dict[str, str]]) -> None:
    made = make.broadcast()
    client, url = app.test_client(), f"/api/v1/broadcasts/{made.id}/report.csv"
    for _ in range(RULES["export"].n):
        assert client.get(url, headers=api["sender"]).status_code == 200
    answer = client.get(url, headers=api["sender"])
    assert answer.status_code == 429 and answer.headers["Retry-After"]
    assert answer.json is not None and answer.json["error"]["code"] == "too_many_requests"
    assert client.get(url, headers=api["viewer"]).status_code == 200


@pytest.mark.parametrize("door", ["page", "api"])
def test_uploads(app: Flask, sender: Browser, api: dict[str, dict[str, str]], door: str) -> None:
    made = make.broadcast()
    statuses = []
    for _ in range(RULES["upload"].n + 1):
        data = {"file": (io.BytesIO(b""), "a.csv")}  # refused for being empty, and counted all the same
        if door == "page":
            answer = sender.post(f"/broadcasts/{made.id}/files", data)
        else:
            url = f"/api/v1/broadcasts/{made.id}/files"
            answer = app.test_client().post(url, data=data, headers=api["sender"])
        statuses.append(answer.status_code)
    assert 429 not in statuses[:-1] and statuses[-1] == 429


def test_invitations_cannot_be_guessed_at(stranger: Browser) -> None:
    statuses = [stranger.get(f"/invitation/guess{n}").status_code for n in range(RULES["invitation"].n + 1)]
    assert set(statuses[:-1]) == {404} and statuses[-1] == 429


def test_the_setup_code_cannot_be_guessed_at(app: Flask) -> None:
    fresh = Browser(app)
    form = {"code": "X", "email": "a@example.org", "password": "seven quiet rivers", "again": "seven quiet rivers"}
    statuses = [fresh.post("/setup", form).status_code for _ in range(RULES["setup"].n + 1)]
    assert set(statuses[:-1]) == {403} and statuses[-1] == 429


def test_refused_callbacks_are_limited_genuine_ones_are_not(app: Flask, database: object) -> None:
    channel = Channel.create(
        key="k" * 32, kind="sms", provider="http", name="Open", created_at=0,
        settings={"url": "https://gateway.example/send", "report_from": "query", "report_id": "query.id"},
    )  # fmt: skip
    client = app.test_client()
    statuses = [client.get(f"/hooks/guess{n}").status_code for n in range(RULES["refused callback"].n + 5)]
    assert set(statuses[:-5]) == {404} and set(statuses[-5:]) == {429}
    refused = client.get("/hooks/guess")
    assert int(refused.headers["Retry-After"]) > 0
    genuine = client.get(f"/hooks/{channel.key}/status?id=1&status=ok")
    assert genuine.status_code == 200
