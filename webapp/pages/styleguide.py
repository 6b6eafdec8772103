"""Every component in every state, light and dark side by side: for who builds pages, and for looking at a change."""

from __future__ import annotations

import re

from flask import Blueprint, render_template
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import BooleanField, RadioField, SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice

from webapp import assets
from webapp.auth import role

styleguide = Blueprint("styleguide", __name__)

SCHEMES = ("light", "dark")


class Example(FlaskForm):  # type: ignore[misc]
    """A field of every kind."""

    name = StringField(_l("Broadcast name"), default="Example")
    text = TextAreaField(_l("Message text"))
    channel = SelectField(_l("Channel"), choices=["SMS", "WABA"])
    duplicates = BooleanField(_l("Ignore duplicates"), default=True)
    when = RadioField(
        _l("When to send"),
        choices=[SelectChoice("now", _l("now")), SelectChoice("at", _l("at a set time"))],
        default="now",
    )


def _example(prefix: str, problem: str = "") -> Example:
    form = Example(formdata=None, prefix=prefix)
    if problem:
        for field in (form.name, form.text, form.channel, form.duplicates, form.when):
            field.errors = [problem]
    return form


@styleguide.get("/styleguide")
@role("admin")
def index() -> str:
    """The colours and icons come from the files themselves, so that none is missing."""
    css, svg = (assets.load(name) for name in ("app.css", "icons.svg"))
    assert css is not None and svg is not None
    return render_template(
        "styleguide/page.html",
        schemes=SCHEMES,
        colours=re.findall(r"--([\w-]+): light-dark\(", css.body.decode()),
        icon_names=re.findall(r'<symbol id="([\w-]+)"', svg.body.decode()),
        example=_example,
    )
