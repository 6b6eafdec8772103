"""The JSON API: bearer tokens, errors as {"error": {"code", "message", "fields"?}}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from flask import Blueprint, Response, abort, jsonify, request
from flask_babel import gettext as _
from phonenumbers import SUPPORTED_REGIONS
from werkzeug.exceptions import HTTPException

from webapp import controls, drafts, exports, lookup, sentences, shapes, sheet
from webapp.auth import me, role
from worker import (
    broadcasts,
    canary,
    channel_settings,
    channels,
    delivery,
    direct,
    inbox,
    media,
    optouts,
    phone,
    preview,
    recipients,
    reports,
    segments,
    statistics,
    talk,
    tasks,
    vault,
)
from worker.models import Broadcast, Channel, Conversation, MessageTemplate
from worker.problems import Invalid, Problem
from worker.providers import PROVIDERS
from worker.providers.base import REFUSED, SendError
from worker.states import MESSAGE_STATUSES

api = Blueprint("api", __name__, url_prefix="/api/v1")

FIELDS = frozenset(
    {
        *("name", "channel_id", "text", "template", "variables", "region", "ignore_duplicates"),
        *("on_file_delete", "rate_per_minute", "send_at", "timezone", "quiet_hours", "cooldown_days"),
    }
)
PHONES_MAX = 10_000
TEXT_MAX = 20_000
LISTED = 50


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **more}}


@api.errorhandler(ApiError)
def _failed(error: ApiError) -> tuple[Response, int]:
    return jsonify(error.body), error.status


@api.errorhandler(broadcasts.Invalid)
def _invalid(error: broadcasts.Invalid) -> tuple[Response, int]:
    fields = {name: sentences.problem(problem) for name, problem in error.problems.items()}
    first = next(iter(error.problems.values()))
    body = {"error": {"code": first.code, "message": next(iter(fields.values())), "fields": fields}}
    return jsonify(body), 422


@api.errorhandler(broadcasts.NotAllowed)
def _not_allowed(error: broadcasts.NotAllowed) -> tuple[Response, int]:
    message = sentences.changed(error)
    return jsonify({"error": {"code": "not_allowed", "message": message, "allowed": error.allowed}}), 409


@api.errorhandler(channels.InUse)
def _in_use(error: channels.InUse) -> tuple[Response, int]:
    return jsonify({"error": {"code": "in_use", "message": sentences.in_use(error)}}), 409


@api.errorhandler(vault.VaultError)
def _locked(_error: vault.VaultError) -> tuple[Response, int]:
    code = "credentials_locked"
    return jsonify({"error": {"code": code, "message": sentences.finding(code, "")}}), 409


@api.errorhandler(recipients.FileRefused)
def _refused(error: recipients.FileRefused) -> tuple[Response, int]:
    status = 413 if error.code == "file_too_large" else 422
    return jsonify({"error": {"code": error.code, "message": sentences.file_code(error.code, error.detail)}}), status


def _json() -> dict[str, Any]:
    try:
        given = request.get_json(force=True)
    except (HTTPException, RecursionError, ValueError):
        raise ApiError(400, "bad_json", _("The body is not JSON")) from None
    if b"\\u" in request.get_data() and _has_half_characters(given):
        raise ApiError(400, "bad_json", _("The body is not JSON"))
    if not isinstance(given, dict):
        raise ApiError(400, "bad_json", _("The body must be a JSON object"))
    return given


def _has_half_characters(given: Any) -> bool:
    """Whether some text holds one half of a character, which no database and no provider takes."""
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _known(given: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    unknown = sorted(set(given) - fields)
    if unknown:
        sentence = _("There is no such field")
        raise ApiError(422, "unknown_field", f"{sentence}: {unknown[0]}", fields=dict.fromkeys(unknown, sentence))
    return dict(given)


def _number(name: str, default: int | None = None) -> int | None:
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={name: text[:50]})
    return int(text)


def _run(default: int) -> int | None:
    return None if request.args.get("run") == "all" else _number("run", default)


# --- channels ---------------------------------------------------------------------------------------


@api.get("/channels/providers")
@role("viewer")
def providers() -> Response:
    return jsonify({"items": [shapes.provider(key) for key in PROVIDERS], "next": None})


@api.get("/channels")
@role("viewer")
def channel_list() -> Response:
    rows = channels.living().order_by(Channel.id).limit(500)
    return jsonify({"items": [_channel(row) for row in rows], "next": None})


@api.post("/channels")
@role("admin")
def channel_create() -> tuple[Response, int]:
    given = _known(_json(), channel_settings.FIELDS | {"kind", "provider"})
    return jsonify(_channel(channels.add(lookup.settings(), given, me().name))), 201


@api.get("/channels/<int:number>")
@role("viewer")
def channel_one(number: int) -> Response:
    return jsonify(_channel(lookup.channel(number)))


@api.patch("/channels/<int:number>")
@role("admin")
def channel_change(number: int) -> Response:
    row = lookup.channel(number)
    given = _known(_json(), channel_settings.FIELDS | {"kind", "provider", "state"})
    for name in ("provider", "kind"):
        if given.pop(name, getattr(row, name)) != getattr(row, name):
            raise Invalid({name: Problem("provider_fixed")})
    state = given.pop("state", None)
    if state not in (None, "on", "stopped"):
        raise Invalid({"state": Problem("not_a_choice")})
    row = channels.change(lookup.settings(), row, given, me().name)
    if state is not None:
        (channels.switch_on if state == "on" else channels.switch_off)(row.id, me().name)
    return jsonify(_channel(lookup.channel(number)))


@api.delete("/channels/<int:number>")
@role("admin")
def channel_delete(number: int) -> tuple[str, int]:
    channels.delete(lookup.channel(number), me().name)
    return "", 204


def _channel(row: Channel) -> dict[str, Any]:
    return shapes.channel(lookup.settings(), row, whole=me().can("sender"))


@api.get("/channels/<int:number>/templates")
@role("viewer")
def channel_templates(number: int) -> Response:
    rows = MessageTemplate.select().where(MessageTemplate.channel == lookup.channel(number).id).limit(7_000)
    return jsonify({"items": [shapes.template(row) for row in rows], "next": None})


@api.post("/channels/<int:number>/templates/sync")
@role("sender")
def channel_sync(number: int) -> Response:
    row = lookup.channel(number)
    if row.kind != "waba":
        raise ApiError(409, "not_allowed", _("This channel has no templates"), allowed=[])
    try:
        channels.sync_templates(lookup.settings(), row.id)
    except SendError as error:
        raise ApiError(502, error.cause, sentences.failed_call(error.cause, error.detail)) from error
    return channel_templates(number)


@api.post("/channels/<int:number>/check")
@role("sender")
def channel_check(number: int) -> Response:
    return jsonify(shapes.findings(channels.check(lookup.settings(), lookup.channel(number))))


@api.post("/channels/<int:number>/media")
@role("sender")
def channel_media(number: int) -> tuple[Response, int]:
    row = lookup.channel(number)
    if "media" not in PROVIDERS[row.provider].supports:
        abort(404)
    given = request.files.get("file")
    if given is None or not given.filename:
        raise ApiError(422, "invalid", _("Choose a file"), fields={"file": _("Choose a file")})
    try:
        made = media.upload(lookup.settings(), row, given.read(), given.filename, me().name)
    except SendError as error:
        refused = error.outcome == REFUSED
        raise ApiError(
            422 if refused else 502, error.cause, sentences.failed_call(error.cause, error.detail)
        ) from error
    return jsonify({"id": made.media_id, "name": made.name, "mime": made.mime, "expires_at": made.at + media.LIFE}), 201


@api.post("/channels/<int:number>/register")
@role("admin")
def channel_register(number: int) -> Response:
    row = lookup.channel(number)
    if "register" not in PROVIDERS[row.provider].supports:
        abort(404)
    return jsonify(shapes.findings(channels.register(lookup.settings(), row, me().name)))


# --- tools ------------------------------------------------------------------------------------------


@api.post("/sms/segments")
@role("viewer")
def sms_segments() -> Response:
    text = _known(_json(), frozenset({"text"})).get("text")
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ApiError(422, "text_required", _("Enter the message text"), fields={"text": _("Enter the message text")})
    found = segments.count(text)
    return jsonify(found._asdict())


@api.post("/phones/parse")
@role("viewer")
def phones_parse() -> Response:
    given = _known(_json(), frozenset({"phones", "region"}))
    phones, region = given.get("phones"), given.get("region") or lookup.settings().region
    if not isinstance(phones, list) or len(phones) > PHONES_MAX or not all(isinstance(p, str) for p in phones):
        raise ApiError(422, "phones_invalid", _("This value cannot be used"), fields={"phones": "list"})
    if not isinstance(region, str) or region not in SUPPORTED_REGIONS:
        raise broadcasts.Invalid({"region": broadcasts.Problem("region_unknown")})
    found = [(p, phone.parse(p[:1000], region)) for p in phones]
    return jsonify([{"input": p, "e164": f.e164, "reason": f.reason} for p, f in found])


# --- broadcasts -------------------------------------------------------------------------------------


@api.get("/broadcasts")
@role("viewer")
def broadcast_list() -> Response:
    rows = broadcasts.find(
        request.args.get("name", "")[:200], request.args.get("state", "")[:20], _number("after"), LISTED + 1
    )
    following = str(rows[LISTED - 1].id) if len(rows) > LISTED else None
    return jsonify({"items": [shapes.broadcast(row) for row in rows[:LISTED]], "next": following})


@api.post("/broadcasts")
@role("sender")
def broadcast_create() -> tuple[Response, int]:
    values = _known(_json(), FIELDS)
    return jsonify(shapes.broadcast(broadcasts.create(lookup.settings(), values, me().name))), 201


@api.get("/broadcasts/<int:number>")
@role("viewer")
def broadcast_one(number: int) -> Response:
    row = lookup.broadcast(number)
    return jsonify(shapes.broadcast(row, _run(row.run)))


@api.patch("/broadcasts/<int:number>")
@role("sender")
def broadcast_change(number: int) -> Response:
    row, again = broadcasts.update(lookup.settings(), lookup.broadcast(number), _known(_json(), FIELDS), me().name)
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
    given = _json() if request.get_data() else {}
    taken = {"restart": frozenset({"who", "cause"}), "start": frozenset({"canary", "pick"})}
    given = _known(given, taken.get(action, frozenset()))
    first = given.get("canary")
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or first < 1):
        raise Invalid({"canary": Problem("canary_range", {"max": canary.MAX})})
    chosen = {name: str(given[name]) for name in ("who", "cause", "pick") if given.get(name) is not None}
    row = controls.press(lookup.settings(), lookup.broadcast(number), action, me().name, first=first, **chosen)
    return jsonify(shapes.broadcast(row))


# --- before the start


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
    line, file, after = _number("line"), _number("file"), _number("after", 0) or 0
    return jsonify(shapes.preview(preview.find(lookup.broadcast(number), which, line=line, file=file, after=after)))


@api.get("/broadcasts/<int:number>/tests")
@role("sender")
def broadcast_tests(number: int) -> Response:
    found = direct.tests_of(lookup.broadcast(number).id)
    return jsonify({"items": [shapes.test(row) for row in found], "next": None})


@api.post("/broadcasts/<int:number>/test")
@role("sender")
def broadcast_test(number: int) -> tuple[Response, int]:
    row, given = lookup.broadcast(number), _known(_json(), frozenset({"phone", "line", "file"}))
    place = {name: given.get(name) for name in ("line", "file")}
    if wrong := [name for name, value in place.items() if not isinstance(value, int | None) or value is True]:
        raise Invalid({name: Problem("not_whole") for name in wrong})
    number_ = given.get("phone")
    made = preview.send_test(lookup.settings(), row, number_ if isinstance(number_, str) else "", me().name, **place)
    tasks.wake(row.id)
    return jsonify(shapes.test(direct.by_ids([made.id])[0])), 201


@api.get("/broadcasts/<int:number>/messages")
@role("viewer")
def broadcast_messages(number: int) -> Response:
    row = lookup.broadcast(number)
    try:
        page = reports.messages(row, _chosen(row), request.args.get("after", ""), _number("limit", reports.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": [shapes.message(item) for item in page.items], "next": page.next})


def _chosen(row: Broadcast) -> reports.Filter:
    """The messages that the address asks for."""
    status = request.args.get("status", "")
    if status and status not in MESSAGE_STATUSES:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={"status": ""})
    return reports.Filter(
        run=_run(row.run),
        status=status,
        cause=request.args.get("cause", ""),
        file_id=_number("file"),
        phone=lookup.phone_filter(),
    )


@api.get("/broadcasts/<int:number>/report")
@role("viewer")
def broadcast_figures(number: int) -> Response:
    row = lookup.broadcast(number)
    run = _run(row.run)
    facts, due = statistics.facts(row, run)
    if due:
        tasks.count_report(row.id, run)
    return jsonify(shapes.report(row, run, facts, due))


@api.get("/broadcasts/<int:number>/report.csv")
@role("viewer")
def broadcast_report(number: int) -> Response:
    row = lookup.broadcast(number)
    return exports.report_csv(row, _chosen(row), lookup.language())


@api.get("/broadcasts/<int:number>/report.xlsx")
@role("viewer")
def broadcast_workbook(number: int) -> Response:
    row = lookup.broadcast(number)
    return exports.report_xlsx(row, _chosen(row))


@api.get("/broadcasts/<int:number>/sample.csv")
@role("viewer")
def broadcast_sample(number: int) -> Response:
    content = broadcasts.content(lookup.broadcast(number))
    return exports.sample_csv(content.columns if content else [], lookup.language())


@api.post("/messages/<int:number>/resolve")
@role("sender")
def message_resolve(number: int) -> Response:
    how = _known(_json(), frozenset({"as"})).get("as")
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


# --- files ------------------------------------------------------------------------------------------


@api.post("/broadcasts/<int:number>/files")
@role("sender")
def file_upload(number: int) -> tuple[Response, int]:
    row = lookup.broadcast(number)
    if (request.content_length or 0) > recipients.MAX_BYTES + 64 * 1024:
        raise recipients.FileRefused("file_too_large", size=request.content_length)
    given = request.files.get("file")
    if given is None:
        sentence = _("Choose a file")
        raise ApiError(422, "file_missing", sentence, fields={"file": sentence})
    file = recipients.receive(
        row,
        cast(BinaryIO, given.stream),
        given.filename or "",
        lookup.settings().uploads,
        request.form.to_dict(),
        me().name,
    )
    tasks.read_file(file.id)
    return jsonify(shapes.file(file)), 202


@api.get("/broadcasts/<int:number>/files")
@role("viewer")
def file_list(number: int) -> Response:
    rows = broadcasts.live_files(lookup.broadcast(number))
    return jsonify({"items": [shapes.file(row, False) for row in rows], "next": None})


@api.get("/broadcasts/<int:number>/files/<int:file_id>")
@role("viewer")
def file_one(number: int, file_id: int) -> Response:
    return jsonify(shapes.file(lookup.file(number, file_id)))


@api.get("/broadcasts/<int:number>/files/<int:file_id>/errors.csv")
@role("viewer")
def file_errors(number: int, file_id: int) -> Response:
    return exports.errors_csv(lookup.file(number, file_id), lookup.language())


@api.delete("/broadcasts/<int:number>/files/<int:file_id>")
@role("sender")
def file_delete(number: int, file_id: int) -> Response:
    row = lookup.broadcast(number)
    how = request.args.get("on_delete") or row.on_file_delete
    if how not in ("keep", "remove"):
        raise broadcasts.Invalid({"on_delete": broadcasts.Problem("not_a_choice")})
    if not recipients.remove(lookup.file(number, file_id), how, lookup.settings().uploads, me().name):
        abort(404)
    tasks.wake(row.id)
    return jsonify(shapes.broadcast(lookup.broadcast(number)))


# --- the stop list ----------------------------------------------------------------------------------


@api.get("/optouts")
@role("sender")
def optout_list() -> Response:
    given = request.args
    chosen = optouts.Filter(lookup.phone_wanted(), given.get("source", ""), given.get("scope", ""))
    try:
        page = optouts.find(chosen, given.get("after", ""), _number("limit", optouts.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": [shapes.optout(row) for row in page.items], "next": page.next})


@api.post("/optouts")
@role("sender")
def optout_add() -> tuple[Response, int]:
    given = _known(_json(), frozenset({"phone", "reason", "scope"}))
    texts = {"phone": "", "reason": "", "scope": optouts.ALL, **given}
    wrong = {name: Problem("not_a_text") for name, value in texts.items() if not isinstance(value, str)}
    if wrong:
        raise Invalid(wrong)
    found = phone.parse(texts["phone"][:1000], lookup.settings().region)
    if found.e164 is None:
        raise Invalid({"phone": Problem(found.reason or "phone_invalid", {"v": texts["phone"][:50]})})
    row, new = optouts.add(found.e164, texts["reason"], me().name, texts["scope"])
    return jsonify(shapes.optout(row)), 201 if new else 200


@api.delete("/optouts/<int:number>")
@role("admin")
def optout_remove(number: int) -> tuple[str, int]:
    """`?reason=` says why; the proof stays."""
    if not optouts.remove(min(number, lookup.ID_MAX), request.args.get("reason", ""), me().name):
        abort(404)
    return "", 204


@api.get("/optouts.csv")
@role("admin")
def optout_export() -> Response:
    return exports.optouts_csv(lookup.settings(), lookup.language(), me().name)


# --- the inbox --------------------------------------------------------------------------------------


@api.get("/conversations")
@role("sender")
def conversation_list() -> Response:
    chosen = inbox.Filter(
        unread=request.args.get("unread", "").lower() in ("1", "true", "yes"),
        assignee_id=_operator(request.args.get("assignee", "")),
        state=request.args.get("state", ""),
        channel_id=_number("channel_id"),
        broadcast_id=_number("broadcast_id"),
        q=request.args.get("q", "")[:200],
    )
    try:
        page = inbox.find(chosen, request.args.get("after", ""), _number("limit", inbox.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": shapes.conversations(page.items), "next": page.next})


def _operator(email: str) -> int | None:
    """The operator with this e-mail; -1, which is nobody's number, when there is none."""
    if not email:
        return None
    return next((user.id for user in inbox.operators() if user.email == email), -1)


@api.get("/conversations/<int:number>")
@role("sender")
def conversation_one(number: int) -> Response:
    return _conversation(lookup.conversation(number))


def _conversation(row: Conversation) -> Response:
    try:
        page = talk.page(row, request.args.get("before", "")[:200], _number("limit", talk.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify(shapes.whole_conversation(row, page))


@api.post("/conversations/<int:number>/messages")
@role("sender")
def conversation_answer(number: int) -> tuple[Response, int]:
    """An Idempotency-Key makes a repeated request harmless."""
    row = lookup.conversation(number)
    given = _known(_json(), frozenset({"text", "template", "variables", "confirm_optout"}))
    made = inbox.answer(lookup.settings(), row, _answer(given), me().name)
    tasks.wake(0)
    return jsonify(shapes.entry(talk.answer(made.id))), 201


def _answer(given: Mapping[str, Any]) -> inbox.Given:
    text, template, variables = given.get("text") or "", given.get("template"), given.get("variables") or {}
    if not isinstance(text, str):
        raise Invalid({"text": Problem("text_invalid")})
    if template is not None and not isinstance(template, Mapping):
        raise Invalid({"template": Problem("template_required")})
    if not isinstance(variables, Mapping):
        raise Invalid({"variables": Problem("variables_invalid")})
    values = {
        str(slot): str((one.get("value") or "") if isinstance(one, Mapping) else one) for slot, one in variables.items()
    }
    pair = None if template is None else (str(template.get("name", "")), str(template.get("language", "")))
    key = request.headers.get("Idempotency-Key", "")
    return inbox.Given(text, pair, values, given.get("confirm_optout") is True, f"api-{key}" if key else "")


@api.post("/conversations/<int:number>/<any(close, reopen, read):action>")
@role("sender")
def conversation_act(number: int, action: str) -> Response:
    row = lookup.conversation(number)
    if action == "read":
        inbox.read(row)
    else:
        (inbox.close if action == "close" else inbox.reopen)(row, me().name)
    return _conversation(lookup.conversation(number))


@api.post("/conversations/<int:number>/assign")
@role("sender")
def conversation_assign(number: int) -> Response:
    """To whoever asks, to `user`, or with null to nobody."""
    row = lookup.conversation(number)
    given = _known(_json(), frozenset({"user"})) if request.get_data() else {}
    user = given.get("user", me().name)
    inbox.assign(row, None if user is None else str(user), me().name)
    return _conversation(lookup.conversation(number))
