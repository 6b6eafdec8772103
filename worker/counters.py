"""Counters of messages by (broadcast, run, file, status), changed in the transaction that changes the rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from worker import db

log = logging.getLogger("molva.counters")

Deltas = dict[tuple[int, int, int, str], int]


def move(deltas: Deltas, key: tuple[int, int, int], before: str, after: str, n: int = 1) -> None:
    """Note that `n` messages of (broadcast, run, file) went from one status to another."""
    deltas[*key, before] = deltas.get((*key, before), 0) - n
    deltas[*key, after] = deltas.get((*key, after), 0) + n


def add(deltas: Mapping[tuple[int, int, int, str], int]) -> None:
    """Add each delta to its counter, inside the caller's transaction."""
    rows = [(*key, change) for key, change in deltas.items() if change]
    if rows:
        db.many(
            "INSERT INTO counter (broadcast_id, run, file_id, status, n) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (broadcast_id, run, file_id, status) DO UPDATE SET n = counter.n + excluded.n",
            rows,
        )


def drift(broadcast_id: int) -> Deltas:
    """By how much the counters of a broadcast differ from its rows: what would have to be added to each.

    One statement, so that rows and counters are of the same moment; it reads every row of the broadcast.
    """
    return {
        (broadcast_id, run, file_id, status): n
        for run, file_id, status, n in db.rows(
            "SELECT run, file_id, status, SUM(n) FROM ("
            "SELECT m.run, m.file_id, m.status, COUNT(*) AS n FROM message m"
            " WHERE m.file_id IN (SELECT id FROM recipient_file WHERE broadcast_id = ?) GROUP BY 1, 2, 3"
            " UNION ALL SELECT run, file_id, status, -n FROM counter WHERE broadcast_id = ?) AS found"
            " GROUP BY 1, 2, 3 HAVING SUM(n) <> 0",
            [broadcast_id, broadcast_id],
        )
    }


def check(since: int) -> int:
    """Hold the counters of every broadcast that changed since then (ms) against its rows; how many were wrong.

    They cannot be, so it is an error of ours worth a line in the log; the numbers people see are put right.
    """
    wrong = 0
    for (broadcast_id,) in db.rows(
        "SELECT id FROM broadcast WHERE updated_at > ? OR last_sent_at > ? ORDER BY id", [since, since]
    ):
        if not drift(broadcast_id):
            continue
        with db.write():
            found = drift(broadcast_id)
            add(found)
        log.error("broadcast %d: %d counters differed from the rows and were put right", broadcast_id, len(found))
        wrong += 1
    return wrong
