"""Areas and owners of tokens, answers to repeated calls, webhooks with what they tell, the times of answers."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE api_token ADD COLUMN areas TEXT",
    "ALTER TABLE api_token ADD COLUMN user_id BIGINT",
    (
        "CREATE TABLE repeat_answer (call TEXT NOT NULL PRIMARY KEY, said TEXT NOT NULL, status BIGINT NOT NULL,"
        " body TEXT NOT NULL, at BIGINT NOT NULL)"
    ),
    "CREATE INDEX repeat_answer_at ON repeat_answer (at)",
    (
        "CREATE TABLE webhook (id {id}, url TEXT NOT NULL, events TEXT NOT NULL, secret {blob} NOT NULL,"
        " state TEXT NOT NULL, stop_reason TEXT, positions TEXT NOT NULL, pending TEXT, tries BIGINT NOT NULL,"
        " failing_since BIGINT, next_at BIGINT NOT NULL, busy_until BIGINT NOT NULL, last_at BIGINT,"
        " created_by TEXT NOT NULL, created_at BIGINT NOT NULL)"
    ),
    (
        "CREATE TABLE webhook_delivery (id {id}, webhook_id BIGINT NOT NULL, event_id TEXT NOT NULL,"
        " event TEXT NOT NULL, items BIGINT NOT NULL, at BIGINT NOT NULL, took BIGINT NOT NULL,"
        " http_status BIGINT, cause TEXT)"
    ),
    "CREATE INDEX webhook_delivery_webhook_id_id ON webhook_delivery (webhook_id, id)",
    (
        "CREATE TABLE event (id {id}, kind TEXT NOT NULL, subject_id BIGINT NOT NULL, run BIGINT NOT NULL,"
        " reason TEXT, at BIGINT NOT NULL)"
    ),
    "CREATE TABLE latency (channel_id BIGINT NOT NULL, upto BIGINT NOT NULL, n BIGINT NOT NULL, ms BIGINT NOT NULL)",
    "CREATE UNIQUE INDEX latency_channel_id_upto ON latency (channel_id, upto)",
)


def up(migrator: Any, db: Any) -> None:
    postgres = type(db).__name__.startswith("Postgres")
    types = {
        "id": "BIGSERIAL PRIMARY KEY" if postgres else "INTEGER NOT NULL PRIMARY KEY",
        "blob": "BYTEA" if postgres else "BLOB",
    }
    for statement in STATEMENTS:
        db.execute_sql(statement.format(**types))
