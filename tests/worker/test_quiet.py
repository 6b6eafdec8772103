"""Quiet hours: where a person lives, and until when they are left in peace."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from phonenumbers.timezone import time_zones_for_number

from worker import quiet
from worker.quiet import BROADCAST, COLUMN, NUMBER, held_until, zone, zone_column

HOUR = 60


def at(text: str, place: str) -> int:
    """A local time there, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(place)).timestamp() * 1000)


# --- the zone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Asia/Vladivostok", "Asia/Vladivostok"),
        (" asia/vladivostok ", "Asia/Vladivostok"),
        ("America/New York", "America/New_York"),
        ("UTC+7", "UTC+7"),
        ("utc + 7", "UTC+7"),
        ("GMT-3", "UTC-3"),
        ("UTC−3:30", "UTC-3:30"),
        ("+7", "UTC+7"),
        ("+07:00", "UTC+7"),
        ("+0530", "UTC+5:30"),
        ("7", "UTC+7"),
        ("7:00:00", "UTC+7"),
        ("UTC", "UTC+0"),
        ("Z", "UTC+0"),
        ("МСК", "UTC+3"),
        ("мск+4", "UTC+7"),
        ("МСК–1", "UTC+2"),
        ("MSK+4", "UTC+7"),
        ("МСК+4 (UTC+7)", "UTC+7"),
        ("(UTC+07:00) Красноярск", "UTC+7"),
    ],
)
def test_a_zone_column_is_read_as_people_write_it(given: str, name: str) -> None:
    assert zone("+79161234567", given, "Europe/Moscow") == (name, COLUMN)
    assert held_until(at("2026-11-05T12:00", "Europe/Moscow"), name, 0, 0) is None  # every name can be used


@pytest.mark.parametrize(
    "given",
    ["", "  ", "Владивосток", "+", "UTC+", "UTC+15", "-13", "+7:75", "77", "+7916", "../../etc/passwd", "localtime"],
)
def test_a_cell_that_says_no_zone_says_nothing(given: str) -> None:
    assert zone("+79161234567", given, "Europe/Samara") == ("Europe/Samara", BROADCAST)


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("+74951234567", ("Europe/Moscow", NUMBER)),
        ("+74232123456", ("Asia/Vladivostok", NUMBER)),
        ("+998901234567", ("Asia/Tashkent", NUMBER)),
        ("+12125550123", ("America/New_York", NUMBER)),
        ("+79241234567", ("Asia/Omsk", BROADCAST)),  # a Far Eastern range, and its owner may live anywhere
        ("+77012345678", ("Asia/Omsk", BROADCAST)),
        ("not a number", ("Asia/Omsk", BROADCAST)),
    ],
)
def test_a_number_places_its_owner_only_where_it_surely_does(phone: str, expected: tuple[str, str]) -> None:
    assert zone(phone, "", "Asia/Omsk") == expected


def test_zones_by_the_same_clock_are_one() -> None:
    number = next(
        n
        for region in ("GB", "DE", "US", "CH", "ES")
        if (n := phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE))
        and len(time_zones_for_number(n)) > 1
        and len({quiet._year(name) for name in time_zones_for_number(n)}) == 1
    )
    found = zone(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), "", "Asia/Omsk")
    assert found == (time_zones_for_number(number)[0], NUMBER)


def test_the_short_way_by_prefix_is_the_answer_of_the_metadata() -> None:
    chance = random.Random(5)
    examples = [
        phonenumbers.example_number_for_type(region, kind)
        for region in ("RU", "KZ", "US", "CA", "BR", "AU", "MX", "ID", "PT", "ES", "CL", "GL", "NZ")
        for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
    ]
    asked = 0
    for _again in range(6_000):
        known = phonenumbers.format_number(chance.choice(examples), phonenumbers.PhoneNumberFormat.E164)
        cut = chance.randrange(4, len(known) - 3)
        phone = known[:cut] + "".join(chance.choice("0123456789") for _ in known[cut:])
        number = phonenumbers.parse(phone)
        if not phonenumbers.is_valid_number(number):
            continue
        asked += 1
        expected = quiet._look_up(phone)
        assert zone(phone, "", "X") == ((expected, NUMBER) if expected else ("X", BROADCAST)), phone
    assert asked > 2_000


@pytest.mark.parametrize(
    ("columns", "at"),
    [
        (["phone", "name"], None),
        (["Телефон", "Часовой пояс"], 1),
        (["time-zone", "phone"], 0),
        (["phone", "TimeZone"], 1),
        (["phone", "пояс", "tz"], 1),
        (["phone", "zone"], None),  # of delivery, more often than of time
    ],
)
def test_the_zone_column_is_found_by_its_name(columns: list[str], at: int | None) -> None:
    assert zone_column(columns) == at


# --- the hours --------------------------------------------------------------------------------------

MOSCOW = "Europe/Moscow"


@pytest.mark.parametrize(
    ("now", "quiet_from", "quiet_to", "until"),
    [
        ("2026-11-05T20:59", 21 * HOUR, 9 * HOUR, None),
        ("2026-11-05T21:00", 21 * HOUR, 9 * HOUR, "2026-11-06T09:00"),
        ("2026-11-06T00:00", 21 * HOUR, 9 * HOUR, "2026-11-06T09:00"),
        ("2026-11-06T08:59:59", 21 * HOUR, 9 * HOUR, "2026-11-06T09:00"),
        ("2026-11-06T09:00", 21 * HOUR, 9 * HOUR, None),
        ("2026-11-05T13:10", 13 * HOUR, 14 * HOUR, "2026-11-05T14:00"),
        ("2026-11-05T14:00", 13 * HOUR, 14 * HOUR, None),
        ("2026-12-31T23:30", 22 * HOUR, 0, "2027-01-01T00:00"),
        ("2026-11-05T12:00", 9 * HOUR, 9 * HOUR, None),
    ],
)
def test_who_sleeps_is_held_until_the_hours_end(now: str, quiet_from: int, quiet_to: int, until: str | None) -> None:
    assert held_until(at(now, MOSCOW), MOSCOW, quiet_from, quiet_to) == (until and at(until, MOSCOW))


def test_everybody_sleeps_by_their_own_clock() -> None:
    noon_in_moscow = at("2026-11-05T12:00", MOSCOW)
    held = {
        name: held_until(noon_in_moscow, name, 21 * HOUR, 9 * HOUR)
        for name in (MOSCOW, "Asia/Kamchatka", "UTC+12", "America/New_York")
    }
    morning = at("2026-11-06T09:00", "Asia/Kamchatka")
    assert held == {
        MOSCOW: None,
        "Asia/Kamchatka": morning,
        "UTC+12": morning,
        "America/New_York": at("2026-11-05T09:00", "America/New_York"),
    }


@pytest.mark.parametrize(
    ("place", "day"),
    [
        ("Europe/Berlin", "2026-03-28"),
        ("Europe/Berlin", "2026-10-24"),
        ("America/New_York", "2026-03-07"),
        ("America/New_York", "2026-10-31"),
        ("Australia/Lord_Howe", "2026-04-04"),  # half an hour
        ("Australia/Lord_Howe", "2026-10-03"),
    ],
)
@pytest.mark.parametrize(
    ("quiet_from", "quiet_to"),
    [(21 * HOUR, 9 * HOUR), (23 * HOUR, 2 * HOUR + 30), (30, 2 * HOUR + 10), (22 * HOUR, 0)],
)
def test_a_change_of_the_clocks_moves_the_end_with_it(place: str, day: str, quiet_from: int, quiet_to: int) -> None:
    """Held against the clock on the wall, minute by minute."""
    begin = datetime.fromisoformat(f"{day}T18:00").replace(tzinfo=ZoneInfo(place)).astimezone(UTC)
    minutes = [begin + timedelta(minutes=n) for n in range(24 * HOUR)]

    def asleep(moment: datetime) -> bool:
        local = moment.astimezone(ZoneInfo(place))
        minute = local.hour * HOUR + local.minute
        if quiet_from < quiet_to:
            return quiet_from <= minute < quiet_to
        return minute >= quiet_from or minute < quiet_to

    following: datetime | None = None
    seen = 0
    for moment in reversed(minutes):
        if not asleep(moment):
            following = moment
            assert held_until(int(moment.timestamp() * 1000), place, quiet_from, quiet_to) is None
        elif following is not None:
            seen += 1
            held = held_until(int(moment.timestamp() * 1000), place, quiet_from, quiet_to)
            assert held == following.timestamp() * 1000, moment
    assert seen > 60
