"""The HTTP connector: what its lines mean, what it asks, how it reads answers, reports and replies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.providers import stub
from tests.providers.stub import Stub
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    CallbackAddresses,
    Field,
    InboundMessage,
    Outgoing,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.connector import HttpGateway, preset
from worker.providers.connector_rules import (
    Condition,
    Facts,
    Faulty,
    IdRule,
    Pattern,
    Template,
    every,
    field_line,
    header_line,
    lines,
    nested,
    outcome_rule,
    status_line,
)

HOOK = "https://molva.example/hooks/key"
ADDRESSES = CallbackAddresses(HOOK, f"{HOOK}/status", f"{HOOK}/inbound")
OUT = Outgoing("+79161234567", "7.0123abcd", "Привет & пока")
HOUSE = {"allowed_private_hosts": ["127.0.0.1"]}

Made = Callable[..., HttpGateway]


@pytest.fixture
def vendor() -> Iterator[Stub]:
    with Stub() as server:
        yield server


@pytest.fixture
def made(vendor: Stub) -> Iterator[Made]:
    """A gateway at the test's vendor with these settings; secrets are `secret` where none is given."""
    providers: list[HttpGateway] = []

    def make(addresses: CallbackAddresses = ADDRESSES, **settings: Any) -> HttpGateway:
        given = {"url": f"{vendor.url}/send", "password": "secret", **settings, **HOUSE}
        providers.append(HttpGateway(given, addresses))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close()


def refusal(provider: HttpGateway, out: Outgoing = OUT) -> SendError:
    with pytest.raises(SendError) as caught:
        provider.send(out)
    return caught.value


# --- the lines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("{to} {to}", "+7 +7"),
        ("{coding|0=text|2=unicode}", "unicode"),
        ("{coding|0=text}", ""),
        ("{to|=|*=yes}", "yes"),
        ("{nothing|=no|*=yes}", "no"),
        ("{nothing}", ""),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_a_template_is_filled_once(text: str, filled: str) -> None:
    assert Template(text).fill({"to": "+7", "coding": "2"}) == filled


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert Template("{text}").fill({"text": "{password}", "password": "secret"}) == "{password}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{n:int}", 7),
        ("{n}", "7"),
        ("a{n:int}", "a7"),
        ("true", True),
        ("null", None),
        ("12", 12),
        ('"12"', "12"),
        ("yes", "yes"),
        ("NaN", "NaN"),
        ("", ""),
    ],
)
def test_a_json_value_has_the_type_that_its_line_says(text: str, value: Any) -> None:
    found = Template(text).value({"n": "7"})
    assert (found, type(found)) == (value, type(value))


def test_dotted_names_make_a_tree() -> None:
    pairs = [("a.0.b", 1), ("a.0.c", 2), ("a.1.b", 3), ("d", 4)]
    assert nested(pairs) == {"a": [{"b": 1, "c": 2}, {"b": 3}], "d": 4}
    with pytest.raises(Faulty):
        nested([("a", 1), ("a.b", 2)])


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("7", "7", True),
        ("7", "77", False),
        ("200-299", "250", True),
        ("200-299", "300", False),
        ("200-299", "2x0", False),
        ('"200-299"', "200-299", True),
        ("0:*", "0: Accepted", True),
        ("*no credits*", "there are no credits left", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("*", "", True),
        ("", "", True),
        ("(a+)+$", "aaaa", False),
    ],
)
def test_a_pattern_knows_stars_and_ranges_only(pattern: str, value: str, fits: bool) -> None:
    assert Pattern(pattern).matches(value) is fits


def test_no_text_of_a_stranger_makes_a_pattern_slow() -> None:
    worst = Pattern("*a*b*" * 50)
    started = time.perf_counter()
    worst.matches("a" * 1_000_000)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("status 200,202", True),
        ("status 2xx", True),
        ("status 400-499", False),
        ("json.code = 7", True),
        ("json.code = 6,8", False),
        ("json.code", True),
        ("json.missing", False),
        ("json.empty", False),
        ("json.list.*.s = 0", False),
        ("json.list.*.s has 0", True),
        ("json.list.*.s = 0,1", True),
        ("json.list.1.s = 1", True),
        ("json.none.*.s = 0", False),
        ("json.yes = true", True),
        ("text = *code*", True),
        ("status 202 & json.code = 7", True),
        ("status 202 & json.code = 8", False),
        ('json.words = "a, b & c"', True),
        ("*", True),
    ],
)
def test_conditions(condition: str, holds: bool) -> None:
    tree = {"code": 7, "yes": True, "list": [{"s": "0"}, {"s": 1}], "words": "a, b & c", "none": [], "empty": None}
    facts = Facts(202, json.dumps(tree), {"json": tree})
    assert Condition(condition).holds(facts) is holds


def test_a_rule_has_a_class_a_cause_and_flags() -> None:
    line = outcome_rule("json.code = 4 -> later sms_throttled slow free down wait=600 budget=3")
    assert line.cause == "sms_throttled"
    assert line.rule is not None
    assert (line.rule.outcome, line.rule.wait, line.rule.budget) == (LATER, 600.0, 3)
    assert (line.rule.slow_channel, line.rule.counts, line.rule.breaker) == (True, False, True)
    assert outcome_rule("* -> ok").rule is None
    assert outcome_rule("* -> person").cause == "sms_refused"


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (outcome_rule, "status 200"),
        (outcome_rule, "status 200 -> good"),
        (outcome_rule, "status abc -> ok"),
        (outcome_rule, "status -> ok"),
        (outcome_rule, "text -> ok"),
        (outcome_rule, "json.a b -> ok"),
        (outcome_rule, "* -> later wait=soon"),
        (outcome_rule, "* -> person one two"),
        (field_line, "no equals sign"),
        (field_line, "= {to}"),
        (field_line, "to = {TO} {to"),
        (header_line, "no colon"),
        (header_line, "Bad Name: x"),
        (status_line, "DELIVRD"),
        (status_line, "DELIVRD = arrived"),
        (status_line, "DELIVRD = failed Ünknown"),
        (IdRule, "somewhere"),
        (IdRule, "text no place"),
        (Pattern, "x" * 301),
    ],
)
def test_a_line_that_cannot_be_read_is_named(read: Callable[[str], Any], line: str) -> None:
    with pytest.raises(Faulty, match=r".+"):
        read(line)


def test_remarks_blank_lines_and_a_lone_dash_say_nothing() -> None:
    assert lines("# how it works\n\n a = 1 \n-\n") == ["a = 1"]


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        ('text Success "{id}"', 'Success "abc-1"\n', "abc-1"),
        ("text OK: {id}", "OK: 55 \nbalance 3", "55"),
        ("text {id}", "55", "55"),
        ('text Success "{id}"', 'Error "no"', ""),
        ('text Success "{id}"', 'Success "cut', ""),
        ("json.a.*.id", '{"a": {"79": {"id": 5}}}', "5"),
        ("json.a", "no json", ""),
    ],
)
def test_an_id_is_found_by_path_or_by_what_stands_around_it(rule: str, text: str, found: str) -> None:
    try:
        tree = json.loads(text)
    except ValueError:
        tree = None
    assert IdRule(rule).of(Facts(200, text, {"json": tree})) == found


def test_a_path_that_leads_nowhere_finds_nothing() -> None:
    for tree in (None, 5, "x", [], {}, {"a": None}, [[1]]):
        assert every(tree, "a.0.b.*") == []


# --- requests -------------------------------------------------------------------------------------------


def test_a_form_is_escaped_whatever_the_text_holds(made: Made, vendor: Stub) -> None:
    provider = made(sender="Molva", fields="to = {to_digits}\ntext = {text}\nfrom = {from}\nref = {ref}", username="me")
    assert provider.send(OUT) == Accepted(OUT.token)
    request = vendor.requests[0]
    assert (request.method, request.path) == ("POST", "/send")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.body.decode(), strict_parsing=True)) == {
        **{"to": "79161234567", "text": "Привет & пока", "from": "Molva", "ref": OUT.token},
    }


def test_a_json_body_can_be_nested_and_typed(made: Made, vendor: Stub) -> None:
    fields = "m.0.to.0.n = {to}\nm.0.text = {text}\nm.0.coding = {coding:int}\ntest = false\nfrom ?= {from}"
    made(body="json", fields=fields).send(Outgoing("+7916", "7.a", 'a "quoted" {text} \\ line\nend'))
    assert vendor.requests[0].headers["content-type"] == "application/json"
    assert vendor.requests[0].json == {
        "m": [{"to": [{"n": "+7916"}], "text": 'a "quoted" {text} \\ line\nend', "coding": 0}],
        "test": False,
    }


def test_a_query_is_added_to_what_the_address_has(made: Made, vendor: Stub) -> None:
    provider = made(
        url=f"{vendor.url}/send/{{to}}?key={{password}}", method="GET", fields="text = {text}", password="a&b"
    )
    provider.send(OUT)
    assert vendor.requests[0].body == b""
    parts = urlsplit(vendor.requests[0].path)
    assert parts.path == "/send/%2B79161234567"
    assert parse_qsl(parts.query) == [("key", "a&b"), ("text", "Привет & пока")]


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ("none", None),
        ("basic", "Basic " + base64.b64encode("me:pässword".encode()).decode()),
        ("bearer", "Bearer t-1"),
    ],
)
def test_the_ways_of_saying_who_we_are(made: Made, vendor: Stub, auth: str, header: str | None) -> None:
    made(auth=auth, username="me", password="pässword", token="t-1", headers="X-Kind: sms").send(OUT)
    assert vendor.requests[0].headers.get("authorization") == header
    assert vendor.requests[0].headers["x-kind"] == "sms"


def test_credentials_in_the_query_go_with_a_body_too(made: Made, vendor: Stub) -> None:
    made(auth="query", username="me", password="p&w").send(OUT)
    assert parse_qsl(urlsplit(vendor.requests[0].path).query) == [("username", "me"), ("password", "p&w")]
    assert b"p%26w" not in vendor.requests[0].body


def test_a_line_break_in_a_value_makes_no_header_of_its_own(made: Made, vendor: Stub) -> None:
    error = refusal(made(headers="X-Ref: {text}"), Outgoing("+7916", "7.a", "a\r\nX-Evil: 1"))
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "settings_invalid")
    assert vendor.requests == []


def test_the_report_address_carries_our_token_and_the_gateways_own_signs(made: Made, vendor: Stub) -> None:
    provider = made(fields="dlr = {dlr_url}\nmo = {inbound_url}", dlr_url="{status_url}?ref={ref}&type=%d")
    provider.send(Outgoing("+7916", "7.a&b", "x"))
    sent = dict(parse_qsl(vendor.requests[0].body.decode()))
    assert sent == {"dlr": f"{HOOK}/status?ref=7.a%26b&type=%d", "mo": f"{HOOK}/inbound"}


def test_without_a_public_address_no_report_is_asked_for(made: Made, vendor: Stub) -> None:
    private = CallbackAddresses("/hooks/key", "/hooks/key/status", "/hooks/key/inbound")
    made(private, fields="to = {to}\ndlr ?= {dlr_url}\nmask ?= {dlr_url|=|*=31}").send(OUT)
    assert vendor.requests[0].body == b"to=%2B79161234567"


@pytest.mark.parametrize(
    ("text", "told"),
    [("hello", ("0", "1", "hello", "")), ("Ж", ("2", "1", "", "0416")), ("Ж" * 71, ("2", "2", "", "0416" * 71))],
)
def test_a_gateway_is_told_alphabet_and_length(made: Made, vendor: Stub, text: str, told: tuple[str, ...]) -> None:
    made(fields="c = {coding}\ns = {segments}\ng = {text_gsm}\nh = {text_hex}").send(Outgoing("+7916", "7.a", text))
    sent = dict(parse_qsl(vendor.requests[0].body.decode(), keep_blank_values=True))
    assert (sent["c"], sent["s"], sent["g"], sent["h"]) == told


def test_a_text_is_cut_by_us_only_where_the_gateway_would_cut_a_character(made: Made, vendor: Stub) -> None:
    provider = made(split="pairs", fields="text = {text}\nudh ?= {udh}\ndlr ?= {dlr_url}")
    for text in ("ж" * 300, "ж" * 67 + "😀" + "ж" * 9, "a" * 700, "ж" * 66 + "😀 end"[:3]):
        vendor.requests.clear()
        provider.send(Outgoing("+7916", "7.a", text))
        assert len(vendor.requests) == 1
    vendor.requests.clear()
    text = "ж" * 66 + "😀" + "ж" * 80
    provider.send(Outgoing("+7916", "7.a", text))
    sent = [dict(parse_qsl(request.body.decode())) for request in vendor.requests]
    assert "".join(part["text"] for part in sent) == text
    assert [(part["udh"][:3], ord(part["udh"][4]), ord(part["udh"][5])) for part in sent] == [
        ("\x05\x00\x03", 3, 1),
        ("\x05\x00\x03", 3, 2),
        ("\x05\x00\x03", 3, 3),
    ]
    assert len({part["udh"][3] for part in sent}) == 1
    assert ["dlr" in part for part in sent] == [True, False, False]


def test_a_begun_text_is_never_sent_again_by_itself(made: Made, vendor: Stub) -> None:
    vendor.script = [stub.answer(200), stub.answer(429)]
    provider = made(split="pairs", fields="text = {text}\nudh ?= {udh}")
    error = refusal(provider, Outgoing("+7916", "7.a", "ж" * 66 + "😀" + "ж" * 80))
    assert (error.outcome, error.cause) == (UNCLEAR, "http_429")
    vendor.script = [stub.answer(429)]
    assert refusal(provider, Outgoing("+7916", "7.a", "ж" * 66 + "😀" + "ж" * 80)).outcome == LATER


# --- answers --------------------------------------------------------------------------------------------

RULES = """
status 200 & json.code = 0 -> ok
json.code = 1 -> person sms_unknown_subscriber
json.code = 2 -> person sms_bad_text message
json.code = 3 -> later slow wait=30
json.code = 4 -> unclear
json.code = 5 -> stop_channel sms_no_balance
json.code = 6 -> stop_broadcast sms_bad_sender
"""


@pytest.mark.parametrize(
    ("status", "code", "outcome", "cause"),
    [
        (200, 1, REFUSED, "sms_unknown_subscriber"),
        (200, 2, REFUSED, "sms_bad_text"),
        (200, 3, LATER, "sms_throttled"),
        (200, 4, UNCLEAR, "answer_unreadable"),
        (400, 5, STOP_CHANNEL, "sms_no_balance"),
        (200, 6, STOP_BROADCAST, "sms_bad_sender"),
        (200, 99, UNCLEAR, "answer_unreadable"),
        (422, 99, REFUSED, "http_422"),
        (500, 99, UNCLEAR, "http_500"),
    ],
)
def test_the_first_rule_decides_and_else_the_status(
    made: Made, vendor: Stub, status: int, code: int, outcome: str, cause: str
) -> None:
    vendor.behave = stub.answer(status, {"code": code, "why": "call +7 916 123-45-67"})
    error = refusal(made(rules=RULES, id="json.id", code="json.code", reason="json.why"))
    assert (error.outcome, error.cause, error.http_status) == (outcome, cause, status)
    if outcome != UNCLEAR or code == 4:
        assert error.detail == f"{code} call …67"
    assert (error.retry_after, error.slow_channel) == ((30.0, True) if code == 3 else (None, False))
    assert error.about_message == (code == 2 or status == 422)


def test_the_wait_that_the_gateway_asks_for_beats_the_rules_own(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(503, {"code": 3}, Retry_After="5")
    assert refusal(made(rules=RULES, id="json.id")).retry_after == 5.0


def test_acceptance_without_the_id_that_it_should_have_is_unclear(made: Made, vendor: Stub) -> None:
    vendor.behave = stub.answer(200, {"code": 0})
    assert refusal(made(rules=RULES, id="json.id")).outcome == UNCLEAR
    assert made(rules=RULES, id="own").send(OUT) == Accepted(OUT.token)


def test_no_secret_is_shown_in_whatever_form_it_comes_back(made: Made, vendor: Stub) -> None:
    secret = 'p&s/ "word'
    provider = made(auth="basic", username="me", password=secret, rules=RULES, reason="json.why")
    coded = base64.b64encode(f"me:{secret}".encode()).decode()
    for why in (secret, "a p%26s%2F%20%22word b", "p%26s/%20%22word", "p%26s%2F+%22word", coded):
        vendor.behave = stub.answer(400, {"why": f"you said {why}!"})
        assert refusal(provider).detail == "you said •••!" if "a " not in why else True
        assert "word" not in refusal(provider).detail
    vendor.behave = stub.answer(400, f"<p>{coded}</p>".encode())
    assert coded not in refusal(provider).detail


def test_an_address_inside_is_refused_unless_the_server_allows_it(vendor: Stub) -> None:
    provider = HttpGateway({"url": f"{vendor.url}/send?password={{password}}", "password": "secret"}, ADDRESSES)
    error = refusal(provider)
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "address_forbidden")
    assert vendor.requests == []
    assert "secret" not in str(error)
    provider.close()


def test_no_template_leads_to_another_host(made: Made, vendor: Stub) -> None:
    provider = made(url="{text}/send")
    assert refusal(provider, Outgoing("+7916", "7.a", "http://169.254.169.254")).outcome == STOP_CHANNEL
    assert vendor.requests == []


# --- settings -------------------------------------------------------------------------------------------


def test_faults_name_the_setting_and_its_line() -> None:
    settings = {
        **{"url": "ftp://x", "rules": "status 200 -> ok\nstatus 200 => ok", "fields": "a = {to}\nb", "body": "xml"},
        **{"report_map": "1 = arrived", "concurrent": "many", "id": "json", "callback_addresses": "somewhere"},
    }
    assert sorted(HttpGateway.faults(settings)) == [
        ("body", "xml"),
        ("callback_addresses", "somewhere"),
        ("concurrent", "many"),
        ("fields", "b"),
        ("id", "json"),
        ("report_map", "1 = arrived"),
        ("rules", "status 200 => ok"),
        ("url", "ftp://x"),
    ]
    assert HttpGateway.faults({"url": "https://sms.example/send"}) == []
    assert HttpGateway.faults({}) == [("url", "")]


def test_a_faulty_line_stops_the_channel_and_sends_nothing(made: Made, vendor: Stub) -> None:
    provider = made(rules="status 200 => ok")
    error = refusal(provider)
    assert (error.outcome, error.cause, error.detail) == (STOP_CHANNEL, "settings_invalid", "rules: status 200 => ok")
    assert vendor.requests == []
    assert [f.code for f in provider.check()] == ["settings_invalid"]
    assert not provider.verify(RawCallback("GET", "status", {"ref": "7.a"}, {}, b""))


def test_callbacks_are_read_even_while_a_setting_for_sending_is_missing(made: Made) -> None:
    provider = made(url="-")
    assert refusal(provider).cause == "settings_invalid"
    reply = RawCallback("GET", "inbound", {"from": "79161234567", "text": "yes"}, {}, b"")
    assert provider.verify(reply) and len(list(provider.parse(reply))) == 1


def test_a_stored_setting_wins_an_empty_one_is_the_default_and_a_dash_is_nothing(made: Made, vendor: Stub) -> None:
    made(fields="").send(OUT)
    assert vendor.requests[-1].body.startswith(b"to=")
    made(fields="number = {to}").send(OUT)
    assert vendor.requests[-1].body.startswith(b"number=")
    made(fields="-").send(OUT)
    assert vendor.requests[-1].body == b""


def test_the_dry_run_shows_the_request_without_its_secrets(made: Made, vendor: Stub) -> None:
    provider = made(
        auth="basic", username="me", password="s/cret", url=f"{vendor.url}/send?p={{password}}", headers="X-Key: {token}",
        token="t0ken", fields="to = {to}\npw = {password}",
    )  # fmt: skip
    shown = provider.dry_run(OUT)
    assert shown.splitlines() == [
        f"POST {vendor.url}/send?p=•••",
        "X-Key: •••",
        "Authorization: Basic •••",
        "Content-Type: application/x-www-form-urlencoded",
        "",
        "to=%2B79161234567&pw=•••",
    ]
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("sender", "possible"), [("Molva", False), ("Молва1", False), ("+79990001122", True), ("1234", True), ("", True)]
)
def test_nobody_can_answer_a_name(made: Made, sender: str, possible: bool) -> None:
    assert made(sender=sender).answerable() is possible


def test_how_many_requests_at_once_is_a_setting(made: Made) -> None:
    assert made().most() is None
    assert made(concurrent=4).most() == 4
    assert made(concurrent="0").most() == 1


def test_what_cannot_be_checked_says_so(made: Made, vendor: Stub) -> None:
    provider = made()
    assert [(f.level, f.code) for f in provider.check()] == [("warning", "not_checkable")]
    provider.ping()
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("answer", "level", "code"),
    [
        (stub.answer(200, {"balance": 5}), "ok", "account_found"),
        (stub.answer(200, {"code": 5}), "error", "sms_no_balance"),
        (stub.answer(401), "error", "http_401"),
        (stub.answer(400), "ok", "account_found"),
    ],
)
def test_the_check_reads_its_answer_by_the_same_rules(
    made: Made, vendor: Stub, answer: stub.Behaviour, level: str, code: str
) -> None:
    vendor.behave = answer
    provider = made(
        rules=RULES,
        auth="bearer",
        token="t",
        check_url=f"{vendor.url}/balance?u={{username}}",
        check_rules="status 400 -> ok",
    )
    assert [(f.level, f.code) for f in provider.check()] == [(level, code)]
    request = vendor.requests[0]
    assert (request.method, request.path, request.headers["authorization"]) == ("GET", "/balance?u=", "Bearer t")


# --- callbacks ------------------------------------------------------------------------------------------


def called(path: str = "status", body: bytes | str = b"", **more: Any) -> RawCallback:
    data = body.encode() if isinstance(body, str) else body
    return RawCallback("POST" if data else "GET", path, more.get("query", {}), more.get("headers", {}), data)


@pytest.mark.parametrize(
    "callback",
    [
        called(query={"id": "A", "status": "DELIVRD", "ref": "7.a"}),
        called(body="id=A&status=DELIVRD", query={"ref": "7.a"}),
        called(body='{"id": "A", "status": "DELIVRD"}', query={"ref": "7.a"}),
    ],
)
def test_a_report_is_read_from_query_form_or_json(made: Made, callback: RawCallback) -> None:
    provider = made(id="json.id", report_map="DELIVRD = delivered")
    assert list(provider.parse(callback)) == [StatusUpdate("delivered", 0, "A", "7.a")]


MAP = "1 2 = sent\n1 * = delivered\n3* = failed sms_expired\n9* = ignored"


@pytest.mark.parametrize(
    ("group", "number", "status", "cause"),
    [
        ("1", "2", "sent", None),
        ("1", "5", "delivered", None),
        ("3", "0", "failed", "sms_expired"),
        ("3", "6", "failed", "sms_absent"),
        ("9", "1", None, None),
        ("77", "1", None, None),
        ("", "", None, None),
    ],
)
def test_a_status_may_stand_in_two_places_and_its_code_in_a_third(
    made: Made, group: str, number: str, status: str | None, cause: str | None
) -> None:
    provider = made(report_status="group number", report_map=MAP, report_code="number", report_causes="6 = sms_absent")
    found = list(provider.parse(called(query={"ref": "7.a", "group": group, "number": number})))
    assert [(f.status, f.code) for f in found if isinstance(f, StatusUpdate)] == ([(status, cause)] if status else [])


def test_many_rows_in_one_call_are_many_reports_and_a_bad_one_loses_no_other(made: Made) -> None:
    rows: list[Any] = [{"id": "A", "status": "ok"}, None, 5, {"id": "B"}, "text", {"id": "C", "status": "ok"}]
    provider = made(id="json.id", report_rows="results.*", report_map="ok = delivered")
    found = list(provider.parse(called(body=json.dumps({"results": rows}))))
    assert [f.provider_id for f in found if isinstance(f, StatusUpdate)] == ["A", "C"]


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("1793869200", 1_793_869_200_000),
        ("1793869200123", 1_793_869_200_123),
        ("2026-11-05T09:00:00Z", 1_793_869_200_000),
        ("2026-11-05T12:00:00.000+0300", 1_793_869_200_000),
        ("2026-11-05 12:00:00", 0),
        ("yesterday", 0),
        ("9" * 40, 0),
    ],
)
def test_a_time_without_its_zone_is_no_time(made: Made, said: str, at: int) -> None:
    provider = made(report_time="time")
    (found,) = provider.parse(called(query={"ref": "7.a", "status": "delivered", "time": said}))
    assert found.at == at


def test_a_reply_has_its_number_made_whole_and_its_words(made: Made) -> None:
    callback = called(
        "inbound", query={"id": "1", "from": "7 916 123-45-67", "text": "Да\x00, беру", "time": "1793869200"}
    )
    assert list(made(reply_time="time").parse(callback)) == [
        InboundMessage("1", "+79161234567", 1_793_869_200_000, text="Да, беру")
    ]


@pytest.mark.parametrize(
    ("region", "said", "meant"),
    [
        (None, "89161234567", "+79161234567"),
        ("RU", "8 (916) 123-45-67", "+79161234567"),
        ("RU", "9161234567", "+79161234567"),
        ("RU", "0079161234567", "+79161234567"),
        ("RU", "79161234567", "+79161234567"),
        ("RU", "375291234567", "+375291234567"),  # a number of another country without its plus
        ("BY", "80291234567", "+375291234567"),
        ("DE", "015123456789", "+4915123456789"),
        ("RU", "+89161234567", "+89161234567"),  # with a plus it says itself what it is
        ("RU", "1234567", "+1234567"),
        ("RU", "1234", "1234"),
        ("RU", "MTS", "MTS"),
    ],
)
def test_a_number_as_people_write_it_at_home_is_read_so(made: Made, region: str | None, said: str, meant: str) -> None:
    settings = {"region": region} if region else {}
    (found,) = made(**settings).parse(called("inbound", query={"id": "1", "from": said, "text": "STOP"}))
    assert isinstance(found, InboundMessage) and found.phone == meant


def test_a_reply_in_hexadecimal_is_decoded_where_its_coding_says_so(made: Made) -> None:
    provider = made(reply_hex="binary", reply_hex_if="coding = 8")
    wide = {"from": "79161234567", "text": "\x04\x21", "binary": "Стоп".encode("utf-16-be").hex(), "coding": "\x08"}
    plain = {"from": "79161234567", "text": "STOP", "binary": b"STOP".hex(), "coding": "\x00"}
    texts = [
        f.text
        for c in (wide, plain)
        for f in provider.parse(called("inbound", query=c))
        if isinstance(f, InboundMessage)
    ]
    assert texts == ["Стоп", "STOP"]


def test_a_part_of_a_long_reply_says_which_it_is(made: Made) -> None:
    provider = made(reply_part="ref part total")
    facts = {"id": "5", "from": "79161234567", "text": "b", "ref": "17", "part": "2", "total": "3"}
    (found,) = provider.parse(called("inbound", query=facts))
    assert isinstance(found, InboundMessage) and found.part == ("17", 2, 3)
    for broken in ({"part": "4"}, {"part": "x"}, {"ref": ""}, {"total": "1", "part": "1"}):
        (found,) = provider.parse(called("inbound", query={**facts, **broken}))
        assert isinstance(found, InboundMessage) and found.part is None


def test_a_reply_without_an_id_is_told_from_another_by_its_words(made: Made) -> None:
    ids = []
    for text in ("yes", "yes", "no"):
        (found,) = made().parse(called("inbound", query={"from": "79161234567", "text": text}))
        ids.append(found.provider_id)
    assert ids[0] == ids[1] != ids[2]


def test_the_same_words_said_again_later_are_another_reply(made: Made) -> None:
    def identity(at: int, **more: str) -> str:
        query = {"from": "79161234567", "text": "STOP", **more}
        (found,) = made(reply_time="time").parse(replace(called("inbound", query=query), received_at=at))
        assert isinstance(found, InboundMessage)
        return found.provider_id

    now = 1_793_869_200_000
    assert identity(now) == identity(now + 9_000) != identity(now + 3_600_000)
    assert identity(now, time="yesterday") == identity(now + 3_600_000, time="yesterday")
    assert identity(now, id="1") == identity(now + 3_600_000, id="1") == "1"


def test_a_gateway_with_one_address_may_send_both_kinds_there(made: Made) -> None:
    provider = made()
    (report,) = provider.parse(called("", query={"ref": "7.a", "status": "delivered"}))
    (reply,) = provider.parse(called("", query={"from": "79161234567", "text": "yes"}))
    assert isinstance(report, StatusUpdate) and isinstance(reply, InboundMessage)


@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_signature_over_the_body_is_required_once_it_is_set(made: Made, algorithm: str, encoding: str) -> None:
    provider = made(hmac_header="X-Sign", hmac_algorithm=algorithm, hmac_encoding=encoding, callback_secret="key")
    assert provider.callback_headers == {"x-sign"}
    digest = hmac.new(b"key", b"id=1", algorithm).digest()
    value = base64.b64encode(digest).decode() if encoding == "base64" else digest.hex()
    assert provider.verify(called(body="id=1", headers={"x-sign": value}))
    assert not provider.verify(called(body="id=2", headers={"x-sign": value}))
    assert not provider.verify(called(body="id=1"))
    assert not made(hmac_header="X-Sign").verify(called(body="id=1", headers={"x-sign": value}))


def test_a_hash_over_named_values_is_required_once_it_is_set(made: Made) -> None:
    provider = made(hash_path="md5", hash_recipe="{id}:{status}:{secret}", callback_secret="word")
    right = hashlib.md5(b"5:1:word").hexdigest()
    assert provider.verify(called(body=f"id=5&status=1&md5={right.upper()}"))
    assert not provider.verify(called(body=f"id=5&status=2&md5={right}"))
    assert not provider.verify(called(body="id=5&status=1"))


@pytest.mark.parametrize(
    ("caller", "believed"),
    [("203.0.113.7", True), ("::ffff:203.0.113.7", True), ("203.0.114.7", False), ("", False), ("nonsense", False)],
)
def test_only_listed_addresses_are_heard_once_there_is_a_list(made: Made, caller: str, believed: bool) -> None:
    provider = made(callback_addresses="203.0.113.0/24\n2001:db8::1")
    assert provider.callback_headers == {"remote-addr"}
    assert provider.verify(called(query={"id": "1"}, headers={"remote-addr": caller})) is believed


def test_the_gateway_is_answered_what_it_wants_to_hear(made: Made) -> None:
    assert made().reply_to(called()) == (200, b"")
    assert made(answer="ACK/Jasmin", answer_status="202").reply_to(called()) == (202, b"ACK/Jasmin")
    assert made(answer_status="204", answer="ok").reply_to(called()) == (204, b"")
    assert made(answer_status="500").reply_to(called()) == (200, b"")


@pytest.mark.parametrize(
    "body",
    [
        "a" + ".a" * 100_000 + "=1",
        "a" + "[a]" * 100_000 + "=1",
        "&".join(f"a[{n}]=1" for n in range(100_000)),
        "[" * 500_000,
        '{"a":' * 100_000,
        "id=" + "x" * 1_000_000 + "&status=delivered",
    ],
    ids=["dots", "brackets", "pairs", "arrays", "objects", "long"],
)
def test_a_hostile_callback_costs_little(made: Made, body: str) -> None:
    provider = made(hash_path="md5", hash_recipe="{id}{secret}", callback_secret="word", report_rows="a.*")
    started = time.perf_counter()
    assert not provider.verify(called(body=body))
    assert list(provider.parse(called(body=body))) == []
    assert time.perf_counter() - started < 1.0


# --- a gateway of one's own -----------------------------------------------------------------------------


def test_a_gateway_that_nobody_knew_is_one_file_and_no_code(vendor: Stub) -> None:
    found = preset(
        {
            "key": "acme",
            "label": "Acme SMS",
            "pace": 3,
            "fields": [{"name": "base_url"}, {"name": "login"}, {"name": "apikey", "kind": "secret"}],
            "paste": {"inbound": "{inbound_url}?from=[sender]&login={login}"},
            "settings": {
                "url": "{base_url}/v1/{login}/out",
                "body": "json",
                "headers": ["X-Key: {apikey}"],
                "fields": ["rcpt = {to_digits}", "body = {text}"],
                "rules": ["status 2xx & json.queued = true -> ok"],
                "id": "json.uid",
            },
        }
    )
    assert (found.key, found.label, found.kind, found.pace) == ("acme", "Acme SMS", "sms", 3.0)
    assert found.faults({}) == [("base_url", ""), ("login", ""), ("apikey", "")]
    assert Field("url", "text", False, "{base_url}/v1/{login}/out", group="request") in found.fields
    provider = found({"base_url": vendor.url + "/", "login": "a b", "apikey": "k", **HOUSE}, ADDRESSES)
    vendor.behave = stub.answer(202, {"queued": True, "uid": 9})
    assert provider.send(OUT) == Accepted("9")
    assert (vendor.requests[0].path, vendor.requests[0].headers["x-key"]) == ("/v1/a%20b/out", "k")
    assert provider.paste().inbound == f"{HOOK}/inbound?from=[sender]&login=a%20b"
    assert provider.paste().status == ADDRESSES.status
    provider.close()


def test_a_preset_with_a_setting_that_the_form_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="reprot_id"):
        preset({"key": "x", "label": "X", "fields": [], "settings": {"url": "https://x", "reprot_id": "id"}})


@pytest.mark.parametrize(
    ("setting", "value", "fault"),
    [
        ("fields", "to = {phone}\ntext = {text}\nx = {to}", ("fields", "{phone}")),
        ("fields", "text = {text}", ("fields", "{to}?")),
        ("fields", "to = {to_digits}", ("fields", "{text}?")),
        ("headers", "X-Api-Key: k-very-secret", ("headers", "X-Api-Key: …")),
        ("url", "https://gateway.example/{unknown}", ("url", "{unknown}")),
    ],
)
def test_a_form_that_would_send_nothing_or_show_a_key_is_refused(
    setting: str, value: str, fault: tuple[str, str]
) -> None:
    given = {"url": "https://gateway.example/send", setting: value}
    assert fault in HttpGateway.faults(given)
    assert HttpGateway.faults({"url": "https://gateway.example/send", "headers": "X-Api-Key: {token}"}) == []
