"""The API: shapes, refusals, and one broadcast through it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import make as factory
from worker import broadcasts, channels, clock, recipients
from worker.models import Broadcast, RecipientFile
from worker.settings import Settings

Headers = dict[str, dict[str, str]]


@pytest.fixture
def sms(settings: Settings, database: None) -> int:
    return int(channels.ensure_sandbox(settings)[1].id)


def make(client: FlaskClient, api: Headers, sms: int, **changes: Any) -> Any:
    values = {"name": "Sale", "channel_id": sms, "text": "Hi {{name}}", "rate_per_minute": 600, **changes}
    return client.post("/api/v1/broadcasts", json=values, headers=api["sender"])


def upload(client: FlaskClient, api: Headers, settings: Settings, number: int, data: bytes) -> Any:
    answer = client.post(
        f"/api/v1/broadcasts/{number}/files", data={"file": (io.BytesIO(data), "a.csv")}, headers=api["sender"]
    )
    assert answer.status_code == 202
    row = Broadcast.get_by_id(number)
    recipients.check(answer.json["id"], None, broadcasts.content(row), True, settings.uploads)
    return client.get(f"/api/v1/broadcasts/{number}/files/{answer.json['id']}", headers=api["viewer"]).json


def test_without_a_good_token_nothing_is_told(client: FlaskClient, api: Headers) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        answer = client.get("/api/v1/broadcasts", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert answer.json["error"]["code"]
    assert client.post("/api/v1/broadcasts", json={}, headers=api["viewer"]).status_code == 403


def test_a_broadcast_has_its_shape(client: FlaskClient, api: Headers, sms: int) -> None:
    answer = make(client, api, sms)
    assert answer.status_code == 201
    assert answer.json["state"] == "draft"
    assert answer.json["allowed_actions"] == ["start", "schedule"]
    assert answer.json["counters"]["total"] == 0
    assert {"id", "stop_reason", "waiting", "run", "eta", "files", "send_at"} <= set(answer.json)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 100_000}, "name"),
        ({"rate_per_minute": 0}, "rate_per_minute"),
        ({"rate_per_minute": 60_001}, "rate_per_minute"),
        ({"rate_per_minute": "60; DROP"}, "rate_per_minute"),
        ({"rate_per_minute": True}, "rate_per_minute"),
        ({"channel_id": 999}, "channel_id"),
        ({"text": " "}, "text"),
        ({"text": "{{"}, "text"),
        ({"send_at": "2020-01-01T00:00"}, "send_at"),
        ({"send_at": "nonsense"}, "send_at"),
        ({"send_at": "2026-02-30T00:00"}, "send_at"),
        ({"region": "XX"}, "region"),
        ({"colour": "red"}, "colour"),
        ({"region": ["RU"]}, "region"),
        ({"channel_id": 2**70}, "channel_id"),
        ({"text": 5}, "text"),
        ({"on_file_delete": "burn"}, "on_file_delete"),
        ({"ignore_duplicates": "yes"}, "ignore_duplicates"),
    ],
)
def test_a_wrong_value_is_named(client: FlaskClient, api: Headers, sms: int, changes: Any, field: str) -> None:
    answer = make(client, api, sms, **changes)
    assert answer.status_code == 422
    assert field in answer.json["error"]["fields"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 10_000, b"\xff", b'{"name": "\\ud800"}'])
def test_broken_json_is_a_400(client: FlaskClient, api: Headers, body: bytes) -> None:
    answer = client.post("/api/v1/broadcasts", data=body, headers=api["sender"])
    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "bad_json"


def test_unknown_ids_are_not_found(client: FlaskClient, api: Headers) -> None:
    for path in (
        "broadcasts/999",
        "broadcasts/999/messages",
        "channels/999",
        f"broadcasts/{10**30}",
        f"broadcasts/1/files/{10**30}",
    ):
        assert client.get(f"/api/v1/{path}", headers=api["sender"]).status_code == 404


def test_a_file_is_checked_with_every_reason(client: FlaskClient, api: Headers, sms: int, settings: Settings) -> None:
    number = make(client, api, sms).json["id"]
    file = upload(client, api, settings, number, b"phone,name\n+79010000001,A\n,B\n+79010000002,\n\n")
    assert (file["state"], file["rows"], file["accepted"]) == ("ready", 4, 1)
    assert file["rejected"] == {"phone_missing": 1, "variable_missing": 1, "blank_row": 1}
    assert [(e["line"], e["code"]) for e in file["errors"]] == [(3, "phone_missing"), (4, "variable_missing")]
    errors = client.get(f"/api/v1/broadcasts/{number}/files/{file['id']}/errors.csv", headers=api["sender"])
    assert errors.data.decode("utf-8-sig").count("\r\n") == 3


def test_start_twice_is_a_409_with_the_allowed_actions(
    client: FlaskClient, api: Headers, sms: int, settings: Settings
) -> None:
    number = make(client, api, sms).json["id"]
    act = f"/api/v1/broadcasts/{number}/"
    assert client.post(act + "start", headers=api["sender"]).status_code == 422
    upload(client, api, settings, number, b"phone,name\n+79010000001,A\n")
    assert client.post(act + "start", headers=api["sender"]).json["state"] == "running"
    again = client.post(act + "start", headers=api["sender"])
    assert (again.status_code, again.json["error"]["code"]) == (409, "not_allowed")
    assert again.json["error"]["allowed"] == ["stop", "clear"]
    assert client.post(act + "stop", headers=api["sender"]).json["state"] == "stopped"
    assert client.post(act + "resume", headers=api["sender"]).json["state"] == "running"
    cleared = client.post(act + "clear", headers=api["sender"]).json
    assert (cleared["state"], cleared["counters"]["cancelled"], cleared["files"]) == ("draft", 1, [])


def test_a_future_start_is_scheduled(
    client: FlaskClient, api: Headers, sms: int, settings: Settings, clock: Any
) -> None:
    number = make(client, api, sms, send_at="2026-11-06T10:00").json["id"]
    upload(client, api, settings, number, b"phone,name\n+79010000001,A\n")
    started = client.post(f"/api/v1/broadcasts/{number}/start", headers=api["sender"]).json
    assert (started["state"], started["send_at"]) == ("scheduled", "2026-11-06T07:00:00.000Z")


def test_messages_come_in_pages_and_the_report_has_every_row(
    client: FlaskClient, api: Headers, sms: int, settings: Settings
) -> None:
    number = make(client, api, sms).json["id"]
    lines = "\n".join(f"+7901000{n:04d},=N{n}" for n in range(120))
    upload(client, api, settings, number, f"phone,name\n{lines}".encode())
    seen: list[str] = []
    after = ""
    while after is not None:
        page = client.get(f"/api/v1/broadcasts/{number}/messages?limit=50&after={after}", headers=api["sender"]).json
        seen += [item["phone"] for item in page["items"]]
        after = page["next"]
    assert len(seen) == len(set(seen)) == 120
    report = client.get(f"/api/v1/broadcasts/{number}/report.csv", headers=api["sender"]).data.decode("utf-8-sig")
    assert report.count("\r\n") == 121
    assert "'=N7" in report
    bad = client.get(f"/api/v1/broadcasts/{number}/messages?after=x", headers=api["viewer"])
    assert bad.status_code == 422


def test_changing_the_text_checks_the_files_again(
    client: FlaskClient, api: Headers, sms: int, settings: Settings
) -> None:
    number = make(client, api, sms).json["id"]
    file = upload(client, api, settings, number, b"phone,name\n+79010000001,A\n")
    answer = client.patch(f"/api/v1/broadcasts/{number}", json={"text": "Hi {{city}}"}, headers=api["sender"])
    assert answer.status_code == 200
    assert RecipientFile.get_by_id(file["id"]).state == "checking"


def test_tools(client: FlaskClient, api: Headers, sms: int) -> None:
    found = client.post("/api/v1/sms/segments", json={"text": "Привет"}, headers=api["viewer"]).json
    assert found == {"encoding": "UCS-2", "units": 6, "segments": 1, "offending": list("Привет")}
    found = client.post("/api/v1/phones/parse", json={"phones": ["89000000001", "x"]}, headers=api["viewer"]).json
    assert found[0]["e164"] == "+79000000001" and found[1]["reason"] == "phone_invalid"
    assert client.get("/api/v1/channels/providers", headers=api["viewer"]).status_code == 200


def test_secrets_never_come_back(client: FlaskClient, api: Headers, settings: Settings, sms: int) -> None:
    answer = json.dumps(client.get("/api/v1/channels", headers=api["viewer"]).json)
    for account in channels.sandbox_accounts(settings):
        for name in ("token", "secret", "access_token", "app_secret"):
            if name in account["settings"]:
                assert account["settings"][name] not in answer


@pytest.mark.parametrize("text", ["a\0b", "half \ud800 a character"])
def test_text_that_no_provider_takes_is_refused(client: FlaskClient, api: Headers, sms: int, text: str) -> None:
    assert make(client, api, sms, text=text).status_code in (400, 422)
    assert Broadcast.select().count() == 0


def test_wrong_ways_in_are_json_too(client: FlaskClient, api: Headers, sms: int) -> None:
    for answer, status in (
        (client.put("/api/v1/broadcasts", headers=api["sender"]), 405),
        (client.get("/api/v1/nothing", headers=api["sender"]), 404),
        (client.get(f"/api/v1/broadcasts/{2**70}", headers=api["sender"]), 404),
        (make(client, api, sms, colour="red"), 422),
    ):
        assert (answer.status_code, "code" in answer.json["error"], "message" in answer.json["error"]) == (
            status,
            True,
            True,
        )


def test_a_file_over_ten_megabytes_is_refused_before_it_is_read(client: FlaskClient, api: Headers, sms: int) -> None:
    number = make(client, api, sms).json["id"]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    url = f"/api/v1/broadcasts/{number}/files"
    for size in (10 * 1024 * 1024 + 1, 13 * 1024 * 1024):
        body = head + b"1" * size + b"\r\n--x--\r\n"
        answer = client.post(url, data=body, content_type="multipart/form-data; boundary=x", headers=api["sender"])
        assert answer.status_code == 413, size
    assert RecipientFile.select().count() == 0
    missing = client.post(url, data={}, headers=api["sender"])
    assert (missing.status_code, "file" in missing.json["error"]["fields"]) == (422, True)


def test_a_file_is_deleted_as_the_caller_says(client: FlaskClient, api: Headers, sms: int, settings: Settings) -> None:
    number = make(client, api, sms).json["id"]
    one, two = (upload(client, api, settings, number, b"phone,name\n+7901000000%d,A\n" % n)["id"] for n in (1, 2))
    url = f"/api/v1/broadcasts/{number}/files"
    kept = client.delete(f"{url}/{one}?on_delete=keep", headers=api["sender"]).json
    assert (kept["counters"]["queued"], len(kept["files"])) == (2, 1)
    gone = client.delete(f"{url}/{two}?on_delete=remove", headers=api["sender"]).json
    assert (gone["counters"]["queued"], gone["files"]) == (1, [])
    assert client.delete(f"{url}/{two}", headers=api["sender"]).status_code == 404
    assert client.delete(f"{url}/{one}?on_delete=shred", headers=api["sender"]).status_code == 422


def test_the_sample_file_follows_the_text_and_the_language(client: FlaskClient, api: Headers, sms: int) -> None:
    number = make(client, api, sms, text="{{ name }} {{ city }}").json["id"]
    headers = api["viewer"] | {"Accept-Language": "ru"}
    answer = client.get(f"/api/v1/broadcasts/{number}/sample.csv", headers=headers)
    assert answer.data.decode("utf-8-sig").splitlines()[0] == "телефон;name;city"


def test_an_uncertain_message_is_resolved_once(client: FlaskClient, api: Headers, database: Settings) -> None:
    file = factory.file(factory.broadcast(state="finished"), run=1)
    one, two = factory.messages(file, "uncertain", "uncertain")
    answer = client.post(f"/api/v1/messages/{one.id}/resolve", json={"as": "sent"}, headers=api["sender"])
    assert (answer.status_code, answer.json["status"]) == (200, "sent")
    again = client.post(f"/api/v1/messages/{one.id}/resolve", json={"as": "resend"}, headers=api["sender"])
    assert (again.status_code, again.json["error"]["code"]) == (409, "not_allowed")
    back = client.post(f"/api/v1/messages/{two.id}/resolve", json={"as": "resend"}, headers=api["sender"])
    assert back.json["status"] == "queued"
    assert client.post("/api/v1/messages/99/resolve", json={"as": "sent"}, headers=api["sender"]).status_code == 404
    assert client.post(f"/api/v1/messages/{two.id}/resolve", json={}, headers=api["sender"]).status_code == 422


def test_a_restart_takes_whom_it_is_told(client: FlaskClient, api: Headers, database: Settings) -> None:
    file = factory.file(factory.broadcast(state="finished"), run=1, accepted=3)
    factory.messages(file, "delivered", "failed", "undelivered")
    url = f"/api/v1/broadcasts/{file.broadcast_id}/restart"
    assert client.post(url, json={"who": "new"}, headers=api["sender"]).status_code == 422  # there is nobody new
    assert client.post(url, json={"who": "all"}, headers=api["sender"]).status_code == 422
    answer = client.post(url, json={"who": "undelivered"}, headers=api["sender"])
    assert (answer.json["state"], answer.json["run"]) == ("running", 2)
    broadcasts.copy_run(file.broadcast_id)
    shown = client.get(f"/api/v1/broadcasts/{file.broadcast_id}", headers=api["viewer"]).json
    assert (shown["counters"]["total"], shown["counters"]["queued"]) == (2, 2)
    whole = client.get(f"/api/v1/broadcasts/{file.broadcast_id}?run=all", headers=api["viewer"]).json
    assert whole["counters"]["total"] == 5
    again = client.post(url, json={"who": "everyone"}, headers=api["sender"])
    assert (again.status_code, again.json["error"]["allowed"]) == (409, ["stop", "clear"])


def test_start_on_a_stopped_broadcast_schedules_only_with_a_time_ahead(
    client: FlaskClient, api: Headers, database: Settings
) -> None:
    row = factory.broadcast(state="stopped")
    factory.messages(factory.file(row, run=1), "queued")
    url = f"/api/v1/broadcasts/{row.id}/start"
    refused = client.post(url, headers=api["sender"])
    assert (refused.status_code, refused.json["error"]["allowed"]) == (409, ["schedule", "resume", "clear"])
    Broadcast.update(send_at=clock.now() + clock.HOUR).where(Broadcast.id == row.id).execute()
    assert client.post(url, headers=api["sender"]).json["state"] == "scheduled"


def test_a_provider_that_does_not_answer_is_said(client: FlaskClient, api: Headers, settings: Settings) -> None:
    waba = channels.ensure_sandbox(settings)[0].id
    checked = client.post(f"/api/v1/channels/{waba}/check", headers=api["sender"]).json
    assert (checked["ok"], checked["findings"][0]["code"]) == (False, "connect_failed")
    synced = client.post(f"/api/v1/channels/{waba}/templates/sync", headers=api["sender"])
    assert (synced.status_code, synced.json["error"]["code"]) == (502, "connect_failed")


def test_quiet_hours_and_a_break_are_set_and_taken_away(client: FlaskClient, api: Headers, sms: int) -> None:
    hours = {"from": "21:00", "to": "09:00"}
    made = make(client, api, sms, quiet_hours=hours, cooldown_days=7).json
    assert (made["quiet_hours"], made["cooldown_days"], made["canary"]) == (hours, 7, None)
    url = f"/api/v1/broadcasts/{made['id']}"
    kept = client.patch(url, json={"name": "Other"}, headers=api["sender"]).json
    assert (kept["quiet_hours"], kept["cooldown_days"]) == (hours, 7)
    gone = client.patch(url, json={"quiet_hours": None, "cooldown_days": None}, headers=api["sender"]).json
    assert (gone["quiet_hours"], gone["cooldown_days"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"quiet_hours": {"from": "21:00"}}, "quiet_hours"),
        ({"quiet_hours": {"from": "21:00", "to": "21:00"}}, "quiet_hours"),
        ({"quiet_hours": ["21:00", "09:00"]}, "quiet_hours"),
        ({"quiet_hours": {"from": 21, "to": 9}}, "quiet_hours"),
        ({"quiet_hours": "night"}, "quiet_hours"),
        ({"cooldown_days": 0}, "cooldown_days"),
        ({"cooldown_days": 366}, "cooldown_days"),
        ({"cooldown_days": 1.5}, "cooldown_days"),
        ({"timezone": "Moon/Base"}, "timezone"),
    ],
)
def test_wrong_hours_are_named(client: FlaskClient, api: Headers, sms: int, changes: Any, field: str) -> None:
    answer = make(client, api, sms, **changes)
    assert answer.status_code == 422 and field in answer.json["error"]["fields"]


def test_the_time_zone_can_change_alone(client: FlaskClient, api: Headers, sms: int) -> None:
    made = make(client, api, sms).json
    url = f"/api/v1/broadcasts/{made['id']}"
    assert client.patch(url, json={"timezone": "Asia/Omsk"}, headers=api["sender"]).json["timezone"] == "Asia/Omsk"


def test_a_start_takes_a_canary(client: FlaskClient, api: Headers, sms: int, settings: Settings) -> None:
    number = make(client, api, sms).json["id"]
    rows = "".join(f"+7901{n:07d},P{n}\n" for n in range(30))
    upload(client, api, settings, number, f"phone,name\n{rows}".encode())
    act = f"/api/v1/broadcasts/{number}/start"
    for wrong, field in (
        ({"canary": 30}, "canary"),
        ({"canary": -1}, "canary"),
        ({"canary": 0}, "canary"),
        ({"canary": "10"}, "canary"),
        ({"canary": True}, "canary"),
        ({"canary": 10, "pick": "best"}, "pick"),
        ({"who": "everyone"}, "who"),
    ):
        answer = client.post(act, json=wrong, headers=api["sender"])
        assert answer.status_code == 422 and field in answer.json["error"]["fields"], wrong
    started = client.post(act, json={"canary": 10, "pick": "random"}, headers=api["sender"]).json
    assert (started["state"], started["canary"]) == ("running", 10)
