"""Quiet hours: in which time zone a person lives, and until when they are left in peace there.

The zone is what the file says, else what the number says, else the broadcast's. A number says something only
where the metadata knows one time for it: a Russian mobile number keeps its digits wherever its owner moves.
"""

from __future__ import annotations

import re
import zoneinfo
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from typing import NamedTuple

import phonenumbers
from phonenumbers.timezone import time_zones_for_number

from worker import clock
from worker.rendering import column_key

COLUMN, NUMBER, BROADCAST = "column", "number", "broadcast"  # where a zone is known from
DAY = 24 * 60  # minutes
MOSCOW = 3 * 60  # minutes ahead of UTC; zones of Russia are also told as hours from Moscow
COLUMN_NAMES = frozenset(
    column_key(name)
    for name in (
        "timezone",
        "time zone",
        "tz",
        "utc",
        "utc offset",
        "gmt",
        "часовой пояс",
        "часовая зона",
        "временная зона",
        "пояс",
        "таймзона",
    )
)
# "UTC+7", "МСК+4 (UTC+7)", "(UTC+07:00) Красноярск", "+7", and "7" or "7:00:00", which Excel makes of "+7" and "+7:00".
_OFFSET = re.compile(
    r"\(?(?P<base>utc|gmt|[mм][sсc][kк]|z)? ?(?:(?P<sign>[+\-−–]) ?)?(?:(?P<hours>\d{1,2})(?::?(?P<minutes>[0-5]\d)"
    r"(?::00)?)?)?(?: ?\(.*|\).*)?"
)
_WESTMOST, _EASTMOST = -12 * 60, 14 * 60
# The owner of such a number may live in any of eleven zones. Said here as well, for most lists hold little else.
_ANYWHERE = "+79"
_PLACED_MAX = 20_000
_placed: dict[str, str] = {}  # number without its last three digits, which place nobody → zone


class Zone(NamedTuple):
    """A time zone for `held_until`, and where it is known from: COLUMN, NUMBER or BROADCAST."""

    name: str
    source: str


def zone(phone: str, given: str, default: str) -> Zone:
    """The time zone of one recipient. `phone`: E.164; `given`: the cell of the zone column, or empty;
    `default`: the broadcast's zone, which counts where neither says anything that can be understood."""
    name = _read(given.strip()) if given else ""
    if name:
        return Zone(name, COLUMN)
    name = "" if phone.startswith(_ANYWHERE) else _of_number(phone)
    return Zone(name, NUMBER) if name else Zone(default, BROADCAST)


def zone_column(columns: Sequence[str]) -> int | None:
    """Which of these columns of a file holds the time zone; None when none does."""
    return next((at for at, name in enumerate(columns) if column_key(name) in COLUMN_NAMES), None)


def zones(phones: Sequence[str]) -> Counter[Zone]:
    """How many of these people, of whom no file says it, live in which zone; the broadcast's stands there as ""."""
    found = Counter(zone(phone, "", "") for phone in phones if not phone.startswith(_ANYWHERE))
    found[Zone("", BROADCAST)] += len(phones) - found.total()
    return found


def ahead(zone_name: str, at_ms: int) -> int:
    """How many minutes the clocks of a zone are ahead of UTC at that moment."""
    offset = clock.utc(at_ms).astimezone(_place(zone_name)).utcoffset()
    return round(offset.total_seconds() / 60) if offset is not None else 0


def held_until(now_ms: int, zone_name: str, quiet_from: int, quiet_to: int) -> int | None:
    """When the quiet hours end in which somebody in this zone is at `now_ms`, both in ms; None outside of them.

    `quiet_from` and `quiet_to` are minutes after midnight there and may lie on both sides of it; equal ones
    mean none at all. Hours that a change of the clocks skips or repeats count as the clock on the wall shows.
    """
    place = _place(zone_name)
    local = clock.utc(now_ms).astimezone(place)
    minute = local.hour * 60 + local.minute
    over_midnight = quiet_from > quiet_to
    evening, morning = minute >= quiet_from, minute < quiet_to
    if not (evening or morning if over_midnight else evening and morning):
        return None
    end = datetime(local.year, local.month, local.day) + timedelta(minutes=quiet_to)
    if over_midnight and evening:
        end += timedelta(days=1)
    first = clock.of_local(end, place)
    return first if first > now_ms else clock.of_local(end.replace(fold=1), place)


@cache
def _place(name: str) -> tzinfo:
    """The zone of this name; "UTC+5:30" is a name as well."""
    minutes = _minutes(name.casefold())
    return zoneinfo.ZoneInfo(name) if minutes is None else timezone(timedelta(minutes=minutes))


@lru_cache(4_096)
def _read(given: str) -> str:
    """A cell of the zone column as the name of a zone; empty when it cannot be understood."""
    text = " ".join(given.casefold().split())
    minutes = _minutes(text)
    if minutes is None:
        return _known().get(text.replace(" ", "_"), "")
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02d}" if rest else "")


def _minutes(text: str) -> int | None:
    """How far ahead of UTC a written offset is; None when this is none."""
    found = _OFFSET.fullmatch(text)
    if found is None or not (found["base"] or found["hours"]) or (found["sign"] and not found["hours"]):
        return None
    ahead = int(found["hours"] or 0) * 60 + int(found["minutes"] or 0)
    if found["sign"] and found["sign"] != "+":
        ahead = -ahead
    if found["base"] and found["base"][0] in "mм":
        ahead += MOSCOW
    return ahead if _WESTMOST <= ahead <= _EASTMOST else None


@cache
def _known() -> dict[str, str]:
    """The zones of the tz database by their names in lower case."""
    names = zoneinfo.available_timezones() - {"Factory", "localtime"}
    return {name.casefold(): name for name in names}


def _of_number(phone: str) -> str:
    """The zone that the metadata gives a number; empty when its owner may live by several times."""
    prefix = phone[:-3]
    found = _placed.get(prefix)
    if found is None:
        if len(_placed) >= _PLACED_MAX:
            _placed.clear()
        found = _placed[prefix] = _look_up(phone)
    return found


def _look_up(phone: str) -> str:
    try:
        names: tuple[str, ...] = time_zones_for_number(phonenumbers.parse(phone))
    except phonenumbers.NumberParseException:
        return ""
    known = all(name.casefold() in _known() for name in names)
    return names[0] if known and len({_year(name) for name in names}) == 1 else ""


@cache
def _year(name: str) -> tuple[timedelta | None, ...]:
    """How far ahead of UTC a zone is in each month of this year: zones that agree in it are one."""
    year, place = clock.utc(clock.now()).year, _place(name)
    return tuple(datetime(year, month, 15, tzinfo=UTC).astimezone(place).utcoffset() for month in range(1, 13))
