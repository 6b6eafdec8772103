"""The form of a webhook."""

from __future__ import annotations

from collections.abc import Mapping

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import SelectMultipleField, StringField
from wtforms.validators import Length
from wtforms.widgets import CheckboxInput, ListWidget

from webapp import sentences, words
from webapp.forms import choices
from webapp.forms.auth import REQUIRED
from worker.problems import Problem
from worker.webhooks import EVENTS, URL_MAX


class WebhookForm(FlaskForm):  # type: ignore[misc]
    url = StringField(_l("Address"), [REQUIRED, Length(max=URL_MAX)])
    events = SelectMultipleField(
        _l("Events"),
        choices=choices({event: words.WEBHOOK_EVENTS[event] for event in EVENTS}),
        default=list(EVENTS),
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
    )

    def refuse(self, problems: Mapping[str, Problem]) -> None:
        """Show what the worker found wrong beside the fields."""
        for name, problem in problems.items():
            self[name].errors = [*self[name].errors, sentences.problem(problem)]
