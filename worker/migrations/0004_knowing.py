"""Single messages, conversations, quiet hours, canaries, the proof of the stop list, counted reports."""

from __future__ import annotations

from typing import Any

# Every three letters of what people wrote, so that any part of it is found at once; kept by triggers.
WORDS = (
    (
        "CREATE VIRTUAL TABLE inbound_words USING fts5"
        " (text, content = 'inbound', content_rowid = 'id', tokenize = 'trigram')"
    ),
    "INSERT INTO inbound_words (rowid, text) SELECT id, text FROM inbound WHERE text <> ''",
    (
        "CREATE TRIGGER inbound_words_new AFTER INSERT ON inbound WHEN new.text <> '' BEGIN"
        " INSERT INTO inbound_words (rowid, text) VALUES (new.id, new.text); END"
    ),
    (
        "CREATE TRIGGER inbound_words_gone AFTER DELETE ON inbound WHEN old.text <> '' BEGIN"
        " INSERT INTO inbound_words (inbound_words, rowid, text) VALUES ('delete', old.id, old.text); END"
    ),
    (
        "CREATE TRIGGER inbound_words_changed AFTER UPDATE OF text ON inbound BEGIN"
        " INSERT INTO inbound_words (inbound_words, rowid, text)"
        " SELECT 'delete', old.id, old.text WHERE old.text <> '';"
        " INSERT INTO inbound_words (rowid, text) SELECT new.id, new.text WHERE new.text <> ''; END"
    ),
)
# The same on PostgreSQL, by the index alone; the extension comes with the server.
WORDS_POSTGRES = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "CREATE INDEX inbound_words ON inbound USING gin (casefold(text) gin_trgm_ops) WHERE text <> ''",
)
STATEMENTS = (
    "ALTER TABLE broadcast ADD COLUMN kind TEXT NOT NULL DEFAULT 'list'",
    "ALTER TABLE broadcast ADD COLUMN quiet_from BIGINT",
    "ALTER TABLE broadcast ADD COLUMN quiet_to BIGINT",
    "ALTER TABLE broadcast ADD COLUMN cooldown_days BIGINT",
    "ALTER TABLE broadcast ADD COLUMN canary BIGINT",
    "CREATE INDEX broadcast_kind ON broadcast (kind, id)",
    "ALTER TABLE run ADD COLUMN cause TEXT",
    "DROP INDEX message_problem",
    (
        "CREATE INDEX message_problem ON message (broadcast_id, run, status, file_id, line, cause)"
        " WHERE status IN ('cancelled','failed','held','skipped','uncertain','undelivered')"
    ),
    "ALTER TABLE recipient_file ADD COLUMN facts TEXT",
    "ALTER TABLE user_account ADD COLUMN test_phones TEXT",
    (
        "CREATE TABLE direct (id {id}, channel_id BIGINT NOT NULL, message_id BIGINT, kind TEXT NOT NULL,"
        " phone TEXT NOT NULL, conversation_id BIGINT, about_id BIGINT, made_by TEXT NOT NULL, at BIGINT NOT NULL,"
        " form_token TEXT)"
    ),
    "CREATE UNIQUE INDEX direct_message_id ON direct (message_id)",
    "CREATE UNIQUE INDEX direct_form_token ON direct (form_token)",
    "CREATE INDEX direct_conversation_id_id ON direct (conversation_id, id)",
    "CREATE INDEX direct_about_id_id ON direct (about_id, id)",
    "CREATE INDEX direct_phone ON direct (phone)",
    (
        "CREATE TABLE conversation (id {id}, channel_id BIGINT NOT NULL, phone TEXT NOT NULL, name TEXT,"
        " state TEXT NOT NULL, assignee_id BIGINT, unread BIGINT NOT NULL, broadcast_id BIGINT, message_id BIGINT,"
        " last_in_at BIGINT NOT NULL, last_at BIGINT NOT NULL, last_text TEXT NOT NULL, last_direction TEXT NOT NULL,"
        " created_at BIGINT NOT NULL, closed_at BIGINT)"
    ),
    "CREATE UNIQUE INDEX conversation_channel_id_phone ON conversation (channel_id, phone)",
    "CREATE INDEX conversation_state_last_at_id ON conversation (state, last_at, id)",
    "CREATE INDEX conversation_last_at_id ON conversation (last_at, id)",
    "CREATE INDEX conversation_phone ON conversation (phone)",
    "CREATE INDEX conversation_broadcast_id ON conversation (broadcast_id)",
    "CREATE INDEX conversation_unread ON conversation (last_at) WHERE unread > 0",
    "ALTER TABLE inbound ADD COLUMN conversation_id BIGINT",
    (
        "INSERT INTO conversation (channel_id, phone, name, state, unread, broadcast_id, message_id, last_in_at,"
        " last_at, last_text, last_direction, created_at)"
        " SELECT i.channel_id, i.phone, MAX(i.name), 'open', COUNT(*), MAX(i.broadcast_id), MAX(i.message_id),"
        " MAX(i.at), MAX(i.at), '', 'in', MIN(i.at) FROM inbound i WHERE i.phone <> '' AND i.kind <> 'reaction'"
        " GROUP BY i.channel_id, i.phone"
    ),
    (
        "UPDATE inbound SET conversation_id = (SELECT c.id FROM conversation c"
        " WHERE c.channel_id = inbound.channel_id AND c.phone = inbound.phone)"
    ),
    (
        "UPDATE conversation SET last_text = COALESCE((SELECT i.text FROM inbound i"
        " WHERE i.conversation_id = conversation.id AND i.kind <> 'reaction'"
        " ORDER BY i.at DESC, i.id DESC LIMIT 1), '')"
    ),
    "CREATE INDEX inbound_conversation_id_at_id ON inbound (conversation_id, at, id)",
    "CREATE INDEX inbound_broadcast_id ON inbound (broadcast_id, phone)",
    (
        "CREATE TABLE attachment (id {id}, inbound_id BIGINT NOT NULL, channel_id BIGINT NOT NULL,"
        " media_id TEXT NOT NULL, mime TEXT NOT NULL, name TEXT NOT NULL, size BIGINT NOT NULL, path TEXT NOT NULL,"
        " state TEXT NOT NULL, cause TEXT, tries BIGINT NOT NULL, next_at BIGINT NOT NULL, at BIGINT NOT NULL)"
    ),
    "CREATE INDEX attachment_inbound_id ON attachment (inbound_id)",
    "CREATE INDEX attachment_waiting ON attachment (next_at) WHERE state = 'waiting'",
    "CREATE TABLE quick_answer (id {id}, title TEXT NOT NULL, text TEXT NOT NULL)",
    (
        "CREATE TABLE opt_out_event (id {id}, phone TEXT NOT NULL, scope TEXT NOT NULL, action TEXT NOT NULL,"
        " source TEXT NOT NULL, reason TEXT NOT NULL, channel_id BIGINT, actor TEXT NOT NULL, at BIGINT NOT NULL)"
    ),
    "CREATE INDEX opt_out_event_phone_id ON opt_out_event (phone, id)",
    "CREATE INDEX opt_out_scope_source_id ON opt_out (scope, source, id)",
    "CREATE INDEX opt_out_scope_source_phone ON opt_out (scope, source, phone)",
    (
        "INSERT INTO opt_out_event (phone, scope, action, source, reason, channel_id, actor, at)"
        " SELECT phone, scope, 'add', source, reason, channel_id, '', at FROM opt_out"
    ),
    (
        "CREATE TABLE overlap (broadcast_id BIGINT NOT NULL PRIMARY KEY, mark TEXT NOT NULL, body TEXT NOT NULL,"
        " done BOOLEAN NOT NULL, at BIGINT NOT NULL)"
    ),
    (
        "CREATE TABLE snapshot (broadcast_id BIGINT NOT NULL, run BIGINT NOT NULL, made_at BIGINT NOT NULL,"
        " took BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (broadcast_id, run))"
    ),
)


def up(migrator: Any, db: Any) -> None:
    postgres = type(db).__name__.startswith("Postgres")
    key = "BIGSERIAL PRIMARY KEY" if postgres else "INTEGER NOT NULL PRIMARY KEY"
    for statement in (*STATEMENTS, *(WORDS_POSTGRES if postgres else WORDS)):
        db.execute_sql(statement.format(id=key))
