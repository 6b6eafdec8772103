"""The inbox: what people said, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, jsonify, request
from flask_babel import gettext as _

from webapp import lookup, shapes
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from worker import inbox, talk, tasks
from worker.models import Conversation
from worker.problems import Invalid, Problem


@api.get("/conversations")
@role("sender")
def conversation_list() -> Response:
    chosen = inbox.Filter(
        unread=request.args.get("unread", "").lower() in ("1", "true", "yes"),
        assignee_id=_operator(request.args.get("assignee", "")),
        state=request.args.get("state", ""),
        channel_id=base.number("channel_id"),
        broadcast_id=base.number("broadcast_id"),
        q=request.args.get("q", "")[:200],
    )
    try:
        page = inbox.find(chosen, request.args.get("after", ""), base.number("limit", inbox.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": shapes.conversations(page.items), "next": page.next})


def _operator(email: str) -> int | None:
    """The operator with this e-mail; -1, which is nobody's number, when there is none."""
    if not email:
        return None
    return next((user.id for user in inbox.operators() if user.email == email), -1)


@api.get("/conversations/<int:number>")
@role("sender")
def conversation_one(number: int) -> Response:
    return _conversation(lookup.conversation(number))


def _conversation(row: Conversation) -> Response:
    try:
        page = talk.page(row, request.args.get("before", "")[:200], base.number("limit", talk.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify(shapes.whole_conversation(row, page))


@api.post("/conversations/<int:number>/messages")
@role("sender")
@base.repeatable
def conversation_answer(number: int) -> tuple[Response, int]:
    row = lookup.conversation(number)
    given = base.known(base.body(), frozenset({"text", "template", "variables", "confirm_optout"}))
    made = inbox.answer(lookup.settings(), row, _answer(given), me().name)
    tasks.wake(0)
    return jsonify(shapes.entry(talk.answer(made.id))), 201


def _answer(given: Mapping[str, Any]) -> inbox.Given:
    text, template, variables = given.get("text") or "", given.get("template"), given.get("variables") or {}
    if not isinstance(text, str):
        raise Invalid({"text": Problem("text_invalid")})
    if template is not None and not isinstance(template, Mapping):
        raise Invalid({"template": Problem("template_required")})
    if not isinstance(variables, Mapping):
        raise Invalid({"variables": Problem("variables_invalid")})
    values = {
        str(slot): str((one.get("value") or "") if isinstance(one, Mapping) else one) for slot, one in variables.items()
    }
    pair = None if template is None else (str(template.get("name", "")), str(template.get("language", "")))
    return inbox.Given(text, pair, values, given.get("confirm_optout") is True)


@api.post("/conversations/<int:number>/<any(close, reopen, read):action>")
@role("sender")
def conversation_act(number: int, action: str) -> Response:
    row = lookup.conversation(number)
    if action == "read":
        inbox.read(row)
    else:
        (inbox.close if action == "close" else inbox.reopen)(row, me().name)
    return _conversation(lookup.conversation(number))


@api.post("/conversations/<int:number>/assign")
@role("sender")
def conversation_assign(number: int) -> Response:
    """To whoever asks, to `user`, or with null to nobody."""
    row = lookup.conversation(number)
    given = base.known(base.body(), frozenset({"user"})) if request.get_data() else {}
    user = given.get("user", me().name)
    inbox.assign(row, None if user is None else str(user), me().name)
    return _conversation(lookup.conversation(number))
