"""P9: the highest tier as a whole: what leaves, and the three delivery reports of each message, at the same time."""

from __future__ import annotations

import time

from tests.bench import engine
from tests.bench.common import Result
from worker import db

SECONDS = 15
RATE = 1_000  # messages a second that are asked for
BACKLOG = 60.0


def run(big: bool) -> list[Result]:
    people = RATE * (60 if big else SECONDS)
    with engine.world() as found:
        found.callbacks(statuses=["sent", "delivered", "read"], delay=[0.0, 0.3])
        began = time.monotonic()
        engine.start(found, people, broadcasts_at_once=1)
        engine.sent(found)
        last = time.monotonic()
        while left(found.control()["callbacks_open"]) and time.monotonic() - last < 300:
            time.sleep(0.1)
        behind = time.monotonic() - last
        answers = found.control()["callback_answers"]
        read = int(db.value("SELECT COALESCE(SUM(n), 0) FROM counter WHERE status = 'read'"))
        speed = people / (last - began)
        reports = 3 * people / (last - began + behind)
        good = set(answers) == {"200"} and read == people and behind <= BACKLOG and speed >= 0.97 * RATE
        return [
            Result(
                f"P9 {RATE:,} messages/s with {3 * RATE:,} callbacks/s",
                f"{speed:,.0f} and {reports:,.0f}/s",
                "",
                "",
                f"all 200, backlog empty ≤ {BACKLOG:.0f} s",
                good,
                f"answers {dict(answers)}, {read:,} of {people:,} read, backlog empty after {behind:.1f} s",
            )
        ]


def left(open_: int) -> bool:
    """Whether a report is still on its way, waits to be applied, or for its message."""
    waiting = db.value(
        "SELECT EXISTS (SELECT 1 FROM callback WHERE processed_at IS NULL)"
        " OR EXISTS (SELECT 1 FROM delivery_report WHERE message_id IS NULL)"
    )
    return open_ > 0 or bool(waiting)
