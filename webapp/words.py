"""Codes of the worker → words, icons and tones. Every sentence about a code is made here, once per request language.

`_l` marks a text for the catalogues without translating it yet; it becomes words when it is shown.
"""

from __future__ import annotations

from typing import NamedTuple

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l


class Word(NamedTuple):
    """One state as people see it: label, icon of icons.svg, and tone (quiet, info, good, warn, bad)."""

    label: LazyString
    icon: str
    tone: str
    hint: LazyString | None = None


class MenuItem(NamedTuple):
    label: LazyString
    path: str
    icon: str
    role: str = "viewer"


# Shown when the page exists and the person may see it.
MENU = (
    MenuItem(_l("Broadcasts"), "/broadcasts", "broadcast"),
    MenuItem(_l("Inbox"), "/inbox", "inbox", "sender"),
    MenuItem(_l("Reports"), "/reports", "report"),
    MenuItem(_l("Channels"), "/channels", "channel", "admin"),
    MenuItem(_l("Stop list"), "/optouts", "stop-list", "sender"),
    MenuItem(_l("Settings"), "/settings", "settings"),
)

BROADCAST_STATES: dict[str, Word] = {
    "draft": Word(_l("Draft"), "draft", "quiet"),
    "scheduled": Word(_l("Scheduled"), "clock", "info"),
    "running": Word(_l("Running"), "play", "accent"),
    "stopped": Word(_l("Stopped"), "stop", "warn"),
    "finished": Word(_l("Completed"), "check", "good"),
    # the two other faces of "finished"
    "awaiting": Word(_l("Awaiting delivery reports"), "clock", "info"),
    "uncertain": Word(_l("Completed with uncertain messages"), "question", "warn"),
}

MESSAGE_STATUSES: dict[str, Word] = {
    "queued": Word(_l("Queued"), "queue", "quiet"),
    "sending": Word(_l("Sending"), "play", "accent"),
    "sent": Word(_l("Sent"), "check", "info"),
    "held": Word(_l("Held by the provider"), "clock", "warn"),
    "delivered": Word(_l("Delivered"), "check-double", "good"),
    "read": Word(_l("Read"), "eye", "good"),
    "undelivered": Word(_l("Undelivered"), "cross", "bad"),
    "failed": Word(_l("Failed"), "alert", "bad"),
    "uncertain": Word(
        _l("Uncertain"),
        "question",
        "warn",
        _l("The request left, no answer came. Most likely it was sent. It is never repeated by itself"),
    ),
    "skipped": Word(_l("Skipped"), "skip", "quiet"),
    "cancelled": Word(_l("Cancelled"), "cross", "quiet"),
}

ROLES: dict[str, LazyString] = {
    "admin": _l("admin"),
    "sender": _l("sender"),
    "viewer": _l("viewer"),
}

LANGUAGES: dict[str, str] = {"ru": "Русский", "en": "English"}

THEMES: dict[str, LazyString] = {
    "light": _l("light"),
    "dark": _l("dark"),
    "system": _l("as the system"),
}
