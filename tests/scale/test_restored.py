"""After the database server's own restore, and on a host whose key is another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import make, servers
from webapp import serve
from worker import backup, broadcasts, channels, clock, counters, db, installation, migrations, vault
from worker.models import Broadcast, Channel
from worker.settings import Settings

pytestmark = pytest.mark.scale


@pytest.fixture
def host(postgres: servers.Postgres, tmp_path: Path) -> Iterator[Settings]:
    """One host of an installation on PostgreSQL."""
    postgres.drop("restored")
    settings = Settings(data=tmp_path / "data", database_url=postgres.database("restored"), secret_key="k" * 40)
    db.open_database(settings)
    migrations.upgrade()
    with db.connection():
        channels.ensure_sandbox(settings)
        yield settings
    db.close()
    postgres.drop("restored")


def test_nothing_goes_on_by_itself_after_a_restore(host: Settings) -> None:
    channel = Channel.get(Channel.provider == "sandbox_sms")
    running = make.broadcast(channel=channel, state="running")
    make.messages(make.file(running, run=1), "sent", "sending", "queued", "queued")
    later = make.broadcast(channel=channel, state="scheduled", send_at=clock.now() + clock.HOUR)
    alive = make.worker(heartbeat_at=clock.now())
    with pytest.raises(backup.BackupError, match="Stop Molva on all hosts"):
        backup.restored(host)
    at = alive.heartbeat_at = clock.now() - clock.MINUTE
    with db.connection():
        alive.save()
    done = backup.restored(host)
    assert (done.at, done.stopped, done.uncertain) == (at, 2, 1)
    with db.connection():
        for row in (running, later):
            found = Broadcast.get_by_id(row.id)
            assert (found.state, found.stop_reason, found.stop_detail) == ("stopped", "restored", {"at": at})
        numbers = broadcasts.count(running, 1)
        assert (numbers["sent"], numbers["uncertain"], numbers["queued"]) == (1, 1, 2)
        assert not counters.drift(running.id)


def test_it_is_for_a_shared_database_alone(tmp_path: Path) -> None:
    with pytest.raises(backup.BackupError, match="molva restore does this by itself"):
        backup.restored(Settings(data=tmp_path))


def test_a_host_with_another_key_does_not_start(host: Settings) -> None:
    assert installation.has_the_key(host) and installation.has_the_key(host)
    other = replace(host, data=host.data.with_name("second"), secret_key="x" * 40)
    assert not installation.has_the_key(other)
    with pytest.raises(serve.ServeError, match="MOLVA_SECRET_KEY"):
        serve.prepare(other, upgrade=False)
    db.open_database(host)
    kept = db.value("SELECT value FROM setting WHERE name = 'key_mark'")
    assert host.secret_key not in kept and vault.derive(host.secret_key.encode(), "credentials").hex() not in kept


def test_the_newest_key_of_a_rotation_counts(host: Settings) -> None:
    assert installation.has_the_key(host)
    assert installation.has_the_key(replace(host, secret_key=f"{'n' * 40}\n{host.secret_key}"))
    assert installation.has_the_key(replace(host, secret_key="n" * 40))
    assert not installation.has_the_key(host)


def test_on_one_machine_the_key_file_is_enough(database: Settings) -> None:
    if not database.database_url:
        assert installation.has_the_key(replace(database, secret_key="k" * 40))
        assert installation.has_the_key(replace(database, secret_key="x" * 40))
