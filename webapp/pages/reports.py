"""The report of a broadcast: who got it, why others did not, what can be done about it, the story of one message;
and all broadcasts compared."""

from __future__ import annotations

import functools
import secrets
from typing import Any

from flask import Blueprint, Response, abort, render_template, request, url_for
from flask_babel import gettext as _

from webapp import controls, exports, figures, htmx, live, lookup, sentences
from webapp.auth import me, require_confirmed, role, step_up
from webapp.limits import limited
from worker import audit, broadcasts, causes, clock, delivery, recipients, rescue, statistics, tasks
from worker import reports as use
from worker.models import Broadcast, RecipientFile
from worker.states import MESSAGE_STATUSES, REPORT_LIFE

reports = Blueprint("reports", __name__)
ONE = "/broadcasts/<int:number>"
FILTERS = ("run", "status", "cause", "file", "phone")
CAUSE_MAX = 100
REASON_MAX = 200
LISTED = 30
AGAIN_SOON, AGAIN_LATER = 3, 15  # seconds until the counted facts are looked at again: while counted, while they move


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


def _cause() -> str:
    return request.values.get("cause", "")[:CAUSE_MAX]


def _chosen(run: int | None) -> use.Filter:
    """What the address asks for."""
    status = request.args.get("status", "")
    if status and status not in MESSAGE_STATUSES:
        abort(404)
    return use.Filter(run, status, _cause(), _whole("file"), lookup.phone_filter())


# --- all broadcasts ---------------------------------------------------------------------------------


@reports.get("/reports")
@role("viewer")
def compare() -> str:
    """The runs of all broadcasts side by side, the latest first."""
    name = request.args.get("name", "")[: broadcasts.NAME_MAX]
    before = _whole("before")
    found, following = use.compare(name, before, LISTED)
    address = functools.partial(url_for, "reports.compare", name=name or None)
    return render_template(
        "reports/compare.html",
        name=name,
        items=[
            (one, {rate.key: rate for rate in figures.rates(one.broadcast, one.numbers, one.replied)}) for one in found
        ],
        faces=_faces(found),
        first=address() if before else "",
        next=address(before=following) if following else "",
    )


def _faces(found: list[use.Compared]) -> dict[tuple[int, int], str]:
    """The state, as people see it, of those runs that are the latest of their broadcast, by (broadcast, run)."""
    latest = [one for one in found if one.run == one.broadcast.run]
    ended = broadcasts.finished_at_each([one.broadcast for one in latest])
    return {
        (one.broadcast.id, one.run): live.face(one.broadcast, one.numbers, ended[one.broadcast.id]) for one in latest
    }


# --- one broadcast ----------------------------------------------------------------------------------


@reports.get(f"{ONE}/report")
@role("viewer")
def report(number: int) -> str:
    row = lookup.broadcast(number)
    run = _run(row)
    chosen = _chosen(run)
    try:
        page = use.messages(row, chosen, request.args.get("after", ""))
    except ValueError:
        abort(404)
    kept: dict[str, Any] = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    here = url_for("reports.report", number=number, **kept)
    numbers = broadcasts.count(row, run)
    counted = _counted(row, run)
    return render_template(
        "reports/show.html",
        **counted,
        now=live.live(row),
        run_name=run or "all",
        tabs=_tabs(row, run),
        numbers=numbers,
        rates=figures.rates(row, numbers, counted["facts"].replied if counted["facts"] else None),
        cost=use.cost(row, numbers),
        parts=[
            (
                status,
                numbers[status],
                url_for("reports.report", number=number, run=run or "all", status=status, _anchor="messages"),
            )
            for status in MESSAGE_STATUSES
        ],
        by_file=use.by_file(row, run),
        causes=_known_causes(counted["facts"], chosen.cause),
        items=[(item, sentences.cause(item.cause, item.cause_text)) for item in page.items],
        chosen=chosen,
        files=list(RecipientFile.select().where(RecipientFile.broadcast == number).order_by(RecipientFile.id)),
        first=here if request.args.get("after") else "",
        next=url_for("reports.report", number=number, **{**kept, "after": page.next}) if page.next else "",
        filtered=bool(set(kept) - {"run"}),
        kept=kept,
    )


def _tabs(row: Broadcast, run: int | None) -> list[tuple[str, str, bool, None]]:
    """(label, address, current, no count) for each run and for all of them."""
    address = functools.partial(url_for, "reports.report", number=row.id)
    own = [(_("Run %(k)s", k=r.number), address(run=r.number), r.number == run, None) for r in use.runs(row)]
    return [*own, (_("All runs"), address(run="all"), run is None, None)]


def _known_causes(facts: statistics.Facts | None, chosen: str) -> list[dict[str, str]]:
    """The causes that the messages can be filtered by."""
    codes = dict.fromkeys([code for _status, code, _n in facts.causes] if facts else [])
    found = [sentences.cause(code) for code in dict.fromkeys([*codes, chosen])]
    return [cause for cause in found if cause is not None]


@reports.get(f"{ONE}/report/facts")
@role("viewer")
def facts(number: int) -> Response:
    """The counted facts as they are now; 204 when nothing has changed since the last look."""
    row = lookup.broadcast(number)
    found = _counted(row, _run(row))
    if htmx.asked() and request.args.get("mark") == found["mark"]:
        return Response(status=204)
    return htmx.partial("reports/_facts.html", **found)


def _counted(row: Broadcast, run: int | None) -> dict[str, Any]:
    """What is counted from the rows, with pictures and deeds; the worker is asked to count where that is due."""
    found, due = statistics.facts(row, run)
    if due:
        tasks.count_report(row.id, run)
    moves = row.state in ("running", "stopped", "scheduled") or not _is_old(row)
    timeline = found.timeline if found else None
    groups = figures.groups(row, run, found.causes, me().can("sender")) if found else []
    return {
        "row": row,
        "run": run,
        "facts": found,
        "due": due,
        "every": AGAIN_SOON if due else AGAIN_LATER if moves else None,
        "mark": f"{found.mark}.{row.state}.{due:d}" if found else "",
        "counted_before": found is not None and clock.now() - found.made_at > clock.SECOND,
        "picture": figures.picture(timeline) if timeline else None,
        "classes": figures.classes(found.delays) if found else [],
        "length": figures.length,
        "groups": groups,
        "not_now": controls.MISSING["restart"] if row.state != "finished" and any(g.retry for g in groups) else "",
    }


def _is_old(row: Broadcast) -> bool:
    """Whether no report and hardly a reply comes any more."""
    return row.last_sent_at is None or clock.now() - row.last_sent_at > REPORT_LIFE


@reports.get(f"{ONE}/report.csv")
@role("viewer")
@step_up
@limited("export")
def report_csv(number: int) -> Response:
    """Every chosen message with its original columns, streamed."""
    row = lookup.broadcast(number)
    return exports.report_csv(row, _chosen(_run(row) if request.args.get("run") else None), lookup.language())


@reports.get(f"{ONE}/report.xlsx")
@role("viewer")
@step_up
@limited("export")
def report_xlsx(number: int) -> Response:
    """The same as a workbook."""
    row = lookup.broadcast(number)
    return exports.report_xlsx(row, _chosen(_run(row) if request.args.get("run") else None))


# --- what can be done for all with one cause --------------------------------------------------------


@reports.get(f"{ONE}/causes/<any(again, sms, stop):deed>")
@role("sender")
def deed(number: int, deed: str) -> Response:
    """What would happen, in numbers, before it does."""
    row, cause = lookup.broadcast(number), _cause()
    because = sentences.cause(cause)
    if because is None or deed not in causes.deeds(cause, row.channel.kind if row.channel else ""):
        abort(404)
    offer = rescue.offer(row, cause) if deed == causes.SMS else None
    people = (
        broadcasts.restart_numbers(row, cause)["undelivered"] if deed == causes.AGAIN else rescue.number(row, cause)
    )
    return htmx.question(
        "reports/_deed.html",
        row=row,
        deed=deed,
        cause=because,
        n=people,
        offer=offer,
        costs={channel.id: offer.cost(channel) for channel in offer.channels} if offer else {},
        form_token=secrets.token_urlsafe(16),
        back=_back(row, cause),
    )


@reports.post(f"{ONE}/causes/<any(again, sms, stop):deed>")
@role("sender")
def do(number: int, deed: str) -> Response:
    """Do it: a new run, a draft of an SMS, or the stop list."""
    row, cause = lookup.broadcast(number), _cause()
    if deed not in causes.deeds(cause, row.channel.kind if row.channel else ""):
        abort(404)
    try:
        return {causes.AGAIN: _again, causes.SMS: _by_sms, causes.STOP: _to_stop_list}[deed](row, cause)
    except broadcasts.NotAllowed as error:
        text = sentences.changed(error)
    except broadcasts.Invalid as error:
        text = ". ".join(map(sentences.problem, error.problems.values()))
    except recipients.FileRefused as refused:
        text = sentences.file_code(refused.code, refused.detail)
    return htmx.redirect(_back(row, cause), toast=text, level="error")


def _back(row: Broadcast, cause: str) -> str:
    return url_for("reports.report", number=row.id, cause=cause)


def _again(row: Broadcast, cause: str) -> Response:
    if controls.is_large(row, "undelivered", cause):
        require_confirmed()
    controls.press(lookup.settings(), row, "restart", me().name, "undelivered", cause=cause)
    return htmx.redirect(url_for("broadcasts.show", number=row.id))


def _by_sms(row: Broadcast, cause: str) -> Response:
    given = request.form.get("channel_id", "")
    channel = next((one for one in rescue.sms_channels() if str(one.id) == given), None)
    if channel is None:
        raise broadcasts.Invalid({"channel_id": broadcasts.Problem("channel_required")})
    token = request.form.get("form_token", "")[:64] or None
    made, files = rescue.by_sms(lookup.settings(), row, cause, channel.id, me().name, token)
    for file in files:
        tasks.read_file(file.id)
    toast = _("This is the draft. Check the text, then start it")
    return htmx.redirect(url_for("broadcasts.edit", number=made.id), toast=toast, level="info")


def _to_stop_list(row: Broadcast, cause: str) -> Response:
    reason = " ".join(request.form.get("reason", "").split())[:REASON_MAX] or cause
    n = rescue.to_stop_list(row, cause, reason, me().name)
    return htmx.redirect(_back(row, cause), toast=_("On the stop list: %(n)s", n=n))


# --- one message ------------------------------------------------------------------------------------


@reports.get(f"{ONE}/messages/<int:message_id>")
@role("sender")
def message(number: int, message_id: int) -> Response:
    """The whole story of one message, with the full number: a look that the audit log knows of."""
    row, item = lookup.broadcast(number), lookup.message(number, message_id)
    audit.note(me().name, "number.view", str(message_id), broadcast=number)
    file = RecipientFile.get_by_id(item.file_id)
    conversation = use.conversation_of(row, item.phone)
    return htmx.question(
        "reports/_message.html",
        row=row,
        item=item,
        file=file,
        cause=sentences.cause(item.cause, item.cause_text),
        hint=sentences.hint(use.hint(item)) if item.status == "uncertain" else "",
        events=[(event.at, sentences.event(event)) for event in use.story(item)],
        cells=use.cells(file, item),
        conversation=url_for("inbox.show", number=conversation) if conversation is not None else "",
    )


@reports.post(f"{ONE}/messages/<int:message_id>/resolve")
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
