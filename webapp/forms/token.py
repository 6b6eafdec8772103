"""The form of a new API token."""

from __future__ import annotations

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import RadioField, SelectField, SelectMultipleField, StringField
from wtforms.validators import Length
from wtforms.widgets import CheckboxInput, ListWidget

from webapp import words
from webapp.forms import choices
from webapp.forms.auth import REQUIRED

LIVES = {"30": _l("30 days"), "90": _l("90 days"), "365": _l("A year"), "3650": _l("10 years")}


class TokenForm(FlaskForm):  # type: ignore[misc]
    name = StringField(_l("Name"), [REQUIRED, Length(max=100)])
    role = RadioField(_l("Role"), choices=choices(words.ROLES), default="viewer")
    areas = SelectMultipleField(
        _l("Parts of the API"),
        choices=choices(words.AREAS),
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
    )
    days = SelectField(_l("Valid for"), choices=choices(LIVES), default="365")
