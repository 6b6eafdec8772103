"""No text outside of the catalogues: what templates and code show to people goes through gettext."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from flask import Flask
from jinja2 import Environment

from tests.people import Browser
from webapp import translations

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "templates"
SHOWN = {"alt", "aria-label", "aria-description", "placeholder", "title", "label"}
# Words of code that stand for themselves in every language.
SAME = {"utf-8", "cp1251", "utf-16", "XLSX", "TAB", "CSV", "SMS", "WABA", "WhatsApp", "Molva", "ms", "HTTP", "API"}
EVERY = pytest.mark.parametrize(
    "path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.relative_to(TEMPLATES).as_posix()
)
LETTERS = re.compile(r"[A-Za-zА-Яа-яЁё]{2,}")


class Texts(HTMLParser):
    """Collects what a person would read of a template whose code is blanked out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[int, str]] = []
        self._within: list[str] = []
        self.line = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "code", "kbd"):
            self._within.append(tag)
        for name, value in attrs:
            if name in SHOWN or (
                name == "value" and tag in ("input", "button") and dict(attrs).get("type") == "submit"
            ):
                self._note(value or "")

    def handle_endtag(self, tag: str) -> None:
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if not self._within:
            self._note(data)

    def _note(self, text: str) -> None:
        words = [word for word in LETTERS.findall(text) if word not in SAME]
        if words and not all(part in SAME for part in text.split()):
            self.found.append((self.line, " ".join(text.split())))


Token = tuple[int, str, str]


def tokens(source: str) -> list[Token]:
    """(line, kind, text) as Jinja reads a template."""
    return [token for token in Environment().lex(source) if token[1] not in ("whitespace", "comment")]


def untranslated(source: str) -> list[tuple[int, str]]:
    """(line where its part begins, text) of every text in a template that stands outside of its code."""
    reader = Texts()
    block = ""
    before = ""
    for line, kind, text in tokens(source):
        if kind == "name":
            block = text if before == "block" else "" if text == "endblock" else block
            before = text
        elif kind == "data" and block != "width":  # a class
            reader.line = line
            reader.feed(text)
    reader.close()
    return reader.found


@EVERY
def test_no_template_has_a_text_of_its_own(path: Path) -> None:
    assert untranslated(path.read_text(encoding="utf-8")) == []


def test_the_reader_of_templates_has_eyes() -> None:
    source = """<p>{{ _("Fine") }}</p>\n<p>Not fine {{ n }}</p><input placeholder="Neither"><code>fine</code>{% if a %}Gone{% endif %}"""
    assert untranslated(source) == [(1, "Not fine"), (2, "Neither"), (2, "Gone")]


# --- literals inside of the code of templates: {{ "Yes" if a else "No" }} ------------------------------------------


def literals(source: str) -> Iterator[str]:
    """Strings in the code of a template that look like sentences and are no argument of gettext."""
    depth = 0  # inside of the brackets of gettext
    before = ""
    for _line, kind, text in tokens(source):
        if kind == "operator" and text == "(":
            depth += 1 if depth or before in ("_", "ngettext") else 0
        elif kind == "operator" and text == ")":
            depth -= 1 if depth else 0
        elif kind == "string" and not depth and _says(text[1:-1]):
            yield text[1:-1]
        before = text


def _says(text: str) -> bool:
    """Classes, selectors and triggers have no capitals, or signs that sentences have not."""
    if text in SAME or re.fullmatch(r"[a-z0-9 _:.#,\[\]=*/'\"^$>()+-]+", text):
        return False
    return bool(re.search(r"[A-Za-zА-Яа-яё]{2,} [A-Za-zа-яё]{2,}|[А-Яа-яё]{2,}|^[A-Z][a-z]+$", text))


@EVERY
def test_no_template_says_something_in_its_code(path: Path) -> None:
    assert list(literals(path.read_text(encoding="utf-8"))) == []


def test_the_reader_of_their_code_has_eyes() -> None:
    source = """{{ "Yes, do it" if a else _("No (really)") }}{{ ui.badge("text soft", b="Да") }}{{ ngettext("One", "Many", n) }}"""
    assert list(literals(source)) == ["Yes, do it", "Да"]


# --- texts in code --------------------------------------------------------------------------------------------------

SAYING = {
    "flash",
    "redirect",
    "partial",
    "reply",
    "with_toast",
    "Sentence",
    "Word",
    "MenuItem",
    "Control",
    "ValidationError",
}
SAID = {"toast", "label", "hint", "message"}


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of literals that are given to people without gettext."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [k.value for k in node.keywords if k.arg in SAID]
        if name in SAYING:
            given += node.args
        for value in given:
            if isinstance(value, ast.JoinedStr | ast.Constant) and re.search(
                r"[A-Za-zА-Яа-я]+ [A-Za-zа-я]+", _text(value)
            ):
                yield node.lineno, _text(value)


def _text(value: ast.expr) -> str:
    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
    return "".join(str(part.value) for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_no_page_says_something_outside_of_the_catalogues() -> None:
    found = {
        path.name: list(spoken(path))
        for path in sorted((ROOT / "webapp").rglob("*.py"))
        if path.stem not in ("sandbox", "__main__", "serve")
    }
    assert {name: texts for name, texts in found.items() if texts} == {}


# --- plural forms ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    with translations.CATALOGUE.open("rb") as file:
        return read_po(file, locale="ru")


def test_every_plural_has_all_three_russian_forms(catalogue: Catalog) -> None:
    plurals = [text for text in catalogue if isinstance(text.id, tuple | list) and text.id]
    assert plurals
    for text in plurals:
        assert len(text.string) == 3 and all(text.string), text.id
        assert "%(num)" in text.id[1], f"the number of {text.id} must be %(num)s"


COUNTED = (
    r"messages?|rows?|numbers?|files?|recipients?|minutes?|hours?|days?|replies|reply|conversations?|people|parts?"
)


ALWAYS_MANY = {"Stopped: the same error for %(n)s recipients in a row: %(cause)s"}  # ten


def test_a_number_before_a_noun_has_plural_forms(catalogue: Catalog) -> None:
    """“5 files” needs a plural; “Files: 5” does not."""
    for text in catalogue:
        if isinstance(text.id, str) and text.id and text.id not in ALWAYS_MANY:
            assert not re.search(rf"%\((?:n|m|num|count)\)s (?:{COUNTED})\b", text.id), text.id


# --- the switch -----------------------------------------------------------------------------------------------------


def test_the_switch_keeps_the_page_and_its_filters(sender: Browser, app: Flask) -> None:
    page = sender.page("/broadcasts?name=%D0%B0&state=draft", headers={"Accept-Language": "ru"})
    kept = re.search(r'name="next" value="([^"]*)"', page)
    assert kept and kept[1].replace("&amp;", "&") == "/broadcasts?name=%D0%B0&state=draft"
    answer = sender.post("/language", {"language": "en", "next": kept[1].replace("&amp;", "&")})
    assert answer.headers["Location"].endswith("/broadcasts?name=%D0%B0&state=draft")
    assert 'lang="en"' in sender.page(answer.headers["Location"])
