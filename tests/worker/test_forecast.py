"""When a broadcast would end."""

from __future__ import annotations

import pytest

from worker.channel_health import Room
from worker.forecast import forecast

NIGHT = (21 * 60, 9 * 60)
HOUR = 3_600_000


def hours(noon: int, people: dict[str, int], *more: object) -> tuple[float, int]:
    found = forecast(noon, people, 60, *more)  # type: ignore[arg-type]
    return (found.end - noon) / HOUR, found.waiting


@pytest.mark.parametrize(
    ("people", "night", "expected"),
    [
        ({"Europe/Moscow": 600}, None, (1 / 6, 0)),
        ({"Europe/Moscow": 600}, NIGHT, (1 / 6, 0)),
        # nine hours until the evening, then twelve of the night, then one more
        ({"Europe/Moscow": 36_000}, NIGHT, (22, 3_600)),
        # in Kamchatka it is nine in the evening already
        ({"Asia/Kamchatka": 600}, NIGHT, (12 + 1 / 6, 600)),
        # while these wait, the others have the whole rate
        ({"Asia/Kamchatka": 600, "Europe/Moscow": 600}, NIGHT, (12 + 1 / 6, 600)),
        ({"Europe/Moscow": 600}, (720, 720), (1 / 6, 0)),
    ],
)
def test_quiet_hours_hold_people_by_their_own_clock(
    clock_now: int, people: dict[str, int], night: tuple[int, int] | None, expected: tuple[float, int]
) -> None:
    end, waiting = hours(clock_now, people, night)
    assert (pytest.approx(end), waiting) == expected


def test_a_daily_limit_makes_days_of_it(clock_now: int) -> None:
    room = Room(limit=250, gone=50, since=clock_now - HOUR)
    assert hours(clock_now, {"UTC": 200}, None, [room]) == (pytest.approx(200 / 3_600), 0)
    # 200 today, 250 on each of the next three days, 50 on the fourth
    assert hours(clock_now, {"UTC": 1_000}, None, [room]) == (pytest.approx(4 * 24 + 50 / 3_600), 0)


def test_a_list_for_months_is_counted_in_no_time(clock_now: int) -> None:
    end, waiting = hours(clock_now, {"Europe/Moscow": 100_000_000, "Asia/Tokyo": 5}, NIGHT)
    assert end > 50_000 and waiting > 99_000_000
