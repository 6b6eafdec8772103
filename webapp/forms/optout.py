"""The forms of the stop list: they carry what was typed and the problems beside their fields.

What is a good value is decided in worker.optouts, worker.optout_files and worker.confirmations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_babel import lazy_gettext as _l
from phonenumbers import SUPPORTED_REGIONS
from werkzeug.datastructures import MultiDict
from wtforms import BooleanField, Form, RadioField, SelectField, SelectMultipleField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice
from wtforms.widgets import CheckboxInput

from webapp import sentences, words
from worker import confirmations, optouts, stopwords
from worker.problems import Problem
from worker.recipients import ENCODINGS


def _scopes() -> list[SelectChoice]:
    return [SelectChoice(value=scope, label=label) for scope, label in words.OPTOUT_SCOPES.items()]


class Refusable(Form):  # type: ignore[misc]
    """A form beside whose fields the worker's problems can be put."""

    def refuse(self, problems: Mapping[str, Problem]) -> None:
        for name, problem in problems.items():
            field = self[name.replace(".", "_")]
            field.errors = [*field.errors, sentences.problem(problem)]


class ReasonForm(Refusable):
    """Why a person changes the list by hand: they have to say it."""

    reason = StringField(_l("Reason"))

    def is_filled(self) -> bool:
        """Whether everything that must be said is said; else the fields say what is missing."""
        if not (self.reason.data or "").strip():
            self.refuse({"reason": Problem("setting_required")})
        return not self.errors


class AddForm(ReasonForm):
    phones = TextAreaField(_l("Phone numbers"))
    region = StringField(_l("Country of numbers without a code"))
    scope = RadioField(_l("What is stopped"), choices=_scopes(), default=optouts.ALL)

    def is_filled(self) -> bool:
        self.region.data = (self.region.data or "").strip().upper()
        if self.region.data not in SUPPORTED_REGIONS:
            self.refuse({"region": Problem("region_unknown")})
        return super().is_filled()


class ImportForm(ReasonForm):
    scope = RadioField(_l("What is stopped"), choices=_scopes(), default=optouts.ALL)
    phone_column = StringField(_l("Phone column"))
    encoding = SelectField(
        _l("Encoding"),
        choices=[
            SelectChoice(value="", label=_l("found by itself")),
            *(SelectChoice(value=e, label=e) for e in ENCODINGS),
        ],
    )

    def is_filled(self) -> bool:
        return True  # a list from elsewhere may have its reasons in a column


class WordsForm(Refusable):
    on = SelectMultipleField(
        _l("Words that may mean something else"),
        choices=[SelectChoice(value=word, label=word) for word in stopwords.OPTIONAL],
        option_widget=CheckboxInput(),
        validate_choice=False,
    )
    extra = TextAreaField(_l("Your own words for leaving"))


class ConfirmationForm(Refusable):
    on = BooleanField(_l("Answer whoever leaves by a reply"))
    sms_ru = TextAreaField(_l("SMS, to whoever wrote in Russian"))
    sms_en = TextAreaField(_l("SMS, to all others"))
    waba_ru = TextAreaField(_l("WhatsApp, to whoever wrote in Russian"))
    waba_en = TextAreaField(_l("WhatsApp, to all others"))

    def texts(self) -> dict[str, str]:
        return {key: (self[key.replace(".", "_")].data or "").replace("\r\n", "\n") for key in confirmations.TEXTS}


def words_form(given: MultiDict[str, str] | None = None) -> WordsForm:
    """The words as they are set, or as they were typed."""
    now = optouts.stop_words()
    return WordsForm(given, data={"on": list(now.on), "extra": "\n".join(now.extra)})


def confirmation_form(given: MultiDict[str, str] | None = None) -> ConfirmationForm:
    """The answer as it is set, or as it was typed."""
    now = confirmations.chosen()
    data: dict[str, Any] = {"on": now.on, **{key.replace(".", "_"): text for key, text in now.texts.items()}}
    return ConfirmationForm(given, data=data)
