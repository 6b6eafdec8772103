"""An installation as the first release left it: its schema, with something in every table."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests import people
from worker import channels, clock, db, migrations
from worker.models import Channel
from worker.settings import Settings

FIRST = "0001_initial"
TOKEN, SESSION = "molva_of_the_first_release", "a login session of then"
WAITING, GONE = "+79010000001", "+79010000002"  # somebody in the queue, somebody who has it


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def install(settings: Settings) -> None:
    """Make the data folder of then. The database is closed afterwards."""
    sandbox = _sandbox(settings)
    db.open_database(settings)
    settings.database_path.unlink()
    with db.connection():
        migrations._runner().up(target=FIRST)
        with db.write():
            for table, rows in _rows(clock.now(), sandbox).items():
                for row in rows:
                    _insert(table, row)
    db.close()


def _sandbox(settings: Settings) -> dict[str, Any]:
    """A sandbox channel with credentials that the key of the folder opens, in the columns of then."""
    db.open_database(settings)
    migrations.upgrade()
    with db.connection():
        row = Channel.get(Channel.id == channels.ensure_sandbox(settings)[1].id).__data__
    db.close()
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}


def tables() -> list[str]:
    found = db.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
    return [name for (name,) in found if name != "schema_migration"]


def columns(table: str) -> list[str]:
    return [row[1] for row in db.rows(f"PRAGMA table_info({table})")]


def _insert(table: str, row: dict[str, Any]) -> None:
    names = [name for name in columns(table) if name in row]
    listed = ", ".join(f'"{name}"' for name in names)
    db.execute(f"INSERT INTO {table} ({listed}) VALUES ({', '.join('?' * len(names))})", [row[name] for name in names])


def _rows(now: int, sandbox: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    channel, list_ = sandbox["id"], {"broadcast_id": 1, "run": 1, "file_id": 1}
    message = {**list_, "row": json.dumps([WAITING, "Анна"]), "not_before": 0, "tries": 0, "text_version": 1}
    taken = {"token": "2.abc", "provider_id": "sm.2", "sending_at": now, "sent_at": now, "delivered_at": now}
    content = {"variables": "{}", "text_version": 1, "region": "RU", "on_file_delete": "keep", "timezone": "UTC"}
    broadcast = {**content, "channel_id": channel, "text": "Привет, {{ name }}", "created_by": "anna@example.org"}
    broadcast |= {"ignore_duplicates": True, "rate_per_minute": 6_000, "created_at": now, "updated_at": now}
    broadcast |= {"run": 1, "epoch": 1, "next_slot": 0, "speed": 0}
    file = {"role": "main", "name": "list.csv", "path": "", "size": 100, "sha256": "0" * 64, "state": "ready"}
    file |= {"run": 1, "options": "{}", "encoding": "utf-8", "delimiter": ",", "phone_column": "phone"}
    file |= {"columns": '["phone", "name"]', "unused": "[]", "sample": "[]", "repairs": "{}", "done": 100}
    file |= {"rows": 3, "accepted": 2, "rejected": '{"duplicate": 1}', "created_at": now, "checked_at": now}
    report = {"channel_id": channel, "message_id": 2, "provider_id": "sm.2", "token": "2.abc", "at": now}
    person = {"email": "anna@example.org", "password_hash": people.password_hash(), "role": "admin"}
    token = {"name": "crm", "prefix": TOKEN[:12], "token_hash": digest(TOKEN), "role": "sender", "created_at": now}
    return {
        "setting": [{"name": "something", "value": "1"}],
        "user_account": [{"id": 1, **person, "language": "en", "active": True, "created_at": now}],
        "login_session": [
            {"token_hash": digest(SESSION), "user_id": 1, "created_at": now, "last_at": now, "address": "", "agent": ""}
        ],
        "login_attempt": [{"key": "address:192.0.2.1", "failures": 1, "until": 0, "last_at": now}],
        "api_token": [token],
        "audit": [{"at": now, "actor": "anna@example.org", "action": "login", "subject": ""}],
        "worker": [{"pid": 1, "host": "then", "started_at": now, "heartbeat_at": 0}],
        "channel": [sandbox],
        "message_template": [
            {
                **{"channel_id": channel, "name": "hello", "language": "ru", "status": "APPROVED", "synced_at": now},
                **{"category": "UTILITY", "parameter_format": "POSITIONAL", "components": "[]"},
            }
        ],
        "broadcast": [
            {"id": 1, "name": "Running then", "state": "running", **broadcast},
            {"id": 2, "name": "Draft then", "state": "draft", **broadcast},
        ],
        "run": [{"broadcast_id": 1, "number": 1, "who": "everyone", "started_at": now, "copied": True}],
        "recipient_file": [{"id": 1, "broadcast_id": 1, **file}],
        "rejected_row": [{"file_id": 1, "line": 4, "code": "duplicate", "value": WAITING, "other": '{"line": 2}'}],
        "message": [
            {"id": 1, "line": 2, "phone": WAITING, "status": "queued", **message},
            {"id": 2, "line": 3, "phone": GONE, "status": "delivered", **message, **taken},
        ],
        "counter": [{**list_, "status": "queued", "n": 1}, {**list_, "status": "delivered", "n": 1}],
        "attempt": [{"message_id": 2, "token": "2.aaa", "at": now, "outcome": "postponed", "code": "http_429"}],
        "delivery_report": [{**report, "status": "delivered", "received_at": now, "effect": "moved", "dedupe": "d"}],
        "callback": [
            {"channel_id": channel, "path": "", "query": "", "body": b"{}", "received_at": now, "processed_at": now}
        ],
        "inbound": [
            {
                **{"channel_id": channel, "provider_id": "in.1", "phone": GONE, "kind": "text", "text": "Спасибо"},
                **{"message_id": 2, "broadcast_id": 1, "at": now, "received_at": now},
            }
        ],
        "opt_out": [{"phone": "+79010000003", "reason": "СТОП", "source": "reply", "channel_id": channel, "at": now}],
    }
