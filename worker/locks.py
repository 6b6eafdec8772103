"""Proof of life: each worker process holds an OS lock on a file, which the system drops when it dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

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
    file.close()
    path.unlink(missing_ok=True)
    return False
