"""Callbacks: signed over the raw bytes, on the disk before the answer, refused when forged or too large."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable

import peewee
import pytest
from flask.testing import FlaskClient

from webapp import create_app
from worker import channels, delivery
from worker.models import Callback, Channel, Inbound
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


@pytest.fixture
def gateway(settings: Settings, database: Settings) -> Callable[..., Channel]:
    """A channel of a preset, by its key and settings."""

    def make(key: str, **values: str) -> Channel:
        given = {"base_url": "https://sms.example", "username": "me", "password": "secret", "token": "secret"}
        return channels.create(settings, key, key, given | values)

    return make


def test_a_gateway_that_calls_by_get_is_heard_and_asking_without_a_body_is_no_call(
    client: FlaskClient, settings: Settings, gateway: Callable[..., Channel]
) -> None:
    channel = gateway("kannel")
    url = f"/hooks/{channel.key}/inbound?id=1&from=%2B79161234567&text=%D0%9F%D1%80%D0%B8%D0%B2%D0%B5%D1%82&time=1793869200"
    assert client.head(url).status_code == 403
    assert Callback.select().count() == 0
    answer = client.get(url)
    assert (answer.status_code, answer.data) == (200, b"")
    assert delivery.apply_waiting(channels.Providers(settings)) == 1
    stored = Inbound.get()
    assert (stored.provider_id, stored.phone, stored.text, stored.at) == (
        "1",
        "+79161234567",
        "Привет",
        1_793_869_200_000,
    )


@pytest.mark.parametrize(("key", "answer"), [("sms_ru", b"100"), ("jasmin", b"ACK/Jasmin"), ("vonage", b"")])
def test_each_gateway_is_answered_what_it_wants_to_hear(
    client: FlaskClient, gateway: Callable[..., Channel], key: str, answer: bytes
) -> None:
    said = client.post(f"/hooks/{gateway(key).key}/status", data={"id": "1"})
    assert (said.status_code, said.data) == (200, answer)
    assert Callback.select().count() == 1


def test_only_the_addresses_of_the_list_may_call_and_a_header_is_not_believed(
    client: FlaskClient, gateway: Callable[..., Channel]
) -> None:
    url = f"/hooks/{gateway('kannel', callback_addresses='203.0.113.7').key}/status?ref=1.a&type=1"
    assert client.get(url, environ_overrides={"REMOTE_ADDR": "203.0.113.7"}).status_code == 200
    elsewhere = {"REMOTE_ADDR": "198.51.100.1"}
    pretending = {"Remote-Addr": "203.0.113.7", "X-Forwarded-For": "203.0.113.7"}
    assert client.get(url, environ_overrides=elsewhere, headers=pretending).status_code == 403


def test_behind_a_proxy_the_caller_is_whom_the_proxy_names(database: Settings, gateway: Callable[..., Channel]) -> None:
    app = create_app(dataclasses.replace(database, trusted_proxies=1))
    url = f"/hooks/{gateway('kannel', callback_addresses='203.0.113.7').key}/status?ref=1.a&type=1"
    named = {"X-Forwarded-For": "198.51.100.9, 203.0.113.7"}
    assert app.test_client().get(url, headers=named).status_code == 200
    named = {"X-Forwarded-For": "203.0.113.7, 198.51.100.9"}
    assert app.test_client().get(url, headers=named).status_code == 403
