"""A canary: a few people of a list who get their message before all others do.

They are marked in the queue (`not_before` below zero), and while their broadcast has a canary nobody else is
claimed. Who of them is tried again later has a later time instead, and nobody else has one then.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections import Counter
from itertools import accumulate

from worker import db
from worker.problems import Invalid, Problem
from worker.sieve import SENDABLE, put_off

MAX = 1_000
FIRST, RANDOM = PICKS = ("first", "random")
THROUGH = "canary"  # the reason of the stop that follows
_chance = secrets.SystemRandom()


def choose(broadcast_id: int, run: int, n: int, pick: str = FIRST) -> None:
    """Mark `n` people anew, the first ones or some of all files, inside the caller's transaction; 0: nobody.

    Raises Invalid when the list is not longer than that, or not whole any more.
    """
    _forget(broadcast_id, run)
    if n == 0:
        return
    if pick not in PICKS:
        raise Invalid({"pick": Problem("not_a_choice", {"choices": list(PICKS)})})
    queued = _queued(broadcast_id, run)
    most = min(MAX, sum(queued.values()) - 1)
    if not 1 <= n <= most:
        raise Invalid({"canary": Problem("canary_range", {"max": most} if most > 0 else {})})
    if _has_begun(broadcast_id, run):
        raise Invalid({"canary": Problem("canary_late")})
    if pick == FIRST:
        _mark_first(queued, run, n)
    else:
        _mark_random(queued, run, n)


def top_up(broadcast_id: int, run: int, n: int) -> None:
    """Mark so many that `n` are, inside the caller's transaction that starts the run.

    Files may have come and gone since they were chosen.
    """
    if not _has_begun(broadcast_id, run):
        queued = _queued(broadcast_id, run)
        _mark_first(queued, run, n - sum(len(_marked(file_id, run)) for file_id in queued))


def is_through(broadcast_id: int, run: int) -> bool:
    """Whether nobody of the canary waits in the queue any more."""
    return db.value(_WAITING, [run, broadcast_id] * 2) is None


# Two ranges of one index: nearly all of the list stands between them.
_WAITING = " UNION ALL ".join(
    "SELECT 1 FROM recipient_file f JOIN message m ON m.file_id = f.id AND m.run = ? AND m.status = 'queued'"  # noqa: S608
    f" AND m.not_before {which} 0 WHERE f.broadcast_id = ? AND {SENDABLE}"
    for which in ("<", ">")
)


def _queued(broadcast_id: int, run: int) -> dict[int, int]:
    """File → how many of it are queued, oldest first."""
    return dict(
        db.rows(
            "SELECT f.id, c.n FROM counter c JOIN recipient_file f ON f.id = c.file_id"  # noqa: S608
            f" WHERE c.broadcast_id = ? AND c.run = ? AND c.status = 'queued' AND c.n > 0 AND {SENDABLE} ORDER BY f.id",
            [broadcast_id, run],
        )
    )


def _has_begun(broadcast_id: int, run: int) -> bool:
    """Whether somebody has left the queue, or was put off."""
    return put_off(broadcast_id, run, 0) is not None or bool(
        db.value(
            "SELECT 1 FROM counter WHERE broadcast_id = ? AND run = ? AND status <> 'queued' AND n > 0",
            [broadcast_id, run],
        )
    )


def _forget(broadcast_id: int, run: int) -> None:
    for file_id in _queued(broadcast_id, run):
        db.many("UPDATE message SET not_before = 0 WHERE id = ?", _marked(file_id, run))


def _marked(file_id: int, run: int) -> list[tuple[int]]:
    return db.rows(
        "SELECT id FROM message WHERE file_id = ? AND run = ? AND status = 'queued' AND not_before < 0", [file_id, run]
    )


def _mark_first(queued: dict[int, int], run: int, n: int) -> None:
    for file_id in queued:
        if n <= 0:
            return
        n -= db.execute(
            "UPDATE message SET not_before = -1 WHERE id IN (SELECT id FROM message"
            " WHERE file_id = ? AND run = ? AND status = 'queued' AND not_before = 0 ORDER BY id LIMIT ?)",
            [file_id, run, n],
        ).rowcount


def _mark_random(queued: dict[int, int], run: int, n: int) -> None:
    """Choose as many of each file as chance has it, then rows at random lines, or those that follow them."""
    ends = list(accumulate(queued.values()))
    shares = Counter(bisect_right(ends, at) for at in _chance.sample(range(ends[-1]), n))
    for number, file_id in enumerate(queued):
        last = db.value(
            "SELECT line FROM message WHERE file_id = ? AND run = ? ORDER BY line DESC LIMIT 1", [file_id, run]
        )
        for _each in range(shares[number]):
            line = _chance.randint(0, last)
            _mark_at(file_id, run, line) or _mark_at(file_id, run, 0)


def _mark_at(file_id: int, run: int, line: int) -> bool:
    """Mark the first one from this line on that is not; whether there was one."""
    # COALESCE keeps the index of the lines in use, which finds it in a few steps.
    changed = db.execute(
        "UPDATE message SET not_before = -1 WHERE id = (SELECT id FROM message WHERE file_id = ? AND run = ?"
        " AND line >= ? AND COALESCE(status, '') = 'queued' AND not_before = 0 ORDER BY line LIMIT 1)",
        [file_id, run, line],
    )
    return bool(changed.rowcount)
