"""The only clock: tests own time by replacing these functions through `frozen`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo

MS = 1000
SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def now() -> int:
    """Milliseconds since the epoch, UTC: the unit of every timestamp in the tables."""
    return time.time_ns() // 1_000_000


def now_us() -> int:
    """Microseconds since the epoch, UTC: the unit of throttle slots."""
    return time.time_ns() // 1_000


def monotonic() -> float:
    """Seconds on a clock that never jumps: the unit of durations."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def utc(ms: int) -> datetime:
    """A timestamp of the tables as an aware datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def iso(ms: int | None) -> str | None:
    """A timestamp of the tables as ISO 8601 in UTC with milliseconds, the form the API speaks."""
    return None if ms is None else utc(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_local(local: datetime, zone: tzinfo) -> int:
    """The instant at which clocks in `zone` show this naive time, in ms.

    A time in a spring gap means the first instant after it; a doubled hour its first pass, or its second
    with `fold=1`.
    """
    there = local.replace(tzinfo=zone)
    moment, other = there.astimezone(UTC), there.replace(fold=1).astimezone(UTC)
    if moment > other:  # in a gap: find the moment the clocks changed
        low, high = other, moment
        offset = low.astimezone(zone).utcoffset()
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            if middle.astimezone(zone).utcoffset() == offset:
                low = middle
            else:
                high = middle
        moment = high.replace(microsecond=0)
    return int(moment.timestamp() * 1000)
