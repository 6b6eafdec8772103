"""Callbacks of the providers: checked over the raw bytes, stored in one insert, answered; the worker does the rest."""

from __future__ import annotations

import peewee
from flask import Blueprint, Response, abort, current_app, request

from webapp.auth import public
from worker import channels, delivery
from worker.models import Channel
from worker.providers.base import RawCallback

hooks = Blueprint("hooks", __name__, url_prefix="/hooks")

BODY_MAX = 3 * 1024 * 1024
HEADERS = ("content-type", "x-hub-signature-256", "x-sandbox-signature")


@hooks.route("/<key>", methods=["GET", "POST"])
@hooks.route("/<key>/<any(status, inbound):path>", methods=["GET", "POST"])
@public
def callback(key: str, path: str = "") -> Response:
    """200 once the callback is on the disk; 403 for a forged one, 503 when it could not be stored."""
    try:
        return _take(key, path)
    except peewee.OperationalError:
        # The provider repeats what was not answered with 200.
        return Response("try again", status=503, mimetype="text/plain")


def _take(key: str, path: str) -> Response:
    channel = Channel.get_or_none(Channel.key == key)
    if channel is None:
        abort(404)
    if (request.content_length or 0) > BODY_MAX:
        abort(413)
    # Counted while reading as well: a chunked body declares no length.
    request.max_content_length = BODY_MAX
    raw = RawCallback(
        request.method,
        path,
        request.args.to_dict(),
        {name.lower(): value for name, value in request.headers.items() if name.lower() in HEADERS},
        request.get_data(cache=False),
    )
    provider = channels.provider_of(current_app.extensions["molva"].settings, channel)
    if request.method == "GET":
        answer = provider.handshake(raw)
        if answer is None:
            abort(403)
        return Response(answer, mimetype="text/plain")
    if not provider.verify(raw):
        abort(403)
    delivery.receive(channel, raw)
    return Response("", status=200, mimetype="text/plain")
