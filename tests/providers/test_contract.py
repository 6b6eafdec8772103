"""What the sender may rely on, held against every Provider of the registry."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.providers import stub
from tests.providers.stub import Behaviour, Request, Stub
from worker.providers import PROVIDERS, adapter, dialog360, meta_webhooks, sandbox_address, sandbox_sms, twilio
from worker.providers.adapter import BODY_CAP, Timeouts
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    CallbackAddresses,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
)

QUICK = Timeouts(connect=1.0, read=0.3, total=0.8, start=5.0, idle=5.0)
HOOK = "https://molva.example/hooks/key"
ADDRESSES = CallbackAddresses(HOOK, f"{HOOK}/status", f"{HOOK}/inbound")
TOKEN = "7.0123456789abcdef0123"
SECRET = "canary/" + "1234567-s3cret+"  # with digits like those of a number
SMS = Outgoing("+79161234567", TOKEN, "Привет")
TEMPLATE = {"name": "hello", "language": "ru", "components": []}
WABA = Outgoing("+79161234567", TOKEN, template=TEMPLATE)
ELSEWHERE = {"smpp": "tests/gateways/test_smpp.py"}  # another wire than HTTP, tested there


@dataclass
class Case:
    """What the contract needs to know of one Provider: how its vendor says yes and no, and what it calls back.

    `error`: where an answer has room for words that a vendor may repeat our request in.
    """

    settings: Callable[[str], dict[str, Any]]
    yes: tuple[int, Any]
    identity: str
    refusals: list[tuple[int, Any, str]]
    callback: Callable[[], RawCallback] | None = None
    signed: bool = False
    over_body: bool = True  # the proof is over the body, not only a secret beside it
    error: Callable[[str], Any] = str
    out: Outgoing = SMS
    body: bytes = field(default=b"", init=False)

    def answer(self, status: int, content: Any) -> Behaviour:
        return stub.answer(status, content if isinstance(content, bytes) else json.dumps(content).encode())


def called(
    path: str, body: bytes = b"", query: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> RawCallback:
    return RawCallback("POST" if body else "GET", path, query or {}, headers or {}, body)


def gateway(*names: str, **more: str) -> Callable[[str], dict[str, Any]]:
    """Settings of a preset: its address and the account; secrets are canaries."""
    given = {name: SECRET if name in ("password", "token") else f"the-{name}" for name in names}
    return lambda url: {"base_url": url, **given, **more}


def published(url: str) -> dict[str, Any]:
    """The sandbox finds its emulator through a file; the test's own folder is filled in later."""
    return {"sandbox": url}


def cloud_yes() -> dict[str, Any]:
    return {"messages": [{"id": "wamid.A"}]}


def cloud_error(code: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": "no"}}


def cloud_callback() -> RawCallback:
    status = {"id": "wamid.A", "status": "delivered", "timestamp": "1793869200", "recipient_id": "79161234567"}
    value = {"metadata": {"phone_number_id": "the-number"}, "statuses": [status]}
    body = json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()
    return called("", body, headers={"x-hub-signature-256": meta_webhooks.signature(SECRET, body)})


def dialog_callback() -> RawCallback:
    return called("", cloud_callback().body, headers={dialog360.HEADER: SECRET})


def sandbox_callback() -> RawCallback:
    body = json.dumps({"id": "A", "ref": TOKEN, "status": "delivered", "time": 1_793_869_200}).encode()
    return called("status", body, headers={"x-sandbox-signature": sandbox_sms.signature(SECRET, body)})


def twilio_callback() -> RawCallback:
    form = [("MessageSid", "SM1"), ("MessageStatus", "delivered")]
    signed = twilio.signature(SECRET, f"{HOOK}/status?ref={TOKEN}", form)
    body = b"MessageSid=SM1&MessageStatus=delivered"
    return called("status", body, {"ref": TOKEN}, {"x-twilio-signature": signed})


CLOUD = {
    "yes": (200, cloud_yes()),
    "identity": "wamid.A",
    "refusals": [
        (400, cloud_error(131026), REFUSED),
        (400, cloud_error(130429), LATER),
        (401, cloud_error(190), STOP_CHANNEL),
        (404, cloud_error(132001), STOP_BROADCAST),
    ],
    "callback": cloud_callback,
    "signed": True,
    "error": lambda said: {"code": 190, "message": f"Malformed access token {said}"},
    "out": WABA,
}
SMS_RU = {"status": "OK", "status_code": 100}
CASES: dict[str, Case] = {
    "sandbox_waba": Case(
        lambda url: {
            **published(url),
            **{"access_token": SECRET, "app_secret": SECRET, "phone_number_id": "the-number", "waba_id": "1"},
        },
        **CLOUD,  # type: ignore[arg-type]
    ),
    "whatsapp_cloud": Case(
        lambda url: {
            **{"base_url": url, "access_token": SECRET, "app_secret": SECRET, "phone_number_id": "the-number"},
        },
        **CLOUD,  # type: ignore[arg-type]
    ),
    "360dialog": Case(
        lambda url: {"base_url": url, "api_key": SECRET, "webhook_secret": SECRET, "phone_number_id": "the-number"},
        **{**CLOUD, "callback": dialog_callback, "over_body": False},  # type: ignore[arg-type]
    ),
    "sandbox_sms": Case(
        lambda url: {**published(url), "token": SECRET, "secret": SECRET},
        (200, {"id": "A"}),
        "A",
        [
            (400, {"error": {"code": "sms_unknown_subscriber"}}, REFUSED),
            (429, {"error": {"code": "sms_throttled"}}, LATER),
            (401, {"error": {"code": "sms_bad_token"}}, STOP_CHANNEL),
        ],
        sandbox_callback,
        signed=True,
        error=lambda said: {"code": "sms_bad_token", "message": said},
    ),
    "twilio": Case(
        lambda url: {"base_url": url, "account_sid": "AC1", "auth_token": SECRET, "from": "+15005550006"},
        (201, {"sid": "SM1", "status": "queued", "num_segments": "1", "error_code": None}),
        "SM1",
        [
            (400, {"code": 21211, "message": "The number +79161234567 is not valid", "status": 400}, REFUSED),
            (400, {"code": 21610, "message": "unsubscribed", "status": 400}, REFUSED),
            (400, {"code": 21606, "message": "cannot send", "status": 400}, STOP_BROADCAST),
            (401, {"code": 20003, "message": "Authenticate", "status": 401}, STOP_CHANNEL),
            (429, {"code": 20429, "message": "Too many", "status": 429}, LATER),
            (500, {"code": 20500, "message": "Internal", "status": 500}, UNCLEAR),
        ],
        twilio_callback,
        signed=True,
    ),
    "kannel": Case(
        gateway("username", "password", "sender"),
        (202, b"0: Accepted for delivery"),
        TOKEN,
        [
            (403, b"Authorization failed for sendsms", STOP_CHANNEL),
            (400, b"Missing receiver number, rejected", REFUSED),
            (202, b"what?", UNCLEAR),
            (503, b"Temporal failure, try again later.", LATER),
        ],
        lambda: called("status", query={"ref": TOKEN, "type": "1", "answer": "", "time": "1793869200"}),
    ),
    "jasmin": Case(
        gateway("username", "password", "sender"),
        (200, b'Success "07033084-5cfd-4812-90a4-e4d24ffb6e3d"'),
        "07033084-5cfd-4812-90a4-e4d24ffb6e3d",
        [
            (403, b'Error "Authentication failure for username:the-username"', STOP_CHANNEL),
            (400, b'Error "Unknown argument"', REFUSED),
            (500, b'Error "Cannot send submit_sm, check SMPPClientManagerPB log file for details"', UNCLEAR),
        ],
        lambda: called("status", b"id=07033084&level=2&message_status=DELIVRD", {"ref": TOKEN}),
    ),
    "smsc_ru": Case(
        gateway("username", "password", "sender"),
        (200, {"id": TOKEN, "cnt": 1}),
        TOKEN,
        [
            (200, {"error": "authorise error", "error_code": 2}, STOP_CHANNEL),
            (200, {"error": "no money", "error_code": 3}, STOP_CHANNEL),
            (200, {"error": "IP blocked", "error_code": 4}, LATER),
            (200, {"error": "invalid number", "error_code": 7}, REFUSED),
            (200, {"error": "duplicate request", "error_code": 9}, UNCLEAR),
            (200, {"error": "parameters error", "error_code": 1}, STOP_BROADCAST),
            (200, {"error": "something new", "error_code": 77}, REFUSED),
        ],
        lambda: called("status", f"id={TOKEN}&phone=79161234567&status=1&err=0".encode(), {"charset": "utf-8"}),
    ),
    "sms_aero": Case(
        gateway("username", "password", "sender"),
        (200, {"success": True, "data": {"id": 12345, "status": 8, "extendStatus": "moderation"}, "message": None}),
        "12345",
        [
            (200, {"success": False, "data": None, "message": "Not enough credits"}, STOP_CHANNEL),
            (200, {"result": "no credits"}, STOP_CHANNEL),
            (200, {"result": "reject", "reason": "empty field"}, REFUSED),
            (200, {"success": False, "message": "Validation error."}, REFUSED),
        ],
        lambda: called("status", b'{"id": 12345, "status": 1, "extendStatus": "delivery"}', {"ref": TOKEN}),
    ),
    "exolve": Case(
        gateway("token", "sender"),
        (200, {"message_id": "439166538309187332"}),
        "439166538309187332",
        [(400, {"error": {"code": 3, "message": "invalid number"}}, REFUSED), (403, {}, STOP_CHANNEL)],
    ),
    "sms_ru": Case(
        gateway("token", "sender"),
        (200, {**SMS_RU, "sms": {"79161234567": {"status": "OK", "status_code": 100, "sms_id": "000-1"}}}),
        "000-1",
        [
            (200, {"status": "ERROR", "status_code": 200, "status_text": "api_id"}, STOP_CHANNEL),
            (200, {"status": "ERROR", "status_code": 220, "status_text": "busy"}, LATER),
            (200, {**SMS_RU, "sms": {"79161234567": {"status_code": 207}}}, REFUSED),
            (200, {**SMS_RU, "sms": {"79161234567": {"status_code": 204}}}, STOP_BROADCAST),
            (200, {**SMS_RU, "sms": {"79161234567": {"status_code": 201}}}, STOP_CHANNEL),
            (200, {**SMS_RU, "sms": {"79161234567": {"status_code": 100}}}, UNCLEAR),
        ],
        lambda: called("status", b"data%5B0%5D=sms_status%0A000-1%0A103%0A1793869200&data%5B1%5D=balance%0A5"),
    ),
    "vonage": Case(
        gateway("username", "password", "sender"),
        (200, {"message-count": "1", "messages": [{"status": "0", "message-id": "0A", "to": "79161234567"}]}),
        "0A",
        [
            (200, {"messages": [{"status": "1", "error-text": "Throttled"}]}, LATER),
            (200, {"messages": [{"status": "6", "error-text": "Unroutable"}]}, REFUSED),
            (200, {"messages": [{"status": "4", "error-text": "Bad credentials"}]}, STOP_CHANNEL),
            (200, {"messages": [{"status": "15", "error-text": "Invalid sender"}]}, STOP_BROADCAST),
            (200, {"messages": [{"status": "0", "message-id": "0A"}, {"status": "1"}]}, UNCLEAR),
            (200, {"messages": [{"status": "98", "error-text": "new"}]}, REFUSED),
        ],
        lambda: called("status", query={"messageId": "0A", "status": "delivered", "client-ref": TOKEN}),
    ),
    "infobip": Case(
        gateway("token", "sender"),
        (200, {"messages": [{"messageId": TOKEN, "status": {"groupId": 1, "id": 26}}]}),
        TOKEN,
        [
            (200, {"messages": [{"messageId": TOKEN, "status": {"groupId": 5, "id": 6}}]}, REFUSED),
            (401, {"requestError": {"serviceException": {"messageId": "UNAUTHORIZED"}}}, STOP_CHANNEL),
        ],
        lambda: called(
            "status",
            json.dumps({"results": [{"messageId": TOKEN, "status": {"groupId": 3, "id": 5}}]}).encode(),
            {"ref": TOKEN},
        ),
    ),
    "http": Case(
        lambda url: {
            "url": f"{url}/send",
            "password": SECRET,
            "token": SECRET,
            "auth": "bearer",
            "rules": "status 2xx & json.ok = true -> ok\njson.error = bad* -> person sms_refused\njson.error = pay -> stop_channel",
            "id": "json.id",
            "hmac_header": "X-Sign",
            "callback_secret": SECRET,
        },
        (200, {"ok": True, "id": 5}),
        "5",
        [(200, {"error": "bad number"}, REFUSED), (200, {"error": "pay"}, STOP_CHANNEL)],
        lambda: called(
            "status",
            b"id=5&status=delivered",
            headers={"x-sign": meta_webhooks.signature(SECRET, b"id=5&status=delivered").removeprefix("sha256=")},
        ),
        signed=True,
    ),
}
WITH_CALLBACKS = [key for key, case in CASES.items() if case.callback is not None]


def test_every_provider_of_the_registry_stands_in_the_table() -> None:
    elsewhere = {key: path for key, path in ELSEWHERE.items() if key in PROVIDERS}
    assert set(PROVIDERS) == set(CASES) | set(elsewhere)
    for path in elsewhere.values():
        assert (Path(__file__).parents[2] / path).exists()


@pytest.fixture(params=[key for key in PROVIDERS if key in CASES])
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(key: str) -> Case:
    return CASES[key]


@pytest.fixture
def vendor() -> Iterator[Stub]:
    with Stub() as server:
        yield server


Made = Callable[[str], Provider]


@pytest.fixture
def made(key: str, case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Made]:
    """Makes the Provider for a vendor at an address; impatient, so that silence does not take long."""
    monkeypatch.setattr(adapter, "TIMEOUTS", QUICK)
    providers = []

    def make(url: str) -> Provider:
        settings = case.settings(url)
        if address := settings.pop("sandbox", None):
            sandbox_address.publish(tmp_path, address)
        house = {"data": str(tmp_path), "allowed_private_hosts": ["127.0.0.1"], "per_second": None}
        providers.append(PROVIDERS[key](settings | house, ADDRESSES))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close()


def failure(provider: Provider, case: Case) -> SendError:
    with pytest.raises(SendError) as caught:
        provider.send(case.out)
    shown = str(caught.value) + caught.value.detail + repr(caught.value.__cause__)
    assert SECRET not in shown
    assert base64.b64encode(SECRET.encode()).decode() not in shown
    assert case.out.phone.lstrip("+") not in shown
    return caught.value


def test_a_yes_is_accepted_with_its_id(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = case.answer(*case.yes)
    assert made(vendor.url).send(case.out) == Accepted(case.identity)
    assert len(vendor.requests) == 1


def test_the_vendors_own_refusals_have_their_meaning(made: Made, case: Case, vendor: Stub) -> None:
    provider = made(vendor.url)
    for status, content, outcome in case.refusals:
        vendor.behave = case.answer(status, content)
        assert failure(provider, case).outcome == outcome, content


def test_silence_is_unclear(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.silent
    error = failure(made(vendor.url), case)
    assert (error.outcome, error.cause) == (UNCLEAR, "timeout")


def test_a_reset_after_the_request_is_unclear(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.reset
    assert failure(made(vendor.url), case).outcome == UNCLEAR


def test_a_refused_connection_is_tried_later_and_costs_no_try(made: Made, case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(made(f"http://127.0.0.1:{port}"), case)
    assert (error.outcome, error.cause, error.counts, error.breaker) == (LATER, "connect_failed", False, True)


def test_429_waits_as_long_as_it_says(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.answer(429, b"", Retry_After="7")
    error = failure(made(vendor.url), case)
    assert (error.outcome, error.retry_after, error.slow_channel) == (LATER, 7.0, True)


def test_401_stops_the_channel(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.answer(401)
    assert failure(made(vendor.url), case).outcome == STOP_CHANNEL


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_5xx_without_a_code_is_unclear(made: Made, case: Case, vendor: Stub, status: int) -> None:
    vendor.behave = stub.answer(status, b"<html>oops</html>")
    assert failure(made(vendor.url), case).outcome == UNCLEAR


@pytest.mark.parametrize("body", [b"", b"<html>welcome</html>", b"{", b"[]", b"null", b'"x"', b"\xff\xfe"])
def test_a_yes_that_cannot_be_read_is_unclear(made: Made, case: Case, vendor: Stub, body: bytes) -> None:
    vendor.behave = stub.answer(200, body)
    assert failure(made(vendor.url), case).outcome == UNCLEAR


def test_a_redirect_stops_the_channel_and_is_not_followed(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.answer(302, b"", Location=f"{vendor.url}/elsewhere")
    assert failure(made(vendor.url), case).outcome == STOP_CHANNEL
    assert len(vendor.requests) == 1


def test_an_answer_without_end_is_not_read(made: Made, case: Case, vendor: Stub) -> None:
    vendor.behave = stub.raw(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % (BODY_CAP * 1000), keep=False)
    error = failure(made(vendor.url), case)
    assert (error.outcome, error.cause) == (UNCLEAR, "answer_too_large")


@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_a_vendor_that_repeats_the_request_shows_no_secret(made: Made, case: Case, vendor: Stub, status: int) -> None:
    def echo(sock: socket.socket, request: Request) -> bool:
        said = " ".join([request.path, *request.headers.values(), request.body.decode()])
        return stub.answer(status, {"message": said, "code": 1, "error": case.error(said), "error_code": 6})(
            sock, request
        )

    vendor.behave = echo
    error = failure(made(vendor.url), case)
    assert "anary" not in error.detail and "s3cret" not in error.detail


@pytest.mark.parametrize("key", WITH_CALLBACKS, indirect=True)
def test_a_repeated_callback_says_the_same(made: Made, case: Case) -> None:
    provider = made("http://127.0.0.1:9")
    assert case.callback is not None
    callback = case.callback()
    assert provider.verify(callback)
    facts = list(provider.parse(callback))
    assert [getattr(fact, "status", None) for fact in facts] == ["delivered"]
    assert facts == list(provider.parse(case.callback()))


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.signed], indirect=True)
def test_a_forged_callback_is_refused(made: Made, case: Case) -> None:
    provider = made("http://127.0.0.1:9")
    assert case.callback is not None
    genuine = case.callback()
    longer = genuine.body + (b"&x=1" if b"=" in genuine.body else b" ")
    for forged in (
        RawCallback(genuine.method, genuine.path, genuine.query, genuine.headers, longer),
        RawCallback(genuine.method, genuine.path, genuine.query, {}, genuine.body),
        RawCallback(genuine.method, genuine.path, genuine.query, dict.fromkeys(genuine.headers, ""), genuine.body),
        RawCallback(genuine.method, genuine.path, genuine.query, dict.fromkeys(genuine.headers, "й"), genuine.body),
    ):
        if case.over_body or forged.body == genuine.body:
            assert not provider.verify(forged)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"[[1]]", b"null", b"\xff\xfe", b"a[b]=1&a=2", b'{"results": {"a": 1}}']
)
def test_a_callback_that_says_nothing_is_no_fault(made: Made, body: bytes) -> None:
    provider = made("http://127.0.0.1:9")
    for path in ("", "status", "inbound"):
        assert list(provider.parse(called(path, body, {"ref": "7.x"}))) == []
