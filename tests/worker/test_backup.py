"""A copy in one file, and the way back: whole or not at all, and nothing sent before a person says so."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import backup as copies
from worker import broadcasts, channels, db, locks, migrations, optouts, vault
from worker.backup import BackupError, backup, restore
from worker.models import Attachment, Attempt, Audit, Broadcast, Message, OptOut, RecipientFile, Webhook
from worker.settings import Settings

pytestmark = pytest.mark.sqlite


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation whose key is generated, as most are."""
    return Settings(data=tmp_path / "data")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copies.zip"


@pytest.fixture
def house(database: Settings, clock: Clock) -> Iterator[Settings]:
    """An installation in mid-sending, with a key and an upload."""
    channels.ensure_sandbox(database)
    for state in ("draft", "scheduled", "running", "stopped", "finished"):
        row = make.broadcast(name=state, state=state, stop_reason="person" if state == "stopped" else None)
        file = make.file(row, path=f"{row.id:032x}")
        (database.uploads / file.path).write_text(f"upload of {state}")
        if state == "running":
            make.messages(file, "queued", "delivered")
            make.messages(file, "sending", "sending", token="1.a", owner=1, lease_until=clock.ms)
    yield database


def balance(broadcast: Broadcast) -> dict[str, int]:
    return {status: n for status, n in broadcasts.count(broadcast, None).items() if n}


def back(settings: Settings, source: Path) -> copies.Report:
    """Restore, then look at what is there."""
    db.close()
    report = restore(settings, source)
    db.open_database(settings)
    db.database.connect()
    return report


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "part" in path.name}


def test_one_private_file_holds_everything(house: Settings, target: Path, clock: Clock) -> None:
    report = backup(house, target)
    assert (report.at, report.with_key, report.missing, report.size) == (clock.ms, True, 0, target.stat().st_size)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
    assert {"molva.db", "secret.key", "manifest.json"} < set(names) and len(names) == 3 + 5
    assert manifest["at"] == clock.ms and manifest["key"] == "file" and manifest["schema"][:4].isdigit()
    assert left_over(target.parent) == set()


def test_files_that_a_person_removed_are_not_kept(house: Settings, target: Path) -> None:
    removed, gone = RecipientFile.select().limit(2)
    RecipientFile.update(removed_at=1, removed_how="remove").where(RecipientFile.id == removed.id).execute()
    (house.uploads / gone.path).unlink()
    assert backup(house, target).missing == 1
    with zipfile.ZipFile(target) as archive:
        kept = {name for name in archive.namelist() if name.startswith("uploads/")}
    assert len(kept) == 3 and f"uploads/{removed.path}" not in kept


def test_what_people_sent_is_in_the_copy_and_comes_back(house: Settings, target: Path) -> None:
    facts = {"inbound_id": 1, "channel_id": 1, "media_id": "1", "mime": "image/png", "name": "", "at": 1}
    Attachment.create(**facts, state="ready", path="a" * 32)
    Attachment.create(**facts)
    (house.media / ("a" * 32)).write_bytes(b"picture")
    assert backup(house, target).missing == 0
    (house.media / ("a" * 32)).unlink()
    back(house, target)
    assert [path.read_bytes() for path in house.media.iterdir()] == [b"picture"]
    assert stat.S_IMODE((house.media / ("a" * 32)).stat().st_mode) == 0o600


def test_a_key_from_the_environment_stays_outside(house: Settings, target: Path) -> None:
    with_key = replace(house, secret_key="k" * 40)
    assert backup(with_key, target).with_key is False
    with zipfile.ZipFile(target) as archive:
        assert "secret.key" not in archive.namelist()
        assert json.loads(archive.read("manifest.json"))["key"] == "environment"


def test_an_existing_file_is_replaced_only_when_told(house: Settings, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(BackupError, match="exists already"):
        backup(house, target)
    assert target.read_text() == "precious"
    backup(house, target, overwrite=True)
    assert zipfile.is_zipfile(target)


def test_a_backup_that_fails_leaves_nothing(house: Settings, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copies, "_put", full)
    with pytest.raises(BackupError, match="more room than the disk has"):
        backup(house, target)
    assert not target.exists() and left_over(target.parent) == set()


def test_what_a_killed_backup_left_is_in_nobody_s_way(house: Settings, target: Path) -> None:
    for tail in (".part", ".part-db"):
        target.with_name(f".{target.name}{tail}").write_bytes(b"x" * 100_000)
    backup(house, target)
    assert back(house, target).stopped == 3


def test_there_must_be_something_to_copy_and_a_place_for_it(tmp_path: Path, house: Settings) -> None:
    with pytest.raises(BackupError, match="no installation"):
        backup(Settings(data=tmp_path / "nowhere"), tmp_path / "a.zip")
    with pytest.raises(BackupError, match="a folder that exists"):
        backup(house, tmp_path / "nowhere" / "a.zip")


def test_a_writer_is_not_held_up_by_the_copying(house: Settings, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "STEP", 1)
    steps = 0

    class Live(sqlite3.Connection):
        def backup(self, made: sqlite3.Connection, **options: Any) -> None:  # type: ignore[override]
            def between(*_: Any) -> None:
                nonlocal steps
                steps += 1
                with db.write():
                    db.execute("UPDATE broadcast SET speed = speed + 1")

            super().backup(made, **options, progress=between)

    real = sqlite3.connect
    monkeypatch.setattr(copies.sqlite3, "connect", lambda path, **o: real(path, **o, factory=Live))
    backup(house, target)
    assert steps > 20  # and it came to an end, although the database changed at every step
    with zipfile.ZipFile(target) as archive:
        archive.extract("molva.db", target.parent)
    with closing(real(target.parent / "molva.db")) as copy:
        assert copy.execute("SELECT MAX(speed) FROM broadcast").fetchone() == (0,)


def test_a_restore_brings_back_the_moment_and_stops_everything(house: Settings, target: Path, clock: Clock) -> None:
    at = backup(house, target).at
    epochs = {row.name: row.epoch for row in Broadcast.select()}
    running = Broadcast.get(Broadcast.name == "running")
    before = balance(running)
    clock.tick(hours=1)
    db.execute("UPDATE message SET status = 'delivered'")
    Broadcast.update(name="changed").execute()
    for upload in house.uploads.iterdir():
        upload.unlink()

    report = back(house, target)
    assert (report.at, report.stopped, report.uncertain, report.locked) == (at, 3, 2, ())
    for row in Broadcast.select():
        expected = row.name if row.name in ("draft", "finished") else "stopped"
        assert row.state == expected
        if expected == "stopped":
            assert (row.stop_reason, row.stop_detail) == ("restored", {"at": at})
            assert row.epoch > epochs[row.name]
    assert before == {"total": 4, "queued": 1, "delivered": 1, "sending": 2}
    assert balance(running) == {"total": 4, "queued": 1, "delivered": 1, "uncertain": 2}
    lost = list(Message.select().where(Message.status == "uncertain"))
    assert {(m.cause, m.owner, m.lease_until) for m in lost} == {("worker_lost", None, None)}
    assert Attempt.select().where(Attempt.outcome == "lost").count() == 2
    assert sorted(path.name for path in house.uploads.iterdir()) == sorted(row.path for row in RecipientFile.select())
    assert Audit.get(Audit.action == "data.restore").detail["stopped"] == 3
    assert stat.S_IMODE(house.database_path.stat().st_mode) == 0o600


def test_the_database_that_was_here_is_kept_and_opens(house: Settings, target: Path, clock: Clock) -> None:
    backup(house, target)
    Broadcast.update(name="changed").execute()
    aside = back(house, target).aside
    assert aside is not None and aside.name == f"molva.db.before-restore-{clock.ms}"
    with closing(sqlite3.connect(aside)) as old:
        assert old.execute("SELECT DISTINCT name FROM broadcast").fetchall() == [("changed",)]
    assert not (house.data / ".restore").exists()


def test_a_damaged_database_is_replaced(house: Settings, target: Path) -> None:
    backup(house, target)
    db.close()
    house.database_path.write_bytes(b"not a database at all" * 1000)
    report = back(house, target)
    assert report.aside is not None and report.aside.read_bytes().startswith(b"not a database")
    assert Broadcast.select().count() == 5


def test_whoever_asked_for_silence_since_then_stays_on_the_list(house: Settings, target: Path) -> None:
    backup(house, target)
    OptOut.create(phone="+79000000001", reason="STOP", source="reply", at=1)
    back(house, target)
    assert OptOut.get().phone == "+79000000001"
    (proof,) = optouts.history("+79000000001")
    assert (proof.action, proof.source, proof.reason, proof.at) == ("add", "reply", "STOP", 1)


def test_webhooks_wait_for_a_person_after_a_restore(house: Settings, target: Path) -> None:
    secret = vault.seal(house, {"secret": "whsec"})
    facts = {"url": "https://example.org/", "events": [], "created_by": "test", "created_at": 0}
    Webhook.create(secret=secret, **facts)
    backup(house, target)
    back(house, target)
    assert (Webhook.get().state, Webhook.get().stop_reason) == ("stopped", "restored")


def test_another_machine_gets_the_key_with_the_data(house: Settings, target: Path, tmp_path: Path) -> None:
    made = make.channel(name="Real", secrets=vault.seal(house, {"token": "secret"}))
    backup(house, target)
    other = Settings(data=tmp_path / "other")
    vault_before = b"old" * 20
    db.make_private(other.data)
    (other.data / "secret.key").write_bytes(vault_before)
    report = back(other, target)
    assert report.locked == () and report.aside is None
    assert vault.unseal(other, made.secrets) == {"token": "secret"}
    assert (other.data / "secret.key").read_bytes() == (house.data / "secret.key").read_bytes()
    kept = list(other.data.glob("secret.key.before-restore-*"))
    assert [path.read_bytes() for path in kept] == [vault_before]
    assert stat.S_IMODE((other.data / "secret.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("sealed_before", [True, False])
def test_a_copy_made_while_the_key_is_changed_opens_what_it_holds(
    house: Settings, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed_before: bool
) -> None:
    made = make.channel(name="Real", secrets=vault.seal(house, {"token": "secret"}))
    copy_database = copies._copy_database

    def change_the_key() -> None:
        vault.add_key(house)
        channels.reseal(house)
        vault.drop_old_keys(house)

    def meanwhile(source: Path, copy: Path) -> Any:
        if not sealed_before:
            change_the_key()
        found = copy_database(source, copy)
        if sealed_before:
            change_the_key()
        return found

    monkeypatch.setattr(copies, "_copy_database", meanwhile)
    backup(house, target)
    other = Settings(data=tmp_path / "other")
    assert back(other, target).locked == ()
    made = type(made).get_by_id(made.id)
    assert vault.unseal(other, made.secrets) == {"token": "secret"}


def test_a_key_that_opens_nothing_is_told(house: Settings, target: Path) -> None:
    make.channel(name="Real", secrets=vault.seal(house, {"token": "secret"}))
    backup(house, target)
    assert "Real" in back(replace(house, secret_key="k" * 40), target).locked


@pytest.mark.parametrize("step", ["_put_aside", "_sync_folder"])
def test_a_restore_that_dies_leaves_the_old_data_or_the_new_ones_whole(
    house: Settings, target: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = make.channel(name="Real", secrets=vault.seal(house, {"token": "secret"}))
    backup(house, target)
    (house.data / "secret.key").write_text("another key of the time after the backup")
    Broadcast.update(name="changed").execute()
    db.close()

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(copies, step, dies)
        restore(house, target)
    db.open_database(house)
    with db.connection():
        assert {row.name for row in Broadcast.select()} == {"changed"}
        assert db.value("PRAGMA integrity_check") == "ok"
    assert back(house, target).locked == ()
    assert vault.unseal(house, made.secrets) == {"token": "secret"}


def test_nothing_is_restored_under_a_running_server(house: Settings, target: Path) -> None:
    backup(house, target)
    use = locks.use(house)
    assert use is not None
    with pytest.raises(BackupError, match="Stop it first"):
        restore(house, target)
    use.end()
    assert back(house, target).stopped == 3


def test_nothing_starts_during_a_restore(house: Settings, clock: Clock) -> None:
    restoring = locks.alone(house)
    assert restoring is not None and locks.use(house) is None
    restoring.close()
    use = locks.use(house)
    assert use is not None
    use.end()
    assert list(house.data.glob("use-*")) == []


def rewritten(target: Path, **changes: Any) -> None:
    """The same archive with another manifest."""
    with zipfile.ZipFile(target) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(parts["manifest.json"]) | changes
    parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def test_what_is_not_ours_or_damaged_or_newer_is_refused_in_words(
    house: Settings, target: Path, tmp_path: Path
) -> None:
    backup(house, target)
    good = target.read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(BackupError, match=words):
            restore(house, target)

    target.unlink()
    refused("There is no file")
    target.write_text("hello")
    refused("damaged, or no backup")
    target.write_bytes(good[: len(good) // 2])
    refused("damaged, or no backup")
    middle = len(good) // 3
    target.write_bytes(good[:middle] + bytes(64) + good[middle + 64 :])
    refused("damaged")
    target.write_bytes(good)
    rewritten(target, product="other")
    refused("not a backup of Molva")
    target.write_bytes(good)
    rewritten(target, format=2)
    refused("newer Molva")
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    refused("not a backup of Molva")
    # nothing of it touched what is here
    db.open_database(house)
    with db.connection():
        assert Broadcast.get(Broadcast.name == "running").state == "running"
    assert not (house.data / ".restore").exists()


def test_a_newer_schema_is_refused(house: Settings, target: Path) -> None:
    db.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '2030-01-01')")
    backup(house, target)
    db.close()
    with pytest.raises(BackupError, match="newer Molva"):
        restore(house, target)


def test_an_older_schema_is_brought_up(tmp_path: Path, target: Path) -> None:
    old, now = Settings(data=tmp_path / "old"), Settings(data=tmp_path / "now")
    db.open_database(old)
    with db.connection():
        migrations._runner().up(target="0001_initial")
    backup(old, target)
    report = back(now, target)
    with db.connection():
        steps = [name for (name,) in db.rows("SELECT name FROM schema_migration ORDER BY name")]
    assert list(report.applied) == steps[1:]
    migrations.require_current()
    db.close()


def test_names_in_the_archive_are_not_believed(house: Settings, target: Path, tmp_path: Path) -> None:
    backup(house, target)
    with zipfile.ZipFile(target, "a") as archive:
        for name in ("../evil", "/tmp/evil", "uploads/../../evil", "uploads/evil.sh", "queue.db"):
            archive.writestr(name, b"evil")
    back(house, target)
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil").exists()
    assert os.listdir(house.uploads) and not (house.data / "queue.db").exists()
