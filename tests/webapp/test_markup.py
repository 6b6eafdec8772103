"""A WhatsApp text shows its marks and nothing else as markup."""

from __future__ import annotations

import pytest

from webapp.markup import chat


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("*bold* and _thin_ and ~gone~", "<strong>bold</strong> and <em>thin</em> and <del>gone</del>"),
        ("*two words*, ```code```", "<strong>two words</strong>, <code>code</code>"),
        ("*_both_*", "<strong><em>both</em></strong>"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("a*b*c, snake_case_name, 10~20~30", "a*b*c, snake_case_name, 10~20~30"),
        ("* not this*, *nor this *", "* not this*, *nor this *"),
        ("**", "**"),
        ("*over\ntwo lines*", "*over\ntwo lines*"),
        ('<b>*x*</b> & "y"', "&lt;b&gt;<strong>x</strong>&lt;/b&gt; &amp; &#34;y&#34;"),
        ("https://example.org/a_b_c?x=1&y=2", "https://example.org/a_b_c?x=1&amp;y=2"),
    ],
)
def test_marks_at_the_edges_of_words(text: str, shown: str) -> None:
    assert chat(text) == shown
