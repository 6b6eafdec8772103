"""The only clock: tests own time by replacing these functions through `frozen`."""

from __future__ import annotations

import time
from datetime import UTC, datetime

MS = 1000
SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


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
