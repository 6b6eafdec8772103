"""`molva copy`: an installation on SQLite moves to PostgreSQL, whole and counted."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker import db, files, locks, migrations, models
from worker.settings import Settings

BATCH = 5_000


class CopyError(RuntimeError):
    """Why nothing was copied, in words for the console."""


def copy(settings: Settings, source: Path, url: str, tell: Callable[[str, int], None]) -> None:
    """Copy the database at `source`, and the files beside it, to the empty one at `url`. Raises CopyError.

    `tell` hears of every table and its number of rows. All or nothing: one transaction holds the rows.
    """
    if not source.is_file():
        raise CopyError(f"There is no database {source}")
    here = replace(settings, data=source.parent, database_url="")
    lock = locks.alone(here)
    if lock is None:
        raise CopyError(f"Molva is running on {source.parent}. Stop it first")
    try:
        with contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old:
            _require_same_schema(old)
            db.open_database(replace(settings, data=source.parent, database_url=url))
            with db.connection():
                migrations.upgrade()
                _require_empty()
                with db.write():
                    db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # counting the source takes time
                    for model in models.TABLES:
                        tell(model._meta.table_name, _table(old, model))
                    tell("files", _files(source.parent))
                    # Whoever worked there is gone.
                    db.execute("UPDATE worker SET heartbeat_at = 0")
    finally:
        db.close()
        lock.close()


def _require_same_schema(old: sqlite3.Connection) -> None:
    try:
        found = {row[0] for row in old.execute("SELECT name FROM schema_migration")}
    except sqlite3.DatabaseError as error:
        raise CopyError(f"That is no database of Molva ({error})") from error
    if found != set(migrations.names()):
        raise CopyError("The database is not of this program's version. Run there first: molva migrate")


def _require_empty() -> None:
    for model in models.TABLES:
        if db.value(f"SELECT 1 FROM {model._meta.table_name} LIMIT 1") is not None:  # noqa: S608
            raise CopyError(f"The target is not empty: its table {model._meta.table_name} has rows")


def _table(old: sqlite3.Connection, model: Any) -> int:
    """Copy one table; its number of rows, which is the same on both sides."""
    table, columns = model._meta.table_name, [field.column_name for field in model._meta.sorted_fields]
    truths = [n for n, field in enumerate(model._meta.sorted_fields) if field.field_type == "BOOL"]
    names = ", ".join(f'"{name}"' for name in columns)
    found = old.execute(f"SELECT {names} FROM {table}")  # noqa: S608  # nosemgrep: formatted-sql-query
    made = db.copy_in(f"COPY {table} ({names}) FROM STDIN", _rows(found, truths))
    there = db.value(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
    here = old.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608  # nosemgrep: formatted-sql-query
    if not made == there == here:
        raise CopyError(f"{table}: {here} rows here, {there} there")
    if "id" in columns:
        db.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM {table}),"  # noqa: S608
            " FALSE)"
        )
    return int(here)


def _rows(found: sqlite3.Cursor, truths: list[int]) -> Iterator[list[Any]]:
    while batch := found.fetchmany(BATCH):
        for row in batch:
            # A text that holds a zero byte is none for PostgreSQL.
            values = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row]
            for n in truths:
                values[n] = None if values[n] is None else bool(values[n])
            yield values


def _files(folder: Path) -> int:
    """What people uploaded and attached goes into the database, where every host finds it."""
    n = 0
    for name in files.FOLDERS:
        for entry in os.scandir(folder / name) if (folder / name).is_dir() else ():
            if entry.is_file():
                body = Path(entry.path).read_bytes()
                db.execute("INSERT INTO stored_file (name, body) VALUES (?, ?)", [f"{name}/{entry.name}", body])
                n += 1
    return n
