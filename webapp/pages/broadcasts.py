"""The pages of a broadcast: the list, the settings form, the live page and its controls."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, Response, abort, flash, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import controls, drafts, exports, filters, htmx, live, lookup, sentences, sheet
from webapp import glance as glances
from webapp.auth import me, my_user, require_confirmed, role
from webapp.forms.broadcast import BroadcastForm
from webapp.limits import limited
from webapp.sandbox_numbers import MAGIC
from worker import approvals, canary, channels, clock, direct, recipients, reports, segments, tasks, undo
from worker import broadcasts as use
from worker import preflight as preflights
from worker import preview as previews
from worker.models import Broadcast, Channel, RecipientFile
from worker.states import BROADCAST_STATES

broadcasts = Blueprint("broadcasts", __name__, url_prefix="/broadcasts")

LISTED = 30
COUNTED_MAX = 20_000
TESTS = 10  # as many as are shown
AWAITED = 10 * clock.MINUTE  # a delivery report of a test is looked for so long
# What the numbers that a form shows depend on.
SUMMED = (
    *("id", "form_token", "rate_per_minute", "when", "send_at", "timezone", "kind", "channel_sms", "channel_waba"),
    *("quiet", "quiet_from", "quiet_to", "text"),
)


# --- the list ---------------------------------------------------------------------------------------


@broadcasts.get("")
@role("viewer")
def index() -> str:
    """Broadcasts newest first, found by a part of their name."""
    return render_template("broadcasts/list.html", **_listed())


@broadcasts.get("/list")
@role("viewer")
def rows() -> Response:
    """The same list as a part of the page, for looking again and for searching as one types."""
    answer = htmx.partial("broadcasts/_list.html", **_listed())
    if request.headers.get("HX-Trigger-Name"):  # a person searched: the address says what is shown
        answer.headers["HX-Replace-Url"] = url_for("broadcasts.index", **_search())
    return answer


def _search() -> dict[str, Any]:
    found = {name: request.args.get(name, "")[:200] for name in ("name", "state", "before")}
    return {name: value for name, value in found.items() if value}


def _listed() -> dict[str, Any]:
    search = _search()
    before, state = search.get("before", ""), search.get("state", "")
    if state and state not in BROADCAST_STATES:
        abort(404)
    last = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
    found = use.find(search.get("name", ""), state, last, LISTED + 1)
    names = {channel.id: filters.own_name(channel.name) for channel in Channel.select(Channel.id, Channel.name)}
    following = str(found[LISTED - 1].id) if len(found) > LISTED else ""
    return {
        "items": live.items(found[:LISTED], names),
        "search": search,
        "this": url_for("broadcasts.rows", **search),
        "first": url_for("broadcasts.index", **{k: v for k, v in search.items() if k != "before"}) if before else "",
        "next": url_for("broadcasts.index", **{**search, "before": following}) if following else "",
        "sandbox": bool(channels.living().where(Channel.provider == "sandbox_sms").exists()),
    }


# --- the first broadcast ----------------------------------------------------------------------------


@broadcasts.post("/try")
@role("sender")
def trial() -> Response:
    """A draft on the SMS sandbox, ready but for its recipients."""
    channel = channels.living().where(Channel.provider == "sandbox_sms").first()
    if channel is None:
        abort(404)
    values = {
        "name": _("My first broadcast"),
        "channel_id": channel.id,
        "text": _("Hello, {{ name }}. This is a trial message."),
        "rate_per_minute": 600,
    }
    row = use.create(lookup.settings(), values, me().name, form_token=request.form.get("form_token", "")[:64] or None)
    return htmx.redirect(url_for("broadcasts.edit", number=row.id))


@broadcasts.get("/trial.csv")
@role("viewer")
def trial_file() -> Response:
    """A list for the sandbox: its special numbers among ordinary ones."""
    russian = lookup.language() == "ru"
    comma = exports.delimiter(lookup.language())
    lines = ["телефон;имя;name" if russian else "phone,name"]
    people = [special.phone for special in MAGIC if special.key != "paused"]
    people += [f"+7901{n:07d}" for n in range(1, 31)]
    for n, phone in enumerate(people, 1):
        names = [f"Гость {n}", f"Guest {n}"] if russian else [f"Guest {n}"]
        lines.append(comma.join([phone, *names]))
    return exports.csv_file("\r\n".join(lines).encode("utf-8-sig"), "trial.csv")


# --- the settings form ------------------------------------------------------------------------------


@broadcasts.get("/new")
@role("sender")
def new() -> str:
    """An empty settings form. Its token makes a second press of Save harmless."""
    form = BroadcastForm(lookup.settings(), None, None)
    form.form_token.data = secrets.token_urlsafe(16)
    return _form_page(form)


@broadcasts.get("/<int:number>/edit")
@role("sender")
def edit(number: int) -> str:
    return _form_page(BroadcastForm(lookup.settings(), None, lookup.broadcast(number)))


@broadcasts.post("/new")
@role("sender")
def create() -> Response:
    return _save(_given(None))


@broadcasts.post("/<int:number>/edit")
@role("sender")
def change(number: int) -> Response:
    return _save(_given(lookup.broadcast(number)))


@broadcasts.post("/form")
@role("sender")
def contact() -> Response:
    """The part of the form that depends on channel and template."""
    return htmx.partial("broadcasts/_contact.html", **_form_facts(_given()))


@broadcasts.post("/form/counter")
@role("sender")
def counter() -> Response:
    """How an SMS with this text is counted."""
    text = request.form.get("text", "").replace("\r\n", "\n").strip()[:COUNTED_MAX]
    return htmx.partial("broadcasts/_counter.html", counted=segments.told(text) if text else None)


@broadcasts.post("/form/summary")
@role("sender")
def summary() -> Response:
    """What a broadcast with these settings would take: people, segments, money and time."""
    return htmx.partial("broadcasts/_summary.html", **_summary(_given()))


@broadcasts.post("/form/columns")
@role("sender")
def columns() -> Response:
    """Buttons that insert the columns of the uploaded files."""
    return htmx.partial("broadcasts/_columns.html", **_form_facts(_given()))


@broadcasts.post("/form/files")
@role("sender")
def form_upload() -> Response:
    """A file dropped onto the form: what was typed so far becomes a draft, and the file belongs to it."""
    form = _given()
    problem = ""
    try:
        row = drafts.save_what_fits(lookup.settings(), form, me().name)
        drafts.receive(lookup.settings(), row, request, me().name)
        form.broadcast = Broadcast.get_by_id(row.id)  # a new file changes it, too
    except use.NotAllowed as error:
        problem = sentences.changed(error)
    except recipients.FileRefused as refused:
        problem = sentences.file_code(refused.code, refused.detail)
    facts = _form_facts(form) | {"problem": problem}
    answer = htmx.partial("files/_section.html", status=422 if problem else 200, **facts)
    answer.set_data(answer.get_data(as_text=True) + render_template("broadcasts/_saved.html", **facts, beside=True))
    return _renamed(answer, form)


@broadcasts.post("/form/draft")
@role("sender")
def form_draft() -> Response:
    """What was typed so far becomes a draft by itself; 204 when it does not."""
    form = _given()
    try:
        saved = drafts.save_by_itself(lookup.settings(), form, request.form.get("seen", ""), me().name)
    except (drafts.Incomplete, use.NotAllowed):
        saved = False
    if not saved:
        return Response(status=204)
    facts: dict[str, Any] = {"row": form.broadcast, "form": form, "saved_at": clock.now()}
    answer = _renamed(htmx.partial("broadcasts/_saved.html", **facts), form)
    read_anew = form.broadcast is not None and use.is_checking(form.broadcast)
    return htmx.tell(answer, "files-changed") if read_anew else answer


def _renamed(answer: Response, form: BroadcastForm) -> Response:
    """A form that has become a draft has an address of its own."""
    if form.broadcast is not None:
        answer.headers["HX-Replace-Url"] = url_for("broadcasts.edit", number=form.broadcast.id)
    return answer


@broadcasts.post("/sample.csv")
@role("sender")
def form_sample() -> Response:
    """The file template of a form that is not saved yet."""
    return exports.sample_csv(_given().columns_needed(), lookup.language())


@broadcasts.get("/<int:number>/sample.csv")
@role("viewer")
def sample(number: int) -> Response:
    content = use.content(lookup.broadcast(number))
    return exports.sample_csv(content.columns if content else [], lookup.language())


def _given(row: Broadcast | None = None) -> BroadcastForm:
    return BroadcastForm(lookup.settings(), request.form, row or drafts.known(request))


def _save(form: BroadcastForm) -> Response:
    """Store the whole form and the files that came with it; the live page follows."""
    if "refresh" in request.form:
        return make_response(_form_page(form))  # nosemgrep: make-response-with-unknown-content
    complete = "draft" not in request.form
    try:
        row = drafts.save(lookup.settings(), form, me().name, complete=complete)
        drafts.receive_all(lookup.settings(), row, request, me().name)
    except drafts.Incomplete:
        return make_response(_form_page(form), 422)  # nosemgrep: make-response-with-unknown-content
    except recipients.FileRefused as refused:
        form.file.errors = [sentences.file_code(refused.code, refused.detail)]
        return make_response(_form_page(form), 422)  # nosemgrep: make-response-with-unknown-content
    except use.NotAllowed as error:
        flash(sentences.changed(error), "error")
        row = Broadcast.get_by_id(form.broadcast.id) if form.broadcast else abort(409)
    tasks.wake(row.id)
    return htmx.redirect(url_for("broadcasts.show", number=row.id), toast=_("Saved"))


def _form_page(form: BroadcastForm) -> str:
    return render_template("broadcasts/form.html", **_form_facts(form))


def _form_facts(form: BroadcastForm) -> dict[str, Any]:
    row = form.broadcast
    lists = live.lists(row)
    text = (form.text.data or "").strip()
    return {
        "form": form,
        "row": row,
        **lists,
        "upload_url": url_for("broadcasts.form_upload"),
        "in_form": True,
        "problem": "",
        "columns": list(dict.fromkeys(name for one in lists["files"] for name in one.file.columns if name)),
        "counted": segments.told(text[:COUNTED_MAX]) if text else None,
        **_summary(form),
    }


def _summary(form: BroadcastForm) -> dict[str, Any]:
    """What the form says of the whole, as far as it can; the pre-flight sheet says the same of what is stored."""
    row = form.as_typed()
    each = segments.count(form.new_text[:COUNTED_MAX]).segments if form.new_text else None
    return {
        "form": form,
        "outlook": preflights.outlook(row, each) if row is not None else None,
        "each": each,
        "refused": form.whole_rate is None,
        "checking": row is not None and use.is_checking(row),
        "summed": ",".join(SUMMED),
    }


# --- the live page ----------------------------------------------------------------------------------


def _live(row: Broadcast) -> dict[str, Any]:
    return {
        "row": row,
        "now": live.live(row),
        "can": controls.possible(row),
        "missing": controls.missing(row),
        "lost": _lost(row) if use.canary_through(row) else [],
        "blocks": [sentences.problem(p) for p in use.problems(row)] if row.state == "draft" else [],
        "approval": _approval(row),
    }


def _approval(row: Broadcast) -> dict[str, Any] | None:
    found = use.approval(row) if me().can("sender") else None
    return found and {**found._asdict(), "may": approvals.may_approve(row, me().name)}


def _lost(row: Broadcast) -> list[tuple[str, int]]:
    """Why a canary did not reach everybody: the cause in words, and how many it kept back."""
    found = reports.cause_groups(row, row.run)  # of no more than a canary has
    told = [(sentences.cause(code), n) for _status, code, n in found]
    return [(cause["text"] if cause else "", n) for cause, n in told]


@broadcasts.get("/<int:number>")
@role("viewer")
def show(number: int) -> str:
    row = lookup.broadcast(number)
    return render_template(
        "broadcasts/show.html",
        **_live(row),
        **live.lists(row),
        hours=use.quiet_hours(row),
        upload_url=url_for("files.upload", number=number),
        in_form=False,
        sheet=sheet.shown(lookup.settings(), row),
        problem="",
        **_preview(row),
    )


@broadcasts.get("/<int:number>/live")
@role("viewer")
def part(number: int) -> Response:
    """State, numbers and buttons as they are now; 204 when nothing has changed since the last look."""

    def draw() -> tuple[live.Live, str]:
        found = _live(lookup.broadcast(number))
        return found["now"], render_template("broadcasts/_live.html", **found)

    glance = glances.at(number, draw)
    if htmx.asked() and request.args.get("mark") == glance.mark:
        return Response(status=204)
    return make_response(glance.html)  # nosemgrep: make-response-with-unknown-content


# --- before the start -------------------------------------------------------------------------------


@broadcasts.get("/<int:number>/preflight")
@role("viewer")
def preflight(number: int) -> Response:
    """What will happen when it starts, as it is known by now."""
    row = lookup.broadcast(number)
    shown = sheet.shown(lookup.settings(), row)
    return htmx.partial("broadcasts/_preflight.html", row=row, now=live.live(row), sheet=shown)


@broadcasts.get("/<int:number>/preview")
@role("viewer")
def preview(number: int) -> Response:
    """The message of one recipient."""
    row = lookup.broadcast(number)
    return htmx.partial("broadcasts/_preview.html", row=row, **_preview(row))


@broadcasts.get("/<int:number>/tests")
@role("sender")
def tests(number: int) -> Response:
    """The latest tests, with what has become of them."""
    return htmx.partial("broadcasts/_tests.html", row=lookup.broadcast(number), **_tests(number))


@broadcasts.post("/<int:number>/test")
@role("sender")
@limited("test")
def test(number: int) -> Response:
    """Send the message of the row that is shown to one's own phone."""
    row, given = lookup.broadcast(number), request.form.get("phone", "")
    place = {"line": lookup.whole("line"), "file": lookup.whole("file")}
    token = request.form.get("form_token", "")[:64] or None
    try:
        previews.send_test(lookup.settings(), row, given, me().name, user_id=my_user().id, form_token=token, **place)
    except use.Invalid as error:
        problem = ". ".join(map(sentences.problem, error.problems.values()))
        if not htmx.asked():
            return htmx.redirect(_preview_url(row, place), toast=problem, level="error")
        return htmx.partial("broadcasts/_preview.html", status=422, row=row, **_preview(row, problem, given[:40]))
    tasks.wake(number)
    url, toast = _preview_url(row, place), _("The test is on its way")
    return htmx.reply("broadcasts/_preview.html", url, toast=toast, row=row, **_preview(row))


def _preview_url(row: Broadcast, place: dict[str, int | None]) -> str:
    return url_for("broadcasts.show", number=row.id, _anchor="preview", line=place["line"], file=place["file"])


def _found(row: Broadcast) -> tuple[previews.Preview | None, str]:
    """The message that the address asks for, else why there is none."""
    which = request.values.get("which", previews.FIRST)
    line, file, after = (lookup.whole(name) for name in ("line", "file", "after"))
    try:
        return previews.find(row, which, line=line, file=file, after=after or 0), ""
    except previews.Missing as missing:
        if missing.problem.code == "not_written" and row.state != "draft":
            return None, ""  # the page says itself that the message is gone
        return None, sentences.problem(missing.problem)


def _preview(row: Broadcast, problem: str = "", number: str = "") -> dict[str, Any]:
    """What the preview is drawn from. Rows are for those who may send; others see the message as it was written."""
    sender = me().can("sender")
    some = any(one.state == "ready" and one.accepted for one in use.live_files(row))
    shown, why = _found(row) if sender and some else (None, "")
    chosen = request.values.get("which", "" if lookup.whole("line") else previews.FIRST)
    phones = previews.own_numbers(my_user().id) if sender else []
    return {
        "shown": shown,
        "why": why,
        "recipients": some,
        "chosen": chosen,
        "place": {"line": shown.line, "file": shown.file.id} if shown and chosen != previews.FIRST else {},
        "written": previews.as_written(row),
        "phones": phones,
        "test_number": number or (filters.phone(phones[0]) if phones else ""),
        "test_problem": problem,
        **_tests(row.id),
    }


def _tests(number: int) -> dict[str, Any]:
    found = direct.tests_of(number, TESTS) if me().can("sender") else []
    moving = any(one.status in ("queued", "sending") for one in found)
    awaited = any(one.status in ("sent", "held") and clock.now() - one.at < AWAITED for one in found)
    return {
        "tests": [(one, sentences.held_up(one.cause or one.waiting, one.cause_text)) for one in found],
        "every": 1 if moving else 5 if awaited else None,
    }


ASKING = "start, resume, clear, restart"


@broadcasts.get(f"/<int:number>/<any({ASKING}):action>")
@role("sender")
def question(number: int, action: str) -> Response:
    """What would happen, in numbers, before it does: in a dialog, or as a page without JavaScript."""
    row = lookup.broadcast(number)
    control = controls.BY_ACTION[action]
    if control not in controls.possible(row):
        toast = sentences.changed(use.NotAllowed(action, row))
        return htmx.redirect(url_for("broadcasts.show", number=number), toast=toast, level="error")
    facts = _live(row) | {
        "control": control,
        "checked": recipients.totals(use.live_files(row)),
        "again": use.restart_numbers(row) if action == "restart" else {},
        "preview": _found(row)[0] if action == "start" else None,
    }
    return htmx.question("broadcasts/_question.html", **facts)


@broadcasts.post("/<int:number>/<any(start, stop, resume, clear, restart):action>")
@role("sender")
def press(number: int, action: str) -> Response:
    row = lookup.broadcast(number)
    toast, level = "", "ok"
    if action == "restart" and controls.is_large(row, request.form.get("who", "everyone")):
        require_confirmed()
    try:
        who = request.form.get("who", "everyone")
        row = controls.press(lookup.settings(), row, action, me().name, who, *_canary())
        toast = _stopped(row) if action == "stop" else ""
    except use.NotAllowed as error:
        toast, level = sentences.changed(error), "info"
    except use.Invalid as error:
        toast, level = ". ".join(map(sentences.problem, error.problems.values())), "error"
    row = Broadcast.get_by_id(number)
    answer = htmx.reply(
        "broadcasts/_live.html", url_for("broadcasts.show", number=number), toast=toast, level=level, **_live(row)
    )
    return htmx.tell(answer, "files-changed")


@broadcasts.post("/<int:number>/undo")
@role("sender")
def take_back(number: int) -> Response:
    """Take back a Clear, while that is offered."""
    row = lookup.broadcast(number)
    try:
        row, toast, level = undo.clear(row, me().name), "", "ok"
    except use.NotAllowed:
        toast, level = _("Too late: the broadcast stays cleared"), "info"
    url = url_for("broadcasts.show", number=number)
    answer = htmx.reply("broadcasts/_live.html", url, toast=toast, level=level, **_live(row))
    return htmx.tell(answer, "files-changed")


@broadcasts.post("/<int:number>/approve")
@role("sender")
def approve(number: int) -> Response:
    """The second person lets the run ahead start: what they saw, not what has been changed since."""
    row = lookup.broadcast(number)
    seen = request.form.get("seen", "")
    try:
        whole = seen.isascii() and seen.isdigit() and len(seen) < 16
        done = approvals.approve(row, me().name, int(seen) if whole else row.updated_at)
        toast, level = (_("Approved"), "ok") if done else (_("It has been changed meanwhile: look again"), "info")
    except use.Invalid as error:
        toast, level = ". ".join(map(sentences.problem, error.problems.values())), "error"
    row = Broadcast.get_by_id(number)
    url = url_for("broadcasts.show", number=number)
    return htmx.reply("broadcasts/_live.html", url, toast=toast, level=level, **_live(row))


def _canary() -> tuple[int | None, str]:
    """The canary that was chosen before a start, and how it is picked; 0: none, None: it was not asked for."""
    size = request.form.get("canary_size")
    if size is None:
        return None, canary.FIRST
    if "canary" not in request.form:
        return 0, canary.FIRST
    number = int(size) if size.isascii() and size.isdigit() and len(size) < 8 else 0
    return number or -1, request.form.get("pick", "")  # nobody can have meant: to all


def _stopped(row: Broadcast) -> str:
    numbers = use.count(row, row.run)
    text: str = _(
        "Broadcast stopped. Queued: %(n)s, awaiting the provider's answer: %(m)s",
        n=numbers["queued"],
        m=numbers["sending"],
    )
    return text


@broadcasts.post("/<int:number>/rate")
@role("sender")
def rate(number: int) -> Response:
    """Change the rate, while it runs as well."""
    row = lookup.broadcast(number)
    toast, level = _("Saved"), "ok"
    given = "".join(c for c in request.form.get("rate_per_minute", "") if not c.isspace())
    try:
        row, _again = use.update(lookup.settings(), row, {"rate_per_minute": given}, me().name)
        tasks.wake(number)
    except use.NotAllowed as error:
        toast, level = sentences.changed(error), "info"
    except use.Invalid as error:
        toast, level = ". ".join(map(sentences.problem, error.problems.values())), "error"
    url = url_for("broadcasts.show", number=number)
    return htmx.reply("broadcasts/_live.html", url, toast=toast, level=level, **_live(row))


@broadcasts.route("/<int:number>/delete", methods=["GET", "POST"])
@role("sender")
def delete(number: int) -> Response:
    """Forget a draft that never sent anything, after asking."""
    row = lookup.broadcast(number)
    if request.method == "GET":
        files = RecipientFile.select().where(RecipientFile.broadcast == number).count()
        return htmx.question("broadcasts/_delete.html", row=row, files=files)
    try:
        use.delete(row, me().name)
    except use.NotAllowed as error:
        return htmx.redirect(url_for("broadcasts.show", number=number), toast=sentences.changed(error), level="error")
    except use.Invalid as error:
        text = ". ".join(map(sentences.problem, error.problems.values()))
        return htmx.redirect(url_for("broadcasts.show", number=number), toast=text, level="error")
    return htmx.redirect(url_for("broadcasts.index"), toast=_("Deleted: %(name)s", name=row.name))
