"""Uploaded files for installations of several hosts; those of one host keep them in the data folder."""

from __future__ import annotations

from typing import Any


def up(migrator: Any, db: Any) -> None:
    blob = "BYTEA" if type(db).__name__.startswith("Postgres") else "BLOB"
    db.execute_sql(f"CREATE TABLE stored_file (name TEXT NOT NULL PRIMARY KEY, body {blob} NOT NULL)")
