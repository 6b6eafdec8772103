"""What an address names: a broadcast, a file, a channel, a message; 404 when there is none."""

from __future__ import annotations

from typing import Any

from flask import abort, current_app, request
from flask_babel import get_locale

from webapp import auth
from worker import broadcasts, channels, phone, reports
from worker.models import ApiToken, Broadcast, Channel, Conversation, RecipientFile, Webhook
from worker.settings import Settings

ID_MAX = 2**62  # larger numbers do not fit into a column


def settings() -> Settings:
    """The settings of this installation."""
    found: Settings = current_app.extensions["molva"].settings
    return found


def language() -> str:
    """ru or en."""
    return str(get_locale())[:2]


def _found(row: Any) -> Any:
    if row is None:
        abort(404)
    return row


def broadcast(number: int) -> Broadcast:
    which = (Broadcast.id == min(number, ID_MAX)) & (Broadcast.kind != broadcasts.DIRECT)
    found: Broadcast = _found(Broadcast.get_or_none(which))
    return found


def file(number: int, file_id: int) -> RecipientFile:
    """A file of this broadcast and of no other."""
    same = (RecipientFile.id == min(file_id, ID_MAX)) & (RecipientFile.broadcast == min(number, ID_MAX))
    found: RecipientFile = _found(RecipientFile.get_or_none(same))
    return found


def channel(number: int) -> Channel:
    found: Channel = _found(channels.living().where(Channel.id == min(number, ID_MAX)).first())
    return found


def conversation(number: int) -> Conversation:
    found: Conversation = _found(Conversation.get_or_none(Conversation.id == min(number, ID_MAX)))
    return found


def message(number: int, message_id: int) -> reports.Row:
    """A message of this broadcast and of no other."""
    row = reports.message(min(message_id, ID_MAX))
    if row is None or reports.broadcast_id(row) != number:
        abort(404)
    return row


def token(number: int) -> ApiToken:
    found: ApiToken = _found(ApiToken.get_or_none(ApiToken.id == min(number, ID_MAX)))
    return found


def webhook(number: int) -> Webhook:
    found: Webhook = _found(Webhook.get_or_none(Webhook.id == min(number, ID_MAX)))
    return found


def phone_filter() -> str:
    """The beginning of a number as the message table holds it, from `phone=` of the address.

    Raises Refused for a viewer: figure by figure a search would tell what the mask hides.
    """
    digits = "".join(c for c in request.args.get("phone", "") if c in "0123456789")
    if digits and not auth.me().can("sender"):
        raise auth.Refused("sender")
    return f"+{digits[:19]}" if digits else ""


def whole(name: str) -> int | None:
    """A whole number that the address or the form gives; None when it gives none."""
    text = request.values.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def phone_wanted() -> str:
    """The number that `phone=` of the address looks for, however a person writes it: E.164, its beginning, or the
    vendor's name of somebody who hides theirs."""
    typed = " ".join(request.args.get("phone", "").split())[:100]
    found = phone.parse(typed, settings().region).e164
    return found or (typed if any(c.isalpha() for c in typed) else phone_filter())
