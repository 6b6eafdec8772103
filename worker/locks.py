"""Proof of life: each worker process holds an OS lock on a file, which the system drops when it dies."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import IO

from worker import clock
from worker.settings import Settings

if os.name == "posix":
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
else:
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True


def hold(path: Path) -> IO[bytes] | None:
    """An open, locked file that must be kept for as long as the lock shall last; None when another holds it."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    file = os.fdopen(handle, "r+b")
    if _try_lock(file):
        return file
    file.close()
    return None


def place(folder: Path) -> str:
    """The name of a data folder on its machine: where the locks lie that its processes hold.

    Two hosts on one database have a folder each, and a folder may be copied: both parts are needed.
    """
    path = folder / "place"
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(8))
    return f"{socket.gethostname()}/{path.read_text(encoding='ascii')}"


def worker_file(settings: Settings, owner: int) -> Path:
    return settings.data / f"worker-{owner}.lock"


def is_alive(settings: Settings, owner: int | None) -> bool:
    """Whether the worker process with this id still runs on this machine."""
    if owner is None:
        return False
    path = worker_file(settings, owner)
    if not path.exists():
        return False
    file = hold(path)
    if file is None:
        return True
    _drop(path)  # before the lock goes, or it could be another's by then
    file.close()
    return False


def hold_worker(settings: Settings, owner: int) -> IO[bytes]:
    """The lock that shows that this worker lives; others only look at it, for a moment."""
    path = worker_file(settings, owner)
    while True:
        file = _hold_soon(path)
        if file is None:
            raise RuntimeError(f"{path.name} is held by another process")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


RESTORE = "restore.lock"
TRIES, PAUSE = 40, 0.05  # others only look at the restore's lock, for a moment


class Use:
    """Says that this process uses the data folder, until `end`."""

    def __init__(self, folder: Path) -> None:
        while True:
            self._path = folder / f"use-{secrets.token_hex(8)}.lock"
            file = hold(self._path)
            # A sweep may have come between the making and the locking.
            if file is not None and self._path.exists():
                self._file = file
                return
            if file is not None:
                file.close()

    def is_of(self, path: Path) -> bool:
        return path == self._path

    def end(self) -> None:
        self._file.close()
        _drop(self._path)


def use(settings: Settings) -> Use | None:
    """Say that this process uses the data folder, for as long as the answer is kept; None during a restore.

    It is said before the look at the restore's lock, while a restore looks the other way round: of two
    that begin at the same moment at least one gives way.
    """
    mine = Use(settings.data)
    _sweep(settings, mine)
    restore = _hold_soon(settings.data / RESTORE)
    if restore is not None:
        restore.close()
        return mine
    mine.end()
    return None


def alone(settings: Settings) -> IO[bytes] | None:
    """The lock of a restore, while which nothing can begin to use the data folder; None when something does."""
    mine = _hold_soon(settings.data / RESTORE)
    if mine is not None and _sweep(settings, None):
        mine.close()
        return None
    return mine


def _hold_soon(path: Path) -> IO[bytes] | None:
    for _again in range(TRIES):
        file = hold(path)
        if file is not None:
            return file
        clock.sleep(PAUSE)
    return None


def _sweep(settings: Settings, own: Use | None) -> bool:
    """Remove what dead processes left; whether a living one remains."""
    alive = False
    for path in settings.data.glob("use-*.lock"):
        if own is not None and own.is_of(path):
            continue
        file = hold(path)
        if file is None:
            alive = True
        else:
            _drop(path)
            file.close()
    return alive


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
