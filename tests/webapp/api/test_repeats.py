"""A call that is sent again with its Idempotency-Key is done once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import make
from webapp.api.base import ApiError
from worker import channels, db, repeats
from worker.models import Broadcast, RepeatAnswer
from worker.settings import Settings

Headers = dict[str, dict[str, str]]


@pytest.fixture
def body(settings: Settings, database: None) -> dict[str, Any]:
    sms = channels.ensure_sandbox(settings)[1]
    return {"name": "Sale", "channel_id": sms.id, "text": "Hi", "rate_per_minute": 600}


def create(client: FlaskClient, headers: dict[str, str], body: Any, key: str) -> Any:
    return client.post("/api/v1/broadcasts", json=body, headers={**headers, "Idempotency-Key": key})


def test_the_same_key_and_body_get_the_answer_of_the_first(client: FlaskClient, api: Headers, body: Any) -> None:
    first = create(client, api["sender"], body, "order 7")
    again = create(client, api["sender"], body, "order 7")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json and Broadcast.select().count() == 1
    assert "Idempotent-Replayed" not in first.headers and again.headers["Idempotent-Replayed"] == "true"


def test_without_a_key_or_with_another_one_it_is_another_call(client: FlaskClient, api: Headers, body: Any) -> None:
    create(client, api["sender"], body, "1")
    create(client, api["sender"], body, "2")
    client.post("/api/v1/broadcasts", json=body, headers=api["sender"])
    assert Broadcast.select().count() == 3


def test_the_key_of_another_body_is_refused(client: FlaskClient, api: Headers, body: Any) -> None:
    create(client, api["sender"], body, "1")
    other = create(client, api["sender"], {**body, "name": "Other"}, "1")
    assert (other.status_code, other.json["error"]["code"]) == (422, "key_reused")
    assert Broadcast.select().count() == 1


def test_a_key_belongs_to_its_token(client: FlaskClient, api: Headers, body: Any) -> None:
    other = {"Authorization": f"Bearer {make.token('sender', 'other')}"}
    assert create(client, api["sender"], body, "1").json["id"] != create(client, other, body, "1").json["id"]


def test_what_was_refused_may_be_put_right_with_the_same_key(client: FlaskClient, api: Headers, body: Any) -> None:
    assert create(client, api["sender"], {**body, "name": ""}, "1").status_code == 422
    assert RepeatAnswer.select().count() == 0
    assert create(client, api["sender"], body, "1").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 201, "ключ"])
def test_a_key_that_cannot_be_used_is_named(client: FlaskClient, api: Headers, body: Any, key: str) -> None:
    answer = create(client, api["sender"], body, key)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "bad_key")
    assert Broadcast.select().count() == 0


def test_after_a_day_the_key_is_free_and_the_answer_forgotten(
    client: FlaskClient, api: Headers, body: Any, clock: Any
) -> None:
    create(client, api["sender"], body, "1")
    clock.tick(hours=24)
    assert create(client, api["sender"], {**body, "name": "Other"}, "1").status_code == 201
    clock.tick(hours=24)
    assert repeats.forget() == 1 and RepeatAnswer.select().count() == 0


def test_of_many_at_once_one_is_done_and_all_are_answered_the_same(app: Flask, api: Headers, body: Any) -> None:
    found: list[tuple[int, int]] = []
    together = threading.Barrier(8)

    def go() -> None:
        together.wait()
        answer = create(app.test_client(), api["sender"], body, "1")
        found.append((answer.status_code, answer.json["id"]))
        db.close()

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and set(found) == {(201, Broadcast.get().id)}
    assert Broadcast.select().count() == 1


def test_a_fault_on_the_way_leaves_nothing_behind(
    client: FlaskClient, api: Headers, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_given: object) -> None:
        raise ApiError(422, "invalid", "")

    with monkeypatch.context() as broken:
        broken.setattr(repeats, "keep", fail)
        assert create(client, api["sender"], body, "1").status_code == 422
    assert (Broadcast.select().count(), RepeatAnswer.select().count()) == (0, 0)
    assert create(client, api["sender"], body, "1").status_code == 201
