"""What a webhook of the WhatsApp Cloud API says about templates, limits, the account, and people's marketing choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from worker.providers.base import STOP_BROADCAST, STOP_CHANNEL, Notice
from worker.providers.meta_webhooks import changes, daily_limit, dicts, elsewhere, mapping, person, text_of, time_of

TEMPLATE_STOPS = frozenset(
    {"PAUSED", "DISABLED", "FLAGGED", "LOCKED", "REJECTED", "ARCHIVED", "PENDING_DELETION", "DELETED"}
)
ACCOUNT_STOPS = frozenset({"DISABLED_UPDATE", "ACCOUNT_DELETED", "ACCOUNT_OFFBOARDED", "ACCOUNT_VIOLATION"})
NO_FIRST_MESSAGES = "RESTRICTED_BIZ_INITIATED_MESSAGING"  # the one restriction that forbids broadcasts
CHOICES = ("stop", "resume")

Value = Mapping[str, Any]


def notices(body: bytes, waba_id: str = "", phone_number_id: str = "") -> Iterator[Notice]:
    """The notices in a body, in order; those of other accounts and of other numbers are passed over."""
    if not _FIELD_IN_BODY.search(body):  # nearly every body; spares the parsing
        return
    for account, field, value in changes(body):
        if waba_id and account and account != waba_id:
            continue
        read = FIELDS.get(field)
        if read is not None and not elsewhere(value, phone_number_id):
            yield from read(value)


def _template(value: Value) -> Iterator[Notice]:
    event = text_of(value.get("event"), 50).upper()
    yield _of_template(value, "template", event, STOP_BROADCAST if event in TEMPLATE_STOPS else "")


def _category(value: Value) -> Iterator[Notice]:
    """The new category; a change that is only announced says the correct one beside it and changes nothing yet."""
    category = text_of(value.get("new_category"), 50).upper()
    if category and not value.get("correct_category"):
        yield _of_template(value, "category", category)


def _template_quality(value: Value) -> Iterator[Notice]:
    if score := text_of(value.get("new_quality_score"), 50).upper():
        yield _of_template(value, "quality", score)


def _account(value: Value) -> Iterator[Notice]:
    event = text_of(value.get("event"), 60).upper()
    if not event:
        return
    stops = event in ACCOUNT_STOPS
    if event == "DISABLED_UPDATE":
        stops = mapping(value.get("ban_info")).get("waba_ban_state") != "REINSTATE"
    elif event == "ACCOUNT_RESTRICTION":
        kinds = {restriction.get("restriction_type") for restriction in dicts(value.get("restriction_info"))}
        stops = not kinds or NO_FIRST_MESSAGES in kinds
    yield Notice("account", event, STOP_CHANNEL if stops else "")


def _alert(value: Value) -> Iterator[Notice]:
    info = mapping(value.get("alert_info")) or value
    if kind := text_of(info.get("alert_type"), 60).upper():
        yield Notice("account", kind)


def _limit(value: Value) -> Iterator[Notice]:
    given = (daily_limit(value.get(key)) for key in ("max_daily_conversations_per_business", "current_limit"))
    number = next((n for n in given if n is not None), None)
    if number is not None:
        yield Notice("limit", str(number))


def _number(value: Value) -> Iterator[Notice]:
    if event := text_of(value.get("event"), 60).upper():
        yield Notice("number", event, phone=person(value.get("display_phone_number")))
    yield from _limit(value)


def _preferences(value: Value) -> Iterator[Notice]:
    for item in dicts(value.get("user_preferences")):
        phone = person(item.get("wa_id"), item.get("user_id"))
        choice = str(item.get("value", ""))
        if phone and item.get("category") == "marketing_messages" and choice in CHOICES:
            yield Notice("marketing", choice, phone=phone, at=time_of(item.get("timestamp")))


def _of_template(value: Value, subject: str, status: str, outcome: str = "") -> Notice:
    name, language = value.get("message_template_name"), value.get("message_template_language")
    return Notice(subject, status, outcome, name=text_of(name, 512), language=text_of(language, 20))


FIELDS: dict[str, Callable[[Value], Iterator[Notice]]] = {
    "message_template_status_update": _template,
    "template_category_update": _category,
    "message_template_quality_update": _template_quality,
    "account_update": _account,
    "account_alerts": _alert,
    "business_capability_update": _limit,
    "phone_number_quality_update": _number,
    "user_preferences": _preferences,
}
_FIELD_IN_BODY = re.compile(f'"(?:{"|".join(FIELDS)})"'.encode())
