"""How long sending takes: counted in memory by the process that sends, added to a table now and then."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable

from worker import db

BOUNDS = (50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 10_000, 30_000)  # ms
BEYOND = 0  # stands for what took longer than the last bound


class Latency:
    """The times of one process that the table does not have yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: dict[tuple[int, int], list[int]] = {}  # channel and place in BOUNDS → how many, their ms together

    def add(self, times: Iterable[tuple[int, float]]) -> None:
        """Note times as (channel id, seconds)."""
        with self._lock:
            for channel_id, seconds in times:
                ms = int(seconds * 1000)
                key = (channel_id, bisect_left(BOUNDS, ms))
                found = self._new.get(key)
                if found is None:
                    self._new[key] = [1, ms]
                else:
                    found[0] += 1
                    found[1] += ms

    def flush(self) -> None:
        """Add what is new to the table, inside the caller's transaction."""
        with self._lock:
            new, self._new = self._new, {}
        if new:
            db.many(
                "INSERT INTO latency (channel_id, upto, n, ms) VALUES (?, ?, ?, ?) ON CONFLICT (channel_id, upto)"
                " DO UPDATE SET n = latency.n + excluded.n, ms = latency.ms + excluded.ms",
                [(channel_id, (*BOUNDS, BEYOND)[at], *found) for (channel_id, at), found in new.items()],
            )
