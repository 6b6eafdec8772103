"""Every route × every role × a stranger × the CSRF token missing and wrong, taken from the map of the application.

A new route is covered the moment it exists: what it may be called by is what it declares.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests import make
from tests.people import Browser, signed_in
from webapp import auth
from worker import clock, db, people
from worker.models import TABLES, Channel, Conversation, Direct, Inbound, OptOut, User
from worker.people import ROLES

UNKNOWN = (4_000_000, 2**70)


class Route(NamedTuple):
    """One method of one rule; `role` is what it declares."""

    method: str
    rule: str
    role: str

    def path(self, number: int = 1) -> str:
        """An address that the rule fits, with `number` for every id."""
        text = re.sub(r"<any\(\W*(\w+)[^>]*>", r"\1", self.rule)
        text = re.sub(r"<int:[^>]+>", str(number), text)
        return re.sub(r"<(?:[^:>]+:)?[^>]+>", "x", text)

    @property
    def of_api(self) -> bool:
        return self.rule.startswith("/api/") or self.rule == "/metrics"


def routes(app: Flask) -> list[Route]:
    found = []
    with app.app_context():
        for rule in app.url_map.iter_rules():
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            found += [Route(method, rule.rule, auth.declared(rule.endpoint) or "") for method in methods]
    return sorted(found)


@pytest.fixture
def house(app: Flask, users: dict[str, User]) -> Flask:
    """One of everything, each with the id 1."""
    app.testing = False  # a fault becomes an answer 500
    app.logger.disabled = True
    broadcast = make.broadcast(channel=make.channel(), name="First")
    file = make.file(broadcast)
    message = make.messages(file, "uncertain", "sent", row='["+79000000001"]')[0]
    now = clock.now()
    conversation = Conversation.create(
        channel_id=broadcast.channel_id, phone=message.phone, last_in_at=now, last_at=now, created_at=now
    )
    Inbound.create(
        channel_id=broadcast.channel_id, provider_id="in1", phone=message.phone, kind="text", text="Hi", at=now,
        received_at=now, conversation_id=conversation.id,
    )  # fmt: skip
    OptOut.create(phone="+79005550001", source="person", at=now)
    Direct.create(channel_id=1, message_id=2, kind="answer", phone=message.phone, made_by="test", at=now)
    return app


Ask = Callable[[Route], TestResponse]


@pytest.fixture
def asker(house: Flask, users: dict[str, User], api: dict[str, dict[str, str]]) -> Callable[..., TestResponse]:
    """asker(route, role, number): the answer to a person, or a token, of that role."""

    browsers: dict[str, Browser] = {}

    def ask(route: Route, role: str, number: int = 1) -> TestResponse:
        if route.of_api:
            body = {"json": {}} if route.method in auth.UNSAFE else {}
            return house.test_client().open(
                route.path(number), method=route.method, headers=api[role], **body, buffered=True
            )
        if route.method not in auth.UNSAFE:
            browser = browsers.get(role) or browsers.setdefault(role, signed_in(house, users[role]))
            return browser.client.open(route.path(number), method=route.method, buffered=True)
        browsers.pop(role, None)  # a deed may end the login session
        browser = signed_in(house, users[role])
        return browser.client.open(
            route.path(number), method=route.method, headers={"X-CSRFToken": browser.csrf()}, buffered=True
        )

    return ask


def closed(app: Flask) -> list[Route]:
    """The routes that ask for a role."""
    found = [route for route in routes(app) if route.role in ROLES]
    assert len(found) > 60
    return found


def test_strangers_are_sent_away(house: Flask) -> None:
    wrong = []
    for route in closed(house):
        answer = Browser(house).client.open(route.path(), method=route.method, buffered=True)
        good = answer.status_code == 401 if route.of_api else answer.headers.get("Location", "").startswith("/login")
        if not good:
            wrong.append((route, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_what_it_may_and_nothing_else(house: Flask, asker: Ask, role: str) -> None:
    wrong = []
    for route in closed(house):
        answer = asker(route, role)  # type: ignore[call-arg]
        if ROLES.index(role) < ROLES.index(route.role):
            good = answer.status_code == 403
        else:
            # /confirm refuses an empty password with 403, no provider answers in this test with 502
            good = answer.status_code == 502 or route.rule == "/confirm" or answer.status_code < 401
            good = good or 403 < answer.status_code < 500
        if not good:
            wrong.append((route, answer.status_code))
    assert wrong == []


@pytest.mark.parametrize("token", [None, "", "nonsense", "another"])
def test_no_change_without_the_right_csrf_token(house: Flask, users: dict[str, User], token: str | None) -> None:
    given = signed_in(house, users["viewer"]).csrf() if token == "another" else token
    wrong = []
    before = dump()
    for route in closed(house):
        if route.method not in auth.UNSAFE or route.of_api:
            continue
        browser = signed_in(house, users["admin"])
        for sent in (
            ({"data": {"csrf_token": given}}, {"headers": {"X-CSRFToken": given}}) if given is not None else ({},)
        ):
            answer = browser.client.open(route.path(), method=route.method, **sent, buffered=True)
            if answer.status_code != 400:
                wrong.append((route, answer.status_code))
    assert wrong == []
    assert dump() == before


def dump() -> dict[str, str]:
    """A digest of every table but those that looking itself writes to: sessions and the log."""
    found = {}
    for model in TABLES:
        name = model._meta.table_name
        if name in ("login_session", "audit", "api_token"):
            continue
        rows = repr(sorted(map(repr, db.rows(f"SELECT * FROM {name}"))))
        found[name] = hashlib.sha256(rows.encode()).hexdigest()
    return found


def test_looking_changes_nothing(house: Flask, asker: Ask) -> None:
    before = dump()
    for _twice in range(2):
        for route in routes(house):
            if route.method == "GET" and route.role in ROLES:
                asker(route, "admin")  # type: ignore[call-arg]
    assert dump() == before


def with_ids(app: Flask) -> Iterator[Route]:
    return (route for route in closed(app) if "<int:" in route.rule)


@pytest.mark.parametrize("number", UNKNOWN)
def test_an_unknown_id_is_not_found_whatever_is_asked(house: Flask, asker: Ask, number: int) -> None:
    wrong = []
    for route in with_ids(house):
        answer = asker(route, "admin", number)  # type: ignore[call-arg]
        if answer.status_code not in (404, 400, 422):  # a body that is refused first tells nothing either
            wrong.append((route, answer.status_code))
    assert wrong == []


def test_what_belongs_to_another_broadcast_is_not_found(house: Flask, asker: Ask) -> None:
    """The first number of the address is a broadcast that exists, the second one is another's."""
    other = make.broadcast(channel=Channel.get_by_id(1), name="Second")
    wrong = []
    for route in with_ids(house):
        if route.rule.count("<int:") < 2 or "/broadcasts/" not in route.rule:
            continue
        mixed = re.sub(r"<int:[^>]+>", str(other.id), route.rule, count=1)
        answer = asker(route._replace(rule=mixed), "admin")  # type: ignore[call-arg]
        if answer.status_code not in (404, 400, 422):
            wrong.append((route, answer.status_code))
    assert wrong == []


def test_an_unknown_id_and_one_that_may_not_be_seen_look_the_same(house: Flask, asker: Ask) -> None:
    """The hidden broadcast of a channel's single messages is no broadcast to anybody."""
    hidden = make.broadcast(channel=Channel.get_by_id(1), kind="direct")
    for route in (r for r in with_ids(house) if r.rule.startswith(("/broadcasts/<", "/api/v1/broadcasts/<"))):
        answer = asker(route, "admin", hidden.id)  # type: ignore[call-arg]
        assert answer.status_code in (404, 400, 422), route


def test_a_person_shut_out_is_out_everywhere(house: Flask, users: dict[str, User]) -> None:
    browser = signed_in(house, users["admin"])
    people.add_user("boss@example.org", "seven quiet rivers", "admin", actor="test")
    people.deactivate(users["admin"].id, actor="boss@example.org")
    for route in closed(house):
        if not route.of_api:
            answer = browser.client.open(route.path(), method=route.method, buffered=True)
            assert answer.headers.get("Location", "").startswith("/login"), route


@pytest.mark.parametrize("method", ["TRACE", "PUT", "OPTIONS", "HEAD", "PROPFIND"])
def test_other_methods_do_nothing(house: Flask, users: dict[str, User], method: str) -> None:
    before = dump()
    for route in routes(house):
        browser = signed_in(house, users["admin"])
        answer = browser.client.open(route.path(), method=method, buffered=True)
        assert answer.status_code != 500, (route, method)
        if method in ("TRACE", "PROPFIND"):
            assert answer.status_code in (404, 405), (route, method)
    assert dump() == before
