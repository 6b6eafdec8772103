"""A copy of the data folder in one file, taken while messages are being sent; and the way back.

The file is a ZIP: `manifest.json`, `molva.db`, `secret.key` where the folder has one, the uploads that may still
be read, and what people attached to their messages. A copy knows nothing of what was sent after it, so a restore
leaves nothing running.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import peewee

from worker import audit, broadcasts, clock, counters, db, files, locks, migrations, optouts, vault, webhooks
from worker.models import Broadcast, Channel, LoginSession, RecipientFile
from worker.settings import Settings, version
from worker.states import BROADCAST

PRODUCT = "molva"
FORMAT = 1
MANIFEST, DATABASE = "manifest.json", "molva.db"
STEP = 2_000  # pages of the database copied at a time
PIECE = 1024 * 1024
OPT_OUTS = 2_000  # entries of the stop list kept at a time
MANIFEST_MAX = 16 * 1024 * 1024
STAGE = ".restore"
FILE = re.compile(rf"({'|'.join(files.FOLDERS)})/[0-9a-f]{{32}}\Z")


# All of an installation on a server lies in its database, but for the secret key.
SERVER_BACKUP = """The database is a PostgreSQL server's, whose own tools copy it while it is used:
  pg_dump --format=custom --file=molva.dump "$MOLVA_DATABASE_URL"
Keep MOLVA_SECRET_KEY as well: without it the credentials cannot be read."""
SERVER_RESTORE = """The database is a PostgreSQL server's. Stop Molva on all hosts, then
  pg_restore --clean --if-exists --dbname="$MOLVA_DATABASE_URL" molva.dump
  molva restored"""


class BackupError(RuntimeError):
    """Why nothing was backed up or restored, in words for the console."""


@dataclass(frozen=True)
class Report:
    """What a backup holds, or what a restore brought back.

    `at` is the moment of the copy in ms: what happened later is not in it. `stopped` counts the broadcasts
    that a person has to resume, `uncertain` the messages that were on their way, `missing` the files that
    were gone when the copy was made, `locked` the channels whose credentials the present key cannot read.
    """

    path: Path
    at: int
    size: int = 0
    with_key: bool = True
    missing: int = 0
    stopped: int = 0
    uncertain: int = 0
    applied: tuple[str, ...] = ()
    aside: Path | None = None
    locked: tuple[str, ...] = ()


# --- backup -----------------------------------------------------------------------------------------


def backup(settings: Settings, target: Path, overwrite: bool = False) -> Report:
    """Copy the data folder into one new file (0600). Sending goes on meanwhile. Raises BackupError.

    The file appears under its name only when it is whole and on the disk.
    """
    if settings.database_url:
        raise BackupError(SERVER_BACKUP)
    if not settings.database_path.exists():
        raise BackupError(f"There is no installation in {settings.data}")
    _refuse_existing(target, overwrite)
    part = target.with_name(f".{target.name}.part")
    copy = target.with_name(f".{target.name}.part-db")
    with _in_words("The backup"):
        file = locks.hold(part)
        if file is None:
            raise BackupError(f"Another backup is writing {target}")
        try:
            report = _write(settings, target, file, copy)
            _refuse_existing(target, overwrite)
            part.replace(target)
            _sync_folder(target.parent)
        finally:
            # After the renaming there is no such file any more; before it nothing half-made may stay.
            part.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
            file.close()
    return report


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.is_dir() or not target.parent.is_dir():
        raise BackupError(f"{target} cannot be written: name a file in a folder that exists")
    if target.exists() and not overwrite:
        raise BackupError(f"{target} exists already. Choose another name, or say --force to replace it")


def _write(settings: Settings, target: Path, file: IO[bytes], copy: Path) -> Report:
    file.truncate(0)
    at = clock.now()
    before = None if settings.secret_key else _read(settings.data / vault.KEY_FILE)
    steps, needed = _copy_database(settings.database_path, copy)
    key = None if settings.secret_key else _read(settings.data / vault.KEY_FILE)
    if before and key and before != key:
        # The key is being changed: what was copied may be sealed with either.
        key = b"\n".join(dict.fromkeys([*key.split(), *before.split()])) + b"\n"
    missing = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _put(archive, DATABASE, copy)
        if key is not None:
            archive.writestr(vault.KEY_FILE, key)
        for name in needed:
            try:
                _put(archive, name, settings.data / name)
            except FileNotFoundError:
                missing += 1  # removed by a person since the copy of the database
        manifest = {
            "product": PRODUCT,
            "format": FORMAT,
            "version": version(),
            "schema": steps[-1] if steps else None,
            "at": at,
            "key": "environment" if key is None else "file",
        }
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    file.flush()
    os.fsync(file.fileno())
    return Report(target, at, size=os.fstat(file.fileno()).st_size, with_key=key is not None, missing=missing)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Add one file, piece by piece: a database may be larger than the memory."""
    with path.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, PIECE)


def _copy_database(source: Path, copy: Path) -> tuple[list[str], list[str]]:
    """A checked copy of the database at one moment; its schema's steps, and the files that it needs.

    The open read transaction pins that moment: writers go on beside it, and the copying in steps does
    not begin anew at each of their commits.
    """
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with (
        contextlib.closing(sqlite3.connect(source, timeout=30, isolation_level=None)) as live,
        contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as made,
    ):
        live.execute("BEGIN")
        live.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        live.backup(made, pages=STEP)
        live.execute("ROLLBACK")
        made.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        _require_sound(made)
        names = [row[0] for row in made.execute("SELECT name FROM schema_migration ORDER BY name")]
        needed = [f"uploads/{row[0]}" for row in made.execute(_UPLOADS)]
        if made.execute("SELECT 1 FROM sqlite_master WHERE name = 'attachment'").fetchone():  # not before 0004
            needed += [f"media/{row[0]}" for row in made.execute("SELECT path FROM attachment WHERE path <> ''")]
    return names, needed


_UPLOADS = "SELECT path FROM recipient_file WHERE removed_at IS NULL AND path <> ''"


def _require_sound(connection: sqlite3.Connection) -> None:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise BackupError(f"The database is damaged: {found}")


# --- restore ----------------------------------------------------------------------------------------


def restore(settings: Settings, source: Path) -> Report:
    """Put a backup in the place of the data folder's database, which is kept aside. Raises BackupError.

    Everything is unpacked, checked, migrated and stopped beside the living data first; a restore that
    dies on the way leaves the old data as they were, or the new ones whole.
    """
    if settings.database_url:
        raise BackupError(SERVER_RESTORE)
    db.make_private(settings.data)
    lock = locks.alone(settings)
    if lock is None:
        raise BackupError(f"Molva is running on {settings.data}. Stop it first, then restore")
    stage = settings.data / STAGE
    try:
        with _in_words("The restore"):
            shutil.rmtree(stage, ignore_errors=True)
            db.make_private(stage)
            for folder in files.FOLDERS:
                db.make_private(stage / folder)
            manifest = _unpack(source, stage)
            staged = replace(settings, data=stage)
            report = _prepare(staged, settings, source, manifest)
            aside = _swap_in(settings, stage)
        return replace(report, aside=aside, locked=_locked(settings))
    finally:
        db.close()
        shutil.rmtree(stage, ignore_errors=True)
        lock.close()


def _unpack(source: Path, stage: Path) -> dict[str, Any]:
    """The parts of the archive, under names that we choose; the manifest."""
    try:
        with zipfile.ZipFile(source) as archive:
            manifest = _manifest(archive, source)
            for info in archive.infolist():
                if info.filename in (DATABASE, vault.KEY_FILE) or FILE.match(info.filename):
                    _take_out(archive, info, stage / info.filename)
    except FileNotFoundError:
        raise BackupError(f"There is no file {source}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BackupError(f"{source} is damaged, or no backup of Molva ({error})") from error
    if not (stage / DATABASE).exists():
        raise BackupError(f"{source} is damaged: it holds no database")
    return manifest


def _manifest(archive: zipfile.ZipFile, source: Path) -> dict[str, Any]:
    try:
        info = archive.getinfo(MANIFEST)
        found = json.loads(archive.read(info)) if info.file_size < MANIFEST_MAX else None
    except (KeyError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("product") != PRODUCT or not isinstance(found.get("at"), int):
        raise BackupError(f"{source} is not a backup of Molva")
    if found.get("format") != FORMAT:
        raise BackupError(f"{source} was made by a newer Molva ({found.get('version')}). Install that version first")
    return found


def _take_out(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(info) as packed, files.new(path) as file:
        shutil.copyfileobj(packed, file, PIECE)


def _prepare(staged: Settings, settings: Settings, source: Path, manifest: dict[str, Any]) -> Report:
    """Check, migrate and stop the unpacked database, which nobody else knows yet."""
    try:
        with contextlib.closing(sqlite3.connect(staged.database_path)) as plain:
            _require_sound(plain)
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{source} is damaged: {error}") from error
    try:
        db.open_database(staged)
        applied = migrations.upgrade()
    except migrations.SchemaError as error:
        raise BackupError(str(error)) from error
    at = int(manifest["at"])
    with db.connection():
        with db.write():
            stopped, uncertain = _still(at, source.name)
            _keep_opt_outs(settings.database_path)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    _sync(staged.database_path)
    return Report(source, at, stopped=stopped, uncertain=uncertain, applied=tuple(applied))


def _still(at: int, source: str) -> tuple[int, int]:
    """Leave nothing running in a restored database; the broadcasts stopped, the messages now uncertain."""
    _cancel_direct()
    webhooks.stop_all(webhooks.RESTORED)
    stopped, uncertain = _stop_all(at), _lose_all()
    # Nobody is signed in, no worker is alive, no file is being read.
    LoginSession.delete().execute()
    db.execute("UPDATE worker SET heartbeat_at = 0")
    RecipientFile.update(owner=None).where(RecipientFile.state == "checking").execute()
    audit.record("command line", "data.restore", source, at=at, stopped=stopped, uncertain=uncertain)
    return stopped, uncertain


def restored(settings: Settings) -> Report:
    """The last step of a restore by the database server's own tools: nothing is left running. Raises BackupError."""
    if not settings.database_url:
        raise BackupError("molva restore does this by itself")
    db.open_database(settings)
    with db.connection():
        applied = migrations.upgrade()
        # What the database itself knows of the moment of the copy.
        at = int(db.value("SELECT MAX(heartbeat_at) FROM worker") or clock.now())
        if at > clock.now() - 10 * clock.SECOND:
            raise BackupError("A worker is running on this database. Stop Molva on all hosts first")
        with db.write():
            stopped, uncertain = _still(at, "database")
    return Report(Path(), at, stopped=stopped, uncertain=uncertain, applied=tuple(applied))


def _stop_all(at: int) -> int:
    """Whatever could go on waits for a person, and says why; how many broadcasts."""
    going = Broadcast.select(Broadcast.id).where(
        Broadcast.state.in_(sorted(BROADCAST["restore"].source)) & (Broadcast.kind != broadcasts.DIRECT)
    )
    facts = {"stop_reason": "restored", "stop_detail": {"at": at}, "stopped_at": clock.now()}
    return sum(broadcasts.advance(row.id, "restore", **facts) for row in list(going))


def _cancel_direct() -> None:
    """Single messages that waited when the copy was made are not sent out of the blue: a person answers anew."""
    waiting = "status = 'queued' AND broadcast_id IN (SELECT id FROM broadcast WHERE kind = 'direct')"
    found = db.rows(
        f"SELECT broadcast_id, run, file_id, COUNT(*) FROM message WHERE {waiting} GROUP BY broadcast_id, run, file_id"  # noqa: S608
    )
    db.execute(f"UPDATE message SET status = 'cancelled' WHERE {waiting}")  # noqa: S608  # nosemgrep: formatted-sql-query
    for broadcast_id, run, file_id, n in found:
        key = (broadcast_id, run, file_id)
        counters.add({(*key, "queued"): -n, (*key, "cancelled"): n})


def _lose_all() -> int:
    """sending → uncertain for every message that was on its way when the copy was made; how many."""
    found = db.rows(
        "SELECT broadcast_id, run, file_id, COUNT(*) FROM message WHERE status = 'sending'"
        " GROUP BY broadcast_id, run, file_id"
    )
    db.execute(
        "INSERT INTO attempt (message_id, token, at, outcome, code)"
        " SELECT id, COALESCE(token, ''), ?, 'lost', 'worker_lost' FROM message WHERE status = 'sending'",
        [clock.now()],
    )
    db.execute(
        "UPDATE message SET status = 'uncertain', cause = 'worker_lost', owner = NULL, lease_until = NULL"
        " WHERE status = 'sending'"
    )
    for broadcast_id, run, file_id, n in found:
        key = (broadcast_id, run, file_id)
        counters.add({(*key, "sending"): -n, (*key, "uncertain"): n})
    return sum(row[3] for row in found)


def _keep_opt_outs(old: Path) -> None:
    """Who asked for silence after the backup is not written to again."""
    if not old.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(old)) as before:
            found = before.execute("SELECT phone, scope, reason, source, NULL, at FROM opt_out").fetchall()
    except sqlite3.Error:
        return  # a database that is damaged, or of another time, has nothing to add
    for first in range(0, len(found), OPT_OUTS):
        optouts.keep(found[first : first + OPT_OUTS])


def _swap_in(settings: Settings, stage: Path) -> Path | None:
    """Files first, then a key file that opens both databases, then the database by one renaming.

    Returns where the old database is.
    """
    suffix = f".before-restore-{clock.now()}"
    for folder in files.FOLDERS:
        db.make_private(settings.data / folder)
        for path in (stage / folder).iterdir():
            path.replace(settings.data / folder / path.name)
    key, old_key = stage / vault.KEY_FILE, settings.data / vault.KEY_FILE
    new = key.read_bytes() if key.exists() else None
    before = _read(old_key)
    if new is not None and before is not None and new.split() != before.split():
        _write_key(old_key.with_name(old_key.name + suffix), before)
        _write_key(old_key, b"\n".join([*new.split(), *before.split()]) + b"\n")
    elif new is not None:
        _write_key(old_key, new)
    aside = _put_aside(settings.database_path, suffix)
    (stage / DATABASE).replace(settings.database_path)
    _sync_folder(settings.data)
    if new is not None:
        _write_key(old_key, new)
    return aside


def _write_key(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync_folder(path.parent)


def _put_aside(path: Path, suffix: str) -> Path | None:
    """Give the old database a second name, with its log; its first name is taken over afterwards."""
    if not path.exists():
        return None
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as old:
        # Into the one file, where it can be; a damaged one goes aside as it is.
        old.execute("PRAGMA journal_mode=DELETE")
    aside = path.with_name(path.name + suffix)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copy2(path, aside)
    for tail in ("-wal", "-shm"):
        beside = path.with_name(path.name + tail)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + tail))
    return aside


def _locked(settings: Settings) -> tuple[str, ...]:
    """The channels whose credentials were stored with another key than the one there is now."""
    found = []
    db.open_database(settings)
    with db.connection():
        for channel in Channel.select():
            try:
                vault.unseal(settings, channel.secrets)
            except vault.VaultError:
                found.append(channel.name)
    db.close()
    return tuple(found)


# --- both -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Turn what the disk or the database say into a BackupError."""
    try:
        yield
    except (OSError, sqlite3.Error, peewee.PeeweeException) as error:
        trouble = db.trouble(error)
        if trouble is db.Trouble.FULL:
            raise BackupError(f"{what} needs more room than the disk has. Nothing was changed") from error
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BackupError(f"{what} did not succeed: {text}. Nothing was changed") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a renaming last. Systems that cannot sync a folder do it by themselves."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
