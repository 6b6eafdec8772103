"""The way from the first release: nothing is lost on it, and everything works at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import old
from tests.people import PASSWORD, Browser
from webapp import create_app
from worker import db, migrations
from worker.models import TABLES, Conversation, OptOutEvent, User
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation whose key is in its folder, as most are."""
    return Settings(data=tmp_path / "data")


@pytest.fixture
def then(settings: Settings) -> dict[str, Any]:
    """What the first release left behind, table by table: columns and rows."""
    old.install(settings)
    db.open_database(settings)
    with db.connection():
        found = {table: (old.columns(table), held(table, old.columns(table))) for table in old.tables()}
    db.close()
    return found


def held(table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    listed = ", ".join(f'"{name}"' for name in columns)
    return db.rows(f"SELECT {listed} FROM {table} ORDER BY 1, 2")


@pytest.fixture
def now(settings: Settings, then: dict[str, Any]) -> Any:
    db.open_database(settings)
    applied = migrations.upgrade()
    assert applied and old.FIRST not in applied
    with db.connection():
        yield settings
    db.close()


def test_the_old_installation_has_something_in_every_table(then: dict[str, Any]) -> None:
    assert len(then) == 20 and [table for table, (_columns, rows) in then.items() if not rows] == []


def test_no_row_is_lost_or_changed(then: dict[str, Any], now: Settings) -> None:
    for table, (columns, rows) in then.items():
        assert held(table, columns) == rows, table
    assert db.value("PRAGMA integrity_check") == "ok" and db.rows("PRAGMA foreign_key_check") == []


def test_what_is_new_is_filled_from_what_was_there(now: Settings) -> None:
    found = Conversation.get()
    assert (found.phone, found.last_text, found.broadcast_id) == (old.GONE, "Спасибо", 1)
    assert OptOutEvent.get().phone == "+79010000003"
    assert db.value("SELECT conversation_id FROM inbound") == found.id


def test_the_program_reads_every_table(now: Settings) -> None:
    for table in TABLES:
        list(table.select().limit(5))


def test_people_programs_and_pages_go_on(now: Settings) -> None:
    app = create_app(now)
    app.testing = True
    browser = Browser(app)
    assert browser.post("/login", {"email": "anna@example.org", "password": PASSWORD}).status_code == 303
    browser.forget_csrf()
    pages = ("/broadcasts", "/broadcasts/1", "/broadcasts/2", "/broadcasts/1/report", "/channels", "/settings")
    for path in pages:
        assert browser.get(path).status_code == 200, path
    assert "Running then" in browser.page("/broadcasts")
    api = app.test_client()
    head = {"Authorization": f"Bearer {old.TOKEN}"}
    messages = api.get("/api/v1/broadcasts/1/messages", headers=head).json["items"]
    assert [(m["phone"], m["status"]) for m in messages] == [(old.WAITING, "queued"), (old.GONE, "delivered")]
    report = api.get("/api/v1/broadcasts/1/report.csv", headers=head).data.decode("utf-8-sig")
    assert old.GONE in report and "Анна" in report
    assert api.post("/api/v1/broadcasts/1/stop", headers=head).json["state"] == "stopped"
    assert User.get().language == "en"
