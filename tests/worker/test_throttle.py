"""The pace: never more than N in any 60 seconds, never a burst, never a stall after a jump of the clock."""

from __future__ import annotations

import random

import pytest

from worker import throttle

SECOND = 1_000_000


@pytest.mark.parametrize("rate", [1, 7, 60, 600, 6_000, 60_000])
def test_no_sixty_second_window_holds_more_than_the_rate(rate: int) -> None:
    pace, step = throttle.SHARED, throttle.SHARED.interval(rate)
    # The worst case without a window: every slot used, the first message late by all the credit there is.
    assert (60 * SECOND + pace.credit) // step + 1 <= rate or rate * step > 60 * SECOND + pace.credit


@pytest.mark.parametrize("rate", [1, 60, 600, 6_000])
@pytest.mark.parametrize("seed", range(3))
def test_nor_when_disks_and_lines_are_slow_and_the_clock_jumps(rate: int, seed: int) -> None:
    """Ten minutes of turns, some late, of departures, some late, and of a clock that jumps forward and back."""
    chance, pace = random.Random(seed), throttle.ALONE
    window, step = throttle.Window(), pace.interval(rate)
    now = watched = 1_000.0  # monotonic
    wall, slot = 10**15, 0
    left: list[float] = []
    while now < 1_600.0:
        passed = chance.choice([0.005, 0.005, 0.02, 0.1]) + (chance.random() < 0.0005) * 3
        now += passed
        wall += int(passed * 1e6) + (chance.random() < 0.0005) * chance.choice([-7_200, 7_200]) * SECOND
        slot = throttle.anchor(slot, step, wall, pace.credit_since(watched, now))
        watched = now
        n = min(throttle.due(slot, step, wall), window.free(rate, 60, now))
        slot += step * n
        for _ in range(n):
            departure = throttle.Departure()
            departure.at = now + (chance.random() < 0.01) * chance.random() * 2
            window.add(departure)
            left.append(departure.at)
    left.sort()
    assert all(later - earlier >= 60 for earlier, later in zip(left, left[rate:], strict=False))
    assert len(left) >= 0.9 * rate * 10  # three seconds of stall now and then are lost, not made up for by a burst


@pytest.mark.parametrize("rate", [60, 600, 6_000, 60_000])
@pytest.mark.parametrize("pace", [throttle.ALONE, throttle.SHARED])
def test_it_reaches_at_least_98_percent_of_the_rate(rate: int, pace: throttle.Pace) -> None:
    assert 60 * SECOND / pace.interval(rate) >= 0.98 * rate


def test_a_long_pause_gives_no_burst() -> None:
    step = throttle.ALONE.interval(600)
    slot = throttle.anchor(0, step, 10**15)
    assert throttle.due(slot, step, 10**15) == 1


def test_a_clock_that_jumped_back_does_not_stall_the_broadcast() -> None:
    step, now = throttle.ALONE.interval(600), 10**15
    slot = throttle.anchor(now + 7_200 * SECOND, step, now)
    assert slot == now + step


def test_a_raised_rate_counts_from_now() -> None:
    slow, quick, now = throttle.ALONE.interval(1), throttle.ALONE.interval(6_000), 10**15
    assert throttle.anchor(now + slow, quick, now) == now + quick


def test_broadcasts_on_one_channel_share_it_fairly() -> None:
    assert throttle.share([10, 10], 10) == [5, 5]
    assert throttle.share([2, 10], 10) == [2, 8]
    assert throttle.share([1, 1, 1], 2, first=2) == [1, 0, 1]
    assert throttle.share([], 5) == []


# --- what really left -------------------------------------------------------------------------------


def left(window: throttle.Window, *moments: float | None) -> list[throttle.Departure]:
    found = []
    for at in moments:
        found.append(throttle.Departure())
        found[-1].at = at
        window.add(found[-1])
    return found


def test_no_more_leave_than_the_window_has_room_for() -> None:
    window = throttle.Window()
    left(window, 0.0, 10.0, 59.0)
    assert window.free(4, 60, 59.5) == 1
    assert window.free(3, 60, 59.5) == 0
    assert window.frees_at(60, 59.5) == 60.0
    assert window.free(3, 60, 60.0) == 1
    assert window.free(2, 60, 60.0) == 0  # the rate was lowered


def test_what_was_claimed_and_has_not_left_yet_counts_as_leaving_now() -> None:
    window = throttle.Window()
    (late,) = left(window, None)
    assert window.free(1, 60, 100.0) == 0
    late.at = 95.0  # a slow connection: claimed at 40, gone at 95
    assert window.free(1, 60, 100.0) == 0 and window.free(1, 60, 155.0) == 1


def test_what_never_left_makes_room_at_once() -> None:
    window = throttle.Window()
    first, second, _third = left(window, None, None, 5.0)
    window.drop(second)
    assert window.free(3, 60, 6.0) == 1
    window.drop(first)
    assert window.free(3, 60, 6.0) == 2 and len(window) == 1
    assert window.free(3, 60, 66.0) == 3
