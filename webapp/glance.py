"""What is drawn or counted once for everybody who looks at it.

The live part of a running broadcast may be a second old, since it looks again within a second, and only its
numbers: whatever a person changes about the broadcast is seen at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flask import current_app, request, session
from flask_babel import get_locale

from webapp import auth, live, lookup
from worker import clock, db

AGE = 0.9  # seconds
KEPT_MAX = 1_000


class Glance(NamedTuple):
    """One drawn part, the mark it carries, and what must still be so for it to be shown again."""

    mark: str
    html: str
    found: tuple[object, ...]
    until: float  # of the monotonic clock; 0: drawn for this one look


class Seat(NamedTuple):
    """What decides which drawing a signed-in browser sees."""

    token: str  # of the login session
    account: tuple[int, str, str | None]  # (user id, role, language) that this holds for
    language: str
    csrf: str | None  # the token in the buttons of this login; None: it sees no buttons


SEAT = "molva.seat"  # where the WSGI environment carries it


class Glances:
    """The live parts of running broadcasts that were drawn within the last second."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str, str | None], Glance] = {}

    def fresh(self, number: int, language: str, csrf: str | None) -> Glance | None:
        """The drawing for those who see this language and these buttons, if it may still be shown."""
        glance = self._kept.get((number, language, csrf))
        if glance is not None and clock.monotonic() < glance.until and glance.found == _found(number):
            return glance
        return None

    def keep(self, number: int, language: str, csrf: str | None, glance: Glance) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[(number, language, csrf)] = glance

    def forget(self) -> None:
        """Have everything drawn anew."""
        self._kept.clear()


def at(number: int, draw: Callable[[], tuple[live.Live, str]]) -> Glance:
    """The live part of broadcast `number` as this person may see it; `draw` makes it where none is fresh."""
    glances: Glances = current_app.extensions["molva.glances"]
    may = auth.me().can("sender")
    csrf = session.get("csrf_token") if may else None
    if may and csrf is None:
        return _drawn(number, draw)  # buttons carry the token of their login, which it gets while they are drawn
    language, user = str(get_locale()), auth.my_user()
    request.environ[SEAT] = Seat(auth.my_token(), (user.id, user.role, user.language), language, csrf)
    glance = glances.fresh(number, language, csrf)
    if glance is None:
        glance = _drawn(number, draw)
        if glance.until:
            glances.keep(number, language, csrf, glance)
    return glance


def _drawn(number: int, draw: Callable[[], tuple[live.Live, str]]) -> Glance:
    began, found = clock.monotonic(), _found(number)
    now, html = draw()
    return Glance(now.mark, html, found, began + AGE if now.every == 1 else 0.0)


def _found(number: int) -> tuple[object, ...]:
    """What a person, or the end of the run, changes about a broadcast."""
    rows = db.rows(
        "SELECT state, epoch, run, updated_at, rate_per_minute, send_at, text_version FROM broadcast WHERE id = ?",
        [min(number, lookup.ID_MAX)],
    )
    return rows[0] if rows else ()
