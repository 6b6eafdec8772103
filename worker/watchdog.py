"""Why a running broadcast does not move: one answer for the page, the API and `molva doctor`."""

from __future__ import annotations

import shutil
from typing import Any

from worker import broadcasts, clock, db, delivery, locks, sieve, throttle
from worker.models import Broadcast, Channel, Run
from worker.models import Worker as WorkerRow
from worker.settings import Settings

SILENT = 10 * clock.SECOND  # a broadcast that should move and has not for so long says why
DISK_MIN = 8 * 1024 * 1024  # bytes; below that the database can no longer be trusted to commit
SLOW = 5 * clock.SECOND  # a wait for the rate that is worth telling
# What does not pass by itself: somebody must do something.
NEEDS_A_PERSON = ("disk", "worker", "locked", "channel", "stuck")


def why(broadcast: Broadcast) -> dict[str, Any] | None:
    """{"code", "until"? (ms)}: why a running broadcast waits; None while it moves, and when it does not run.

    disk, worker (none runs) or locked (it lives, and cannot write), then what the sender wrote
    (provider_asked, breaker, daily_limit, rate, retry, quiet_hours, file_checking, channel), then what is seen from
    outside: provider_slow, copying, stuck. Cheap enough to poll.
    """
    if broadcast.state != "running":
        return None
    # A full disk also keeps the worker from writing its heartbeat, so it comes first.
    if free_space() < DISK_MIN:
        return {"code": "disk"}
    if not delivery.worker_alive():
        if not _is_held():
            return {"code": "worker"}
        return {"code": "locked" if db.is_locked() else "stuck"}
    now = clock.now()
    said: dict[str, Any] | None = broadcast.waiting
    if said is not None and _still_true(broadcast, said, now):
        return said
    # A moment in the future was noted by a clock that has been set back since; it tells nothing.
    moved = max((at for at in (broadcast.last_sent_at or 0, broadcast.updated_at) if at <= now + SILENT), default=0)
    return _silence(broadcast, now) if now - moved > SILENT else None


def free_space() -> int:
    """Bytes that can still be written to the data folder."""
    return shutil.disk_usage(db.folder()).free


def _is_held() -> bool:
    """Whether a worker process lives although it no longer shows itself: stopped, or kept from writing."""
    settings = Settings(data=db.folder())
    late = WorkerRow.select(WorkerRow.id).where(WorkerRow.heartbeat_at > 0).order_by(WorkerRow.id.desc()).limit(16)
    return any(locks.is_alive(settings, row.id) for row in late)


def _still_true(broadcast: Broadcast, said: dict[str, Any], now: int) -> bool:
    """Whether what the sender wrote still holds: it may have been kept from writing anything newer."""
    if said["code"] == "file_checking":
        return broadcasts.is_checking(broadcast)
    until = said.get("until")
    return until is None or until > now - SILENT


def _silence(broadcast: Broadcast, now: int) -> dict[str, Any] | None:
    """Nothing was accepted for SILENT: what the tables say about it."""
    run = Run.get_or_none((Run.broadcast == broadcast.id) & (Run.number == broadcast.run))
    if run is not None and 0 <= now - (run.started_at or 0) <= SILENT:
        return None
    slot = _next_slot(broadcast, now)
    if slot > now - SILENT:  # something was claimed a moment ago, or will be
        if slot - now > SLOW:
            return {"code": "rate", "until": slot}
        later = sieve.put_off(broadcast.id, broadcast.run, now)
        return {"code": later.code, "until": later.until} if later else None
    numbers = broadcasts.count(broadcast, broadcast.run)
    if numbers["sending"] or _neighbours_wait(broadcast):
        return {"code": "provider_slow"}
    if broadcasts.is_checking(broadcast) and not numbers["queued"]:
        return {"code": "file_checking"}
    if run is not None and not run.copied:
        return {"code": "copying"}
    channel = broadcast.channel
    if channel is not None and channel.state != "on":
        return {"code": "channel"}
    due = sieve.put_off(broadcast.id, broadcast.run, -1)
    if due is not None and due.until > now - SILENT:
        return {"code": due.code, "until": due.until} if due.until > now else None
    return {"code": "stuck"}


def _next_slot(broadcast: Broadcast, now: int) -> int:
    """When the rate and the channel's pace let the next one through, in ms; every claim moves it on."""
    channel: Channel | None = broadcast.channel
    paces: list[tuple[int, float]] = [(broadcast.next_slot, broadcast.rate_per_minute)]
    if channel is not None and channel.per_second:
        paces.append((channel.next_slot, channel.per_second * 60))
    # A slot beyond the pace is a jump of the clock, which the sender puts right.
    limits = [(slot, now * 1000 + throttle.SHARED.interval(rate) + throttle.JUMP) for slot, rate in paces]
    return max((slot for slot, limit in limits if slot <= limit), default=0) // 1000


def _neighbours_wait(broadcast: Broadcast) -> bool:
    """Whether others on the same channel have messages on their way, and so its connections."""
    return bool(
        db.value(
            "SELECT 1 FROM counter c JOIN broadcast b ON b.id = c.broadcast_id"
            " WHERE b.channel_id = ? AND c.status = 'sending' AND c.n > 0 LIMIT 1",
            [broadcast.channel_id],
        )
    )
