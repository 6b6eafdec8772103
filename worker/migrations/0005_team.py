"""Invitations, a second step of signing in, approvals, an audit log that says from where, what was removed."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE user_account ADD COLUMN totp {blob}",
    "ALTER TABLE user_account ADD COLUMN totp_step BIGINT",
    "ALTER TABLE login_session ADD COLUMN confirmed_at BIGINT NOT NULL DEFAULT 0",
    (
        "CREATE TABLE recovery_code (id {id}, user_id BIGINT NOT NULL REFERENCES user_account (id) ON DELETE CASCADE,"
        " code_hash TEXT NOT NULL)"
    ),
    "CREATE INDEX recovery_code_user_id ON recovery_code (user_id)",
    (
        "CREATE TABLE invitation (id {id}, token_hash TEXT NOT NULL, email TEXT NOT NULL, role TEXT NOT NULL,"
        " made_by TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL)"
    ),
    "CREATE UNIQUE INDEX invitation_token_hash ON invitation (token_hash)",
    "CREATE UNIQUE INDEX invitation_email ON invitation (email)",
    "ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE audit ADD COLUMN via TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX audit_actor_at ON audit (actor, at)",
    "CREATE INDEX audit_action_at ON audit (action, at)",
    "CREATE INDEX audit_actor_action_at ON audit (actor, action, at)",
    "CREATE INDEX audit_at ON audit (at)",
    "ALTER TABLE broadcast ADD COLUMN changed_by TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE broadcast ADD COLUMN approved_by TEXT",
    "ALTER TABLE broadcast ADD COLUMN approved_at BIGINT",
    "ALTER TABLE broadcast ADD COLUMN approved_run BIGINT",
    "ALTER TABLE broadcast ADD COLUMN texts_gone_at BIGINT",
    "ALTER TABLE broadcast ADD COLUMN numbers_gone_at BIGINT",
    "UPDATE broadcast SET changed_by = created_by",
    ("CREATE TABLE removal (id {id}, at BIGINT NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL, body TEXT NOT NULL)"),
)

# Nobody changes a line of the audit log, and nobody removes one that is younger than a year: not even this program.
# A step that changes the table later takes the triggers away and puts them back.
GUARDS = (
    (
        "CREATE TRIGGER audit_adds BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"
        " BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END"
    ),
    (
        "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit"
        " BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END"
    ),
    (
        "CREATE TRIGGER audit_keeps_a_year BEFORE DELETE ON audit"
        " WHEN OLD.at > (CAST(strftime('%s', 'now') AS INTEGER) - 365 * 86400) * 1000"
        " BEGIN SELECT RAISE(ABORT, 'the audit log keeps a year'); END"
    ),
)
# A key that is there already is refused there without a guard.
POSTGRES_GUARDS = (
    (
        "CREATE FUNCTION audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP = 'UPDATE' OR OLD.at > (extract(epoch FROM now())::BIGINT - 365 * 86400) * 1000 THEN"
        " RAISE EXCEPTION 'the audit log is only appended to, and keeps a year'"
        " USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN OLD; END $$"
    ),
    "CREATE TRIGGER audit_guard BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_guard()",
)


def up(migrator: Any, db: Any) -> None:
    postgres = type(db).__name__.startswith("Postgres")
    key = "BIGSERIAL PRIMARY KEY" if postgres else "INTEGER NOT NULL PRIMARY KEY"
    for statement in STATEMENTS:
        db.execute_sql(statement.format(id=key, blob="BYTEA" if postgres else "BLOB"))
    for statement in POSTGRES_GUARDS if postgres else GUARDS:
        db.execute_sql(statement)
