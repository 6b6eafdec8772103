"""Lines of the audit log as people read them: what each was about, with its page, and the facts in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flask import url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from webapp import filters, sentences, words
from worker.channels import DELETED
from worker.models import Audit, Broadcast, Channel, Conversation, Message, OptOut, RecipientFile, User
from worker.providers import PROVIDERS

# The beginning of an action → what its subject is, where that is a number.
_KINDS = {
    "broadcast": "broadcast",
    "report": "broadcast",
    "channel": "channel",
    "conversation": "conversation",
    "file": "file",
    "message": "message",
    "optout": "optout",
    "quick_answer": "quick_answer",
}
ID_DIGITS = 15  # more cannot be a number of ours


class Line(NamedTuple):
    """One line: the row itself, and in words who, about what (`url`: its page, if it has one), the facts, by way of."""

    row: Audit
    who: str
    subject: str
    url: str
    facts: str
    via: str


def lines(rows: Sequence[Audit]) -> list[Line]:
    """These lines in the reader's language; the pages are looked up for all of them at once."""
    known = _known([about for row in rows if (about := _about(row))])
    return [_line(row, known) for row in rows]


def _line(row: Audit, known: Mapping[tuple[str, str], str]) -> Line:
    about = _about(row)
    subject = row.subject
    if about and about[0] in words.AUDIT_SUBJECTS:
        subject = str(words.AUDIT_SUBJECTS[about[0]]) % {"n": row.subject}
    url = known.get(about, "") if about else ""
    return Line(row, actor(row.actor), subject, url, _facts(row), _via(row.via))


def actor(name: str) -> str:
    """Who did it, where it was no person."""
    if not name:
        return str(_("nobody known"))
    if name.startswith("token "):
        return str(_("token “%(name)s”", name=name.removeprefix("token ")))
    return str(words.AUDIT_ACTORS.get(name, name))


def _via(via: str) -> str:
    if via.startswith("session "):
        return str(_("sign-in no. %(n)s", n=via.removeprefix("session ")))
    return via


# --- what it was about --------------------------------------------------------------------------------


def _about(row: Audit) -> tuple[str, str] | None:
    """Of which kind the subject is, and which one; None where it is neither a person nor a number of ours."""
    if "@" in row.subject:
        return "person", row.subject
    if not (row.subject.isascii() and row.subject.isdigit() and len(row.subject) <= ID_DIGITS):
        return None
    if row.action == "login.end":
        return "session", row.subject
    if row.action == "number.view":
        kind = "message" if "broadcast" in (row.detail or {}) else "conversation"
    else:
        kind = _KINDS.get(row.action.partition(".")[0], "")
    return (kind, row.subject) if kind else None


def _known(wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The pages of those that are still there."""
    by_kind: dict[str, set[str]] = {}
    for kind, key in wanted:
        by_kind.setdefault(kind, set()).add(key)
    found: dict[tuple[str, str], str] = {}
    for kind, keys in by_kind.items():
        if kind == "person":
            for user in User.select(User.id, User.email).where(User.email.in_(keys)):
                found[kind, user.email] = url_for("people.show", number=user.id)
        elif kind in _PAGES:
            for number, url in _PAGES[kind]([int(key) for key in keys]):
                found[kind, str(number)] = url
    return found


def _broadcasts(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = Broadcast.select(Broadcast.id).where(Broadcast.id.in_(ids) & (Broadcast.kind == "list"))
    return [(row.id, url_for("broadcasts.show", number=row.id)) for row in rows]


def _channels(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = Channel.select(Channel.id).where(Channel.id.in_(ids) & (Channel.state != DELETED))
    return [(row.id, url_for("channels.show", number=row.id)) for row in rows]


def _conversations(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = Conversation.select(Conversation.id).where(Conversation.id.in_(ids))
    return [(row.id, url_for("inbox.show", number=row.id)) for row in rows]


def _files(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = RecipientFile.select(RecipientFile.id, RecipientFile.broadcast).where(RecipientFile.id.in_(ids))
    return [(row.id, url_for("broadcasts.show", number=row.broadcast_id)) for row in rows]


def _messages(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = Message.select(Message.id, Message.broadcast_id).where(Message.id.in_(ids))
    return [(row.id, url_for("reports.message", number=row.broadcast_id, message_id=row.id)) for row in rows]


def _optouts(ids: list[int]) -> Iterable[tuple[int, str]]:
    rows = OptOut.select(OptOut.id).where(OptOut.id.in_(ids))
    return [(row.id, url_for("optouts.show", number=row.id)) for row in rows]


_PAGES = {
    "broadcast": _broadcasts,
    "channel": _channels,
    "conversation": _conversations,
    "file": _files,
    "message": _messages,
    "optout": _optouts,
}


# --- the facts ----------------------------------------------------------------------------------------


def _facts(row: Audit) -> str:
    """What else was stored, in words; what says nothing is left out."""
    given: Mapping[str, Any] = row.detail or {}
    shown = [_fact(row.action, name, value) for name, value in given.items() if value is not None and value != []]
    return " · ".join(filter(None, shown))


def _fact(action: str, name: str, value: Any) -> str:
    if name == "of" and value == "conversation":
        return ""  # the subject says so
    if name in ("broadcast", "of", "message") and isinstance(value, int | str) and str(value).isdigit():
        return str(words.AUDIT_SUBJECTS["message" if name == "message" else "broadcast"]) % {"n": value}
    if name == "run":
        return str(_("Run %(k)s", k=value))
    return f"{_label(action, name)}: {_value(action, name, value)}"


def _label(action: str, name: str) -> str:
    if action == "settings.retention" and name in words.TIMERS:
        return str(words.TIMERS[name][0])
    if action == "privacy.erase" and name in words.REMOVED:
        return str(words.REMOVED[name])
    return str(words.AUDIT_FACTS.get(name, name))


def _value(action: str, name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(dict.fromkeys(_value(action, name, one) for one in value))
    if isinstance(value, bool):
        if name == "masked":
            return str(_("hidden") if value else _("whole"))
        return str(_("yes") if value else _("no"))
    if isinstance(value, int):
        return _number(action, name, value)
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    known: Mapping[str, Any] = _CODES.get(name, {})
    if name == "cause":
        return (sentences.cause(value) or {"text": value})["text"]
    if name == "provider" and value in PROVIDERS:
        return filters.own_name(PROVIDERS[value].label)
    if name == "fields" and value not in known:
        return str(words.setting_label(value))
    return str(known.get(value, value))


def _number(action: str, name: str, value: int) -> str:
    if name == "at":
        return filters.when(value)
    if name == "late_ms":
        return filters.duration(value)
    if action == "settings.retention":
        return str(ngettext("%(num)s day", "%(num)s days", value))
    return filters.number(value)


_CODES: dict[str, Mapping[str, Any]] = {
    "areas": words.AREAS,
    "before": words.ROLES,
    "role": words.ROLES,
    "fields": words.AUDIT_FIELDS,
    "how": words.AUDIT_HOW,
    "of": words.AUDIT_PLACES,
    "delimiter": {"\t": "TAB"},
}
