"""What an HTTP status means when the vendor says nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from worker.providers.base import LATER, REFUSED, STOP_CHANNEL, UNCLEAR
from worker.providers.http import classify_http, excerpt, json_object, mask_digits, seconds, shown


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_no_error(status: int) -> None:
    assert classify_http(status) is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (301, STOP_CHANNEL),
        (302, STOP_CHANNEL),
        (308, STOP_CHANNEL),
        (400, REFUSED),
        (401, STOP_CHANNEL),
        (402, STOP_CHANNEL),
        (403, STOP_CHANNEL),
        (404, REFUSED),
        (408, UNCLEAR),
        (422, REFUSED),
        (429, LATER),
        (500, UNCLEAR),
        (502, UNCLEAR),
        (503, UNCLEAR),
        (504, UNCLEAR),
        (599, UNCLEAR),
    ],
)
def test_every_status_has_one_meaning(status: int, outcome: str) -> None:
    error = classify_http(status)
    assert error is not None
    assert (error.outcome, error.cause, error.http_status) == (outcome, f"http_{status}", status)
    assert error.about_message == (outcome == REFUSED)


def test_429_slows_the_whole_channel_and_costs_no_try() -> None:
    error = classify_http(429, "30")
    assert error is not None
    assert (error.retry_after, error.slow_channel, error.counts, error.breaker) == (30.0, True, False, False)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("3", 3.0),
        (" 1.5 ", 1.5),
        ("-4", 0.0),
        ("99999999", 86400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Thu, 05 Nov 2026 09:00:30 GMT", 30.0),
        ("Thu, 05 Nov 2026 08:00:00 GMT", 0.0),
        ("Thu, 99 Nov 2026 08:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(clock: Any, header: str | None, wait: float | None) -> None:
    assert seconds(header) == wait


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"{", b"\xff", b"[" * 100_000, b'"text"'])
def test_what_is_no_object_is_none(body: bytes) -> None:
    assert json_object(body) is None


def test_an_excerpt_is_short_and_names_nobody() -> None:
    body = b"<p>No account for +7 (900) 123-45-67 or 79001234568</p>\n" + b"x" * 5000
    shown = excerpt(body)
    assert len(shown) <= 500
    assert "…67" in shown
    assert "…68" in shown
    assert "123" not in shown


def test_a_secret_is_covered_before_its_digits_or_its_end_can_go() -> None:
    secret = "k3y-12345678-end"
    assert shown(f"bad {secret}, call +79001234567", [secret]) == "bad •••, call …67"
    assert "k3y" not in shown("x" * 490 + secret, [secret])
    assert "k3y" not in excerpt(b" " * 1980 + b"no: k3y-12345678-end" + b"x" * 5000, [secret])


def test_short_numbers_stay_readable() -> None:
    assert mask_digits("error 131026, 400") == "error 131026, 400"
