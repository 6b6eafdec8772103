"""Twilio's wire: what is asked, what its codes mean, who may call back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from tests.providers import stub
from tests.providers.stub import Stub
from worker import causes
from worker.providers.base import (
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    Attached,
    CallbackAddresses,
    InboundMessage,
    Outgoing,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.twilio import ERRORS, STATUSES, Twilio, signature

HOOK = "https://molva.example/hooks/key"
ADDRESSES = CallbackAddresses(HOOK, f"{HOOK}/status", f"{HOOK}/inbound")
OUT = Outgoing("+79161234567", "7.0123abcd", "Привет & пока")
ACCOUNT = {"account_sid": "AC" + "0" * 32, "auth_token": "token-1", "from": "+15005550006"}
SHARED = Path(os.environ.get("MOLVA_SHARED") or Path(__file__).parents[3] / "shared")
SPECIFICATION = SHARED / "data" / "twilio_api_v2010_messages.json"
MESSAGES = "/2010-04-01/Accounts/{AccountSid}/Messages.json"

Made = Callable[..., Twilio]


@pytest.fixture
def vendor() -> Iterator[Stub]:
    with Stub(stub.answer(201, {"sid": "SM1", "status": "queued", "error_code": None})) as server:
        yield server


@pytest.fixture
def made(vendor: Stub) -> Iterator[Made]:
    providers: list[Twilio] = []

    def make(addresses: CallbackAddresses = ADDRESSES, **settings: Any) -> Twilio:
        given = {**ACCOUNT, "base_url": vendor.url, "allowed_private_hosts": ["127.0.0.1"], **settings}
        providers.append(Twilio(given, addresses))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close()


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    if not SPECIFICATION.exists():
        pytest.skip(f"{SPECIFICATION.name} is not beside the project")
    found: dict[str, Any] = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    return found


def form(request: stub.Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), strict_parsing=True))


def refusal(provider: Twilio) -> SendError:
    with pytest.raises(SendError) as caught:
        provider.send(OUT)
    return caught.value


def test_a_message_is_a_form_under_the_account(made: Made, vendor: Stub) -> None:
    assert made().send(OUT).provider_id == "SM1"
    request = vendor.requests[0]
    assert (request.method, request.path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT['account_sid']}/Messages.json")
    pair = base64.b64encode(f"{ACCOUNT['account_sid']}:token-1".encode()).decode()
    assert request.headers["authorization"] == f"Basic {pair}"
    assert form(request) == {
        "To": OUT.phone,
        "From": ACCOUNT["from"],
        "Body": OUT.text,
        "StatusCallback": f"{HOOK}/status?ref={OUT.token}",
    }


def test_a_messaging_service_takes_the_place_of_the_sender(made: Made, vendor: Stub) -> None:
    made(messaging_service_sid="MG1").send(OUT)
    sent = form(vendor.requests[0])
    assert sent["MessagingServiceSid"] == "MG1" and "From" not in sent


def test_without_a_public_address_no_report_is_asked_for(made: Made, vendor: Stub) -> None:
    made(CallbackAddresses("/hooks/key", "/hooks/key/status", "/hooks/key/inbound")).send(OUT)
    assert "StatusCallback" not in form(vendor.requests[0])


def test_the_fields_of_a_request_are_those_of_the_specification(
    made: Made, vendor: Stub, specification: dict[str, Any]
) -> None:
    made().send(OUT)
    made(messaging_service_sid="MG1").send(OUT)
    body = specification["paths"][MESSAGES]["post"]["requestBody"]["content"]
    known = body["application/x-www-form-urlencoded"]["schema"]["properties"]
    for request in vendor.requests:
        assert set(form(request)) <= set(known)


def test_every_status_of_the_specification_has_a_meaning(specification: dict[str, Any]) -> None:
    listed = set(specification["components"]["schemas"]["message_enum_status"]["enum"])
    assert listed - set(STATUSES) == {"receiving", "received"}


def test_the_check_asks_for_the_balance(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(200, {"account_sid": "AC1", "balance": "4.2", "currency": "USD"})
    provider = made()
    assert [(f.level, f.detail) for f in provider.check()] == [("ok", "AC1 · 4.2 · USD")]
    provider.ping()
    assert {(r.method, r.path.rpartition("/")[2]) for r in vendor.requests} == {("GET", "Balance.json")}
    vendor.behave = stub.answer(401, {"code": 20003, "message": "Authenticate", "status": 401})
    assert [(f.level, f.code) for f in provider.check()] == [("error", "20003")]


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_of_the_table_has_a_cause_in_words(code: str) -> None:
    assert causes.cause(code).key != "unknown"


@pytest.mark.parametrize(
    ("status", "code", "outcome", "about_message"),
    [
        (400, 21211, REFUSED, False),
        (400, 21606, STOP_BROADCAST, False),
        (400, 21617, REFUSED, True),
        (400, 63999, REFUSED, True),
        (403, 63999, STOP_CHANNEL, False),
        (401, 20003, STOP_CHANNEL, False),
    ],
)
def test_the_code_decides_before_the_status(
    made: Made, vendor: Stub, status: int, code: int, outcome: str, about_message: bool
) -> None:
    vendor.behave = stub.answer(status, {"code": code, "message": "to +79161234567 token-1"})
    error = refusal(made())
    assert (error.outcome, error.about_message, error.detail) == (outcome, about_message, "to …67 •••")


def test_who_said_stop_to_twilio_is_on_our_list_too(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(400, {"code": 21610, "message": "unsubscribed"})
    assert refusal(made()).cause in causes.OPTS_OUT


def test_an_answer_without_an_id_is_unclear(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(201, {"status": "queued"})
    assert refusal(made()).outcome == "unclear"


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({"from": "+15005550006"}, True),
        ({"from": "Molva"}, False),
        ({"from": "", "messaging_service_sid": "MG1"}, True),
    ],
)
def test_nobody_can_answer_a_name(made: Made, settings: dict[str, str], possible: bool) -> None:
    assert made(**settings).answerable() is possible


def test_a_sender_or_a_service_is_needed() -> None:
    assert Twilio.faults(ACCOUNT) == []
    assert Twilio.faults({"account_sid": "AC1", "auth_token": "x"}) == [("from", "")]
    assert Twilio.faults({**ACCOUNT, "base_url": "api.twilio.com"}) == [("base_url", "api.twilio.com")]


# --- callbacks ------------------------------------------------------------------------------------------


def called(
    path: str, facts: dict[str, str], query: dict[str, str], token: str = "token-1", url: str = ""
) -> RawCallback:
    """A callback as Twilio makes it, signed over `url` or the address that it was given."""
    address = url or f"{HOOK}/{path}".rstrip("/") + (f"?{urlencode(query)}" if query else "")
    said = address + "".join(name + facts[name] for name in sorted(facts))
    signed = base64.b64encode(hmac.new(token.encode(), said.encode(), hashlib.sha1).digest()).decode()
    return RawCallback("POST", path, query, {"x-twilio-signature": signed}, urlencode(facts).encode())


REPORT = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+79161234567", "AccountSid": "AC1", "Empty": ""}


def test_the_vendors_own_example_of_a_signature() -> None:
    """Published with the documentation of the vendor's request validation."""
    facts = {
        **{"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309"},
        "To": "+18005551212",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert signature("12345", url, list(facts.items())) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_a_genuine_callback_is_believed_and_a_changed_one_is_not(made: Made) -> None:
    provider = made()
    query = {"ref": OUT.token}
    genuine = called("status", REPORT, query)
    assert provider.verify(genuine)
    assert provider.verify(called("inbound", {"MessageSid": "SM2", "Body": "Привет, да"}, {}))
    for forged in (
        called("status", REPORT, query, token="guess"),
        called("status", REPORT, query, url=f"http://molva.example/hooks/key/status?ref={OUT.token}"),
        RawCallback("POST", "status", {"ref": "8.other"}, genuine.headers, genuine.body),
        RawCallback("POST", "inbound", query, genuine.headers, genuine.body),
        RawCallback("POST", "status", query, genuine.headers, genuine.body.replace(b"delivered", b"failed")),
    ):
        assert not provider.verify(forged)
    assert not made(auth_token="").verify(called("status", REPORT, query, token=""))


@pytest.mark.parametrize(("said", "status"), STATUSES.items())
def test_statuses_are_translated(made: Made, said: str, status: str) -> None:
    facts = {"MessageSid": "SM1", "MessageStatus": said, "ErrorCode": "30003" if status == "failed" else ""}
    (found,) = made().parse(called("status", facts, {"ref": OUT.token}))
    assert isinstance(found, StatusUpdate)
    assert (found.status, found.provider_id, found.token) == (status, "SM1", OUT.token)
    assert found.code == ("30003" if status == "failed" else None)


def test_an_unknown_status_is_passed_over(made: Made) -> None:
    assert list(made().parse(called("status", {"MessageSid": "SM1", "MessageStatus": "dreaming"}, {}))) == []


def test_a_reply_is_a_message_of_its_person(made: Made) -> None:
    facts = {"MessageSid": "SM9", "SmsStatus": "received", "From": "+79161234567", "To": "+1500", "Body": "СТОП"}
    assert list(made().parse(called("inbound", facts, {}))) == [InboundMessage("SM9", "+79161234567", 0, text="СТОП")]


FILE = "Messages/MM1/Media/ME1"


def test_files_of_a_message_are_known_by_the_end_of_their_path(made: Made) -> None:
    base = "https://api.twilio.com/2010-04-01/Accounts/AC1"
    facts = {"MessageSid": "MM1", "SmsStatus": "received", "From": "+79161234567", "Body": "", "NumMedia": "3"}
    facts |= {"MediaUrl0": f"{base}/{FILE}", "MediaContentType0": "image/jpeg", "MediaUrl1": "https://evil.example/x"}
    facts |= {"MediaUrl2": f"{base}/{FILE}/../../x"}
    (found,) = made().parse(called("inbound", facts, {}))
    assert isinstance(found, InboundMessage)
    assert (found.kind, found.attached) == ("image", (Attached(FILE, "image/jpeg"),))


def test_a_file_lies_elsewhere_and_our_key_stays_here(made: Made, vendor: Stub) -> None:
    vendor.script = [stub.answer(307, Location=f"{vendor.url}/signed?s=1"), stub.answer(200, b"picture")]
    assert made().fetch(FILE) == b"picture"
    first, second = vendor.requests
    assert first.path == f"/2010-04-01/Accounts/{ACCOUNT['account_sid']}/{FILE}"
    assert "authorization" in first.headers
    assert second.path == "/signed?s=1" and "authorization" not in second.headers


def test_a_file_that_is_gone_says_so(made: Made, vendor: Stub) -> None:
    vendor.script = [stub.answer(404, {"code": 20404, "message": "not found"})]
    with pytest.raises(SendError) as caught:
        made().fetch(FILE)
    assert caught.value.outcome == REFUSED


@pytest.mark.parametrize(
    ("code", "beyond"), [("30007", REFUSED), ("21606", STOP_BROADCAST), ("20003", STOP_CHANNEL), ("1", REFUSED)]
)
def test_what_a_code_in_a_report_means_beyond_its_message(made: Made, code: str, beyond: str) -> None:
    assert made().outcome(code) == beyond
