"""A call that may be sent again: the same key and body get the answer of the first, for a day."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from worker import clock, db

LIFE = clock.DAY
STEP = 1_000


class Answer(NamedTuple):
    """What the first call was answered."""

    status: int
    body: str


class Differs(ValueError):
    """The key was used for a call with another body."""


def name(*parts: str | bytes) -> str:
    """One short name for what these parts say together."""
    found = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()


def begin(call: str, said: str) -> Answer | None:
    """Take a call on, inside the transaction that does what it asks; what was answered when it was done before.

    Of two at once the second waits here for the first one's commit. Raises Differs.
    """
    now = clock.now()
    db.execute("DELETE FROM repeat_answer WHERE call = ? AND at <= ?", [call, now - LIFE])
    taken = db.execute(
        "INSERT INTO repeat_answer (call, said, status, body, at) VALUES (?, ?, 0, '', ?)"
        " ON CONFLICT (call) DO NOTHING",
        [call, said, now],
    )
    if taken.rowcount:
        return None
    before, status, body = db.rows("SELECT said, status, body FROM repeat_answer WHERE call = ?", [call])[0]
    if before != said:
        raise Differs
    return Answer(status, body)


def keep(call: str, answer: Answer) -> None:
    """Keep what a call that `begin` took on is answered, inside the same transaction."""
    db.execute("UPDATE repeat_answer SET status = ?, body = ? WHERE call = ?", [*answer, call])


def forget() -> int:
    """Delete what is older than a day; how many."""
    with db.write():
        gone = db.execute(
            "DELETE FROM repeat_answer WHERE call IN (SELECT call FROM repeat_answer WHERE at <= ? LIMIT ?)",
            [clock.now() - LIFE, STEP],
        )
    return int(gone.rowcount)
