"""Where a number stands first, whatever the order and however many there are."""

from __future__ import annotations

import random

import pytest

from worker.recipients.seen import Place, Seen


def test_every_number_is_found_where_it_stood_first() -> None:
    chance = random.Random(1)
    expected: dict[int, Place] = {}
    seen = Seen()
    for file in (7, 8):
        rows = [(chance.randrange(10**15 - 3_000, 10**15), line) for line in range(1, 1_001)]
        seen.extend(file, rows)
        for number, line in rows:
            expected.setdefault(number, Place(file, line))
    seen.begin(None)
    for line in range(2, 2_000, 3):
        number = chance.randrange(10**15 - 3_000, 10**15)
        assert seen.add(number, line) == (number not in expected)
        expected.setdefault(number, Place(None, line))
    assert {number: seen.first(number) for number in expected} == expected
    assert all((number in seen) == (number in expected) for number in range(10**15 - 3_000, 10**15))


def test_a_file_without_a_new_number_is_nobodys_place() -> None:
    seen = Seen()
    seen.extend(1, [(79_000_000_001, 5)])
    seen.extend(2, [(79_000_000_001, 6)])
    seen.begin(None)
    seen.add(79_000_000_002, 9)
    assert seen.first(79_000_000_001) == (1, 5) and seen.first(79_000_000_002) == (None, 9)
    with pytest.raises(KeyError):
        seen.first(79_000_000_003)
