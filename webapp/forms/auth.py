"""The forms around signing in."""

from __future__ import annotations

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import PasswordField, StringField
from wtforms.validators import AnyOf, InputRequired, Length

from webapp.words import LANGUAGES, ROLES, SHORTCUTS, THEMES
from worker.people import PASSWORD_MAX, PASSWORD_MIN

REQUIRED = InputRequired(_l("Fill this in"))

# The codes of worker.people, as sentences.
PASSWORD_PROBLEMS: dict[str, LazyString] = {
    "too_short": _l("At least %(n)s characters", n=PASSWORD_MIN),
    "too_long": _l("At most %(n)s characters", n=PASSWORD_MAX),
    "common": _l("This password is among the first that attackers try. Choose another"),
}
PERSON_PROBLEMS: dict[str, LazyString] = {
    "email": _l("This is not an e-mail address"),
    "exists": _l("There is already a person with this e-mail"),
    "role": _l("Choose one of the offered values"),
    "unknown": _l("There is no such person"),
    "self": _l("Another administrator has to do that: nobody changes their own role"),
    "last_admin": _l("This is the last administrator. Make another one first"),
}


class LoginForm(FlaskForm):  # type: ignore[misc]
    email = StringField(_l("E-mail"), [REQUIRED, Length(max=254)])
    password = PasswordField(_l("Password"), [REQUIRED])


class SetupForm(FlaskForm):  # type: ignore[misc]
    code = StringField(_l("Code"), [REQUIRED, Length(max=100)])
    email = StringField(_l("E-mail"), [REQUIRED, Length(max=254)])
    password = PasswordField(_l("Password"), [REQUIRED])
    again = PasswordField(_l("Password again"), [REQUIRED])


class PasswordForm(FlaskForm):  # type: ignore[misc]
    current = PasswordField(_l("Current password"), [REQUIRED])
    password = PasswordField(_l("New password"), [REQUIRED])
    again = PasswordField(_l("New password again"), [REQUIRED])


class CodeForm(FlaskForm):  # type: ignore[misc]
    code = StringField(_l("Code"), [REQUIRED, Length(max=50)])


class InvitedForm(FlaskForm):  # type: ignore[misc]
    password = PasswordField(_l("Password"), [REQUIRED])
    again = PasswordField(_l("Password again"), [REQUIRED])


class SecondStepForm(FlaskForm):  # type: ignore[misc]
    sealed = StringField(validators=[REQUIRED, Length(max=1000)])
    code = StringField(_l("Code that the app shows"), [REQUIRED, Length(max=20)])


class InviteForm(FlaskForm):  # type: ignore[misc]
    email = StringField(_l("E-mail"), [REQUIRED, Length(max=254)])
    role = StringField(_l("Role"), [AnyOf(list(ROLES), _l("Choose one of the offered values"))], default="sender")


class LanguageForm(FlaskForm):  # type: ignore[misc]
    language = StringField(validators=[AnyOf(LANGUAGES)])


class ShortcutsForm(FlaskForm):  # type: ignore[misc]
    shortcuts = StringField(validators=[AnyOf(SHORTCUTS)])


class ThemeForm(FlaskForm):  # type: ignore[misc]
    theme = StringField(validators=[AnyOf(THEMES)])
