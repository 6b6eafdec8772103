"""What breaks others: forms, addresses, cells, file names and callbacks that nobody would send by accident.

The answer is always a sentence, never a fault, and nothing half-done stays.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
import zipfile
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import channels, db, delivery, recipients, reports, tasks
from worker.models import Broadcast, Callback, Channel, Inbound, Message, RecipientFile
from worker.providers import meta_webhooks, sandbox_sms
from worker.providers.base import InboundMessage
from worker.settings import Settings

MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    '<a hx-get="/logout" hx-trigger="load">x</a>',
    "<div data-hx-get='/settings'>",
    "javascript:alert(1)",
    "{{7*7}}",
    "{{ config }}",
    "{% for x in y %}",
    "${7*7}",
    "%(x)s",
    "{0.__class__}",
    "'; DROP TABLE message; --",
    "\u202egpj.exe",
    "e\u0301\u0301\u0301\u0301" * 50,
    "👩‍👩‍👧‍👦" * 20,
    "x\r\nSet-Cookie: a=b",
    "\x1b[31mred",
]


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """Time stands before anybody signs in."""


@pytest.fixture
def sms(database: Settings) -> Channel:
    return make.channel(name="SMS")


def values(channel: Channel, **more: str) -> dict[str, str]:
    return {
        "name": "N", "channel_sms": str(channel.id), "kind": "sms", "text": "Hi", "rate_per_minute": "60",
        "when": "now", **more,
    }  # fmt: skip


# ---- forms


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rate_per_minute", v) for v in ("0", "-1", "1e9", "1000000000", "60; DROP TABLE message", "NaN", "٦٠", "")),
        *(("name", v) for v in ("x" * 100_000, "", " \t ", "\0")),
        *(("channel_sms", v) for v in ("999999", "-1", "9" * 40, "1 OR 1=1", "١")),
        *(("text", v) for v in ("", "{{", "{{ name|safe }} }}", "{{}}", "x" * 100_000)),
    ],
)
def test_a_form_with_nonsense_comes_back_with_a_reason(sender: Browser, sms: Channel, field: str, value: str) -> None:
    answer = sender.post("/broadcasts/new", values(sms, **{field: value}))
    assert answer.status_code == 422
    assert Broadcast.select().count() == 0


@pytest.mark.parametrize(
    "at", ["9999-12-31T23:59", "2026-02-30T10:00", "2020-01-01T00:00", "soon", "0", "-1", "2026-13-01T00:00", "1e400"]
)
def test_a_start_time_that_cannot_be_is_refused(sender: Browser, api: Any, app: Flask, sms: Channel, at: str) -> None:
    given = {"name": "N", "channel_id": sms.id, "text": "Hi", "rate_per_minute": 60, "send_at": at}
    answer = app.test_client().post("/api/v1/broadcasts", json=given, headers=api["sender"])
    assert answer.status_code == 422 and answer.json["error"]["fields"]["send_at"]
    assert Broadcast.select().count() == 0


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '{"a":1}', "[" * 100_000, '{"name": 1e400}', '{"rate_per_minute": true}', '"x"', "\xff", '{"name":"\\ud800"}'])  # fmt: skip
def test_a_body_that_is_no_broadcast_is_refused(app: Flask, api: Any, body: str) -> None:
    answer = app.test_client().post("/api/v1/broadcasts", data=body.encode("latin-1"), headers=api["sender"])
    assert answer.status_code in (400, 422) and answer.json["error"]["message"]
    assert Broadcast.select().count() == 0


def test_names_with_markup_are_shown_as_text(sender: Browser, sms: Channel) -> None:
    for text in MARKUP:
        assert sender.post("/broadcasts/new", values(sms, name=text)).status_code in (303, 422)
    assert Broadcast.select().count() >= len(MARKUP) - 2
    for number in range(1, Broadcast.select().count() + 1):
        _shows_text_only(sender, number)


def _shows_text_only(sender: Browser, number: int) -> None:
    here = f"/broadcasts/{number}"
    for path in ("/broadcasts", here, f"{here}/report", f"{here}/edit", f"{here}/delete"):
        page = sender.get(path)
        assert page.status_code in (200, 302, 303, 404)
        for raw in ("<script>alert", "<img src=x", "<svg onload", '<a hx-get="/logout', "<div data-hx"):
            assert raw not in page.text
        assert "Set-Cookie: a=b" not in str(page.headers)


# ---- addresses


NAMES = [
    "run",
    "status",
    "cause",
    "file",
    "phone",
    "after",
    "before",
    "state",
    "sort",
    "name",
    "mark",
    "limit",
    "filter",
]
NONSENSE = [
    "'", "1 OR 1=1", "-1", "9" * 30, "٣", "\0", "a.b.c", "1.1", "1.2.3.4", "x; DROP TABLE message", "%", "[]", "{{7*7}}",
]  # fmt: skip


@pytest.mark.parametrize("value", NONSENSE)
def test_the_address_asks_for_nonsense(sender: Browser, app: Flask, api: Any, value: str) -> None:
    made = make.broadcast(name="First")
    make.messages(make.file(made), "sent")
    before = db.value("SELECT COUNT(*) FROM message")
    client = app.test_client()
    for name in NAMES:
        for path in ("/broadcasts", "/broadcasts/list", f"/broadcasts/{made.id}/report", f"/broadcasts/{made.id}/live"):
            assert sender.get(f"{path}?{name}={quote(value)}").status_code < 500, (path, name)
        for path in ("broadcasts", f"broadcasts/{made.id}", f"broadcasts/{made.id}/messages"):
            answer = client.get(f"/api/v1/{path}?{name}={quote(value)}", headers=api["sender"])
            assert answer.status_code < 500, (path, name)
    assert db.value("SELECT COUNT(*) FROM message") == before


@pytest.mark.parametrize(
    "path",
    [
        "/static/../wsgi.py",
        "/static/..%2f..%2fetc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/..\\..\\etc\\passwd",
        "/static//etc/passwd",
        "/static/app.css%00.png",
        "/static/CON",
        "/static/nul.css",
        "/broadcasts/1/files/..%2f1",
        "/broadcasts/%2e%2e/settings",
        "/invitation/..%2f..%2fsettings",
    ],
)
def test_no_path_climbs_out(sender: Browser, path: str) -> None:
    answer = sender.get(path)
    assert answer.status_code in (302, 303, 308, 400, 404)
    assert "root:" not in answer.text and "create_app" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example"},
        {"X-Forwarded-For": "1.2.3.4, 5.6.7.8"},
        {"X-Original-URL": "/settings", "X-Rewrite-URL": "/settings"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"HX-Request": "true", "HX-Current-URL": "javascript:alert(1)"},
        {"HX-Request": "true", "HX-Current-URL": "https://evil.example/\r\n"},
        {"Accept-Language": "x" * 10_000},
        {"User-Agent": "<script>alert(1)</script>"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Cookie": "molva=" + "A" * 4_000},
        {"Range": "bytes=0-0,-1"},
        {"Content-Type": "multipart/form-data"},
    ],
)
def test_headers_from_outside_change_nothing(stranger: Browser, headers: dict[str, str]) -> None:
    answer = stranger.client.get("/login", headers={k: v.replace("\r\n", "") for k, v in headers.items()})
    assert answer.status_code in (200, 400)
    assert "evil.example" not in answer.text.replace("next=", "") and "evil" not in str(answer.headers.get("Location"))


# ---- files and cells

CELLS = [
    "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.example")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1",
    "＝1+1", "＋1", "－1", "＠SUM",
]  # fmt: skip


def imported(settings: Settings, data: bytes, name: str = "a.csv", text: str = "Hi") -> RecipientFile:
    tasks.configure(settings)
    made = make.broadcast(channel=make.channel(), text=text)
    file = recipients.receive(made, io.BytesIO(data), name, settings.uploads, {}, "test")
    tasks.run_read_file(file.id)
    return RecipientFile.get_by_id(file.id)


@pytest.mark.parametrize("cell", CELLS)
def test_no_export_holds_a_formula(sender: Browser, database: Settings, cell: str) -> None:
    quoted = cell.replace('"', '""')
    file = imported(database, f'phone,"{quoted}"\n+79010000001,"{quoted}"\nbad,"{quoted}"\n'.encode())
    assert (file.state, file.accepted) == ("ready", 1), file.code
    for path in (
        f"/broadcasts/{file.broadcast_id}/report.csv",
        f"/broadcasts/{file.broadcast_id}/files/{file.id}/errors.csv",
    ):
        text = sender.get(path).data.decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=";"):
            for found in row:
                assert found[:1] not in reports.DANGEROUS or found == "+79010000001", (path, found)


@pytest.mark.parametrize("cell", [t for t in MARKUP if "{" in t or "%" in t or "$" in t])
def test_a_template_language_in_a_cell_is_text(database: Settings, cell: str) -> None:
    from worker import broadcasts, rendering

    file = imported(database, f'phone,name\n+79010000001,"{cell}"\n'.encode(), text="Hi {{ name }}")
    content = broadcasts.content(Broadcast.get_by_id(file.broadcast_id))
    assert content is not None and file.accepted == 1
    message = Message.get()
    rendered = content.bind(file.columns).render(json.loads(message.row))
    assert isinstance(rendered, rendering.Rendered) and rendered.text == f"Hi {cell}"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", "C:\\x.csv", "a\0.csv", 'a"; filename="b.csv', "a\r\nX: y.csv",
        "CON.csv", ".htaccess", "a" * 300, "получатели.csv", "\u202evsc.exe", "<script>alert(1)</script>.csv",
        "{{7*7}}.csv", "'; DROP TABLE x;.csv", "", ".", "x.CSV", "x.csv.html",
    ],
)  # fmt: skip
def test_a_file_name_is_shown_and_nothing_else(sender: Browser, database: Settings, name: str) -> None:
    file = imported(database, b"phone\n+79010000001\nbad\n", name)
    assert (database.uploads / file.path).parent == database.uploads and len(file.path) == 32
    page = sender.page(f"/broadcasts/{file.broadcast_id}")
    assert "<script>alert" not in page
    report = sender.get(f"/broadcasts/{file.broadcast_id}/report.csv")
    assert report.headers["Content-Disposition"] == f"attachment; filename=report-{file.broadcast_id}.csv"
    assert "X" not in report.headers


def xlsx_bomb() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 300_000_000)
        archive.writestr("../../climbs.txt", "x")
    return memory.getvalue()


NO_TABLES = {
    "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 500,
    "pdf": b"%PDF-1.7\n" + bytes(range(256)) * 4,
    "gzip": gzip.compress(b"phone\n+79010000001"),
    "xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500,
    "html": b"<!doctype html><html><body>Not found</body></html>",
    "json": b'{"error": "link expired"}',
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "nul": b"\0" * 1000,
    "quotes": b'"' * 10_000,
    "one quote": b'phone,name\n+79010000001,"open\n' + b"x,y\n" * 1000,
    "commas": b"," * 1_000_000,
    "newlines": b"\n" * 1_000_000,
    "bomb": None,
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_is_refused(database: Settings, kind: str) -> None:
    data = NO_TABLES[kind] if NO_TABLES[kind] is not None else xlsx_bomb()
    began = time.monotonic()
    file = imported(database, data, f"x.{kind}")
    assert file.state == "refused" and file.code
    assert time.monotonic() - began < 20
    assert Message.select().count() == 0
    assert not list(database.data.rglob("climbs.txt"))


# ---- callbacks

BODIES = {
    "arrays": b"[" * 10_000 + b"]" * 10_000,
    "infinite": b'{"entry": 1e400}',
    "repeated keys": b'{"object":"whatsapp_business_account","entry":[],"entry":{"a":1}}',
    "not json": b"\xff\xfe\x00",
    "empty": b"",
    "compressed": gzip.compress(b'{"a":"' + b"0" * 1_000_000 + b'"}'),
    "wrong types": b'{"object":[],"entry":{"changes":"x"}}',
    "unknown number": json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [
        {"field": "messages", "value": {"metadata": {"phone_number_id": "999"}, "statuses": [
            {"id": "wamid.x", "status": "delivered", "timestamp": "99999999999", "recipient_id": "-7900"}]}}]}]}).encode(),
    "negative": b'{"id": "-1", "status": "delivered", "time": -1}',
    "strange words": json.dumps({"id": "x", "status": "<script>", "note": "\u0000\u202e"}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("of", ["sms", "waba"])
def test_a_signed_callback_with_nonsense_breaks_nothing(
    app: Flask, database: Settings, api: Any, kind: str, of: str
) -> None:
    made = {c.kind: (c, channels.all_settings(database, c)) for c in channels.ensure_sandbox(database)}
    channel, secrets = made[of]
    body = BODIES[kind]
    if of == "waba":
        url, headers = (
            f"/hooks/{channel.key}",
            {"X-Hub-Signature-256": meta_webhooks.signature(secrets["app_secret"], body)},
        )
    else:
        url = f"/hooks/{channel.key}/status"
        headers = {"X-Sandbox-Signature": sandbox_sms.signature(secrets["secret"], body)}
    for content_type in ("application/json", "text/html", "multipart/form-data", ""):
        answer = app.test_client().post(url, data=body, headers=headers, content_type=content_type)
        assert answer.status_code == 200 or not body
    providers = channels.Providers(database)
    while delivery.apply_waiting(providers):
        pass
    assert not Callback.select().where(Callback.processed_at.is_null()).exists()
    assert app.test_client().get("/api/v1/broadcasts", headers=api["viewer"]).status_code == 200


@pytest.mark.parametrize("challenge", ["<script>alert(1)</script>", "x" * 5_000, "\r\nX: y", "1"])
def test_a_handshake_never_becomes_a_page(app: Flask, database: Settings, challenge: str) -> None:
    channel = next(c for c in channels.ensure_sandbox(database) if c.kind == "waba")
    token = channels.all_settings(database, channel)["verify_token"]
    for given in (token, "wrong", ""):
        query = {"hub.mode": "subscribe", "hub.verify_token": given, "hub.challenge": challenge}
        answer = app.test_client().get(f"/hooks/{channel.key}", query_string=query)
        assert answer.status_code in (200, 400, 403)
        assert answer.status_code == 403 or given == token
        assert answer.content_type.startswith("text/plain") and "X" not in answer.headers


def test_replies_and_names_of_strangers_are_kept_as_text(database: Settings) -> None:
    channel = make.channel()
    texts = [*MARKUP, "x" * 65_536, "\0", "СТОП" * 10_000]
    for n, text in enumerate(texts):
        item = InboundMessage(provider_id=str(n), phone="+79010000001", name=text * 3, kind="text", text=text, at=1)
        with db.write():
            delivery.receive_inbound(channel.id, item, 1)
    assert Inbound.select().count() == len(texts)
