"""Every cause says in both languages what happened, who can fix it and what to do."""

from __future__ import annotations

import pytest
from flask import Flask
from flask_babel import force_locale

from webapp import sentences, words
from worker import causes


def test_words_and_meanings_are_the_same_set() -> None:
    assert set(words.CAUSES) == set(causes.MEANINGS)
    assert set(words.WHO) == set(causes.WHO)
    assert set(words.DEEDS) == set(causes.DEEDS)


@pytest.mark.parametrize("key", causes.MEANINGS)
def test_every_cause_is_said_in_both_languages(app: Flask, key: str) -> None:
    code = (causes.MEANINGS[key][2].split() or ["424242"])[0]
    said = {}
    for language in ("ru", "en"):
        with app.test_request_context(), force_locale(language):
            found = sentences.cause(code, "words of the vendor")
            assert found is not None and all(found.values())
            said[language] = found
    for part in ("text", "who", "advice"):
        assert said["ru"][part] != said["en"][part]
        assert any("а" <= letter <= "я" for letter in said["ru"][part].lower())


@pytest.mark.parametrize("code", ["424242", "sms_refused"])
def test_what_we_do_not_know_is_said_in_the_providers_words(app: Flask, code: str) -> None:
    with app.test_request_context(), force_locale("en"):
        found = sentences.cause(code, "Moon phase wrong")
        assert found is not None and "Moon phase wrong" in found["text"]


def test_whoever_can_mend_it_is_who_the_advice_speaks_to(app: Flask) -> None:
    with app.test_request_context(), force_locale("en"):
        found = sentences.cause("21211")
    assert found is not None
    assert (found["who"], found["advice"]) == ("you", "Correct the number in the file")
