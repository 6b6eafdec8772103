"""Callbacks: signed over the raw bytes, on the disk before the answer, refused when forged or too large."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import peewee
import pytest
from flask.testing import FlaskClient

from worker import channels, delivery
from worker.models import Callback, Channel
from worker.providers import meta_webhooks, sandbox_sms
from worker.settings import Settings

BODY = json.dumps({"id": "abc", "status": "delivered", "note": "Привет"}, ensure_ascii=False).encode()


@pytest.fixture
def accounts(settings: Settings, database: Settings) -> dict[str, tuple[Channel, dict[str, str]]]:
    """Channel and settings of both sandboxes."""
    made = channels.ensure_sandbox(settings)
    return {c.kind: (c, channels.all_settings(settings, c)) for c in made}


Signed = Callable[..., tuple[str, dict[str, str]]]


@pytest.fixture
def signed(accounts: dict[str, tuple[Channel, dict[str, str]]]) -> Signed:
    def make(body: bytes, kind: str = "sms") -> tuple[str, dict[str, str]]:
        channel, values = accounts[kind]
        if kind == "waba":
            return f"/hooks/{channel.key}", {"X-Hub-Signature-256": meta_webhooks.signature(values["app_secret"], body)}
        return f"/hooks/{channel.key}/status", {"X-Sandbox-Signature": sandbox_sms.signature(values["secret"], body)}

    return make


@pytest.mark.parametrize("kind", ["sms", "waba"])
def test_a_signed_callback_is_stored_raw_before_the_answer(client: FlaskClient, signed: Signed, kind: str) -> None:
    url, headers = signed(BODY, kind)
    assert client.post(url, data=BODY, headers=headers).status_code == 200
    assert bytes(Callback.get().body) == BODY


@pytest.mark.parametrize("kind", ["sms", "waba"])
def test_one_changed_byte_is_a_forgery(client: FlaskClient, signed: Signed, kind: str) -> None:
    url, headers = signed(BODY, kind)
    assert client.post(url, data=BODY + b" ", headers=headers).status_code == 403
    assert client.post(url, data=BODY).status_code == 403
    assert client.post("/hooks/unknown", data=BODY, headers=headers).status_code == 404
    assert Callback.select().count() == 0


def test_the_handshake_answers_the_challenge(
    client: FlaskClient, accounts: dict[str, tuple[Channel, dict[str, str]]]
) -> None:
    channel, values = accounts["waba"]
    query = {"hub.mode": "subscribe", "hub.verify_token": values["verify_token"], "hub.challenge": "12345"}
    assert client.get(f"/hooks/{channel.key}", query_string=query).text == "12345"
    wrong = query | {"hub.verify_token": "guess"}
    assert client.get(f"/hooks/{channel.key}", query_string=wrong).status_code == 403


def test_too_large_a_callback_is_refused_with_and_without_a_length(client: FlaskClient, signed: Signed) -> None:
    body = b"x" * (4 * 1024 * 1024)
    url, headers = signed(body)
    assert client.post(url, data=body, headers=headers).status_code == 413
    chunked = {"wsgi.input_terminated": True}
    answer = client.post(url, input_stream=io.BytesIO(body), headers=headers, environ_overrides=chunked)
    assert answer.status_code == 413


def test_what_could_not_be_stored_is_not_called_received(
    client: FlaskClient, signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise peewee.OperationalError("database or disk is full")

    monkeypatch.setattr(delivery, "receive_all", full)
    url, headers = signed(BODY)
    assert client.post(url, data=BODY, headers=headers).status_code == 503
