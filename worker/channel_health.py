"""How a channel is doing: what the pages and the API tell about it. Every question is answered in a few rows."""

from __future__ import annotations

from typing import NamedTuple

from worker import breaker, clock, db
from worker.models import Channel

LOOKED_AT = 20_000  # stored callbacks, the latest ones; older ones say nothing about today


class Health(NamedTuple):
    """Moments in ms since the epoch, None where there was none.

    `open_since`: the circuit breaker is open; `slow_until`: the provider asked to wait; `callback_at`: the last
    callback came; `sent_at`: the last message left; `day`: messages that left within the last 24 hours.
    """

    open_since: int | None
    slow_until: int | None
    callback_at: int | None
    sent_at: int | None
    day: int

    @property
    def hopeless(self) -> bool:
        """Whether the circuit breaker has been open for so long that a person has to look."""
        return self.open_since is not None and clock.now() - self.open_since >= breaker.LONGEST


def of(channel: Channel) -> Health:
    """The health of a channel, now."""
    now = clock.now()
    day = db.value(
        "SELECT COALESCE(SUM(n), 0) FROM departure WHERE channel_id = ? AND minute >= ?",
        [channel.id, now // clock.MINUTE - 24 * 60],
    )
    callback_at = db.value(
        "SELECT MAX(received_at) FROM (SELECT channel_id, received_at FROM callback ORDER BY id DESC LIMIT ?) AS recent"
        " WHERE channel_id = ?",
        [LOOKED_AT, channel.id],
    )
    sent_at = db.value("SELECT MAX(last_sent_at) FROM broadcast WHERE channel_id = ?", [channel.id])
    slow = channel.slow_until if channel.slow_until > now else None
    return Health(channel.opened_at, slow, callback_at, sent_at, int(day or 0))
