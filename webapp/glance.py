"""What is drawn or counted once for everybody who looks at it.

The live part of a running broadcast may be a second old, since it looks again within a second, and only its
numbers: whatever a person changes about the broadcast is seen at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flask import current_app, session
from flask_babel import get_locale

from webapp import auth, live, lookup
from worker import clock, db, reports
from worker.models import Broadcast

AGE = 0.9  # seconds
KEPT_MAX = 1_000
MANY = 2_000  # problems whose causes are not counted for every page
CAUSES_AGE, CAUSES_AGE_MAX = 5.0, 60.0  # seconds, while the numbers move and while they stand


class Glance(NamedTuple):
    """One drawn part, the mark it carries, and what must still be so for it to be shown again."""

    mark: str
    html: str
    found: tuple[object, ...]
    until: float


def at(number: int, draw: Callable[[], tuple[live.Live, str]]) -> Glance:
    """The live part of broadcast `number` as this person may see it; `draw` makes it where none is fresh."""
    kept: dict[tuple[object, ...], Glance] = current_app.extensions.setdefault("molva.glances", {})
    # Buttons carry the CSRF token of their login; one that has none yet gets it while they are drawn.
    may = auth.me().can("sender")
    own = session.get("csrf_token") if may else None
    key = (number, str(get_locale()), own)
    found = _found(number)
    glance = kept.get(key)
    if glance is not None and glance.found == found and clock.monotonic() < glance.until:
        return glance
    began = clock.monotonic()
    now, html = draw()
    glance = Glance(now.mark, html, found, began + AGE)
    if now.every == 1 and (own is not None or not may):
        if len(kept) >= KEPT_MAX:
            kept.clear()
        kept[key] = glance
    return glance


def _found(number: int) -> tuple[object, ...]:
    """What a person, or the end of the run, changes about a broadcast."""
    rows = db.rows(
        "SELECT state, epoch, run, updated_at, rate_per_minute, send_at, text_version FROM broadcast WHERE id = ?",
        [min(number, lookup.ID_MAX)],
    )
    return rows[0] if rows else ()


Causes = list[tuple[str, str, int]]


def causes(broadcast: Broadcast, run: int | None, numbers: Mapping[str, int]) -> Causes:
    """(status, cause, number) of what did not arrive. Where there are many, counted once in a while."""
    problems = tuple(numbers[status] for status in ("failed", "undelivered", "uncertain", "held"))
    if sum(problems) <= MANY:
        return reports.cause_groups(broadcast, run)
    kept: dict[tuple[object, ...], tuple[Causes, object, float]] = current_app.extensions.setdefault("molva.causes", {})
    key, now = (broadcast.id, run), clock.monotonic()
    if key in kept:
        groups, of, at = kept[key]
        if now - at < (CAUSES_AGE_MAX if of == problems else CAUSES_AGE):
            return groups
    if len(kept) >= KEPT_MAX:
        kept.clear()
    groups = reports.cause_groups(broadcast, run)
    kept[key] = (groups, problems, now)
    return groups
