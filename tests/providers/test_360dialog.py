"""360dialog: the same wire behind another address, another key and another proof that a callback is genuine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.providers import stub
from tests.providers.stub import Stub
from tests.providers.waba import BODY, OK, OURS, by_path, callback, close_all, cloud, dialog, error, signed  # noqa: F401
from webapp.callbacks import HEADERS
from worker.providers import PROVIDERS
from worker.providers.base import LATER, REFUSED, STOP_CHANNEL, UNCLEAR, Finding, Outgoing, RawCallback, SendError
from worker.providers.dialog360 import HEADER, Dialog360

PHONE = "+15550100001"
TEMPLATE = {"name": "hello", "language": "ru", "category": "MARKETING", "components": []}
OUT = Outgoing(PHONE, "t1", template=TEMPLATE)


def test_it_is_registered_under_its_name_and_its_header_is_kept() -> None:
    assert PROVIDERS["360dialog"] is Dialog360
    assert HEADER in HEADERS


def test_a_message_goes_out_as_to_meta_but_for_address_and_key() -> None:
    with Stub(stub.answer(200, OK)) as server:
        assert dialog(server.url).send(OUT).provider_id == "wamid.TEST1"
        cloud(server.url).send(OUT)
        ours, metas = server.requests
    assert (ours.method, ours.path) == ("POST", "/messages")
    assert ours.headers["d360-api-key"] == "key"
    assert "authorization" not in ours.headers
    assert ours.json == metas.json


def test_marketing_and_files_have_their_own_paths() -> None:
    with Stub(by_path({"marketing_messages": OK, "media": {"id": "77"}})) as server:
        dialog(server.url, marketing_endpoint=True).send(OUT)
        assert dialog(server.url).upload(b"x", "image/png", "a.png") == "77"
        assert [request.path for request in server.requests] == ["/marketing_messages", "/media"]


@pytest.mark.parametrize(
    ("status", "meta", "outcome", "cause"),
    [
        (401, {"success": False, "http_code": 401, "developer_message": "not valid"}, STOP_CHANNEL, "http_401"),
        (429, {"success": False, "httpCode": 429, "developerMessage": "too many"}, LATER, "http_429"),
        (400, {"success": False, "http_code": 400, "developer_message": "bad request"}, REFUSED, "http_400"),
        (500, {"success": False, "http_code": 500, "developer_message": "broken"}, UNCLEAR, "http_500"),
        (200, {"success": False, "http_code": 403}, UNCLEAR, "answer_unreadable"),
        (200, {"success": True}, UNCLEAR, "answer_unreadable"),
    ],
)
def test_its_own_faults_are_told_by_their_status(status: int, meta: dict[str, Any], outcome: str, cause: str) -> None:
    with Stub(stub.answer(status, {"meta": meta})) as server, pytest.raises(SendError) as caught:
        dialog(server.url).send(OUT)
    assert (caught.value.outcome, caught.value.cause) == (outcome, cause)
    words = meta.get("developer_message") or meta.get("developerMessage")
    assert not words or caught.value.detail == words


def test_metas_own_codes_come_through() -> None:
    with Stub(by_path({"messages": error(131026, "undeliverable")})) as server, pytest.raises(SendError) as caught:
        dialog(server.url).send(OUT)
    assert (caught.value.outcome, caught.value.cause) == (REFUSED, "131026")


def page(names: list[str], total: int, **more: Any) -> dict[str, Any]:
    listed = [
        {"name": n, "language": "ru", "status": "approved", "category": "utility", "components": [BODY], **more}
        for n in names
    ]
    return {"waba_templates": listed, "count": len(listed), "total": total, "limit": 100}


def test_templates_are_read_page_by_page_and_in_capitals() -> None:
    with Stub() as server:
        server.script = [stub.answer(200, page(["a", "b"], 3)), stub.answer(200, page(["c"], 3))]
        found = dialog(server.url).templates()
        paths = [request.path for request in server.requests]
    assert [t.name for t in found] == ["a", "b", "c"]
    assert {(t.status, t.category) for t in found} == {("APPROVED", "UTILITY")}
    assert paths == ["/v1/configs/templates?limit=100&offset=0", "/v1/configs/templates?limit=100&offset=2"]


def test_kinds_written_small_are_read_as_metas() -> None:
    parts = [
        {"type": "header", "format": "image"},
        {"type": "body", "text": "Hi"},
        {"type": "buttons", "buttons": [{"type": "quick_reply", "text": "More"}]},
    ]
    with Stub(stub.answer(200, page(["a"], 1, components=parts))) as server:
        head, body, row = dialog(server.url).templates()[0].components
    assert (head["type"], head["format"], body["type"]) == ("HEADER", "IMAGE", "BODY")
    assert row == {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "More"}]}


def test_the_check_says_whether_the_key_works_and_what_is_missing() -> None:
    with Stub(stub.answer(200, page(["a"], 1))) as server:
        assert dialog(server.url).check() == [Finding("ok", "key_accepted")]
        found = dialog(server.url, webhook_secret="").check()
        assert found[1:] == [Finding("error", "webhook_secret_missing")]
    with Stub(stub.answer(200, page([], 0))) as server:
        assert dialog(server.url).check()[1:] == [Finding("warning", "no_templates")]
    with Stub(stub.answer(401, {"meta": {"developer_message": "not valid"}})) as server:
        assert dialog(server.url).check() == [Finding("error", "http_401", "not valid")]


def test_registering_tells_our_address_and_our_secret() -> None:
    with Stub() as server:
        server.behave = by_path({"webhook": {"url": OURS}})
        dialog(server.url).register()
        request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/configs/webhook")
    assert request.json == {"url": OURS, "headers": {HEADER: "told you"}}
    with pytest.raises(SendError):
        dialog(webhook_secret="").register()


def test_only_callbacks_with_the_secret_are_believed() -> None:
    body = json.dumps({"entry": []}).encode()
    assert dialog().verify(callback(body, d360_webhook_secret="told you"))
    assert not dialog().verify(callback(body, d360_webhook_secret="told you not"))
    assert not dialog().verify(callback(body))
    assert not dialog().verify(signed(body))
    assert not dialog(webhook_secret="").verify(callback(body, d360_webhook_secret=""))
    assert dialog().handshake(RawCallback("GET", "", {"hub.challenge": "1"}, {}, b"")) is None


def test_its_callbacks_are_metas() -> None:
    item = {"id": "wamid.A", "status": "delivered", "timestamp": "1700000000", "recipient_id": PHONE[1:]}
    value = {"metadata": {"phone_number_id": "9"}, "statuses": [item]}
    body = json.dumps({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}).encode()
    assert [update.status for update in dialog().parse(callback(body))] == ["delivered"]
    assert list(dialog(phone_number_id="8").parse(callback(body))) == []


def test_a_file_is_fetched_through_its_own_address_whatever_host_is_named() -> None:
    with Stub() as server:
        server.script = [
            stub.answer(200, {"url": "https://lookaside.fbsbx.com/whatsapp/attachments/?mid=9&x=1"}),
            stub.answer(200, b"file"),
        ]
        assert dialog(server.url).fetch("900") == b"file"
        facts, file = server.requests
    assert (facts.path, file.path) == ("/900", "/whatsapp/attachments/?mid=9&x=1")
    assert file.headers["d360-api-key"] == "key"


def test_no_address_leads_our_key_to_another_host() -> None:
    for url in (".evil.example/f", "evil.example/f", "@evil.example/f", "//evil.example/f", "https://evil.example"):
        address = dialog("https://gate.example").file_address(url)
        assert address.startswith("https://gate.example/"), url
