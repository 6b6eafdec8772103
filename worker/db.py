"""The database handle: pragmas, one write lock per process, and the two ways to use it.

Pages read through `connection()`; everything that writes does so inside `write()`, which opens the
transaction with BEGIN IMMEDIATE. SQLite lets one writer in at a time; the lock of the process makes
our own threads queue up in order instead of sleeping in SQLite's busy handler. PostgreSQL does the same
with an advisory lock: see `postgres`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import peewee

from worker.settings import Settings

T = TypeVar("T")

# synchronous=FULL: with NORMAL a power cut may undo `sending` after the message left, and the
# message would silently go out a second time.
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": "full",
    "foreign_keys": 1,
    "busy_timeout": 10_000,
    "cache_size": -16_000,
    "temp_store": "memory",
    "secure_delete": 0,
}


class _Database(peewee.SqliteDatabase):  # type: ignore[misc,unused-ignore]
    def rollback(self) -> None:
        """Undo the transaction; SQLite has done so itself when the disk was full or failed."""
        if self.raw().in_transaction:
            super().rollback()

    raw: Any = peewee.SqliteDatabase.connection  # past peewee's own layer, which costs more than a small statement

    def run(self, sql: str, parameters: Sequence[Any]) -> Any:
        return self.raw().execute(sql, parameters)

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> int:
        return int(self.raw().executemany(sql, parameters).rowcount)

    def prepare(self) -> None:
        """Nothing is missing here."""

    def drain(self) -> None:
        """None waits."""

    migrating = contextlib.nullcontext  # SQLite's own lock is enough

    def spelt(self, sql: str) -> str:
        return sql

    def among(self, column: str, numbers: Sequence[int]) -> tuple[str, list[Any]]:
        return f"{column} IN ({','.join('?' * len(numbers))})", list(numbers)

    def holding(self, column: str, text: str) -> tuple[str, str]:
        # LIKE folds Latin letters only, and a function of our own would be called for every row.
        return f"{column} GLOB ?", "*" + "".join(_any_case(c) for c in text) + "*"

    def beginning(self, column: str, text: str) -> tuple[str, str]:
        return f"{column} GLOB ?", re.sub(r"([*?[])", r"[\1]", text) + "*"  # led by an index, as LIKE is not

    def inbound_with(self, text: str, latest: int) -> tuple[str, str]:
        sql = f"SELECT rowid FROM inbound_words WHERE inbound_words MATCH ? ORDER BY rowid DESC LIMIT {latest:d}"  # noqa: S608
        return sql, '"' + text.replace('"', '""') + '"'


def _any_case(c: str) -> str:
    forms = "".join(dict.fromkeys(form for form in (c, c.lower(), c.upper()) if len(form) == 1))
    return f"[{forms}]" if len(forms) > 1 or c in "*?[" else c


_sqlite = _Database(None, lock_type="IMMEDIATE", autoconnect=False)
database: Any = peewee.DatabaseProxy()
database.initialize(_sqlite)
_chosen: Any = _sqlite  # what the proxy stands for, without its cost
_folder = Path()
_write_lock = threading.RLock()
# What goes past peewee must fail as peewee does: callers catch one family of exceptions.
_as_peewee: Any = peewee.__exception_wrapper__  # type: ignore[attr-defined,unused-ignore]


# What the storage raises when it does not do what it is asked. peewee keeps the second apart from the first.
FAILURES = (peewee.DatabaseError, peewee.InterfaceError)


def open_database(settings: Settings) -> None:
    """Point the handle at the data folder of `settings`, creating the folder with mode 0700."""
    global _chosen, _folder
    _folder = settings.data
    make_private(settings.data)
    make_private(settings.uploads)
    make_private(settings.media)
    close()
    if settings.database_url:
        _chosen = _postgres().PostgresDatabase(settings.database_url)
        database.initialize(_chosen)
        return
    _chosen = _sqlite
    database.initialize(_chosen)
    _sqlite.init(str(settings.database_path), pragmas=PRAGMAS)
    if not settings.database_path.exists():
        os.close(os.open(settings.database_path, os.O_CREAT | os.O_RDWR, 0o600))


def _postgres() -> Any:
    # Imported here: an installation on SQLite has no driver for it.
    try:
        from worker import postgres
    except ImportError as error:
        raise RuntimeError("PostgreSQL needs the extra: pip install 'molva[scale]'") from error
    return postgres


def sqlite_function(name: str) -> Callable[[T], T]:
    """A decorator: SQL gets a function of this name; PostgreSQL has those in `postgres`."""
    given: Any = _sqlite.func(name)
    return given  # type: ignore[no-any-return]


def is_shared() -> bool:
    """Whether the database is a server's, which processes of other machines may use as well."""
    return _chosen is not _sqlite


def make_private(folder: Path) -> None:
    """Create `folder` for this account alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def connection() -> Iterator[None]:
    """A connection for this thread, opened if there is none, and closed again if it was opened here."""
    opened = _chosen.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if opened and not _chosen.is_closed():
            _chosen.close()


@contextmanager
def write() -> Iterator[None]:
    """One durable write transaction: committed and synced when the block ends, undone if it raises."""
    with _write_lock, connection(), _chosen.atomic():
        yield


def is_locked(patience: float = 0.3) -> bool:
    """Whether something keeps the write lock for longer than `patience` seconds: another program, or a hanging worker.

    Looks from a connection of its own, so it may be asked while this process writes.
    """
    if is_shared():
        return False  # a session that hangs there is the server's own business
    try:
        with contextlib.closing(sqlite3.connect(str(_sqlite.database), patience, isolation_level=None)) as probe:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
    except sqlite3.Error as error:
        return trouble(error) is Trouble.BUSY
    return False


def is_sound() -> bool:
    """Whether the database can be read without contradictions, as far as a quick look tells."""
    return is_shared() or value("PRAGMA quick_check") == "ok"


def close() -> None:
    """Close this thread's connection if it is open, and those that wait to be used again."""
    if not _chosen.is_closed():
        _chosen.close()
    _chosen.drain()


def execute(sql: str, parameters: Sequence[Any] = ()) -> Any:
    """Run one statement on this thread's connection and return the cursor. SQL text is ours, never a user's."""
    with _as_peewee:
        return _chosen.run(sql, parameters)


def rows(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a bounded query."""
    with _as_peewee:
        return list(_chosen.run(sql, parameters).fetchall())


def value(sql: str, parameters: Sequence[Any] = ()) -> Any:
    """The first column of the first row, or None."""
    with _as_peewee:
        row = _chosen.run(sql, parameters).fetchone()
    return None if row is None else row[0]


def many(sql: str, parameters: Sequence[Sequence[Any]]) -> int:
    """Run one statement for every row of `parameters`; the number of rows changed."""
    if not parameters:
        return 0
    with _as_peewee:
        return int(_chosen.run_many(sql, parameters))


def in_steps(sql: str, parameters: Sequence[Any], step: int) -> Iterator[int]:
    """Run a statement that changes at most `step` rows, its last parameter, until nothing is left to it: each time in
    a transaction of its own, yielding how many rows it changed."""
    changed = step
    while changed >= step:
        with write():
            changed = int(execute(sql, [*parameters, step]).rowcount)
        yield changed


def spelt(sql: str) -> str:
    """A statement of ours for peewee's own `raw`, which does not translate."""
    return str(_chosen.spelt(sql))


def among(column: str, numbers: Sequence[int]) -> tuple[str, list[Any]]:
    """The condition that a column is one of at most some hundred whole numbers, and its parameters."""
    found: tuple[str, list[Any]] = _chosen.among(column, numbers)
    return found


def holding(column: str, text: str) -> tuple[str, str]:
    """The condition that a column has `text` in it, whatever the case, and the value of its one parameter."""
    found: tuple[str, str] = _chosen.holding(column, text)
    return found


def beginning(column: str, text: str) -> tuple[str, str]:
    """The condition that a column begins with `text`, and the value of its one parameter."""
    found: tuple[str, str] = _chosen.beginning(column, text)
    return found


def inbound_with(text: str, latest: int) -> tuple[str, str]:
    """A query of the ids of the `latest` inbound messages with `text` (from three letters on), and its parameter."""
    found: tuple[str, str] = _chosen.inbound_with(text, latest)
    return found


def copy_in(sql: str, given: Iterable[Sequence[Any]]) -> int:
    """COPY rows into a table of a shared database; how many."""
    with _as_peewee:
        return int(_chosen.copy_in(sql, given))


def folder() -> Path:
    """The data folder of the installation whose database is open."""
    return _folder


def hold(kind: int, number: int) -> Any:
    """On a shared database a lock of the whole installation, with `stands` and `close`; None when another has it."""
    return _chosen.hold(kind, number)


def migrating() -> contextlib.AbstractContextManager[Any]:
    """While the block runs no other process migrates; it waits for its turn."""
    found: contextlib.AbstractContextManager[Any] = _chosen.migrating()
    return found


def clock_ahead() -> int:
    """By how much (ms) this machine's clock is ahead of that of the shared database; 0 where there is none."""
    if not is_shared():
        return 0
    with connection():
        return int(_chosen.clock_ahead())


def prepare() -> None:
    """Make what our SQL needs besides tables."""
    _chosen.prepare()


def wipe() -> None:
    """Write the database anew without the pages that were freed, and empty its log. Writers wait meanwhile."""
    with _write_lock, connection():
        execute("VACUUM")
        if not is_shared():
            execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def erasing() -> Iterator[None]:
    """While the block runs, what this connection removes is overwritten at once, where the database can do that."""
    if is_shared():
        yield
        return
    execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        execute("PRAGMA secure_delete = OFF")


class Trouble(enum.Enum):
    """Why the storage did not do what it was asked."""

    FULL = "full"
    BUSY = "busy"
    BROKEN = "broken"


_SQLITE = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_IOERR: Trouble.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Trouble.BROKEN,
    sqlite3.SQLITE_READONLY: Trouble.BROKEN,
}
_SYSTEM = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EIO: Trouble.BROKEN,
    errno.EROFS: Trouble.BROKEN,
}


def trouble(error: BaseException) -> Trouble | None:
    """What the storage suffers from when it raised this; None for faults of our own making."""
    if isinstance(error, OSError):
        return _SYSTEM.get(error.errno or 0)
    cause = getattr(error, "orig", error)
    if is_shared():
        found = _postgres().trouble(cause)
        return Trouble(found) if found else None
    code = getattr(cause, "sqlite_errorcode", None)
    return _SQLITE.get(code & 0xFF) if isinstance(code, int) else None
