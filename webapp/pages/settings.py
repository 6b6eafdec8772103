"""One's own settings: language, theme, password, login sessions; and what is installed."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, current_app, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import auth, htmx, lookup, prefs, qr
from webapp.auth import public, role, step_up
from webapp.forms.auth import PASSWORD_PROBLEMS, LanguageForm, PasswordForm, SecondStepForm, ShortcutsForm, ThemeForm
from webapp.pages.setup import hashing
from worker import db, people, second_step, totp
from worker.models import User

settings = Blueprint("settings", __name__)


@settings.get("/settings")
@role("viewer")
def index() -> Response:
    return _page(PasswordForm(), 200)


def _page(form: PasswordForm, status: int) -> Response:
    house = current_app.extensions["molva"]
    page = render_template(
        "settings/page.html",
        form=form,
        sessions=auth.my_sessions(),
        this_session=auth.my_session_id(),
        house=house.settings,
        second_step=second_step.is_on(auth.my_user()),
        codes_left=second_step.codes_left(auth.my_user()),
    )
    return make_response(page, status)


@settings.post("/language")
@public
def language() -> Response:
    """Choose the language and stay on the page."""
    form = LanguageForm()
    response = htmx.redirect(_back())
    if form.validate():
        _keep_with_account(form.language.data)
        prefs.remember(response, prefs.LANGUAGE, form.language.data)
    return response


def _keep_with_account(chosen: str) -> None:
    who = auth.identity()
    if who and who.user_id:
        with db.write():
            User.update(language=chosen).where(User.id == who.user_id).execute()


@settings.post("/theme")
@public
def theme() -> Response:
    """Choose light, dark or as the system, and stay on the page."""
    form = ThemeForm()
    response = htmx.redirect(_back())
    if form.validate():
        prefs.remember(response, prefs.THEME, form.theme.data)
    return response


@settings.post("/shortcuts")
@role("viewer")
def shortcuts() -> Response:
    """Switch the keyboard shortcuts on or off."""
    form = ShortcutsForm()
    response = htmx.redirect(_back())
    if form.validate():
        prefs.remember(response, prefs.SHORTCUTS, form.shortcuts.data)
    return response


def _back() -> str:
    """The page that the switch stood on: named by the form, else by the browser."""
    seen = urlsplit(request.referrer or "")
    referrer = seen.path + (f"?{seen.query}" if seen.query else "")
    return auth.local_path(request.form.get("next")) or auth.local_path(referrer) or "/"


@settings.post("/settings/password")
@role("viewer")
def password() -> Response:
    """Change one's own password; every other browser is signed out."""
    form = PasswordForm()
    if not form.validate():
        return _page(form, 422)
    if form.password.data != form.again.data:
        form.again.errors = [_("The two passwords differ")]
        return _page(form, 422)
    user = auth.my_user()
    try:
        with hashing():
            if not people.password_is(user, form.current.data):
                form.current.errors = [_("This is not your current password")]
                return _page(form, 422)
            people.set_password(user, form.password.data, actor=user.email)
    except people.PasswordRefused as refused:
        form.password.errors = [PASSWORD_PROBLEMS[refused.code]]
        return _page(form, 422)
    auth.sign_in(user)
    return htmx.redirect(url_for("settings.index"), toast=_("Password changed. Other browsers are signed out"))


@settings.post("/settings/sessions/end")
@role("viewer")
def end_other_sessions() -> Response:
    """Sign out every other browser of this person."""
    user = auth.my_user()
    people.end_other_sessions(user.id, auth.my_session_id(), actor=user.email)
    return htmx.redirect(url_for("settings.index"), toast=_("Other browsers are signed out"))


@settings.post("/settings/sessions/<int:number>/end")
@role("viewer")
def end_session(number: int) -> Response:
    """Sign out one browser of this person."""
    user = auth.my_user()
    if not people.end_one_session(user.id, min(number, lookup.ID_MAX), actor=user.email):
        abort(404)
    return htmx.redirect(url_for("settings.index"), toast=_("That browser is signed out"))


# --- the second step of signing in ------------------------------------------------------------------


@settings.get("/settings/second-step")
@role("viewer")
@step_up
def new_second_step() -> Response:
    """A secret for the authenticator app; it counts from the first right code on."""
    return _offer(SecondStepForm(formdata=None))


def _offer(form: SecondStepForm, status: int = 200) -> Response:
    user = auth.my_user()
    secret, form.sealed.data = second_step.offer(lookup.settings(), user)
    link = totp.address(secret, user.email)
    facts = {"secret": second_step.grouped(secret), "link": link, "qr": qr.code(link)}
    return make_response(render_template("settings/second_step.html", form=form, **facts), status)


@settings.post("/settings/second-step")
@role("viewer")
@step_up
def switch_second_step_on() -> Response:
    form = SecondStepForm()
    if not form.validate():
        return _offer(form, 422)
    try:
        codes = second_step.switch_on(lookup.settings(), auth.my_user(), form.sealed.data, form.code.data)
    except second_step.CodeRefused:
        form.code.data = ""
        form.code.errors = [_("This code is wrong. Enter the new secret into the app and try again")]
        return _offer(form, 422)
    return _codes(codes)


def _codes(codes: list[str]) -> Response:
    return make_response(render_template("settings/recovery_codes.html", codes=codes))


@settings.post("/settings/second-step/codes")
@role("viewer")
@step_up
def renew_codes() -> Response:
    """New recovery codes; the ones before are void."""
    user = auth.my_user()
    if not second_step.is_on(user):
        abort(404)
    return _codes(second_step.renew_codes(user))


@settings.post("/settings/second-step/off")
@role("viewer")
@step_up
def switch_second_step_off() -> Response:
    user = auth.my_user()
    second_step.switch_off(user, user.email)
    return htmx.redirect(url_for("settings.index"), toast=_("From now on the password alone is asked for"))
