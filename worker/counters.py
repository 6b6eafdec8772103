"""Counters of messages by (broadcast, run, file, status), changed in the transaction that changes the rows."""

from __future__ import annotations

from collections.abc import Mapping

from worker import db


def add(deltas: Mapping[tuple[int, int, int, str], int]) -> None:
    """Add each delta to its counter, inside the caller's transaction."""
    rows = [(*key, change) for key, change in deltas.items() if change]
    if rows:
        db.many(
            "INSERT INTO counter (broadcast_id, run, file_id, status, n) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (broadcast_id, run, file_id, status) DO UPDATE SET n = counter.n + excluded.n",
            rows,
        )
