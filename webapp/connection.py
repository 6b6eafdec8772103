"""The database connection of a thread that answers requests."""

from __future__ import annotations

import threading

from worker import clock, db

KEEP = 10.0  # seconds


class _Thread(threading.local):
    """Until when the connection of this thread is kept; None: there is none, or a test holds its own."""

    until: float | None = None


_thread = _Thread()


def use() -> None:
    """A connection for this request. Opening one costs more than most requests, so it serves a few."""
    if db.database.connect(reuse_if_open=True):
        _thread.until = clock.monotonic() + KEEP


def leave(error: BaseException | None) -> None:
    """The request is over: close the connection when it has served long enough, or when something went wrong."""
    if _thread.until is not None and (error or db.database.in_transaction() or clock.monotonic() > _thread.until):
        _thread.until = None
        db.close()
