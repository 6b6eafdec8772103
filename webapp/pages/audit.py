"""The audit log: who did what, when and from where. For administrators."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, abort, render_template, request, url_for

from webapp import audited, exports, lookup, words
from webapp.auth import me, role, step_up
from webapp.limits import limited
from worker import audit as use
from worker import broadcasts, clock, db, reports
from worker.models import Audit

audit = Blueprint("audit", __name__, url_prefix="/audit")
FILTERS = ("actor", "action", "since", "until")


def _day(name: str, after: int = 0) -> int | None:
    """The beginning of a day of the address, in ms; None when there is none or it is no day."""
    try:
        day = datetime.fromisoformat(request.args.get(name, "")).date() + timedelta(days=after)
        return broadcasts.instant(day.isoformat(), lookup.settings().timezone)
    except (ValueError, OverflowError):
        return None


def _chosen() -> use.Filter:
    return use.Filter(
        actor=request.args.get("actor", "")[:254],
        action=request.args.get("action", "")[:50],
        since=_day("since"),
        until=_day("until", after=1),
    )


@audit.get("")
@role("admin")
def index() -> str:
    after = request.args.get("after", "")
    try:
        found = use.lines(_chosen(), after, use.PAGE + 1)
    except ValueError:
        abort(404)
    kept: dict[str, Any] = {name: request.args[name] for name in FILTERS if request.args.get(name)}
    more = len(found) > use.PAGE
    return render_template(
        "audit/list.html",
        items=audited.lines(found[: use.PAGE]),
        chosen={name: request.args.get(name, "") for name in FILTERS},
        filtered=bool(kept),
        actors=[(name, audited.actor(name)) for name in use.actors()],
        groups=words.AUDIT_GROUPS,
        first=url_for("audit.index", **kept) if after else "",
        next=url_for("audit.index", **kept, after=use.cursor(found[use.PAGE - 1])) if more else "",
        download=url_for("audit.download", **kept),
    )


def detail(one: Audit) -> str:
    """The facts of a line as they were stored: programs read the download."""
    given: dict[str, Any] = one.detail or {}
    return ", ".join(f"{name}: {_text(value)}" for name, value in given.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@audit.get("/audit.csv")
@role("admin")
@step_up
@limited("export")
def download() -> Response:
    """All lines of the filter, newest first."""
    chosen, zone = _chosen(), ZoneInfo(lookup.settings().timezone)
    use.note(me().name, "audit.export")

    def batches() -> Iterator[Iterable[list[str]]]:
        at, safe = reports.Seconds(zone), reports.safe_cell
        with db.connection():
            yield [exports.heads(("time", "who", "action", "subject", "detail", "address", "via"))]
            lines = use.every(chosen)
            while batch := list(itertools.islice(lines, 1_000)):
                yield [
                    [
                        at[one.at // clock.SECOND],
                        *map(safe, (one.actor, one.action, one.subject, detail(one), one.address, one.via)),
                    ]
                    for one in batch
                ]

    return exports.stream_csv(batches(), "audit.csv", lookup.language())
