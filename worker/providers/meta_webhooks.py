"""What a webhook of the WhatsApp Cloud API says, tolerant of everything it may hold besides.

Signatures are computed over the raw bytes: the vendor escapes letters in its own way, so a body that
was parsed and written again would not match.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from worker import clock
from worker.providers.base import (
    STOP_BROADCAST,
    STOP_CHANNEL,
    InboundMessage,
    Notice,
    RawCallback,
    StatusUpdate,
)

STATUSES = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "played": "read",  # a voice message that was listened to
    "failed": "failed",
}
# Kinds of inbound messages whose text is a field of the part named like the kind.
_TEXT_FIELD = {
    "text": "body",
    "button": "text",
    "image": "caption",
    "video": "caption",
    "document": "caption",
    "audio": "caption",
    "sticker": "caption",
    "location": "name",
    "order": "text",
    "reaction": "emoji",
}
_INTERACTIVE_TEXT = {"button_reply": "title", "list_reply": "title", "nfm_reply": "body"}
_KINDS = frozenset({*_TEXT_FIELD, "contacts", "interactive", "unsupported"})
# Facts about earlier messages or the person, never a message of their own.
_NOT_MESSAGES = frozenset({"system", "edit", "revoke", "request_welcome", "ephemeral"})
_TEMPLATE_STOPS = frozenset({"PAUSED", "DISABLED", "FLAGGED", "LOCKED", "REJECTED", "PENDING_DELETION", "DELETED"})
_ACCOUNT_STOPS = frozenset(
    {"DISABLED_UPDATE", "ACCOUNT_DELETED", "ACCOUNT_OFFBOARDED", "ACCOUNT_RESTRICTION", "ACCOUNT_VIOLATION"}
)
_NOTICE_FIELDS = (b'"message_template_status_update"', b'"user_preferences"', b'"account_update"')
_DIGITS = re.compile(r"\+?(\d{5,20})")
_PERSON_ID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_LATEST = 4_102_444_800_000  # the year 2100: what lies beyond is not a time
_LONGEST_TEXT = 65_536


def signature(secret: str, body: bytes) -> str:
    """The value of X-Hub-Signature-256 for these bytes."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(callback: RawCallback, secrets: Iterable[str]) -> bool:
    """Whether one of `secrets` signed the raw body. An empty secret never matches."""
    given = callback.headers.get("x-hub-signature-256", "").encode()
    return any(hmac.compare_digest(given, signature(s, callback.body).encode()) for s in secrets if s)


def challenge(callback: RawCallback, verify_token: str) -> str | None:
    """The answer to the subscription request, or None when its token is not ours."""
    query = callback.query
    if callback.method != "GET" or query.get("hub.mode") != "subscribe" or not verify_token:
        return None
    given = query.get("hub.verify_token", "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), verify_token.encode()):
        return None
    return query.get("hub.challenge", "")


def parse(body: bytes, phone_number_id: str = "") -> Iterator[StatusUpdate | InboundMessage]:
    """Statuses and inbound messages in the order of the body; those of other numbers are passed over."""
    for field, value in _changes(body):
        if field != "messages":
            continue
        number = _dict(value.get("metadata")).get("phone_number_id")
        if phone_number_id and number and str(number) != phone_number_id:
            continue
        people = _people(value)
        for item in _dicts(value.get("messages")):
            if (message := _inbound(item, people)) is not None:
                yield message
        for item in _dicts(value.get("statuses")):
            if (status := _status(item)) is not None:
                yield status


def notices(body: bytes) -> Iterator[Notice]:
    """What the body says about templates, marketing choices of people, and the account."""
    if not any(field in body for field in _NOTICE_FIELDS):  # nearly every body; spares the parsing
        return
    for field, value in _changes(body):
        if field == "message_template_status_update":
            event = _text(value.get("event"), 50).upper()
            yield Notice(
                "template",
                event,
                STOP_BROADCAST if event in _TEMPLATE_STOPS else "",
                name=_text(value.get("message_template_name"), 512),
                language=_text(value.get("message_template_language"), 20),
            )
        elif field == "account_update":
            event = _text(value.get("event"), 50).upper()
            yield Notice("account", event, STOP_CHANNEL if event in _ACCOUNT_STOPS else "")
        elif field == "user_preferences":
            yield from _preferences(value)


def error_facts(error: Any) -> tuple[int | None, int | None, str]:
    """Code, second code and the useful words of an error object, which comes in several shapes."""
    error = _dict(error)
    data = error.get("error_data")
    details = _dict(data).get("details") if isinstance(data, dict) else data
    words = next((w for w in (details, error.get("message"), error.get("title")) if w), "")
    return _number(error.get("code")), _number(error.get("error_subcode")), _text(words, 500)


def _changes(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        return
    for entry in _dicts(_dict(envelope).get("entry")):
        for change in _dicts(entry.get("changes")):
            value = change.get("value")
            if isinstance(value, dict):
                yield str(change.get("field", "")), value


def _people(value: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Every id that a message may name its sender by → (phone digits or "", display name)."""
    found: dict[str, tuple[str, str]] = {}
    for contact in _dicts(value.get("contacts")):
        phone = _text(contact.get("wa_id"), 40)
        name = _text(_dict(contact.get("profile")).get("name"), 200)
        for key in (phone, _text(contact.get("user_id"), 200)):
            if key:
                found[key] = (phone, name)
    return found


def _status(item: Mapping[str, Any]) -> StatusUpdate | None:
    status = STATUSES.get(str(item.get("status")))
    identity = _text(item.get("id"), 255)
    if status is None or not identity or item.get("recipient_type") == "group":
        return None
    code, detail = None, None
    if status == "failed":
        errors = _dicts(item.get("errors"))
        number, subcode, detail = error_facts(next(errors, None))
        code = "33" if (number, subcode) == (100, 33) else None if number is None else str(number)
    token = item.get("biz_opaque_callback_data")
    return StatusUpdate(
        status=status,
        at=_time(item.get("timestamp")),
        provider_id=identity,
        token=_text(token, 512) if isinstance(token, str) and token else None,
        code=code,
        detail=detail or None,
    )


def _inbound(item: Mapping[str, Any], people: Mapping[str, tuple[str, str]]) -> InboundMessage | None:
    kind = str(item.get("type", ""))
    identity = _text(item.get("id"), 255)
    if not identity or kind in _NOT_MESSAGES or item.get("group_id"):
        return None
    part = _dict(item.get(kind))
    if kind == "interactive":
        if part.get("type") == "call_permission_reply":
            return None
        text, payload = _interactive(part)
    else:
        field = _TEXT_FIELD.get(kind)
        text = _text(part.get(field), _LONGEST_TEXT) if field else ""
        payload = _text(part.get("payload"), 512) or None if kind == "button" else None
    sender, name = _sender(item, people)
    if not sender:
        return None
    context = item.get("context")
    return InboundMessage(
        provider_id=identity,
        phone=sender,
        at=_time(item.get("timestamp")),
        kind=kind if kind in _KINDS else "unsupported",
        text=text,
        name=name or None,
        context=_text(_dict(context).get("id"), 255) or None,
        payload=payload,
    )


def _interactive(part: Mapping[str, Any]) -> tuple[str, str | None]:
    kind = str(part.get("type", ""))
    reply = _dict(part.get(kind))
    field = _INTERACTIVE_TEXT.get(kind)
    text = _text(reply.get(field), _LONGEST_TEXT) if field else ""
    return text, _text(reply.get("id"), 512) or None


def _sender(item: Mapping[str, Any], people: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Phone with its plus (or the vendor's id of a person who hides it) and name; "" when unreadable."""
    given = [_text(item.get(key), 200) for key in ("from", "from_user_id")]
    name = next((people[key][1] for key in given if key in people), "")
    known = [people[key][0] for key in given if key in people]
    for candidate in (*given, *known):
        if digits := _DIGITS.fullmatch(candidate):
            return "+" + digits[1], name
    return next((key for key in given if _PERSON_ID.fullmatch(key)), ""), name


def _preferences(value: Mapping[str, Any]) -> Iterator[Notice]:
    for item in _dicts(value.get("user_preferences")):
        digits = _DIGITS.fullmatch(_text(item.get("wa_id"), 40))
        choice = str(item.get("value", ""))
        if digits and item.get("category") == "marketing_messages" and choice in ("stop", "resume"):
            yield Notice("marketing", choice, phone="+" + digits[1], at=_time(item.get("timestamp")))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _text(value: Any, longest: int) -> str:
    """Text that any database takes: without NUL and half characters, and not endless."""
    if not isinstance(value, str):
        return ""
    return value[:longest].replace("\x00", "").encode("utf-8", "replace").decode()


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,12}", value):
        return int(value)
    return None


def _time(value: Any) -> int:
    """Milliseconds since the epoch from seconds or milliseconds, as number or text; now when unreadable."""
    try:
        ms = int(float(value) * 1000)
    except (TypeError, ValueError, OverflowError):
        return clock.now()
    if ms > 100 * _LATEST:
        ms //= 1000  # was in milliseconds already
    return ms if 0 < ms < _LATEST else clock.now()
