"""Who did what, and from where: one appended line for each act.

Whole phone numbers never come into it: a line that cannot be changed must not hold what a person may have erased.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker import clock, db, logs
from worker.models import Audit

PAGE = 100
PAGE_MAX = 1_000


class Origin(NamedTuple):
    """Where an act comes from: the other side's address, and the login session or API token that carries it."""

    address: str = ""
    via: str = ""


origin: ContextVar[Origin] = ContextVar("origin", default=Origin())  # noqa: B039  it cannot change


def record(actor: str, action: str, subject: str = "", **detail: Any) -> None:
    """Append one line, inside the caller's transaction."""
    address, via = origin.get()
    Audit.insert(
        at=clock.now(),
        actor=actor,
        action=action,
        subject=logs.masked(subject),
        detail=_masked(detail) if detail else None,
        address=address,
        via=via,
    ).execute()


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return logs.masked(value)
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list | tuple) else value


def note(actor: str, action: str, subject: str = "", **detail: Any) -> None:
    """As `record`, in a transaction of its own: for a look that changes nothing."""
    with db.write():
        record(actor, action, subject, **detail)


@dataclass(frozen=True)
class Filter:
    """Which lines: by a person or token, by the beginning of an action, and between two moments (ms)."""

    actor: str = ""
    action: str = ""
    since: int | None = None
    until: int | None = None


def lines(chosen: Filter, before: int | None = None, limit: int = PAGE) -> list[Audit]:
    """Lines newest first; `before` is the last id seen."""
    query = Audit.select().order_by(Audit.id.desc()).limit(min(limit, PAGE_MAX))
    if before is not None:
        query = query.where(Audit.id < before)
    if chosen.actor:
        query = query.where(Audit.actor == chosen.actor)
    if chosen.action:
        query = query.where((Audit.action >= chosen.action) & (Audit.action < chosen.action + "\U0010ffff"))
    if chosen.since is not None:
        query = query.where(Audit.at >= chosen.since)
    if chosen.until is not None:
        query = query.where(Audit.at < chosen.until)
    return list(query)


def every(chosen: Filter) -> Iterator[Audit]:
    """All lines of the filter, newest first, page by page."""
    before = None
    while page := lines(chosen, before, PAGE_MAX):
        yield from page
        before = page[-1].id


def actors() -> list[str]:
    """Who has ever done something; the first some hundred of them."""
    # One step through the index for each name, however many lines there are.
    found: list[str] = []
    name = ""
    while len(found) < 500:
        name = db.value("SELECT min(actor) FROM audit WHERE actor > ?", [name])
        if name is None:
            break
        found.append(name)
    return found
