"""What comes back: raw callbacks stored first, applied in batches; lost messages recovered or settled."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import peewee

from worker import (
    audit,
    broadcasts,
    causes,
    channels,
    clock,
    counters,
    db,
    events,
    hashes,
    inbox,
    installation,
    optouts,
    proofs,
    vault,
)
from worker.locks import is_alive, place
from worker.models import Broadcast, Channel, RecipientFile
from worker.models import Worker as WorkerRow
from worker.providers import base
from worker.providers.base import (
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    InboundMessage,
    Notice,
    Provider,
    RawCallback,
    StatusUpdate,
)
from worker.settings import Settings
from worker.states import BROADCAST, REPORT_LIFE, TAKEN, move, sql_list

log = logging.getLogger("molva.delivery")

BATCH = 1_000
LOCKED = 60.0  # seconds until callbacks of a channel that could not be opened are tried again
KEPT_HEADERS = ("content-type", "x-line-id", "x-line-at")
ALIVE = 10 * clock.SECOND
STEP = 1_000
# What we hold to have surely not left: a report of it speaks against us and changes nothing.
UNTOUCHED = ("queued", "failed", "cancelled", "skipped")
PART = {"sent": "sent", "held": "sent", "delivered": "delivered", "read": "delivered", "failed": "failed"}
ACTIONS = {"sent": "accept", "delivered": "deliver", "read": "read", "failed": "bounce", "held": "hold"}


PARTS_WAIT = 5 * clock.MINUTE
SAME_MOMENT = 5 * clock.SECOND  # vendors tell whole seconds, by a clock of their own
APPROVED_AGAIN = {"REINSTATED": "APPROVED", "UNARCHIVED": "APPROVED"}
# The causes that a send call would have been refused with.
TEMPLATE_CAUSES, TEMPLATE_CAUSE = {"PAUSED": "132015", "FLAGGED": "132015"}, "132016"

Items = list[tuple[int, StatusUpdate | InboundMessage | Notice]]
Beyond = Callable[[str], str]  # what a code in a report means beyond its message, as Provider.outcome says

# --- callbacks --------------------------------------------------------------------------------------


def receive_all(callbacks: Iterable[tuple[int, RawCallback, int]]) -> None:
    """Store verified callbacks as (channel id, callback, when it came) in one durable commit; the worker
    applies them later."""
    stored = [
        (
            channel_id,
            callback.path,
            json.dumps(dict(callback.query)) if callback.query else "",
            # Signatures and secrets have been looked at and are not kept.
            json.dumps({name: callback.headers[name] for name in KEPT_HEADERS if name in callback.headers}),
            callback.body,
            received_at,
        )
        for channel_id, callback, received_at in callbacks
    ]
    with db.write():
        db.many(
            "INSERT INTO callback (channel_id, path, query, headers, body, received_at) VALUES (?, ?, ?, ?, ?, ?)",
            stored,
        )


def apply_waiting(providers: channels.Providers) -> int:
    """Apply up to BATCH stored callbacks in one transaction; how many there were.

    Each callback stands alone: one that cannot be read is marked with its error and loses no other. Those of a
    channel whose credentials cannot be opened wait: with the right key they can be read after all.
    """
    for channel_id in [one for one, until in providers.locked.items() if until < clock.monotonic()]:
        del providers.locked[channel_id]
    waiting = [_Stored(*row) for row in db.rows(_WAITING, [json.dumps(list(providers.locked)), BATCH])]
    if not waiting:
        return 0
    of_channel = _Providers(providers)
    read: list[_Read] = []
    for stored in waiting:
        items: Items = []
        error = None
        try:
            raw = stored.raw()
            for channel_id, provider in of_channel.concerned(stored.channel_id, raw):
                items.extend((channel_id, item) for item in provider.parse(raw))
            items.extend((stored.channel_id, notice) for notice in of_channel[stored.channel_id].notices(raw))
        except vault.VaultError:
            if stored.channel_id not in providers.locked:
                log.error("channel %d: its credentials cannot be opened, callbacks wait", stored.channel_id)
            providers.locked[stored.channel_id] = clock.monotonic() + LOCKED
            continue
        except Exception as problem:
            log.exception("callback %d cannot be read", stored.id)
            error = type(problem).__name__
        read.append(_Read(stored, items, error))
    try:
        _apply_together(read, of_channel)
    except peewee.OperationalError:
        raise  # the storage, not what is to be stored: all of it waits for the next look
    except Exception:
        log.warning("a callback holds something that cannot be applied: each item is taken by itself")
        _apply_apart(read, of_channel)
    return len(waiting)


_WAITING = (
    "SELECT id, channel_id, path, query, headers, body, received_at FROM callback WHERE processed_at IS NULL"
    " AND channel_id NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) ORDER BY id LIMIT ?"
)


class _Providers(dict[int, Provider]):
    """The Provider of each channel of a batch, looked up once."""

    def __init__(self, providers: channels.Providers) -> None:
        super().__init__()
        self._providers = providers
        self._concerned: dict[int, list[int]] = {}

    def __missing__(self, channel_id: int) -> Provider:
        provider = self[channel_id] = self._providers.get(Channel.get_by_id(channel_id))
        return provider

    def concerned(self, channel_id: int, raw: RawCallback) -> Iterator[tuple[int, Provider]]:
        """Whom a callback to this channel speaks of: a vendor that knows one address for an account brings the
        callbacks of all its numbers there, and every Provider reads what is its own."""
        if channel_id not in self._concerned:
            self._concerned[channel_id] = [one for one in channels.of_account(channel_id) if one != channel_id]
        yield channel_id, self[channel_id]
        for one in self._concerned[channel_id]:
            if self[one].concerns(raw):
                yield one, self[one]

    def beyond(self, channel_id: int) -> Beyond:
        provider = self.get(channel_id)
        return _nothing_beyond if provider is None else provider.outcome


@lru_cache(64)
def _headers(text: str) -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(text)
    return found


class _Stored(NamedTuple):
    """A callback as it lies in the table."""

    id: int
    channel_id: int
    path: str
    query: str
    headers: str | None
    body: bytes
    received_at: int

    def raw(self) -> RawCallback:
        query = json.loads(self.query) if self.query else {}
        headers = _headers(self.headers) if self.headers else {}
        return RawCallback("POST", self.path, query, headers, bytes(self.body), self.received_at)


class _Read(NamedTuple):
    """A stored callback and what it says, each item with the channel that it concerns."""

    stored: _Stored
    items: Items
    error: str | None


def _nothing_beyond(_code: str) -> str:
    return REFUSED


def _apply_together(read: list[_Read], providers: _Providers) -> None:
    """All of a batch in one transaction, the ordinary reports with a few statements."""
    with db.write():
        left = proofs.apply(
            proofs.Report(channel_id, item, one.stored.received_at)
            for one in read
            for channel_id, item in one.items
            if isinstance(item, StatusUpdate)
        )
        for report in left:
            beyond = providers.beyond(report.channel_id)
            apply_updates(report.channel_id, [report.update], report.received_at, beyond)
        for one in read:
            for channel_id, item in one.items:
                if not isinstance(item, StatusUpdate):
                    _apply_item(channel_id, item, one.stored.received_at, providers)
        _mark_applied([(one.error, one.stored.id) for one in read])


def _apply_apart(read: list[_Read], providers: _Providers) -> None:
    """As `_apply_together`, but a bad item loses none of its neighbours; its fault stands with the callback."""
    with db.write():
        marks = []
        for one in read:
            fault = None
            for channel_id, item in one.items:
                apply = partial(_apply_item, channel_id, received_at=one.stored.received_at, providers=providers)
                fault = _stands(apply, _cleaned(item)) or fault
            marks.append((one.error or fault, one.stored.id))
        _mark_applied(marks)


def _cleaned(item: Any) -> Any:
    """The same with every text as any database takes it."""
    found = {one.name: getattr(item, one.name) for one in fields(item)}
    return type(item)(**{name: base.clean(value) if isinstance(value, str) else value for name, value in found.items()})


def _apply_item(
    channel_id: int, item: StatusUpdate | InboundMessage | Notice, received_at: int, providers: _Providers
) -> None:
    if isinstance(item, StatusUpdate):
        apply_updates(channel_id, [item], received_at, providers.beyond(channel_id))
    elif isinstance(item, InboundMessage):
        receive_inbound(channel_id, item, received_at)
    else:
        heed(channel_id, item)


def _mark_applied(marks: list[tuple[str | None, int]]) -> None:
    now = clock.now()
    db.many("UPDATE callback SET processed_at = ?, error = ? WHERE id = ?", [(now, *mark) for mark in marks])


def _stands(apply: Callable[[Any], None], item: Any) -> str | None:
    """Apply one thing whole or not at all; the name of its fault. A storage that fails is no fault of the item."""
    try:
        with db.database.atomic():
            apply(item)
    except peewee.OperationalError:
        raise
    except Exception as problem:
        log.warning("an item of a callback cannot be applied: %s", type(problem).__name__)
        return type(problem).__name__
    return None


def apply_updates(
    channel_id: int, updates: Iterable[StatusUpdate], received_at: int, beyond: Beyond = _nothing_beyond
) -> None:
    """Apply delivery reports, inside the caller's transaction. Repeats change nothing; status only moves up."""
    deltas: counters.Deltas = {}
    for update in updates:
        if update.status not in ACTIONS:
            raise ValueError(f"{update.status} is no status of a report")
        found = _find(channel_id, update)
        dedupe = proofs.dedupe(update)
        update = update if update.at else replace(update, at=received_at)
        made = db.execute(
            "INSERT INTO delivery_report (channel_id, message_id, provider_id, token, status, at, received_at,"
            " code, detail, dedupe, also) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (channel_id, dedupe) DO NOTHING RETURNING id",
            [
                channel_id,
                found.id if found else None,
                update.provider_id,
                update.token,
                update.status,
                update.at,
                received_at,
                update.code,
                update.detail,
                dedupe,
                json.dumps({"ids": update.also, "phone": update.phone}) if update.also else None,
            ],
        ).fetchone()
        if made is not None and found is not None:
            effect = _apply(found, update, deltas)
            db.execute("UPDATE delivery_report SET effect = ? WHERE id = ?", [effect, made[0]])
            if effect == "moved" and update.status == "failed":
                _stop_beyond(channel_id, found, update, beyond)
    counters.add(deltas)


def _stop_beyond(channel_id: int, found: _Found, update: StatusUpdate, beyond: Beyond) -> None:
    """Stop the broadcast or the channel where a report's code says that the others would fare no better.

    A person who has mended it and gone on since the message left knows more than the report.
    """
    outcome = beyond(update.code or "")
    if outcome == REFUSED:
        return
    fresh = db.value(
        "SELECT b.kind FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
        " WHERE m.id = ? AND b.state = 'running' AND m.sending_at >= b.updated_at",
        [found.id],
    )
    if fresh == broadcasts.DIRECT and outcome == STOP_BROADCAST:
        return  # single messages have nothing in common but their channel
    if fresh and outcome == STOP_BROADCAST:
        broadcasts.stop_by_itself(found.broadcast_id, "refused", cause=update.code, text=update.detail)
    elif fresh:
        channels.stop(channel_id, update.code or "", update.detail or "")
        broadcasts.stop_all(channel_id, update.code or "", update.detail or "")


class _Found(NamedTuple):
    """The message that a report speaks of. `earlier`: of an earlier try than its latest. `part`: of one part of
    it alone, by its row in the table of parts."""

    id: int
    broadcast_id: int
    run: int
    file_id: int
    status: str
    earlier: int = 0
    part: int | None = None


_FOUND = "m.id, m.broadcast_id, m.run, m.file_id, m.status"
_OF_CHANNEL = "message m JOIN broadcast b ON b.id = m.broadcast_id"


def _find(channel_id: int, update: StatusUpdate) -> _Found | None:
    """The message by our token, else by the provider's id on this channel, of the whole or of a part.

    Another spelling of the id counts only for a message to the same person: it may be somebody else's id as well.
    """
    own: list[tuple[str, str | None]] = [(update.provider_id, None)] if update.provider_id else []
    spellings = [update.provider_id, *update.also] if update.provider_id and update.also else []
    # Where an id has several spellings, the person's own comes first in any of them.
    ids = [*((name, update.phone) for name in spellings if update.phone), *own]
    for identity, phone in ids:
        part = db.rows(
            f"SELECT {_FOUND}, 0, p.id FROM part p JOIN message m ON m.id = p.message_id"  # noqa: S608
            " WHERE p.channel_id = ? AND p.provider_id = ? AND m.phone = COALESCE(?, m.phone)",
            [channel_id, identity, phone],
        )
        if part:
            return _Found(*part[0])
    own_row = proofs.row_of(update.token)
    if own_row is not None:
        found = db.rows(
            f"SELECT {_FOUND}, m.token <> ? FROM {_OF_CHANNEL}"  # noqa: S608
            " WHERE m.id = ? AND b.channel_id = ? AND (m.token = ? OR EXISTS"
            " (SELECT 1 FROM attempt a WHERE a.message_id = m.id AND a.token = ?))",
            [update.token, own_row, channel_id, update.token, update.token],
        )
        if found:
            return _Found(*found[0])
    for identity, phone in ids:
        found = db.rows(
            f"SELECT {_FOUND} FROM {_OF_CHANNEL}"  # noqa: S608
            " WHERE m.provider_id = ? AND b.channel_id = ? AND m.phone = COALESCE(?, m.phone)"
            " ORDER BY m.id DESC LIMIT 1",
            [identity, channel_id, phone],
        )
        if found:
            return _Found(*found[0])
    return None


def _of_all_parts(part: int, message_id: int, status: str) -> str:
    """What one part's report means for its message: undelivered with the first, delivered with the last."""
    target = PART[status]
    # Upwards only, and proof of delivery beats a failure.
    db.execute("UPDATE part SET status = ? WHERE id = ? AND status <> 'delivered'", [target, part])
    states = {row[0] for row in db.rows("SELECT DISTINCT status FROM part WHERE message_id = ?", [message_id])}
    if states == {"delivered"}:
        return status
    return "failed" if "failed" in states else "sent"


def _apply(found: _Found, update: StatusUpdate, deltas: counters.Deltas) -> str:
    """Move one message; what the report changed: moved, kept or conflict.

    The end is the same in whatever order reports come: proof of delivery beats a failure.
    """
    message_id, broadcast_id, run, file_id, status, earlier, part = found
    if part is not None:
        update = replace(update, status=_of_all_parts(part, message_id, update.status), provider_id=None)
    if update.status == "failed" and earlier:
        return "kept"  # it says nothing of the try that a person asked for since
    target = move(ACTIONS[update.status], status)
    if status == "queued" and update.status in proofs.PROOFS and _was_lost(message_id, update.token):
        # A person chose "send again" while nobody could know. Now it is known, and nobody gets it twice.
        target = move(ACTIONS[update.status], "uncertain")
    if target is None and (status in UNTOUCHED or (update.status == "failed" and status in ("delivered", "read"))):
        return "conflict"
    sets = ["provider_id = COALESCE(provider_id, ?)"]
    values: list[Any] = [update.provider_id]
    for column in _times(update.status):
        # A later status stood in for it until now. Nothing is sent before it was taken from the queue.
        least = "MAX(COALESCE(sending_at, 0), ?)" if column == "sent_at" else "?"
        sets.append(f"{column} = MIN(COALESCE({column}, {least}), {least})")
        values += [update.at, update.at]
    if target is not None:
        sets += ["status = ?", "owner = NULL", "lease_until = NULL"]
        values.append(target)
        if target == "undelivered":
            sets += ["cause = ?", "cause_text = ?"]
            values += [update.code, update.detail]
            if update.code in causes.OPTS_OUT:
                phone, channel = db.rows(
                    "SELECT m.phone, b.channel_id FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
                    " WHERE m.id = ?",
                    [message_id],
                )[0]
                optouts.record(phone, "provider", update.code or "", channel, causes.OPTS_OUT[update.code or ""])
        else:
            sets += ["cause = NULL", "cause_text = NULL"]
        counters.move(deltas, (broadcast_id, run, file_id), status, target)
    if status == "undelivered" and target is not None:
        sets.append("undelivered_at = NULL")
        db.execute(
            "UPDATE delivery_report SET effect = 'conflict' WHERE message_id = ? AND status = 'failed'", [message_id]
        )
    db.execute(f"UPDATE message SET {', '.join(sets)} WHERE id = ?", [*values, message_id])  # noqa: S608
    return "kept" if target is None else "moved"


def _was_lost(message_id: int, token: str | None) -> bool:
    """Whether this very try ended without an answer."""
    return bool(
        db.value(
            "SELECT 1 FROM attempt WHERE message_id = ? AND token = ? AND outcome = 'lost' LIMIT 1", [message_id, token]
        )
    )


def _times(status: str) -> tuple[str, ...]:
    """The columns a report fills: a read message was delivered, a delivered one was sent."""
    return {
        "sent": ("sent_at",),
        "delivered": ("sent_at", "delivered_at"),
        "read": ("sent_at", "delivered_at", "read_at"),
        "failed": ("undelivered_at",),
        "held": (),
    }[status]


_SAME_PERSON = "m.phone = COALESCE(json_extract(d.also, '$.phone'), m.phone)"
# One of these finds the message: its id, a part's id, another spelling of either, our token.
_KNOWN = (
    f"SELECT 1 FROM {_OF_CHANNEL} WHERE b.channel_id = d.channel_id AND m.provider_id = d.provider_id",  # noqa: S608
    "SELECT 1 FROM part p WHERE p.channel_id = d.channel_id AND p.provider_id = d.provider_id",
    (
        f"SELECT 1 FROM json_each(d.also, '$.ids') j, {_OF_CHANNEL}"  # noqa: S608
        f" WHERE b.channel_id = d.channel_id AND m.provider_id = j.value AND {_SAME_PERSON}"
    ),
    (
        "SELECT 1 FROM json_each(d.also, '$.ids') j, part p JOIN message m ON m.id = p.message_id"  # noqa: S608
        f" WHERE p.channel_id = d.channel_id AND p.provider_id = j.value AND {_SAME_PERSON}"
    ),
    (
        f"SELECT 1 FROM {_OF_CHANNEL} WHERE b.channel_id = d.channel_id"  # noqa: S608
        " AND m.id = CAST(d.token AS INTEGER) AND m.token = d.token"
    ),
)
_ORPHANS = (
    "SELECT d.id, d.channel_id, d.provider_id, d.token, d.status, d.at, d.code, d.detail, d.also"  # noqa: S608
    " FROM delivery_report d WHERE d.message_id IS NULL AND d.received_at > ?"
    f" AND ({' OR '.join(f'EXISTS ({known})' for known in _KNOWN)}) ORDER BY d.id LIMIT ?"
)


def join_orphans(limit: int = 500) -> int:
    """Apply reports that came before their message's id was known; how many were joined."""
    found = db.rows(_ORPHANS, [clock.now() - REPORT_LIFE, limit])
    if not found:
        return 0
    with db.write():
        return sum(_stands(_join, row) is None for row in found)


def _join(orphan: tuple[Any, ...]) -> None:
    id_, channel_id, provider_id, token, status, at, code, detail, also = orphan
    others: dict[str, Any] = json.loads(also) if also else {"ids": (), "phone": None}
    update = StatusUpdate(status, at, provider_id, token, code, detail, tuple(others["ids"]), others["phone"])
    message = _find(channel_id, update)
    if message is None:
        return
    # First the join: it must be seen where a later proof marks earlier failures as a conflict.
    joined = db.execute(
        "UPDATE delivery_report SET message_id = ? WHERE id = ? AND message_id IS NULL", [message.id, id_]
    )
    if joined.rowcount:
        deltas: counters.Deltas = {}
        effect = _apply(message, update, deltas)
        counters.add(deltas)
        db.execute("UPDATE delivery_report SET effect = ? WHERE id = ?", [effect, id_])
        if effect == "moved":
            events.message(message.id)


def forget_orphans(limit: int = 5_000) -> int:
    """Delete reports of messages that are not ours, once nobody waits for them any more; how many."""
    with db.write():
        gone = db.execute(
            "DELETE FROM delivery_report WHERE received_at < ? AND id IN"
            " (SELECT id FROM delivery_report WHERE message_id IS NULL ORDER BY id LIMIT ?)",
            [clock.now() - REPORT_LIFE, limit],
        )
    return int(gone.rowcount)


def forget_parts(limit: int = 5_000) -> int:
    """Forget the parts of messages for whose reports nobody waits any more; how many."""
    with db.write():
        gone = db.execute(
            "DELETE FROM part WHERE id IN (SELECT p.id FROM part p LEFT JOIN message m ON m.id = p.message_id"
            " WHERE m.id IS NULL OR m.sent_at < ? LIMIT ?)",
            [clock.now() - REPORT_LIFE, limit],
        )
    return int(gone.rowcount)


def receive_inbound(channel_id: int, item: InboundMessage, received_at: int) -> None:
    """Store a person's message once, with the broadcast message it answers; a stop word counts at once.

    A part of a long reply waits for the others, PARTS_WAIT at the most.
    """
    if item.part is not None:
        _keep_part(channel_id, item, received_at)
        return
    at = min(item.at or received_at, received_at)  # a clock that is ahead must not keep a window open for ever
    answered = _answered(channel_id, item, at)
    made = db.execute(
        "INSERT INTO inbound (channel_id, provider_id, phone, name, kind, text, context, message_id, broadcast_id,"
        " at, received_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (channel_id, provider_id) DO NOTHING RETURNING id",
        [
            channel_id,
            item.provider_id,
            item.phone,
            item.name,
            item.kind,
            item.text,
            item.context,
            answered[0] if answered else None,
            answered[1] if answered else None,
            at,
            received_at,
        ],
    ).fetchone()
    if made is not None and item.phone:
        inbox.receive(channel_id, made[0], item, answered, at)
        optouts.heed(item.phone, item.text, item.payload or "", channel_id, at)


def _keep_part(channel_id: int, item: InboundMessage, received_at: int) -> None:
    reference, n, total = item.part or ("", 1, 1)
    db.execute(
        "INSERT INTO inbound_part (channel_id, provider_id, phone, reference, n, total, text, at, received_at, joined)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, FALSE) ON CONFLICT (channel_id, provider_id) DO NOTHING",
        [channel_id, item.provider_id, item.phone, reference, n, total, item.text, item.at, received_at],
    )
    here = db.value(
        "SELECT COUNT(DISTINCT n) FROM inbound_part"
        " WHERE channel_id = ? AND phone = ? AND reference = ? AND total = ? AND NOT joined",
        [channel_id, item.phone, reference, total],
    )
    if here >= total:
        _join_parts(channel_id, item.phone, reference, total)


def _join_parts(channel_id: int, phone: str, reference: str, total: int) -> None:
    """Make one reply of the parts that are here, in their order."""
    key = [channel_id, phone, reference, total]
    where = "channel_id = ? AND phone = ? AND reference = ? AND total = ? AND NOT joined"
    parts = db.rows(
        f"SELECT provider_id, text, at, received_at, n FROM inbound_part WHERE {where} ORDER BY n, id",  # noqa: S608
        key,
    )
    db.execute(f"UPDATE inbound_part SET joined = TRUE WHERE {where}", key)  # noqa: S608
    texts = {part[4]: part[1] for part in reversed(parts)}
    first = parts[0]
    whole = InboundMessage(
        first[0], phone, min(part[2] for part in parts), text="".join(texts[n] for n in sorted(texts))
    )
    receive_inbound(channel_id, whole, max(part[3] for part in parts))


def join_late_parts() -> int:
    """Show replies whose missing parts have not come for PARTS_WAIT; how many."""
    late = db.rows(
        "SELECT channel_id, phone, reference, total FROM inbound_part WHERE NOT joined"
        " GROUP BY channel_id, phone, reference, total"
        " HAVING MAX(received_at) < ? LIMIT 100",
        [clock.now() - PARTS_WAIT],
    )
    if late:
        with db.write():
            for row in late:
                _join_parts(*row)
    with db.write():
        db.execute("DELETE FROM inbound_part WHERE joined AND received_at < ?", [clock.now() - REPORT_LIFE])
    return len(late)


# --- what a callback says beyond single messages ----------------------------------------------------


def heed(channel_id: int, notice: Notice) -> None:
    """Act on what the provider says about templates, the account and people's choice, inside the caller's
    transaction. Repeats change nothing."""
    {
        "template": _template_changed,
        "category": _category_changed,
        "marketing": _marketing_choice,
        "account": _account_changed,
        "limit": _limit_changed,
        "number": _number_changed,
        "quality": _quality_changed,
    }[notice.subject](channel_id, notice)


def _templates(channel_id: int, notice: Notice, column: str, value: str) -> None:
    """Note something about a template, for all channels of the account: it is one and the same."""
    for of_account in channels.of_account(channel_id):
        db.execute(
            f"UPDATE message_template SET {column} = ? WHERE channel_id = ? AND name = ? AND language = ?",  # noqa: S608
            [value, of_account, notice.name, notice.language],
        )


def _template_changed(channel_id: int, notice: Notice) -> None:
    _templates(channel_id, notice, "status", APPROVED_AGAIN.get(notice.status, notice.status))
    if notice.outcome != STOP_BROADCAST:
        return
    cause = TEMPLATE_CAUSES.get(notice.status, TEMPLATE_CAUSE)
    for of_account in channels.of_account(channel_id):
        for (broadcast_id,) in db.rows(
            "SELECT id FROM broadcast WHERE state = 'running' AND channel_id = ? AND template_name = ?"
            " AND template_language = ?",
            [of_account, notice.name, notice.language],
        ):
            broadcasts.stop_by_itself(broadcast_id, "refused", cause=cause, text=notice.status)


def _category_changed(channel_id: int, notice: Notice) -> None:
    _templates(channel_id, notice, "category", notice.status)


def _quality_changed(channel_id: int, notice: Notice) -> None:
    _templates(channel_id, notice, "quality", notice.status)


def _marketing_choice(channel_id: int, notice: Notice) -> None:
    if notice.status in ("stop", "resume"):
        optouts.choose_marketing(notice.phone, notice.status, notice.at, channel_id)


def _account_changed(channel_id: int, notice: Notice) -> None:
    if notice.outcome != STOP_CHANNEL:
        return
    for of_account in channels.of_account(channel_id):
        channels.stop(of_account, "account_event", notice.status)
        broadcasts.stop_all(of_account, "account_event", notice.status)


def _limit_changed(channel_id: int, notice: Notice) -> None:
    limit = int(notice.status)
    for of_account in channels.of_account(channel_id):
        db.execute("UPDATE channel SET vendor_limit = ? WHERE id = ?", [None if limit < 0 else limit, of_account])


def _number_changed(channel_id: int, notice: Notice) -> None:
    if len(channels.of_account(channel_id)) == 1:  # else nobody can tell which number it speaks of
        db.execute("UPDATE channel SET quality = ? WHERE id = ?", [notice.status, channel_id])


def _answered(channel_id: int, item: InboundMessage, at: int) -> tuple[int, int] | None:
    """The message a reply of that moment (ms) belongs to: the one it quotes, else the latest that the person had got
    by then on this channel."""
    if item.context:
        found = db.rows(
            "SELECT m.id, m.broadcast_id FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
            " WHERE m.provider_id = ? AND b.channel_id = ? AND b.kind <> 'direct' LIMIT 1",
            [item.context, channel_id],
        )
        if found:
            return found[0][0], found[0][1]
    found = db.rows(
        "SELECT m.id, m.broadcast_id FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
        f" WHERE m.phone = ? AND m.status <> 'queued' AND m.status IN {sql_list(TAKEN)} AND b.channel_id = ?"
        " AND b.kind <> 'direct'"
        " ORDER BY m.sending_at > ?, m.status = 'undelivered', m.sending_at DESC LIMIT 1",
        [item.phone, channel_id, at + SAME_MOMENT],
    )
    return (found[0][0], found[0][1]) if found else None


# --- recovery ---------------------------------------------------------------------------------------


GONE = clock.MINUTE  # without a sign of life, longer than any lease lasts


def is_gone(settings: Settings, owner: int | None) -> bool:
    """Whether a worker is known to be dead: by its lock where that can be seen, else by its long silence."""
    if db.is_shared() and owner is not None:
        found = db.rows("SELECT host, heartbeat_at FROM worker WHERE id = ?", [owner])
        if found and found[0][0] != place(settings.data):
            return int(found[0][1]) < clock.now() - GONE
    return not is_alive(settings, owner)


def recover(settings: Settings, own: int | None = None, in_flight: Collection[int] = ()) -> int:
    """sending → uncertain for rows whose lease lapsed or whose worker is known to be dead; how many.

    Rows that this process (`own`) has in flight are its own business.
    """
    owners = {row[0] for row in db.rows("SELECT DISTINCT owner FROM message WHERE status = 'sending'")}
    dead = {owner for owner in owners if owner != own and is_gone(settings, owner)}
    now, lost = clock.now(), 0
    # A living worker that shows itself looks after its own; a lease that seems to be over is a clock that jumped.
    shown = {row[0] for row in db.rows("SELECT id FROM worker WHERE heartbeat_at > ?", [now - ALIVE])}
    for owner in owners - ((shown - {own}) - dead):
        condition = "" if owner in dead else " AND lease_until < ?"
        parameters = [] if owner in dead else [now]
        while True:
            with db.write():
                found = db.rows(
                    "SELECT id, token, broadcast_id, run, file_id FROM message"  # noqa: S608
                    f" WHERE status = 'sending' AND owner IS ?{condition} LIMIT ?",
                    [owner, *parameters, STEP],
                )
                rows = [row for row in found if row[0] not in in_flight]
                _lose(rows, now)
            lost += len(rows)
            if len(rows) < STEP:
                break
    if lost:
        log.warning("%d messages became uncertain: their worker was lost", lost)
    return lost


def _lose(rows: list[tuple[Any, ...]], now: int) -> None:
    deltas: counters.Deltas = {}
    for _, _, broadcast_id, run, file_id in rows:
        counters.move(deltas, (broadcast_id, run, file_id), "sending", "uncertain")
    if rows:
        db.many(
            "UPDATE message SET status = 'uncertain', cause = 'worker_lost', owner = NULL, lease_until = NULL"
            " WHERE id = ? AND token = ? AND status = 'sending'",
            [(row[0], row[1]) for row in rows],
        )
        db.many(
            "INSERT INTO attempt (message_id, token, at, outcome, code) VALUES (?, ?, ?, 'lost', 'worker_lost')",
            [(row[0], row[1], now) for row in rows],
        )
        counters.add(deltas)


def take_jump(ahead: int) -> bool:
    """Whether this process is the first to notice a jump of the clock; `ahead` is the new difference to the
    monotonic clock (ms), which all processes of a machine share."""
    name = f"clock_ahead {place(db.folder())}" if db.is_shared() else "clock_ahead"
    with db.write():
        known = installation.fact(name)
        if known is not None and abs(known - ahead) < clock.MINUTE:
            return False
        installation.keep(name, ahead)
    return True


def clock_set_back(by: int) -> None:
    """Move what waits for a moment (a provider's pause, a later try, a probe) with a clock that went back `by` ms.

    Otherwise five seconds of waiting would become hours. Nothing that was sent changes.
    """
    now = clock.now()
    with db.write():
        db.execute("UPDATE channel SET slow_until = MAX(0, slow_until - ?) WHERE slow_until > ?", [by, now])
        db.execute(
            "UPDATE channel SET probe_at = probe_at - ?, opened_at = opened_at - ? WHERE opened_at > ?", [by, by, now]
        )
        db.execute(
            "UPDATE message SET not_before = MAX(1, not_before - ?) WHERE status = 'queued' AND not_before > ?"
            " AND file_id IN (SELECT id FROM recipient_file WHERE state = 'ready')",
            [by, now],
        )


def resolve(message_id: int, how: str, actor: str) -> bool:
    """A person settles an uncertain message: "sent" counts it as sent, "resend" queues it once more.

    False when it is not uncertain any more (somebody else was faster, a report came) or its list was
    cleared. Sending again is the only way from uncertain back to the queue.
    """
    action = {"sent": "accept", "resend": "resend"}[how]
    with db.write():
        found = db.rows("SELECT broadcast_id, run, file_id, status, phone FROM message WHERE id = ?", [message_id])
        if not found or found[0][3] != "uncertain":
            return False
        broadcast_id, run, file_id, status, phone = found[0]
        if how == "resend" and phone.startswith(hashes.MARK):
            return False
        file = RecipientFile.get_by_id(file_id)
        if how == "resend" and not _reopen(broadcast_id, run, file):
            return False
        target = move(action, status)
        db.execute(
            "UPDATE message SET status = ?, not_before = 0, tries = 0, postponed_at = NULL,"
            " sent_at = CASE WHEN ? = 'sent' THEN COALESCE(sent_at, sending_at) ELSE sent_at END WHERE id = ?",
            [target, target, message_id],
        )
        key = (broadcast_id, run, file_id)
        counters.add({(*key, status): -1, (*key, str(target)): 1})
        events.message(message_id)
        audit.record(actor, f"message.{how}", str(message_id))
    return True


def _reopen(broadcast_id: int, run: int, file: RecipientFile) -> bool:
    """Whether a message put back into the queue can leave; a finished broadcast runs again for it."""
    broadcast = Broadcast.get_by_id(broadcast_id)
    if run != broadcast.run or (file.removed_at is not None and file.removed_how != "keep"):
        return False
    if broadcast.state in BROADCAST["reopen"].source:
        return broadcasts.advance(broadcast_id, "reopen")
    return True


# --- the worker process, seen from outside ----------------------------------------------------------


def heartbeat(owner: int) -> None:
    with db.write():
        db.execute("UPDATE worker SET heartbeat_at = ? WHERE id = ?", [clock.now(), owner])


def worker_alive() -> bool:
    """Whether some worker process has shown itself within the last 10 seconds."""
    return bool(WorkerRow.select().where(WorkerRow.heartbeat_at > clock.now() - ALIVE).exists())
