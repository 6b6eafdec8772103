"""The operator desk: conversations, what was said in one of them, answers, files that people sent."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, abort, make_response, render_template, request, send_file, url_for
from flask_babel import gettext as _

from webapp import filters, htmx, lookup, sentences, words
from webapp.auth import me, role
from webapp.forms.broadcast import Binding
from worker import attachments, audit, channels, delivery, media, rendering, reports, segments, talk, tasks
from worker import inbox as use
from worker.models import Attachment, Broadcast, Channel, Conversation, Inbound, MessageTemplate, QuickAnswer, User
from worker.problems import Invalid

inbox = Blueprint("inbox", __name__, url_prefix="/inbox")
NOBODY = "-"  # in the place of a person: the conversation is taken off whoever has it

VIEWS = ("open", "new", "mine", "closed", "all")
SEARCH = ("view", "channel", "broadcast", "q")
LATEST = 50  # broadcasts that the list can be narrowed to
ENDED = ("failed", "undelivered", "cancelled")  # a cause says why
SHOWN = (50, 100, 200, talk.PAGE_MAX)  # how many messages a page shows at first, and after each "Earlier"


# --- the list ---------------------------------------------------------------------------------------


def _search() -> dict[str, Any]:
    """What the address asks for; it stays in the address of every conversation."""
    found = {name: request.args.get(name, "")[:200] for name in SEARCH}
    if found["view"] == VIEWS[0]:
        del found["view"]
    return {name: value for name, value in found.items() if value}


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        abort(404)
    return int(text)


def _filter(search: Mapping[str, str]) -> use.Filter:
    view = search.get("view", VIEWS[0])
    if view not in VIEWS:
        abort(404)
    return use.Filter(
        unread=view == "new",
        assignee_id=me().user_id if view == "mine" else None,
        state={"open": "open", "mine": "open", "closed": "closed"}.get(view, ""),
        channel_id=_number(search.get("channel")),
        broadcast_id=_number(search.get("broadcast")),
        q=search.get("q", ""),
    )


def _listed(selected: int | None = None) -> dict[str, Any]:
    search, after = _search(), request.args.get("after", "")[:50]
    chosen = _filter(search)
    try:
        page = use.find(chosen, after)
    except ValueError:
        abort(404)
    people = {one.assignee_id for one in page.items} - {None}
    named = {u.id: u.email for u in User.select(User.id, User.email).where(User.id.in_(people))} if people else {}
    facts: dict[str, Any] = {
        "items": page.items,
        "channels": _channel_names(),
        "assignees": named,
        "search": search,
        "after": after,
        "selected": selected,
        "answered": _broadcast_names(chosen.broadcast_id),
        "views": [
            (words.INBOX_VIEWS[view], url_for("inbox.index", **{**search, "view": view}), view == _view(search), None)
            for view in VIEWS
        ],
        "first": url_for("inbox.index", **search) if after else "",
        "next": url_for("inbox.index", **search, after=page.next) if page.next else "",
        "any": bool(page.items or search or Conversation.select().limit(1).exists()),
    }
    row = [(c.id, c.unread, c.last_at, c.last_text, c.state, c.name, named.get(c.assignee_id)) for c in page.items]
    return facts | {"list_mark": _mark(row, page.next, [filters.ago(c.last_at) for c in page.items])}


def _view(search: Mapping[str, str]) -> str:
    return search.get("view", VIEWS[0])


def _channel_names() -> dict[int, str]:
    return {c.id: filters.own_name(c.name) for c in Channel.select(Channel.id, Channel.name).order_by(Channel.name)}


def _broadcast_names(chosen: int | None) -> dict[int, str]:
    """What replies can be chosen by: the latest broadcasts that left, and the chosen one."""
    known = Broadcast.select(Broadcast.id, Broadcast.name)
    sent = known.where((Broadcast.kind == "list") & Broadcast.last_sent_at.is_null(False))
    latest = sent.order_by(Broadcast.last_sent_at.desc()).limit(LATEST)
    return {b.id: b.name for b in (*latest, *known.where(Broadcast.id == chosen))}


def _mark(*facts: Any) -> str:
    """Changes with whatever is drawn from these facts."""
    return f"{zlib.crc32(repr(facts).encode()):08x}"


@inbox.get("")
@role("sender")
def index() -> str:
    """Conversations, the latest first."""
    return render_template("inbox/page.html", **_listed(), conversation=None)


@inbox.get("/list")
@role("sender")
def rows() -> Response:
    """The same list as a part of the page; 204 when nothing has changed since the last look."""
    facts = _listed(_number(request.args.get("selected")))
    if htmx.asked() and request.args.get("mark") == facts["list_mark"]:
        return Response(status=204)
    answer = htmx.partial("inbox/_list.html", **facts)
    if request.headers.get("HX-Trigger-Name"):  # a person searched: the address says what is shown
        answer.headers["HX-Replace-Url"] = url_for("inbox.index", **facts["search"])
    return answer


@inbox.get("/unread")
@role("sender")
def unread() -> Response:
    """The number in the menu."""
    number = use.unread_number()
    if htmx.asked() and request.args.get("n") == str(number):
        return Response(status=204)
    return htmx.partial("inbox/_unread.html", unread=number)


# --- one of them ------------------------------------------------------------------------------------


@dataclass
class Answer:
    """The answer form as it was filled in. `problems`: sentences by field."""

    text: str = ""
    template: str = ""
    values: dict[str, str] = field(default_factory=dict)
    confirmed: bool = False
    problems: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def pair(self) -> tuple[str, str]:
        """Name and language of the chosen template."""
        name, _slash, language = self.template.partition("/")
        return name, language


def _talk(conversation: Conversation) -> dict[str, Any]:
    """What was said, whose it is, and whether one may answer: all that changes by itself."""
    channel = Channel.get_by_id(conversation.channel_id)
    before = request.args.get("before", "")[:200]
    shown = _number(request.args.get("n")) or SHOWN[0]
    shown = next((n for n in SHOWN if n >= shown), SHOWN[-1])
    try:
        page = talk.page(conversation, before, shown)
    except ValueError:
        abort(404)
    assignee = User.get_or_none(User.id == conversation.assignee_id) if conversation.assignee_id else None
    until = use.window_until(conversation, channel)
    answered = {e.broadcast_id for e in page.items} | {conversation.broadcast_id}
    ids = [one for one in answered if one]
    named = {b.id: b.name for b in Broadcast.select(Broadcast.id, Broadcast.name).where(Broadcast.id.in_(ids))}
    facts: dict[str, Any] = {
        "conversation": conversation,
        "channel": channel,
        "entries": [(entry, _said(entry)) for entry in page.items],
        "broadcasts": named,
        "before": before,
        "shown": shown,
        "earlier": _earlier(conversation, page.earlier, shown, before),
        "seen": max((e.id for e in page.items if e.direction == "in"), default=0),
        "assignee": assignee,
        "mine": assignee is not None and assignee.id == me().user_id,
        "elsewhere": use.elsewhere(conversation),
        "channels": _channel_names(),
        "until": until,
        "open": use.is_open(conversation, channel),
        "opted_out": use.is_opted_out(conversation),
        "off": channel.state != "on",
        "idle": any(e.status == "queued" for e in page.items) and not delivery.worker_alive(),
        "search": _search(),
    }
    drawn = [(e, [(f.id, f.state, f.cause) for f in e.files]) for e in page.items]
    state = (conversation.state, conversation.name, facts["opted_out"], facts["off"], facts["idle"])
    left = filters.left(until) if until else ""
    others = [(c.id, c.state) for c in facts["elsewhere"]]
    return facts | {"mark": _mark(drawn, state, left, others, assignee and assignee.email, page.earlier)}


def _said(entry: talk.Entry) -> dict[str, Any]:
    """The sentences that go with one message."""
    waiting = ""
    if entry.waiting:
        because = sentences.cause(entry.waiting)
        waiting = sentences.waiting({"code": entry.waiting}) or (because["text"] if because else "")
    row = reports.message(entry.id) if entry.status == "uncertain" else None
    return {
        "cause": sentences.cause(entry.cause, entry.cause_text) if entry.status in ENDED else None,
        "waiting": waiting,
        "hint": sentences.hint(reports.hint(row)) if row is not None else "",
        "files": [
            (one, sentences.finding(one.cause or "", "") if one.state == "failed" else "") for one in entry.files
        ],
    }


def _earlier(conversation: Conversation, cursor: str | None, shown: int, before: str) -> dict[str, Any] | None:
    """Where the messages before the first shown one are: more on this page, then a page of their own."""
    if cursor is None:
        return None
    search = _search()
    if before or shown == SHOWN[-1]:
        return {"url": url_for("inbox.show", number=conversation.id, before=cursor, **search), "part": ""}
    more = SHOWN[SHOWN.index(shown) + 1]
    return {
        "url": url_for("inbox.show", number=conversation.id, n=more, **search),
        "part": url_for("inbox.part", number=conversation.id, n=more, **search),
    }


def _form(conversation: Conversation, given: Answer) -> dict[str, Any]:
    """What the answer form is drawn from."""
    channel = Channel.get_by_id(conversation.channel_id)
    waba = channel.kind == "waba"
    found = channels.template(channel.id, *given.pair) if given.template else None
    return {
        "given": given,
        "waba": waba,
        "text_max": use.WABA_TEXT_MAX if waba else "",
        "counted": segments.told(given.text) if given.text and not waba else None,
        "quick": use.quick_answers(),
        "templates": use.templates(channel.id) if waba else [],
        "focus": False,
        **_slots(found, given.values),
    }


def _slots(found: MessageTemplate | None, values: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the chosen template."""
    if found is None:
        return {"chosen_template": None, "fields": [], "files": []}
    slots = rendering.slots(found.components, found.parameter_format)
    with_file = any(slot.id == "header.media" for slot in slots)
    return {
        "chosen_template": found,
        "fields": [(Binding(slot), values.get(slot.id, "")) for slot in slots],
        "files": media.living(found.channel.id) if with_file else [],
    }


def _page(conversation: Conversation, given: Answer, status: int = 200) -> Response:
    facts = _listed(conversation.id) | _talk(conversation) | _form(conversation, given)
    return make_response(render_template("inbox/page.html", **facts), status)


@inbox.get("/<int:number>")
@role("sender")
def show(number: int) -> Response:
    conversation = lookup.conversation(number)
    audit.note(me().name, "number.view", str(number), of="conversation")
    return _page(conversation, Answer())


@inbox.get("/<int:number>/talk")
@role("sender")
def part(number: int) -> Response:
    """What was said and the state around it, as they are now; 204 when nothing has changed since the last look."""
    facts = _talk(lookup.conversation(number))
    if htmx.asked() and request.args.get("mark") == facts["mark"]:
        return Response(status=204)
    return htmx.partial("inbox/_changed.html", **facts)


@inbox.post("/<int:number>/read")
@role("sender")
def read(number: int) -> Response:
    """The messages up to `seen` were shown to a person."""
    use.read(lookup.conversation(number), _number(request.form.get("seen")))
    if htmx.asked():
        return htmx.tell(Response(status=204), "inbox-changed")
    return htmx.redirect(_back(number))


def _back(number: int) -> str:
    return url_for("inbox.show", number=number, **_search())


def _done(number: int, toast: str = "", level: str = "ok") -> Response:
    """The answer to a deed: the parts of the page that it changes."""
    if not htmx.asked():
        return htmx.redirect(_back(number), toast=toast, level=level)
    answer = htmx.partial("inbox/_changed.html", toast=toast, level=level, **_talk(lookup.conversation(number)))
    return htmx.tell(answer, "inbox-changed")


@inbox.post("/<int:number>/<any(close, reopen):action>")
@role("sender")
def press(number: int, action: str) -> Response:
    {"close": use.close, "reopen": use.reopen}[action](lookup.conversation(number), me().name)
    return _done(number)


@inbox.route("/<int:number>/assign", methods=["GET", "POST"])
@role("sender")
def assign(number: int) -> Response:
    """Take it, hand it over, or let it go; GET asks to whom."""
    conversation = lookup.conversation(number)
    if request.method == "GET":
        row = {"name": conversation.name or filters.masked(conversation.phone)}
        facts: dict[str, Any] = {
            "conversation": conversation,
            "operators": use.operators(),
            "search": _search(),
            "row": row,
            "nobody": NOBODY,
        }
        return htmx.question("inbox/_assign.html", **facts)
    try:
        chosen = request.form.get("user", me().name)
        use.assign(conversation, None if chosen == NOBODY else chosen, me().name)
    except Invalid as error:
        return _done(number, _sentence(error), "error")
    return _done(number, _("Saved"))


def _sentence(error: Invalid) -> str:
    return ". ".join(sentences.problem(problem) for problem in error.problems.values())


# --- answers ----------------------------------------------------------------------------------------


@inbox.get("/<int:number>/template")
@role("sender")
def fields(number: int) -> Response:
    """The fields of the template that was chosen."""
    conversation, given = lookup.conversation(number), Answer(template=request.args.get("template", "")[:600])
    found = channels.template(conversation.channel_id, *given.pair) if given.template else None
    return htmx.partial("inbox/_fields.html", **_slots(found, {}))


@inbox.post("/<int:number>/answer")
@role("sender")
def answer(number: int) -> Response:
    """Send a text or a template; the same form twice sends once."""
    conversation, given = lookup.conversation(number), _given()
    if "refresh" in request.form:
        return _page(conversation, given)
    try:
        use.answer(lookup.settings(), conversation, _as_given(given), me().name)
    except Invalid as error:
        given.problems = {name: sentences.problem(problem) for name, problem in error.problems.items()}
        if not htmx.asked():
            return _page(conversation, given, 422)
        facts = _form(conversation, given) | _talk(conversation) | {"focus": True}
        return htmx.partial("inbox/_answered.html", status=422, **facts)
    tasks.wake(0)
    if not htmx.asked():
        return htmx.redirect(_back(number))
    conversation = lookup.conversation(number)
    facts = _form(conversation, Answer()) | _talk(conversation) | {"focus": not given.template}
    return htmx.tell(htmx.partial("inbox/_answered.html", **facts), "inbox-changed")


def _given() -> Answer:
    form = request.form
    values = {name.removeprefix("slot."): text for name, text in form.items() if name.startswith("slot.")}
    return Answer(
        form.get("text", ""),
        form.get("template", "")[:600],
        values,
        bool(form.get("confirm_optout")),
        token=form.get("form_token", "")[:64] or secrets.token_urlsafe(16),
    )


def _as_given(answer: Answer) -> use.Given:
    template = answer.pair if "template" in request.form else None
    return use.Given(answer.text, template, answer.values, answer.confirmed, answer.token)


@inbox.post("/<int:number>/messages/<int:message_id>/resolve")
@role("sender")
def resolve(number: int, message_id: int) -> Response:
    """An uncertain answer counts as sent, or is sent again: a person's decision, never ours."""
    how = request.form.get("as", "")
    row = reports.message(min(message_id, lookup.ID_MAX))
    if how not in ("sent", "resend") or row is None or row.phone != lookup.conversation(number).phone:
        abort(404)
    done = delivery.resolve(message_id, how, me().name)
    tasks.wake(0)
    return _done(number, _("Saved") if done else _("The message is not uncertain any more"), "ok" if done else "info")


# --- files ------------------------------------------------------------------------------------------


def _attachment(number: int) -> Attachment:
    found = Attachment.get_or_none(Attachment.id == min(number, lookup.ID_MAX))
    return found or abort(404)


@inbox.get("/attachments/<int:number>")
@role("sender")
def attachment(number: int) -> Response:
    """A file that a person sent: a picture is shown, anything else is only handed out."""
    row = _attachment(number)
    path = attachments.file_of(lookup.settings(), row)
    if path is None:
        abort(404)
    picture = row.mime in attachments.PICTURES
    response = send_file(
        path,
        mimetype=row.mime if picture else attachments.BINARY,
        as_attachment=not picture,
        download_name=attachments.file_name(row),
        conditional=False,
        etag=False,
    )
    # Whatever it is, it runs nothing and sees nothing of this site.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "no-store"
    return response


@inbox.post("/attachments/<int:number>/again")
@role("sender")
def again(number: int) -> Response:
    """Try once more to fetch a file."""
    row = _attachment(number)
    attachments.again(row)
    inbound = Inbound.get_or_none(Inbound.id == row.inbound_id)
    return _done(inbound.conversation_id) if inbound and inbound.conversation_id else abort(404)


# --- quick answers ----------------------------------------------------------------------------------


@inbox.get("/quick")
@role("sender")
def quick() -> Response:
    return _quick_page({}, {})


def _quick_page(typed: Mapping[str, str], problems: Mapping[str, str], number: int = 0) -> Response:
    facts = {"items": use.quick_answers(), "typed": typed, "problems": problems, "edited": number}
    return make_response(render_template("inbox/quick.html", **facts), 422 if problems else 200)


@inbox.post("/quick", defaults={"number": 0})
@inbox.post("/quick/<int:number>")
@role("sender")
def keep(number: int) -> Response:
    """Store a new one, or change a known one."""
    typed = {name: request.form.get(name, "") for name in ("title", "text")}
    try:
        use.keep_quick(typed["title"], typed["text"], me().name, _quick(number) if number else None)
    except Invalid as error:
        return _quick_page(typed, {name: sentences.problem(p) for name, p in error.problems.items()}, number)
    return htmx.redirect(url_for("inbox.quick"), toast=_("Saved"))


@inbox.post("/quick/<int:number>/delete")
@role("sender")
def forget(number: int) -> Response:
    row = _quick(number)
    use.forget_quick(row, me().name)
    return htmx.redirect(url_for("inbox.quick"), toast=_("Deleted: %(name)s", name=row.title))


def _quick(number: int) -> QuickAnswer:
    return QuickAnswer.get_or_none(QuickAnswer.id == min(number, lookup.ID_MAX)) or abort(404)
