"""The pages of a broadcast: list, settings form, live page, controls, files, report."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, BinaryIO, cast
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, abort, current_app, flash, redirect, render_template, request, url_for
from flask_babel import get_locale
from flask_babel import gettext as _

from webapp import exports, sentences
from webapp.auth import me, role
from webapp.sandbox import MAGIC
from worker import broadcasts as use
from worker import clock, delivery, recipients, rendering, reports, segments, tasks
from worker.models import Broadcast, Channel, MessageTemplate, RecipientFile
from worker.settings import Settings
from worker.states import MESSAGE_STATUSES, allowed

broadcasts = Blueprint("broadcasts", __name__, url_prefix="/broadcasts")

Reply = str | Response | tuple[str, int]
LISTED = 30


def _settings() -> Settings:
    found: Settings = current_app.extensions["molva"].settings
    return found


def _broadcast(number: int) -> Broadcast:
    found: Broadcast | None = Broadcast.get_or_none(Broadcast.id == number) if number < 2**62 else None
    if found is None:
        abort(404)
    return found


def face(row: Broadcast, numbers: Mapping[str, int]) -> str:
    """The state as people see it: a finished broadcast has three faces."""
    if row.state != "finished":
        return str(row.state)
    begun = reports.run_of(row, row.run)
    if not use.is_completed(row, numbers, begun.finished_at if begun else None):
        return "awaiting"
    return "uncertain" if numbers["uncertain"] else "finished"


# --- list -------------------------------------------------------------------------------------------


@broadcasts.get("")
@role("viewer")
def index() -> str:
    name, state = request.args.get("name", "")[:200], request.args.get("state", "")
    before = request.args.get("before", "")
    rows = use.find(name, state, int(before) if before.isdecimal() and len(before) < 16 else None, LISTED + 1)
    items = []
    for row in rows[:LISTED]:
        numbers = use.count(row, row.run)
        items.append((row, numbers, face(row, numbers)))
    following = rows[LISTED - 1].id if len(rows) > LISTED else None
    return render_template("broadcasts/list.html", items=items, following=following, name=name, state=state)


@broadcasts.post("/try")
@role("sender")
def trial() -> Response:
    """A ready draft on the SMS sandbox."""
    channel = Channel.select().where(Channel.provider == "sandbox_sms").first()
    if channel is None:
        abort(404)
    values = {
        "name": _("My first broadcast"),
        "channel_id": channel.id,
        "text": _("Hello, {{ name }}. This is a trial message."),
        "rate_per_minute": 600,
    }
    row = use.create(_settings(), values, me().name)
    return cast(Response, redirect(url_for("broadcasts.show", number=row.id), 303))


@broadcasts.get("/trial.csv")
@role("viewer")
def trial_file() -> Response:
    """A list for the sandbox: the special numbers among ordinary ones."""
    russian = str(get_locale())[:2] == "ru"
    lines = ["телефон;имя;name" if russian else "phone,name"]
    people = [s.phone for s in MAGIC if s.key != "paused"] + [f"+7901{n:07d}" for n in range(1, 31)]
    for n, phone in enumerate(people, 1):
        lines.append(f"{phone};Гость {n};Guest {n}" if russian else f"{phone},Guest {n}")
    return _download("\r\n".join(lines).encode("utf-8-sig"), "trial.csv")


def _download(data: bytes, name: str) -> Response:
    return Response(data, mimetype="text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})


# --- settings form ----------------------------------------------------------------------------------


def _values(form: Mapping[str, str]) -> dict[str, Any]:
    """What the form says, in the words of the use cases."""
    values: dict[str, Any] = {
        "name": form.get("name", ""),
        "channel_id": form.get("channel_id") or None,
        "text": form.get("text", ""),
        "ignore_duplicates": "ignore_duplicates" in form,
        "on_file_delete": form.get("on_file_delete", "keep"),
        "rate_per_minute": form.get("rate_per_minute", ""),
        "send_at": form.get("send_at") if form.get("when") == "later" else None,
    }
    name, _bar, language = form.get("template", "").rpartition("|")
    values["template"] = {"name": name, "language": language} if name else None
    variables: dict[str, dict[str, str]] = {}
    for key, value in form.items():
        head, _dot, slot = key.partition(":")
        if head in ("column", "value", "fallback") and value.strip():
            variables.setdefault(slot, {})[head] = value.strip()
    values["variables"] = variables
    channel = Channel.get_or_none(Channel.id == values["channel_id"]) if str(values["channel_id"]).isdecimal() else None
    if channel is not None and channel.kind == "sms":
        values["template"], values["variables"] = None, {}
    return values


def _stored(row: Broadcast | None) -> dict[str, Any]:
    """The form's values of a stored draft, or of a new one."""
    if row is None:
        return {
            "name": "",
            "channel_id": None,
            "text": "",
            "ignore_duplicates": True,
            "on_file_delete": "keep",
            "rate_per_minute": 60,
            "send_at": None,
            "template": None,
            "variables": {},
        }
    template = {"name": row.template_name, "language": row.template_language} if row.template_name else None
    local = ""
    if row.send_at:
        local = clock.utc(row.send_at).astimezone(ZoneInfo(row.timezone)).strftime("%Y-%m-%dT%H:%M")
    return {
        "name": row.name,
        "channel_id": row.channel_id,
        "text": row.text or "",
        "variables": row.variables,
        "ignore_duplicates": row.ignore_duplicates,
        "on_file_delete": row.on_file_delete,
        "template": template,
        "rate_per_minute": row.rate_per_minute,
        "send_at": local or None,
    }


def _form(row: Broadcast | None, values: Mapping[str, Any], errors: Mapping[str, str], token: str) -> str:
    kind = request.values.get("kind", "")
    channel_list = list(Channel.select().order_by(Channel.kind, Channel.id))
    chosen = next((c for c in channel_list if str(c.id) == str(values["channel_id"])), None)
    kind = kind or (chosen.kind if chosen else "sms")
    if chosen is not None and chosen.kind != kind:
        chosen = None
    templates: list[MessageTemplate] = []
    slots: list[rendering.Slot] = []
    if kind == "waba":
        owner = chosen or next((c for c in channel_list if c.kind == "waba"), None)
        if owner is not None:
            templates = list(
                MessageTemplate.select()
                .where((MessageTemplate.channel == owner.id) & (MessageTemplate.status == "APPROVED"))
                .order_by(MessageTemplate.name)
            )
        wanted = values["template"] or {}
        found = next(
            (t for t in templates if (t.name, t.language) == (wanted.get("name"), wanted.get("language"))), None
        )
        slots = rendering.slots(found.components, found.parameter_format) if found else []
    counted = segments.count(values["text"]) if kind == "sms" and values["text"] else None
    return render_template(
        "broadcasts/form.html",
        row=row,
        values=values,
        errors=errors,
        kind=kind,
        token=token,
        slots=slots,
        channels=[c for c in channel_list if c.kind == kind],
        templates=templates,
        counted=counted,
        zone=_settings().timezone if row is None else row.timezone,
    )


@broadcasts.get("/new")
@role("sender")
def new() -> str:
    return _form(None, _stored(None), {}, secrets.token_urlsafe(16))


@broadcasts.post("/new")
@role("sender")
def create() -> Reply:
    return _save(None)


@broadcasts.get("/<int:number>/edit")
@role("sender")
def edit(number: int) -> str:
    row = _broadcast(number)
    return _form(row, _stored(row), {}, "")


@broadcasts.post("/<int:number>/edit")
@role("sender")
def change(number: int) -> Reply:
    return _save(_broadcast(number))


def _save(row: Broadcast | None) -> Reply:
    values, token = _values(request.form), request.form.get("form_token", "")[:64]
    if "refresh" in request.form:
        return _form(row, values, {}, token)
    complete = "draft" not in request.form
    try:
        if row is None:
            row = use.create(_settings(), values, me().name, complete=complete, form_token=token or None)
        else:
            if row.state != "draft":
                values = {k: values[k] for k in ("name", "on_file_delete", "rate_per_minute")}
            row, again = use.update(_settings(), row, values, me().name, complete=complete)
            if again:
                _check_again(row)
    except use.Invalid as error:
        words = {name: sentences.problem(problem) for name, problem in error.problems.items()}
        return _form(row, {**_stored(row), **values}, words, token), 422
    except use.NotAllowed as error:
        _say_changed(error)
        return cast(Response, redirect(url_for("broadcasts.show", number=cast(Broadcast, row).id), 303))
    tasks.wake(row.id)
    return cast(Response, redirect(url_for("broadcasts.show", number=row.id), 303))


def _check_again(row: Broadcast) -> None:
    for file in use.live_files(row):
        if recipients.recheck(file):
            tasks.read_file(file.id)


def _say_changed(error: use.NotAllowed) -> None:
    flash(_("The broadcast has changed: it is now “%(state)s”. Nothing was done", state=error.state), "error")


# --- the live page ----------------------------------------------------------------------------------


def _live(row: Broadcast) -> dict[str, Any]:
    numbers = use.count(row, row.run)
    parts = [
        (status, numbers[status], url_for("broadcasts.report", number=row.id, status=status, run=row.run))
        for status in MESSAGE_STATUSES
    ]
    shown = face(row, numbers)
    return {
        "row": row,
        "numbers": numbers,
        "parts": parts,
        "face": shown,
        "eta": use.eta(row, numbers),
        "done": numbers["total"] - use.left(numbers),
        "polls": {"running": 1, "awaiting": 5, "scheduled": 5}.get(shown),
        "stopped": sentences.stop_reason(row.stop_reason, row.stop_detail),
        "waiting": sentences.waiting(row.waiting),
        "alive": delivery.worker_alive(),
    }


def _controls(row: Broadcast, numbers: Mapping[str, int]) -> dict[str, Any]:
    can = [action for action in allowed(row.state) if action != "schedule"]
    missing = {
        "stop": _("Only a running broadcast can be stopped"),
        "resume": _("Only a stopped broadcast can be resumed"),
        "clear": _("A scheduled, running or stopped broadcast can be cleared"),
        "restart": _("Only a finished broadcast can be restarted"),
    }
    return {
        "can": can,
        "missing": {a: text for a, text in missing.items() if a not in can},
        "again": use.restart_numbers(row) if "restart" in can else {},
        "blocks": [sentences.problem(p) for p in use.problems(row)] if "start" in can else [],
        "went": sum(numbers[s] for s in ("sent", "held", "delivered", "read", "undelivered", "uncertain", "sending")),
    }


@broadcasts.get("/<int:number>")
@role("viewer")
def show(number: int) -> str:
    row = _broadcast(number)
    live = _live(row)
    files = [(file, _file_facts(file)) for file in use.live_files(row)]
    return render_template("broadcasts/show.html", **live, **_controls(row, live["numbers"]), files=files)


@broadcasts.get("/<int:number>/progress")
@role("viewer")
def progress(number: int) -> Reply:
    row = _broadcast(number)
    live = _live(row)
    if request.args.get("state") not in (None, live["face"]):
        # The buttons change with the state: the page as a whole is due.
        return Response(status=204, headers={"HX-Refresh": "true"})
    return render_template("broadcasts/_progress.html", **live)


@broadcasts.post("/<int:number>/<any(start, stop, resume, clear, restart):action>")
@role("sender")
def act(number: int, action: str) -> Response:
    row = _broadcast(number)
    try:
        if action == "start":
            use.start(_settings(), row, me().name)
        elif action == "restart":
            use.restart(row, request.form.get("who", "everyone"), me().name)
            tasks.copy_run(number)
        else:
            {"stop": use.stop, "resume": use.resume, "clear": use.clear}[action](row, me().name)
        tasks.wake(number)
    except use.NotAllowed as error:
        _say_changed(error)
    except use.Invalid as error:
        for problem in error.problems.values():
            flash(sentences.problem(problem), "error")
    return cast(Response, redirect(url_for("broadcasts.show", number=number), 303))


@broadcasts.post("/<int:number>/rate")
@role("sender")
def rate(number: int) -> Response:
    row = _broadcast(number)
    try:
        use.update(_settings(), row, {"rate_per_minute": request.form.get("rate_per_minute", "")}, me().name)
        tasks.wake(number)
    except use.Invalid as error:
        for problem in error.problems.values():
            flash(sentences.problem(problem), "error")
    return cast(Response, redirect(url_for("broadcasts.show", number=number), 303))


# --- files ------------------------------------------------------------------------------------------


def _file_facts(file: RecipientFile) -> dict[str, Any]:
    queued, went = recipients.removal_numbers(file)
    errors = [(e, sentences.row_reason(e.code, e.line, e.value, e.column, e.other)) for e in recipients.errors(file.id)]
    earlier = recipients.same_content(file)
    rejected = file.rejected
    return {
        "queued": queued,
        "went": went,
        "errors": errors,
        "earlier": earlier,
        "refused": sentences.file_code(file.code, file.detail) if file.code else "",
        "duplicates": rejected.get("duplicate", 0),
        "opted_out": rejected.get("opted_out", 0),
        "blank": rejected.get("blank_row", 0),
        "invalid": sum(n for code, n in rejected.items() if code not in ("duplicate", "opted_out", "blank_row")),
    }


def _file(number: int, file_id: int) -> RecipientFile:
    found: RecipientFile | None = None
    if max(number, file_id) < 2**62:
        found = RecipientFile.get_or_none((RecipientFile.id == file_id) & (RecipientFile.broadcast == number))
    if found is None:
        abort(404)
    return found


@broadcasts.post("/<int:number>/files")
@role("sender")
def upload(number: int) -> Response:
    row = _broadcast(number)
    given = request.files.get("file")
    try:
        if given is None or not given.filename:
            flash(_("Choose a file"), "error")
        else:
            stream = cast(BinaryIO, given.stream)
            file = recipients.receive(row, stream, given.filename, _settings().uploads, {}, me().name)
            tasks.read_file(file.id)
    except recipients.FileRefused as refused:
        flash(sentences.file_code(refused.code, refused.detail), "error")
    target = url_for("broadcasts.show", number=number) + "#files"
    if request.headers.get("HX-Request"):
        return Response(status=204, headers={"HX-Redirect": target})
    return cast(Response, redirect(target, 303))


@broadcasts.get("/<int:number>/files/<int:file_id>")
@role("viewer")
def file_panel(number: int, file_id: int) -> Reply:
    file = _file(number, file_id)
    if file.state != "checking":
        return Response(status=204, headers={"HX-Refresh": "true"})
    return render_template("broadcasts/_file.html", row=_broadcast(number), file=file, facts=_file_facts(file))


@broadcasts.post("/<int:number>/files/<int:file_id>/recheck")
@role("sender")
def file_recheck(number: int, file_id: int) -> Response:
    file = _file(number, file_id)
    try:
        if recipients.recheck(file, request.form.to_dict()):
            tasks.read_file(file.id)
    except recipients.FileRefused as refused:
        flash(sentences.file_code(refused.code, refused.detail), "error")
    return cast(Response, redirect(url_for("broadcasts.show", number=number) + "#files", 303))


@broadcasts.post("/<int:number>/files/<int:file_id>/delete")
@role("sender")
def file_delete(number: int, file_id: int) -> Response:
    how = request.form.get("how", "")
    if how in ("keep", "remove"):
        recipients.remove(_file(number, file_id), how, _settings().uploads, me().name)
        tasks.wake(number)
    return cast(Response, redirect(url_for("broadcasts.show", number=number) + "#files", 303))


@broadcasts.get("/<int:number>/files/<int:file_id>/errors.csv")
@role("viewer")
def file_errors(number: int, file_id: int) -> Response:
    return exports.errors_csv(_file(number, file_id), str(get_locale())[:2])


@broadcasts.get("/<int:number>/sample.csv")
@role("viewer")
def sample(number: int) -> Response:
    content = use.content(_broadcast(number))
    return _download(recipients.sample_csv(content.columns if content else [], str(get_locale())[:2]), "sample.csv")


# --- report -----------------------------------------------------------------------------------------


@broadcasts.get("/<int:number>/report")
@role("viewer")
def report(number: int) -> Reply:
    row = _broadcast(number)
    given = request.args.get("run", "")
    run = int(given) if given.isdecimal() and len(given) < 9 else None if given == "all" else row.run
    phone = request.args.get("phone", "").strip().replace(" ", "")
    chosen = reports.Filter(
        run=run,
        status=request.args.get("status", ""),
        cause=request.args.get("cause", ""),
        phone=("+" + phone.lstrip("+"))[:20] if phone else "",
    )
    try:
        page = reports.messages(row, chosen, request.args.get("after", ""))
    except ValueError:
        abort(404)
    numbers = use.count(row, run)
    parts = [
        (s, numbers[s], url_for("broadcasts.report", number=number, status=s, run=given or row.run))
        for s in MESSAGE_STATUSES
    ]
    causes = [(status, code, n, sentences.cause(code)) for status, code, n in reports.cause_groups(row, run)]
    items = [(item, sentences.cause(item.cause, item.cause_text)) for item in page.items]
    kept: dict[str, Any] = {k: v for k, v in request.args.items() if k != "after"}
    following = url_for("broadcasts.report", number=number, **{**kept, "after": page.next}) if page.next else ""
    return render_template(
        "reports/show.html",
        row=row,
        numbers=numbers,
        parts=parts,
        causes=causes,
        items=items,
        following=following,
        runs=reports.runs(row),
        run=run,
        chosen=chosen,
        face=face(row, use.count(row, row.run)),
        first=url_for("broadcasts.report", number=number, **kept) if request.args.get("after") else "",
    )


@broadcasts.get("/<int:number>/report.csv")
@role("viewer")
def report_csv(number: int) -> Response:
    given = request.args.get("run", "")
    run = int(given) if given.isdecimal() and len(given) < 9 else None
    return exports.report_csv(_broadcast(number), run, str(get_locale())[:2])


@broadcasts.post("/<int:number>/messages/<int:message_id>/resolve")
@role("sender")
def resolve(number: int, message_id: int) -> Response:
    how = request.form.get("as", "")
    if how not in ("sent", "resend") or message_id >= 2**62:
        abort(404)
    if not delivery.resolve(message_id, how, me().name):
        flash(_("The message is not uncertain any more"), "error")
    tasks.wake(number)
    return cast(Response, redirect(url_for("broadcasts.report", number=number, status="uncertain"), 303))
