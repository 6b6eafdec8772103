"""Single messages outside of any list: answers to people, tests to one's own phone, confirmations.

They take the very way of a broadcast's messages. Every channel has one hidden broadcast (kind DIRECT) whose
list grows by a row for each of them, so claims, tokens, leases, reports, the channel's pace and its circuit
breaker hold for them as for all others: nobody gets an answer twice, and none is lost without a trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from worker import broadcasts, channels, clock, counters, db, rendering
from worker.models import Broadcast, Channel, Direct, RecipientFile
from worker.problems import Invalid, Problem
from worker.settings import Settings

DIRECT = broadcasts.DIRECT
ANSWER, TEST, CONFIRMATION = "answer", "test", "confirmation"
RATE = broadcasts.RATE_MAX  # they go as fast as their channel lets them
RUN = 1
LATE = clock.DAY  # for so long a single message waits for its channel
STEP = 1_000


class Sent(NamedTuple):
    """A single message as pages show it; times in ms, None for what has not happened."""

    id: int
    message_id: int
    kind: str
    phone: str
    text: str
    status: str
    cause: str | None
    cause_text: str | None
    provider_id: str | None
    made_by: str
    at: int
    sent_at: int | None
    delivered_at: int | None
    read_at: int | None
    waiting: str | None  # why the channel does not send now, a code; None when nothing keeps it
    is_template: bool


def send(
    settings: Settings,
    channel: Channel,
    phone: str,
    *,
    kind: str,
    actor: str,
    text: str,
    template: Mapping[str, Any] | None = None,
    conversation_id: int | None = None,
    about_id: int | None = None,
    form_token: str | None = None,
) -> Direct:
    """Queue one message; it leaves within a second when the channel sends. The caller wakes the worker.

    `text`: what is sent, or how `template` (as rendering.Rendered has it) reads to a person. The same
    `form_token` twice gives the same message. Does not look at the stop list: that is the caller's to say.
    Raises Invalid when the channel is off or deleted.
    """
    if channel.state != "on":
        code = "channel_deleted" if channel.state == channels.DELETED else "channel_off"
        raise Invalid({"channel": Problem(code)})
    with db.write():
        if form_token:
            known = Direct.get_or_none(Direct.form_token == form_token)
            if known is not None:
                return known
        broadcast, file_id = _list_of(settings, channel)
        made = Direct.create(
            channel_id=channel.id,
            kind=kind,
            phone=phone,
            conversation_id=conversation_id,
            about_id=about_id,
            made_by=actor,
            at=clock.now(),
            form_token=form_token,
        )
        row = json.dumps([text, template], ensure_ascii=False, separators=(",", ":"))
        message_id = db.execute(
            "INSERT INTO message (broadcast_id, run, file_id, line, phone, row, status, not_before, tries)"
            " VALUES (?, ?, ?, ?, ?, ?, 'queued', 0, 0) RETURNING id",
            [broadcast.id, RUN, file_id, made.id, phone, row],
        ).fetchone()[0]
        Direct.update(message_id=message_id).where(Direct.id == made.id).execute()
        counters.add({(broadcast.id, RUN, file_id, "queued"): 1})
        for action in ("reopen", "resume"):
            if broadcasts.advance(broadcast.id, action, **broadcasts.NO_STOP):
                break
    return Direct.get_by_id(made.id)


def token_of(what: str, key: str, phone: str, rendered: rendering.Rendered) -> str:
    """A form token for `send`: the same for the same `key` of a form with the same message to the same number."""
    content = f"{phone}\n{rendered.text}\n{rendered.template}"
    return f"{what}:{key[:100]}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _list_of(settings: Settings, channel: Channel) -> tuple[Broadcast, int]:
    """The hidden broadcast of a channel and its one list, made when first needed; inside the caller's transaction."""
    broadcast = Broadcast.get_or_none((Broadcast.channel == channel.id) & (Broadcast.kind == DIRECT))
    now = clock.now()
    if broadcast is None:
        broadcast = Broadcast.create(
            name="",
            kind=DIRECT,
            state="running",
            channel=channel.id,
            region=settings.region,
            ignore_duplicates=False,
            rate_per_minute=RATE,
            timezone=settings.timezone,
            created_at=now,
            updated_at=now,
        )
        broadcasts.begin_run(broadcast.id, RUN)
        RecipientFile.create(
            broadcast=broadcast.id, role=DIRECT, name="", size=0, sha256="", state="ready", run=RUN, created_at=now
        )
    file_id = db.value("SELECT id FROM recipient_file WHERE broadcast_id = ?", [broadcast.id])
    return broadcast, int(file_id)


_SENT = (
    "SELECT d.id, m.id, d.kind, d.phone, json_extract(m.row, '$[0]'), m.status, m.cause, m.cause_text, m.provider_id,"
    " d.made_by, d.at, m.sent_at, m.delivered_at, m.read_at,"
    " CASE WHEN m.status <> 'queued' THEN NULL WHEN c.state <> 'on' THEN COALESCE(c.stop_reason, 'channel_off')"
    " ELSE json_extract(b.waiting, '$.code') END, json_extract(m.row, '$[1]') IS NOT NULL"
    " FROM direct d JOIN message m ON m.id = d.message_id JOIN channel c ON c.id = d.channel_id"
    " JOIN broadcast b ON b.id = m.broadcast_id"
)


def by_ids(ids: Iterable[int]) -> list[Sent]:
    """These single messages, by their own ids (at most some hundreds), oldest first."""
    given = json.dumps(list(ids))
    sql = f"{_SENT} WHERE d.id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) ORDER BY d.id"  # noqa: S608
    return [Sent(*row) for row in db.rows(sql, [given])]


def of_conversation(conversation_id: int, before: int | None = None, limit: int = 50) -> list[Sent]:
    """The latest `limit` single messages of a conversation with ids below `before`, oldest first."""
    sql = f"{_SENT} WHERE d.conversation_id = ? AND d.id < ? ORDER BY d.id DESC LIMIT ?"
    return [Sent(*row) for row in reversed(db.rows(sql, [conversation_id, before or 2**62, limit]))]


def tests_of(broadcast_id: int, limit: int = 20) -> list[Sent]:
    """The latest tests of a broadcast, newest first."""
    sql = f"{_SENT} WHERE d.about_id = ? AND d.kind = '{TEST}' ORDER BY d.id DESC LIMIT ?"
    return [Sent(*row) for row in db.rows(sql, [broadcast_id, limit])]


def tend() -> int:
    """Let single messages go on where a channel has been switched on again; how many channels.

    Their broadcast stops with its channel, and nobody can press Resume on what is hidden. What has waited for
    too long is given up before: nobody wants an answer of last week.
    """
    _give_up()
    stopped = db.rows(
        "SELECT b.id FROM broadcast b JOIN channel c ON c.id = b.channel_id"
        " WHERE b.kind = ? AND b.state = 'stopped' AND c.state = 'on'",
        [DIRECT],
    )
    with db.write():
        for (broadcast_id,) in stopped:
            broadcasts.advance(broadcast_id, "resume", **broadcasts.NO_STOP)
    return len(stopped)


# Sent again by a person's choice, one has the time of its first try.
_LATE = (
    "SELECT m.id, m.broadcast_id, m.run, m.file_id FROM broadcast b JOIN recipient_file f ON f.broadcast_id = b.id"
    " JOIN message m ON m.file_id = f.id AND m.run = ? AND m.status = 'queued' JOIN direct d ON d.message_id = m.id"
    " WHERE b.kind = ? AND d.at < ? AND m.sending_at IS NULL LIMIT ?"
)


def _give_up() -> None:
    late = [RUN, DIRECT, clock.now() - LATE, STEP]
    if not db.rows(_LATE, late):
        return
    with db.write():
        found = db.rows(_LATE, late)
        db.many(
            "UPDATE message SET status = 'cancelled', cause = 'postponed_too_long', cause_text = NULL WHERE id = ?",
            [(id_,) for id_, *_list in found],
        )
        deltas: counters.Deltas = {}
        for _id, broadcast_id, run, file_id in found:
            counters.move(deltas, (broadcast_id, run, file_id), "queued", "cancelled")
        counters.add(deltas)
