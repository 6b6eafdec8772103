"""The forms around signing in."""

from __future__ import annotations

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import PasswordField, StringField
from wtforms.validators import AnyOf, InputRequired, Length

from webapp.words import LANGUAGES, SHORTCUTS, THEMES
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


class LanguageForm(FlaskForm):  # type: ignore[misc]
    language = StringField(validators=[AnyOf(LANGUAGES)])


class ShortcutsForm(FlaskForm):  # type: ignore[misc]
    shortcuts = StringField(validators=[AnyOf(SHORTCUTS)])


class ThemeForm(FlaskForm):  # type: ignore[misc]
    theme = StringField(validators=[AnyOf(THEMES)])
