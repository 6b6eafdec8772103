"""Jinja filters: values of the tables as people read them, in the language of the request.

Everything numeric and dated goes through Babel; nothing is formatted by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from babel import dates
from babel.dates import get_timezone_location
from babel.numbers import format_percent
from flask_babel import (
    format_currency,
    format_datetime,
    format_decimal,
    format_timedelta,
    get_locale,
    get_timezone,
)
from flask_babel import gettext as _

from webapp import markup, words
from worker import clock

NO_BREAK = "\u00a0"
NEAR = 10 * clock.MINUTE
UNITS = ("KB", "MB", "GB")


def number(value: float) -> str:
    """1234 → "1 234" or "1,234"."""
    return str(format_decimal(value))


def percent(part: float, whole: float) -> str:
    """The share of `part` in `whole` with at most one decimal; a dash when there is no whole.

    Never rounds up to 100 or down to 0: "100 %" must mean all of them.
    """
    if not whole:
        return "–"
    share = round(100 * part / whole, 1)
    if part and not share:
        share = 0.1
    elif share == 100 and part != whole:
        share = 99.9
    return str(format_percent(Decimal(str(share)) / 100, locale=get_locale(), decimal_quantization=False))


def money(value: float, currency: str | None) -> str:
    """120.5 and "RUB" → "120,50 ₽"; a plain number where the currency is not known."""
    if not currency:
        return number(round(value, 2))
    # A code of letters stands apart from the figures; a sign stands where the language puts it.
    return re.sub(r"(?<=[A-Z]{3})(?=\d)", NO_BREAK, str(format_currency(value, currency)))


def filesize(size: int) -> str:
    """Bytes as people count them: 10485760 → "10 MB"."""
    value, unit = float(size), ""
    for unit in UNITS:  # noqa: B007
        value /= 1024
        if value < 1024:
            break
    names = {"KB": _("KB"), "MB": _("MB"), "GB": _("GB")}
    digits = 1 if value < 10 and unit != "KB" else 0
    return f"{format_decimal(round(value, digits) if digits else max(1, round(value)))}{NO_BREAK}{names[unit]}"


def moment(ms: int, zone: str | None = None) -> datetime:
    """A timestamp of the tables in the time zone of the page, or in `zone`."""
    return clock.utc(ms).astimezone(ZoneInfo(zone) if zone else get_timezone())


def when(ms: int | None, form: str = "medium") -> str:
    """The exact moment: "5 Nov 2026, 14:05:09". `form` is short, medium or long; a dash for None."""
    return "–" if ms is None else str(format_datetime(clock.utc(ms), form))


def at(ms: int | None, zone: str | None = None) -> str:
    """The moment as briefly as today allows: "14:05", "5 Nov, 14:05", "5 Nov 2025, 14:05"; in `zone`, if given."""
    if ms is None:
        return "–"
    then, today = moment(ms, zone), moment(clock.now(), zone)
    time = dates.format_time(then, "short", locale=get_locale())
    if then.date() == today.date():
        return str(time)
    skeleton = "MMMd" if then.year == today.year else "yMMMd"
    return f"{dates.format_skeleton(skeleton, then, locale=get_locale())}, {time}"


def zone_name(zone: str, ms: int | None = None) -> str:
    """A time zone as people know it: "Moscow, UTC+3", with the offset it has at that moment."""
    offset = clock.utc(ms or clock.now()).astimezone(ZoneInfo(zone)).utcoffset()
    minutes = int(offset.total_seconds() // 60) if offset is not None else 0
    hours, rest = divmod(abs(minutes), 60)
    utc = "UTC" + (f"{'+' if minutes > 0 else '−'}{hours}" if minutes else "") + (f":{rest:02d}" if rest else "")
    if zone == "UTC":
        return utc
    return f"{get_timezone_location(zone, locale=get_locale(), return_city=True)}, {utc}"


def until(ms: int) -> str:
    """The moment up to which something waits: with seconds while it is near, else as `at`."""
    if abs(ms - clock.now()) < NEAR:
        return str(dates.format_time(moment(ms), "medium", locale=get_locale()))
    return at(ms)


def exact(ms: int) -> str:
    """The moment to the second, with its day when that is another one: "14:05:09"."""
    then = moment(ms)
    if then.date() != moment(clock.now()).date():
        return when(ms)
    return str(dates.format_time(then, "medium", locale=get_locale()))


def duration(ms: int) -> str:
    """A length of time in its largest unit: "3 minutes"."""
    return str(format_timedelta(timedelta(milliseconds=ms), threshold=0.95))


def ago(ms: int | None) -> str:
    """How long since, or until, that moment: "3 minutes ago", "in 2 hours"."""
    if ms is None:
        return "–"
    delta = timedelta(milliseconds=ms - clock.now())
    return str(format_timedelta(delta, add_direction=True, threshold=0.95))


def left(ms: int) -> str:
    """How long until that moment, in a unit of which there are two at least: "23 hours", "84 minutes"."""
    return str(format_timedelta(timedelta(milliseconds=max(ms - clock.now(), 0)), threshold=2))


def phone(e164: str) -> str:
    """+79001234567 → "+7 900 123-45-67"."""
    try:
        parsed = phonenumbers.parse(e164, None)
    except phonenumbers.NumberParseException:
        return e164
    spaced = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    return spaced.replace(" ", NO_BREAK)


def masked(e164: str) -> str:
    """+79001234501 → "+7900•••••01": for titles, logs and lists of causes."""
    if len(e164) < 8:
        return "•" * len(e164)
    return f"{e164[:5]}{'•' * (len(e164) - 7)}{e164[-2:]}"


# The first that is found wins: most browsers name others as well.
_BROWSERS = ("Firefox", "YaBrowser", "Edg", "OPR", "Chrome", "Safari")
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")
_NAMES = {"Edg": "Edge", "OPR": "Opera", "YaBrowser": "Yandex", "Mac OS": "macOS"}


def browser(agent: str) -> str:
    """A browser as its user knows it: "Firefox, Windows"; said in words when it is a stranger."""
    seen = [next((_NAMES.get(n, n) for n in names if n in agent), "") for names in (_BROWSERS, _SYSTEMS)]
    return ", ".join(filter(None, seen)) or str(_("Unknown browser"))


def last_words(text: str) -> str:
    """What a list of conversations shows of the last message: its beginning, or what it is when it has no words."""
    kind = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
    return str(words.INBOUND_KINDS.get(kind, text))


def country(code: str) -> str:
    """A country as people name it, with its code: "Russia (RU)"."""
    locale = get_locale()
    name = locale.territories.get(code) if locale else None
    return f"{name} ({code})" if name else code


def own_name(name: str) -> str:
    """The name of a channel or provider; those of the sandbox in the reader's language."""
    return str(words.PROVIDERS.get(name, name))


FILTERS: dict[str, Callable[..., Any]] = {
    "own_name": own_name,
    "country": country,
    "last_words": last_words,
    "number": number,
    "chat": markup.chat,
    "percent": percent,
    "money": money,
    "filesize": filesize,
    "when": when,
    "at": at,
    "zone_name": zone_name,
    "exact": exact,
    "ago": ago,
    "left": left,
    "duration": duration,
    "phone": phone,
    "masked": masked,
    "browser": browser,
    "iso": clock.iso,
}
