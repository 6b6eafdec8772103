"""A WhatsApp text shows its marks and nothing else as markup."""

from __future__ import annotations

import pytest

from webapp.markup import chat

BOLD, ITALIC, STRUCK, FIXED = ("bold",), ("italic",), ("struck",), ("fixed",)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("*bold* and _thin_", [("bold", BOLD), (" and ", ()), ("thin", ITALIC)]),
        ("~gone~, *two words*", [("gone", STRUCK), (", ", ()), ("two words", BOLD)]),
        ("```a *b*```", [("a *b*", FIXED)]),
        ("*_both_ one*", [("both", ("bold", "italic")), (" one", BOLD)]),
    ],
)
def test_marks_at_the_edges_of_words(text: str, pieces: list[tuple[str, tuple[str, ...]]]) -> None:
    assert list(chat(text)) == pieces


@pytest.mark.parametrize(
    "text",
    [
        *("2 * 3 * 4", "a*b*c", "snake_case_name", "10~20~30", "* not this*", "*nor this *", "**", "*over\ntwo lines*"),
        *("https://example.org/a_b_c?x=1&y=2", "<b>no</b>", "``````"),
    ],
)
def test_other_signs_stay_signs(text: str) -> None:
    assert list(chat(text)) == [(text, ())]


def test_it_takes_no_time_for_what_is_nearly_marked() -> None:
    assert "".join(piece.text for piece in chat("*a " * 300)) == "*a " * 300
