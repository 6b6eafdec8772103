"""What comes back: raw callbacks stored first, applied in batches; lost messages recovered or settled."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import peewee

from worker import audit, broadcasts, causes, channels, clock, counters, db, optouts
from worker.locks import is_alive
from worker.models import Broadcast, Callback, Channel, RecipientFile
from worker.models import Worker as WorkerRow
from worker.providers.base import InboundMessage, RawCallback, StatusUpdate
from worker.settings import Settings
from worker.states import BROADCAST, REPORT_LIFE, move

log = logging.getLogger("molva.delivery")

BATCH = 200
ALIVE = 10 * clock.SECOND
STEP = 1_000
PROOFS = ("sent", "delivered", "read")
# What we hold to have surely not left: a report of it speaks against us and changes nothing.
UNTOUCHED = ("queued", "failed", "cancelled", "skipped")
ACTIONS = {"sent": "accept", "delivered": "deliver", "read": "read", "failed": "bounce", "held": "hold"}


Items = list[StatusUpdate | InboundMessage]

# --- callbacks --------------------------------------------------------------------------------------


def receive_all(callbacks: Iterable[tuple[int, RawCallback, int]]) -> None:
    """Store verified callbacks as (channel id, callback, when it came) in one durable commit; the worker
    applies them later."""
    stored = [
        (
            channel_id,
            callback.path,
            json.dumps(dict(callback.query)) if callback.query else "",
            json.dumps(dict(callback.headers)),
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

    Each callback stands alone: one that cannot be read is marked with its error and loses no other.
    """
    waiting = list(Callback.select().where(Callback.processed_at.is_null()).order_by(Callback.id).limit(BATCH))
    if not waiting:
        return 0
    by_id = {c.id: c for c in Channel.select().where(Channel.id.in_({w.channel_id for w in waiting}))}
    read: list[tuple[Callback, Items, str | None]] = []
    for callback in waiting:
        items: Items = []
        error = None
        try:
            provider = providers.get(by_id[callback.channel_id])
            items.extend(provider.parse(_raw(callback)))
        except Exception as problem:
            log.exception("callback %d cannot be read", callback.id)
            error = type(problem).__name__
        read.append((callback, items, error))
    try:
        _store_applied(read, _apply_items)
    except peewee.OperationalError:
        raise  # the storage, not what is to be stored: all of it waits for the next look
    except Exception:
        log.warning("a callback holds something that cannot be applied: each item is taken by itself")
        _store_applied(read, _apply_each)
    return len(waiting)


def _store_applied(
    read: list[tuple[Callback, Items, str | None]], apply: Callable[[int, Items, int], str | None]
) -> None:
    with db.write():
        for callback, items, error in read:
            bad = apply(callback.channel_id, items, callback.received_at)
            db.execute(
                "UPDATE callback SET processed_at = ?, error = ? WHERE id = ?", [clock.now(), error or bad, callback.id]
            )


def _apply_items(channel_id: int, items: Items, received_at: int) -> None:
    apply_updates(channel_id, [item for item in items if isinstance(item, StatusUpdate)], received_at)
    for item in items:
        if isinstance(item, InboundMessage):
            receive_inbound(channel_id, item, received_at)


def _apply_each(channel_id: int, items: Items, received_at: int) -> str | None:
    """As `_apply_items`, but a bad item loses none of its neighbours; the name of the last fault."""
    fault = None
    for item in items:
        fault = _stands(lambda one: _apply_items(channel_id, [one], received_at), item) or fault
    return fault


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


def _raw(callback: Callback) -> RawCallback:
    query = json.loads(callback.query) if callback.query else {}
    return RawCallback("POST", callback.path, query, callback.headers or {}, bytes(callback.body))


def apply_updates(channel_id: int, updates: Iterable[StatusUpdate], received_at: int) -> None:
    """Apply delivery reports, inside the caller's transaction. Repeats change nothing; status only moves up."""
    deltas: dict[tuple[int, int, int, str], int] = {}
    for update in updates:
        if update.status not in ACTIONS:
            raise ValueError(f"{update.status} is no status of a report")
        found = _find(channel_id, update)
        dedupe = _dedupe(update)
        update = update if update.at else replace(update, at=received_at)
        made = db.execute(
            "INSERT INTO delivery_report (channel_id, message_id, provider_id, token, status, at, received_at,"
            " code, detail, dedupe) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (channel_id, dedupe) DO NOTHING RETURNING id",
            [
                channel_id,
                found[0] if found else None,
                update.provider_id,
                update.token,
                update.status,
                update.at,
                received_at,
                update.code,
                update.detail,
                dedupe,
            ],
        ).fetchone()
        if made is not None and found is not None:
            effect = _apply(found, update, deltas)
            db.execute("UPDATE delivery_report SET effect = ? WHERE id = ?", [effect, made[0]])
    counters.add(deltas)


def _dedupe(update: StatusUpdate) -> str:
    facts = f"{update.provider_id}|{update.token}|{update.status}|{update.at}|{update.code}"
    return hashlib.sha256(facts.encode()).hexdigest()[:40]


_FOUND = "m.id, m.broadcast_id, m.run, m.file_id, m.status"


def _find(channel_id: int, update: StatusUpdate) -> tuple[Any, ...] | None:
    """The message a report speaks of, by our token, else by the provider's id on this channel; at the end
    whether it speaks of an earlier try than the latest."""
    head = (update.token or "").partition(".")[0]
    if head.isascii() and head.isdigit() and len(head) < 18:
        found = db.rows(
            f"SELECT {_FOUND}, m.token <> ? FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
            " WHERE m.id = ? AND b.channel_id = ? AND (m.token = ? OR EXISTS"
            " (SELECT 1 FROM attempt a WHERE a.message_id = m.id AND a.token = ?))",
            [update.token, int(head), channel_id, update.token, update.token],
        )
        if found:
            return found[0]
    if update.provider_id:
        found = db.rows(
            f"SELECT {_FOUND}, 0 FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
            " WHERE m.provider_id = ? AND b.channel_id = ? ORDER BY m.id DESC LIMIT 1",
            [update.provider_id, channel_id],
        )
        if found:
            return found[0]
    return None


def _apply(found: tuple[Any, ...], update: StatusUpdate, deltas: dict[tuple[int, int, int, str], int]) -> str:
    """Move one message; what the report changed: moved, kept or conflict.

    The end is the same in whatever order reports come: proof of delivery beats a failure.
    """
    message_id, broadcast_id, run, file_id, status, earlier = found
    if update.status == "failed" and earlier:
        return "kept"  # it says nothing of the try that a person asked for since
    target = move(ACTIONS[update.status], status)
    if status == "queued" and update.status in PROOFS and _was_lost(message_id, update.token):
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
                optouts.record(phone, "provider", update.code or "", channel)
        else:
            sets += ["cause = NULL", "cause_text = NULL"]
        for name, change in ((status, -1), (target, 1)):
            key = (broadcast_id, run, file_id, name)
            deltas[key] = deltas.get(key, 0) + change
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


def join_orphans(limit: int = 500) -> int:
    """Apply reports that came before their message's id was known; how many were joined."""
    found = db.rows(
        "SELECT d.id, d.channel_id, d.provider_id, d.token, d.status, d.at, d.code, d.detail FROM delivery_report d"
        " WHERE d.message_id IS NULL AND d.received_at > ? AND (EXISTS"
        " (SELECT 1 FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
        " WHERE m.provider_id = d.provider_id AND b.channel_id = d.channel_id) OR EXISTS"
        " (SELECT 1 FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
        " WHERE m.id = CAST(d.token AS INTEGER) AND m.token = d.token AND b.channel_id = d.channel_id))"
        " ORDER BY d.id LIMIT ?",
        [clock.now() - REPORT_LIFE, limit],
    )
    if not found:
        return 0
    with db.write():
        return sum(_stands(_join, row) is None for row in found)


def _join(orphan: tuple[Any, ...]) -> None:
    id_, channel_id, provider_id, token, status, at, code, detail = orphan
    update = StatusUpdate(status, at, provider_id, token, code, detail)
    message = _find(channel_id, update)
    if message is None:
        return
    # First the join: it must be seen where a later proof marks earlier failures as a conflict.
    joined = db.execute(
        "UPDATE delivery_report SET message_id = ? WHERE id = ? AND message_id IS NULL", [message[0], id_]
    )
    if joined.rowcount:
        deltas: dict[tuple[int, int, int, str], int] = {}
        effect = _apply(message, update, deltas)
        counters.add(deltas)
        db.execute("UPDATE delivery_report SET effect = ? WHERE id = ?", [effect, id_])


def forget_orphans(limit: int = 5_000) -> int:
    """Delete reports of messages that are not ours, once nobody waits for them any more; how many."""
    with db.write():
        gone = db.execute(
            "DELETE FROM delivery_report WHERE received_at < ? AND id IN"
            " (SELECT id FROM delivery_report WHERE message_id IS NULL ORDER BY id LIMIT ?)",
            [clock.now() - REPORT_LIFE, limit],
        )
    return int(gone.rowcount)


def receive_inbound(channel_id: int, item: InboundMessage, received_at: int) -> None:
    """Store a person's message once, with the broadcast message it answers; a stop word opts out at once."""
    answered = _answered(channel_id, item)
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
            item.at or received_at,
            received_at,
        ],
    ).fetchone()
    if made is not None and item.phone and optouts.is_stop_word(item.text):
        optouts.record(item.phone, "reply", item.text[:200], channel_id)


def _answered(channel_id: int, item: InboundMessage) -> tuple[int, int] | None:
    """The message a reply belongs to: the one it quotes, else the latest to that person on this channel."""
    if item.context:
        found = db.rows(
            "SELECT m.id, m.broadcast_id FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
            " WHERE m.provider_id = ? AND b.channel_id = ? LIMIT 1",
            [item.context, channel_id],
        )
        if found:
            return found[0][0], found[0][1]
    found = db.rows(
        "SELECT m.id, m.broadcast_id FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
        " WHERE m.phone = ? AND m.status <> 'queued' AND b.channel_id = ? AND m.sending_at IS NOT NULL"
        " ORDER BY m.sending_at DESC LIMIT 1",
        [item.phone, channel_id],
    )
    return (found[0][0], found[0][1]) if found else None


# --- recovery ---------------------------------------------------------------------------------------


def recover(settings: Settings, own: int | None = None, in_flight: Collection[int] = ()) -> int:
    """sending → uncertain for rows whose lease lapsed or whose worker is known to be dead; how many.

    Rows that this process (`own`) has in flight are its own business.
    """
    owners = {row[0] for row in db.rows("SELECT DISTINCT owner FROM message WHERE status = 'sending'")}
    dead = {owner for owner in owners if owner != own and not is_alive(settings, owner)}
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
    deltas: dict[tuple[int, int, int, str], int] = {}
    for _, _, broadcast_id, run, file_id in rows:
        for name, change in (("sending", -1), ("uncertain", 1)):
            key = (broadcast_id, run, file_id, name)
            deltas[key] = deltas.get(key, 0) + change
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
    with db.write():
        known = db.value("SELECT value FROM setting WHERE name = 'clock_ahead'")
        if known is not None and abs(int(known) - ahead) < clock.MINUTE:
            return False
        db.execute(
            "INSERT INTO setting (name, value) VALUES ('clock_ahead', ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [str(ahead)],
        )
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
        found = db.rows("SELECT broadcast_id, run, file_id, status FROM message WHERE id = ?", [message_id])
        if not found or found[0][3] != "uncertain":
            return False
        broadcast_id, run, file_id, status = found[0]
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
