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


class Room(NamedTuple):
    """A daily limit: `gone` of the `limit` have left within the last 24 hours, the first of them at `since` (ms)."""

    limit: int
    gone: int
    since: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.gone)

    @property
    def frees_at(self) -> int:
        """When there is room for more than what is left, ms."""
        return self.since + (DAY + 1) * clock.MINUTE


DAY = 24 * 60  # minutes over which a daily limit is counted


def rooms(channel_id: int, provider: str, account: str, own: int | None, vendors: int | None, now: int) -> list[Room]:
    """The daily limits of a channel: its own, which speaks of it alone, and the vendor's, which counts by account,
    whichever number a message leaves by."""
    found = []
    for limit, of_account in ((own, ""), (vendors, account)):
        if not limit:
            continue
        oldest, gone = db.rows(
            "SELECT MIN(minute), COALESCE(SUM(n), 0) FROM departure WHERE minute >= ? AND channel_id IN"
            " (SELECT id FROM channel WHERE id = ? OR (account <> '' AND account = ? AND provider = ?))",
            [now // clock.MINUTE - DAY, channel_id, of_account, provider],
        )[0]
        found.append(Room(limit, int(gone), now if oldest is None else oldest * clock.MINUTE))
    return found


def of(channel: Channel) -> Health:
    """The health of a channel, now."""
    now = clock.now()
    day = db.value(
        "SELECT COALESCE(SUM(n), 0) FROM departure WHERE channel_id = ? AND minute >= ?",
        [channel.id, now // clock.MINUTE - DAY],
    )
    callback_at = db.value(
        "SELECT MAX(received_at) FROM (SELECT channel_id, received_at FROM callback ORDER BY id DESC LIMIT ?) AS recent"
        " WHERE channel_id = ?",
        [LOOKED_AT, channel.id],
    )
    slow = channel.slow_until if channel.slow_until > now else None
    return Health(channel.opened_at, slow, callback_at, last_sent(channel.id), int(day or 0))


def last_sent(channel_id: int) -> int | None:
    """When the last message left by a channel, ms; None when none ever did."""
    found: int | None = db.value("SELECT MAX(last_sent_at) FROM broadcast WHERE channel_id = ?", [channel_id])
    return found
