"""Before the start: the pre-flight sheet, what a phone will show, tests to one's own number."""

from __future__ import annotations

from flask import Response, jsonify, request
from flask_babel import gettext as _

from webapp import lookup, sentences, shapes, sheet
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from webapp.limits import limited
from worker import direct, preview, tasks
from worker.problems import Invalid, Problem


@api.get("/broadcasts/<int:number>/preflight")
@role("viewer")
def broadcast_preflight(number: int) -> Response:
    row = lookup.broadcast(number)
    return jsonify(shapes.preflight(row, sheet.of(lookup.settings(), row)))


@api.errorhandler(preview.Missing)
def _missing(error: preview.Missing) -> tuple[Response, int]:
    text = sentences.problem(error.problem)
    return jsonify({"error": {"code": error.problem.code, "message": text}}), 404 if error.absent else 422


@api.get("/broadcasts/<int:number>/preview")
@role("sender")
def broadcast_preview(number: int) -> Response:
    which = request.args.get("which", preview.FIRST)
    if which not in preview.WHICH:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={"which": which[:50]})
    line, file, after = base.number("line"), base.number("file"), base.number("after", 0) or 0
    return jsonify(shapes.preview(preview.find(lookup.broadcast(number), which, line=line, file=file, after=after)))


@api.get("/broadcasts/<int:number>/tests")
@role("sender")
def broadcast_tests(number: int) -> Response:
    found = direct.tests_of(lookup.broadcast(number).id)
    return jsonify({"items": [shapes.test(row) for row in found], "next": None})


@api.post("/broadcasts/<int:number>/test")
@role("sender")
@limited("test")
@base.repeatable
def broadcast_test(number: int) -> tuple[Response, int]:
    row, given = lookup.broadcast(number), base.known(base.body(), frozenset({"phone", "line", "file"}))
    place = {name: given.get(name) for name in ("line", "file")}
    if wrong := [name for name, value in place.items() if not isinstance(value, int | None) or value is True]:
        raise Invalid({name: Problem("not_whole") for name in wrong})
    number_ = given.get("phone")
    made = preview.send_test(lookup.settings(), row, number_ if isinstance(number_, str) else "", me().name, **place)
    tasks.wake(row.id)
    return jsonify(shapes.test(direct.by_ids([made.id])[0])), 201
