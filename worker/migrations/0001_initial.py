"""The first schema."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    from worker.models import TABLES

    db.create_tables(TABLES)
