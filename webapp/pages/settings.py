"""One's own settings: language, theme, password, login sessions; and what is installed."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, make_response, render_template, request, url_for
from flask_babel import gettext as _

from webapp import auth, htmx, prefs
from webapp.auth import public, role
from webapp.forms.auth import PASSWORD_PROBLEMS, LanguageForm, PasswordForm, ShortcutsForm, ThemeForm
from webapp.pages.setup import hashing
from worker import db, people
from worker.models import LoginSession, User

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
    with db.write():
        LoginSession.delete().where(
            LoginSession.user == auth.my_user().id, LoginSession.id != auth.my_session_id()
        ).execute()
    return htmx.redirect(url_for("settings.index"), toast=_("Other browsers are signed out"))
