"""The pace: never more than N in any 60 seconds, never a burst, never a stall after a jump of the clock."""

from __future__ import annotations

import pytest

from worker import throttle

SECOND = 1_000_000


@pytest.mark.parametrize("rate", [1, 7, 60, 600, 6_000, 60_000])
def test_no_sixty_second_window_holds_more_than_the_rate(rate: int) -> None:
    step = throttle.interval(rate)
    # The worst case: every slot used, the first message late by all the credit there is.
    assert (60 * SECOND + throttle.CREDIT) // step + 1 <= rate or rate * step > 60 * SECOND + throttle.CREDIT


@pytest.mark.parametrize("rate", [60, 600, 6_000, 60_000])
def test_it_reaches_at_least_98_percent_of_the_rate(rate: int) -> None:
    assert 60 * SECOND / throttle.interval(rate) >= 0.98 * rate


def test_a_long_pause_gives_no_burst() -> None:
    step = throttle.interval(600)
    slot = throttle.anchor(0, step, 10**15)
    assert throttle.due(slot, step, 10**15) == 1


def test_a_clock_that_jumped_back_does_not_stall_the_broadcast() -> None:
    step, now = throttle.interval(600), 10**15
    slot = throttle.anchor(now + 7_200 * SECOND, step, now)
    assert slot == now + step


def test_a_raised_rate_counts_from_now() -> None:
    slow, quick, now = throttle.interval(1), throttle.interval(6_000), 10**15
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
