"""Broadcasts: what is sent to whom, and its state."""

from __future__ import annotations

from flask import Response, jsonify, request

from webapp import controls, drafts, exports, lookup, shapes
from webapp.api import base
from webapp.api.base import api
from webapp.auth import me, role
from worker import approvals, broadcasts, canary, tasks
from worker.models import Broadcast
from worker.problems import Invalid, Problem

FIELDS = frozenset(
    {
        *("name", "channel_id", "text", "template", "variables", "region", "ignore_duplicates"),
        *("on_file_delete", "rate_per_minute", "send_at", "timezone", "quiet_hours", "cooldown_days"),
    }
)
LISTED = 50


@api.get("/broadcasts")
@role("viewer")
def broadcast_list() -> Response:
    rows = broadcasts.find(
        request.args.get("name", "")[:200], request.args.get("state", "")[:20], base.number("after"), LISTED + 1
    )
    following = str(rows[LISTED - 1].id) if len(rows) > LISTED else None
    return jsonify({"items": [shapes.broadcast(row) for row in rows[:LISTED]], "next": following})


@api.post("/broadcasts")
@role("sender")
@base.repeatable
def broadcast_create() -> tuple[Response, int]:
    values = base.known(base.body(), FIELDS)
    return jsonify(shapes.broadcast(broadcasts.create(lookup.settings(), values, me().name))), 201


@api.get("/broadcasts/<int:number>")
@role("viewer")
def broadcast_one(number: int) -> Response:
    row = lookup.broadcast(number)
    return jsonify(shapes.broadcast(row, base.run_of(row.run)))


@api.patch("/broadcasts/<int:number>")
@role("sender")
def broadcast_change(number: int) -> Response:
    row, again = broadcasts.update(
        lookup.settings(), lookup.broadcast(number), base.known(base.body(), FIELDS), me().name
    )
    if again:
        drafts.check_again(row)
    tasks.wake(row.id)
    return jsonify(shapes.broadcast(row))


@api.delete("/broadcasts/<int:number>")
@role("sender")
def broadcast_delete(number: int) -> tuple[str, int]:
    broadcasts.delete(lookup.broadcast(number), me().name)
    return "", 204


@api.post("/broadcasts/<int:number>/<any(start, stop, resume, clear, restart):action>")
@role("sender")
def broadcast_act(number: int, action: str) -> Response:
    given = base.body() if request.get_data() else {}
    taken = {"restart": frozenset({"who", "cause"}), "start": frozenset({"canary", "pick"})}
    given = base.known(given, taken.get(action, frozenset()))
    first = given.get("canary")
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or first < 1):
        raise Invalid({"canary": Problem("canary_range", {"max": canary.MAX})})
    chosen = {name: str(given[name]) for name in ("who", "cause", "pick") if given.get(name) is not None}
    row = controls.press(lookup.settings(), lookup.broadcast(number), action, me().name, first=first, **chosen)
    return jsonify(shapes.broadcast(row))


@api.post("/broadcasts/<int:number>/approve")
@role("sender")
def broadcast_approve(number: int) -> Response:
    row = lookup.broadcast(number)
    if not approvals.approve(row, me().name):
        raise broadcasts.NotAllowed("approve", Broadcast.get_by_id(row.id))
    return jsonify(shapes.broadcast(lookup.broadcast(number)))


@api.get("/broadcasts/<int:number>/sample.csv")
@role("viewer")
def broadcast_sample(number: int) -> Response:
    content = broadcasts.content(lookup.broadcast(number))
    return exports.sample_csv(content.columns if content else [], lookup.language())
