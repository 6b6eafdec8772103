"""Puts the application together: settings, languages, templates, guards, headers, errors, pages."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, request
from flask_babel import Babel, get_locale
from jinja2 import StrictUndefined
from werkzeug.middleware.proxy_fix import ProxyFix

from webapp import (
    assets,
    auth,
    callbacks,
    connection,
    errors,
    filters,
    glance,
    htmx,
    limits,
    packing,
    pages,
    polls,
    prefs,
    words,
)
from worker import db, inbox, logs, people, tasks, vault
from worker.settings import Settings, from_env, version

MEGABYTE = 1024 * 1024
MAX_BODY = 12 * MEGABYTE  # a file of 10 MB and the form around it
MAX_PARTS = 1_000
MAX_TEXT = MEGABYTE  # all fields that are not files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
WITHOUT_DATABASE = ("assets.static", "assets.favicon", "health.healthz")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), interest-cohort=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class House:
    """What the application knows about its installation."""

    settings: Settings
    paths: frozenset[str] = frozenset()  # rules without parameters: which menu entries exist
    has_admin: bool = False  # only ever turns true


def build(settings: Settings | None = None) -> Flask:
    """The application. Opens no connection and starts nothing; the schema is the caller's business."""
    settings = from_env(os.environ) if settings is None else settings
    app = Flask("webapp", template_folder=str(assets.folder("templates")), static_folder=None)
    app.jinja_options = {
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    if db.database.database != (settings.database_url or str(settings.database_path)):
        db.open_database(settings)
    tasks.configure(settings)
    app.config.update(
        SECRET_KEY=vault.session_key(settings),
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_FORM_PARTS=MAX_PARTS,
        MAX_FORM_MEMORY_SIZE=MAX_TEXT,
        PERMANENT_SESSION_LIFETIME=timedelta(milliseconds=people.SESSION_LIFE),
        SESSION_REFRESH_EACH_REQUEST=False,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        WTF_CSRF_TIME_LIMIT=None,  # as long as the login session, so that a long draft can still be saved
        WTF_CSRF_SSL_STRICT=False,  # auth.refuse_foreign_origin looks at Origin, which is sent more reliably
        BABEL_DEFAULT_LOCALE=settings.language,
        BABEL_DEFAULT_TIMEZONE=settings.timezone,
    )
    app.extensions["molva"] = House(settings)
    app.extensions["molva.glances"] = glance.Glances()
    app.extensions["molva.limits"] = limits.Limits()
    app.wsgi_app = polls.Polls(app.wsgi_app, app.extensions["molva.glances"])  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    htmx.htmx.init_app(app)
    Babel(app, locale_selector=prefs.locale, timezone_selector=lambda: settings.timezone)
    app.before_request(number_request)
    app.before_request(look_only)
    app.before_request(check_host)
    app.before_request(open_connection)
    app.teardown_request(connection.leave)
    app.teardown_request(forget_number)
    app.after_request(packing.pack)
    app.after_request(protect)
    auth.init_app(app)
    errors.init_app(app)
    _teach_jinja(app)
    pages.register(app)
    held = app.extensions["molva.limits"]
    app.wsgi_app = callbacks.Callbacks(settings, app.wsgi_app, HEADERS, held)  # type: ignore[method-assign]
    app.extensions["molva"].paths = frozenset(rule.rule for rule in app.url_map.iter_rules())
    return app


def _teach_jinja(app: Flask) -> None:
    app.jinja_env.filters.update(filters.FILTERS)
    app.jinja_env.globals.update(
        asset=assets.asset_url,
        icons=lambda name: f"{assets.asset_url('icons.svg')}#{name}",
        words=words,
        me=auth.identity,
        menu=prefs.menu,
        settings_menu=prefs.settings_menu,
        in_settings=prefs.in_settings,
        theme=prefs.theme,
        shortcuts=prefs.shortcuts,
        language=lambda: str(get_locale()),
        settings=app.extensions["molva"].settings,
        unread_number=inbox.unread_number,
        new_id=lambda: secrets.token_hex(4),
        version=version(),
    )


def number_request() -> None:
    """Give the request a number, which stands in the answer and in every line that it leaves in the log.

    Behind a proxy that we trust its own number is kept, so that both logs can be read side by side.
    """
    given = request.headers.get("X-Request-ID", "") if _house().settings.trusted_proxies else ""
    logs.request_id.set(given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8))


def forget_number(_error: BaseException | None) -> None:
    """The thread may do something else next."""
    logs.request_id.set("")


def look_only() -> None:
    """A HEAD is a GET to every view: what a view does for other methods than GET, it must never do for a HEAD."""
    if request.method == "HEAD":
        request.method = "GET"


def check_host() -> None:
    """Refuse host names that are not ours: what a rebinding name server or a forged link would send.

    Addresses in figures are fine, since no foreign name can be made to look like one.
    """
    settings: Settings = _house().settings
    name = urlsplit(f"//{request.host}").hostname or ""
    known = {"localhost", settings.host, urlsplit(settings.base_url).hostname, socket.gethostname().lower()}
    if name not in known and not name.endswith(".localhost") and not _is_address(name):
        abort(400)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _house() -> House:
    house: House = current_app.extensions["molva"]
    return house


def open_connection() -> None:
    """A database connection for whatever may need one."""
    if request.endpoint not in WITHOUT_DATABASE:
        connection.use()


def protect(response: Response) -> Response:
    """The same guards on every answer, errors included."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)  # a view may have a stricter policy
    if number := logs.request_id.get():
        response.headers["X-Request-ID"] = number
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if request.endpoint != "assets.static":
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.update(("Cookie", "HX-Request"))
    return response
