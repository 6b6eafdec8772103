"""Stop words: the whole message, in two languages, on whichever keyboard."""

from __future__ import annotations

import pytest

from worker import optouts


@pytest.mark.parametrize(
    "text",
    [
        *("STOP", "stop.", " Stop!\n", "STOP ALL", "Unsubscribe", "opt-out", "QUIT", "cancel", "remove"),
        *("СТОП", "стоп!!!", "CTOП", "Стоп рассылка", "Отписаться", "отпишите", "Нет рассылке", "отказ", "тоқта"),
    ],
)
def test_these_put_a_number_on_the_stop_list(text: str) -> None:
    assert optouts.is_stop_word(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "нет",
        "Отмена",
        "end",
        "не стоп",
        "stop it please",
        "please don't stop",
        "стопка",
        "да",
        "?",
        "остановитесь у дома",
    ],
)
def test_everyday_answers_do_not(text: str) -> None:
    assert not optouts.is_stop_word(text)
