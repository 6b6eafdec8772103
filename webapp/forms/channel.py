"""The settings form of a channel, drawn from the fields of its Provider.

What is a good value is decided in worker.channel_settings; here a value is only found in the request, shown
again, and handed over. A secret is never shown again: its input is empty, and empty keeps what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flask_babel import LazyString
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from werkzeug.datastructures import MultiDict
from wtforms import BooleanField, Form, PasswordField, SelectField, StringField, TextAreaField
from wtforms import Field as Drawn
from wtforms.fields.choices import SelectChoice
from wtforms.form import BaseForm

from webapp import sentences, words
from webapp.filters import own_name
from worker.channel_settings import OURS
from worker.models import Channel
from worker.problems import Problem
from worker.providers import PROVIDERS
from worker.providers.base import Field, Provider

PREFIX = "setting-"
FORGET = "forget-"
GROUPS = ("request", "outcome", "report", "reply", "advanced")
ROWS = 4


class Common(Form):  # type: ignore[misc]
    """What every channel has."""

    name = StringField(_l("Channel name"))
    per_second = StringField(_l("Messages per second"))
    per_day = StringField(_l("Messages per day"))
    price = StringField(_l("Price of one message"))
    currency = StringField(_l("Currency"))


COMMON: dict[str, dict[str, Any]] = {
    "name": {"required": True, "maxlength": 100},
    "per_second": {"inputmode": "decimal", "class": "short", "size": 8},
    "per_day": {"inputmode": "numeric", "class": "short", "size": 10},
    "price": {"inputmode": "decimal", "class": "short", "size": 8},
    "currency": {"class": "short", "size": 5, "maxlength": 3},
}
COMMON_HINTS: dict[str, LazyString | str] = {
    "name": _l("So that you can tell your channels apart"),
    "per_second": _l("One limit for all broadcasts of this channel. Empty: no limit of its own"),
    "per_day": _l("Within any 24 hours. Empty: no limit"),
    "price": _l("Per message; for SMS, per segment. Used to work out the cost"),
    "currency": _l("Three Latin letters, for example RUB. Empty: costs without a currency"),
}


class Setting(NamedTuple):
    """One setting on the page: the Provider's field, what is drawn for it, and its words."""

    field: Field
    drawn: Drawn
    hint: str
    forget: Drawn | None  # a switch that takes a stored secret away, where it may be missing

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the input."""
        field = self.field
        found: dict[str, Any] = {"required": True} if field.required and field.kind != "boolean" else {}
        if field.secret:
            found = {"autocomplete": "new-password", "class": "medium"}
        elif field.kind == "integer":
            found |= {"inputmode": "numeric", "class": "short", "size": 10}
        elif field.kind == "lines":
            found |= {"rows": ROWS, "class": "code-lines", "spellcheck": "false"}
        elif field.kind == "choice":
            found |= {"class": "medium"}
        else:
            found |= {"spellcheck": "false"}
        return found


class ChannelForm:
    """All fields of one channel. CSRF is checked for the whole application before any view.

    `endings` are the last characters of the stored secrets by name ("": too short to show any).
    """

    def __init__(
        self,
        provider: type[Provider],
        given: MultiDict[str, str] | None,
        channel: Channel | None = None,
        endings: Mapping[str, str] | None = None,
        fixed: bool = False,
    ) -> None:
        self.provider = provider
        self.channel = channel
        self.endings = dict(endings or {})
        self.form_errors: list[str] = []
        self.attributes, self.hints = COMMON, COMMON_HINTS
        self.common = Common(given, data=_stored(provider, channel))
        self._specs = () if fixed else provider.fields
        self._drawn = BaseForm(dict(self._fields()))
        self._drawn.process(given, data=self._data())
        self.settings = [self._setting(one) for one in self._specs]

    # --- what is drawn

    def _fields(self) -> Iterator[tuple[str, Any]]:
        for one in self._specs:
            label = words.setting_label(one.name)
            if one.kind == "boolean":
                yield PREFIX + one.name, BooleanField(label)
            elif one.kind == "choice":
                yield PREFIX + one.name, SelectField(label, choices=_choices(one), validate_choice=False)
            else:
                kind = {"secret": PasswordField, "lines": TextAreaField}.get(one.kind, StringField)
                yield PREFIX + one.name, kind(label)
            if one.secret and not one.required and one.name in self.endings:
                yield FORGET + one.name, BooleanField(_("Delete the stored value"))

    def _data(self) -> dict[str, Any]:
        stored = self.channel.settings if self.channel is not None else {}
        return {PREFIX + f.name: stored.get(f.name, f.default) for f in self._specs if not f.secret}

    def _setting(self, one: Field) -> Setting:
        forget = next((drawn for drawn in self._drawn if drawn.name == FORGET + one.name), None)
        return Setting(one, self._drawn[PREFIX + one.name], self._hint(one), forget)

    def _hint(self, one: Field) -> str:
        about = words.setting_hint(one.name)
        if not one.secret:
            return about
        if one.name not in self.endings:
            ours = one.name in OURS and (one.required or self.channel is None)
            return ". ".join(filter(None, [about, _("Left empty, it is made up for you") if ours else ""]))
        if end := self.endings[one.name]:
            return str(_("Saved, ends with %(end)s. Leave it empty to keep it", end=f"…{end}"))
        return str(_("Saved. Leave it empty to keep it"))

    @property
    def plain(self) -> list[Setting]:
        """The settings that everybody fills in."""
        return [s for s in self.settings if not s.field.group]

    @property
    def groups(self) -> list[tuple[str, LazyString | str, list[Setting], bool]]:
        """The folded ones: key, heading, settings, and whether one of them has a problem."""
        names = dict.fromkeys([*GROUPS, *(s.field.group for s in self.settings if s.field.group)])
        found = []
        for name in names:
            members = [s for s in self.settings if s.field.group == name]
            if members:
                heading = words.SETTING_GROUPS.get(name, name)
                found.append((name, heading, members, any(s.drawn.errors for s in members)))
        return found

    # --- what forms.summary asks for

    def __iter__(self) -> Iterator[Drawn]:
        yield from self.common
        yield from (s.drawn for s in self.settings)

    @property
    def errors(self) -> bool:
        return bool(self.form_errors) or any(drawn.errors for drawn in self)

    # --- what was given

    def values(self) -> dict[str, Any]:
        """What was typed, as worker.channels takes it."""
        found: dict[str, Any] = {name: (self.common[name].data or "") for name in COMMON}
        # The sandbox has a name of ours, shown in the reader's language: left alone, it stays one for all.
        if self.channel is not None and found["name"] == own_name(self.channel.name):
            found["name"] = self.channel.name
        found["settings"] = {s.field.name: self._given(s) for s in self.settings}
        return found

    def _given(self, one: Setting) -> Any:
        if one.field.kind == "boolean":
            return bool(one.drawn.data)
        if one.forget is not None and one.forget.data and not one.drawn.data:
            return None
        return one.drawn.data or ""

    def refuse(self, problems: Mapping[str, Problem]) -> None:
        """Put each problem beside its field; what belongs to none stands at the top."""
        named = {s.field.name: s.drawn for s in self.settings}
        for name, problem in problems.items():
            text = sentences.problem(problem)
            drawn = self.common[name] if name in self.common else named.get(name)
            if drawn is None:
                self.form_errors.append(text)
            else:
                drawn.errors = [*drawn.errors, text]


def _choices(one: Field) -> list[SelectChoice]:
    offered = one.choices if one.required or "" in one.choices else ("", *one.choices)
    return [SelectChoice(value=value, label=words.choice_label(value)) for value in offered]


def _stored(provider: type[Provider], channel: Channel | None) -> dict[str, Any]:
    if channel is None:
        return {"name": own_name(provider.label), "per_second": _plain(provider.pace)}
    return {
        "name": own_name(channel.name),
        "per_second": _plain(channel.per_second),
        "per_day": _plain(channel.per_day),
        "price": _plain(channel.price),
        "currency": channel.currency or "",
    }


def _plain(value: float | None) -> str:
    """A number as one would type it."""
    return "" if value is None else f"{value:.10g}"


class Offer(NamedTuple):
    """One Provider to choose from."""

    key: str
    label: str
    about: str


def offers(keys: list[str]) -> dict[str, list[Offer]]:
    """What can be chosen, WABA first: kind → its Providers."""
    found: dict[str, list[Offer]] = {"waba": [], "sms": []}
    for key in keys:
        provider = PROVIDERS[key]
        about = str(words.PROVIDER_HINTS.get(key, ""))
        found.setdefault(provider.kind, []).append(Offer(key, own_name(provider.label), about))
    return {kind: offered for kind, offered in found.items() if offered}
