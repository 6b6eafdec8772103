"""Parts of long messages and replies, accounts and vendors' limits of channels, marketing-only opt-outs."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE channel ADD COLUMN account TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE channel ADD COLUMN vendor_limit BIGINT",
    "ALTER TABLE channel ADD COLUMN quality TEXT",
    "ALTER TABLE message_template ADD COLUMN quality TEXT",
    "CREATE INDEX channel_account ON channel (account)",
    (
        "CREATE TABLE part (id {id}, channel_id BIGINT NOT NULL, provider_id TEXT NOT NULL, message_id BIGINT NOT NULL,"
        " status TEXT NOT NULL)"
    ),
    "CREATE UNIQUE INDEX part_channel_id_provider_id ON part (channel_id, provider_id)",
    "CREATE INDEX part_message_id ON part (message_id)",
    (
        "CREATE TABLE inbound_part (id {id}, channel_id BIGINT NOT NULL, provider_id TEXT NOT NULL,"
        " phone TEXT NOT NULL, reference TEXT NOT NULL, n BIGINT NOT NULL, total BIGINT NOT NULL,"
        " text TEXT NOT NULL, at BIGINT NOT NULL, received_at BIGINT NOT NULL, joined BOOLEAN NOT NULL)"
    ),
    "CREATE UNIQUE INDEX inbound_part_channel_id_provider_id ON inbound_part (channel_id, provider_id)",
    (
        "CREATE TABLE media (id {id}, channel_id BIGINT NOT NULL, media_id TEXT NOT NULL, name TEXT NOT NULL,"
        " mime TEXT NOT NULL, at BIGINT NOT NULL)"
    ),
    "CREATE INDEX media_channel_id ON media (channel_id)",
    "ALTER TABLE delivery_report ADD COLUMN also TEXT",
    "CREATE TABLE marketing_choice (id {id}, phone TEXT NOT NULL, choice TEXT NOT NULL, at BIGINT NOT NULL)",
    "CREATE UNIQUE INDEX marketing_choice_phone ON marketing_choice (phone)",
    "ALTER TABLE opt_out ADD COLUMN scope TEXT NOT NULL DEFAULT 'all'",
    "DROP INDEX opt_out_phone",
    "CREATE UNIQUE INDEX opt_out_phone_scope ON opt_out (phone, scope)",
)


def up(migrator: Any, db: Any) -> None:
    postgres = type(db).__name__.startswith("Postgres")
    key = "BIGSERIAL PRIMARY KEY" if postgres else "INTEGER NOT NULL PRIMARY KEY"
    for statement in STATEMENTS:
        db.execute_sql(statement.format(id=key))
