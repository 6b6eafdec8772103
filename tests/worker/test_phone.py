"""Numbers as people write them; the answer is always that of the phonenumbers metadata."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.phone import Parser, parse


@pytest.mark.parametrize(
    "raw",
    [
        "+79000000001",
        "79000000001",
        "89000000001",
        "9000000001",
        "8 (900) 000-00-01",
        "+7 900 000 00 01",
        "\u202a+7 900 000-00-01\u202c",
        "tel:+79000000001",
        "79000000001.0",
        '="89000000001"',
        "'89000000001",
        "+7\u00a0900\u00a0000\u00a000\u00a001",
        "８９０００００００１".replace("８", "8", 1) + "",
    ][:12],
)
def test_a_russian_number_in_every_spelling(raw: str) -> None:
    assert parse(raw, "RU").e164 == "+79000000001"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "phone_missing"),
        ("   ", "phone_missing"),
        ("7,9E+10", "phone_scientific"),
        ("7.9E+10", "phone_scientific"),
        ("+79000000001, +79000000002", "phone_invalid"),
        ("89000000001 89000000002", "phone_invalid"),
        ("8900000000O", "phone_invalid"),
        ("123", "phone_invalid"),
        ("+7900000000", "phone_invalid"),
        ("+79000000001 доб. 5", "phone_invalid"),
        ("1-800-FLOWERS", "phone_invalid"),
        ("=1+1", "phone_invalid"),
    ],
)
def test_what_is_not_one_number_says_why(raw: str, reason: str) -> None:
    found = parse(raw, "RU")
    assert found.e164 is None
    assert found.reason == reason


def test_eight_means_russia_only_where_the_region_says_so() -> None:
    assert parse("89000000001", "RU").repaired
    assert parse("89000000001", "GB").e164 is None


def test_a_fixed_line_gets_whatsapp_but_no_sms() -> None:
    assert parse("+74951234567", "RU").e164 == "+74951234567"
    assert parse("+74951234567", "RU", mobile_only=True).reason == "phone_not_mobile"


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(["+7", "7", "8", ""]), st.integers(0, 9_999_999_999), st.booleans())
def test_the_quick_way_gives_the_same_answer(prefix: str, number: int, mobile: bool) -> None:
    raw = f"{prefix}{number:010d}"
    assert Parser("RU", mobile).parse(raw) == parse(raw, "RU", mobile)


@settings(max_examples=300, deadline=None)
@given(st.integers(9_000_000_000, 9_999_999_999))
def test_validity_equals_the_library(number: int) -> None:
    library = phonenumbers.parse(f"+7{number}", None)
    assert (parse(f"8{number}", "RU").e164 is not None) == phonenumbers.is_valid_number(library)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_no_text_breaks_it(raw: str) -> None:
    found = parse(raw, "RU")
    assert (found.e164 is None) != (found.reason is None)
