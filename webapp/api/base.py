"""What every module of the API shares: the blueprint, the answers that are no success, how a request is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from flask import Blueprint, Response, current_app, jsonify, request
from flask_babel import gettext as _
from werkzeug.exceptions import HTTPException

from webapp import sentences
from webapp.auth import me
from worker import broadcasts, channels, db, recipients, repeats, tasks, vault

View = TypeVar("View", bound=Callable[..., Any])

api = Blueprint("api", __name__, url_prefix="/api/v1")
KEY_MAX = 200


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


def repeatable(view: View) -> View:
    """Let a call be sent again: with the same Idempotency-Key it is done once and answered the same, for a day.

    Stands under `role`. The view runs inside a transaction, so it must not wait for anybody outside.
    """

    @functools.wraps(view)
    def once(*args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return view(*args, **kwargs)
        if not 1 <= len(key) <= KEY_MAX or not (key.isascii() and key.isprintable()):
            raise ApiError(
                422, "bad_key", _("The Idempotency-Key must have 1 to %(max)s plain characters", max=KEY_MAX)
            )
        call = repeats.name(str(me().token_id), request.path, key)
        with db.write():
            try:
                answer = repeats.begin(call, repeats.name(request.get_data()))
            except repeats.Differs:
                raise ApiError(422, "key_reused", _("This Idempotency-Key was used for another call")) from None
            again = answer is not None
            if answer is None:
                made = current_app.make_response(view(*args, **kwargs))
                answer = repeats.Answer(made.status_code, made.get_data(as_text=True))
                repeats.keep(call, answer)
        tasks.wake(0)  # what the view woke the worker for is there only now
        response = Response(answer.body, answer.status, mimetype="application/json")
        if again:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    once.molva_repeatable = True  # type: ignore[attr-defined]
    return cast(View, once)


def body() -> dict[str, Any]:
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


def known(given: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    unknown = sorted(set(given) - fields)
    if unknown:
        sentence = _("There is no such field")
        raise ApiError(422, "unknown_field", f"{sentence}: {unknown[0]}", fields=dict.fromkeys(unknown, sentence))
    return dict(given)


def number(name: str, default: int | None = None) -> int | None:
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={name: text[:50]})
    return int(text)


def run_of(default: int) -> int | None:
    return None if request.args.get("run") == "all" else number("run", default)
