"""Webhooks: addresses that are told what happens here."""

from __future__ import annotations

from flask import Response, jsonify

from webapp import lookup, shapes
from webapp.api import base
from webapp.api.base import api
from webapp.auth import me, role
from worker import webhooks

FIELDS = frozenset({"url", "events"})
LISTED = 50


@api.get("/webhooks")
@role("admin")
def webhook_list() -> Response:
    return jsonify({"items": [shapes.webhook(row) for row in webhooks.all_of_them()], "next": None})


@api.post("/webhooks")
@role("admin")
def webhook_create() -> tuple[Response, int]:
    row, secret = webhooks.add(lookup.settings(), base.known(base.body(), FIELDS), me().name)
    return jsonify({**shapes.webhook(row), "secret": secret}), 201


@api.get("/webhooks/<int:number>")
@role("admin")
def webhook_one(number: int) -> Response:
    return jsonify(shapes.webhook(lookup.webhook(number)))


@api.patch("/webhooks/<int:number>")
@role("admin")
def webhook_change(number: int) -> Response:
    row = lookup.webhook(number)
    given = base.known(base.body(), FIELDS | {"state"})
    return jsonify(shapes.webhook(webhooks.change(lookup.settings(), row, given, me().name)))


@api.delete("/webhooks/<int:number>")
@role("admin")
def webhook_delete(number: int) -> tuple[str, int]:
    webhooks.remove(lookup.webhook(number), me().name)
    return "", 204


@api.post("/webhooks/<int:number>/test")
@role("admin")
def webhook_test(number: int) -> Response:
    return jsonify(shapes.outcome(webhooks.test(lookup.settings(), lookup.webhook(number))))


@api.get("/webhooks/<int:number>/deliveries")
@role("admin")
def webhook_deliveries(number: int) -> Response:
    rows = webhooks.deliveries(lookup.webhook(number).id, base.number("after"), LISTED + 1)
    following = str(rows[LISTED - 1].id) if len(rows) > LISTED else None
    return jsonify({"items": [shapes.webhook_delivery(row) for row in rows[:LISTED]], "next": following})
