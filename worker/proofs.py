"""Delivery reports of the ordinary kind, a whole batch with a few statements.

Nearly every report says that a message which left is sent, delivered or read. Those are applied here, with the same
end as one by one in `delivery`; whatever needs a closer look (a failure, a part, an earlier try, a status that a
person settled) is handed back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from worker import counters, db
from worker.providers.base import StatusUpdate
from worker.states import move

PROOFS = ("sent", "delivered", "read")
ACTIONS = {"sent": "accept", "delivered": "deliver", "read": "read"}
ORDINARY = frozenset(("sending", "sent", "held", "delivered", "read"))  # what a message is before such a report


class Report(NamedTuple):
    """One delivery report with where and when (ms) it came in."""

    channel_id: int
    update: StatusUpdate
    received_at: int


class _Message:
    """What a report may change of one message, as the batch goes over it."""

    __slots__ = ("at", "identity", "key", "known_as", "moved", "named", "sending_at", "status", "token")

    def __init__(self, row: Sequence[Any]) -> None:
        self.identity, *key, self.status, self.token, self.known_as, self.sending_at = row[:8]
        self.key: tuple[int, int, int] = (key[0], key[1], key[2])
        self.at: list[int | None] = list(row[8:11])  # sent, delivered, read
        self.moved = self.named = False

    def take(self, update: StatusUpdate) -> str:
        """Move by one report; the effect it had."""
        for n in range(PROOFS.index(update.status) + 1):
            # A later status stood in for it until now. Nothing is sent before it was taken from the queue.
            at = max(self.sending_at or 0, update.at) if n == 0 else update.at
            known = self.at[n]
            self.at[n] = at if known is None else min(known, at)
        if not self.known_as and update.provider_id:
            self.known_as, self.named = update.provider_id, True
        target = move(ACTIONS[update.status], self.status)
        if target is None:
            return "kept"
        self.status, self.moved = target, True
        return "moved"


def dedupe(update: StatusUpdate) -> str:
    """What two reports that say the same have in common."""
    facts = f"{update.provider_id}|{update.token}|{update.status}|{update.at}|{update.code}"
    return hashlib.sha256(facts.encode()).hexdigest()[:40]


def apply(reports: Iterable[Report]) -> list[Report]:
    """Apply the ordinary ones, inside the caller's transaction; the others, in their order, for a closer look.

    All reports of one message stay together: where one of them is not ordinary, none is.
    """
    left: list[Report] = []
    by_channel: dict[int, list[Report]] = {}
    for report in reports:
        by_channel.setdefault(report.channel_id, []).append(report)
    for channel_id, of_channel in by_channel.items():
        left += _apply(channel_id, of_channel)
    return left


def _apply(channel_id: int, reports: list[Report]) -> list[Report]:
    found, special = _sort(channel_id, reports)
    ordinary = [(r, m, dedupe(r.update)) for r, m in found if m is not None and m.identity not in special]
    seen = _seen(channel_id, [key for _r, _m, key in ordinary])
    lines = []
    deltas: counters.Deltas = {}
    changed: dict[int, _Message] = {}
    for report, message, key in ordinary:
        if key in seen:
            continue
        seen.add(key)
        before, update = message.status, report.update
        if not update.at:
            update = replace(update, at=report.received_at)
        effect = message.take(update)
        changed[message.identity] = message
        if message.status != before:
            counters.move(deltas, message.key, before, message.status)
        facts = (update.provider_id, update.token, update.status, update.at, report.received_at)
        lines.append((channel_id, message.identity, *facts, update.code, update.detail, key, effect))
    _write(lines, list(changed.values()), deltas)
    return [report for report, message in found if message is None or message.identity in special]


def _sort(channel_id: int, reports: list[Report]) -> tuple[list[tuple[Report, _Message | None]], set[int]]:
    """Each report with the message that it surely speaks of, and the messages about which any report is special."""
    by_row = _messages(channel_id, "m.id", [n for r in reports if (n := row_of(r.update.token)) is not None])
    # A token that fits names its message; else the id at the provider does.
    by_token = {message.token: message for message in by_row.values()}
    names = [r.update.provider_id for r in reports if r.update.provider_id and r.update.token not in by_token]
    by_name: dict[str | None, _Message] = {}
    for message in _messages(channel_id, "m.provider_id", list(set(names))).values():
        by_name[message.known_as] = by_row.get(message.identity, message)
    parts = _parts(channel_id, [r.update.provider_id for r in reports if r.update.provider_id])
    found: list[tuple[Report, _Message | None]] = []
    special: set[int] = set()
    unknown: set[str | None] = set()
    for report in reports:
        update = report.update
        by_id = by_name.get(update.provider_id)
        named: _Message | None = by_token.get(update.token or "") or by_id
        fits = named is not None and (not update.token or named.token == update.token)
        if (
            named is not None
            and fits
            and not update.also
            and update.provider_id not in parts
            and _ordinary(update, named)
        ):
            found.append((report, named))
            continue
        found.append((report, None))
        unknown.add(update.provider_id)
        row = by_row.get(row_of(update.token) or 0)
        special |= {one.identity for one in (named, by_id, row) if one is not None}
    # Whose id comes only with this batch may be what an unknown one speaks of.
    special |= {m.identity for r, m in found if m and not m.known_as and r.update.provider_id in unknown}
    return found, special


def _ordinary(update: StatusUpdate, message: _Message) -> bool:
    known = not message.known_as or message.known_as == update.provider_id
    return update.status in ACTIONS and message.status in ORDINARY and known


def row_of(token: str | None) -> int | None:
    """The row that one of our tokens names; None for what is not one."""
    head = (token or "").partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 18 else None


def _messages(channel_id: int, column: str, values: Sequence[Any]) -> dict[int, _Message]:
    """The messages of this channel whose `column` is one of `values`; of several with one id the latest is last."""
    if not values:
        return {}
    value = "CAST(value AS BIGINT)" if column == "m.id" else "value"
    sql = (
        "SELECT m.id, m.broadcast_id, m.run, m.file_id, m.status, m.token, m.provider_id, m.sending_at, m.sent_at,"  # noqa: S608
        " m.delivered_at, m.read_at FROM message m JOIN broadcast b ON b.id = m.broadcast_id"
        f" WHERE b.channel_id = ? AND {column} IN (SELECT {value} FROM json_each(?)) ORDER BY m.id"
    )
    return {row[0]: _Message(row) for row in db.rows(sql, [channel_id, json.dumps(values)])}


def _parts(channel_id: int, names: Sequence[str]) -> set[str]:
    """Those of the ids that are parts of long messages."""
    if not names or not db.value("SELECT 1 FROM part WHERE channel_id = ? LIMIT 1", [channel_id]):
        return set()
    sql = "SELECT provider_id FROM part WHERE channel_id = ? AND provider_id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in db.rows(sql, [channel_id, json.dumps(names)])}


def _seen(channel_id: int, keys: list[str]) -> set[str]:
    """Those of the reports that are stored already."""
    if not keys:
        return set()
    sql = "SELECT dedupe FROM delivery_report WHERE channel_id = ? AND dedupe IN (SELECT value FROM json_each(?))"
    return {row[0] for row in db.rows(sql, [channel_id, json.dumps(keys)])}


def _write(lines: list[tuple[Any, ...]], messages: list[_Message], deltas: counters.Deltas) -> None:
    db.many(
        "INSERT INTO delivery_report (channel_id, message_id, provider_id, token, status, at, received_at, code,"
        " detail, dedupe, effect) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        lines,
    )
    named = [(m.known_as, m.identity) for m in messages if m.named]
    # By itself: SQLite writes the index of every column that a statement names, also where nothing changes.
    db.many("UPDATE message SET provider_id = ? WHERE id = ?", named)
    moved = [(*m.at, m.status, m.identity) for m in messages if m.moved]
    db.many(
        "UPDATE message SET sent_at = ?, delivered_at = ?, read_at = ?, status = ?, owner = NULL, lease_until = NULL,"
        " cause = NULL, cause_text = NULL WHERE id = ?",
        moved,
    )
    kept = [(*m.at, m.identity) for m in messages if not m.moved]
    db.many("UPDATE message SET sent_at = ?, delivered_at = ?, read_at = ? WHERE id = ?", kept)
    counters.add(deltas)
