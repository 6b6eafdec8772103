"""A disk that is full, a database that is busy or broken: said in words, nothing half-made, reading goes on."""

from __future__ import annotations

import errno
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import peewee
import pytest
from flask import Flask

from tests import make, people
from tests.conftest import Clock
from worker import db, recipients, tasks
from worker.models import Broadcast, LoginSession, Message, RecipientFile
from worker.settings import Settings

pytestmark = pytest.mark.sqlite


@contextmanager
def full_disk() -> Iterator[None]:
    """No page more for the database, and none of those there are is free."""
    db.execute(f"PRAGMA max_page_count = {db.value('PRAGMA page_count')}")
    for size in (1_000, 10):
        try:
            while True:
                db.execute("INSERT INTO setting (name, value) VALUES (hex(randomblob(16)), hex(zeroblob(?)))", [size])
        except peewee.OperationalError as error:
            assert db.trouble(error) is db.Trouble.FULL
    yield
    db.execute("PRAGMA max_page_count = 1000000")


def until_refused(post: Any, most: int = 300) -> Any:
    """Pages that are half empty take a few more rows."""
    for _n in range(most):
        answer = post()
        if answer.status_code >= 400:
            return answer
    raise AssertionError("it was never refused")


def test_a_full_disk_is_a_503_in_words_and_pages_can_still_be_read(
    app: Flask, api: dict[str, Any], sender: people.Browser, clock: Clock
) -> None:
    make.broadcast(name="Known")
    client = app.test_client()
    body = {"name": "x" * 200, "channel_id": make.channel().id, "text": "y" * 2000, "rate_per_minute": 60}
    with full_disk():
        english = api["sender"] | {"Accept-Language": "en"}
        answer = until_refused(lambda: client.post("/api/v1/broadcasts", json=body, headers=english))
        assert answer.status_code == 503 and answer.json["error"]["code"] == "storage"
        assert "disk is full" in answer.json["error"]["message"]
        assert answer.headers["Retry-After"]
        russian = client.post("/api/v1/broadcasts", json=body, headers=api["sender"] | {"Accept-Language": "ru"}).json[
            "error"
        ]["message"]
        assert "На диске сервера нет места" in russian
        clock.tick(minutes=5)  # a session is touched by then, which must not matter
        assert "Known" in sender.page("/broadcasts")
    stored = Broadcast.select().where(Broadcast.name == "x" * 200).count()
    assert client.post("/api/v1/broadcasts", json=body, headers=api["sender"]).status_code == 201
    assert Broadcast.select().where(Broadcast.name == "x" * 200).count() == stored + 1
    assert LoginSession.select().count() == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError(errno.EIO, "Input/output error"), "cannot be written"),
    ],
)
def test_an_upload_that_meets_the_end_of_the_disk_leaves_nothing(
    app: Flask,
    api: dict[str, Any],
    database: Settings,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    words: str,
) -> None:
    row = make.broadcast()

    def fails(_handle: int) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("worker.files.os.fsync", fails)
        form = {"file": (io.BytesIO(b"phone\n+79010000001\n"), "a.csv")}
        headers = api["sender"] | {"Accept-Language": "en"}
        answer = app.test_client().post(f"/api/v1/broadcasts/{row.id}/files", data=form, headers=headers)
    assert answer.status_code == 503 and answer.json["error"]["code"] == "storage"
    assert words in answer.json["error"]["message"]
    assert list(database.uploads.iterdir()) == [] and RecipientFile.select().count() == 0


def test_a_busy_database_is_a_503_that_says_to_try_again(app: Flask, api: dict[str, Any], database: Settings) -> None:
    row = make.broadcast()
    db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(database.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = app.test_client().patch(
            f"/api/v1/broadcasts/{row.id}",
            json={"rate_per_minute": 61},
            headers=api["sender"] | {"Accept-Language": "en"},
        )
    assert answer.status_code == 503 and "busy" in answer.json["error"]["message"]


def test_a_fault_of_our_own_is_still_a_500(app: Flask, api: dict[str, Any]) -> None:
    row = make.broadcast()
    db.execute("ALTER TABLE counter RENAME TO elsewhere")
    answer = app.test_client().get(f"/api/v1/broadcasts/{row.id}", headers=api["viewer"])
    assert answer.status_code == 500


def received(row: Broadcast, database: Settings, rows: int) -> RecipientFile:
    lines = "\n".join(f"+7901{n:07d}" for n in range(rows))
    return recipients.receive(row, io.BytesIO(f"phone\n{lines}".encode()), "a.csv", database.uploads, {}, "test")


def test_an_import_that_meets_a_full_disk_is_refused_whole(database: Settings) -> None:
    row = make.broadcast()
    file = received(row, database, 20_000)
    with full_disk():
        db.execute(f"PRAGMA max_page_count = {db.value('PRAGMA page_count') + 150}")
        recipients.check(file.id, None, None, True, database.uploads)
        found = RecipientFile.get_by_id(file.id)
        assert (found.state, found.code) == ("refused", "storage_full")
        assert Message.select().count() == 0
        assert db.value("SELECT COALESCE(SUM(n), 0) FROM counter") == 0


def test_an_import_that_meets_a_busy_database_is_taken_up_again(database: Settings) -> None:
    tasks.configure(database)
    row = make.broadcast()
    file = received(row, database, 100)
    db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(database.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        recipients.check(file.id, 1, None, True, database.uploads)
    assert RecipientFile.get_by_id(file.id).state == "checking"
    assert recipients.waits(file.id) and not recipients.waits(file.id)
    recipients.check(file.id, 1, None, True, database.uploads)
    assert RecipientFile.get_by_id(file.id).accepted == 100


def test_an_upload_that_has_vanished_is_refused_in_words(database: Settings) -> None:
    file = received(make.broadcast(), database, 10)
    (database.uploads / file.path).unlink()
    recipients.check(file.id, None, None, True, database.uploads)
    assert RecipientFile.get_by_id(file.id).code == "upload_lost"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Stopped: data restored from a backup of Nov 5, 2026"),
        ("ru", "Остановлена: данные восстановлены из копии от 5 нояб. 2026"),
    ],
)
def test_a_restored_broadcast_says_so_with_the_time(
    app: Flask, api: dict[str, Any], clock: Clock, language: str, words: str
) -> None:
    row = make.broadcast(state="stopped", stop_reason="restored", stop_detail={"at": clock.ms}, stopped_at=clock.ms)
    headers = api["viewer"] | {"Accept-Language": language}
    shown = app.test_client().get(f"/api/v1/broadcasts/{row.id}", headers=headers).json
    assert shown["stop_text"].replace("\u202f", " ").startswith(words), shown["stop_text"]
