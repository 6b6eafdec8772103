"""Conversations over the API: found, read, answered once, and never begun by us."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import make
from tests.conftest import Clock
from worker import channels, clock, db, delivery, inbox
from worker.models import Channel, Conversation, Direct, Message, MessageTemplate, User
from worker.providers import base
from worker.settings import Settings

ANNA, BORIS = "+79010000001", "+79010000002"
Api = dict[str, dict[str, str]]


@pytest.fixture
def waba(database: Settings, settings: Settings, frozen: Clock) -> Channel:
    return channels.ensure_sandbox(settings)[0]


def heard(channel: Channel, text: str = "hello", phone: str = ANNA, **facts: Any) -> Conversation:
    item = base.InboundMessage(f"in-{clock.now()}-{phone}-{text}", phone, clock.now(), text=text, **facts)
    with db.write():
        delivery.receive_inbound(channel.id, item, clock.now())
    return Conversation.get((Conversation.channel_id == channel.id) & (Conversation.phone == phone))


def ask(client: FlaskClient, api: Api, method: str, path: str, role: str = "sender", **given: Any) -> Any:
    headers = {**api[role], "Accept-Language": "en", **given.pop("headers", {})}
    return client.open(f"/api/v1/conversations{path}", method=method, headers=headers, **given)


def test_it_has_the_shape_that_was_agreed(client: FlaskClient, api: Api, waba: Channel, frozen: Clock) -> None:
    broadcast = make.broadcast(channel=waba, template_name="gone", template_language="en", state="finished")
    sent = {"phone": ANNA, "row": f'["{ANNA}"]', "sending_at": clock.now(), "provider_id": "wamid.1"}
    (message,) = make.messages(make.file(broadcast), "read", **sent)
    frozen.tick(minutes=1)
    row = heard(waba, "hi", name="Anna")
    answer = ask(client, api, "GET", "?unread=1").json
    assert answer == {
        "items": [
            {
                "id": row.id,
                "channel_id": waba.id,
                "phone": ANNA,
                "name": "Anna",
                "unread": 1,
                "state": "open",
                "assignee": None,
                "broadcast_id": broadcast.id,
                "window_until": clock.iso(clock.now() + inbox.WINDOW),
                "last_at": clock.iso(clock.now()),
                "last_text": "hi",
            }
        ],
        "next": None,
    }
    whole = ask(client, api, "GET", f"/{row.id}").json
    assert {name: whole[name] for name in answer["items"][0]} == answer["items"][0]
    above, reply = whole["messages"]
    assert (above["id"], above["direction"], above["status"], above["broadcast_id"]) == (
        message.id,
        "out",
        "read",
        broadcast.id,
    )
    facts = {"direction": "in", "kind": "text", "text": "hi", "status": None, "broadcast_id": broadcast.id}
    assert {name: reply[name] for name in facts} == facts
    assert Conversation.get().unread == 1  # looking by API reads nothing


def test_an_answer_is_queued_once_whatever_the_line_does(client: FlaskClient, api: Api, waba: Channel) -> None:
    row = heard(waba)
    headers = {"Idempotency-Key": "17"}
    first, second = (
        ask(client, api, "POST", f"/{row.id}/messages", json={"text": "Yes"}, headers=headers) for _ in range(2)
    )
    assert (first.status_code, first.json["status"], first.json["text"]) == (201, "queued", "Yes")
    assert first.json["id"] == second.json["id"] == Message.get().id
    assert ask(client, api, "POST", f"/{row.id}/messages", json={"text": "Yes"}).json["id"] != first.json["id"]


def test_outside_the_window_only_a_template_goes(client: FlaskClient, api: Api, waba: Channel, frozen: Clock) -> None:
    facts = {"status": "APPROVED", "category": "UTILITY", "synced_at": 1}
    components = [{"type": "BODY", "text": "{{1}}, we are here"}]
    MessageTemplate.create(channel=waba, name="here", language="en", components=components, **facts)
    row = heard(waba)
    frozen.tick(hours=24)
    refused = ask(client, api, "POST", f"/{row.id}/messages", json={"text": "Yes"})
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "window_closed")
    template = {"name": "here", "language": "en"}
    for variables in ({"body.1": "Anna"}, {"body.1": {"value": "Anna"}}):
        given = {"template": template, "variables": variables}
        sent = ask(client, api, "POST", f"/{row.id}/messages", json=given)
        assert (sent.status_code, sent.json["kind"], sent.json["text"]) == (201, "template", "Anna, we are here")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "text_required"),
        ({"text": 5}, "text_invalid"),
        ({"text": ["x"]}, "text_invalid"),
        ({"template": "here"}, "template_required"),
        ({"template": {"name": "here"}}, "template_required"),
        ({"template": {"name": "no", "language": "en"}}, "template_unknown"),
        ({"text": "x", "variables": "y"}, "variables_invalid"),
        ({"words": "x"}, "unknown_field"),
        ({"text": "x" * 4_097}, "text_too_long"),
    ],
)
def test_bad_answers_are_refused_in_words(
    client: FlaskClient, api: Api, waba: Channel, given: dict[str, Any], code: str
) -> None:
    row = heard(waba)
    answer = ask(client, api, "POST", f"/{row.id}/messages", json=given)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, code)
    assert Direct.select().count() == 0


def test_somebody_on_the_stop_list_is_answered_knowingly(client: FlaskClient, api: Api, waba: Channel) -> None:
    row = heard(waba, "STOP")
    refused = ask(client, api, "POST", f"/{row.id}/messages", json={"text": "Sorry"})
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "optout_unconfirmed")
    given = {"text": "Sorry", "confirm_optout": True}
    assert ask(client, api, "POST", f"/{row.id}/messages", json=given).status_code == 201


def test_it_is_assigned_read_closed_and_opened(
    client: FlaskClient, api: Api, waba: Channel, users: dict[str, User]
) -> None:
    row = heard(waba)
    # A token is nobody who could take it.
    assert ask(client, api, "POST", f"/{row.id}/assign").status_code == 422
    given = {"user": users["admin"].email}
    assert ask(client, api, "POST", f"/{row.id}/assign", json=given).json["assignee"] == given["user"]
    assert len(ask(client, api, "GET", f"?assignee={given['user']}").json["items"]) == 1
    assert ask(client, api, "GET", "?assignee=nobody@example.org").json["items"] == []
    assert ask(client, api, "POST", f"/{row.id}/assign", json={"user": None}).json["assignee"] is None
    assert ask(client, api, "POST", f"/{row.id}/read").json["unread"] == 0
    assert ask(client, api, "POST", f"/{row.id}/close").json["state"] == "closed"
    assert len(ask(client, api, "GET", "?state=closed").json["items"]) == 1
    assert ask(client, api, "POST", f"/{row.id}/reopen").json["state"] == "open"


def test_pages_of_conversations_and_of_messages(client: FlaskClient, api: Api, waba: Channel, frozen: Clock) -> None:
    for n in range(5):
        frozen.tick(seconds=1)
        heard(waba, f"message {n}")
        heard(waba, phone=f"+7902000000{n}")
    page = ask(client, api, "GET", "?limit=4").json
    rest = ask(client, api, "GET", f"?limit=4&after={page['next']}").json
    assert len({one["id"] for one in page["items"] + rest["items"]}) == 6 and rest["next"] is None
    whole = ask(client, api, "GET", "/1?limit=3").json
    earlier = ask(client, api, "GET", f"/1?limit=3&before={whole['earlier']}").json
    texts = [message["text"] for message in earlier["messages"] + whole["messages"]]
    assert texts == [f"message {n}" for n in range(5)] and earlier["earlier"] is None


@pytest.mark.parametrize("query", ["?after=x", "?state=lost", "?channel_id=x", "/1?before=x", "?limit=x"])
def test_made_up_parameters_are_refused(client: FlaskClient, api: Api, waba: Channel, query: str) -> None:
    heard(waba)
    assert ask(client, api, "GET", query).status_code == 422


def test_a_viewer_and_a_stranger_see_nothing(client: FlaskClient, api: Api, waba: Channel) -> None:
    row = heard(waba)
    for method, path in (
        ("GET", ""),
        ("GET", f"/{row.id}"),
        ("POST", f"/{row.id}/messages"),
        ("POST", f"/{row.id}/read"),
    ):
        assert ask(client, api, method, path, "viewer", json={}).status_code == 403
        assert client.open(f"/api/v1/conversations{path}", method=method).status_code == 401
    assert ask(client, api, "GET", "/2").status_code == 404
    assert ask(client, api, "POST", "/2/messages", json={"text": "x"}).status_code == 404


def test_nobody_can_be_written_to_first(client: FlaskClient, api: Api, waba: Channel) -> None:
    make.messages(make.file(make.broadcast(channel=waba)), "sent", phone=ANNA)
    assert ask(client, api, "GET", "").json["items"] == []
    assert ask(client, api, "POST", "", json={"phone": BORIS, "text": "hi"}).status_code == 405
