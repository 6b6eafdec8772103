"""Words for leaving, coming back and help: the whole message, in two languages, on whichever keyboard."""

from __future__ import annotations

import pytest

from worker import stopwords
from worker.stopwords import BACK, DEFAULT, HELP, OUT, Words

OFF_AT_FIRST = {"END": OUT, "ОТМЕНА": OUT, "НЕТ": OUT, "YES": BACK}


@pytest.mark.parametrize("word", stopwords.LEAVING)
def test_every_word_for_leaving_counts_however_it_is_written(word: str) -> None:
    lower, doubled = word.lower(), word.replace(" ", "   ")
    for text in (
        word,
        lower,
        word.title(),
        f"  {word}\n",
        f"{lower}.",
        f"{word}!!!",
        f"«{word}»",
        doubled,
        f"{word} ❌",
    ):
        assert stopwords.is_stop_word(text), text


@pytest.mark.parametrize(
    "text",
    [
        "CTOП",  # Latin C, T and O
        "СТOП",
        "STOР",  # a Cyrillic Р at the end
        "oткaз",
        "отпишитe",
        "Стоп\u00a0рассылка",  # a no-break space between
        "ｓｔｏｐ",
    ],
)
def test_look_alikes_count_as_what_they_look_like(text: str) -> None:
    assert stopwords.is_stop_word(text)


@pytest.mark.parametrize("text", ["отмёна", "отме\u0308на"])
def test_yo_counts_as_ye(text: str) -> None:
    assert Words(on=("ОТМЕНА",)).meaning(text) == OUT


@pytest.mark.parametrize(
    "text",
    [
        *("", "?", "да", "стопка", "не стоп", "stop it please", "please don't stop", "остановитесь у дома"),
        *("can cel", "s t o p", "от каз", "нет, спасибо", "STOP 5", "Стоп? А когда доставка"),
    ],
)
def test_everyday_answers_mean_nothing(text: str) -> None:
    assert DEFAULT.meaning(text) is None


@pytest.mark.parametrize(("text", "meaning"), [("Start", BACK), ("unstop.", BACK), ("HELP", HELP), ("info", HELP)])
def test_words_for_coming_back_and_for_help(text: str, meaning: str) -> None:
    assert DEFAULT.meaning(text) == meaning


@pytest.mark.parametrize(("word", "meaning"), OFF_AT_FIRST.items())
def test_everyday_words_count_only_where_they_are_switched_on(word: str, meaning: str) -> None:
    assert set(OFF_AT_FIRST) == set(stopwords.OPTIONAL)
    others = tuple(other for other in OFF_AT_FIRST if other != word)
    assert DEFAULT.meaning(word) is None
    assert Words(on=others).meaning(word) is None
    assert Words(on=(word,)).meaning(f"{word.lower()}!") == meaning


def test_an_installation_may_have_words_of_its_own() -> None:
    words = Words(extra=("Хватит", "no more"))
    assert [words.meaning(text) for text in ("хвaтит.", "No  MORE", "хватит мне одной")] == [OUT, OUT, None]
