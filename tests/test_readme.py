"""What the documents say of the code is what the code says: links, settings, providers, states, sandbox, commands."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.readme import ROOT
from webapp.__main__ import main
from webapp.sandbox_numbers import MAGIC
from worker import settings, states
from worker.providers import PROVIDERS
from worker.settings import Settings, SettingsError

README = ROOT / "README.md"
RUSSIAN = ROOT / ".github" / "README.ru.md"
DOCUMENTS = [README, RUSSIAN]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def prose(document: Path) -> str:
    """The document without its fenced examples."""
    return FENCE.sub("", text(document))


def headings(document: Path) -> list[tuple[int, str]]:
    """Level and words of every heading below the title."""
    return [(len(marks), words) for marks, words in re.findall(r"^(##+) (.+)$", prose(document), re.MULTILINE)]


def anchor(heading: str) -> str:
    """The fragment that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(document: Path, head: str) -> list[list[str]]:
    """The cells of the rows below the table head whose first cell is `head`."""
    found = re.search(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", prose(document), re.MULTILINE)
    assert found is not None, f"{document.name} has no table {head}"
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]


def code(document: Path) -> Iterator[str]:
    """What stands in backticks, and every line of the fenced examples."""
    yield from re.findall(r"`([^`\n]+)`", prose(document))
    for block in FENCE.findall(text(document)):
        yield from block.splitlines()[1:-1]


# --- the document itself --------------------------------------------------------------------------------


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT) and target.exists(), link
        if fragment:
            assert fragment in {anchor(words) for _level, words in headings(target)}, link


@each_document
def test_the_contents_list_has_every_heading_in_its_order(document: Path) -> None:
    (_, contents), *others = headings(document)
    listed = prose(document).split(f"## {contents}\n")[1].split("\n## ")[0]
    wanted = [(words, anchor(words)) for level, words in others if level <= 3]
    assert re.findall(r"\[([^]]+)\]\(#([^)]+)\)", listed) == wanted


def test_every_mark_that_is_opened_is_closed() -> None:
    marks = re.findall(r"<!-- (/?[a-z]+) -->", text(README))
    opened, closed = marks[::2], marks[1::2]
    assert opened and closed == [f"/{name}" for name in opened] and len(set(opened)) == len(opened)


def test_the_two_languages_lead_to_each_other() -> None:
    assert "(.github/README.ru.md)" in text(README)[:200]
    assert "(../README.md)" in text(RUSSIAN)[:200]


@each_document
def test_every_file_that_is_named_exists(document: Path) -> None:
    top = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for span in re.findall(r"`([^`\n]+)`", prose(document)):
        if (
            re.fullmatch(r"\.?[\w-]+(/[\w.-]+)+/?", span)
            and span.split("/")[0] in top - {"data"}
            and "NAME" not in span
        ):
            assert (ROOT / span).exists(), span


# --- against the code -----------------------------------------------------------------------------------


def test_the_settings_table_is_the_settings() -> None:
    rows = table(README, "variable")
    told = {name.strip("`").removeprefix("MOLVA_").lower(): default.strip("`") for name, default, _meaning in rows}
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    assert list(told) and set(told) == set(fields) and len(rows) == len(told)
    for name, default in fields.items():
        if isinstance(default, Path):
            assert Path(told[name]) == default, name
        else:
            assert told[name] == ("" if default == () else str(default)), name


def test_the_bounds_in_the_settings_table_are_the_bounds() -> None:
    bounds = 0
    for name, _default, meaning in table(README, "variable"):
        for low, high in re.findall(r"\b([\d,]+) to ([\d,]+)\b", meaning):
            least, most = (int(number.replace(",", "")) for number in (low, high))
            for good in (least, most):
                settings.from_env({name.strip("`"): str(good)})
            for bad in (least - 1, most + 1):
                with pytest.raises(SettingsError):
                    settings.from_env({name.strip("`"): str(bad)})
            bounds += 1
    assert bounds == 4


@each_document
def test_every_variable_that_is_named_is_a_setting(document: Path) -> None:
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in re.findall(r"\bMOLVA_([A-Z_]+[A-Z])", text(document)):
        one = name.lower().removesuffix("_file")
        assert one in known or name in ("TEST_REQUIRE", "TEST_DATABASE", "SHARED"), name


def test_the_provider_table_is_the_registry() -> None:
    told = {label.strip(): kind for labels, kind, _about in table(README, "provider") for label in labels.split(",")}
    words = {"waba": "WABA", "sms": "SMS"}
    registered = {
        provider.label: "both" if provider.key.startswith("sandbox_") else words[provider.kind]
        for provider in PROVIDERS.values()
    }
    assert told == registered


def test_the_sandbox_table_is_the_emulators() -> None:
    assert [row[0] for row in table(README, "number")] == [special.phone for special in MAGIC]


@pytest.mark.parametrize(
    ("head", "steps"), [("broadcast", states.BROADCAST), ("message", states.MESSAGE)], ids=["broadcast", "message"]
)
def test_the_state_tables_are_the_states(head: str, steps: dict[str, states.Step]) -> None:
    told = {
        action: states.Step(frozenset(source.split(", ")), target)
        for action, source, target, _when in table(README, head)
    }
    assert told == steps and list(told) == list(steps)


def commands(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """Every command by its words, `key rotate` as well."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{before}{name} ")
        else:
            found[before + name] = command
    return found


COMMANDS = commands(main)


def spoken(document: Path) -> Iterator[list[str]]:
    """The words after `molva` wherever a document gives a command."""
    for line in code(document):
        found = re.search(r"(?:^|/|&& |\bexec molva )molva(?:\.pyz)?((?: [^#&|]+)?)(?:$|#|&&|\|)", line.strip())
        if found is not None:
            words = shlex.split(found[1])
            yield words


@each_document
def test_every_command_that_is_named_exists_with_its_options(document: Path) -> None:
    seen = set()
    for words in spoken(document):
        name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
        if name is None:
            assert words == [] or words[0].startswith("--"), words
        command = main if name is None else COMMANDS[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, words
        seen.add(name)
    assert {None, "doctor", "backup"} <= seen


def test_every_command_is_told_of() -> None:
    told = {name for row in table(README, "command") for name in re.findall(r"`molva ([a-z -]+?)(?: FILE)?`", row[0])}
    assert told == set(COMMANDS)


def test_every_measure_that_is_named_is_given() -> None:
    source = text(ROOT / "worker" / "metrics.py")
    told = set(re.findall(r"`molva_([a-z_]+)`", prose(README)))
    assert len(told) > 5
    for name in told:
        assert f'"{name}"' in source, name
