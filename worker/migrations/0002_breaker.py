"""The circuit breaker of a channel, and how many messages it took in each minute of the last day."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE channel ADD COLUMN recent TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE channel ADD COLUMN opened_at BIGINT",
    "ALTER TABLE channel ADD COLUMN probe_at BIGINT NOT NULL DEFAULT 0",
    "CREATE TABLE departure (channel_id BIGINT NOT NULL, minute BIGINT NOT NULL, n BIGINT NOT NULL)",
    "CREATE UNIQUE INDEX departure_channel_id_minute ON departure (channel_id, minute)",
)


def up(migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
