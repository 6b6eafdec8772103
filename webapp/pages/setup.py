"""The way in: the first administrator, signing in, signing out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import auth, filters, htmx, prefs
from webapp.auth import guest, public, role
from webapp.forms.auth import PASSWORD_PROBLEMS, PERSON_PROBLEMS, LoginForm, SetupForm
from worker import clock, people

setup = Blueprint("setup", __name__)

# Hashing a password is slow on purpose. Half of the server's threads at most may be busy with it, so
# that callbacks are answered while somebody tries a hundred passwords at once.
_hashing = threading.BoundedSemaphore(8)


@contextmanager
def hashing() -> Iterator[None]:
    """A place among those that may hash now; 503 when all are taken."""
    if not _hashing.acquire(timeout=2):
        abort(503)
    try:
        yield
    finally:
        _hashing.release()


@setup.get("/")
@role("viewer")
def home() -> Response:
    """The first page that this person may see."""
    return htmx.redirect(prefs.menu()[0].path)


@setup.route("/setup", methods=["GET", "POST"], endpoint="setup")
@public
def first_run() -> Response:
    """Make the first administrator with the code that the server printed. Gone once there is one."""
    if people.has_admin():
        abort(404)
    form = SetupForm()
    if not form.is_submitted():
        return _setup_page(form, 200)
    if not form.validate():
        return _setup_page(form, 422)
    if form.password.data != form.again.data:
        form.again.errors = [_("The two passwords differ")]
        return _setup_page(form, 422)
    return _make_admin(form)


def _make_admin(form: SetupForm) -> Response:
    try:
        with hashing():
            user = people.first_admin(form.code.data, form.email.data, form.password.data)
    except people.SetupRefused as refused:
        if refused.code == "done":
            abort(404)
        form.code.errors = [_("This code is wrong or has expired. The server prints a new one at each start")]
        return _setup_page(form, 403)
    except people.PersonRefused as refused:
        form.email.errors = [PERSON_PROBLEMS[refused.code]]
        return _setup_page(form, 422)
    except people.PasswordRefused as refused:
        form.password.errors = [PASSWORD_PROBLEMS[refused.code]]
        return _setup_page(form, 422)
    auth.sign_in(user)
    return htmx.redirect(url_for("setup.home"))


def _setup_page(form: SetupForm, status: int) -> Response:
    return make_response(render_template("auth/setup.html", form=form), status)


@setup.route("/login", methods=["GET", "POST"])
@guest
def login() -> Response:
    """Sign in. Every kind of wrong gets the same answer."""
    back = auth.local_path(request.args.get("next")) or url_for("setup.home")
    if auth.identity() is not None:
        return htmx.redirect(back)
    form = LoginForm()
    if not form.is_submitted():
        return _login_page(form, 200)
    if not form.validate():
        return _login_page(form, 422)
    try:
        with hashing():
            user = people.authenticate(form.email.data, form.password.data, auth.address())
    except people.TooManyAttempts as refused:
        wait = filters.duration(refused.seconds * clock.SECOND)
        response = _login_page(form, 429, _("Too many attempts, wait %(t)s", t=wait))
        response.headers["Retry-After"] = str(refused.seconds)
        return response
    if user is None:
        return _login_page(form, 403, _("Wrong e-mail or password"))
    auth.sign_in(user)
    return htmx.redirect(back)


def _login_page(form: LoginForm, status: int, problem: str = "") -> Response:
    return make_response(render_template("auth/login.html", form=form, problem=problem), status)


@setup.post("/logout")
@guest
def logout() -> Response:
    """End this login session on the server."""
    auth.sign_out()
    return htmx.redirect(url_for("setup.login"))
