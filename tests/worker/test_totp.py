"""The codes are those of RFC 6238, each good once and for about a minute."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Clock
from worker import totp

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_the_rfc(second: int, code: str) -> None:
    assert totp.code(RFC_SECRET, second // 30, 8) == code
    assert totp.code(RFC_SECRET, second // 30) == code[-6:]


@pytest.mark.parametrize(("steps", "good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_half_a_minute_off(clock: Clock, steps: int, good: bool) -> None:
    code = totp.code(RFC_SECRET, clock.now() // totp.STEP + steps)
    assert (totp.accepted(RFC_SECRET, f"{code[:3]} {code[3:]}", None) is not None) is good


def test_a_used_code_and_the_ones_before_it_are_refused(clock: Clock) -> None:
    now = clock.now() // totp.STEP
    assert totp.accepted(RFC_SECRET, totp.code(RFC_SECRET, now), None) == now
    assert totp.accepted(RFC_SECRET, totp.code(RFC_SECRET, now), now) is None
    assert totp.accepted(RFC_SECRET, totp.code(RFC_SECRET, now - 1), now) is None
    assert totp.accepted(RFC_SECRET, totp.code(RFC_SECRET, now + 1), now) == now + 1


@pytest.mark.parametrize("given", ["", "abcdef", "12345", "1234567", "１２３４５６", "0" * 1000])
def test_what_is_no_code_is_refused(clock: Clock, given: str) -> None:
    assert totp.accepted(RFC_SECRET, given, None) is None


def test_the_link_names_account_and_issuer() -> None:
    secret = totp.new_secret()
    found = urlsplit(totp.address(secret, "anna@example.org"))
    assert (found.scheme, found.netloc) == ("otpauth", "totp")
    assert parse_qs(found.query)["secret"] == [secret]
    assert len(base64.b32decode(secret)) == 20
