"""The inbox: conversations with people who wrote back, and what operators do with them.

A conversation exists from a person's first message on and never before: whoever was only written to has none, so
replies are not buried. It is made in the transaction that stores the message, one for each person and channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker import attachments, audit, broadcasts, channels, clock, db, direct, optouts, rendering, segments
from worker.models import Channel, Conversation, Direct, MessageTemplate, QuickAnswer, User
from worker.problems import Invalid, Problem
from worker.providers.base import InboundMessage, clean
from worker.settings import Settings
from worker.talk import REACTION

WINDOW = clock.DAY  # how long after a person's message WhatsApp lets one answer freely
WABA_TEXT_MAX = 4_096
LAST_TEXT = 200
PAGE = 30
PAGE_MAX = 100
UNREAD_SHOWN = 99
SHORTEST = 3  # letters that are looked for in messages
QUICK_MAX = 100
STATES = ("open", "closed")
MAY_ANSWER = ("sender", "admin")


# --- what comes in ----------------------------------------------------------------------------------

_RECEIVED = (
    "INSERT INTO conversation AS c (channel_id, phone, name, state, unread, broadcast_id, message_id, last_in_at,"
    " last_at, last_text, last_direction, created_at) VALUES (?, ?, ?, 'open', 1, ?, ?, ?, ?, ?, 'in', ?)"
    " ON CONFLICT (channel_id, phone) DO UPDATE SET"
    " name = COALESCE(excluded.name, c.name), state = 'open', closed_at = NULL, unread = c.unread + 1,"
    # Callbacks come in any order: an older message does not take the place of a newer one.
    " broadcast_id = CASE WHEN excluded.last_in_at >= c.last_in_at OR c.broadcast_id IS NULL"
    " THEN COALESCE(excluded.broadcast_id, c.broadcast_id) ELSE c.broadcast_id END,"
    " message_id = CASE WHEN excluded.last_in_at >= c.last_in_at OR c.message_id IS NULL"
    " THEN COALESCE(excluded.message_id, c.message_id) ELSE c.message_id END,"
    " last_text = CASE WHEN excluded.last_at >= c.last_at THEN excluded.last_text ELSE c.last_text END,"
    " last_direction = CASE WHEN excluded.last_at >= c.last_at THEN 'in' ELSE c.last_direction END,"
    " last_in_at = MAX(c.last_in_at, excluded.last_in_at), last_at = MAX(c.last_at, excluded.last_at)"
    " RETURNING id"
)


def receive(channel_id: int, inbound_id: int, item: InboundMessage, answered: tuple[int, int] | None, at: int) -> None:
    """Put a stored message of somebody who can be answered into its conversation, inside the caller's transaction.

    `answered`: message and broadcast that it replies to. `at`: when it was written, ms, never in the future.
    A reaction alone begins no conversation and is read in passing.
    """
    attachments.note(inbound_id, channel_id, item)
    if item.kind == REACTION:
        db.execute(
            "UPDATE inbound SET conversation_id = (SELECT id FROM conversation WHERE channel_id = ? AND phone = ?)"
            " WHERE id = ?",
            [channel_id, item.phone, inbound_id],
        )
        return
    message_id, broadcast_id = answered or (None, None)
    last_text = _shortened(item.text) or f"[{item.kind}]"
    conversation_id: int = db.execute(
        _RECEIVED,
        [channel_id, item.phone, item.name, broadcast_id, message_id, at, at, last_text, clock.now()],
    ).fetchone()[0]
    # Reactions that came before the first message are shown from now on.
    db.execute(
        "UPDATE inbound SET conversation_id = ? WHERE channel_id = ? AND phone = ? AND conversation_id IS NULL",
        [conversation_id, channel_id, item.phone],
    )


def _shortened(text: str) -> str:
    """What a list shows of a message."""
    return " ".join(text[: 2 * LAST_TEXT].split())[:LAST_TEXT]


# --- the list ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    """What to list. `state` "" means both; `q` is a part of a name, of a number or, from SHORTEST letters on, of
    what the person wrote."""

    unread: bool = False
    assignee_id: int | None = None
    state: str = ""
    channel_id: int | None = None
    broadcast_id: int | None = None
    q: str = ""


@dataclass(frozen=True)
class Page:
    items: list[Conversation]
    next: str | None


def find(chosen: Filter, after: str = "", limit: int = PAGE) -> Page:
    """One page of conversations, the latest first, and the cursor of the next.

    Raises ValueError for a cursor that is not one of ours or a state that does not exist.
    """
    if chosen.state and chosen.state not in STATES:
        raise ValueError("state")
    limit = max(1, min(limit, PAGE_MAX))
    where, parameters = _conditions(chosen)
    if after:
        where.append("(c.last_at, c.id) < (?, ?)")
        parameters += _cursor(after)
    which = " AND ".join(where) or "TRUE"
    sql = f"SELECT c.* FROM conversation c WHERE {which} ORDER BY c.last_at DESC, c.id DESC LIMIT ?"  # noqa: S608
    found = list(Conversation.raw(db.spelt(sql), *parameters, limit + 1))
    last = found[limit - 1] if len(found) > limit else None
    return Page(found[:limit], f"{last.last_at}.{last.id}" if last is not None else None)


# Any of the person's messages, not the latest alone: who answered two broadcasts is found by either.
_ANSWERED = (
    "EXISTS (SELECT 1 FROM inbound i WHERE i.broadcast_id = ? AND i.phone = c.phone AND i.conversation_id = c.id)"
)


def _conditions(chosen: Filter) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    parameters: list[Any] = []
    for sql, value in (
        ("c.state = ?", chosen.state),
        ("c.channel_id = ?", chosen.channel_id),
        ("c.assignee_id = ?", chosen.assignee_id),
        (_ANSWERED, chosen.broadcast_id),
    ):
        if value not in ("", None):
            where.append(sql)
            parameters.append(value)
    if chosen.unread:
        where.append("c.unread > 0")
    if wanted := clean(chosen.q).strip():
        sql, values = _matching(wanted)
        where.append(sql)
        parameters += values
    return where, parameters


# Any of what the person wrote, among the latest messages with these words: those of a common word are endless.
_WROTE = "EXISTS (SELECT 1 FROM inbound i WHERE i.conversation_id = c.id AND i.id IN ({words}))"
_LATEST = 10_000


def _matching(q: str) -> tuple[str, list[str]]:
    """The condition that name, number or words of a conversation have `q` in them."""
    sql, name = db.holding("c.name", q)
    values = [name]
    if len(q) >= SHORTEST:
        words, value = db.inbound_with(q, _LATEST)
        sql += f" OR {_WROTE.format(words=words)}"
        values.append(value)
    digits = "".join(c for c in q if c.isdigit() and c.isascii())
    if digits and not any(c.isalpha() for c in q):
        condition, value = db.holding("c.phone", digits)
        sql += f" OR {condition}"
        values.append(value)
    return f"({sql})", values


def _cursor(after: str) -> list[int]:
    at, _dot, number = after.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (at, number)):
        raise ValueError("after")
    return [int(at), int(number)]


def unread_number() -> int:
    """How many conversations have something unread, counted up to one more than UNREAD_SHOWN."""
    sql = "SELECT COUNT(*) FROM (SELECT 1 FROM conversation WHERE unread > 0 LIMIT ?) AS unread"
    return int(db.value(sql, [UNREAD_SHOWN + 1]))


def elsewhere(conversation: Conversation) -> list[Conversation]:
    """The same person's conversations on other channels."""
    same = (Conversation.phone == conversation.phone) & (Conversation.id != conversation.id)
    return list(Conversation.select().where(same).order_by(Conversation.last_at.desc()).limit(10))


# --- what operators do ------------------------------------------------------------------------------


def read(conversation: Conversation, seen: int | None = None) -> None:
    """Somebody has read it, up to the person's message with the id `seen`; None: all of it."""
    with db.write():
        db.execute(
            # A page that is an hour old makes nothing unread again.
            "UPDATE conversation SET unread = MIN(unread, (SELECT COUNT(*) FROM inbound"
            " WHERE conversation_id = conversation.id AND id > ? AND kind <> ?)) WHERE id = ? AND unread > 0",
            [2**62 if seen is None else seen, REACTION, conversation.id],
        )


def assign(conversation: Conversation, email: str | None, actor: str) -> None:
    """Hand it to an operator, by e-mail; None: to nobody. Raises Invalid."""
    person = None
    if email is not None:
        able = (User.email == email) & User.active & User.role.in_(MAY_ANSWER)
        person = User.get_or_none(able)
        if person is None:
            raise Invalid({"user": Problem("not_an_operator")})
    with db.write():
        Conversation.update(assignee_id=person.id if person else None).where(
            Conversation.id == conversation.id
        ).execute()
        audit.record(actor, "conversation.assign", str(conversation.id), to=email)


def operators() -> list[User]:
    """Who may answer people."""
    able = User.active & User.role.in_(MAY_ANSWER)
    return list(User.select().where(able).order_by(User.email).limit(500))


def close(conversation: Conversation, actor: str) -> bool:
    """Nothing more is to be done, until the person writes again; False when it was closed already."""
    with db.write():
        changed = Conversation.update(state="closed", closed_at=clock.now(), unread=0).where(
            (Conversation.id == conversation.id) & (Conversation.state == "open")
        )
        return _noted(bool(changed.execute()), conversation, "close", actor)


def reopen(conversation: Conversation, actor: str) -> bool:
    """False when it was open already."""
    with db.write():
        changed = Conversation.update(state="open", closed_at=None).where(
            (Conversation.id == conversation.id) & (Conversation.state == "closed")
        )
        return _noted(bool(changed.execute()), conversation, "reopen", actor)


def _noted(done: bool, conversation: Conversation, action: str, actor: str) -> bool:
    if done:
        audit.record(actor, f"conversation.{action}", str(conversation.id))
    return done


# --- answers ----------------------------------------------------------------------------------------


def window_until(conversation: Conversation, channel: Channel) -> int | None:
    """Until when the person may be answered by a text, ms; None: at any time."""
    return conversation.last_in_at + WINDOW if channel.kind == "waba" else None


def is_open(conversation: Conversation, channel: Channel) -> bool:
    """Whether a text may be sent now."""
    until = window_until(conversation, channel)
    return until is None or clock.now() < until


class Given(NamedTuple):
    """An answer as it was given: `text`, or `template` (name, language) with a value for each slot.

    `key`: repeated with the same content it makes no second message, however often it is sent.
    """

    text: str = ""
    template: tuple[str, str] | None = None
    values: Mapping[str, str] | None = None
    confirm_optout: bool = False
    key: str = ""


def answer(settings: Settings, conversation: Conversation, given: Given, actor: str) -> Direct:
    """Queue an answer; the caller wakes the worker. Raises Invalid with window_closed, optout_unconfirmed, and what
    is wrong with the text or the template."""
    channel = Channel.get_by_id(conversation.channel_id)
    if channel.state != "on":
        raise Invalid({"channel": Problem("channel_gone" if channel.state == channels.DELETED else "channel_off")})
    if given.template is None:
        rendered = _text(conversation, channel, given.text)
    else:
        rendered = _template(settings, channel, given)
    # A form stays open while its answer is corrected: another text is another message.
    token = direct.token_of(str(conversation.id), given.key, conversation.phone, rendered) if given.key else None
    with db.write():
        known = Direct.get_or_none(Direct.form_token == token) if token else None
        if known is not None:
            return known
        scopes = optouts.SCOPES if (rendered.template or {}).get("category") == "MARKETING" else (optouts.ALL,)
        if not given.confirm_optout and optouts.opted_out_among([conversation.phone], scopes):
            raise Invalid({"confirm_optout": Problem("optout_unconfirmed")})
        made = direct.send(
            settings,
            channel,
            conversation.phone,
            kind=direct.ANSWER,
            actor=actor,
            text=rendered.text,
            template=rendered.template,
            conversation_id=conversation.id,
            form_token=token,
        )
        Conversation.update(last_at=made.at, last_text=_shortened(rendered.text), last_direction="out", unread=0).where(
            (Conversation.id == conversation.id) & (Conversation.last_at <= made.at)
        ).execute()
        audit.record(actor, "conversation.answer", str(conversation.id), message=made.message_id)
    return made


def is_opted_out(conversation: Conversation) -> bool:
    """Whether the person wants no broadcast at all."""
    return bool(optouts.opted_out_among([conversation.phone]))


def _text(conversation: Conversation, channel: Channel, text: str) -> rendering.Rendered:
    text = clean(text.replace("\r\n", "\n")).strip()
    if not text:
        raise Invalid({"text": Problem("text_required")})
    if not is_open(conversation, channel):
        raise Invalid({"text": Problem("window_closed")})
    if channel.kind == "waba" and len(text) > WABA_TEXT_MAX:
        raise Invalid({"text": Problem("text_too_long", {"m": len(text), "max": WABA_TEXT_MAX})})
    if channel.kind == "sms" and (parts := segments.count(text).segments) > segments.MAX_SEGMENTS:
        raise Invalid({"text": Problem("too_many_segments", {"m": parts, "max": segments.MAX_SEGMENTS})})
    return rendering.Rendered(text)


def templates(channel_id: int) -> list[MessageTemplate]:
    """The templates of a channel that can be sent, by name."""
    approved = (MessageTemplate.channel == channel_id) & (MessageTemplate.status == "APPROVED")
    found = MessageTemplate.select().where(approved).order_by(MessageTemplate.name, MessageTemplate.language)
    return [row for row in found.limit(1_000) if not rendering.unsupported(row.components)]


def _template(settings: Settings, channel: Channel, given: Given) -> rendering.Rendered:
    """The chosen template with its values. The checks are those of a broadcast."""
    name, language = given.template or ("", "")
    values = {slot: {"value": text} for slot, text in (given.values or {}).items() if text.strip()}
    broadcasts.check_template(settings, channel, (name, language), values)
    found = channels.template(channel.id, name, language)
    assert found is not None, "just checked"
    content = rendering.waba_content(name, language, found.components, found.parameter_format, values, found.category)
    try:
        return content.bind([]).render([])
    except rendering.RowError as error:
        raise Invalid({"variables": Problem(error.code, error.detail)}) from None


# --- quick answers ----------------------------------------------------------------------------------


def quick_answers() -> list[QuickAnswer]:
    """The texts that operators send often, by title."""
    return list(QuickAnswer.select().order_by(QuickAnswer.title, QuickAnswer.id).limit(QUICK_MAX))


def keep_quick(title: str, text: str, actor: str, known: QuickAnswer | None = None) -> QuickAnswer:
    """Store a new one, or change a known one. Raises Invalid."""
    title, text = " ".join(clean(title).split())[:100], clean(text.replace("\r\n", "\n")).strip()
    problems = {}
    if not title:
        problems["title"] = Problem("name_required")
    if not text:
        problems["text"] = Problem("text_required")
    elif len(text) > WABA_TEXT_MAX:
        problems["text"] = Problem("text_too_long", {"m": len(text), "max": WABA_TEXT_MAX})
    if known is None and QuickAnswer.select().count() >= QUICK_MAX:
        problems["title"] = Problem("too_many", {"max": QUICK_MAX})
    if problems:
        raise Invalid(problems)
    with db.write():
        row = known or QuickAnswer()
        row.title, row.text = title, text
        row.save()
        audit.record(actor, "quick_answer.save", str(row.id), title=title)
    return row


def forget_quick(row: QuickAnswer, actor: str) -> None:
    with db.write():
        QuickAnswer.delete().where(QuickAnswer.id == row.id).execute()
        audit.record(actor, "quick_answer.delete", str(row.id), title=row.title)
