"""The settings form of a broadcast: it carries what was typed, unchanged, and the problems beside their fields.

What is a good value is decided in worker.broadcasts; here a value is only found in the request, shown
again, and handed over. Values of fields that are not shown at the moment travel along as hidden ones,
so that switching from SMS to WABA and back loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from werkzeug.datastructures import MultiDict
from wtforms import (
    BooleanField,
    FileField,
    Form,
    HiddenField,
    RadioField,
    SelectField,
    StringField,
    TextAreaField,
)

from webapp import sentences
from webapp.filters import own_name, zone_name
from webapp.forms import choices
from worker import broadcasts, channels, clock, rendering
from worker.broadcasts import Problem
from worker.models import Broadcast, Channel, MessageTemplate
from worker.settings import Settings

RATE = 60
SMS, WABA = "sms", "waba"
# Where people of this product live and send to; the zone of the installation and of the broadcast are added.
ZONES = (
    "Europe/Kaliningrad",
    "Europe/Moscow",
    "Europe/Samara",
    "Asia/Yekaterinburg",
    "Asia/Omsk",
    "Asia/Novosibirsk",
    "Asia/Krasnoyarsk",
    "Asia/Irkutsk",
    "Asia/Yakutsk",
    "Asia/Vladivostok",
    "Asia/Magadan",
    "Asia/Kamchatka",
    "Europe/Minsk",
    "Europe/Kyiv",
    "Europe/Chisinau",
    "Asia/Tbilisi",
    "Asia/Yerevan",
    "Asia/Baku",
    "Asia/Almaty",
    "Asia/Tashkent",
    "Asia/Bishkek",
    "Asia/Dushanbe",
    "Asia/Ashgabat",
    "Europe/Istanbul",
    "Europe/Berlin",
    "Europe/London",
    "Asia/Dubai",
    "Asia/Jerusalem",
    "America/New_York",
    "America/Los_Angeles",
    "UTC",
)
PARTS = {
    "header": _l("Header"),
    "body": _l("Body"),
    "suffix": _l("Button link ending"),
    "code": _l("Copy code"),
    "media": _l("Header media"),
    "filename": _l("Name of the document"),
    "latitude": _l("Latitude"),
    "longitude": _l("Longitude"),
    "name": _l("Name of the place"),
    "address": _l("Address of the place"),
}


@dataclass
class Binding:
    """Where the value of one template variable comes from, as it was typed."""

    slot: rendering.Slot
    source: str = "column"
    column: str = ""
    fallback: str = ""
    value: str = ""
    error: str = ""

    @property
    def id(self) -> str:
        return slot_key(self.slot.id)

    @property
    def label(self) -> str:
        """The part of the template, and the name of the variable in it."""
        if self.slot.kind in ("text", "otp"):
            return f"{PARTS[self.slot.part]} {{{{{self.slot.name}}}}}"
        if self.slot.kind == "place":
            return str(PARTS[self.slot.name])
        return f"{PARTS.get(self.slot.kind, PARTS['media'])} {self.slot.name}".strip()

    @property
    def given(self) -> dict[str, str]:
        """The binding as worker.broadcasts takes it; empty while nothing was chosen."""
        if self.source == "value":
            return {"value": self.value} if self.value else {}
        found = {"column": self.column, "fallback": self.fallback} if self.column else {}
        return {key: text for key, text in found.items() if text}


def slot_key(slot_id: str) -> str:
    return f"slot.{slot_id}"


class BroadcastForm(Form):  # type: ignore[misc]
    """All fields of DESIGN's order. CSRF is checked for the whole application before any view."""

    id = HiddenField()
    form_token = HiddenField()
    name = StringField(_l("Broadcast name"))
    kind = RadioField(_l("How to contact"), choices=choices({WABA: "WABA", SMS: "SMS"}), default=SMS)
    channel_waba = SelectField(_l("WABA channel"))
    channel_sms = SelectField(_l("SMS channel"))
    template = SelectField(_l("Approved template"))
    variables = StringField(_l("Template variables"))  # only carries a problem of the variables as a whole
    text = TextAreaField(_l("Message text"))
    file = FileField(_l("Recipient file"))
    more = FileField(_l("Add another file"))
    append = BooleanField(_l("Append to the list"))
    ignore_duplicates = BooleanField(_l("Ignore duplicates"), default=True)
    on_file_delete = RadioField(
        _l("When a file is deleted"),
        choices=choices({"keep": _l("Keep its recipients in the queue"), "remove": _l("Remove those not yet sent")}),
        default="keep",
    )
    rate_per_minute = StringField(_l("Messages per minute"), default=str(RATE))
    when = RadioField(_l("When to send"), choices=choices({"now": _l("now"), "at": _l("at a set time")}), default="now")
    send_at = StringField(_l("Start time"))
    timezone = SelectField(_l("Time zone"))
    quiet = BooleanField(_l("Quiet hours"))
    quiet_from = StringField(_l("Do not send from"), default="21:00")
    quiet_to = StringField(_l("until"), default="09:00")
    cooldown_days = StringField(_l("Do not write to people who got a broadcast within the last (days)"))

    def __init__(self, settings: Settings, given: MultiDict[str, str] | None, broadcast: Broadcast | None) -> None:
        super().__init__(given, data=_stored(broadcast, settings))
        self.settings = settings
        self.broadcast = broadcast
        self.state = broadcast.state if broadcast is not None else "draft"
        self.channels = list(channels.living().order_by(Channel.name, Channel.id))
        self._offer_channels()
        self._offer_zones()
        if self.kind.data not in (WABA, SMS):
            self.kind.data = SMS
        self.channel = self._chosen_channel()
        self.templates = self._offer_templates()
        self.bindings = [self._binding(slot, given) for slot in self._slots()]
        self.kept = self._kept(given)

    # --- what may be chosen

    def _offer_channels(self) -> None:
        for kind, field in ((WABA, self.channel_waba), (SMS, self.channel_sms)):
            own = [(str(c.id), own_name(c.name)) for c in self.channels if c.kind == kind]
            if not field.data and len(own) == 1:
                field.data = own[0][0]
            field.choices = choices(dict(own if len(own) == 1 else [("", _("Choose a channel")), *own]))

    def _offer_zones(self) -> None:
        zones = dict.fromkeys([self.settings.timezone, self.timezone.data or self.settings.timezone, *ZONES])
        known = [zone for zone in zones if _is_zone(zone)]
        named = [(zone, zone_name(zone, self._moment(zone))) for zone in known]
        self.timezone.choices = choices(dict(named[:1] + sorted(named[1:], key=lambda pair: _offset(pair[0]))))

    def _moment(self, zone: str) -> int | None:
        try:
            return broadcasts.instant(self.send_at.data, zone) if self.send_at.data else None
        except (ValueError, OverflowError):
            return None

    def _chosen_channel(self) -> Channel | None:
        chosen = self.channel_field.data
        return next((c for c in self.channels if c.kind == self.kind.data and str(c.id) == chosen), None)

    def _offer_templates(self) -> list[MessageTemplate]:
        if self.channel is None or self.kind.data != WABA:
            self.template.choices = []
            return []
        found = list(
            MessageTemplate.select()
            .where(MessageTemplate.channel == self.channel.id)
            .order_by(MessageTemplate.name, MessageTemplate.language)
            .limit(1_000)
        )
        usable = [t for t in found if t.status == "APPROVED" and not rendering.unsupported(t.components)]
        named = [(template_key(t), f"{t.name} · {t.language}") for t in usable]
        if self.template.data and self.template.data not in dict(named):
            named.append((self.template.data, self.template.data.replace("|", " · ")))  # no longer approved: said below
        self.template.choices = choices(dict([("", _("Choose a template")), *named]))
        return usable

    @property
    def chosen_template(self) -> MessageTemplate | None:
        return next((t for t in self.templates if template_key(t) == self.template.data), None)

    def _slots(self) -> list[rendering.Slot]:
        found = self.chosen_template
        return rendering.slots(found.components, found.parameter_format) if found is not None else []

    def _binding(self, slot: rendering.Slot, given: MultiDict[str, str] | None) -> Binding:
        key = slot_key(slot.id)
        if given is not None and any(name.startswith(f"{key}.") for name in given):
            typed = {part: given.get(f"{key}.{part}", "").strip() for part in ("column", "fallback", "value")}
            return Binding(slot, "value" if given.get(f"{key}.source") == "value" else "column", **typed)
        known = (self.broadcast.variables if self.broadcast is not None else {}).get(slot.id, {})
        return Binding(slot, "value" if "value" in known else "column", **known)

    def _kept(self, given: MultiDict[str, str] | None) -> list[tuple[str, str]]:
        """Names and values of fields that are not drawn now but were typed before."""
        waba = self.kind.data == WABA
        hidden = [("channel_sms", self.channel_sms.data), ("text", self.text.data)] if waba else []
        if not waba:
            hidden = [("channel_waba", self.channel_waba.data), ("template", self.template.data)]
        drawn = {f"{b.id}.{part}" for b in self.bindings for part in ("source", "column", "fallback", "value")}
        slots = [(name, text) for name, text in (given or {}).items() if name.startswith("slot.") and name not in drawn]
        return [(name, text) for name, text in (*hidden, *slots[:200]) if text]

    # --- what was chosen

    @property
    def channel_field(self) -> SelectField:
        return self.channel_waba if self.kind.data == WABA else self.channel_sms

    @property
    def has_channels(self) -> bool:
        """Whether there is any channel of the chosen kind."""
        return any(channel.kind == self.kind.data for channel in self.channels)

    @property
    def sandbox(self) -> bool:
        return self.channel is not None and self.channel.provider.startswith("sandbox_")

    @property
    def content_open(self) -> bool:
        """Whether channel, text and duplicates may still change."""
        return self.state == "draft"

    @property
    def time_open(self) -> bool:
        return self.state in ("draft", "scheduled", "stopped")

    def values(self) -> dict[str, Any]:
        """What may be changed in this state, as worker.broadcasts takes it."""
        values: dict[str, Any] = {
            "name": self.name.data or "",
            "on_file_delete": self.on_file_delete.data,
            "rate_per_minute": self.rate,
            "quiet_hours": {"from": self.quiet_from.data, "to": self.quiet_to.data} if self.quiet.data else None,
            "cooldown_days": (self.cooldown_days.data or "").strip() or None,
        }
        if self.content_open:
            values |= self._content() | {"ignore_duplicates": bool(self.ignore_duplicates.data)}
        if self.time_open:
            values["timezone"] = self.timezone.data or self.settings.timezone
            values["send_at"] = (self.send_at.data or None) if self.when.data == "at" else None
        return values

    def _content(self) -> dict[str, Any]:
        channel = self.channel.id if self.channel is not None else self.channel_field.data or None
        if self.kind.data == SMS:
            return {"channel_id": channel, "text": self.text.data or "", "template": None, "variables": {}}
        name, _bar, language = (self.template.data or "").rpartition("|")
        template = {"name": name, "language": language} if name else None
        bound = {b.slot.id: b.given for b in self.bindings if b.given}
        return {"channel_id": channel, "text": None, "template": template, "variables": bound}

    @property
    def rate(self) -> str:
        """The rate without the spaces and commas by which people group digits."""
        return "".join(c for c in self.rate_per_minute.data or "" if not c.isspace() and c not in ",\u00a0\u202f")

    def columns_needed(self) -> list[str]:
        """The columns that a file must have beside the phone, as far as the form knows."""
        if self.kind.data == WABA:
            return list(dict.fromkeys(b.column for b in self.bindings if b.source == "column" and b.column))
        try:
            return rendering.parse_text(self.text.data or "").variables
        except rendering.TextError:
            return []

    def begins_at(self) -> int | None:
        """The start time that was typed, in ms since the epoch; None for now, or while it cannot be read."""
        return self._moment(self.timezone.data or self.settings.timezone) if self.when.data == "at" else None

    def as_typed(self) -> Broadcast | None:
        """The stored broadcast as it would be with what was typed, as far as that can be read; not to be stored."""
        if self.broadcast is None:
            return None
        row = Broadcast(**self.broadcast.__data__)
        row.rate_per_minute = self.whole_rate or row.rate_per_minute
        row.quiet_from, row.quiet_to = self.hours
        row.timezone = self.zone
        if self.content_open:
            row.channel = self.channel
        if self.time_open:
            row.send_at = self.begins_at()
        return row

    @property
    def whole_rate(self) -> int | None:
        """The rate as a number; None while it cannot be used."""
        rate = int(self.rate) if self.rate.isascii() and self.rate.isdigit() and len(self.rate) < 6 else 0
        return rate if broadcasts.RATE_MIN <= rate <= broadcasts.RATE_MAX else None

    @property
    def new_text(self) -> str:
        """The text of an SMS, where the files were not checked with it; "" where they were."""
        text = (
            (self.text.data or "").replace("\r\n", "\n").strip() if self.content_open and self.kind.data == SMS else ""
        )
        return "" if self.broadcast is not None and text == self.broadcast.text else text

    @property
    def hours(self) -> tuple[int | None, int | None]:
        """The quiet hours that were typed, in minutes after midnight; None where there are none."""
        if not self.quiet.data:
            return None, None
        return broadcasts.minutes(self.quiet_from.data), broadcasts.minutes(self.quiet_to.data)

    @property
    def zone(self) -> str:
        """The broadcast's time zone as far as it can be read."""
        known = self.broadcast.timezone if self.broadcast is not None else self.settings.timezone
        chosen = self.timezone.data or known
        return chosen if _is_zone(chosen) else known

    # --- problems

    def own_problems(self) -> bool:
        """Mark what only the form can know is missing; whether there was anything."""
        found = False
        if self.time_open and self.when.data == "at" and not self.send_at.data:
            self.send_at.errors = [_("Choose a date and a time")]
            found = True
        for binding in self.bindings if self.content_open else []:
            if not binding.given and binding.slot.required:
                binding.error = _("Say where the value comes from")
                found = True
        if any(b.error for b in self.bindings):
            self.variables.errors = [_("Some variables have no value")]
        return found

    def refuse(self, problems: Mapping[str, Problem]) -> None:
        """Put each problem beside its field."""
        fields = {"channel_id": self.channel_field, "quiet_hours": self.quiet_from}
        for name, problem in problems.items():
            if problem.code.startswith("slot_") and any(b.error for b in self.bindings):
                continue
            field = fields.get(name) or self._fields.get(name) or self.name
            field.errors = [*field.errors, sentences.problem(problem)]


def _stored(broadcast: Broadcast | None, settings: Settings) -> dict[str, Any]:
    """The values of a stored broadcast, or where a new one begins."""
    if broadcast is None:
        return {"timezone": settings.timezone, "ignore_duplicates": True, "rate_per_minute": str(RATE)}
    channel = broadcast.channel
    waba = channel.kind == WABA if channel is not None else bool(broadcast.template_name)
    kind = WABA if waba else SMS
    local = ""
    if broadcast.send_at is not None:
        local = _local(broadcast.send_at, broadcast.timezone)
    return {
        "id": str(broadcast.id),
        "form_token": broadcast.form_token or "",
        "name": broadcast.name,
        "kind": kind,
        f"channel_{kind}": str(channel.id) if channel is not None else "",
        "template": f"{broadcast.template_name}|{broadcast.template_language}" if broadcast.template_name else "",
        "text": broadcast.text or "",
        "ignore_duplicates": broadcast.ignore_duplicates,
        "on_file_delete": broadcast.on_file_delete,
        "rate_per_minute": str(broadcast.rate_per_minute),
        "when": "at" if broadcast.send_at is not None else "now",
        "send_at": local,
        "timezone": broadcast.timezone,
        "cooldown_days": str(broadcast.cooldown_days or ""),
        **_stored_hours(broadcast),
    }


def _stored_hours(broadcast: Broadcast) -> dict[str, Any]:
    found = broadcasts.quiet_hours(broadcast)
    return {"quiet": True, "quiet_from": found["from"], "quiet_to": found["to"]} if found else {"quiet": False}


def template_key(template: MessageTemplate) -> str:
    return f"{template.name}|{template.language}"


def _local(moment: int, zone: str) -> str:
    """A moment as <input type=datetime-local> takes it."""
    return clock.utc(moment).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M")


def _is_zone(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _offset(zone: str) -> float:
    found = datetime.fromtimestamp(clock.now() / 1000, ZoneInfo(zone)).utcoffset()
    return found.total_seconds() if found is not None else 0.0
