"""Channels: accounts that send, their templates and files."""

from __future__ import annotations

from typing import Any

from flask import Response, abort, jsonify, request
from flask_babel import gettext as _

from webapp import lookup, sentences, shapes
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from worker import channel_settings, channels, media
from worker.models import Channel, MessageTemplate
from worker.problems import Invalid, Problem
from worker.providers import PROVIDERS
from worker.providers.base import REFUSED, SendError


@api.get("/channels/providers")
@role("viewer")
def providers() -> Response:
    return jsonify({"items": [shapes.provider(key) for key in PROVIDERS], "next": None})


@api.get("/channels")
@role("viewer")
def channel_list() -> Response:
    rows = channels.living().order_by(Channel.id).limit(500)
    return jsonify({"items": [_channel(row) for row in rows], "next": None})


@api.post("/channels")
@role("admin")
def channel_create() -> tuple[Response, int]:
    given = base.known(base.body(), channel_settings.FIELDS | {"kind", "provider"})
    return jsonify(_channel(channels.add(lookup.settings(), given, me().name))), 201


@api.get("/channels/<int:number>")
@role("viewer")
def channel_one(number: int) -> Response:
    return jsonify(_channel(lookup.channel(number)))


@api.patch("/channels/<int:number>")
@role("admin")
def channel_change(number: int) -> Response:
    row = lookup.channel(number)
    given = base.known(base.body(), channel_settings.FIELDS | {"kind", "provider", "state"})
    for name in ("provider", "kind"):
        if given.pop(name, getattr(row, name)) != getattr(row, name):
            raise Invalid({name: Problem("provider_fixed")})
    state = given.pop("state", None)
    if state not in (None, "on", "stopped"):
        raise Invalid({"state": Problem("not_a_choice")})
    row = channels.change(lookup.settings(), row, given, me().name)
    if state is not None:
        (channels.switch_on if state == "on" else channels.switch_off)(row.id, me().name)
    return jsonify(_channel(lookup.channel(number)))


@api.delete("/channels/<int:number>")
@role("admin")
def channel_delete(number: int) -> tuple[str, int]:
    channels.delete(lookup.channel(number), me().name)
    return "", 204


def _channel(row: Channel) -> dict[str, Any]:
    return shapes.channel(lookup.settings(), row, whole=me().can("sender"))


@api.get("/channels/<int:number>/templates")
@role("viewer")
def channel_templates(number: int) -> Response:
    rows = MessageTemplate.select().where(MessageTemplate.channel == lookup.channel(number).id).limit(7_000)
    return jsonify({"items": [shapes.template(row) for row in rows], "next": None})


@api.post("/channels/<int:number>/templates/sync")
@role("sender")
def channel_sync(number: int) -> Response:
    row = lookup.channel(number)
    if row.kind != "waba":
        raise ApiError(409, "not_allowed", _("This channel has no templates"), allowed=[])
    try:
        channels.sync_templates(lookup.settings(), row.id)
    except SendError as error:
        raise ApiError(502, error.cause, sentences.failed_call(error.cause, error.detail)) from error
    return channel_templates(number)


@api.post("/channels/<int:number>/check")
@role("sender")
def channel_check(number: int) -> Response:
    return jsonify(shapes.findings(channels.check(lookup.settings(), lookup.channel(number))))


@api.post("/channels/<int:number>/media")
@role("sender")
def channel_media(number: int) -> tuple[Response, int]:
    row = lookup.channel(number)
    if "media" not in PROVIDERS[row.provider].supports:
        abort(404)
    given = request.files.get("file")
    if given is None or not given.filename:
        raise ApiError(422, "invalid", _("Choose a file"), fields={"file": _("Choose a file")})
    try:
        made = media.upload(lookup.settings(), row, given.read(), given.filename, me().name)
    except SendError as error:
        refused = error.outcome == REFUSED
        raise ApiError(
            422 if refused else 502, error.cause, sentences.failed_call(error.cause, error.detail)
        ) from error
    return jsonify({"id": made.media_id, "name": made.name, "mime": made.mime, "expires_at": made.at + media.LIFE}), 201


@api.post("/channels/<int:number>/register")
@role("admin")
def channel_register(number: int) -> Response:
    row = lookup.channel(number)
    if "register" not in PROVIDERS[row.provider].supports:
        abort(404)
    return jsonify(shapes.findings(channels.register(lookup.settings(), row, me().name)))
