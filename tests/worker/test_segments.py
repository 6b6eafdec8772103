"""Encoding and parts of an SMS."""

from __future__ import annotations

import pytest

from worker import segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("GSM-7", 0, 0)),
        ("a" * 160, ("GSM-7", 160, 1)),
        ("a" * 161, ("GSM-7", 161, 2)),
        ("a" * 306, ("GSM-7", 306, 2)),
        ("a" * 307, ("GSM-7", 307, 3)),
        ("€" * 80, ("GSM-7", 160, 1)),
        ("я" * 70, ("UCS-2", 70, 1)),
        ("я" * 71, ("UCS-2", 71, 2)),
        ("я" * 134, ("UCS-2", 134, 2)),
        ("я" * 135, ("UCS-2", 135, 3)),
        ("😀" * 35, ("UCS-2", 70, 1)),
        ("😀" * 36, ("UCS-2", 72, 2)),
        ("a" * 152 + "€" + "a" * 152, ("GSM-7", 306, 3)),
    ],
)
def test_encoding_units_and_parts(text: str, expected: tuple[str, int, int]) -> None:
    found = segments.count(text)
    assert (found.encoding, found.units, found.segments) == expected


def test_parts_join_to_the_text_and_cut_no_character_in_two() -> None:
    text = "😀" * 100
    parts = segments.split(text)
    assert "".join(parts) == text
    assert all(len(part.encode("utf-16-le")) // 2 <= segments.UCS_PART for part in parts)


def test_a_text_in_another_script_is_told_without_its_alphabet() -> None:
    assert segments.told("Здравствуйте") == segments.count("Здравствуйте")._replace(offending=[])
    assert segments.told("See you at the café «Anna»") == segments.count("See you at the café «Anna»")


def test_the_characters_that_force_unicode_are_named() -> None:
    assert segments.count("abc «d»").offending == ["«", "»"]
    assert segments.count(segments.plain("«a» — b…")).offending == []
