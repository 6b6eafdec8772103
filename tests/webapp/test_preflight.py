"""The pre-flight sheet, the preview and tests: in a browser with and without JavaScript, and over the API."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.people import Browser
from worker import broadcasts, channels, clock, db, direct, optouts, overlap, recipients, tasks
from worker.models import Broadcast, Channel, MessageTemplate, RecipientFile, User
from worker.settings import Settings

PEOPLE = "phone,name\n+79010000001,<b>Ann</b>\n123,Bad\n+79010000002,\n"
EN = {"Accept-Language": "en"}


@pytest.fixture
def sandbox(settings: Settings, database: Settings) -> dict[str, Channel]:
    make.worker()
    return {channel.kind: channel for channel in channels.ensure_sandbox(settings)}


@pytest.fixture
def draft(settings: Settings, sandbox: dict[str, Channel]) -> Broadcast:
    values = {"name": "Sale", "channel_id": sandbox["sms"].id, "text": "Hi {{ name | friend }}", "rate_per_minute": 60}
    return filled(settings, broadcasts.create(settings, values, "test"))


def filled(settings: Settings, row: Broadcast) -> Broadcast:
    file = recipients.receive(row, io.BytesIO(PEOPLE.encode()), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(row), False, settings.uploads)
    return Broadcast.get_by_id(row.id)


@pytest.fixture
def waba(settings: Settings, sandbox: dict[str, Channel]) -> Broadcast:
    components = [
        {"type": "HEADER", "format": "IMAGE"},
        {"type": "BODY", "text": "*Hi* {{1}}"},
        {"type": "FOOTER", "text": "Bye"},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Open", "url": "https://example.org/{{1}}"}]},
    ]
    now = clock.now()
    facts = {"status": "APPROVED", "category": "UTILITY", "components": components, "synced_at": now}
    MessageTemplate.create(channel=sandbox["waba"], name="hi", language="ru", **facts)
    Channel.update(templates_synced_at=now).execute()
    variables = {
        "header.media": {"value": "https://example.org/a.png"},
        "body.1": {"column": "name", "fallback": "friend"},
        "button.0": {"value": "x"},
    }
    values = {"name": "Sale", "channel_id": sandbox["waba"].id, "rate_per_minute": 60, "variables": variables}
    chosen = values | {"template": {"name": "hi", "language": "ru"}}
    return filled(settings, broadcasts.create(settings, chosen, "test"))


# --- the sheet


def test_every_line_that_blocks_leads_to_its_cure(sender: Browser, sandbox: dict[str, Channel]) -> None:
    row = make.broadcast(name="", text=None, channel=sandbox["sms"])
    page = sender.page(f"/broadcasts/{row.id}", headers=EN)
    sheet = page[page.index('id="preflight"') : page.index('id="files"')]
    assert "Blocks the start" in sheet and "Ready to start" not in sheet
    for where in (f"/broadcasts/{row.id}/edit#name", f"/broadcasts/{row.id}/edit#text", f"/broadcasts/{row.id}#files"):
        assert f'href="{where}"' in sheet
    assert f"/broadcasts/{row.id}/start" not in page


def test_a_refused_file_is_heeded(sender: Browser, draft: Broadcast) -> None:
    make.file(draft, name="b.csv", state="refused", code="file_empty")
    sheet = sender.partial(f"/broadcasts/{draft.id}/preflight", headers=EN).text
    assert "File not accepted: b.csv. Its recipients get no message" in sheet and "Ready to start" in sheet


def test_unknown_lengths_ask_for_no_press_that_is_not_there(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}/preflight"
    RecipientFile.update(facts=None).execute()
    assert "Have it read again" in sender.partial(url, headers=EN).text
    make.messages(RecipientFile.get(), "sent", line=9)
    Broadcast.update(state="stopped").execute()
    sheet = sender.partial(url, headers=EN).text
    assert "length of the messages is not known" in sheet and "read again" not in sheet
    assert "Ready to resume" in sheet


def test_the_sheet_has_an_address_of_its_own_and_goes_when_it_runs(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}/preflight"
    assert "Ready to start" in sender.partial(url, headers=EN).text
    assert "Send 2 messages" in sender.page(f"/broadcasts/{draft.id}", headers=EN)  # the button beside it
    sender.post(f"/broadcasts/{draft.id}/start")
    part = sender.partial(url, headers=EN).text
    assert 'id="preflight"' in part and "Ready" not in part and "every" not in part


@pytest.mark.parametrize("language", ["ru", "en"])
def test_every_line_has_words(
    sender: Browser, settings: Settings, draft: Broadcast, waba: Broadcast, language: str
) -> None:
    """Every code that worker.preflight knows, drawn with the facts that it gives."""
    headers = {"Accept-Language": language}
    smsc = channels.create(settings, "smsc_ru", "SMSC", {"username": "u", "password": "p", "sender": "M"}, price=1.5)
    for columns in (
        {"price": 1.5, "currency": "RUB", "per_day": 1, "quality": "RED"},
        {"price": None, "per_day": 100, "slow_until": clock.now() + 99_999, "quality": None},
        {"slow_until": 0, "opened_at": clock.now()},
        {"state": "stopped", "stop_reason": "190", "stop_detail": {"text": "x"}, "templates_synced_at": None},
        {"secrets": b"of another key"},
    ):
        Channel.update(**columns).execute()
        for number in (draft.id, waba.id):
            Broadcast.update(channel=smsc.id, quiet_from=60, quiet_to=90, send_at=clock.now() + 9**9).where(
                Broadcast.id == draft.id
            ).execute()
            assert sender.get(f"/broadcasts/{number}/preflight", headers=headers).status_code == 200
            assert sender.page(f"/broadcasts/{number}", headers=headers)


def test_who_received_it_before_is_linked_to_that_report(sender: Browser, settings: Settings, draft: Broadcast) -> None:
    other = filled(settings, make.broadcast(text=draft.text, channel=draft.channel))
    db.execute(
        "UPDATE message SET status = 'sent', sending_at = ?, text_version = 1 WHERE broadcast_id = ?",
        [clock.now() - 3 * 3_600_000, other.id],
    )
    Broadcast.update(state="finished", last_sent_at=clock.now()).where(Broadcast.id == other.id).execute()
    sheet = sender.partial(f"/broadcasts/{draft.id}/preflight", headers=EN).text
    assert "Already received this text: 2, last 3 hours ago" in sheet
    assert f'href="/broadcasts/{other.id}/report"' in sheet


def test_what_takes_long_is_begun_and_looked_for_again(
    sender: Browser, draft: Broadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(overlap, "SHORT", 0)
    monkeypatch.setattr(tasks, "count_overlap", begun.append)
    with db.write():
        optouts.record("+79010000002", "reply", "STOP")
    url = f"/broadcasts/{draft.id}/preflight"
    part = sender.partial(url, headers=EN).text
    assert begun == [draft.id] and "Being counted" in part and "every 2s" in part
    overlap.count(draft.id)
    part = sender.partial(url, headers=EN).text
    assert "On the stop list by now, will be skipped: 1" in part and "every 2s" not in part


def test_templates_are_fetched_from_the_sheet(
    sender: Browser, waba: Broadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    Channel.update(templates_synced_at=clock.now() - 2 * 86_400_000).execute()
    part = sender.partial(f"/broadcasts/{waba.id}/preflight", headers=EN).text
    action = re.search(r'action="(/channels/\d+/templates)".*?name="next" value="([^"]+)"', part)
    assert action and action[2] == f"/broadcasts/{waba.id}"
    monkeypatch.setattr(channels, "sync_templates", lambda _settings, _channel: 3)
    answer = sender.post(action[1], {"next": action[2]})
    assert (answer.status_code, answer.headers["Location"]) == (303, action[2])
    assert sender.post(action[1], {"next": "https://evil.example"}).headers["Location"].startswith("/channels/")


# --- the preview


def test_the_message_is_shown_as_text_beside_its_row(sender: Browser, draft: Broadcast) -> None:
    page = sender.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "Hi &lt;b&gt;Ann&lt;/b&gt;" in page and "<b>Ann" not in page
    assert "Row 2 of" in page and "Encoding: GSM-7" in page
    part = sender.partial(f"/broadcasts/{draft.id}/preview?which=empty", headers=EN).text
    assert "Hi friend" in part and "Row 4 of" in part and part.startswith("<section")


def test_steps_lead_on_without_javascript(sender: Browser, draft: Broadcast) -> None:
    page = sender.page(f"/broadcasts/{draft.id}", headers=EN)
    link = re.search(r'href="([^"]+which=next[^"#]+)#preview"', page)
    assert link is not None
    following = sender.page(link[1].replace("&amp;", "&"), headers=EN)
    assert "Row 4 of" in following
    link = re.search(r'href="([^"]+which=next[^"#]+)#preview"', following)
    assert link is not None
    assert "That was the last row" in sender.page(link[1].replace("&amp;", "&"), headers=EN)
    assert "Row 3 has no message" in sender.page(f"/broadcasts/{draft.id}?line=3", headers=EN)
    assert "Row 4 of" in sender.page(f"/broadcasts/{draft.id}?line=4", headers=EN)


def test_a_template_has_its_head_its_marks_and_its_buttons(sender: Browser, waba: Broadcast) -> None:
    part = sender.partial(f"/broadcasts/{waba.id}/preview", headers=EN).text
    assert '<span class="said-bold ">Hi</span> &lt;b&gt;Ann&lt;/b&gt;' in part
    for text in ("Picture", "https://example.org/a.png", "Bye", "Open", "https://example.org/x"):
        assert text in part


def test_without_recipients_the_message_is_shown_as_it_was_written(
    sender: Browser, sandbox: dict[str, Channel]
) -> None:
    row = make.broadcast(text="Hi {{ name }}", channel=sandbox["sms"])
    assert "Hi {{ name }}" in sender.page(f"/broadcasts/{row.id}")


def test_viewers_see_the_sheet_and_nobodys_row(viewer: Browser, draft: Broadcast) -> None:
    page = viewer.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "Pre-flight check" in page and "Hi {{ name | friend }}" in page
    for secret in ("Ann", "+7 901", "Send a test", "/edit", "/channels/"):
        assert secret not in page.replace("\xa0", " ")
    assert viewer.get(f"/broadcasts/{draft.id}/preview?line=2").status_code == 200
    assert "Ann" not in viewer.get(f"/broadcasts/{draft.id}/preview?line=2").text
    assert viewer.get(f"/broadcasts/{draft.id}/tests").status_code == 403
    assert viewer.post(f"/broadcasts/{draft.id}/test", {"phone": "+79015554433"}).status_code == 403


# --- tests


def test_a_test_is_sent_listed_and_remembered(
    sender: Browser, draft: Broadcast, users: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[int] = []
    monkeypatch.setattr(tasks, "wake", woken.append)
    form = {"phone": "8 901 555-44-33", "line": "4", "form_token": "once"}
    for _press in range(2):
        answer = sender.post(f"/broadcasts/{draft.id}/test", form, htmx=True, headers=EN)
        assert answer.status_code == 200 and "Row 4 of" in answer.text and "+7 901 555-44-33" in _plain(answer.text)
    (sent,) = direct.tests_of(draft.id)
    assert sent.text == "Hi friend" and woken and User.get_by_id(users["sender"].id).test_phones == ["+79015554433"]
    part = sender.partial(f"/broadcasts/{draft.id}/tests", headers=EN).text
    assert "Queued" in part and "every 1s" in part and "sender@example.org" in part
    assert "5554433" not in sender.page(f"/broadcasts/{draft.id}/report").replace("-", "")


def _plain(text: str) -> str:
    return text.replace("\xa0", " ")


def test_without_javascript_a_test_leads_back_to_its_row(sender: Browser, draft: Broadcast) -> None:
    answer = sender.post(f"/broadcasts/{draft.id}/test", {"phone": "+79015554433", "line": "4"})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/broadcasts/{draft.id}?line=4#preview")
    wrong = sender.post(f"/broadcasts/{draft.id}/test", {"phone": "12"}, headers=EN)
    assert wrong.status_code == 303
    assert "“12” is not a phone number" in sender.page(f"/broadcasts/{draft.id}", headers=EN)


def test_a_test_that_cannot_leave_says_why_beside_the_number(sender: Browser, draft: Broadcast) -> None:
    with db.write():
        optouts.record("+79015554433", "reply", "STOP")
    answer = sender.post(f"/broadcasts/{draft.id}/test", {"phone": "+79015554433"}, htmx=True, headers=EN)
    assert answer.status_code == 422 and "on the stop list" in answer.text and 'value="+79015554433"' in answer.text
    assert not direct.tests_of(draft.id)


# --- the API


def call(app: Flask, method: str, url: str, headers: dict[str, str], **more: Any) -> tuple[int, Any]:
    answer = app.test_client().open(f"/api/v1{url}", method=method, headers={**headers, **EN}, **more)
    return answer.status_code, answer.get_json()


def test_the_api_gives_the_sheet(app: Flask, api: dict[str, Any], draft: Broadcast) -> None:
    status, sheet = call(app, "GET", f"/broadcasts/{draft.id}/preflight", api["sender"])
    assert status == 200 and sheet["ok"] is True and sheet["eta"].endswith("Z") and sheet["cost"] is None
    assert {"ok", "items", "numbers", "cost", "currency", "eta"} <= set(sheet)
    by_code = {item["code"]: item for item in sheet["items"]}
    assert by_code["recipients"]["level"] == "warn" and by_code["longest"]["fix"].endswith("which=longest#preview")
    assert all(item["level"] in ("block", "warn", "ok", "info") and item["text"] for item in sheet["items"])
    assert (sheet["numbers"]["recipients"], sheet["numbers"]["invalid"]) == (2, 1)
    RecipientFile.update(removed_at=1, removed_how="remove").execute()
    db.execute("UPDATE counter SET n = 0")
    status, sheet = call(app, "GET", f"/broadcasts/{draft.id}/preflight", api["viewer"])
    assert sheet["ok"] is False and sheet["eta"] is None
    assert [item["code"] for item in sheet["items"] if item["level"] == "block"] == ["no_recipients"]


def test_the_api_previews_any_row(app: Flask, api: dict[str, Any], draft: Broadcast, waba: Broadcast) -> None:
    url, me = f"/broadcasts/{draft.id}/preview", api["sender"]
    status, first = call(app, "GET", url, me)
    assert (status, first["phone"], first["text"]) == (200, "+79010000001", "Hi <b>Ann</b>")
    assert (first["encoding"], first["units"], first["segments"]) == ("GSM-7", 13, 1)
    assert first["row"] == {"phone": "+79010000001", "name": "<b>Ann</b>"}
    where = f"line={first['line']}&file={first['file']}"
    assert call(app, "GET", f"{url}?{where}", me)[1] == first
    following = call(app, "GET", f"{url}?which=next&after={first['line']}&file={first['file']}", me)[1]
    assert (following["line"], following["text"]) == (4, "Hi friend")
    assert call(app, "GET", f"{url}?which=longest", me)[1]["line"] == 2
    for query, status in (("line=3", 404), ("line=999", 404), ("which=next&after=9", 404), ("which=odd", 422)):
        found, body = call(app, "GET", f"{url}?{query}", me)
        assert found == status and body["error"]["message"], query
    shown = call(app, "GET", f"/broadcasts/{waba.id}/preview", me)[1]
    assert [part["type"] for part in shown["components"]] == ["HEADER", "BODY", "FOOTER", "BUTTONS"]
    assert shown["components"][1]["text"] == "*Hi* <b>Ann</b>" and shown["encoding"] is None
    assert call(app, "GET", url, api["viewer"])[0] == 403


def test_the_api_sends_a_test(app: Flask, api: dict[str, Any], draft: Broadcast) -> None:
    url, me = f"/broadcasts/{draft.id}", api["sender"]
    status, sent = call(app, "POST", f"{url}/test", me, json={"phone": "89015554433", "line": 4})
    assert status == 201 and (sent["phone"], sent["text"], sent["status"]) == ("+79015554433", "Hi friend", "queued")
    assert [test["id"] for test in call(app, "GET", f"{url}/tests", me)[1]["items"]] == [sent["id"]]
    assert call(app, "GET", url, me)[1]["counters"]["total"] == 2
    assert not User.select().where(User.test_phones.is_null(False)).exists()  # a program has no numbers of its own
    for body, field in (
        ({"phone": "1"}, "phone"),
        ({}, "phone"),
        ({"phone": 5}, "phone"),
        ({"phone": "+79015554433", "line": "4"}, "line"),
        ({"phone": "+79015554433", "line": 3}, "line"),
        ({"phone": "+79015554433", "who": 3}, "who"),
    ):
        status, answer = call(app, "POST", f"{url}/test", me, json=body)
        assert status == 422 and field in answer["error"]["fields"], body
    assert call(app, "POST", f"{url}/test", api["viewer"], json={"phone": "+79015554433"})[0] == 403
