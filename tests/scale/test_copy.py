"""`molva copy`: everything arrives, is counted, and goes on there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import make, servers
from worker import broadcasts, channels, copying, db, migrations, models, recipients
from worker.models import Broadcast, Message, RecipientFile
from worker.settings import Settings

pytestmark = pytest.mark.scale


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    """An installation on SQLite with a little of everything that a draft makes."""
    settings = Settings(data=tmp_path / "data", secret_key="only for tests, never for a real installation")
    db.open_database(settings)
    migrations.upgrade()
    with db.connection():
        channels.ensure_sandbox(settings)
        channel = models.Channel.get(models.Channel.provider == "sandbox_sms")
        values = {"name": "Сдача", "channel_id": channel.id, "text": "Hi {{name}}", "rate_per_minute": 60}
        broadcast = broadcasts.create(settings, values, "test")
        data = "phone;name\n" + "\n".join(f"+7901{n:07d};П{n}" for n in range(12_000)) + "\nwrong;x\n"
        file = recipients.receive(broadcast, io.BytesIO(data.encode()), "a.csv", settings.uploads, {}, "test")
        recipients.check(file.id, None, broadcasts.content(broadcast), True, settings.uploads)
        make.token()
    db.close()
    return settings


@pytest.fixture
def target(postgres: servers.Postgres) -> Iterator[str]:
    postgres.drop("copied")
    yield postgres.database("copied")
    db.close()
    postgres.drop("copied")


def test_all_of_it_is_there_and_new_rows_go_behind_it(old: Settings, target: str) -> None:
    told: dict[str, int] = {}
    copying.copy(old, old.database_path, target, told.__setitem__)
    assert told["message"] == 12_000 and told["rejected_row"] == 1 and told["files"] == 1
    there = replace(old, database_url=target)
    db.open_database(there)
    with db.connection():
        assert {model._meta.table_name: model.select().count() for model in models.TABLES} == {
            **{name: n for name, n in told.items() if name != "files"},
            "stored_file": 1,
        }
        broadcast, file = Broadcast.get(), RecipientFile.get()
        assert broadcast.name == "Сдача" and Message.get(Message.line == 12_001).phone == "+79010011999"
        # The file can be read again, and what is new gets numbers of its own.
        assert recipients.recheck(file)
        recipients.check(file.id, None, broadcasts.content(broadcast), True, there.uploads)
        assert RecipientFile.get().accepted == 12_000 and Message.select().count() == 12_000
        again = {"channel_id": broadcast.channel_id, "text": "x", "rate_per_minute": 60}
        assert broadcasts.create(there, {"name": "B", **again}, "test").id > broadcast.id


def test_a_target_that_holds_something_is_left_alone(old: Settings, target: str) -> None:
    copying.copy(old, old.database_path, target, lambda *_: None)
    with pytest.raises(copying.CopyError, match="not empty"):
        copying.copy(old, old.database_path, target, lambda *_: None)
    with pytest.raises(copying.CopyError, match="no database"):
        copying.copy(old, old.data / "other.db", target, lambda *_: None)
