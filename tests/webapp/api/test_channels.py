"""The API of channels: made, read, changed, checked, deleted; secrets go in and never come out."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import make
from tests.fictional import Fictional, given
from worker import channels
from worker.models import Broadcast, Channel
from worker.providers import PROVIDERS
from worker.providers.base import Finding, SendError
from worker.settings import Settings

Headers = dict[str, dict[str, str]]
KEY = "good-key-0123456789"
URL = "/api/v1/channels"


@pytest.fixture(autouse=True)
def fictional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "fictional", Fictional)


@pytest.fixture
def made(client: FlaskClient, api: Headers) -> dict[str, Any]:
    answer = client.post(URL, json=given(sender="Molva"), headers=api["admin"])
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json
    return found


def test_every_provider_is_listed_with_its_fields(client: FlaskClient, api: Headers) -> None:
    items = client.get(f"{URL}/providers", headers={**api["viewer"], "Accept-Language": "en"}).json["items"]
    ours = next(item for item in items if item["key"] == "fictional")
    assert {item["key"] for item in items} == set(PROVIDERS)
    assert [f["name"] for f in ours["fields"]] == [f.name for f in Fictional.fields]
    key = next(f for f in ours["fields"] if f["name"] == "api_key")
    assert (key["kind"], key["secret"], key["required"], key["label"]) == ("secret", True, True, "API key")


def test_a_channel_is_made_with_its_addresses_and_without_its_secrets(
    made: dict[str, Any], client: FlaskClient, api: Headers, settings: Settings
) -> None:
    channel = Channel.get_by_id(made["id"])
    assert (made["kind"], made["provider"], made["name"], made["state"]) == ("sms", "fictional", "Ours", "on")
    assert made["per_second"] == 5.0 and made["settings"]["sender"] == "Molva"
    assert made["status_url"] == f"/hooks/{channel.key}/status"
    assert made["inbound_url"] == f"/hooks/{channel.key}/inbound" and made["webhook_url"] == f"/hooks/{channel.key}"
    hidden = channels.vault.unseal(settings, channel.secrets)
    listed = client.get(URL, headers=api["admin"]).text + client.get(f"{URL}/{channel.id}", headers=api["admin"]).text
    for text in (str(made), listed):
        assert KEY not in text and hidden["webhook_secret"] not in text
    assert set(made["secrets"]) == {"api_key", "spare_key", "webhook_secret"}


def test_a_viewer_does_not_learn_where_callbacks_go(made: dict[str, Any], client: FlaskClient, api: Headers) -> None:
    seen = client.get(f"{URL}/{made['id']}", headers=api["viewer"]).json
    assert (seen["webhook_url"], seen["status_url"], seen["inbound_url"]) == (None, None, None)
    assert client.get(f"{URL}/{made['id']}", headers=api["sender"]).json["status_url"]


def test_a_viewer_does_not_see_what_a_key_may_have_been_pasted_into(client: FlaskClient, api: Headers) -> None:
    own = {"headers": f"X-Key: {KEY}", "fields": f"key = {KEY}\nto = {{to}}", "check_url": f"https://sms.example/{KEY}"}
    pasted = {**own, "url": f"https://me:{KEY}@sms.example/send/{KEY}?key={KEY}", "username": "me", "sender": "Molva"}
    url = f"{URL}/{make.channel(provider='http', settings=pasted).id}"
    seen = client.get(url, headers=api["viewer"])
    assert seen.json["settings"] == {"url": "https://sms.example", "username": "me", "sender": "Molva"}
    assert KEY not in seen.text + client.get(URL, headers=api["viewer"]).text
    for role in ("sender", "admin"):
        whole = client.get(url, headers=api[role]).json["settings"]
        assert {name: whole[name] for name in own} == own and whole["url"] == pasted["url"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"provider": "nobody"}, "provider"),
        ({"provider": 5}, "provider"),
        ({"kind": "waba"}, "kind"),
        ({"name": ""}, "name"),
        ({"per_second": -1}, "per_second"),
        ({"colour": "red"}, "colour"),
        ({"settings": {}}, "api_key"),
        ({"settings": None}, "settings"),
        ({"settings": {"api_key": KEY, "colour": "red"}}, "colour"),
        ({"settings": {"api_key": KEY, "base_url": "http://localhost:8000"}}, "base_url"),
        ({"settings": {"api_key": KEY, "port": "x"}}, "port"),
        ({"provider": "sandbox_sms"}, "provider"),
    ],
)
def test_a_wrong_value_is_named(
    client: FlaskClient, api: Headers, settings: Settings, changes: dict[str, Any], field: str
) -> None:
    channels.ensure_sandbox(settings)
    answer = client.post(URL, json={**given(), **changes}, headers=api["admin"])
    assert answer.status_code == 422
    assert field in answer.json["error"]["fields"] and answer.json["error"]["message"]
    assert KEY not in answer.text


def test_a_change_keeps_what_it_does_not_name(
    made: dict[str, Any], client: FlaskClient, api: Headers, settings: Settings
) -> None:
    url = f"{URL}/{made['id']}"
    answer = client.patch(url, json={"per_day": 500, "settings": {"sender": "Other"}}, headers=api["admin"])
    assert (answer.status_code, answer.json["per_day"], answer.json["name"]) == (200, 500, "Ours")
    channel = Channel.get_by_id(made["id"])
    assert channels.all_settings(settings, channel)["api_key"] == KEY and channel.settings["sender"] == "Other"
    client.patch(url, json={"settings": {"api_key": "good-other-key-1"}}, headers=api["admin"])
    assert channels.all_settings(settings, Channel.get_by_id(made["id"]))["api_key"] == "good-other-key-1"
    wrong = client.patch(url, json={"provider": "whatsapp_cloud"}, headers=api["admin"])
    assert (wrong.status_code, list(wrong.json["error"]["fields"])) == (422, ["provider"])


def test_a_channel_is_switched_off_and_on(made: dict[str, Any], client: FlaskClient, api: Headers) -> None:
    url = f"{URL}/{made['id']}"
    off = client.patch(url, json={"state": "stopped"}, headers={**api["admin"], "Accept-Language": "en"}).json
    assert (off["state"], off["stop"]["code"], off["stop"]["text"][:12]) == ("stopped", "channel_off", "Switched off")
    assert client.patch(url, json={"state": "on"}, headers=api["admin"]).json["state"] == "on"
    assert client.patch(url, json={"state": "deleted"}, headers=api["admin"]).status_code == 422


def test_a_channel_in_use_is_not_deleted(made: dict[str, Any], client: FlaskClient, api: Headers) -> None:
    url = f"{URL}/{made['id']}"
    draft = make.broadcast(channel=Channel.get_by_id(made["id"]))
    answer = client.delete(url, headers=api["admin"])
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "in_use")
    Broadcast.update(state="finished").where(Broadcast.id == draft.id).execute()
    assert client.delete(url, headers=api["admin"]).status_code == 204
    for gone in (client.get(url, headers=api["admin"]), client.delete(url, headers=api["admin"])):
        assert gone.status_code == 404
    assert client.get(URL, headers=api["admin"]).json["items"] == []


def test_a_check_tells_every_finding_in_words(
    made: dict[str, Any], client: FlaskClient, api: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{URL}/{made['id']}/check"
    good = client.post(url, headers={**api["sender"], "Accept-Language": "en"}).json
    assert good["ok"] and [f["message"] for f in good["findings"]] == [
        "Account: Anna",
        "The account has no approved template",
    ]
    monkeypatch.setattr(Fictional, "findings", [Finding("error", "http_401")])
    assert client.post(url, headers=api["sender"]).json["ok"] is False
    monkeypatch.setattr(Fictional, "findings", SendError("later", "connect_failed"))
    assert client.post(url, headers=api["sender"]).json["findings"][0]["code"] == "connect_failed"


def test_templates_come_only_from_channels_that_have_some(
    made: dict[str, Any], client: FlaskClient, api: Headers, settings: Settings
) -> None:
    assert client.post(f"{URL}/{made['id']}/templates/sync", headers=api["sender"]).status_code == 409
    waba = channels.ensure_sandbox(settings)[0]
    answer = client.post(f"{URL}/{waba.id}/templates/sync", headers=api["sender"])
    assert (answer.status_code, answer.json["error"]["code"]) == (502, "connect_failed")  # nothing listens


def test_registering_is_offered_where_the_provider_can(
    made: dict[str, Any], client: FlaskClient, api: Headers, settings: Settings
) -> None:
    found = client.post(f"{URL}/{made['id']}/register", headers=api["admin"]).json
    assert (found["ok"], found["findings"][0]["code"]) == (False, "no_base_url")
    sandbox = channels.ensure_sandbox(settings)[0]
    assert client.post(f"{URL}/{sandbox.id}/register", headers=api["admin"]).status_code == 404


def test_only_administrators_change_channels(made: dict[str, Any], client: FlaskClient, api: Headers) -> None:
    url = f"{URL}/{made['id']}"
    for role in ("sender", "viewer"):
        assert client.post(URL, json=given(), headers=api[role]).status_code == 403
        assert client.patch(url, json={"name": "x"}, headers=api[role]).status_code == 403
        assert client.delete(url, headers=api[role]).status_code == 403
        assert client.post(f"{url}/register", headers=api[role]).status_code == 403
    assert client.post(f"{url}/check", headers=api["viewer"]).status_code == 403


def test_credentials_under_another_key_are_said(client: FlaskClient, api: Headers) -> None:
    number = make.channel(provider="fictional", secrets=b"sealed by nobody").id
    assert client.get(f"{URL}/{number}", headers=api["admin"]).status_code == 200
    answer = client.patch(f"{URL}/{number}", json={"settings": {"sender": "x"}}, headers=api["admin"])
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "credentials_locked")
    assert client.post(f"{URL}/{number}/check", headers=api["sender"]).json["findings"][0]["code"] == (
        "credentials_locked"
    )
