"""The Cloud API as Meta runs it: where a message goes, how files get there, and what a check finds out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.providers import stub
from tests.providers.stub import Stub
from tests.providers.waba import (
    BODY,
    OK,
    OURS,
    PHONE_ID,
    SECRET,
    VERIFY,
    WABA_ID,
    by_path,
    callback,
    close_all,  # noqa: F401  (a fixture)
    cloud,
    error,
    signed,
)
from webapp.words import FINDINGS
from worker import causes
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    UNCLEAR,
    Finding,
    Outgoing,
    RawCallback,
    SendError,
)
from worker.providers.meta import MB, MEDIA_SIZES, request_body

TEMPLATE = {"name": "hello", "language": "ru", "category": "MARKETING", "components": []}
PHONE, PERSON_ID = "+15550100001", "US.13491208655302741918"


@pytest.fixture
def graph() -> Iterator[Stub]:
    with Stub(stub.answer(200, OK)) as server:
        yield server


def failure(given: Any, **settings: Any) -> SendError:
    with Stub(given) as server, pytest.raises(SendError) as caught:
        cloud(server.url, **settings).send(Outgoing(PHONE, "t1", template=TEMPLATE))
    return caught.value


# --- sending -----------------------------------------------------------------------------------------


def test_a_message_goes_to_its_number_with_our_key_and_token(graph: Stub) -> None:
    accepted = cloud(graph.url).send(Outgoing(PHONE, "t1", template=TEMPLATE))
    request = graph.requests[0]
    assert (request.method, request.path) == ("POST", f"/v25.0/{PHONE_ID}/messages")
    assert request.headers["authorization"] == "Bearer EAA"
    assert request.json == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": PHONE,
        "biz_opaque_callback_data": "t1",
        "type": "template",
        "template": {"name": "hello", "language": {"policy": "deterministic", "code": "ru"}},
    }
    assert (accepted.provider_id, accepted.held) == ("wamid.TEST1", False)


def test_a_person_who_hides_the_number_is_written_to_by_their_id() -> None:
    body = request_body(Outgoing(PERSON_ID, "t1", text="Hello"))
    assert "to" not in body
    assert body["recipient"] == PERSON_ID
    assert body["text"] == {"preview_url": False, "body": "Hello"}


@pytest.mark.parametrize(
    ("chosen", "category", "endpoint"),
    [
        (True, "MARKETING", "marketing_messages"),
        ("true", "MARKETING", "marketing_messages"),
        (True, "UTILITY", "messages"),
        (True, "", "messages"),
        (False, "MARKETING", "messages"),
        ("", "MARKETING", "messages"),
    ],
)
def test_only_marketing_takes_the_marketing_endpoint_and_only_where_it_was_chosen(
    graph: Stub, chosen: Any, category: str, endpoint: str
) -> None:
    cloud(graph.url, marketing_endpoint=chosen).send(Outgoing(PHONE, "", template={**TEMPLATE, "category": category}))
    request = graph.requests[0]
    assert request.path == f"/v25.0/{PHONE_ID}/{endpoint}"
    policy = "CLOUD_API_FALLBACK" if endpoint == "marketing_messages" else None
    assert request.json.get("product_policy") == policy
    assert "category" not in request.json["template"]


def test_text_never_takes_the_marketing_endpoint(graph: Stub) -> None:
    cloud(graph.url, marketing_endpoint=True).send(Outgoing(PHONE, "", text="Hello"))
    assert graph.requests[0].path.endswith("/messages")


@pytest.mark.parametrize(
    ("status", "held"), [("accepted", False), ("held_for_quality_assessment", True), ("paused", True), ("new", False)]
)
def test_the_vendor_may_hold_what_it_took(status: str, held: bool) -> None:
    with Stub(stub.answer(200, {"messages": [{"id": "wamid.A", "message_status": status}]})) as server:
        assert cloud(server.url).send(Outgoing(PHONE, "", template=TEMPLATE)).held is held


@pytest.mark.parametrize(
    "body", [{}, {"messages": []}, {"messages": [{}]}, {"messages": [{"id": 5}]}, {"messages": "x"}]
)
def test_success_without_an_id_is_unclear(body: dict[str, Any]) -> None:
    found = failure(stub.answer(200, body))
    assert (found.outcome, found.cause) == (UNCLEAR, "answer_unreadable")


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        (190, 400, STOP_CHANNEL),
        (131026, 400, REFUSED),
        (132015, 400, STOP_BROADCAST),
        (130429, 403, LATER),
        (131000, 500, LATER),
        ("131049", 400, REFUSED),
        (999999, 400, REFUSED),
        (999999, 500, UNCLEAR),
    ],
)
def test_the_code_decides_whatever_the_status_is(code: Any, status: int, outcome: str) -> None:
    found = failure(by_path({"messages": error(code, "the details", status)}))
    assert (found.outcome, found.http_status) == (outcome, status)
    assert found.detail == "the details"


def test_the_vendor_says_when_calls_are_free_again() -> None:
    usage = {"300100": [{"type": "messaging", "call_count": 100, "estimated_time_to_regain_access": 19}]}
    body = json.dumps(error(80007)[1]).encode()
    given = stub.answer(400, body, X_Business_Use_Case_Usage=json.dumps(usage))
    assert (failure(given).slow_channel, failure(given).retry_after) == (True, 19 * 60)
    soon = stub.answer(400, body, X_Business_Use_Case_Usage=json.dumps(usage), Retry_After="5")
    assert failure(soon).retry_after == 5
    for odd in ("", "[]", '{"a": 1}', '{"a": [{"estimated_time_to_regain_access": "x"}]}', "{"):
        assert failure(stub.answer(400, body, X_Business_Use_Case_Usage=odd)).retry_after is None


def test_a_wrong_number_id_is_told_by_the_second_code() -> None:
    found = failure(by_path({"messages": error(100, error_subcode=33)}))
    assert (found.outcome, found.cause) == (STOP_CHANNEL, "33")


@pytest.mark.parametrize("name", ["access_token", "app_secret", "app_secret_previous", "verify_token"])
def test_no_secret_is_shown_even_where_its_end_is_cut_off(name: str) -> None:
    secret = "EAAB1234567secret"
    for words in (f"Malformed access token {secret}", "x" * 490 + secret):
        for body in ({"error": {"code": 190, "message": words}}, {"error": {"code": 190, "error_data": words}}):
            assert "EAAB" not in failure(stub.answer(401, body), **{name: secret}).detail
        reseller = stub.answer(401, {"meta": {"developer_message": words}})
        assert "EAAB" not in failure(reseller, **{name: secret}).detail
    assert "EAAB" not in failure(stub.answer(200, {"hint": secret}), **{name: secret}).detail


def test_details_may_be_bare_words() -> None:
    found = failure(by_path({"messages": (400, {"error": {"code": 131008, "error_data": "a parameter is missing"}})}))
    assert found.detail == "a parameter is missing"


# --- files -------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_once_and_known_by_its_id(graph: Stub) -> None:
    graph.behave = by_path({"media": {"id": "4490709327384033"}})
    data = bytes(range(256)) * 4096
    assert cloud(graph.url).upload(data, "image/png", 'a "b".png') == "4490709327384033"
    request = graph.requests[0]
    assert (request.method, request.path) == ("POST", f"/v25.0/{PHONE_ID}/media")
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    head, *parts, tail = request.body.split(b"--" + boundary)
    assert (head, tail) == (b"", b"--\r\n")
    values = [part.strip(b"\r\n").partition(b"\r\n\r\n") for part in parts[:2]]
    assert [value for _, _, value in values] == [b"whatsapp", b"image/png"]
    described, _, content = parts[2][2:].partition(b"\r\n\r\n")
    assert b'name="file"; filename="a b.png"\r\nContent-Type: image/png' in described
    assert content == data + b"\r\n"


@pytest.mark.parametrize(
    ("data", "mime", "cause"),
    [
        (b"x", "image/webp", "media_type"),
        (b"x", "text/html", "media_type"),
        (b"", "image/png", "media_empty"),
        (b"x" * (5 * MB + 1), "image/jpeg", "media_too_large"),
        (b"x" * (16 * MB + 1), "video/mp4", "media_too_large"),
    ],
)
def test_a_file_that_cannot_be_shown_never_leaves(graph: Stub, data: bytes, mime: str, cause: str) -> None:
    with pytest.raises(SendError) as caught:
        cloud(graph.url).upload(data, mime, "a")
    assert (caught.value.outcome, caught.value.cause) == (REFUSED, cause)
    assert graph.requests == []


def test_the_largest_sizes_are_those_of_the_vendor() -> None:
    assert {mime: size // MB for mime, size in MEDIA_SIZES.items()} == {
        "image/jpeg": 5,
        "image/png": 5,
        "video/mp4": 16,
        "video/3gpp": 16,
        "application/pdf": 100,
    }


def test_a_refused_upload_says_why(graph: Stub) -> None:
    graph.behave = by_path({"media": error(131053, "not a picture")})
    with pytest.raises(SendError) as caught:
        cloud(graph.url).upload(b"x", "image/png", "a.png")
    assert (caught.value.cause, caught.value.detail) == ("131053", "not a picture")


# --- templates ---------------------------------------------------------------------------------------


def listed(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "language": "ru", "status": "APPROVED", "category": "UTILITY", "components": [BODY], **more}


def test_all_pages_of_templates_are_read_and_no_foreign_address_gets_the_key(graph: Stub) -> None:
    elsewhere = "https://elsewhere.example/v25.0/next?after=c2"
    graph.script = [
        stub.answer(200, {"data": [listed("a")], "paging": {"cursors": {"after": "c1"}, "next": f"{graph.url}/x"}}),
        stub.answer(200, {"data": [listed("b")], "paging": {"next": elsewhere}}),
        stub.answer(200, {"data": [listed("c")], "paging": {"cursors": {"after": "c3"}}}),
    ]
    assert [t.name for t in cloud(graph.url).templates()] == ["a", "b", "c"]
    queries = [parse_qs(urlsplit(request.path).query) for request in graph.requests]
    assert [query.get("after") for query in queries] == [None, ["c1"], ["c2"]]
    assert {urlsplit(request.path).path for request in graph.requests} == {f"/v25.0/{WABA_ID}/message_templates"}


def test_a_list_that_never_ends_is_left(graph: Stub) -> None:
    graph.behave = stub.answer(200, {"data": [listed("a")], "paging": {"cursors": {"after": "c"}, "next": "x"}})
    assert len(cloud(graph.url).templates()) == 2


def test_every_state_and_category_comes_through_and_the_rest_is_tolerated(graph: Stub) -> None:
    states = ["APPROVED", "PENDING", "REJECTED", "PAUSED", "DISABLED", "IN_APPEAL", "ARCHIVED", "BRAND_NEW"]
    data: list[Any] = [listed(f"t{n}", status=state) for n, state in enumerate(states)]
    data += [{"name": "no language"}, "nothing", listed("quality", quality_score={"score": "GREEN"})]
    graph.behave = stub.answer(200, {"data": data})
    found = cloud(graph.url).templates()
    assert [t.status for t in found[:-1]] == states
    assert found[-1].components == [BODY]


def test_old_templates_do_not_say_how_their_variables_are_named(graph: Stub) -> None:
    named = [{"type": "BODY", "text": "Hi {{first_name}}"}]
    data = [listed("a"), listed("b", components=named), listed("c", parameter_format="named")]
    graph.behave = stub.answer(200, {"data": data})
    assert [t.parameter_format for t in cloud(graph.url).templates()] == ["POSITIONAL", "NAMED", "NAMED"]


# --- check connection --------------------------------------------------------------------------------

NUMBER: dict[str, Any] = {
    "id": PHONE_ID,
    "display_phone_number": "+1 555-010-0900",
    "verified_name": "Shop",
    "name_status": "APPROVED",
    "status": "CONNECTED",
    "quality_rating": "GREEN",
    "platform_type": "CLOUD_API",
    "account_mode": "LIVE",
    "is_on_biz_app": False,
    "health_status": {"can_send_message": "AVAILABLE", "entities": [{"entity_type": "WABA"}]},
    "webhook_configuration": {"application": "https://app.example", "phone_number": OURS},
    "whatsapp_business_manager_messaging_limit": "TIER_2K",
}
ACCOUNT: dict[str, Any] = {
    "id": WABA_ID,
    "name": "Shop & Co",
    "currency": "EUR",
    "account_review_status": "APPROVED",
    "business_verification_status": "verified",
    "status": "ACTIVE",
    "disable_marketing_messages_on_cloud_api": False,
    "marketing_messages_onboarding_status": "ELIGIBLE",
}
WELL: dict[str, Any] = {
    PHONE_ID: NUMBER,
    WABA_ID: ACCOUNT,
    "phone_numbers": {"data": [{"id": "7"}, {"id": PHONE_ID}]},
    "subscribed_apps": {"data": [{"whatsapp_business_api_data": {"id": "1"}}]},
    "message_templates": {"data": [{"name": "hello"}]},
}


def checked(answers: dict[str, Any], **settings: Any) -> list[Finding]:
    with Stub(by_path(answers)) as server:
        found = cloud(server.url, **settings).check()
        assert {request.method for request in server.requests} == {"GET"}
    assert [f.code for f in found if f.code not in FINDINGS and causes.cause(f.code).key == "unknown"] == []
    return found


def troubles(answers: dict[str, Any], **settings: Any) -> list[tuple[str, str, str]]:
    return [(f.level, f.code, f.detail) for f in checked(answers, **settings) if f.level != "ok"]


def test_a_channel_that_is_well_shows_number_limit_and_account() -> None:
    assert checked(WELL) == [
        Finding("ok", "number_found", "+1 555-010-0900 · Shop"),
        Finding("ok", "daily_limit", "2000"),
        Finding("ok", "account_found", "Shop & Co · EUR"),
    ]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"status": "BANNED"}, ("error", "number_not_connected", "BANNED")),
        ({"platform_type": "NOT_APPLICABLE"}, ("error", "number_not_cloud", "NOT_APPLICABLE")),
        ({"name_status": "DECLINED"}, ("warning", "number_name_not_approved", "DECLINED")),
        ({"quality_rating": "RED"}, ("warning", "number_quality", "RED")),
        ({"account_mode": "SANDBOX"}, ("warning", "number_for_tests", "")),
        ({"is_on_biz_app": True}, ("warning", "number_in_app", "")),
        (
            {"webhook_configuration": {"application": "https://a.example"}},
            ("warning", "webhook_elsewhere", "https://a.example"),
        ),
        ({"webhook_configuration": {}}, ("error", "webhook_missing", OURS)),
    ],
)
def test_what_is_wrong_with_the_number_is_found(changes: dict[str, Any], found: tuple[str, str, str]) -> None:
    assert troubles({**WELL, PHONE_ID: NUMBER | changes}) == [found]


@pytest.mark.parametrize(
    ("changes", "settings", "found"),
    [
        ({"account_review_status": "REJECTED"}, {}, ("error", "account_not_approved", "REJECTED")),
        ({"business_verification_status": "pending"}, {}, ("warning", "account_not_verified", "pending")),
        ({"status": "DISABLED"}, {}, ("warning", "account_not_active", "DISABLED")),
        ({"disable_marketing_messages_on_cloud_api": True}, {}, ("error", "marketing_elsewhere", "")),
        ({}, {"marketing_endpoint": True}, ("error", "marketing_not_ready", "ELIGIBLE")),
    ],
)
def test_what_is_wrong_with_the_account_is_found(
    changes: dict[str, Any], settings: dict[str, Any], found: tuple[str, str, str]
) -> None:
    assert troubles({**WELL, WABA_ID: ACCOUNT | changes}, **settings) == [found]


def test_the_marketing_endpoint_is_ready_when_its_terms_are_accepted() -> None:
    ready = {"marketing_messages_onboarding_status": "ONBOARDED", "disable_marketing_messages_on_cloud_api": True}
    assert troubles({**WELL, WABA_ID: ACCOUNT | ready}, marketing_endpoint=True) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("phone_numbers", ("error", "number_not_in_account", "")),
        ("subscribed_apps", ("error", "webhook_not_subscribed", "")),
        ("message_templates", ("warning", "no_templates", "")),
    ],
)
def test_an_empty_list_is_found(name: str, found: tuple[str, str, str]) -> None:
    assert troubles({**WELL, name: {"data": []}}) == [found]


def test_the_vendors_own_words_about_its_health_are_passed_on() -> None:
    errors = [{"error_code": 141006, "error_description": "No payment method.", "possible_solution": "Add one."}]
    health = {
        "can_send_message": "BLOCKED",
        "entities": [
            {"entity_type": "WABA", "can_send_message": "BLOCKED", "errors": errors},
            {"entity_type": "BUSINESS", "can_send_message": "LIMITED"},
            {"entity_type": "APP", "can_send_message": "AVAILABLE"},
        ],
    }
    assert troubles({**WELL, PHONE_ID: NUMBER | {"health_status": health}}) == [
        ("error", "health", "WABA No payment method. Add one."),
        ("warning", "health", "BUSINESS"),
    ]


def test_a_field_that_the_version_does_not_know_is_done_without() -> None:
    with Stub() as server:
        server.script = [
            by_path({PHONE_ID: error(100, "nonexisting field")}),
            by_path({PHONE_ID: {"id": PHONE_ID, "display_phone_number": "+1 555-010-0900"}}),
        ]
        server.behave = by_path(WELL)
        found = cloud(server.url).check()
        assert "fields=" in server.requests[0].path
        assert "fields=" not in server.requests[1].path
    assert found[0] == Finding("ok", "number_found", "+1 555-010-0900")
    assert found[1].code == "account_found"


def test_a_refused_key_ends_the_check_with_its_cause() -> None:
    assert checked({**WELL, PHONE_ID: error(190, "expired", 401)}) == [Finding("error", "190", "expired")]
    assert checked({**WELL, WABA_ID: error(200, "no permission", 403)})[-1] == Finding("error", "200", "no permission")


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ("TIER_50", 50),
        ("TIER_250", 250),
        ("TIER_2K", 2_000),
        ("TIER_100K", 100_000),
        (2000, 2_000),
        ("TIER_UNLIMITED", -1),
        (-1, -1),
        ("SOMETHING", None),
        (None, None),
    ],
)
def test_the_daily_limit_is_read_from_its_tier(given: Any, limit: int | None) -> None:
    with Stub(by_path({PHONE_ID: {"whatsapp_business_manager_messaging_limit": given}})) as server:
        assert cloud(server.url).limit() == limit


def test_a_version_without_the_limit_knows_none() -> None:
    with Stub(by_path({PHONE_ID: error(100)})) as server:
        assert cloud(server.url).limit() is None
    with Stub(by_path({PHONE_ID: error(190)})) as server, pytest.raises(SendError):
        cloud(server.url).limit()


# --- callbacks ---------------------------------------------------------------------------------------


def test_registering_leads_the_callbacks_of_the_account_to_us(graph: Stub) -> None:
    graph.behave = by_path({"subscribed_apps": {"success": True}})
    cloud(graph.url).register()
    request = graph.requests[0]
    assert (request.method, request.path) == ("POST", f"/v25.0/{WABA_ID}/subscribed_apps")
    assert request.json == {"override_callback_uri": OURS, "verify_token": VERIFY}


def test_the_handshake_answers_only_our_token() -> None:
    def asked(token: str, **settings: Any) -> str | None:
        query = {"hub.mode": "subscribe", "hub.challenge": "12345", "hub.verify_token": token}
        return cloud(**settings).handshake(RawCallback("GET", "", query, {}, b""))

    assert asked(VERIFY) == "12345"
    assert asked("another") is None
    assert asked("", verify_token="") is None


def test_only_our_signature_over_the_very_bytes_is_believed() -> None:
    body = json.dumps({"text": "\u043f\u0440\u0438\u0432\u0435\u0442", "link": "a/b"}).replace("/", "\\/").encode()
    assert cloud().verify(signed(body))
    assert not cloud().verify(signed(body, "another secret"))
    assert not cloud().verify(callback(body))
    assert not cloud().verify(callback(body, x_hub_signature_256="sha256=" + "0" * 64))
    assert not cloud().verify(callback(json.dumps(json.loads(body)).encode(), **signed(body).headers))
    assert not cloud(app_secret="").verify(signed(body, ""))
    assert cloud(app_secret="new", app_secret_previous=SECRET).verify(signed(body))


def test_channels_of_one_account_name_the_same_account_and_can_be_answered() -> None:
    assert cloud().account() == WABA_ID
    assert cloud().answerable()
