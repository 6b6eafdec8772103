"""The lines of the pre-flight sheet as people read them, each with the place that cures it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flask import url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from webapp import filters, sentences, words
from webapp.auth import me
from worker import preflight, tasks
from worker.models import Broadcast
from worker.preflight import BLOCK, INFO, OK, WARN, Item, Sheet
from worker.problems import Problem
from worker.settings import Settings

SHOWN_IN = ("draft", "scheduled", "stopped")
# Fields of the settings form by the names that worker.preflight gives them.
FIELDS = {
    **{"name": "name", "text": "text", "template": "template", "rate": "rate_per_minute"},
    **{"time": "when", "quiet": "quiet", "channel": "contact"},
}
ROWS = ("longest", "empty", "foreign")  # what the preview shows


Facts = dict[str, Any]
Text = Any  # a str, which flask_babel does not say


class Line(NamedTuple):
    """One line. `url` and `label`: where it is cured; "" where there is no such place. `post`: by a press."""

    code: str
    level: str
    text: str
    url: str = ""
    label: str = ""
    post: bool = False


class Shown(NamedTuple):
    """A sheet as pages draw it: the groups (title, tone, icon, lines), those that stand in the way first."""

    sheet: Sheet
    groups: list[tuple[str, str, str, list[Line]]]


def of(settings: Settings, row: Broadcast) -> Sheet:
    """The sheet; what has to be counted for it is begun."""
    found = preflight.sheet(settings, row)
    if found.counting:
        tasks.count_overlap(row.id)
    return found


def shown(settings: Settings, row: Broadcast) -> Shown | None:
    """The sheet for the page of a broadcast; None in a state where nothing is about to start."""
    if row.state not in SHOWN_IN:
        return None
    found = of(settings, row)
    groups = [
        (_("Blocks the start"), "bad", "cross", (BLOCK,)),
        (_("Please note"), "warn", "alert", (WARN,)),
        (_ready(row) if found.ok else _("Known so far"), "good", "check", (OK, INFO)),
    ]
    drawn = [
        (title, tone, icon, [line(row, item) for item in found.of(*levels)]) for title, tone, icon, levels in groups
    ]
    return Shown(found, [group for group in drawn if group[3]])


def _ready(row: Broadcast) -> Text:
    return _("Ready to resume") if row.state == "stopped" else _("Ready to start")


def line(row: Broadcast, item: Item) -> Line:
    """One line in the reader's language."""
    if item.level == BLOCK:
        text = sentences.problem(Problem(item.code, item.facts))
    else:
        text = str(_TEXTS[item.code](dict(item.facts)))
    url, label = _cure(row, item)
    return Line(item.code, item.level, text, url, label, item.fix == "templates" and bool(url))


def _cure(row: Broadcast, item: Item) -> tuple[str, str]:
    fix, sender = item.fix, me().can("sender")
    if fix in ROWS and sender:
        return url_for("broadcasts.show", number=row.id, which=fix, _anchor="preview"), _("Show")
    if fix == "recipients":
        return url_for("broadcasts.show", number=row.id, _anchor="files"), _("Recipients")
    if fix == "same":
        return url_for("reports.report", number=item.facts["broadcast_id"]), _("Report")
    if not fix or not sender:
        return "", ""
    if fix in FIELDS:
        return url_for("broadcasts.edit", number=row.id, _anchor=FIELDS[fix]), _("Change")
    if row.channel_id is None:
        return "", ""
    if fix == "templates":
        return url_for("channels.refresh", number=row.channel_id), _("Refresh templates")
    if fix == "price" and me().can("admin"):
        label = _("Set the price") if item.code == "price_missing" else _("Change")
        return url_for("channels.edit", number=row.channel_id, _anchor="price"), label
    return url_for("channels.show", number=row.channel_id), _("Channel")


_n, zone_name = filters.number, filters.zone_name


def _longest(facts: Facts) -> Text:
    if not facts["encoding"]:
        return ngettext("Longest text: %(num)s character", "Longest text: %(num)s characters", facts["chars"])
    return ngettext(
        "Longest text: %(num)s character, segments: %(m)s",
        "Longest text: %(num)s characters, segments: %(m)s",
        facts["chars"],
        m=_n(facts["segments"]),
    )


def _length_unknown(facts: Facts) -> Text:
    if facts["again"]:
        return _("The length of the messages is not known: an earlier version checked the file. Have it read again")
    return _("The length of the messages is not known: an earlier version checked the file")


def _segments(facts: Facts) -> Text:
    if facts["least"] == facts["most"]:
        return _("Segments of each message: %(a)s, %(t)s in all", a=_n(facts["most"]), t=_n(facts["total"]))
    return _(
        "Over the file: %(a)s to %(b)s segments, %(t)s in all",
        a=_n(facts["least"]),
        b=_n(facts["most"]),
        t=_n(facts["total"]),
    )


def _ends(facts: Facts) -> Text:
    known = {"t": filters.at(facts["at"], facts["zone"]), "r": _n(round(facts["rate"]) or facts["rate"])}
    if facts["slower"]:
        return _("Will finish at about %(t)s, %(r)s a minute: the channel lets no more through", **known)
    return _("Will finish at about %(t)s, %(r)s a minute", **known)


def _daily_limit(facts: Facts) -> Text:
    known = {"limit": _n(facts["limit"]), "left": _n(facts["left"])}
    if not facts["n"]:
        return _("Daily limit: %(limit)s, %(left)s left", **known)
    return ngettext(
        "Daily limit: %(limit)s, %(left)s left. The other %(n)s leave after %(t)s, within %(num)s more day",
        "Daily limit: %(limit)s, %(left)s left. The other %(n)s leave after %(t)s, within %(num)s more days",
        facts["days"],
        n=_n(facts["n"]),
        t=filters.at(facts["at"]),
        **known,
    )


def _quiet(facts: Facts) -> Text:
    start, stop = (f"{facts[name] // 60:02d}:{facts[name] % 60:02d}" for name in ("start", "stop"))
    return _(
        "Quiet hours: %(a)s to %(b)s, recipient's time. Will wait for their end: %(n)s",
        a=start,
        b=stop,
        n=_n(facts["n"]),
    )


def _zones(facts: Facts) -> Text:
    return _(
        "Time zone by the file: %(c)s, by the number: %(p)s, by the broadcast (%(z)s): %(b)s",
        c=_n(facts["column"]),
        p=_n(facts["number"]),
        b=_n(facts["broadcast"]),
        z=zone_name(facts["zone"]),
    )


def _stale(facts: Facts) -> Text:
    if facts["at"] is None:
        return _("The templates have never been refreshed")
    return _("The template was refreshed %(t)s and may have changed since", t=filters.ago(facts["at"]))


def _channel(facts: Facts) -> Text:
    if facts["at"] is None:
        return _("The channel is in use, nothing has left by it yet")
    return _("The channel is in use, its last message left %(t)s", t=filters.ago(facts["at"]))


def _channel_off(facts: Facts) -> Text:
    found = sentences.channel_stop(facts["cause"], facts["detail"])
    return f"{found['text']}. {found['advice']}" if found else str(words.CHANNEL_STATES["stopped"].label)


def _unanswerable(facts: Facts) -> Text:
    if facts["name"]:
        return _("Recipients cannot reply: the sender is a name, not a number")
    return _("Replies do not come in by this channel")


_TEXTS: dict[str, Callable[[Facts], Text]] = {
    "recipients": lambda f: _(
        "Will get the message: %(n)s. Will not: duplicates %(d)s, with an error %(e)s, on the stop list\u00a0%(s)s",
        n=_n(f["n"]),
        d=_n(f["duplicates"]),
        e=_n(f["invalid"]),
        s=_n(f["opted_out"]),
    ),
    "blank": lambda f: _("Blank rows: %(n)s", n=_n(f["n"])),
    "counting": lambda f: _("Being counted: who received this text before, and who is on the stop list by now"),
    "received": lambda f: _("Already received this text: %(n)s, last %(t)s", n=_n(f["n"]), t=filters.ago(f["at"])),
    "stopped": lambda f: _("On the stop list by now, will be skipped: %(n)s", n=_n(f["n"])),
    "marketing_stopped": lambda f: _("Do not want advertising, will be skipped: %(n)s", n=_n(f["n"])),
    "cooling": lambda f: ngettext(
        "Got a broadcast within the last %(num)s day, will be skipped: %(n)s",
        "Got a broadcast within the last %(num)s days, will be skipped: %(n)s",
        f["days"],
        n=_n(f["n"]),
    ),
    "length_unknown": _length_unknown,
    "file_refused": lambda f: _("File not accepted: %(file)s. Its recipients get no message", file=f["file"]),
    "longest": _longest,
    "segments": _segments,
    "foreign": lambda f: _(
        "These characters make an SMS hold less text: %(chars)s. Without them there would be %(n)s segments fewer",
        chars=" ".join(f["chars"]),
        n=_n(f["segments"]),
    ),
    "empty": lambda f: _(
        "With an empty variable: %(n)s, the first in row %(line)s", n=_n(f["rows"]), line=_n(f["line"])
    ),
    "sandbox": lambda f: _("The sandbox sends no real messages, so they cost nothing"),
    "cost": lambda f: _("Cost: about %(sum)s at your price", sum=filters.money(f["cost"], f["currency"])),
    "price_missing": lambda f: _("The channel has no price, so the cost is not known"),
    "begins": lambda f: _(
        "Starts %(t)s (%(zone)s)", t=filters.at(f["at"], f["zone"]), zone=zone_name(f["zone"], f["at"])
    ),
    "ends": _ends,
    "quiet": _quiet,
    "zones": _zones,
    "zones_unknown": lambda f: _(
        "Where the recipients live is not known; the zone of the broadcast is used: %(z)s", z=zone_name(f["zone"])
    ),
    "daily_limit": _daily_limit,
    "template": lambda f: _("Template approved, refreshed %(t)s", t=filters.ago(f["at"])),
    "template_stale": _stale,
    "template_quality": lambda f: _("The provider rates the template: %(q)s", q=f["quality"]),
    "category": lambda f: _(
        "Category of the template: %(c)s", c=str(words.CATEGORIES.get(f["category"], f["category"]))
    ),
    "channel": _channel,
    "channel_off": _channel_off,
    "channel_silent": lambda f: _("The channel has not responded since %(t)s", t=filters.at(f["at"])),
    "channel_slow": lambda f: _("The provider asks to wait until %(t)s", t=filters.at(f["at"])),
    "channel_quality": lambda f: _("The provider rates the sender: %(q)s", q=f["quality"]),
    "channel_locked": lambda f: _("The channel cannot be opened: check its settings and credentials"),
    "worker": lambda f: _("Nothing is being sent: the worker is not running"),
    "answerable": lambda f: _("People can reply to this message"),
    "unanswerable": _unanswerable,
    "no_base_url": lambda f: _(
        "MOLVA_BASE_URL is not set on the server, so delivery reports and replies cannot come in"
    ),
}
