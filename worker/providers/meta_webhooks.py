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
from worker.providers.base import Attached, InboundMessage, RawCallback, StatusUpdate

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
_FILES = frozenset({"image", "video", "document", "audio", "sticker"})
_INTERACTIVE_TEXT = {"button_reply": "title", "list_reply": "title", "nfm_reply": "body"}
_KINDS = frozenset({*_TEXT_FIELD, "contacts", "interactive", "unsupported"})
# Facts about earlier messages or the person, never a message of their own.
_NOT_MESSAGES = frozenset({"system", "edit", "revoke", "request_welcome", "ephemeral"})
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
    for _account, field, value in changes(body):
        if field != "messages" or elsewhere(value, phone_number_id):
            continue
        if messages := value.get("messages"):
            people = _people(value)
            fault = _code(value)  # of the whole change; it concerns the messages in it
            for item in dicts(messages):
                if (message := _inbound(item, people, fault)) is not None:
                    yield message
        for item in dicts(value.get("statuses")):
            if (status := _status(item)) is not None:
                yield status


def error_facts(error: Any) -> tuple[int | None, int | None, str]:
    """Code, second code and the useful words of an error object, which comes in several shapes."""
    error = mapping(error)
    data = error.get("error_data")
    details = mapping(data).get("details") if isinstance(data, dict) else data
    words = next((w for w in (details, error.get("message"), error.get("title")) if w), "")
    return number_of(error.get("code")), number_of(error.get("error_subcode")), text_of(words, 500)


def changes(body: bytes) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(account, field, value) of every change in a body, in order; nothing when it cannot be read."""
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        return
    for entry in dicts(mapping(envelope).get("entry")):
        for change in dicts(entry.get("changes")):
            value = change.get("value")
            if isinstance(value, dict):
                yield str(entry.get("id", "")), str(change.get("field", "")), value


def elsewhere(value: Mapping[str, Any], phone_number_id: str) -> bool:
    """Whether a change speaks of another number than ours."""
    number = mapping(value.get("metadata")).get("phone_number_id")
    return bool(phone_number_id and number and str(number) != phone_number_id)


def person(*candidates: Any) -> str:
    """Whom these ids name: the phone with its plus, else the vendor's own id of a person; "" when unreadable."""
    given = [text_of(candidate, 200) for candidate in candidates]
    for text in given:
        if digits := _DIGITS.fullmatch(text):
            return "+" + digits[1]
    return next((text for text in given if _PERSON_ID.fullmatch(text)), "")


def daily_limit(value: Any) -> int | None:
    """People a day from 250, "250", TIER_2K or TIER_UNLIMITED (-1, as the vendor writes it elsewhere); None when
    unreadable."""
    if (number := number_of(value)) is not None:
        return max(number, -1)
    text = text_of(value, 40).upper().removeprefix("TIER_")
    if text == "UNLIMITED":
        return -1
    found = re.fullmatch(r"(\d{1,6})(K|M)?", text)
    return int(found[1]) * {"K": 1_000, "M": 1_000_000}.get(found[2] or "", 1) if found else None


def _people(value: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Every id that a message may name its sender by → (phone digits or "", display name)."""
    found: dict[str, tuple[str, str]] = {}
    for contact in dicts(value.get("contacts")):
        phone = text_of(contact.get("wa_id"), 40)
        name = text_of(mapping(contact.get("profile")).get("name"), 200)
        for key in (phone, text_of(contact.get("user_id"), 200)):
            if key:
                found[key] = (phone, name)
    return found


def _status(item: Mapping[str, Any]) -> StatusUpdate | None:
    status = STATUSES.get(str(item.get("status")))
    identity = text_of(item.get("id"), 255)
    if status is None or not identity or item.get("recipient_type") == "group":
        return None
    code, detail = None, None
    if status == "failed":
        code = _code(item)
        detail = error_facts(next(dicts(item.get("errors")), None))[2]
    token = item.get("biz_opaque_callback_data")
    return StatusUpdate(
        status=status,
        at=time_of(item.get("timestamp")),
        provider_id=identity,
        token=text_of(token, 512) if isinstance(token, str) and token else None,
        code=code,
        detail=detail or None,
        phone=person(item.get("recipient_id"), item.get("recipient_user_id")) or None,
    )


def _code(item: Mapping[str, Any]) -> str | None:
    """The code of the first error in a report or a message."""
    number, subcode, _words = error_facts(next(dicts(item.get("errors")), None))
    if (number, subcode) == (100, 33):
        return "33"
    return None if number is None else str(number)


def _inbound(
    item: Mapping[str, Any], people: Mapping[str, tuple[str, str]], fault: str | None
) -> InboundMessage | None:
    kind = str(item.get("type", ""))
    identity = text_of(item.get("id"), 255)
    if not identity or kind in _NOT_MESSAGES or item.get("group_id"):
        return None
    part = mapping(item.get(kind))
    if kind == "interactive":
        if part.get("type") == "call_permission_reply":
            return None
        text, payload = _interactive(part)
    else:
        field = _TEXT_FIELD.get(kind)
        text = text_of(part.get(field), _LONGEST_TEXT) if field else ""
        payload = text_of(part.get("payload"), 512) or None if kind == "button" else None
    sender, name = _sender(item, people)
    if not sender:
        return None
    quoted = mapping(item.get("context")).get("id") if kind != "reaction" else part.get("message_id")
    return InboundMessage(
        provider_id=identity,
        phone=sender,
        at=time_of(item.get("timestamp")),
        kind=kind if kind in _KINDS else "unsupported",
        text=text,
        name=name or None,
        context=text_of(quoted, 255) or None,
        payload=payload,
        code=_code(item) or fault,
        attached=_attached(part) if kind in _FILES else (),
    )


def _attached(part: Mapping[str, Any]) -> tuple[Attached, ...]:
    media_id = text_of(part.get("id"), 255)
    file = Attached(media_id, text_of(part.get("mime_type"), 100), text_of(part.get("filename"), 240))
    return (file,) if media_id else ()


def _interactive(part: Mapping[str, Any]) -> tuple[str, str | None]:
    kind = str(part.get("type", ""))
    reply = mapping(part.get(kind))
    field = _INTERACTIVE_TEXT.get(kind)
    text = text_of(reply.get(field), _LONGEST_TEXT) if field else ""
    return text, text_of(reply.get("id"), 512) or None


def _sender(item: Mapping[str, Any], people: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Phone with its plus (or the vendor's id of a person who hides it) and name; "" when unreadable."""
    given = [text_of(item.get(key), 200) for key in ("from", "from_user_id")]
    known = [people[key] for key in given if key in people]
    return person(*given, *(phone for phone, _name in known)), next((name for _phone, name in known), "")


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is an object, else nothing."""
    return value if isinstance(value, dict) else {}


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list, as far as it is one."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def text_of(value: Any, longest: int) -> str:
    """Text that any database takes: without NUL and half characters, and not endless."""
    if not isinstance(value, str):
        return ""
    if value.isascii() and "\x00" not in value:
        return value[:longest]
    return value[:longest].replace("\x00", "").encode("utf-8", "replace").decode()


def number_of(value: Any) -> int | None:
    """A whole number, also where it is written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,12}", value):
        return int(value)
    return None


def time_of(value: Any) -> int:
    """Milliseconds since the epoch from seconds or milliseconds, as number or text; now when unreadable."""
    try:
        ms = int(float(value) * 1000)
    except (TypeError, ValueError, OverflowError):
        return clock.now()
    if ms > 100 * _LATEST:
        ms //= 1000  # was in milliseconds already
    return ms if 0 < ms < _LATEST else clock.now()
