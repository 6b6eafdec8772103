"""The presets of the HTTP connector: every file can be read, and says what its vendor wants to hear."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.providers import stub
from tests.providers.stub import Request, Stub
from worker import causes
from worker.providers import PROVIDERS
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_CHANNEL,
    UNCLEAR,
    CallbackAddresses,
    InboundMessage,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.connector import MAPPING, PRESETS, HttpGateway, presets
from worker.providers.connector_rules import cause_line, lines, outcome_rule, status_line

HOOK = "https://molva.example/hooks/key"
ADDRESSES = CallbackAddresses(HOOK, f"{HOOK}/status", f"{HOOK}/inbound")
KEYS = sorted(path.stem for path in PRESETS.glob("*.json"))
TOKEN = "7.0123abcd"
OUT = Outgoing("+79161234567", TOKEN, "Привет")
ACCOUNT = {"username": "me", "password": "p@ss", "token": "t-1", "sender": "Molva"}
DLR = f"{HOOK}/status?ref={TOKEN}"

Made = Callable[[str], Provider]


@pytest.fixture
def vendor() -> Iterator[Stub]:
    with Stub(stub.answer(400)) as server:
        yield server


@pytest.fixture
def made(vendor: Stub) -> Iterator[Made]:
    providers = []

    def make(key: str) -> Provider:
        given = {"base_url": vendor.url, **ACCOUNT, "allowed_private_hosts": ["127.0.0.1"]}
        providers.append(PROVIDERS[key](given, ADDRESSES))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close()


def asked(provider: Provider, vendor: Stub, out: Outgoing = OUT) -> Request:
    vendor.requests.clear()
    with pytest.raises(Exception, match=r".+"):
        provider.send(out)
    return vendor.requests[0]


def pairs(request: Request) -> dict[str, str]:
    text = request.body.decode() or urlsplit(request.path).query
    return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True))


def test_every_file_of_the_folder_is_a_provider() -> None:
    assert {"smsc_ru", "sms_aero", "exolve", "sms_ru", "kannel", "jasmin", "vonage", "infobip"} <= set(KEYS)
    for key in KEYS:
        assert issubclass(PROVIDERS[key], HttpGateway)
        assert PROVIDERS[key].key == key


@pytest.mark.parametrize("key", KEYS)
def test_a_preset_needs_nothing_but_the_account_and_stays_open_to_change(key: str) -> None:
    provider = PROVIDERS[key]
    assert provider.faults({"base_url": "https://sms.example", **ACCOUNT}) == []
    names = [f.name for f in provider.fields]
    assert len(names) == len(set(names))
    assert {"url", *(f.name for f in MAPPING)} <= set(names)
    assert [f.name for f in provider.fields if f.required] == [
        name
        for name in names
        if name in ("base_url", "username", "password", "token") or (name == "sender" and _needs_sender(key))
    ]
    assert all(f.group in ("", "request", "outcome", "report", "reply", "advanced") for f in provider.fields)


def _needs_sender(key: str) -> bool:
    found = json.loads((PRESETS / f"{key}.json").read_text(encoding="utf-8"))
    return any(f["name"] == "sender" and f.get("required", True) for f in found["fields"])


@pytest.mark.parametrize("key", KEYS)
def test_every_cause_that_a_preset_names_has_words_of_its_own(key: str) -> None:
    defaults = {f.name: str(f.default) for f in PROVIDERS[key].fields}
    named = {outcome_rule(line).cause for name in ("rules", "check_rules") for line in lines(defaults[name])}
    named |= {status_line(line).cause for line in lines(defaults["report_map"])}
    named |= {cause_line(line).cause for line in lines(defaults["report_causes"])}
    for cause in named - {"", "sms_refused"}:  # the one shows the vendor's own words
        assert causes.cause(cause).key != "unknown", cause


REQUESTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "kannel": (
        "GET",
        "/cgi-bin/sendsms",
        {
            **{"username": "me", "password": "p@ss", "to": OUT.phone, "from": "Molva", "text": "Привет"},
            **{"charset": "UTF-8", "coding": "2", "dlr-mask": "31"},
            "dlr-url": f"{DLR}&type=%d&answer=%A&time=%T",
        },
    ),
    "jasmin": (
        "POST",
        "/send",
        {
            **{"username": "me", "password": "p@ss", "to": "79161234567", "from": "Molva", "coding": "8"},
            "hex-content": "041f04400438043204350442",
            **{"dlr": "yes", "dlr-level": "3", "dlr-method": "POST", "dlr-url": DLR},
        },
    ),
    "smsc_ru": (
        "POST",
        "/sys/send.php",
        {
            **{"login": "me", "psw": "p@ss", "phones": "79161234567", "mes": "Привет", "sender": "Molva"},
            **{"id": TOKEN, "charset": "utf-8", "fmt": "3"},
        },
    ),
    "sms_ru": (
        "POST",
        "/sms/send",
        {"api_id": "t-1", "to": "79161234567", "msg": "Привет", "from": "Molva", "json": "1"},
    ),
    "vonage": (
        "POST",
        "/sms/json",
        {
            **{"api_key": "me", "api_secret": "p@ss", "from": "Molva", "to": "79161234567", "text": "Привет"},
            **{"type": "unicode", "client-ref": f"{TOKEN}/1", "callback": f"{HOOK}/status"},
        },
    ),
}
BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sms_aero": (
        "/v2/sms/send",
        "Basic bWU6cEBzcw==",
        {"number": "79161234567", "text": "Привет", "sign": "Molva", "callbackUrl": DLR, "callbackFormat": "JSON"},
    ),
    "exolve": (
        "/messaging/v1/SendSMS",
        "Bearer t-1",
        {"number": "Molva", "destination": "79161234567", "text": "Привет"},
    ),
    "infobip": (
        "/sms/3/messages",
        "App t-1",
        {
            "messages": [
                {
                    "sender": "Molva",
                    "destinations": [{"to": "79161234567", "messageId": TOKEN}],
                    "content": {"text": "Привет"},
                    "webhooks": {"delivery": {"url": DLR}},
                }
            ]
        },
    ),
}


def test_every_preset_has_its_request_written_down() -> None:
    assert set(KEYS) == set(REQUESTS) | set(BODIES)


@pytest.mark.parametrize("key", REQUESTS)
def test_the_request_as_the_vendor_wants_it(made: Made, vendor: Stub, key: str) -> None:
    request = asked(made(key), vendor)
    method, path, fields = REQUESTS[key]
    assert (request.method, urlsplit(request.path).path, pairs(request)) == (method, path, fields)


@pytest.mark.parametrize("key", BODIES)
def test_the_json_request_as_the_vendor_wants_it(made: Made, vendor: Stub, key: str) -> None:
    request = asked(made(key), vendor)
    path, identification, body = BODIES[key]
    assert (request.method, request.path, request.headers["authorization"]) == ("POST", path, identification)
    assert request.json == body


def test_latin_texts_are_not_sent_as_ucs2(made: Made, vendor: Stub) -> None:
    plain = Outgoing(OUT.phone, TOKEN, "hello")
    assert pairs(asked(made("kannel"), vendor, plain))["coding"] == "0"
    assert pairs(asked(made("vonage"), vendor, plain))["type"] == "text"
    jasmin = pairs(asked(made("jasmin"), vendor, plain))
    assert (jasmin["coding"], jasmin["content"]) == ("0", "hello")
    assert "hex-content" not in jasmin


def infobip(group: int, number: int) -> dict[str, Any]:
    return {"messages": [{"messageId": TOKEN, "status": {"groupId": group, "id": number}}]}


@pytest.mark.parametrize(
    ("key", "status", "content", "meaning"),
    [
        ("kannel", 403, b"Not routable. Do not try again.", (REFUSED, "sms_unknown_subscriber", False)),
        ("kannel", 403, b"Authorization failed for sendsms", (STOP_CHANNEL, "sms_bad_token", False)),
        ("jasmin", 403, b'Error "User throughput exceeded"', (LATER, "sms_throttled", True)),
        ("jasmin", 403, b'Error "Cannot charge submit_sm, check the log"', (STOP_CHANNEL, "sms_no_balance", False)),
        ("jasmin", 403, b'Error "Authentication failure for username:me"', (STOP_CHANNEL, "sms_bad_token", False)),
        ("infobip", 200, infobip(5, 12), (STOP_CHANNEL, "sms_no_balance", False)),
        ("infobip", 200, infobip(5, 6), (REFUSED, "sms_rejected", False)),
    ],
)
def test_a_refusal_of_one_number_is_told_from_a_refusal_of_the_account(
    made: Made, vendor: Stub, key: str, status: int, content: Any, meaning: tuple[str, str, bool]
) -> None:
    vendor.behave = stub.answer(status, content)
    with pytest.raises(SendError) as caught:
        made(key).send(OUT)
    assert (caught.value.outcome, caught.value.cause, caught.value.slow_channel) == meaning


def called(path: str, body: str = "", **query: str) -> RawCallback:
    return RawCallback("POST" if body else "GET", path, query, {}, body.encode())


INFOBIP = '{{"results": [{{"messageId": "m", "status": {{"groupId": {}, "id": {}}}, "doneAt": "2026-11-05T09:00:00.000+0000"}}]}}'
REPORTS: list[tuple[str, RawCallback, tuple[str, str | None] | None]] = [
    ("kannel", called("status", ref=TOKEN, type="4", answer=""), ("sent", None)),
    ("kannel", called("status", ref=TOKEN, type="8", answer="ACK/"), ("sent", None)),
    ("kannel", called("status", ref=TOKEN, type="1", answer="id:1 stat:DELIVRD"), ("delivered", None)),
    (
        "kannel",
        called("status", ref=TOKEN, type="2", answer="id:1 stat:UNDELIV err:011"),
        ("failed", "sms_undelivered"),
    ),
    ("kannel", called("status", ref=TOKEN, type="34", answer="id:1 stat:EXPIRED"), ("failed", "sms_expired")),
    ("kannel", called("status", ref=TOKEN, type="16", answer="NACK/0x00000058/Throttled"), ("failed", "sms_throttled")),
    ("kannel", called("status", ref=TOKEN, type="16", answer=""), ("failed", "sms_rejected")),
    ("kannel", called("status", ref=TOKEN, type="64"), None),
    ("jasmin", called("status", "id=m&level=1&message_status=ESME_ROK", ref=TOKEN), ("sent", None)),
    ("jasmin", called("status", "id=m&level=2&message_status=DELIVRD&connector=x", ref=TOKEN), ("delivered", None)),
    (
        "jasmin",
        called("status", "id=m&level=1&message_status=ESME_RINVDSTADR", ref=TOKEN),
        ("failed", "sms_unknown_subscriber"),
    ),
    ("jasmin", called("status", "id=m&level=2&message_status=UNKNOWN", ref=TOKEN), None),
    ("smsc_ru", called("status", f"id={TOKEN}&phone=79161234567&status=0"), ("sent", None)),
    ("smsc_ru", called("status", f"id={TOKEN}&phone=79161234567&status=-1"), ("sent", None)),
    ("smsc_ru", called("status", f"id={TOKEN}&phone=79161234567&status=2"), ("read", None)),
    ("smsc_ru", called("status", f"id={TOKEN}&phone=79161234567&status=20&err=6"), ("failed", "sms_absent")),
    ("smsc_ru", called("status", f"id={TOKEN}&phone=79161234567&status=3&err=0"), ("failed", "sms_expired")),
    ("sms_aero", called("status", '{"id": 5, "status": 3}', ref=TOKEN), ("sent", None)),
    ("sms_aero", called("status", "id=5&status=1&extendStatus=delivery", ref=TOKEN), ("delivered", None)),
    ("sms_aero", called("status", '{"id": 5, "status": 6}', ref=TOKEN), ("failed", "sms_rejected")),
    ("sms_ru", called("status", "data[0]=sms_status%0A000-1%0A102%0A1793869200"), ("sent", None)),
    ("sms_ru", called("status", "data[0]=sms_status%0A000-1%0A110%0A1793869200"), ("read", None)),
    ("sms_ru", called("status", "data[0]=sms_status%0A000-1%0A104%0A1793869200"), ("failed", "sms_expired")),
    ("sms_ru", called("status", "data[0]=callcheck_status%0A000-1%0A401"), None),
    ("vonage", called("status", '{"messageId": "m", "status": "buffered"}'), ("sent", None)),
    (
        "vonage",
        called("status", f"messageId=m&status=failed&err-code=5&client-ref={TOKEN}/1"),
        ("failed", "sms_unknown_subscriber"),
    ),
    ("infobip", called("status", INFOBIP.format(1, 26), ref=TOKEN), ("sent", None)),
    ("infobip", called("status", INFOBIP.format(3, 2), ref=TOKEN), ("sent", None)),
    ("infobip", called("status", INFOBIP.format(3, 5), ref=TOKEN), ("delivered", None)),
    ("infobip", called("status", INFOBIP.format(4, 15), ref=TOKEN), ("failed", "sms_expired")),
    ("infobip", called("status", INFOBIP.format(5, 12), ref=TOKEN), ("failed", "sms_no_balance")),
    ("infobip", called("status", INFOBIP.format(5, 6), ref=TOKEN), ("failed", "sms_rejected")),
    ("infobip", called("status", INFOBIP.format(9, 1), ref=TOKEN), None),
]


@pytest.mark.parametrize(("key", "callback", "meaning"), REPORTS)
def test_reports_in_the_vendors_own_words(
    made: Made, key: str, callback: RawCallback, meaning: tuple[str, str | None] | None
) -> None:
    found = [f for f in made(key).parse(callback) if isinstance(f, StatusUpdate)]
    assert [(f.status, f.code) for f in found] == ([meaning] if meaning else [])
    assert all(f.token == TOKEN or f.provider_id for f in found)


def test_several_reports_of_sms_ru_come_in_one_call(made: Made) -> None:
    body = "&".join(f"data[{n}]=sms_status%0A000-{n}%0A103%0A1793869200" for n in range(100))
    found = list(made("sms_ru").parse(called("status", body)))
    assert [f.provider_id for f in found if isinstance(f, StatusUpdate)] == [f"000-{n}" for n in range(100)]
    assert {f.at for f in found} == {1_793_869_200_000}


REPLIES: list[tuple[str, RawCallback]] = [
    ("kannel", called("inbound", id="1", **{"from": "+79161234567"}, to="1234", text="Стоп", time="1793869200")),
    (
        "jasmin",
        called(
            "inbound",
            "id=1&from=79161234567&to=1234&content=%04%21%04%42&coding=%08&binary=0421 0442 043e 043f".replace(" ", ""),
        ),
    ),
    ("smsc_ru", called("inbound", "sms_id=1&phone=79161234567&mes=%D0%A1%D1%82%D0%BE%D0%BF&to=79990001122")),
    ("vonage", called("inbound", '{"messageId": "1", "msisdn": "79161234567", "to": "1234", "text": "Стоп"}')),
    ("infobip", called("inbound", '{"results": [{"messageId": "1", "from": "79161234567", "text": "Стоп"}]}')),
]


@pytest.mark.parametrize(("key", "callback"), REPLIES)
def test_replies_in_the_vendors_own_words(made: Made, key: str, callback: RawCallback) -> None:
    (found,) = made(key).parse(callback)
    assert isinstance(found, InboundMessage)
    assert (found.provider_id, found.phone, found.text) == ("1", "+79161234567", "Стоп")


def test_a_preset_without_known_replies_does_not_promise_them(made: Made) -> None:
    for key in KEYS:
        provider = made(key)
        assert not provider.answerable()  # the sender is a name
        if "inbound" not in provider.supports:
            assert not PROVIDERS[key]({**ACCOUNT, "sender": "1234"}).answerable()


def test_the_addresses_are_ready_to_paste(made: Made) -> None:
    assert made("kannel").paste().inbound == f"{HOOK}/inbound?id=%I&from=%p&to=%P&text=%a&time=%T"
    assert made("smsc_ru").paste().status == f"{HOOK}/status?charset=utf-8"
    assert made("vonage").paste() == ADDRESSES


CHECKS = {
    "kannel": "/cgi-bin/sendsms",
    "jasmin": "/balance",
    "smsc_ru": "/sys/balance.php",
    "sms_aero": "/v2/balance",
    "sms_ru": "/my/balance",
    "vonage": "/account/get-balance",
    "infobip": "/account/1/balance",
}


@pytest.mark.parametrize("key", KEYS)
def test_the_check_is_a_call_that_sends_nothing(made: Made, vendor: Stub, key: str) -> None:
    vendor.behave = stub.answer(400 if key == "kannel" else 200, {"balance": 5, "status_code": 100})
    levels = [finding.level for finding in made(key).check()]
    if key in CHECKS:
        assert levels == ["ok"]
        assert (vendor.requests[0].method, urlsplit(vendor.requests[0].path).path) == ("GET", CHECKS[key])
    else:
        assert (levels, vendor.requests) == (["warning"], [])


def test_a_check_believes_a_refusal_with_status_200(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(200, {"error": "authorise error", "error_code": 2})
    assert [(f.level, f.code) for f in made("smsc_ru").check()] == [("error", "sms_bad_token")]
    vendor.behave = stub.answer(200, {"status": "ERROR", "status_code": 301})
    assert [(f.level, f.code) for f in made("sms_ru").check()] == [("error", "sms_bad_token")]


# --- the example of the README -------------------------------------------------------------------------


def example() -> dict[str, Any]:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text.split("<!-- preset -->")[1].split("```")[1].removeprefix("json"))
    return found


def test_the_readmes_gateway_works_from_its_one_file(tmp_path: Path) -> None:
    (tmp_path / "pigeon.json").write_text(json.dumps(example()), encoding="utf-8")
    (pigeon,) = presets(tmp_path)
    with Stub(stub.answer(201, {"id": "A7"})) as vendor:
        settings = {"base_url": vendor.url, **ACCOUNT, "allowed_private_hosts": ["127.0.0.1"]}
        assert pigeon.faults(settings) == []
        provider = pigeon(settings, ADDRESSES)
        assert provider.send(OUT).provider_id == "A7"
        (request,) = vendor.requests
        provider.close()
    assert (request.path, request.headers["authorization"]) == ("/v1/messages", "Bearer t-1")
    assert request.json == {
        **{"to": OUT.phone, "from": "Molva", "text": "Привет", "reference": TOKEN},
        "callback": DLR,
    }
    body = json.dumps({"id": "A7", "reference": TOKEN, "state": "expired"}).encode()
    (report,) = provider.parse(RawCallback("POST", "status", {}, {"content-type": "application/json"}, body))
    assert isinstance(report, StatusUpdate)
    assert (report.status, report.provider_id, report.token, report.code) == ("failed", "A7", TOKEN, "sms_expired")


@pytest.mark.parametrize(
    ("status", "answer", "outcome", "cause"),
    [
        (400, {"error": "bad_number"}, REFUSED, "sms_unknown_subscriber"),
        (402, {"error": "no_credit"}, STOP_CHANNEL, "sms_no_balance"),
        (503, {"error": "busy"}, LATER, "sms_throttled"),
        (503, {"error": "other"}, UNCLEAR, "http_503"),
        (201, {"no": "id"}, UNCLEAR, "answer_unreadable"),
    ],
)
def test_the_readmes_rules_mean_what_they_say(
    tmp_path: Path, status: int, answer: dict[str, str], outcome: str, cause: str
) -> None:
    (tmp_path / "pigeon.json").write_text(json.dumps(example()), encoding="utf-8")
    (pigeon,) = presets(tmp_path)
    with Stub(stub.answer(status, answer)) as vendor:
        provider = pigeon({"base_url": vendor.url, **ACCOUNT, "allowed_private_hosts": ["127.0.0.1"]}, ADDRESSES)
        with pytest.raises(SendError) as caught:
            provider.send(OUT)
        provider.close()
    assert (caught.value.outcome, caught.value.cause) == (outcome, cause)
