"""The bytes of uploaded lists and of what people attached: in the data folder, or in a database that hosts share.

A file is written to the folder whole, under a name that nobody can guess; `keep` then moves it to where every
process that may read it finds it. The row that speaks of it is written after that.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from worker import db

SLICE = 1024 * 1024  # bytes that come out of a database at once
FOLDERS = ("uploads", "media")  # of the data folder, in which they lie


@contextmanager
def new(path: Path) -> Iterator[IO[bytes]]:
    """A new file for this account alone, to write to; whole on the disk when the block ends. Raises FileExistsError."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def keep(path: Path) -> None:
    """Make a written file readable on all hosts."""
    if db.is_shared():
        # By itself, without the turn of the writers: it may take a second.
        db.execute("INSERT INTO stored_file (name, body) VALUES (?, ?)", [_name(path), path.read_bytes()])
        path.unlink()


def find(path: Path) -> Path | io.BytesIO | None:
    """The file, to be read once; None when it is not there."""
    if not db.is_shared():
        return path if path.is_file() else None
    # In slices: a value comes as twice its size of text, which would be there at once with what is made of it.
    found = io.BytesIO()
    sql = "SELECT substr(body, ?, ?) FROM stored_file WHERE name = ?"
    while (part := db.value(sql, [found.tell() + 1, SLICE, _name(path)])) is not None:
        found.write(part)
        if len(part) < SLICE:
            found.seek(0)
            return found
    return None


def read(path: Path) -> bytes:
    """All of it. Raises FileNotFoundError."""
    found = find(path)
    if found is None:
        raise FileNotFoundError(path.name)
    return found.read_bytes() if isinstance(found, Path) else found.getvalue()


def names(folder: Path) -> list[str]:
    """The names of all files in a folder of `FOLDERS`, on the disk and in a database that hosts share."""
    found = {entry.name for entry in os.scandir(folder) if entry.is_file()} if folder.is_dir() else set()
    if db.is_shared():
        found |= {
            name.rpartition("/")[2]
            for (name,) in db.rows("SELECT name FROM stored_file WHERE name LIKE ?", [f"{folder.name}/%"])
        }
    return sorted(found)


def drop(path: Path) -> None:
    """Remove it, if it is there."""
    path.unlink(missing_ok=True)
    if db.is_shared():
        db.execute("DELETE FROM stored_file WHERE name = ?", [_name(path)])
