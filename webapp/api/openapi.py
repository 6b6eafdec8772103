"""/api/v1/openapi.json: what every route takes and answers, as OpenAPI 3.1.

Method, path, role and parameters of the path come from the routes themselves; what only a person can say stands in
OPERATIONS. A test holds the two together, and every answer of the API tests to its description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Response, current_app, jsonify
from werkzeug.routing import Rule

from webapp import auth
from webapp.api import base
from webapp.api.base import api
from webapp.api.schemas import ID, SCHEMAS, Schema, listed, of, taken
from webapp.auth import public
from worker import inbox, optouts, preview, reports, talk
from worker.states import BROADCAST_STATES, MESSAGE_STATUSES

CSV, JSON, FORM = "text/csv", "application/json", "multipart/form-data"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ERROR = of("@Error")


@dataclass(frozen=True)
class Operation:
    """What one view does, beside what its route says.

    `answer`: the schema of a success, None for an empty one. `query`: the parameters behind the question mark.
    `refusals`: what it answers beyond 401 (no token), 403 (not with this role), 404 where the path has an id, and
    400 and 422 where it takes something.
    """

    summary: str
    answer: Any = None
    status: int = 200
    also: tuple[int, ...] = ()  # other statuses of a success: nothing new was made
    body: Any = None
    media: str = JSON  # of the answer
    form: bool = False  # the body is a form with a file
    optional: bool = False  # the body may be missing
    query: tuple[tuple[str, Any], ...] = ()
    refusals: tuple[int, ...] = ()


WORD: Schema = {"type": "string", "maxLength": 200}
NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
AFTER = ("after", WORD)
RUN = ("run", {"anyOf": [NUMBER, {"const": "all"}], "description": "A number or all; else the current run"})
EARLIER = (("before", WORD), ("limit", {"type": "integer", "minimum": 1, "maximum": talk.PAGE_MAX}))
CHOSEN = (("status", MESSAGE_STATUSES), ("cause", WORD), RUN, ("phone", WORD), ("file", NUMBER))
FILE: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}

OPERATIONS: dict[str, Operation] = {
    "description": Operation("This description", {"type": "object"}),
    # channels
    "providers": Operation("The providers and their settings", listed("@Provider")),
    "channel_list": Operation("The channels", listed("@Channel")),
    "channel_create": Operation("Add a channel", "@Channel", 201, body="@NewChannel"),
    "channel_one": Operation("One channel", "@Channel"),
    "channel_change": Operation("Change a channel", "@Channel", body="@ChannelChange", refusals=(409,)),
    "channel_delete": Operation("Delete a channel that no broadcast needs", None, 204, refusals=(409,)),
    "channel_templates": Operation("The approved and other templates of a channel", listed("@Template")),
    "channel_sync": Operation("Fetch the templates from the provider", listed("@Template"), refusals=(409, 502)),
    "channel_check": Operation("Ask the provider whether the settings work", "@Findings", refusals=(409,)),
    "channel_media": Operation(
        "Hand a file over for the headers of templates",
        "@Media",
        201,
        body=taken("file", file=FILE),
        form=True,
        refusals=(409, 413, 502),
    ),
    "channel_register": Operation("Have the provider send its callbacks here", "@Findings", refusals=(409,)),
    # tools
    "sms_segments": Operation("Count the segments of a text", "@Segments", body=taken("text", text="string")),
    "phones_parse": Operation(
        "Read phone numbers", ["@Phone"], body=taken("phones", phones=["string"], region="string")
    ),
    # broadcasts
    "broadcast_list": Operation(
        "Broadcasts, latest first", listed("@Broadcast"), query=(("name", WORD), ("state", BROADCAST_STATES), AFTER)
    ),
    "broadcast_create": Operation("Make a draft", "@Broadcast", 201, body="@NewBroadcast"),
    "broadcast_one": Operation("One broadcast", "@Broadcast", query=(RUN,)),
    "broadcast_change": Operation("Change a broadcast", "@Broadcast", body="@BroadcastChange", refusals=(409,)),
    "broadcast_delete": Operation("Delete a broadcast that sent nothing", None, 204, refusals=(409, 422)),
    "broadcast_act": Operation("Press a button", "@Broadcast", body="@Action", optional=True, refusals=(409,)),
    "broadcast_approve": Operation("Approve as a second person", "@Broadcast", refusals=(409, 422)),
    "broadcast_preflight": Operation("What will happen at the start, and what forbids it", "@Preflight"),
    "broadcast_preview": Operation(
        "One message as the phone shows it",
        "@Preview",
        query=(("which", preview.WHICH), ("line", NUMBER), ("file", NUMBER), ("after", NUMBER)),
    ),
    "broadcast_tests": Operation("The latest tests", listed("@Test")),
    "broadcast_test": Operation("Send one message to a number of one's own", "@Test", 201, body="@NewTest"),
    "broadcast_sample": Operation("A file with the columns that the broadcast needs", {"type": "string"}, media=CSV),
    "broadcast_messages": Operation(
        "The messages, in the order of the files",
        listed("@Message"),
        query=(*CHOSEN, AFTER, ("limit", {"type": "integer", "minimum": 1, "maximum": reports.PAGE_MAX})),
    ),
    "broadcast_figures": Operation("The numbers of the report", "@Report", query=(RUN,)),
    "broadcast_report": Operation("Messages with their columns", {"type": "string"}, media=CSV, query=CHOSEN),
    "broadcast_workbook": Operation("Messages with their columns", {"type": "string"}, media=XLSX, query=CHOSEN),
    "message_resolve": Operation(
        "Settle an uncertain message", "@Message", body=taken("as", **{"as": ("sent", "resend")}), refusals=(409,)
    ),
    # files
    "file_upload": Operation(
        "Add a file of recipients; it is checked in the background",
        "@File",
        202,
        body=taken("file", file=FILE, encoding="string", delimiter="string", phone_column="string"),
        form=True,
        refusals=(409, 413),
    ),
    "file_list": Operation("The files of a broadcast", listed("@FileInfo")),
    "file_one": Operation("One file and what is wrong with it", "@File"),
    "file_errors": Operation("Every refused row", {"type": "string"}, media=CSV),
    "file_delete": Operation(
        "Remove a file", "@Broadcast", query=(("on_delete", ("keep", "remove")),), refusals=(409,)
    ),
    # the stop list
    "optout_list": Operation(
        "Who gets no broadcast, latest first",
        listed("@OptOut"),
        query=(
            ("phone", WORD),
            ("source", optouts.SOURCES),
            ("scope", optouts.SCOPES),
            AFTER,
            ("limit", {"type": "integer", "minimum": 1, "maximum": optouts.PAGE_MAX}),
        ),
    ),
    "optout_add": Operation("Put a number on it", "@OptOut", 201, also=(200,), body="@NewOptOut"),
    "optout_remove": Operation("Take a number off it; the proof stays", None, 204, query=(("reason", WORD),)),
    "optout_export": Operation("All of it", {"type": "string"}, media=CSV),
    # the inbox
    "conversation_list": Operation(
        "Conversations, latest first",
        listed("@Conversation"),
        query=(
            ("unread", ("1", "true", "yes")),
            ("assignee", WORD),
            ("state", ("open", "closed")),
            ("channel_id", NUMBER),
            ("broadcast_id", NUMBER),
            ("q", WORD),
            AFTER,
            ("limit", {"type": "integer", "minimum": 1, "maximum": inbox.PAGE_MAX}),
        ),
    ),
    "conversation_one": Operation("One conversation with its latest messages", "@WholeConversation", query=EARLIER),
    "conversation_answer": Operation("Answer", "@Entry", 201, body="@Answer", refusals=(409,)),
    "conversation_act": Operation("Close, reopen, mark as read", "@WholeConversation", query=EARLIER),
    "conversation_assign": Operation(
        "Give it to whoever asks, to an operator by e-mail, or to nobody",
        "@WholeConversation",
        body=taken(user="string?"),
        optional=True,
        query=EARLIER,
    ),
    # webhooks
    "webhook_list": Operation("The webhooks", listed("@Webhook")),
    "webhook_create": Operation("Add a webhook; the answer has its secret", "@NewWebhook", 201, body="@WebhookFields"),
    "webhook_one": Operation("One webhook", "@Webhook"),
    "webhook_change": Operation("Change a webhook, or switch it on or off", "@Webhook", body="@WebhookChange"),
    "webhook_delete": Operation("Delete a webhook with its log", None, 204),
    "webhook_test": Operation("Send a test event now", "@Outcome"),
    "webhook_deliveries": Operation("The latest tries to tell it something", listed("@Delivery"), query=(AFTER,)),
}

MEANINGS = {
    400: "The body cannot be read",
    401: "No token, or one that is not valid any more",
    403: "Not with the role of this token",
    404: "There is nothing with this id",
    409: "Not possible in this state",
    413: "Too large",
    422: "Some value cannot be used; `fields` says which",
    429: "Too many requests, try again later",
    502: "The provider did not answer, or refused",
    503: "The server cannot do it now, try again",
}


@api.get("/openapi.json")
@public
def description() -> Response:
    """The description of this API. It tells nothing of this installation, so that any tool may fetch it."""
    return jsonify(build())


def build() -> Schema:
    """The whole document."""
    paths: dict[str, Schema] = {}
    for rule, method, operation in operations():
        path = re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Molva", "version": "1", "description": "Broadcasts over WhatsApp and SMS"},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def operations() -> Iterator[tuple[Rule, str, Operation]]:
    """Every route of the API, by path, with each of its methods and what is said of it."""
    rules = (rule for rule in current_app.url_map.iter_rules() if rule.endpoint.startswith("api."))
    for rule in sorted(rules, key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method, OPERATIONS[rule.endpoint.removeprefix("api.")]


def _operation(rule: Rule, method: str, said: Operation) -> Schema:
    role = auth.declared(rule.endpoint)
    found: Schema = {
        "operationId": rule.endpoint.removeprefix("api."),
        "summary": said.summary,
        "tags": [rule.rule.split("/")[3].partition(".")[0]],
        "parameters": [
            *_path(rule),
            *(_parameter(name, "query", kind) for name, kind in said.query),
            *(_parameter(name, "header", kind) for name, kind in _headers(rule)),
        ],
        "responses": {
            **{str(status): _answer(said) for status in (said.status, *said.also)},
            **_refusals(rule, said, role),
        },
    }
    if role == "public":
        found["security"] = []
    else:
        found["description"] = f"Needs the role {role}."
    if said.body is not None:
        content = {FORM if said.form else JSON: {"schema": of(said.body)}}
        found["requestBody"] = {"required": not said.optional, "content": content}
    return found


def _path(rule: Rule) -> Iterator[Schema]:
    for converter, name in re.findall(r"<(?:([^<>]*):)?(\w+)>", rule.rule):
        choices = re.match(r"any\((.*)\)", converter)
        yield _parameter(name, "path", tuple(re.split(r",\s*", choices[1])) if choices else ID)


def _headers(rule: Rule) -> Iterator[tuple[str, Schema]]:
    if getattr(current_app.view_functions[rule.endpoint], "molva_repeatable", False):
        yield (
            "Idempotency-Key",
            {
                "type": "string",
                "pattern": f"^[ -~]{{1,{base.KEY_MAX}}}$",
                "description": "The same key and body again: the answer of the first call, for 24 hours",
            },
        )


def _parameter(name: str, where: str, kind: Any) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": of(kind)}


def _answer(said: Operation) -> Schema:
    if said.answer is None:
        return {"description": "Done"}
    return {"description": said.summary, "content": {said.media: {"schema": of(said.answer)}}}


def _refusals(rule: Rule, said: Operation, role: str | None) -> Schema:
    known = {503, *said.refusals}
    known |= set() if role == "public" else {401, 403}
    known |= {404} if rule.arguments else set()
    known |= {429} if getattr(current_app.view_functions[rule.endpoint], "molva_limited", False) else set()
    known |= {422} if said.body is not None or said.query else set()
    known |= {400} if said.body is not None else set()
    return {
        str(status): {"description": MEANINGS[status], "content": {JSON: {"schema": ERROR}}} for status in sorted(known)
    }
