"""The schema is what the steps make of it, and the steps make what the models say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker import db, migrations, models
from worker.settings import Settings

BESIDE = ("schema_migration", "inbound_words")  # no model speaks of these


def shape() -> dict[str, Any]:
    """Columns (name, must it be filled, is it the key) and indexes of every table."""
    found: dict[str, Any] = {}
    for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
        columns = {(row[1], bool(row[3]), bool(row[5])) for row in db.rows(f"PRAGMA table_info({name})")}
        links = {(row[3], row[2], row[6]) for row in db.rows(f"PRAGMA foreign_key_list({name})")}
        found[name] = (columns, links)
    for name, sql in db.rows("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"):
        found[f"index {name}"] = " ".join(sql.replace('"', "").split())
    return {name: facts for name, facts in found.items() if not any(one in name for one in BESIDE)}


def test_the_steps_make_what_the_models_say(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    (tmp_path / "models").mkdir()
    db.open_database(Settings(data=tmp_path / "steps"))
    migrations.upgrade()
    with db.connection():
        by_steps = shape()
    db.close()
    db.open_database(Settings(data=tmp_path / "models"))
    with db.connection():
        db.database.create_tables(models.TABLES)
        by_models = shape()
    db.close()
    assert by_steps == by_models


def test_upgrading_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    db.open_database(Settings(data=tmp_path))
    assert migrations.upgrade()
    assert migrations.upgrade() == []
    migrations.require_current()
    db.close()


def test_a_database_of_a_newer_version_is_left_alone(database: Settings) -> None:
    with db.write():
        db.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '2030-01-01')")
    for step in (migrations.upgrade, migrations.require_current):
        with pytest.raises(migrations.SchemaError, match="newer Molva"):
            step()


def test_an_old_database_is_refused_with_the_command_that_helps(database: Settings) -> None:
    with db.write():
        db.execute("DELETE FROM schema_migration")
    with pytest.raises(migrations.SchemaError, match="molva migrate"):
        migrations.require_current()
