"""The circuit breaker: it opens on a provider in trouble, probes, and closes by a good probe alone."""

from __future__ import annotations

import pytest

from worker import breaker, clock
from worker.breaker import GOOD, LINE, UNCLEAR, Breaker

NOW = 1_000_000_000_000


def plain(results: str) -> list[tuple[str, bool]]:
    return [(result, False) for result in results]


@pytest.mark.parametrize(
    ("results", "is_open"),
    [
        ("uuuu", False),
        ("uuuuu", True),
        ("ululu", True),
        ("uuuu.uuuu", False),
        ("u." * 9, False),
        ("u." * 10, True),  # ten of the last twenty
        ("." * 20 + "uuuu", False),
        ("", False),
    ],
)
def test_it_opens_after_five_in_a_row_or_ten_of_twenty(results: str, is_open: bool) -> None:
    assert Breaker().after(plain(results), NOW).is_open is is_open


def test_only_twenty_results_are_remembered() -> None:
    assert len(Breaker().after(plain(GOOD * 100), NOW).recent) == breaker.WINDOW


def test_a_probe_is_due_sooner_when_nothing_was_sent() -> None:
    unclear = Breaker().after(plain(UNCLEAR * 5), NOW)
    line = Breaker().after(plain(LINE * 5), NOW)
    assert unclear.probe_at - NOW == breaker.PROBE_UNCLEAR and line.probe_at - NOW == breaker.PROBE_LINE


def test_what_was_in_flight_neither_closes_nor_delays_it() -> None:
    opened = Breaker().after(plain(UNCLEAR * 5), NOW)
    assert opened.after(plain("..uu."), NOW + 1) == opened


def test_a_good_probe_closes_it_and_a_bad_one_does_not() -> None:
    opened = Breaker().after(plain(LINE * 5), NOW)
    assert opened.after([(UNCLEAR, True)], NOW).is_open
    assert opened.after([(GOOD, True)], NOW) == Breaker()


def test_the_next_probe_follows_the_kind_of_the_last_failure() -> None:
    opened = Breaker().after(plain(LINE * 5), NOW).after([(UNCLEAR, True)], NOW)
    assert opened.probed(NOW).probe_at - NOW == breaker.PROBE_UNCLEAR


def test_after_half_an_hour_of_probes_a_person_has_to_look() -> None:
    opened = Breaker().after(plain(UNCLEAR * 5), NOW)
    for minute in range(1, 30):
        opened = opened.probed(NOW + minute * clock.MINUTE)
    assert not opened.is_hopeless(NOW + 29 * clock.MINUTE) and opened.is_hopeless(NOW + 30 * clock.MINUTE)
    assert not Breaker().is_hopeless(NOW)


def test_time_without_probes_proves_nothing() -> None:
    opened = Breaker().after(plain(UNCLEAR * 5), NOW)
    later = NOW + 5 * clock.HOUR  # nothing was to be sent, or the worker was down
    assert not opened.is_hopeless(later) and opened.is_due(later)
    assert opened.probed(later).is_hopeless(later + 1)  # and one more bad probe is enough


def test_a_clock_that_was_set_back_does_not_put_the_probe_off() -> None:
    opened = Breaker().after(plain(UNCLEAR * 5), NOW)
    assert not opened.is_due(NOW) and opened.is_due(NOW + breaker.PROBE_UNCLEAR)
    assert opened.is_due(NOW - 2 * clock.HOUR)
