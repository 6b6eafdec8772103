"""Errors as people and machines read them: a page, a toast for htmx, JSON for the API."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from typing import NamedTuple
from urllib.parse import urlsplit

import peewee
from flask import Flask, Response, jsonify, make_response, render_template, request, url_for
from flask_babel import gettext as _
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from webapp import auth, filters, htmx, limits, words
from worker import clock, db, people

log = logging.getLogger("molva.web")


class Sentence(NamedTuple):
    title: str
    advice: str


CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    500: "server_error",
    503: "unavailable",
}


def sentence(status: int) -> Sentence:
    """What happened, then what to do."""
    match status:
        case 401:
            return Sentence(_("Not signed in"), _("Send a valid API token as “Authorization: Bearer …”"))
        case 403:
            return Sentence(_("This is not allowed"), _("Ask an administrator if you need it"))
        case 404:
            if auth.identity() is None:
                return Sentence(_("Page not found"), _("Check the address or sign in"))
            return Sentence(_("Page not found"), _("Check the address or go back to the broadcasts"))
        case 405:
            return Sentence(_("This address does not work that way"), _("Go back and use the button on the page"))
        case 413:
            return Sentence(
                _("The file is over 10 MB"),
                _("Split it and upload the second part by “Append to the list”"),
            )
        case 422:
            return Sentence(_("Some values cannot be used"), _("Go back and correct them"))
        case 429:
            return Sentence(_("Too many attempts"), _("Wait a little and try again"))
        case 503:
            return Sentence(_("Molva is busy"), _("Try again in a few seconds"))
        case _:
            return Sentence(_("The request could not be understood"), _("Reload the page and try again"))


def answer(status: int, text: Sentence, code: str | None = None) -> Response:
    """The error in the shape that the other side can use."""
    if auth.by_token():
        message = f"{text.title}. {text.advice}" if text.advice else text.title
        body = {"error": {"code": code or CODES.get(status, "error"), "message": message}}
        return make_response(jsonify(body), status)
    if htmx.asked():
        response = make_response(render_template("errors/_notice.html", text=text), status)
        if status == 413:
            # Swapped in beside the file field, where the eyes are; see responseHandling in base.html.
            response.headers["HX-Retarget"] = "find [data-upload-error]"
            response.headers["HX-Reswap"] = "innerHTML"
            return response
        return htmx.with_toast(response, f"{text.title}. {text.advice}", "error")
    again = status >= 500 and request.method == "GET"
    return make_response(
        render_template("errors/page.html", text=text, status=status, back=came_from(), again=again), status
    )


def came_from() -> str:
    """The page of ours that led here; empty when there is none, or when it is this one."""
    try:
        parts = urlsplit(request.referrer or "")
    except ValueError:
        return ""
    here = (request.path, request.query_string.decode("latin-1"))
    if parts.netloc != request.host or (request.method == "GET" and (parts.path, parts.query) == here):
        return ""
    return auth.local_path(parts.path + (f"?{parts.query}" if parts.query else "")) or ""


def on_http(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response()  # type: ignore[return-value]
    response = answer(status, sentence(status))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def on_csrf(error: CSRFError) -> Response:
    text = Sentence(_("The form is out of date"), _("Reload the page and send it again"))
    return answer(400, text, "csrf")


def on_refused(error: auth.Refused) -> Response:
    if error.area:
        needed = _("The token is not for this part of the API")
    else:
        needed = _("This needs the role “%(role)s”", role=words.ROLES[error.role])
    return answer(403, Sentence(needed, _("Ask an administrator if you need it")), "forbidden")


def on_unconfirmed(error: auth.Unconfirmed) -> Response:
    """Ask for the password or a code again, then go on from where the person was."""
    if htmx.asked():
        response = make_response("", 403)
        response.headers["HX-Redirect"] = url_for("setup.confirm", next=error.back)
        return response
    return make_response(render_template("auth/confirm.html", back=error.back, problem=""), 403)


def on_too_often(error: limits.TooOften | people.TooManyAttempts) -> Response:
    wait = filters.duration(error.seconds * clock.SECOND)
    text = Sentence(_("Too many attempts, wait %(t)s", t=wait), _("Wait a little and try again"))
    response = answer(429, text)
    response.headers["Retry-After"] = str(error.seconds)
    return response


def on_crash(error: Exception) -> Response:
    """Log the fault under an id, show the id, never the fault."""
    number = secrets.token_hex(4)
    # The rule, not the path: an invitation's link is a secret.
    log.error("fault %s at %s %s", number, request.method, request.url_rule or request.path, exc_info=error)
    text = Sentence(
        _("Server error, recorded as no. %(id)s", id=number),
        _("Try again; if it stays, tell your administrator the number"),
    )
    return answer(500, text)


def storage(found: db.Trouble) -> Sentence:
    """What the storage suffers from, then what to do."""
    match found:
        case db.Trouble.FULL:
            return Sentence(_("The server’s disk is full"), _("Tell your administrator to free space, then try again"))
        case db.Trouble.BUSY:
            return Sentence(_("The database is busy"), _("Try again in a few seconds"))
        case _:
            return Sentence(_("The server’s disk cannot be written"), _("Tell your administrator, then try again"))


def on_storage(error: Exception) -> Response:
    """503 when the disk or the database is the reason; any other fault of these kinds is a crash."""
    found = db.trouble(error)
    if found is None:
        return on_crash(error)
    log.error("storage: %s at %s %s: %s", found.value, request.method, request.path, error)
    try:
        response = answer(503, storage(found), "storage")
    except (peewee.PeeweeException, sqlite3.Error):
        # Even who asks cannot be read: the sentence alone.
        text = storage(found)
        # nosemgrep: make-response-with-unknown-content (our own words, as plain text)
        response = make_response(f"{text.title}. {text.advice}\n", 503)
        response.mimetype = "text/plain"
    response.headers["Retry-After"] = "5"
    return response


def init_app(app: Flask) -> None:
    app.register_error_handler(HTTPException, on_http)
    app.register_error_handler(CSRFError, on_csrf)
    app.register_error_handler(auth.Refused, on_refused)
    app.register_error_handler(auth.Unconfirmed, on_unconfirmed)
    app.register_error_handler(limits.TooOften, on_too_often)
    app.register_error_handler(people.TooManyAttempts, on_too_often)
    for kind in (peewee.PeeweeException, sqlite3.Error, OSError):
        app.register_error_handler(kind, on_storage)
    app.register_error_handler(Exception, on_crash)
