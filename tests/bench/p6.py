"""P6: 10 MB of bare phones, from the uploaded file to queued messages."""

from __future__ import annotations

import csv
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from tests import make
from tests.bench.common import MEGABYTE, TIMES, Result, apart, installation, memory
from worker import db, files, recipients
from worker.models import RecipientFile

INSERT = (
    "INSERT INTO message (broadcast_id, run, file_id, line, phone, status, not_before, tries)"
    " VALUES (1, 1, 1, ?, ?, 'queued', 0, 0)"
)


def phones(size: int = 10 * MEGABYTE) -> bytes:
    """A file of `size` bytes without a header: different random mobile numbers, 12 bytes a line."""
    tails = random.Random(6).sample(range(10**9), size // 12)
    return "\n".join(f"79{tail:09d}" for tail in tails).encode()


def floor(path: Path) -> float:
    """Seconds of csv.reader and executemany in one transaction, with the same indexes."""
    with installation():
        lines = count(1)
        began = time.perf_counter()
        with path.open(newline="", encoding="utf-8") as file, db.write():
            connection: Any = db.database.connection()
            connection.cursor().executemany(db.spelt(INSERT), ((next(lines), row[0]) for row in csv.reader(file)))
        return time.perf_counter() - began


def product(path: Path) -> tuple[float, float, float]:
    """Seconds, the longest write lock in seconds and the peak memory in MB of a worker that checks the file."""
    import worker.__main__  # noqa: F401  # whatever a worker has loaded

    with installation() as settings:
        settings.uploads.joinpath("list").symlink_to(path)
        files.keep(settings.uploads / "list")
        size = path.stat().st_size
        file = make.file(make.broadcast(), path="list", size=size, state="checking", columns=[], run=1)
        locks: list[float] = []
        write = db.write
        db.write = timed(write, locks)
        began = time.perf_counter()
        recipients.check(file.id, None, None, True, settings.uploads)
        took = time.perf_counter() - began
        db.write = write
        checked = RecipientFile.get_by_id(file.id)
        valid = db.value("SELECT COUNT(*) FROM message WHERE file_id = ?", [file.id])
        assert checked.state == "ready" and checked.accepted == valid
        assert checked.accepted + sum(checked.rejected.values()) == checked.rows == (size + 1) // 12
        return took, max(locks), memory()["Peak"]


def timed(write: Any, locks: list[float]) -> Any:
    """`write`, noting how long each transaction held the lock."""

    @contextmanager
    def noting() -> Iterator[None]:
        with write():
            began = time.perf_counter()
            yield
        locks.append(time.perf_counter() - began)

    return noting


def run(big: bool) -> list[Result]:
    floors, found = [], []
    with tempfile.TemporaryDirectory(prefix="molva-bench-") as folder:
        path = Path(folder) / "list.csv"
        path.write_bytes(phones())
        size = path.stat().st_size
        for _ in range(TIMES):
            floors.append(apart(floor, path))
            found.append(apart(product, path))
    took, lock, peak = (median(column) for column in zip(*found, strict=True))
    ratio = took / median(floors)
    what = f"{size // 12:,} phones"
    return [
        Result(
            "P6 import of 10 MB",
            f"{took:.1f} s",
            f"{median(floors):.1f} s",
            f"{ratio:.2f}",
            "≤ 1.3",
            ratio <= 1.3,
            what,
        ),
        Result("P6 longest write lock", f"{lock * 1000:.0f} ms", "", "", "≤ 50 ms", lock <= 0.05),
        Result("P6 peak memory", f"{peak:.0f} MB", "", "", "≤ 200 MB", peak <= 200, "the whole worker"),
    ]
