"""What became of the messages."""

from __future__ import annotations

from flask import Response, abort, jsonify, request
from flask_babel import gettext as _

from webapp import exports, lookup, shapes
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from webapp.limits import limited
from worker import broadcasts, delivery, reports, statistics, tasks
from worker.models import Broadcast
from worker.states import MESSAGE_STATUSES


@api.get("/broadcasts/<int:number>/messages")
@role("viewer")
def broadcast_messages(number: int) -> Response:
    row = lookup.broadcast(number)
    try:
        page = reports.messages(
            row, _chosen(row), request.args.get("after", ""), base.number("limit", reports.PAGE) or 1
        )
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": [shapes.message(item) for item in page.items], "next": page.next})


def _chosen(row: Broadcast) -> reports.Filter:
    """The messages that the address asks for."""
    status = request.args.get("status", "")
    if status and status not in MESSAGE_STATUSES:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={"status": ""})
    return reports.Filter(
        run=base.run_of(row.run),
        status=status,
        cause=request.args.get("cause", ""),
        file_id=base.number("file"),
        phone=lookup.phone_filter(),
    )


@api.get("/broadcasts/<int:number>/report")
@role("viewer")
def broadcast_figures(number: int) -> Response:
    row = lookup.broadcast(number)
    run = base.run_of(row.run)
    facts, due = statistics.facts(row, run)
    if due:
        tasks.count_report(row.id, run)
    return jsonify(shapes.report(row, run, facts, due))


@api.get("/broadcasts/<int:number>/report.csv")
@role("viewer")
@limited("export")
def broadcast_report(number: int) -> Response:
    row = lookup.broadcast(number)
    return exports.report_csv(row, _chosen(row), lookup.language())


@api.get("/broadcasts/<int:number>/report.xlsx")
@role("viewer")
@limited("export")
def broadcast_workbook(number: int) -> Response:
    row = lookup.broadcast(number)
    return exports.report_xlsx(row, _chosen(row))


@api.post("/messages/<int:number>/resolve")
@role("sender")
def message_resolve(number: int) -> Response:
    how = base.known(base.body(), frozenset({"as"})).get("as")
    if how not in ("sent", "resend"):
        raise broadcasts.Invalid({"as": broadcasts.Problem("not_a_choice")})
    row = reports.message(number) if number < 2**62 else None
    if row is None:
        abort(404)
    if not delivery.resolve(number, how, me().name):
        raise ApiError(409, "not_allowed", _("The message is not uncertain any more"), allowed=[])
    fresh = reports.message(number)
    tasks.wake(0)
    return jsonify(shapes.message(fresh) if fresh else {})
