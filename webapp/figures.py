"""What a report shows: rates and what they are of, the timeline as a picture, times to delivery, causes with deeds."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from babel import dates
from flask import url_for
from flask_babel import get_locale
from flask_babel import gettext as _

from webapp import filters, sentences, words
from worker import causes, clock, reports, rescue, statistics
from worker.models import Broadcast
from worker.states import MESSAGE_STATUSES

WIDTH, HEIGHT = 600, 200  # units of the picture


class Rate(NamedTuple):
    """A share in words: `part` of `whole`, and what the whole is."""

    key: str
    label: str
    part: int
    whole: int
    of: str


def rates(row: Broadcast, numbers: Mapping[str, int], replied: int | None) -> list[Rate]:
    """The rates of a run, each with what it is of; without what nobody reports, such as the reading of an SMS."""
    reads = row.channel is None or row.channel.kind == "waba"
    sent, arrived = reports.taken(numbers), numbers["delivered"] + numbers["read"]
    found = [
        Rate("sent", _("Sent"), sent, numbers["total"], _("of all")),
        Rate("delivered", _("Delivered"), arrived, sent, _("of those sent")),
        Rate("lost", _("Did not arrive"), numbers["failed"] + numbers["undelivered"], numbers["total"], _("of all")),
    ]
    if replied is not None:
        found.insert(2, Rate("replied", _("Replied"), replied, arrived, _("of those delivered")))
    if reads or numbers["read"]:
        found.insert(2, Rate("read", _("Read"), numbers["read"], arrived, _("of those delivered")))
    return found


# --- the timeline -----------------------------------------------------------------------------------


class Line(NamedTuple):
    """One line of the picture: its points, and how many it reached."""

    name: str
    label: str
    points: str
    total: int


class Picture(NamedTuple):
    """The timeline: how many had been sent, delivered, read, replied at each moment."""

    lines: list[Line]
    most: int
    begin: str
    end: str
    rows: list[tuple[str, list[int]]]
    later: list[int] | None


def picture(found: statistics.Timeline) -> Picture:
    """The counted times as lines that rise, and as the rows of a table."""
    number = len(found.series["sent"])
    most = max(sum(counts) for counts in found.series.values())
    most += most % 2 or 2 * (not most)  # its half stands at the scale as well
    labels = {
        "sent": words.MESSAGE_STATUSES["sent"].label,
        "delivered": words.MESSAGE_STATUSES["delivered"].label,
        "read": words.MESSAGE_STATUSES["read"].label,
        "replied": _("Replied"),
    }
    lines = []
    for name, counts in found.series.items():
        height, points = 0, [f"0,{HEIGHT}"]
        for place, n in enumerate(counts, 1):
            height += n
            points.append(f"{WIDTH * place / number:.1f},{HEIGHT - HEIGHT * height / most:.1f}")
        if height:
            lines.append(Line(name, str(labels[name]), " ".join(points), height))
    moments = [found.begin + found.step * place for place in range(number + 1)]
    rows = [
        (_moment(at, found.step), [found.series[name][place] for name in found.series])
        for place, at in enumerate(moments[:-1])
    ]
    later = [found.later[name] for name in found.series]
    return Picture(lines, most, rows[0][0], _moment(moments[-1], found.step), rows, later if any(later) else None)


def _moment(ms: int, step: int) -> str:
    """As exact as the steps are long."""
    if step < clock.MINUTE:
        return str(dates.format_time(filters.moment(ms), "medium", locale=get_locale()))
    return filters.at(ms)


# --- how long delivery took -------------------------------------------------------------------------


class Class(NamedTuple):
    """How many were delivered within these bounds."""

    label: str
    n: int


def classes(found: statistics.Delays) -> list[Class]:
    """The classes of times to delivery between the first and the last that is not empty."""
    ends = [length(end) for end in statistics.CLASSES]
    labels = [_("under %(t)s", t=ends[0])] + [_("%(a)s to %(b)s", a=a, b=b) for a, b in pairwise(ends)]
    labels.append(_("%(t)s and more", t=length(statistics.CLASSES[-1])))
    each = [Class(label, n) for label, n in zip(labels, found.classes, strict=False)]
    filled = [place for place, one in enumerate(each) if one.n]
    return each[filled[0] : filled[-1] + 1] if filled else []


def length(seconds: int) -> str:
    """A length of time in units that are full: "90 sec", "2 hr"; below one second it says so."""
    if seconds < 1:
        return str(_("under %(t)s", t=length(1)))
    whole, threshold = datetime.timedelta(seconds=seconds), 1.6 if seconds % 60 else 0.95
    return str(dates.format_timedelta(whole, threshold=threshold, format="short", locale=get_locale()))


# --- causes -----------------------------------------------------------------------------------------


class Group(NamedTuple):
    """All whom one cause kept from getting it. `statuses`: (status, number, where they are listed)."""

    n: int
    cause: dict[str, str] | None
    statuses: list[tuple[str, int, str]]
    retry: bool
    deeds: list[tuple[str, str]]
    download: str


def groups(row: Broadcast, run: int | None, found: list[tuple[str, str, int]], may: bool) -> list[Group]:
    """Causes with what can be done about each. Failed and undelivered ones stand together: neither has arrived.

    `may`: whether this person may do it. Deeds are about the latest run, so that an earlier one shows none.
    """
    numbers: dict[tuple[str, str], dict[str, int]] = {}
    for status, code, n in found:
        kind = "lost" if status in rescue.LOST else status
        numbers.setdefault((kind, code), {})[status] = n
    made = [_group(row, run, kind, code, of, may) for (kind, code), of in numbers.items()]
    return sorted(made, key=lambda group: -group.n)


def _group(row: Broadcast, run: int | None, kind: str, code: str, of: dict[str, int], may: bool) -> Group:
    listed = functools.partial(url_for, "reports.report", number=row.id, run=run or "all")
    deeds: list[str] = []
    if may and kind == "lost" and (run is None or run == row.run):
        deeds = causes.deeds(code, row.channel.kind if row.channel else "")
        if row.state != "finished":
            deeds = [deed for deed in deeds if deed != causes.AGAIN]
    one_status = next(iter(of)) if len(of) == 1 else None
    return Group(
        sum(of.values()),
        sentences.cause(code),
        [(s, of[s], listed(status=s, cause=code or None)) for s in MESSAGE_STATUSES if s in of],
        causes.cause(code).retry,
        [(deed, url_for("reports.deed", number=row.id, deed=deed, cause=code)) for deed in deeds],
        url_for("reports.report_csv", number=row.id, run=run or "all", status=one_status, cause=code or None),
    )
