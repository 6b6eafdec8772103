"""The stop list: who is on it, adding and removing by hand, import and export, the history of a number, settings."""

from __future__ import annotations

from typing import Any, BinaryIO, cast

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from flask_babel import LazyString
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l

from webapp import exports, filters, htmx, lookup, sentences
from webapp.auth import me, role, step_up
from webapp.forms import optout as forms
from webapp.forms.optout import AddForm, ImportForm, ReasonForm
from webapp.limits import limited
from worker import audit, confirmations, optout_files, segments, stopwords
from worker import optouts as use
from worker.models import Channel
from worker.problems import Invalid
from worker.recipients import MAX_BYTES, FileRefused

optouts = Blueprint("optouts", __name__, url_prefix="/optouts")
FILTERS = ("phone", "source", "scope")
ROOM = 64 * 1024  # for the form around a file
TOO_LARGE = _l("The file is over 10 MB. Split it and import the parts one after the other")


# --- the list ---------------------------------------------------------------------------------------


@optouts.get("")
@role("sender")
def index() -> str:
    chosen = use.Filter(lookup.phone_wanted(), request.args.get("source", ""), request.args.get("scope", ""))
    try:
        page = use.find(chosen, request.args.get("after", ""))
    except ValueError:
        abort(404)
    kept: dict[str, Any] = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    return render_template(
        "optouts/list.html",
        items=page.items,
        channels=_channels(row.channel_id for row in page.items),
        chosen=chosen,
        filtered=bool(kept),
        was=bool(chosen.phone and not page.items and use.history(chosen.phone)),
        number=use.count(),
        marketing=use.count(use.MARKETING),
        first=url_for("optouts.index", **kept) if request.args.get("after") else "",
        next=url_for("optouts.index", **{**kept, "after": page.next}) if page.next else "",
        because=sentences.optout_reason,
    )


def _channels(ids: Any) -> dict[int, str]:
    """The names of these channels, deleted ones too."""
    wanted = {number for number in ids if number is not None}
    rows = Channel.select(Channel.id, Channel.name).where(Channel.id.in_(wanted)) if wanted else ()
    return {row.id: filters.own_name(row.name) for row in rows}


@optouts.get("/export.csv")
@role("admin")
@step_up
@limited("export")
def export() -> Response:
    return exports.optouts_csv(lookup.settings(), lookup.language(), me().name)


# --- one number -------------------------------------------------------------------------------------


@optouts.get("/<int:number>")
@role("sender")
def show(number: int) -> str:
    return _story(_entry(number).phone)


@optouts.get("/<phone>")
@role("sender")
def story(phone: str) -> str:
    """The same for a number that has been taken off."""
    return _story(phone)


def _entry(number: int) -> use.Row:
    row = use.by_id(min(number, lookup.ID_MAX))
    if row is None:
        abort(404)
    return row


def _story(phone: str) -> str:
    events = use.history(phone)
    if not events:
        abort(404)
    audit.note(me().name, "number.view", phone, of="stop list")
    return render_template(
        "optouts/show.html",
        phone=phone,
        entries=use.of_phone(phone),
        events=events,
        channels=_channels(event.channel_id for event in events),
        because=sentences.optout_reason,
    )


@optouts.route("/<int:number>/remove", methods=["GET", "POST"])
@role("admin")
def remove(number: int) -> Response:
    """Take a number off, after asking why."""
    row = _entry(number)
    form = ReasonForm(request.form if request.method == "POST" else None)
    if request.method == "GET":
        return _question(row, form)
    try:
        if form.is_filled():
            use.remove(row.id, form.reason.data, me().name)
            return htmx.redirect(url_for("optouts.story", phone=row.phone), toast=_("Taken off the stop list"))
    except Invalid as error:
        form.refuse(error.problems)
    return _question(row, form, 422)


def _question(row: use.Row, form: ReasonForm, status: int = 200) -> Response:
    facts = {"row": {"name": _("Stop list")}, "entry": row, "form": form}
    return htmx.question("optouts/_remove.html", status=status, **facts)


# --- many numbers -----------------------------------------------------------------------------------


@optouts.route("/add", methods=["GET", "POST"])
@role("sender")
def add() -> Response:
    """One number or many, as a person types or pastes them."""
    settings = lookup.settings()
    form = AddForm(request.form, phones=request.args.get("phone", "")[:100], region=settings.region)
    result = None
    if request.method == "POST":
        try:
            if form.is_filled():
                typed, reason = form.phones.data or "", form.reason.data or ""
                result = optout_files.paste(
                    typed, form.region.data, me().name, reason=reason, scope=form.scope.data or ""
                )
        except Invalid as error:
            form.refuse(error.problems)
    return _answer("optouts/add.html", form, result)


def _answer(
    template: str, form: Any, result: optout_files.Result | None, problem: str | LazyString = "", **more: Any
) -> Response:
    """The page with what became of the numbers; for htmx that alone."""
    found = result.lines if result else []
    lines = [sentences.row_reason(line.code, line.number, line.value, None, None) for line in found]
    facts = {"form": form, "result": result, "lines": lines, "problem": problem, **more}
    return htmx.partial(
        "optouts/_result.html" if htmx.asked() else template, status=422 if problem or form.errors else 200, **facts
    )


@optouts.route("/import", methods=["GET", "POST"])
@role("admin")
def import_() -> Response:
    """A list from elsewhere."""
    form = ImportForm(request.form)
    result: optout_files.Result | None = None
    problem: str | LazyString = ""
    if request.method == "POST":
        try:
            result = _read(form)
        except Invalid as error:
            form.refuse(error.problems)
        except FileRefused as refused:
            problem = (
                TOO_LARGE if refused.code == "file_too_large" else sentences.file_code(refused.code, refused.detail)
            )
    return _answer("optouts/import.html", form, result, problem, too_large=TOO_LARGE)


def _read(form: ImportForm) -> optout_files.Result:
    if (request.content_length or 0) > MAX_BYTES + ROOM:
        raise FileRefused("file_too_large", size=request.content_length)
    given = request.files.get("file")
    if given is None or not given.filename:
        raise FileRefused("file_missing")
    return optout_files.read(
        cast(BinaryIO, given.stream),
        lookup.settings().region,
        me().name,
        reason=form.reason.data or "",
        scope=form.scope.data or "",
        encoding=form.encoding.data or "",
        phone_column=form.phone_column.data or "",
    )


# --- settings ---------------------------------------------------------------------------------------


@optouts.get("/settings")
@role("admin")
def settings() -> Response:
    return _settings(forms.words_form(), forms.confirmation_form())


def _settings(words: forms.WordsForm, confirmation: forms.ConfirmationForm) -> Response:
    counted = {name: segments.count(confirmation[name].data or "") for name in ("sms_ru", "sms_en")}
    page = render_template(
        "optouts/settings.html", words_form=words, confirmation=confirmation, counted=counted, stopwords=stopwords
    )
    return make_response(page, 422 if words.errors or confirmation.errors else 200)


@optouts.post("/settings/words")
@role("admin")
def set_words() -> Response:
    form = forms.words_form(request.form)
    try:
        use.set_stop_words((form.extra.data or "").splitlines(), request.form.getlist("on"), me().name)
    except Invalid as error:
        form.refuse(error.problems)
        return _settings(form, forms.confirmation_form())
    return htmx.redirect(url_for("optouts.settings"), toast=_("Saved"))


@optouts.post("/settings/confirmation")
@role("admin")
def set_confirmation() -> Response:
    form = forms.confirmation_form(request.form)
    try:
        confirmations.choose(bool(form.on.data), form.texts(), me().name)
    except Invalid as error:
        form.refuse(error.problems)
        return _settings(forms.words_form(), form)
    return htmx.redirect(url_for("optouts.settings"), toast=_("Saved"))
