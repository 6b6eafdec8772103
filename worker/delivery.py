"""What comes back: raw callbacks stored first, applied in batches; lost messages recovered or settled."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable
from typing import Any

from worker import audit, broadcasts, channels, clock, counters, db, optouts
from worker.locks import is_alive
from worker.models import Broadcast, Callback, Channel, RecipientFile
from worker.models import Worker as WorkerRow
from worker.providers.base import InboundMessage, RawCallback, StatusUpdate
from worker.settings import Settings
from worker.states import BROADCAST, move

log = logging.getLogger("molva.delivery")

BATCH = 200
ORPHAN_LIFE = 72 * clock.HOUR
ALIVE = 30 * clock.SECOND
STEP = 1_000
ACTIONS = {"sent": "accept", "delivered": "deliver", "read": "read", "failed": "bounce", "held": "hold"}


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
    read: list[tuple[Callback, list[StatusUpdate | InboundMessage], str | None]] = []
    for callback in waiting:
        items: list[StatusUpdate | InboundMessage] = []
        error = None
        try:
            provider = providers.get(by_id[callback.channel_id])
            items.extend(provider.parse(_raw(callback)))
        except Exception as problem:
            log.exception("callback %d cannot be read", callback.id)
            error = type(problem).__name__
        read.append((callback, items, error))
    with db.write():
        for callback, items, error in read:
            updates = [item for item in items if isinstance(item, StatusUpdate)]
            apply_updates(callback.channel_id, updates, callback.received_at)
            for item in items:
                if isinstance(item, InboundMessage):
                    receive_inbound(callback.channel_id, item, callback.received_at)
            db.execute(
                "UPDATE callback SET processed_at = ?, error = ? WHERE id = ?", [clock.now(), error, callback.id]
            )
    return len(waiting)


def _raw(callback: Callback) -> RawCallback:
    query = json.loads(callback.query) if callback.query else {}
    return RawCallback("POST", callback.path, query, callback.headers or {}, bytes(callback.body))


def apply_updates(channel_id: int, updates: Iterable[StatusUpdate], received_at: int) -> None:
    """Apply delivery reports, inside the caller's transaction. Repeats change nothing; status only moves up."""
    deltas: dict[tuple[int, int, int, str], int] = {}
    for update in updates:
        found = _find(channel_id, update)
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
                _dedupe(update),
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
    """The message a report speaks of: by our token, else by the provider's id on this channel."""
    head = (update.token or "").partition(".")[0]
    if head.isascii() and head.isdigit() and len(head) < 18:
        found = db.rows(
            f"SELECT {_FOUND} FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
            " WHERE m.id = ? AND b.channel_id = ? AND (m.token = ? OR EXISTS"
            " (SELECT 1 FROM attempt a WHERE a.message_id = m.id AND a.token = ?))",
            [int(head), channel_id, update.token, update.token],
        )
        if found:
            return found[0]
    if update.provider_id:
        found = db.rows(
            f"SELECT {_FOUND} FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
            " WHERE m.provider_id = ? AND b.channel_id = ? LIMIT 1",
            [update.provider_id, channel_id],
        )
        if found:
            return found[0]
    return None


def _apply(found: tuple[Any, ...], update: StatusUpdate, deltas: dict[tuple[int, int, int, str], int]) -> str:
    """Move one message; what the report changed: moved, kept or conflict."""
    message_id, broadcast_id, run, file_id, status = found
    target = move(ACTIONS[update.status], status)
    sets = ["provider_id = COALESCE(provider_id, ?)"]
    values: list[Any] = [update.provider_id]
    for column in _times(update.status):
        sets.append(f"{column} = COALESCE({column}, ?)")
        values.append(update.at)
    if target is not None:
        sets += ["status = ?", "owner = NULL", "lease_until = NULL"]
        values.append(target)
        if target == "undelivered":
            sets += ["cause = ?", "cause_text = ?"]
            values += [update.code, update.detail]
        else:
            sets += ["cause = NULL", "cause_text = NULL"]
        for name, change in ((status, -1), (target, 1)):
            key = (broadcast_id, run, file_id, name)
            deltas[key] = deltas.get(key, 0) + change
    db.execute(f"UPDATE message SET {', '.join(sets)} WHERE id = ?", [*values, message_id])  # noqa: S608
    if target is not None:
        return "moved"
    # A failure after delivery, or proof for a message that we still hold in the queue.
    against = update.status == "failed" and status in ("delivered", "read")
    return "conflict" if against or status in ("queued", "failed", "cancelled", "skipped") else "kept"


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
        " JOIN message m ON m.provider_id = d.provider_id"
        " WHERE d.message_id IS NULL AND d.received_at > ? ORDER BY d.id LIMIT ?",
        [clock.now() - ORPHAN_LIFE, limit],
    )
    joined = 0
    for id_, channel_id, provider_id, token, status, at, code, detail in found:
        update = StatusUpdate(status, at, provider_id, token, code, detail)
        with db.write():
            message = _find(channel_id, update)
            if message is None:
                continue
            deltas: dict[tuple[int, int, int, str], int] = {}
            effect = _apply(message, update, deltas)
            counters.add(deltas)
            db.execute("UPDATE delivery_report SET message_id = ?, effect = ? WHERE id = ?", [message[0], effect, id_])
        joined += 1
    return joined


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
            item.at,
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
    for owner in owners:
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
    """Whether some worker process has shown itself within the last 30 seconds."""
    return bool(WorkerRow.select().where(WorkerRow.heartbeat_at > clock.now() - ALIVE).exists())
