"""Who did what, and from where: one appended line for each act.

Whole phone numbers never come into it: a line that cannot be changed must not hold what a person may have erased.
"""

from __future__ import annotations

import json
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


def lines(chosen: Filter, after: str = "", limit: int = PAGE) -> list[Audit]:
    """Lines latest first; `after` is the `cursor` of the last one seen. Raises ValueError for what is no cursor."""
    at, _dot, number = after.partition(".") if after else (str(2**62), "", str(2**62))
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in (at, number)):
        raise ValueError("after")
    where = "at >= ? AND at < ? AND (at, id) < (?, ?)"
    values: list[Any] = [chosen.since or 0, chosen.until or 2**62, int(at), int(number)]
    if chosen.actor:
        where, values = "actor = ? AND " + where, [chosen.actor, *values]
    found: list[Audit] = []
    # Every action has its own stretch of an index, so a page costs the same whatever is chosen.
    for action in _actions(chosen.action) if chosen.action else [""]:
        of_action, own = ("action = ? AND " + where, [action, *values]) if action else (where, values)
        sql = f"SELECT {_COLUMNS} FROM audit WHERE {of_action} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608
        rows = db.rows(sql, [*own, min(limit, PAGE_MAX)])
        found += [Audit(**dict(zip(_NAMES, (*row[:-1], _unpacked(row[-1])), strict=True))) for row in rows]
    return sorted(found, key=lambda one: (-one.at, -one.id))[:limit]


_NAMES = ("id", "at", "actor", "action", "subject", "address", "via", "detail")
_COLUMNS = ", ".join(_NAMES)


def _unpacked(detail: str | None) -> Any:
    return None if detail is None else json.loads(detail)


def cursor(line: Audit) -> str:
    """What `lines` goes on from."""
    return f"{line.at}.{line.id}"


def every(chosen: Filter) -> Iterator[Audit]:
    """All lines of the filter, latest first, page by page."""
    after = ""
    while page := lines(chosen, after, PAGE_MAX):
        yield from page
        after = cursor(page[-1])


def _actions(beginning: str) -> list[str]:
    """The actions that begin so: one step through the index for each, however many lines there are."""
    found: list[str] = []
    name = db.value("SELECT min(action) FROM audit WHERE action >= ?", [beginning])
    while name is not None and name.startswith(beginning) and len(found) < 100:
        found.append(name)
        name = db.value("SELECT min(action) FROM audit WHERE action > ?", [name])
    return found


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
