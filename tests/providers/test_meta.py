"""What the Cloud API's webhooks and error codes mean, in payloads of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.providers import stub
from tests.providers.waba import PHONE_ID, WABA_ID, callback, cloud, shared
from worker import causes, clock
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    Attached,
    InboundMessage,
    Notice,
    SendError,
    StatusUpdate,
)
from worker.providers.meta_errors import ERRORS, meaning
from worker.providers.rules import UNKNOWN

AT, MS = "1794000000", 1_794_000_000_000
PERSON, ANN = "15550100007", "+15550100007"
BSUID = "US.13491208655302741918"


def envelope(*changes: tuple[str, dict[str, Any]], waba: str = WABA_ID) -> bytes:
    found = [{"field": field, "value": value} for field, value in changes]
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": waba, "changes": found}]}).encode()


def messages(*items: Any, key: str = "messages", number: str = PHONE_ID, **more: Any) -> bytes:
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number}, key: list(items), **more}
    return envelope(("messages", value))


def read(body: bytes) -> list[StatusUpdate | InboundMessage]:
    return list(cloud().parse(callback(body)))


def inbound(**part: Any) -> list[InboundMessage]:
    item = {"id": "wamid.in1", "from": PERSON, "timestamp": AT, "type": next(iter(part), "text"), **part}
    contact = {"wa_id": PERSON, "profile": {"name": "Ann"}}
    return [found for found in read(messages(item, contacts=[contact])) if isinstance(found, InboundMessage)]


def status(value: str, **more: Any) -> dict[str, Any]:
    return {"id": "wamid.out1", "status": value, "timestamp": AT, "recipient_id": PERSON, **more}


# --- reports -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [("sent", "sent"), ("delivered", "delivered"), ("read", "read"), ("played", "read"), ("failed", "failed")],
)
def test_every_status_is_a_report(said: str, meant: str) -> None:
    assert read(messages(status(said), key="statuses")) == [
        StatusUpdate(meant, MS, "wamid.out1", phone=ANN),
    ]


def test_a_report_brings_our_token_back() -> None:
    body = messages(status("sent", biz_opaque_callback_data="t1", pricing={"billable": True}), key="statuses")
    assert read(body) == [StatusUpdate("sent", MS, "wamid.out1", token="t1", phone=ANN)]


@pytest.mark.parametrize("code", [131026, "131026"])
def test_a_failure_says_its_code_whether_number_or_text(code: Any) -> None:
    errors = [{"code": code, "title": "Undeliverable", "error_data": {"details": "not on WhatsApp"}}]
    assert read(messages(status("failed", errors=errors), key="statuses")) == [
        StatusUpdate("failed", MS, "wamid.out1", code="131026", detail="not on WhatsApp", phone=ANN)
    ]


@pytest.mark.parametrize("timestamp", [AT, int(AT), AT + "000", int(AT) * 1000])
def test_times_come_in_seconds_or_milliseconds(timestamp: Any) -> None:
    (found,) = read(messages(status("read", timestamp=timestamp), key="statuses"))
    assert found.at == MS


def test_a_report_about_a_hidden_number_names_the_person() -> None:
    item = {"id": "wamid.out1", "status": "read", "timestamp": AT, "recipient_user_id": BSUID}
    assert read(messages(item, key="statuses")) == [StatusUpdate("read", MS, "wamid.out1", phone=BSUID)]


@pytest.mark.parametrize(
    "item",
    [
        status("deleted"),
        status("something_new"),
        status("read", recipient_type="group", recipient_id="group123"),
        {"status": "read"},
        {**status("read"), "id": ""},
        "nothing",
        None,
        7,
    ],
)
def test_what_is_no_report_never_loses_its_neighbours(item: Any) -> None:
    body = messages(status("sent"), item, status("delivered"), key="statuses")
    assert [found.status for found in read(body)] == ["sent", "delivered"]


def test_a_batch_is_read_in_its_order_and_repeats_stay_repeats() -> None:
    value = {"metadata": {"phone_number_id": PHONE_ID}, "statuses": [status("read"), status("sent")]}
    entry = {"id": WABA_ID, "changes": [{"field": "messages", "value": value}] * 2}
    body = json.dumps({"entry": [entry, "junk", entry], "unknown": {"field": 1}}).encode()
    assert [found.status for found in read(body)] == ["read", "sent"] * 4


def test_what_is_meant_for_another_number_is_passed_over() -> None:
    assert read(messages(status("read"), key="statuses", number="999")) == []


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"entry": 5}', b'{"entry": [{"changes": {}}]}']
)
def test_an_unreadable_body_says_nothing(body: bytes) -> None:
    assert read(body) == []
    assert list(cloud().notices(callback(body + b'"account_update"'))) == []


# --- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind", "text", "payload"),
    [
        ({"text": {"body": "Здравствуйте 👋"}}, "text", "Здравствуйте 👋", None),
        ({"image": {"id": "1", "caption": "look"}}, "image", "look", None),
        ({"video": {"id": "1"}}, "video", "", None),
        ({"document": {"id": "1", "filename": "a.pdf", "caption": "see"}}, "document", "see", None),
        ({"audio": {"id": "1", "voice": True}}, "audio", "", None),
        ({"sticker": {"id": "1"}}, "sticker", "", None),
        ({"location": {"latitude": 1, "longitude": 2, "name": "Shop"}}, "location", "Shop", None),
        ({"contacts": [{"name": {"formatted_name": "Bob"}}]}, "contacts", "", None),
        ({"order": {"catalog_id": "1", "text": "two please"}}, "order", "two please", None),
        ({"reaction": {"message_id": "wamid.out1", "emoji": "👍"}}, "reaction", "👍", None),
        ({"reaction": {"message_id": "wamid.out1"}}, "reaction", "", None),
        ({"button": {"text": "Stop", "payload": "STOP"}}, "button", "Stop", "STOP"),
        ({"button": {"text": "More"}}, "button", "More", None),
        (
            {"interactive": {"type": "button_reply", "button_reply": {"id": "b1", "title": "Yes"}}},
            "interactive",
            "Yes",
            "b1",
        ),
        (
            {"interactive": {"type": "list_reply", "list_reply": {"id": "l1", "title": "Red", "description": "d"}}},
            "interactive",
            "Red",
            "l1",
        ),
        (
            {"interactive": {"type": "nfm_reply", "nfm_reply": {"body": "Sent", "response_json": "{}"}}},
            "interactive",
            "Sent",
            None,
        ),
        ({"unsupported": {"type": "poll"}}, "unsupported", "", None),
        ({"hologram": {"body": "what comes next"}}, "unsupported", "", None),
    ],
)
def test_every_kind_of_message_is_read(part: dict[str, Any], kind: str, text: str, payload: str | None) -> None:
    plain = [replace(found, attached=(), context=None) for found in inbound(**part)]
    assert plain == [InboundMessage("wamid.in1", ANN, MS, kind=kind, text=text, name="Ann", payload=payload)]


def test_a_file_comes_with_the_facts_by_which_it_can_be_had() -> None:
    given = {"id": "900", "mime_type": "application/pdf", "filename": "счёт.pdf", "sha256": "x", "caption": "see"}
    (found,) = inbound(document=given)
    assert found.attached == (Attached("900", "application/pdf", "счёт.pdf"),)
    for part in ({"image": {"caption": "lost"}}, {"image": {"id": 5}}, {"text": {"id": "900"}}):
        assert inbound(**part)[0].attached == ()


def test_a_reaction_belongs_to_the_message_it_is_about() -> None:
    (found,) = inbound(reaction={"message_id": "wamid.out1", "emoji": "👍"})
    assert found.context == "wamid.out1"


# --- files -------------------------------------------------------------------------------------------


def test_a_file_is_asked_for_where_the_vendor_says_it_lies() -> None:
    with stub.Stub() as server:
        server.script = [
            stub.answer(200, {"url": f"{server.url}/file/900?x=1", "file_size": 4, "mime_type": "image/png"}),
            stub.answer(200, b"\x89PNG"),
        ]
        assert cloud(server.url).fetch("900/../me") == b"\x89PNG"
    facts, file = server.requests
    assert facts.path == "/v25.0/900%2F..%2Fme"
    assert (file.path, file.headers["authorization"]) == ("/file/900?x=1", "Bearer EAA")


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/f", "http://lookaside.fbsbx.com/f", "https://xfbsbx.com/f", "https://fbsbx.com@e.x/", ""],
)
def test_our_key_goes_to_nobody_but_the_vendor(url: str) -> None:
    with stub.Stub(stub.answer(200, {"url": url})) as server, pytest.raises(SendError) as caught:
        cloud(server.url).fetch("900")
    assert (caught.value.outcome, caught.value.cause) == (REFUSED, "address_forbidden")
    assert cloud().file_address("https://lookaside.fbsbx.com/f?mid=1") == "https://lookaside.fbsbx.com/f?mid=1"


def test_a_file_that_is_too_large_or_gone_is_refused() -> None:
    with stub.Stub() as server:
        server.script = [stub.answer(200, {"url": f"{server.url}/f", "file_size": "26214401"})]
        with pytest.raises(SendError) as caught:
            cloud(server.url).fetch("900")
        assert caught.value.cause == "media_too_large"
        head = b"HTTP/1.1 200 X\r\nContent-Length: 26214401\r\n\r\n"
        server.script = [stub.answer(200, {"url": f"{server.url}/f"}), stub.raw(head, keep=False)]
        with pytest.raises(SendError) as caught:
            cloud(server.url).fetch("900")
        assert caught.value.cause == "answer_too_large"
        server.script = [stub.answer(400, {"error": {"code": 131052, "message": "gone"}})]
        with pytest.raises(SendError) as caught:
            cloud(server.url).fetch("900")
        assert (caught.value.outcome, caught.value.cause) == (REFUSED, "131052")


def test_a_file_larger_than_an_ordinary_answer_is_fetched_whole() -> None:
    data = b"x" * 3_000_000
    with stub.Stub() as server:
        server.script = [stub.answer(200, {"url": f"{server.url}/f"}), stub.answer(200, data)]
        assert cloud(server.url).fetch("900") == data


def test_a_reply_says_what_it_answers() -> None:
    item = {"id": "wamid.in1", "from": PERSON, "timestamp": AT, "type": "text", "text": {"body": "ok"}}
    (found,) = read(messages({**item, "context": {"from": "1555", "id": "wamid.out1"}}))
    assert isinstance(found, InboundMessage)
    assert found.context == "wamid.out1"


@pytest.mark.parametrize(
    "part",
    [
        {"system": {"type": "user_changed_number", "new_wa_id": "15550100008"}},
        {"edit": {"original_message_id": "wamid.in0"}},
        {"revoke": {"original_message_id": "wamid.in0"}},
        {"interactive": {"type": "call_permission_reply", "call_permission_reply": {"response": "accept"}}},
        {"text": {"body": "hi all"}, "group_id": "g1"},
    ],
)
def test_what_is_no_message_of_a_person_to_us_is_passed_over(part: dict[str, Any]) -> None:
    assert inbound(**part) == []


@pytest.mark.parametrize("field", ["smb_message_echoes", "calls", "history", "group_lifecycle_update"])
def test_echoes_and_calls_open_nothing(field: str) -> None:
    item = {"id": "wamid.x", "from": PERSON, "to": "1555", "timestamp": AT, "type": "text", "text": {"body": "x"}}
    value = {"metadata": {"phone_number_id": PHONE_ID}, "messages": [item], "statuses": [status("read")]}
    assert read(envelope((field, value))) == []


@pytest.mark.parametrize(
    ("given", "contact", "sender"),
    [
        ({"from": PERSON, "from_user_id": BSUID}, {"wa_id": PERSON, "user_id": BSUID}, ANN),
        ({"from_user_id": BSUID}, {"wa_id": PERSON, "user_id": BSUID}, ANN),
        ({"from_user_id": BSUID}, {"user_id": BSUID}, BSUID),
        ({"from": BSUID}, {"user_id": BSUID}, BSUID),
        ({"from_user_id": "US.ENT.1349"}, {"user_id": "US.ENT.1349"}, "US.ENT.1349"),
    ],
)
def test_a_person_without_a_number_is_known_by_an_id(
    given: dict[str, str], contact: dict[str, Any], sender: str
) -> None:
    item = {"id": "wamid.in1", "timestamp": AT, "type": "text", "text": {"body": "hi"}, **given}
    (found,) = read(messages(item, contacts=[contact | {"profile": {"name": "Ann", "username": "ann"}}]))
    assert isinstance(found, InboundMessage)
    assert (found.phone, found.name) == (sender, "Ann")


def test_a_sender_that_nobody_can_answer_is_passed_over() -> None:
    item = {"id": "wamid.in1", "timestamp": AT, "type": "text", "text": {"body": "hi"}}
    assert read(messages({**item, "from": "somebody"}, item)) == []


def test_an_unreadable_time_is_the_moment_of_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 5)
    item = {"id": "wamid.in1", "from": PERSON, "timestamp": "soon", "type": "text", "text": {"body": "hi"}}
    assert [found.at for found in read(messages(item))] == [5]


def test_what_the_vendor_could_not_bring_says_why() -> None:
    item = {"id": "wamid.in1", "from": PERSON, "timestamp": AT, "type": "unsupported"}
    (own,) = read(messages({**item, "errors": [{"code": 131051, "title": "unknown"}]}))
    (whole,) = read(messages(item, errors=[{"code": "131000"}]))
    assert isinstance(own, InboundMessage) and isinstance(whole, InboundMessage)
    assert (own.code, whole.code) == ("131051", "131000")
    assert read(messages(errors=[{"code": 130429}])) == []


def test_text_that_no_database_takes_is_cleaned() -> None:
    (found,) = inbound(text={"body": "a\x00b\ud83d"})
    assert isinstance(found, InboundMessage)
    assert found.text == "ab?"


# --- notices -----------------------------------------------------------------------------------------

TEMPLATE = {"message_template_name": "sale", "message_template_language": "ru", "message_template_id": 7}


def noticed(field: str, value: dict[str, Any], waba: str = WABA_ID) -> list[Notice]:
    return list(cloud().notices(callback(envelope((field, value), waba=waba))))


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        *((event, STOP_BROADCAST) for event in ("PAUSED", "DISABLED", "FLAGGED", "LOCKED", "REJECTED", "DELETED")),
        *((event, "") for event in ("APPROVED", "REINSTATED", "UNARCHIVED", "PENDING", "SOMETHING_NEW")),
    ],
)
def test_a_template_that_may_not_be_sent_stops_its_broadcasts(event: str, outcome: str) -> None:
    found = noticed("message_template_status_update", {**TEMPLATE, "event": event, "reason": "NONE"})
    assert found == [Notice("template", event, outcome, name="sale", language="ru")]


def test_a_new_category_is_told_and_an_announced_one_is_not() -> None:
    new = {**TEMPLATE, "previous_category": "UTILITY", "new_category": "MARKETING"}
    assert noticed("template_category_update", new) == [
        Notice("category", "MARKETING", name="sale", language="ru"),
    ]
    warned = {**TEMPLATE, "new_category": "UTILITY", "correct_category": "MARKETING"}
    assert noticed("template_category_update", warned) == []


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "DISABLE"}}, STOP_CHANNEL),
        ({"event": "DISABLED_UPDATE"}, STOP_CHANNEL),
        ({"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "REINSTATE"}}, ""),
        ({"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "SPAM"}}, STOP_CHANNEL),
        ({"event": "ACCOUNT_DELETED"}, STOP_CHANNEL),
        ({"event": "ACCOUNT_OFFBOARDED"}, STOP_CHANNEL),
        (
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING"}],
            },
            STOP_CHANNEL,
        ),
        ({"event": "ACCOUNT_RESTRICTION"}, STOP_CHANNEL),
        (
            {
                "event": "ACCOUNT_RESTRICTION",
                "restriction_info": [{"restriction_type": "RESTRICTED_ADD_PHONE_NUMBER_ACTION"}],
            },
            "",
        ),
        ({"event": "VERIFIED_ACCOUNT"}, ""),
    ],
)
def test_an_account_that_may_not_begin_conversations_stops_its_channels(value: dict[str, Any], outcome: str) -> None:
    assert noticed("account_update", value) == [Notice("account", value["event"], outcome)]


@pytest.mark.parametrize(
    ("given", "limit"),
    [(2000, "2000"), ("2000", "2000"), ("TIER_2K", "2000"), ("TIER_250", "250"), ("TIER_UNLIMITED", "-1"), (-1, "-1")],
)
def test_the_daily_limit_comes_as_a_number_or_as_a_tier(given: Any, limit: str) -> None:
    assert noticed("business_capability_update", {"max_daily_conversations_per_business": given}) == [
        Notice("limit", limit)
    ]


def test_news_of_the_number_may_bring_its_limit() -> None:
    value = {"display_phone_number": "15550100900", "event": "ONBOARDING", "current_limit": "TIER_10K"}
    number = Notice("number", "ONBOARDING", phone="+15550100900")
    assert noticed("phone_number_quality_update", value) == [number, Notice("limit", "10000")]
    newer = {**value, "max_daily_conversations_per_business": "TIER_100K"}
    assert noticed("phone_number_quality_update", newer) == [number, Notice("limit", "100000")]
    assert noticed("phone_number_quality_update", {"event": "FLAGGED"}) == [Notice("number", "FLAGGED")]


def test_a_choice_about_marketing_names_the_person() -> None:
    def choice(**more: Any) -> dict[str, Any]:
        return {"category": "marketing_messages", "value": "stop", "timestamp": AT, **more}

    listed = [
        choice(wa_id=PERSON),
        choice(wa_id=PERSON, value="resume"),
        choice(user_id=BSUID),
        choice(wa_id=PERSON, value="signup"),
        choice(wa_id=PERSON, category="something_else"),
        choice(),
    ]
    assert noticed("user_preferences", {"user_preferences": listed}) == [
        Notice("marketing", "stop", phone=ANN, at=MS),
        Notice("marketing", "resume", phone=ANN, at=MS),
        Notice("marketing", "stop", phone=BSUID, at=MS),
    ]
    elsewhere = {"metadata": {"phone_number_id": "999"}, "user_preferences": listed}
    assert noticed("user_preferences", elsewhere) == []


def test_alerts_and_the_quality_of_templates_are_only_told() -> None:
    alert = {"entity_type": "BUSINESS", "alert_info": {"alert_type": "obs_stuck", "alert_severity": "CRITICAL"}}
    assert noticed("account_alerts", alert) == [Notice("account", "OBS_STUCK")]
    quality = {**TEMPLATE, "previous_quality_score": "GREEN", "new_quality_score": "RED"}
    assert noticed("message_template_quality_update", quality) == [Notice("quality", "RED", name="sale", language="ru")]


@pytest.mark.parametrize("field", ["flows", "security", "message_template_components_update", "account_review_update"])
def test_other_fields_change_nothing(field: str) -> None:
    assert noticed(field, {**TEMPLATE, "event": "DISABLED"}) == []


def test_what_another_account_is_told_does_not_concern_us() -> None:
    assert noticed("account_update", {"event": "ACCOUNT_DELETED"}, waba="999") == []


def test_a_notice_never_loses_its_neighbours() -> None:
    odd = [("account_update", {}), ("user_preferences", {"user_preferences": "x"}), ("business_capability_update", {})]
    found = cloud().notices(callback(envelope(*odd, ("account_update", {"event": "ACCOUNT_DELETED"}))))
    assert [notice.status for notice in found] == ["ACCOUNT_DELETED"]


# --- error codes -------------------------------------------------------------------------------------

REACH = {
    **dict.fromkeys(("channel", "phone", "waba"), STOP_CHANNEL),
    "template": STOP_BROADCAST,
    **dict.fromkeys(("message", "recipient", "country"), REFUSED),
}


def test_every_code_of_the_reference_means_what_it_says_there() -> None:
    table = json.loads(shared("waba_error_codes.json").read_text(encoding="utf-8"))["codes"]
    outcome = {"retry": LATER, "recipient": REFUSED}
    wanted = {row["code"]: outcome.get(row["class"]) or REACH[row["scope"]] for row in table}
    assert {code: meaning(code)[1].outcome for code in wanted} == wanted
    assert [code for code in wanted if code not in ERRORS] == []


def test_every_code_has_a_cause_with_a_meaning() -> None:
    assert [code for code in ERRORS if causes.cause(str(code)).key == "unknown"] == []
    assert causes.cause("274").key == causes.cause("200").key


def test_the_scope_of_a_code_decides_how_far_it_reaches() -> None:
    assert meaning(130429)[1].slow_channel
    assert not meaning(131056)[1].slow_channel
    assert (meaning(1)[1].budget, meaning(131000)[1].budget) == (2, 3)
    assert (meaning(131053)[1].budget, meaning(131053)[1].then) == (1, STOP_BROADCAST)
    assert meaning(777777) == (777777, UNKNOWN)
    assert meaning(250)[1].outcome == STOP_CHANNEL


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("131026", REFUSED),
        ("132015", STOP_BROADCAST),
        ("131042", STOP_CHANNEL),
        ("131053", STOP_BROADCAST),
        ("x", REFUSED),
    ],
)
def test_a_code_in_a_report_stops_what_it_would_stop_in_an_answer(code: str, outcome: str) -> None:
    assert cloud().outcome(code) == outcome
