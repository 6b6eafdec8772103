"""The pre-flight sheet: what will happen when a broadcast starts, what it costs, what forbids it, what to heed.

What forbids the start is `broadcasts.problems` and nothing else; all other lines let a person decide. The sheet is
made of what checking kept with the files, of counters, and of `overlap`, so it costs the same at any size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from worker import broadcasts, channel_health, channels, clock, delivery, overlap, quiet, recipients
from worker.channel_health import Room
from worker.forecast import Forecast, forecast
from worker.models import Broadcast, Channel, RecipientFile
from worker.providers import PROVIDERS
from worker.settings import Settings

BLOCK, WARN, OK, INFO = "block", "warn", "ok", "info"
STALE = clock.DAY  # templates that were fetched before that may have changed since
GOOD = frozenset({"GREEN", "HIGH", "NA", "UNKNOWN", "UNFLAGGED", "UPGRADE", "ONBOARDING"})  # words of vendors
# Where what forbids the start is cured: a field of the settings form.
FIELDS = {
    **{"name_required": "name", "channel_required": "channel", "channel_deleted": "channel"},
    **{"text_required": "text", "template_required": "template", "template_not_approved": "template"},
    **{"template_unsupported": "template", "no_recipients": "recipients", "file_checking": "recipients"},
}


class Item(NamedTuple):
    """One line. `fix`: where it is looked at or cured: a field of the settings form (name, channel, text, template,
    rate, time, quiet), recipients, channel_page, price, templates (fetch them), longest, empty, foreign (rows to
    preview), same (the report of the broadcast `facts["broadcast_id"]`); "" where there is no such place."""

    code: str
    level: str
    facts: Mapping[str, Any] = {}
    fix: str = ""


@dataclass(frozen=True)
class Sheet:
    """`cost` in `currency`, None where the channel has no price or it is not known; `eta`: ms, None when nobody
    would get anything. `counting`: whether some numbers are still being counted, which the caller has begun by
    `tasks.count_overlap`."""

    items: list[Item]
    numbers: dict[str, Any]
    cost: float | None
    currency: str | None
    eta: int | None
    counting: bool

    @property
    def ok(self) -> bool:
        return not any(item.level == BLOCK for item in self.items)

    def of(self, *levels: str) -> list[Item]:
        return [item for item in self.items if item.level in levels]


def sheet(settings: Settings, broadcast: Broadcast) -> Sheet:
    """The sheet of a broadcast as it is now: some dozens of short reads, whatever its size."""
    return _Look(settings, broadcast).sheet()


class Outlook(NamedTuple):
    """`recipients`: how many are in the queue. `segments`: of all their messages, None for WABA and where it is not
    known. `cost`, `currency`, `eta`: as of a Sheet."""

    recipients: int
    segments: int | None
    cost: float | None
    currency: str | None
    eta: int | None


def outlook(broadcast: Broadcast, each: int | None = None) -> Outlook:
    """The numbers of the sheet alone, for a broadcast as it is or as it would be: nothing is stored or counted.

    `each`: segments of one message where its text is not the one that the files were checked with.
    """
    found = _Ahead(broadcast, overlap.queue(broadcast), each)
    eta = found.ahead.end if found.queued else None
    return Outlook(found.queued, found.segments, *found.cost, eta)


@dataclass
class Lengths:
    """How long the messages of the queue are. `segments`: of all of them, None for WABA."""

    longest: dict[str, Any]
    shortest: dict[str, Any]
    segments: int | None
    empty: dict[str, Any] = field(default_factory=lambda: {"rows": 0})
    foreign: dict[str, Any] = field(default_factory=lambda: {"rows": 0, "segments": 0, "chars": []})


def lengths(files: list[tuple[RecipientFile, int]]) -> Lengths | None:
    """What checking learned of files, each with how many of it are in the queue; None where it is not known of all.

    Where some of a file have left already, the rest counts as much as its share.
    """
    known = [(file, queued, file.facts) for file, queued in files if file.facts and file.facts["longest"]]
    if not known or len(known) != len(files):
        return None

    def size(fact: Mapping[str, Any]) -> tuple[int, int]:
        return fact["segments"], fact["units"]

    every = [{"file": file.id, **facts[which]} for file, _n, facts in known for which in ("longest", "shortest")]
    found = Lengths(max(every, key=size), min(every, key=size), None)
    for file, queued, facts in known:
        share = queued / facts["rows"]
        if "segments" in facts:
            of_file = sum(int(parts) * rows for parts, rows in facts["segments"].items())
            found.segments = (found.segments or 0) + round(of_file * share)
        for name, total in (("empty", found.empty), ("foreign", found.foreign)):
            if part := facts.get(name):
                total.setdefault("file", file.id)
                total.setdefault("line", part["line"])
                total["rows"] += round(part["rows"] * share)
        if part := facts.get("foreign"):
            found.foreign["segments"] += round(part["segments"] * share)
            found.foreign["chars"] = list(dict.fromkeys([*found.foreign["chars"], *part["chars"]]))
    return found


def zones(files: list[tuple[RecipientFile, int]]) -> dict[str, Counter[str]] | None:
    """Where people's zones are known from → zone → how many of the queue; None where it is not known of all."""
    found = {source: Counter[str]() for source in (quiet.COLUMN, quiet.NUMBER, quiet.BROADCAST)}
    for file, queued in files:
        if not file.facts or not file.facts.get("zones"):
            return None
        for source, names in file.facts["zones"].items():
            for name, rows in names.items():
                found[source][name] += round(rows * queued / file.facts["rows"])
    return found


class _Ahead:
    """What one broadcast would take, from counters and from what checking kept; `each`: as in `outlook`."""

    def __init__(self, broadcast: Broadcast, queue: list[tuple[int, int, int]], each: int | None = None) -> None:
        self.row = broadcast
        self.each = each
        self.queued = sum(n for _file, n, _checked in queue)
        ids = {file: n for file, n, _checked in queue}
        rows = {file.id: file for file in RecipientFile.select().where(RecipientFile.id.in_(list(ids)))}
        self.files = [(rows[file], n) for file, n in ids.items()]
        self.lengths = lengths(self.files)

    @property
    def segments(self) -> int | None:
        if self.each is not None:
            return self.each * self.queued
        return self.lengths.segments if self.lengths is not None else None

    @property
    def channel(self) -> Channel | None:
        found: Channel | None = self.row.channel
        return found if found is not None and found.state != channels.DELETED else None

    @property
    def sandbox(self) -> bool:
        return self.channel is not None and self.channel.provider in channels.SANDBOX

    @cached_property
    def zones(self) -> dict[str, Counter[str]] | None:
        return zones(self.files)

    @cached_property
    def rooms(self) -> list[Room]:
        one = self.channel
        if one is None:
            return []
        return channel_health.rooms(one.id, one.provider, one.account, one.per_day, one.vendor_limit, clock.now())

    @cached_property
    def hours(self) -> tuple[int, int] | None:
        start, stop = self.row.quiet_from, self.row.quiet_to
        return None if start is None or stop is None or start == stop else (start, stop)

    @cached_property
    def ahead(self) -> Forecast:
        people = Counter[str]()
        for source, names in (self.zones or {}).items():
            for name, n in names.items():
                people[self.row.timezone if source == quiet.BROADCAST else name] += n
        if self.zones is None:
            people[self.row.timezone] = self.queued
        begin = broadcasts.begins_at(self.row)
        return forecast(begin, people, broadcasts.effective_rate(self.row), self.hours, self.rooms)

    @cached_property
    def cost(self) -> tuple[float | None, str | None]:
        one = self.channel
        if one is None or one.price is None or self.sandbox:
            return None, None
        many = self.queued if one.kind == "waba" else self.segments
        return (None if many is None else round(many * one.price, 2)), one.currency


class _Look(_Ahead):
    """One look at one broadcast."""

    def __init__(self, settings: Settings, broadcast: Broadcast) -> None:
        self.settings = settings
        self.asked = overlap.question(broadcast)
        super().__init__(broadcast, self.asked.files)
        self.listed = broadcasts.live_files(broadcast)
        self.totals = recipients.totals(self.listed)
        self.found = overlap.of(self.asked)

    def sheet(self) -> Sheet:
        cost, currency = self.cost
        items = [*self._blocks(), *self._people(), *self._message(), *self._money(), *self._time()]
        if self.channel is not None:
            items += [*self._template(), *self._health(self.channel), *self._replies(self.channel)]
        eta = self.ahead.end if self.queued else None
        return Sheet(items, self._numbers(), cost, currency, eta, self.found is None)

    def _numbers(self) -> dict[str, Any]:
        long, found, zones = self.lengths, self.found, self.zones
        room = min(self.rooms, key=lambda room: room.left, default=None)
        return {
            "recipients": self.queued,
            **self.totals,
            "segments": long.segments if long else None,
            "longest": long.longest if long else None,
            "shortest": long.shortest if long else None,
            "empty": long.empty["rows"] if long else None,
            "received": found.received if found else None,
            "received_at": found.last_at or None if found else None,
            "stopped": found.stopped if found else None,
            "marketing_stopped": found.marketing if found else None,
            "cooling": found.cooling if found else None,
            "daily_limit": room.limit if room else None,
            "daily_left": room.left if room else None,
            "waiting": self.ahead.waiting if self.hours else 0,
            "zones": {source: names.total() for source, names in zones.items()} if zones is not None else None,
            "rate_per_minute": round(broadcasts.effective_rate(self.row), 2),
        }

    # --- lines ----------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[Item]:
        for problem in broadcasts.problems(self.row):
            yield Item(problem.code, BLOCK, problem.facts, FIELDS.get(problem.code, ""))

    def _people(self) -> Iterator[Item]:
        if self.queued:
            level = WARN if self.totals["invalid"] else OK
            skipped = self.found.skipped if self.found is not None else 0
            yield Item("recipients", level, {"n": self.queued - skipped, **self.totals}, "recipients")
        for file in self.listed:
            if file.state == "refused":
                yield Item("file_refused", WARN, {"file": file.name}, "recipients")
        if self.totals["blank"]:
            yield Item("blank", INFO, {"n": self.totals["blank"]})
        found = self.found
        if found is None:
            yield Item("counting", INFO)
            return
        if found.received:
            facts = {"n": found.received, "at": found.last_at, "broadcast_id": self.asked.same[0].id}
            yield Item("received", WARN, facts, "same")
        if found.stopped:
            yield Item("stopped", WARN, {"n": found.stopped})
        if found.marketing:
            yield Item("marketing_stopped", WARN, {"n": found.marketing})
        if found.cooling:
            yield Item("cooling", WARN, {"n": found.cooling, "days": self.row.cooldown_days})

    def _message(self) -> Iterator[Item]:
        long = self.lengths
        if long is None:
            if self.queued and broadcasts.content(self.row) is not None:
                # A file that some have left already is not read a second time.
                again = not any(recipients.removal_numbers(file)[1] for file, _n in self.files)
                yield Item("length_unknown", INFO, {"again": again}, "recipients")
            return
        yield Item("longest", OK, long.longest, "longest")
        if long.segments is not None:
            least, most = long.shortest["segments"], long.longest["segments"]
            yield Item("segments", OK, {"least": least, "most": most, "total": long.segments})
        if long.foreign["rows"]:
            yield Item("foreign", WARN, long.foreign, "foreign")
        if long.empty["rows"]:
            yield Item("empty", INFO, long.empty, "empty")

    def _money(self) -> Iterator[Item]:
        cost, currency = self.cost
        if self.sandbox:
            yield Item("sandbox", INFO)
        elif cost is not None:
            yield Item("cost", OK, {"cost": cost, "currency": currency}, "price")
        elif self.channel is not None and self.channel.price is None:
            yield Item("price_missing", INFO, fix="price")

    def _time(self) -> Iterator[Item]:
        row = self.row
        zone = row.timezone if row.send_at and row.state in ("draft", "scheduled") else None
        if zone:  # the end, which stands below it, is told in the same zone
            yield Item("begins", OK, {"at": row.send_at, "zone": zone}, "time")
        if self.queued:
            rate = broadcasts.effective_rate(row)
            facts = {"at": self.ahead.end, "rate": rate, "slower": rate < row.rate_per_minute, "zone": zone}
            yield Item("ends", OK, facts, "rate")
        if self.hours is not None:
            facts = {"start": self.hours[0], "stop": self.hours[1], "n": self.ahead.waiting}
            yield Item("quiet", WARN if self.ahead.waiting else INFO, facts, "quiet")
            if self.zones is None:
                yield Item("zones_unknown", INFO, {"zone": row.timezone}, "recipients")
            else:
                counts = {source: names.total() for source, names in self.zones.items()}
                yield Item("zones", INFO, {**counts, "zone": row.timezone})
        for room in self.rooms:
            over = max(0, self.queued - room.left)
            days = -(-over // room.limit)
            facts = {"limit": room.limit, "left": room.left, "n": over, "at": room.frees_at, "days": days}
            yield Item("daily_limit", WARN if over else OK, facts, "channel_page")

    def _template(self) -> Iterator[Item]:
        found = broadcasts.template_of(self.row)
        if found is None or self.channel is None:
            return
        at = self.channel.templates_synced_at
        stale = at is None or clock.now() - at > STALE
        if found.status == "APPROVED":
            yield Item("template_stale" if stale else "template", WARN if stale else OK, {"at": at}, "templates")
        if found.quality and found.quality.upper() not in GOOD:
            yield Item("template_quality", WARN, {"quality": found.quality}, "channel_page")
        yield Item("category", INFO, {"category": found.category})

    def _health(self, one: Channel) -> Iterator[Item]:
        now = clock.now()
        if one.state != "on":
            yield Item("channel_off", WARN, {"cause": one.stop_reason, "detail": one.stop_detail}, "channel_page")
        elif one.opened_at is not None:
            yield Item("channel_silent", WARN, {"at": one.opened_at}, "channel_page")
        elif one.slow_until > now:
            yield Item("channel_slow", WARN, {"at": one.slow_until}, "channel_page")
        else:
            yield Item("channel", OK, {"at": channel_health.last_sent(one.id)}, "channel_page")
        if one.quality and one.quality.upper() not in GOOD:
            yield Item("channel_quality", WARN, {"quality": one.quality}, "channel_page")
        if not delivery.worker_alive():
            yield Item("worker", WARN)

    def _replies(self, one: Channel) -> Iterator[Item]:
        provider, answerable = PROVIDERS[one.provider], channels.answerable(self.settings, one)
        if answerable is None:
            yield Item("channel_locked", WARN, fix="channel_page")
        else:
            name = "inbound" in provider.supports
            yield Item("answerable", OK) if answerable else Item("unanswerable", WARN, {"name": name}, "channel_page")
        if not (self.settings.base_url or self.sandbox or provider.line) and provider.supports & {"reports", "inbound"}:
            yield Item("no_base_url", WARN)
