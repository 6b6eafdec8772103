"""The catalogues: texts collected from code and templates, the Russian translation, its compiled form.

English is the message id, so English needs no catalogue. `python -m webapp.translations` collects,
updates and compiles; it never guesses a translation, and keeps the ones whose text has gone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
CATALOGUE = HERE / "ru" / "LC_MESSAGES" / "messages.po"
COMPILED = CATALOGUE.with_suffix(".mo")
KEYWORDS = {**DEFAULT_KEYWORDS, "lazy_gettext": None, "_l": None, "lazy_ngettext": (1, 2), "_ln": (1, 2)}
# A fixed date: a catalogue changes when a text changes, not when somebody ran the tool.
MADE = datetime(2026, 11, 1, tzinfo=UTC)


def sources() -> Iterator[Path]:
    """The folders whose texts people see."""
    templates = PACKAGE / "templates"
    yield templates if templates.is_dir() else PACKAGE.parent / "templates"
    yield PACKAGE


def collect() -> Catalog:
    """Every text that code and templates mark for translation."""
    found = _empty()
    with (HERE / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)  # type: ignore[no-untyped-call]
    for folder in sources():
        for _name, _line, text, comments, context in extract_from_dir(
            str(folder), methods, options, keywords=KEYWORDS, comment_tags=("TRANSLATORS:",)
        ):
            found.add(text, None, auto_comments=comments, context=context)
    return found


def _empty() -> Catalog:
    made = Catalog(locale="ru", project="Molva", charset="utf-8", creation_date=MADE, revision_date=MADE)
    made.fuzzy = False
    return made


def read() -> Catalog:
    """The Russian catalogue as it stands."""
    if not CATALOGUE.exists():
        return _empty()
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="ru")


def updated(old: Catalog, texts: Catalog) -> Catalog:
    """`texts` with the translations of `old`; translations without a text are kept as obsolete."""
    fresh = _empty()
    known = {**{m.id: m for m in old.obsolete.values()}, **{m.id: m for m in old if m.id}}
    for text in texts:
        if text.id:
            was = known.pop(text.id, None)
            fresh.add(text.id, was.string if was else None, auto_comments=text.auto_comments, context=text.context)
    for gone in known.values():
        if _is_translated(gone.string):
            fresh.obsolete[gone.id if isinstance(gone.id, str) else gone.id[0]] = gone
    return fresh


def _is_translated(words: object) -> bool:
    return bool(words) and all(words if isinstance(words, list | tuple) else [words])


def missing(catalogue: Catalog) -> list[str]:
    """The texts without a translation, plural forms included."""
    return [str(m.id) for m in catalogue if m.id and not _is_translated(m.string)]


def as_po(catalogue: Catalog) -> bytes:
    out = io.BytesIO()
    write_po(out, catalogue, width=110, no_location=True, sort_output=True, include_previous=False)
    return out.getvalue()


def as_mo(catalogue: Catalog) -> bytes:
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def refresh() -> list[str]:
    """Collect, update, compile; the texts that still need a translation."""
    written = as_po(updated(read(), collect()))
    catalogue = read_po(io.BytesIO(written), locale="ru")
    CATALOGUE.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((CATALOGUE, written), (COMPILED, as_mo(catalogue))):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)
    return missing(catalogue)
