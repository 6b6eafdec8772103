"""Every text that people see has a Russian translation, and the compiled catalogue is the written one."""

from __future__ import annotations

import re

import pytest
from babel.messages.catalog import Catalog
from babel.messages.checkers import checkers
from flask import Flask
from flask_babel import force_locale, gettext, ngettext

from webapp import filters, translations
from worker import clock


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    return translations.read()


def test_every_text_has_a_translation(catalogue: Catalog) -> None:
    texts = {text.id for text in translations.collect() if text.id}
    known = {text.id for text in catalogue if text.id}
    assert texts - known == set(), "run: python -m webapp.translations"
    assert translations.missing(catalogue) == []


def test_the_compiled_catalogue_is_the_written_one(catalogue: Catalog) -> None:
    assert translations.COMPILED.read_bytes() == translations.as_mo(catalogue), "run: python -m webapp.translations"


def test_the_tool_would_change_nothing(catalogue: Catalog) -> None:
    fresh = translations.updated(catalogue, translations.collect())
    assert translations.as_po(fresh) == translations.CATALOGUE.read_bytes(), "run: python -m webapp.translations"


def test_translations_are_sound(catalogue: Catalog) -> None:
    for text in catalogue:
        if text.id:
            assert not text.fuzzy, text.id
            for check in checkers:
                check(catalogue, text)  # type: ignore[no-untyped-call]


def test_translations_keep_to_the_style_of_the_house(catalogue: Catalog) -> None:
    for text in catalogue:
        if not text.id:
            continue
        for words in text.string if isinstance(text.string, list | tuple) else [text.string]:
            assert "!" not in words, words
            assert not re.search(r"пожалуйста|успешно", words, re.IGNORECASE), words
            assert not re.search(r"[а-яё,] В(ы|ам|ас|аш[а-яё]*)\b", words), f"«вы» in lower case: {words}"
            assert '"' not in words, f"use «…»: {words}"


def test_russian_has_three_plural_forms(catalogue: Catalog) -> None:
    assert catalogue.num_plurals == 3


def test_a_text_that_has_gone_keeps_its_translation_for_later(catalogue: Catalog) -> None:
    old = translations._empty()
    old.add("Gone for now", "Пока нет")
    kept = translations.updated(old, translations._empty())
    assert [m.string for m in kept.obsolete.values()] == ["Пока нет"]
    again = translations._empty()
    again.add("Gone for now")
    assert translations.updated(kept, again)["Gone for now"].string == "Пока нет"


@pytest.mark.parametrize(
    ("language", "value", "expected"),
    [
        ("ru", lambda: filters.number(60000), "60\u00a0000"),
        ("en", lambda: filters.number(60000), "60,000"),
        ("ru", lambda: filters.percent(1, 3), "33,3\u00a0%"),
        ("en", lambda: filters.percent(1, 3), "33.3%"),
        ("en", lambda: filters.percent(99999, 100000), "99.9%"),
        ("en", lambda: filters.percent(99.9, 100), "99.9%"),
        ("en", lambda: filters.percent(1, 100000), "0.1%"),
        ("en", lambda: filters.percent(5, 5), "100%"),
        ("en", lambda: filters.percent(0, 0), "–"),
        ("ru", lambda: filters.filesize(10 * 1024 * 1024), "10\u00a0МБ"),
        ("en", lambda: filters.filesize(1), "1\u00a0KB"),
        ("en", lambda: filters.filesize(1536 * 1024), "1.5\u00a0MB"),
        ("ru", lambda: filters.duration(3 * clock.MINUTE), "3 минуты"),
        ("en", lambda: filters.duration(5 * clock.MINUTE), "5 minutes"),
        ("ru", lambda: filters.ago(clock.now() - 5 * clock.MINUTE), "5 минут назад"),
        ("en", lambda: filters.ago(clock.now() + 2 * clock.HOUR), "in 2 hours"),
        ("ru", lambda: filters.at(clock.now()), "12:00"),
        ("ru", lambda: filters.at(clock.now() - 24 * clock.HOUR), "4 нояб., 12:00"),
        ("ru", lambda: filters.when(clock.now()), "5 нояб. 2026\u202fг., 12:00:00"),
        ("ru", lambda: filters.phone("+79001234567"), "+7\u00a0900\u00a0123-45-67"),
        ("ru", lambda: filters.masked("+79001234501"), "+7900•••••01"),
        ("ru", lambda: filters.masked("123"), "•••"),
    ],
)
def test_numbers_and_dates_follow_the_language(
    app: Flask, clock: object, language: str, value: object, expected: str
) -> None:
    with app.test_request_context(headers={"Accept-Language": language}):
        text = value()  # type: ignore[operator]
        assert text.replace("\u202f", "\u00a0") == expected.replace("\u202f", "\u00a0")


def test_both_languages_speak(app: Flask) -> None:
    with app.test_request_context():
        with force_locale("ru"):
            assert gettext("Broadcasts") == "Рассылки"
        with force_locale("en"):
            assert gettext("Broadcasts") == "Broadcasts"
            assert ngettext("%(num)s file", "%(num)s files", 2) == "2 files"
