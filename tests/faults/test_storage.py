"""F29-F31, F38-F40: the disk runs full or fails in mid-run, data come back from a backup, a migration dies."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from tests.faults.world import World, sleep
from tests.product import wait
from worker import backup, db, migrations, people, recipients, tasks
from worker.models import RecipientFile
from worker.settings import Settings

pytestmark = pytest.mark.faults
MakeWorld = Callable[..., World]
MIGRATE = """
import sys
from pathlib import Path
from playhouse.migrations import Runner
from worker import db, migrations
from worker.settings import Settings
db.open_database(Settings(data=Path(sys.argv[1])))
migrations._runner = lambda: Runner(db.database, directory=sys.argv[2])
print(migrations.upgrade())
"""
SLOW_STEP = """
import time
from pathlib import Path
def up(migrator, db):
    db.execute_sql("CREATE TABLE added (n BIGINT NOT NULL)")
    db.execute_sql("DELETE FROM setting")
    mark = Path(__file__).with_name("begun")
    if not mark.exists():
        mark.touch()
        time.sleep(60)
    db.execute_sql("INSERT INTO added (n) VALUES (1)")
"""


def missing(part: str, why: str) -> None:
    """Skip, or fail where the part is required."""
    if os.environ.get("MOLVA_TEST_REQUIRE"):
        pytest.fail(f"{part}: {why}")
    pytest.skip(f"{part}: {why}")


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`molva …` on this data folder."""
    return subprocess.run(
        [sys.executable, "-m", "webapp", *arguments, "--data", str(settings.data)],
        capture_output=True,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if not k.startswith("MOLVA_")},
    )


def quiet(world: World, seconds: float) -> int:
    """Nothing reaches the provider for so long; how many it has had."""
    before = len(world.accepted())
    sleep(seconds)
    assert len(world.accepted()) == before
    return before


# --- a full disk


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN."""
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(held.split()[1], 16) >> 21 & 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """The data folder on a file system of 4 MB; call it with another size to make room."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("a small disk can be mounted only by root on Linux")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)

    def mount(size: str, *options: str) -> bool:
        given = ",".join([*options, f"size={size}", "mode=700"])
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", given, "tmpfs", str(data)], capture_output=True)
        return done.returncode == 0

    if not mount("4m"):
        if may_mount():
            missing("a small disk", "mounting a tmpfs did not succeed")
        pytest.skip("a small disk cannot be mounted in this container: it lacks CAP_SYS_ADMIN")

    def make_room(size: str) -> None:
        assert mount(size, "remount")

    yield make_room
    db.close()
    subprocess.run(["umount", "--lazy", str(data)], check=True, capture_output=True)


@pytest.mark.long
def test_f29_f30_a_full_disk_stops_the_sending_and_the_upload_until_there_is_room(
    small_disk: Callable[[str], None], make_world: MakeWorld
) -> None:
    world = make_world()
    world.control(delay=[0.01, 0.03])
    token = people.create_token("test", "sender", actor="test")
    assert world.ask("GET", "/broadcasts").status_code == 200  # a token of its own, while there is room for it
    broadcast = world.broadcast(500, 12_000)  # the write-ahead log alone would grow beyond 4 MB
    wait(lambda: "storing failed" in world.product.log.read_text(), 40)
    sleep(0.5)
    sent = quiet(world, 6.0)  # it looks again every five seconds
    assert 0 < sent < 500 and world.fresh(broadcast).state == "running"
    assert world.why(broadcast) == "disk"

    files = sorted(path.name for path in (world.settings.data / "uploads").iterdir())
    headers = {"Authorization": f"Bearer {token}", "Accept-Language": "en"}
    upload = requests.post(
        f"{world.product.url}/api/v1/broadcasts/{broadcast.id}/files",
        files={"file": ("b.csv", b"phone,name\n" + b"+79020000001,Anna\n" * 100_000)},
        headers=headers,
        timeout=30,
    )
    assert upload.status_code == 503 and upload.json()["error"]["code"] == "storage", upload.text
    assert sorted(path.name for path in (world.settings.data / "uploads").iterdir()) == files
    assert requests.get(f"{world.product.url}/api/v1/broadcasts", headers=headers, timeout=30).status_code == 200

    small_disk("64m")
    tasks.wake(broadcast.id)  # by itself it looks again within 15 seconds
    world.state(broadcast, "finished", 40)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 500 and numbers["uncertain"] <= world.concurrency


@pytest.mark.long
def test_f30_an_import_that_runs_into_a_full_disk_is_refused_or_done_later_but_never_half(
    small_disk: Callable[[str], None], make_world: MakeWorld
) -> None:
    world = make_world()
    draft = world.draft(10)
    lines = "".join(f"+7902{n:07d},P{n}\n" for n in range(60_000)).encode()
    file = recipients.receive(draft, io.BytesIO(b"phone,name\n" + lines), "b.csv", world.settings.uploads, {}, "test")
    tasks.read_file(file.id)
    wait(lambda: f"file {file.id}: the storage failed: full" in world.product.log.read_text(), 30)
    small_disk("64m")
    wait(lambda: RecipientFile.get_by_id(file.id).state != "checking", 30)
    found = RecipientFile.get_by_id(file.id)
    rows = db.value("SELECT COUNT(*) FROM message WHERE file_id = ?", [file.id])
    counted = db.value("SELECT COALESCE(SUM(n), 0) FROM counter WHERE file_id = ?", [file.id])
    assert (found.state, rows, counted) in (("ready", 60_000, 60_000), ("refused", 0, 0))
    if found.state == "refused":
        assert found.code == "storage_full"


# --- a failing disk


@pytest.mark.long
def test_f31_when_the_disk_cannot_sync_nothing_leaves_any_more(world: World) -> None:
    strace = shutil.which("strace")
    if strace is None:
        missing("strace", "apt-get install strace")
    crowd = 1_500
    broadcast = world.broadcast(crowd, 3_000)
    world.left(broadcast, crowd - 60)
    pid = world.worker_pid()
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    tracer = subprocess.Popen([str(strace), "-f", "-qq", "-o", "/dev/null", *inject, "-p", str(pid)])
    try:
        wait(lambda: "storing failed" in world.product.log.read_text() or tracer.poll() is not None, 20)
        if tracer.poll() is not None:
            pytest.skip("strace may not attach to a process here: it needs CAP_SYS_PTRACE")
        sleep(0.5)
        sent = quiet(world, 11.0)
        assert 0 < sent < crowd
        assert world.why(broadcast) == "stuck"  # not known from outside, but said within ten seconds
    finally:
        world.product.kill()
        tracer.wait(10)
    world.product.start()
    world.state(broadcast, "finished", 90)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == crowd and numbers["uncertain"] <= 2 * world.concurrency


# --- backups


@pytest.mark.long
def test_f38_after_a_restore_nothing_is_sent_before_a_person_says_so(world: World, tmp_path: Path) -> None:
    token = people.create_token("test", "sender", actor="test")
    broadcast = world.broadcast(600, 3_000)
    world.left(broadcast, 550)
    copy = tmp_path / "copy.zip"
    made = command(world.settings, "backup", str(copy))
    assert made.returncode == 0, made.stderr
    world.state(broadcast, "finished")
    refused = command(world.settings, "restore", str(copy))
    assert refused.returncode == 1 and "Stop it first" in refused.stderr
    world.product.stop()
    db.close()
    restored = command(world.settings, "restore", str(copy))
    assert restored.returncode == 0, restored.stderr
    assert "Stopped broadcasts: 1" in restored.stdout

    world.product.start()
    db.database.connect(reuse_if_open=True)
    assert quiet(world, 6.0) == 600
    row = world.fresh(broadcast)
    assert (row.state, row.stop_reason) == ("stopped", "restored")
    with zipfile.ZipFile(copy) as archive:
        assert row.stop_detail == {"at": json.loads(archive.read("manifest.json"))["at"]}
    shown = requests.get(
        f"{world.product.url}/api/v1/broadcasts/{broadcast.id}",
        headers={"Authorization": f"Bearer {token}", "Accept-Language": "en"},
        timeout=10,
    ).json()
    assert "restored from a backup of" in shown["stop_text"]
    numbers = world.numbers(broadcast)
    assert numbers["sending"] == 0 and 0 < numbers["queued"] <= 550
    world.press(broadcast, "resume")
    wait(lambda: len(world.accepted()) > 600, 20)


@pytest.mark.long
@pytest.mark.parametrize("times", [2, 20])
def test_f39_backups_taken_while_sending_are_whole(world: World, tmp_path: Path, times: int) -> None:
    people = 100 * times + 100
    broadcast = world.broadcast(people, 15_000)
    seen = []
    for n in range(times):
        world.left(broadcast, people - 50 - n * 100)
        copy = tmp_path / f"{n}.zip"
        backup.backup(world.settings, copy)
        with zipfile.ZipFile(copy) as archive:
            assert archive.testzip() is None
            archive.extract("molva.db", tmp_path)
        with closing(sqlite3.connect(tmp_path / "molva.db")) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = Counter(dict(opened.execute("SELECT status, COUNT(*) FROM message GROUP BY status")))
            counters = Counter(dict(opened.execute("SELECT status, SUM(n) FROM counter GROUP BY status")))
        assert +rows == +counters and rows.total() == people
        seen.append(rows["queued"])
    assert seen == sorted(seen, reverse=True) and seen[-1] > 0
    world.state(broadcast, "finished")
    world.judge(broadcast)


# --- schemas


def test_f40_a_migration_that_was_killed_is_done_again_and_loses_nothing(tmp_path: Path) -> None:
    steps, data = tmp_path / "steps", tmp_path / "data"
    shutil.copytree(Path(migrations.__file__).parent, steps, ignore=shutil.ignore_patterns("__*"))
    db.open_database(Settings(data=data))
    migrations.upgrade()
    with db.write():
        db.execute("INSERT INTO setting (name, value) VALUES ('kept', '1')")
    (steps / "9000_slow.py").write_text(SLOW_STEP)
    migrating = [sys.executable, "-c", MIGRATE, str(data), str(steps)]
    first = subprocess.Popen(migrating)
    wait((steps / "begun").exists, 20)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    with db.connection():  # the program of before finds its own schema and every row
        migrations.require_current()
        assert db.value("SELECT value FROM setting WHERE name = 'kept'") == "1"
        assert db.value("SELECT COUNT(*) FROM sqlite_master WHERE name = 'added'") == 0
    again = subprocess.run(migrating, capture_output=True, text=True, timeout=20, check=True)
    assert "9000_slow" in again.stdout
    with db.connection():
        assert db.rows("SELECT n FROM added") == [(1,)]
        assert db.value("PRAGMA integrity_check") == "ok"
    db.close()
    # and now that program is the older one
    for name in ("serve", "web", "worker", "migrate"):
        refused = command(Settings(data=data), name)
        assert refused.returncode == 1 and "newer Molva" in refused.stderr, name
        assert "Traceback" not in refused.stderr
