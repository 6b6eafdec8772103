"""A WhatsApp broadcast through the real command against an emulated Graph API, judged by what that API was asked."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import requests

from tests.journeys.conftest import Caller
from tests.product import Product, wait
from tests.providers import stub
from tests.providers.stub import Request, Stub
from tests.providers.waba import CODE, LINK, STOP, beside, buttons, header, signed, specification
from worker import channels, db, tasks
from worker.models import Channel

pytestmark = pytest.mark.journey

PEOPLE = 25
SECRETS = {"access_token": "EAA", "app_secret": "app secret", "verify_token": "verify"}
BODY = {"type": "BODY", "text": "{{first_name}}, order {{order}} is ready"}
COUPON = {
    "name": "coupon",
    "language": "en",
    "status": "APPROVED",
    "category": "MARKETING",
    "parameter_format": "NAMED",
    "components": [header("IMAGE"), BODY, {"type": "FOOTER", "text": "Bye"}, buttons(LINK, CODE, STOP)],
}
FLOW = {**COUPON, "name": "flow", "components": [BODY, buttons({"type": "FLOW", "text": "Begin"})]}
VARIABLES = {
    "header.media": {"column": "picture"},
    "body.first_name": {"column": "name", "fallback": "friend"},
    "body.order": {"column": "order"},
    "button.0": {"column": "link"},
    "button.1": {"value": "SAVE25"},
}


SCHEMAS = {"messages": "Message", "marketing_messages": "MarketingMessageRequestPayload"}


class Graph:
    """The emulated API: hands templates out, takes messages and files, and keeps every request."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.server = Stub(self._answer)

    def _answer(self, sock: socket.socket, request: Request) -> bool:
        name = request.path.partition("?")[0].rpartition("/")[2]
        said: dict[str, Any] = {
            "message_templates": {"data": [COUPON, FLOW]},
            "media": {"id": "4490709327384033"},
            "1007": {"id": "1007", "whatsapp_business_manager_messaging_limit": "TIER_2K"},
        }.get(name) or {"messages": [{"id": f"wamid.{next(self._ids)}", "message_status": "accepted"}]}
        return stub.answer(200, said)(sock, request)

    def sent(self, account: str) -> list[Request]:
        """Every message that an account sent, in order."""
        found = re.compile(rf"/v25.0/{account}/(marketing_)?messages")
        return [request for request in list(self.server.requests) if found.fullmatch(request.path)]


class World(NamedTuple):
    graph: Graph
    product: Product
    caller: Caller

    def channel(self, account: str, **more: Any) -> Channel:
        """A channel whose base URL leads to the emulated API, with its templates."""
        values = {"phone_number_id": account, "waba_id": "2001", "api_version": "v25.0", **SECRETS, **more}
        values["base_url"] = self.graph.server.url
        made = channels.create(self.product.settings, "whatsapp_cloud", f"Graph {account}", values)
        self.caller.call("POST", f"/channels/{made.id}/templates/sync")
        return made

    def draft(self, channel: Channel, **variables: dict[str, str]) -> int:
        given = {
            "name": "Coupons",
            "channel_id": channel.id,
            "template": {"name": "coupon", "language": "en"},
            "variables": VARIABLES | variables,
            "rate_per_minute": 60_000,
        }
        return int(self.caller.call("POST", "/broadcasts", 201, json=given)["id"])

    def post(self, channel: Channel, body: bytes, **headers: str) -> int:
        """One callback; the status of its answer."""
        url = f"{self.product.url}/hooks/{channel.key}"
        return requests.post(url, data=body, headers=headers, timeout=20).status_code


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    product = Product(tmp_path_factory.mktemp("graph") / "data", MOLVA_ALLOWED_PRIVATE_HOSTS="127.0.0.1")
    graph = Graph()
    with graph.server:
        try:
            product.start()
            db.open_database(product.settings)
            tasks.configure(product.settings)
            db.database.connect(reuse_if_open=True)
            caller = Caller(product)
            yield World(graph, product, caller)
            caller.session.close()
        finally:
            db.close()
            assert product.stop() == 0


def people(first: int) -> bytes:
    """A list with one row that breaks a line and one without a usable picture."""
    rows = [
        f"+7902{n:07d},Guest {n},A-{n},https://x.example/{n}.png,item-{n}?b={first}"
        for n in range(first, first + PEOPLE)
    ]
    rows += [
        f'+7902{first + 900:07d},Odd,"A\nB",https://x.example/1.png,x',
        f"+7902{first + 901:07d},Odd,A-1,picture.png,x",
        f"+7902{first + 902:07d},Odd,A-1,https://x.example/1.png,a b",
    ]
    return ("phone,name,order,picture,link\n" + "\n".join(rows)).encode()


def expected(person: int, first: int, picture: dict[str, str]) -> dict[str, Any]:
    """What the API should be asked for one person."""
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": f"+7902{person:07d}",
        "type": "template",
        "template": {
            "name": "coupon",
            "language": {"policy": "deterministic", "code": "en"},
            "components": [
                {"type": "header", "parameters": [{"type": "image", "image": picture}]},
                {
                    "type": "body",
                    "parameters": [
                        {"type": "text", "text": f"Guest {person}", "parameter_name": "first_name"},
                        {"type": "text", "text": f"A-{person}", "parameter_name": "order"},
                    ],
                },
                button("url", "0", {"type": "text", "text": f"item-{person}?b={first}"}),
                button("copy_code", "1", {"type": "coupon_code", "coupon_code": "SAVE25"}),
                button("quick_reply", "2", {"type": "payload", "payload": "STOP"}),
            ],
        },
    }


def button(sub_type: str, index: str, parameter: dict[str, str]) -> dict[str, Any]:
    return {"type": "button", "sub_type": sub_type, "index": index, "parameters": [parameter]}


def broadcast(world: World, channel: Channel, first: int, **variables: dict[str, str]) -> int:
    """A finished broadcast to PEOPLE people."""
    number = world.draft(channel, **variables)
    file = world.caller.upload(number, people(first))
    assert (file["accepted"], file["state"]) == (PEOPLE, "ready"), file
    world.caller.press(number, "start")
    world.caller.finished(number, 60)
    return number


def judge(world: World, account: str, first: int, picture: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Everybody once, each with what their row says; the bodies as they came, without their tokens."""
    specified(world.graph.sent(account))
    bodies = [request.json for request in world.graph.sent(account)]
    tokens = [body.pop("biz_opaque_callback_data") for body in bodies]
    assert len(set(tokens)) == len(tokens) == PEOPLE
    by_phone = {body["to"]: body for body in bodies}
    assert len(by_phone) == PEOPLE
    for n in range(first, first + PEOPLE):
        wanted = expected(n, first, picture or {"link": f"https://x.example/{n}.png"})
        found = by_phone[f"+7902{n:07d}"]
        assert found == wanted | ({"product_policy": found["product_policy"]} if "product_policy" in found else {})
    return bodies


def specified(requests_: list[Request]) -> None:
    """Where the vendor's specification is at hand, every body keeps to it."""
    if beside("whatsapp-openapi.yaml").exists():
        for request in requests_:
            check = specification()(SCHEMAS[request.path.rpartition("/")[2]])
            assert check(request.json) == []


def report(account: str, items: list[tuple[str, str]], status: str) -> bytes:
    """Reports of one status about messages: (id, token)."""
    listed = [
        {"id": identity, "status": status, "timestamp": "1794000000", "biz_opaque_callback_data": token}
        for identity, token in items
    ]
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": account}, "statuses": listed}
    entry = [{"id": "2001", "changes": [{"field": "messages", "value": value}]}]
    return json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()


def applied() -> None:
    wait(lambda: not db.value("SELECT 1 FROM callback WHERE processed_at IS NULL LIMIT 1"), 30)


def test_a_template_with_every_part_reaches_everybody_as_it_should(world: World) -> None:
    channel = world.channel("1001")
    number = broadcast(world, channel, 0)
    rejected = world.caller.call("GET", f"/broadcasts/{number}/files")["items"][0]["rejected"]
    assert rejected == {"variable_invalid": 3}
    judge(world, "1001", 0)
    assert {request.path for request in world.graph.sent("1001")} == {"/v25.0/1001/messages"}
    assert {request.headers["authorization"] for request in world.graph.sent("1001")} == {"Bearer EAA"}


def test_only_genuine_reports_change_anything_and_each_only_once(world: World) -> None:
    channel = world.channel("1002")
    number = broadcast(world, channel, 10_000)
    listed = world.caller.call("GET", f"/broadcasts/{number}/messages", params={"limit": 100})["items"]
    tokens = {request.json["to"]: request.json["biz_opaque_callback_data"] for request in world.graph.sent("1002")}
    items = [(one["provider_id"], tokens[one["phone"]]) for one in listed]
    assert len(items) == PEOPLE
    body = report("1002", items, "read")
    genuine = signed(body, SECRETS["app_secret"]).headers["x-hub-signature-256"]
    before = world.caller.numbers(number)
    assert world.post(channel, body) == 403
    for forged in ("", "sha256=", signed(body, "another secret").headers["x-hub-signature-256"], genuine[:-1] + "x"):
        assert world.post(channel, body, **{"X-Hub-Signature-256": forged}) == 403
    assert world.post(channel, body.replace(b'"read"', b'"sent"'), **{"X-Hub-Signature-256": genuine}) == 403
    applied()
    assert world.caller.numbers(number) == before
    assert db.value("SELECT COUNT(*) FROM callback WHERE channel_id = ?", [channel.id]) == 0

    assert world.post(channel, body, **{"X-Hub-Signature-256": genuine}) == 200
    applied()
    assert world.caller.numbers(number)["read"] == PEOPLE
    reports = db.value("SELECT COUNT(*) FROM delivery_report")
    for _ in range(3):
        assert world.post(channel, body, **{"X-Hub-Signature-256": genuine}) == 200
    lower = report("1002", items, "sent")
    late = signed(lower, SECRETS["app_secret"]).headers["x-hub-signature-256"]
    assert world.post(channel, lower, **{"X-Hub-Signature-256": late}) == 200
    applied()
    assert world.caller.numbers(number)["read"] == PEOPLE
    assert db.value("SELECT COUNT(*) FROM delivery_report") == reports + PEOPLE  # the late ones are kept, once


def test_marketing_takes_its_own_endpoint_and_shows_an_uploaded_picture(world: World) -> None:
    channel = world.channel("1003", marketing_endpoint=True)
    here = replace(world.product.settings, allowed_private_hosts=("127.0.0.1",))
    provider = channels.provider_of(here, channel)
    picture = provider.upload(b"\x89PNG", "image/png", "a.png")  # type: ignore[attr-defined]
    provider.close()
    number = world.draft(channel, **{"header.media": {"value": picture}})
    rows = people(20_000).split(b"\n")[: PEOPLE + 1]
    assert world.caller.upload(number, b"\n".join(rows))["accepted"] == PEOPLE
    world.caller.press(number, "start")
    world.caller.finished(number, 60)
    bodies = judge(world, "1003", 20_000, {"id": picture})
    assert {body["product_policy"] for body in bodies} == {"CLOUD_API_FALLBACK"}
    assert {request.path for request in world.graph.sent("1003")} == {"/v25.0/1003/marketing_messages"}


def test_a_template_that_cannot_be_sent_is_refused_by_name(world: World) -> None:
    channel = world.channel("1004")
    given = {"name": "Flow", "channel_id": channel.id, "template": {"name": "flow", "language": "en"}, "variables": {}}
    refused = world.caller.call("POST", "/broadcasts", 422, json={**given, "rate_per_minute": 60})
    assert "BUTTON FLOW" in refused["error"]["fields"]["template"]
    assert world.graph.sent("1004") == []


def test_a_fixed_value_that_nobody_could_get_is_refused_at_once(world: World) -> None:
    channel = world.channel("1005")
    for value in ("picture.png", "   "):
        given = {
            "name": "Coupons",
            "channel_id": channel.id,
            "template": {"name": "coupon", "language": "en"},
            "variables": VARIABLES | {"header.media": {"value": value}},
            "rate_per_minute": 60,
        }
        refused = world.caller.call("POST", "/broadcasts", 422, json=given)
        assert "header.media" in refused["error"]["fields"]["variables"]


def test_a_refresh_of_the_templates_learns_the_daily_limit(world: World) -> None:
    channel = world.channel("1007")
    assert Channel.get_by_id(channel.id).vendor_limit == 2_000
