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
