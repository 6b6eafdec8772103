"""The way in: the first administrator, signing in, signing out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Blueprint, Response, abort, flash, make_response, render_template, request, session, url_for
from flask_babel import gettext as _

from webapp import auth, filters, htmx, limits, lookup, prefs
from webapp.auth import guest, public, role
from webapp.forms.auth import PASSWORD_PROBLEMS, PERSON_PROBLEMS, CodeForm, InvitedForm, LoginForm, SetupForm
from worker import clock, db, invitations, people, second_step

setup = Blueprint("setup", __name__)
HALF_WAY = "half_way"  # in the cookie between the password and the code

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
    limits.take("setup")
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
        return _wait(_login_page(form, 429, _too_many(refused)), refused)
    if user is None:
        return _login_page(form, 403, _("Wrong e-mail or password"))
    if second_step.is_on(user):
        session[HALF_WAY] = second_step.half_way(lookup.settings(), user)
        return htmx.redirect(url_for("setup.code", next=auth.local_path(request.args.get("next"))))
    auth.sign_in(user)
    return htmx.redirect(back)


def _too_many(refused: people.TooManyAttempts) -> str:
    text: str = _("Too many attempts, wait %(t)s", t=filters.duration(refused.seconds * clock.SECOND))
    return text


def _wait(response: Response, refused: people.TooManyAttempts) -> Response:
    response.headers["Retry-After"] = str(refused.seconds)
    return response


def _login_page(form: LoginForm, status: int, problem: str = "") -> Response:
    return make_response(render_template("auth/login.html", form=form, problem=problem), status)


@setup.route("/login/code", methods=["GET", "POST"])
@guest
def code() -> Response:
    """The second step: a code of the phone, or a recovery code."""
    user = second_step.who_is_half_way(lookup.settings(), session.get(HALF_WAY, ""))
    if user is None:
        session.pop(HALF_WAY, None)
        return htmx.redirect(url_for("setup.login", next=auth.local_path(request.args.get("next"))))
    form = CodeForm()
    if not form.is_submitted():
        return _code_page(form, 200)
    if not form.validate():
        return _code_page(form, 422)
    try:
        right = second_step.check(lookup.settings(), user, form.code.data)
    except people.TooManyAttempts as refused:
        return _wait(_code_page(form, 429, _too_many(refused)), refused)
    if not right:
        return _code_page(form, 403, _("This code is wrong or has been used. Wait for the next one"))
    auth.sign_in(user)
    return htmx.redirect(auth.local_path(request.args.get("next")) or url_for("setup.home"))


def _code_page(form: CodeForm, status: int, problem: str = "") -> Response:
    return make_response(render_template("auth/code.html", form=form, problem=problem), status)


@setup.route("/confirm", methods=["GET", "POST"])
@role("viewer")
def confirm() -> Response:
    """The password or a code again, before something that matters; then back to where the person was."""
    back = auth.local_path(request.values.get("next")) or url_for("setup.home")
    if request.method == "GET":
        return _confirm_page(back, 200)
    given = request.form.get("secret", "")[: people.PASSWORD_MAX + 1]
    try:
        right = _is_proof(given)
    except people.TooManyAttempts as refused:
        return _wait(_confirm_page(back, 429, _too_many(refused)), refused)
    if not right:
        return _confirm_page(back, 403, _("This is neither your password nor a code of your phone"))
    return htmx.redirect(back, toast=_("Confirmed for ten minutes. Now repeat what you wanted to do"))


def _is_proof(given: str) -> bool:
    """Whether this is a code of the person's phone or their password; noted with this login session."""
    user, here = auth.my_user(), auth.my_session_id()
    figures = "".join(given.split())
    if second_step.is_on(user) and figures.isascii() and figures.isdigit() and len(figures) == 6:
        right = second_step.check(lookup.settings(), user, figures)
        if right:
            with db.write():
                people.confirmed(here)
        return right
    with hashing():
        return people.confirm(user, here, given)


def _confirm_page(back: str, status: int, problem: str = "") -> Response:
    return make_response(render_template("auth/confirm.html", back=back, problem=problem), status)


@setup.route("/invitation/<token>", methods=["GET", "POST"])
@guest
def invitation(token: str) -> Response:
    """Whoever holds the link chooses the password of the new account. The link works once."""
    limits.take("invitation")
    try:
        found = invitations.of_token(token)
    except invitations.InvitationRefused:
        return _invitation_page(None, None, 404)
    form = InvitedForm()
    if not form.is_submitted():
        return _invitation_page(form, found.email, 200)
    if not form.validate():
        return _invitation_page(form, found.email, 422)
    if form.password.data != form.again.data:
        form.again.errors = [_("The two passwords differ")]
        return _invitation_page(form, found.email, 422)
    try:
        with hashing():
            user = invitations.accept(token, form.password.data)
    except people.PasswordRefused as refused:
        form.password.errors = [PASSWORD_PROBLEMS[refused.code]]
        return _invitation_page(form, found.email, 422)
    except (invitations.InvitationRefused, people.PersonRefused):
        return _invitation_page(None, None, 404)
    auth.sign_in(user)
    flash(_("Welcome. This is your account now"), "ok")
    return htmx.redirect(url_for("setup.home"))


def _invitation_page(form: InvitedForm | None, email: str | None, status: int) -> Response:
    return make_response(render_template("auth/invitation.html", form=form, email=email), status)


@setup.post("/logout")
@guest
def logout() -> Response:
    """End this login session on the server."""
    auth.sign_out()
    return htmx.redirect(url_for("setup.login"))
