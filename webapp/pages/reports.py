"""The report of a broadcast: who got it, why others did not, and the story of one message."""

from __future__ import annotations

import functools
from typing import Any

from flask import Blueprint, Response, abort, render_template, request, url_for
from flask_babel import gettext as _

from webapp import exports, glance, htmx, live, lookup, sentences
from webapp.auth import me, role, step_up
from webapp.limits import limited
from worker import audit, broadcasts, delivery, tasks
from worker import reports as use
from worker.models import Broadcast, RecipientFile
from worker.states import MESSAGE_STATUSES

reports = Blueprint("reports", __name__, url_prefix="/broadcasts/<int:number>")
FILTERS = ("run", "status", "cause", "file", "phone")
CAUSE_MAX = 100


def _whole(name: str) -> int | None:
    text = request.args.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        abort(404)
    return int(text)


def _run(row: Broadcast) -> int | None:
    """The run that the address asks for; None: all of them."""
    return None if request.args.get("run") == "all" else _whole("run") or row.run


@reports.get("/report")
@role("viewer")
def report(number: int) -> str:
    row = lookup.broadcast(number)
    run = _run(row)
    chosen = use.Filter(
        run=run,
        status=request.args.get("status", ""),
        cause=request.args.get("cause", "")[:CAUSE_MAX],
        file_id=_whole("file"),
        phone=lookup.phone_filter(),
    )
    try:
        page = use.messages(row, chosen, request.args.get("after", ""))
    except ValueError:
        abort(404)
    kept: dict[str, Any] = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    here = url_for("reports.report", number=number, **kept)
    numbers = broadcasts.count(row, run)
    return render_template(
        "reports/show.html",
        row=row,
        now=live.live(row),
        run=run,
        run_name=run or "all",
        tabs=_tabs(row, run),
        numbers=numbers,
        parts=[
            (status, numbers[status], url_for("reports.report", number=number, run=run or "all", status=status))
            for status in MESSAGE_STATUSES
        ],
        causes=[(status, n, sentences.cause(code)) for status, code, n in glance.causes(row, run, numbers)],
        items=[(item, sentences.cause(item.cause, item.cause_text)) for item in page.items],
        chosen=chosen,
        files=list(RecipientFile.select().where(RecipientFile.broadcast == number).order_by(RecipientFile.id)),
        first=here if request.args.get("after") else "",
        next=url_for("reports.report", number=number, **{**kept, "after": page.next}) if page.next else "",
        filtered=bool(set(kept) - {"run"}),
    )


def _tabs(row: Broadcast, run: int | None) -> list[tuple[str, str, bool, None]]:
    """(label, address, current, no count) for each run and for all of them."""
    address = functools.partial(url_for, "reports.report", number=row.id)
    own = [(_("Run %(k)s", k=r.number), address(run=r.number), r.number == run, None) for r in use.runs(row)]
    return [*own, (_("All runs"), address(run="all"), run is None, None)]


@reports.get("/report.csv")
@role("viewer")
@step_up
@limited("export")
def report_csv(number: int) -> Response:
    """Every message with its original columns, streamed."""
    row = lookup.broadcast(number)
    run = _run(row) if request.args.get("run") else None
    return exports.report_csv(row, run, lookup.language())


@reports.get("/messages/<int:message_id>")
@role("sender")
def message(number: int, message_id: int) -> Response:
    """The whole story of one message, with the full number: a look that the audit log knows of."""
    story = _story(number, message_id)
    audit.note(me().name, "number.view", str(message_id), broadcast=number)
    return htmx.question("reports/_message.html", **story)


def _story(number: int, message_id: int) -> dict[str, Any]:
    row, item = lookup.broadcast(number), lookup.message(number, message_id)
    file = RecipientFile.get_by_id(item.file_id)
    return {
        "row": row,
        "item": item,
        "file": file,
        "cause": sentences.cause(item.cause, item.cause_text),
        "hint": sentences.hint(use.hint(item)) if item.status == "uncertain" else "",
        "events": [(event.at, sentences.event(event)) for event in use.story(message_id)],
        "cells": use.cells(file, item),
    }


@reports.post("/messages/<int:message_id>/resolve")
@role("sender")
def resolve(number: int, message_id: int) -> Response:
    """An uncertain message counts as sent, or is sent again: a person's decision, never ours."""
    how = request.form.get("as", "")
    lookup.message(number, message_id)
    if how not in ("sent", "resend"):
        abort(400)
    done = delivery.resolve(message_id, how, me().name)
    tasks.wake(number)
    toast = _("Saved") if done else _("The message is not uncertain any more")
    back = url_for("reports.report", number=number, status="uncertain")
    return htmx.redirect(back, toast=toast, level="ok" if done else "info")
