"""Recorded webhooks that others collected, read in place and held against their neutral reading."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.providers.waba import callback, shared, signed
from webapp import create_app
from worker import channels, delivery
from worker.models import Callback, Inbound, Message
from worker.providers.base import InboundMessage, StatusUpdate
from worker.providers.meta_webhooks import STATUSES
from worker.providers.whatsapp_cloud import WhatsAppCloud
from worker.settings import Settings

OWN_WORDS = ("subkind",)  # kinds of what we pass over


@pytest.fixture(scope="module")
def folder() -> Path:
    return shared("waba_webhooks")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return found


def of(events: list[dict[str, Any]], key: str) -> str:
    return next((str(event[key]) for event in events if event.get(key)), "")


def neutral(found: StatusUpdate | InboundMessage) -> dict[str, Any]:
    """What we read, in the words of the samples."""
    if isinstance(found, StatusUpdate):
        return {
            "kind": "status",
            "message_id": found.provider_id,
            "status": found.status,
            "recipient": (found.phone or "").removeprefix("+") or None,
            "error_code": int(found.code) if found.code else None,
            "timestamp": found.at // 1000,
        }
    return {
        "kind": "inbound",
        "message_id": found.provider_id,
        "from": found.phone.removeprefix("+"),
        "text": found.text or None,
        "error_code": int(found.code) if found.code else None,
        "timestamp": found.at // 1000,
    }


def compared(event: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The keys that count, without those that are empty."""
    found = {key: event.get(key) for key in keys if key not in OWN_WORDS and event.get(key) is not None}
    if found["kind"] == "status":
        found["status"] = STATUSES.get(found["status"], found["status"])
    return found


def wanted(events: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    return [compared(event, keys) for event in events if event["kind"] in ("status", "inbound")]


def test_every_payload_is_read_as_expected(folder: Path, expected: dict[str, Any]) -> None:
    keys, files = expected["_compare"], expected["files"]
    assert sorted(files) == sorted(path.name for path in folder.glob("*.json") if path.name != "expected.json")
    wrong = {}
    for name, facts in files.items():
        events = facts["events"]
        provider = WhatsAppCloud(
            {"phone_number_id": of(events, "phone_number_id"), "waba_id": of(events, "waba_id"), "app_secret": "s"}
        )
        posted = signed((folder / name).read_bytes(), "s")
        assert provider.verify(posted)
        found = [compared(neutral(item), keys) for item in provider.parse(posted)]
        if found != wanted(events, keys):
            wrong[name] = (found, wanted(events, keys))
    assert wrong == {}


SUBJECTS = {
    "template_category_update": "category",
    "message_template_quality_update": "quality",
    "account_update": "account",
    "business_capability_update": "limit",
    "phone_number_quality_update": "number",
    "user_preference": "marketing",
}


def test_every_payload_says_of_account_and_templates_what_is_expected(folder: Path, expected: dict[str, Any]) -> None:
    for name, facts in expected["files"].items():
        provider = WhatsAppCloud({"waba_id": of(facts["events"], "waba_id")})
        found = list(provider.notices(callback((folder / name).read_bytes())))
        subjects = [
            "template" if event["kind"] == "template_status" else SUBJECTS[event["subkind"]]
            for event in facts["events"]
            if event["kind"] == "template_status"
            or (event.get("subkind") in SUBJECTS and event.get("value") != "signup")
        ]
        assert [n.subject for n in found if n.subject != "limit" or "limit" in subjects] == subjects, name
        for notice, event in zip(found, facts["events"], strict=False):
            said = event.get("status") or event.get("event") or event.get("value") or event.get("category")
            assert said is None or notice.status == said, name
            assert notice.name == event.get("template", ""), name


@pytest.fixture
def hooks(database: Settings, expected: dict[str, Any]) -> Iterator[Any]:
    yield create_app(database).test_client()


def test_the_whole_folder_is_answered_with_200_and_opens_nothing_that_it_should_not(
    hooks: Any, database: Settings, folder: Path, expected: dict[str, Any]
) -> None:
    made = []
    every = [event for facts in expected["files"].values() for event in facts["events"]]
    for prefix in ("meta_", "cloud_"):
        events = [e for name, f in expected["files"].items() if name.startswith(prefix) for e in f["events"]]
        waba, number = of(events, "waba_id"), of(events, "phone_number_id")
        values = {"waba_id": waba, "phone_number_id": number, "app_secret": "s", "access_token": "t"}
        made.append(channels.create(database, "whatsapp_cloud", prefix, values))
    for path in sorted(folder.glob("*.json")):
        if path.name == "expected.json":
            continue
        posted = signed(path.read_bytes(), "s")
        for channel in made:
            headers = {"X-Hub-Signature-256": posted.headers["x-hub-signature-256"]}
            assert hooks.post(f"/hooks/{channel.key}", data=posted.body, headers=headers).status_code == 200
    counted = Counter(row.channel_id for row in Callback.select())
    assert set(counted) == {channel.id for channel in made}
    while delivery.apply_waiting(channels.Providers(database)):
        pass
    assert Callback.select().where(Callback.processed_at.is_null() | Callback.error.is_null(False)).count() == 0
    known = {row.provider_id for row in Inbound.select()}
    assert known == {event["message_id"] for event in every if event["kind"] == "inbound"}
    assert Inbound.select().count() == len(known)
    assert Message.select().count() == 0
