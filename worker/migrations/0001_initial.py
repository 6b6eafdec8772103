"""The first schema, as it was then: later steps change it, and this one stays."""

from __future__ import annotations

from typing import Any

# {id} and {blob} are the two types that SQLite and PostgreSQL spell in different ways.
SCHEMA = """
CREATE TABLE setting (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT
);
CREATE TABLE user_account (
    id {id},
    email TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    language TEXT,
    active BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX user_account_email ON user_account (email);
CREATE TABLE login_session (
    id {id},
    token_hash TEXT NOT NULL,
    user_id BIGINT NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
);
CREATE UNIQUE INDEX login_session_token_hash ON login_session (token_hash);
CREATE INDEX login_session_user_id ON login_session (user_id);
CREATE TABLE login_attempt (
    key TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    until BIGINT NOT NULL,
    last_at BIGINT NOT NULL
);
CREATE TABLE api_token (
    id {id},
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE UNIQUE INDEX api_token_token_hash ON api_token (token_hash);
CREATE TABLE audit (
    id {id},
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT
);
CREATE TABLE worker (
    id {id},
    pid BIGINT NOT NULL,
    host TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL
);
CREATE TABLE channel (
    id {id},
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    provider TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    secrets {blob},
    per_second DOUBLE PRECISION,
    per_day BIGINT,
    price DOUBLE PRECISION,
    currency TEXT,
    state TEXT NOT NULL,
    stop_reason TEXT,
    stop_detail TEXT,
    stopped_at BIGINT,
    next_slot BIGINT NOT NULL,
    slow_until BIGINT NOT NULL,
    templates_synced_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX channel_key ON channel (key);
CREATE TABLE message_template (
    id {id},
    channel_id BIGINT NOT NULL REFERENCES channel (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    language TEXT NOT NULL,
    status TEXT NOT NULL,
    category TEXT NOT NULL,
    parameter_format TEXT NOT NULL,
    components TEXT NOT NULL,
    synced_at BIGINT NOT NULL
);
CREATE INDEX message_template_channel_id ON message_template (channel_id);
CREATE UNIQUE INDEX message_template_channel_id_name_language ON message_template (channel_id, name, language);
CREATE TABLE broadcast (
    id {id},
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    stop_reason TEXT,
    stop_detail TEXT,
    stopped_at BIGINT,
    channel_id BIGINT REFERENCES channel (id) ON DELETE RESTRICT,
    text TEXT,
    template_name TEXT,
    template_language TEXT,
    variables TEXT NOT NULL,
    text_version BIGINT NOT NULL,
    region TEXT NOT NULL,
    ignore_duplicates BOOLEAN NOT NULL,
    on_file_delete TEXT NOT NULL,
    rate_per_minute BIGINT NOT NULL,
    send_at BIGINT,
    timezone TEXT NOT NULL,
    run BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    next_slot BIGINT NOT NULL,
    waiting TEXT,
    last_sent_at BIGINT,
    speed BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    form_token TEXT
);
CREATE INDEX broadcast_name ON broadcast (name);
CREATE INDEX broadcast_state ON broadcast (state);
CREATE INDEX broadcast_channel_id ON broadcast (channel_id);
CREATE UNIQUE INDEX broadcast_form_token ON broadcast (form_token);
CREATE TABLE run (
    id {id},
    broadcast_id BIGINT NOT NULL REFERENCES broadcast (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    who TEXT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    copied BOOLEAN NOT NULL
);
CREATE INDEX run_broadcast_id ON run (broadcast_id);
CREATE UNIQUE INDEX run_broadcast_id_number ON run (broadcast_id, number);
CREATE TABLE recipient_file (
    id {id},
    broadcast_id BIGINT NOT NULL REFERENCES broadcast (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    state TEXT NOT NULL,
    removed_at BIGINT,
    removed_how TEXT,
    run BIGINT NOT NULL,
    options TEXT NOT NULL,
    encoding TEXT,
    delimiter TEXT,
    phone_column TEXT,
    columns TEXT NOT NULL,
    unused TEXT NOT NULL,
    sample TEXT NOT NULL,
    repairs TEXT NOT NULL,
    code TEXT,
    detail TEXT,
    rows BIGINT NOT NULL,
    accepted BIGINT NOT NULL,
    rejected TEXT NOT NULL,
    done BIGINT NOT NULL,
    owner BIGINT,
    created_at BIGINT NOT NULL,
    checked_at BIGINT
);
CREATE INDEX recipient_file_broadcast_id ON recipient_file (broadcast_id);
CREATE INDEX recipient_file_sha256 ON recipient_file (sha256);
CREATE TABLE rejected_row (
    id {id},
    file_id BIGINT NOT NULL,
    line BIGINT NOT NULL,
    code TEXT NOT NULL,
    "column" TEXT,
    value TEXT,
    original TEXT,
    other TEXT
);
CREATE INDEX rejected_row_file_id_id ON rejected_row (file_id, id);
CREATE TABLE message (
    id {id},
    broadcast_id BIGINT NOT NULL,
    run BIGINT NOT NULL,
    file_id BIGINT NOT NULL,
    line BIGINT NOT NULL,
    phone TEXT NOT NULL,
    row TEXT,
    status TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    token TEXT,
    owner BIGINT,
    lease_until BIGINT,
    tries BIGINT NOT NULL,
    postponed_at BIGINT,
    provider_id TEXT,
    cause TEXT,
    cause_text TEXT,
    text_version BIGINT,
    sending_at BIGINT,
    sent_at BIGINT,
    delivered_at BIGINT,
    read_at BIGINT,
    undelivered_at BIGINT
);
CREATE UNIQUE INDEX message_file_id_run_line ON message (file_id, run, line);
CREATE INDEX message_queue ON message (file_id, run, not_before, id) WHERE status = 'queued';
CREATE INDEX message_sending ON message (owner, lease_until) WHERE status = 'sending';
CREATE INDEX message_problem ON message (broadcast_id, run, status, file_id, line)
    WHERE status IN ('cancelled','failed','held','skipped','uncertain','undelivered');
CREATE INDEX message_phone ON message (phone, id) WHERE status <> 'queued';
CREATE INDEX message_provider ON message (provider_id) WHERE provider_id IS NOT NULL;
CREATE TABLE counter (
    broadcast_id BIGINT NOT NULL,
    run BIGINT NOT NULL,
    file_id BIGINT NOT NULL,
    status TEXT NOT NULL,
    n BIGINT NOT NULL
);
CREATE UNIQUE INDEX counter_broadcast_id_run_file_id_status ON counter (broadcast_id, run, file_id, status);
CREATE TABLE attempt (
    id {id},
    message_id BIGINT NOT NULL,
    token TEXT NOT NULL,
    at BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    http_status BIGINT,
    code TEXT,
    detail TEXT
);
CREATE INDEX attempt_message_id ON attempt (message_id);
CREATE TABLE delivery_report (
    id {id},
    channel_id BIGINT NOT NULL,
    message_id BIGINT,
    provider_id TEXT,
    token TEXT,
    status TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    code TEXT,
    detail TEXT,
    effect TEXT,
    dedupe TEXT NOT NULL
);
CREATE UNIQUE INDEX delivery_report_channel_id_dedupe ON delivery_report (channel_id, dedupe);
CREATE INDEX delivery_report_message_id ON delivery_report (message_id);
CREATE INDEX delivery_report_orphan ON delivery_report (provider_id) WHERE message_id IS NULL;
CREATE TABLE callback (
    id {id},
    channel_id BIGINT NOT NULL,
    path TEXT NOT NULL,
    query TEXT NOT NULL,
    headers TEXT,
    body {blob} NOT NULL,
    received_at BIGINT NOT NULL,
    processed_at BIGINT,
    error TEXT
);
CREATE INDEX callback_waiting ON callback (id) WHERE processed_at IS NULL;
CREATE TABLE inbound (
    id {id},
    channel_id BIGINT NOT NULL,
    provider_id TEXT NOT NULL,
    phone TEXT NOT NULL,
    name TEXT,
    kind TEXT NOT NULL,
    text TEXT,
    context TEXT,
    message_id BIGINT,
    broadcast_id BIGINT,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL
);
CREATE INDEX inbound_phone ON inbound (phone);
CREATE INDEX inbound_message_id ON inbound (message_id);
CREATE UNIQUE INDEX inbound_channel_id_provider_id ON inbound (channel_id, provider_id);
CREATE TABLE opt_out (
    id {id},
    phone TEXT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    channel_id BIGINT,
    at BIGINT NOT NULL
);
CREATE UNIQUE INDEX opt_out_phone ON opt_out (phone);
"""


def up(migrator: Any, db: Any) -> None:
    postgres = type(db).__name__.startswith("Postgres")
    types = {
        "id": "BIGSERIAL PRIMARY KEY" if postgres else "INTEGER NOT NULL PRIMARY KEY",
        "blob": "BYTEA" if postgres else "BLOB",
    }
    for statement in SCHEMA.format(**types).split(";\n"):
        if statement.strip():
            db.execute_sql(statement)
