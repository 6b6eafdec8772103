"""What webhooks are told that no other table says: appended in the transaction in which it happens."""

from __future__ import annotations

from worker import clock, db

FINISHED, STOPPED, MESSAGE = "broadcast.finished", "broadcast.stopped", "message"
# Actions of a broadcast that somebody outside may wait for.
OF_ACTION = {"finish": FINISHED, "stop": STOPPED, "miss": STOPPED}
# While there is no webhook there is nothing to keep.
_WANTED = "EXISTS (SELECT 1 FROM webhook)"


def broadcast(broadcast_id: int, action: str) -> None:
    """Note that a broadcast took this step; nothing for steps that nobody waits for."""
    if action in OF_ACTION:
        db.execute(
            "INSERT INTO event (kind, subject_id, run, reason, at) SELECT ?, id, run, stop_reason, ? FROM broadcast"  # noqa: S608
            f" WHERE id = ? AND kind = 'list' AND {_WANTED}",
            [OF_ACTION[action], clock.now(), broadcast_id],
        )


def message(message_id: int) -> None:
    """Note that a message changed in a way that neither a new report nor a new attempt shows."""
    db.execute(
        "INSERT INTO event (kind, subject_id, run, reason, at) SELECT ?, id, run, NULL, ? FROM message"  # noqa: S608
        f" WHERE id = ? AND {_WANTED}",
        [MESSAGE, clock.now(), message_id],
    )
