"""What the benches share: a result, an installation to measure on, a process of its own, /proc."""

from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from tests import make, servers
from worker import counters, db, migrations
from worker.models import RecipientFile
from worker.settings import Settings

if TYPE_CHECKING:
    from flask import Flask  # which a worker whose memory is measured does not load

TIMES = 3
MEGABYTE = 1024 * 1024
REPORT = "delivered"


class Result(NamedTuple):
    """One line of the table. `floor` and `ratio` stay empty where the bar is an absolute number."""

    name: str
    value: str
    floor: str
    ratio: str
    bar: str
    met: bool
    note: str = ""


def measure(name: str, big: bool) -> list[Result]:
    """Run one bench by the name of its module."""
    found: list[Result] = import_module(f"tests.bench.{name}").run(big)
    return found


@contextmanager
def installation() -> Iterator[Settings]:
    """A data folder with the current schema, and a connection to it; gone afterwards.

    With MOLVA_TEST_DATABASE=postgresql the database is that of a durable server of the bench's own.
    """
    with tempfile.TemporaryDirectory(prefix="molva-bench-") as folder, shared() as servers_:
        url = servers_.get("MOLVA_DATABASE_URL", "")
        settings = Settings(data=Path(folder), database_url=url)
        db.open_database(settings)
        migrations.upgrade()
        with db.connection():
            yield settings
        db.close()


@contextmanager
def shared() -> Iterator[dict[str, str]]:
    """Settings that name a PostgreSQL with an empty database and a Redis; none where SQLite is measured."""
    if os.environ.get("MOLVA_TEST_DATABASE", "sqlite") == "sqlite":
        yield {}
        return
    with servers.postgres(durable=True) as postgres, servers.redis() as redis:
        yield {"MOLVA_DATABASE_URL": postgres.database("bench"), "MOLVA_QUEUE_URL": redis.url}


def environment(settings: Settings) -> dict[str, str]:
    """For a command on the same installation: what is set here for others is not passed on."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("MOLVA_")}
    return ours | {"MOLVA_DATABASE_URL": settings.database_url, "MOLVA_SECRET_KEY": settings.secret_key}


def asked(app: Flask, broadcast: int) -> Any:
    """The context in which a sender's program asks for the report of a broadcast."""
    key = {"Authorization": f"Bearer {make.token('sender')}"}
    return app.test_request_context(f"/api/v1/broadcasts/{broadcast}/report.csv", headers=key)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a fresh process, so that memory and caches are its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def middle(measure: Callable[[], float], times: int = TIMES) -> float:
    """The median of several runs."""
    return median(measure() for _ in range(times))


def memory(pid: int | str = "self") -> dict[str, float]:
    """Rss, Pss and Peak of a process in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(Rss|Pss|VmHWM):\s+(\d+) kB", rollup + status, re.M))
    return {
        name: int(kb) / 1024 for name, kb in (("Rss", found["Rss"]), ("Pss", found["Pss"]), ("Peak", found["VmHWM"]))
    }


def fill(rows: int, columns: list[str] | None = None, **of_broadcast: Any) -> RecipientFile:
    """A broadcast with so many messages, nine of ten delivered and the rest failed, spread over an hour."""
    broadcast = make.broadcast(run=1, **of_broadcast)
    file = make.file(broadcast, rows=rows, accepted=rows, run=1, columns=columns or ["phone"])
    cells = "NULL" if columns is None else '\'["\' || ? || \'","Ann Smith","Perm"]\''
    sql = (
        "INSERT INTO message (broadcast_id, run, file_id, line, phone, row, status, not_before, tries, provider_id,"
        f" cause, sending_at, sent_at, delivered_at) VALUES (?, 1, ?, ?, ?, {cells}, ?, 0, 0, ?, ?, ?, ?, ?)"
    )
    start = 1_793_869_200_000

    def made() -> Iterator[tuple[Any, ...]]:
        for n in range(rows):
            at = start + n * 3_600_000 // rows
            ok = n % 10 > 0
            status, cause = (REPORT, None) if ok else ("failed", f"meta_{(131026, 131049, 130472)[n % 3]}")
            phone, times = f"+79{n:09d}", (at, at + 90 if ok else None, at + 2_500 if ok else None)
            row = (phone,) if columns else ()
            yield (broadcast.id, file.id, n + 2, phone, *row, status, f"wamid.{n:032x}", cause, *times)

    with db.write():
        left = made()
        while part := list(islice(left, 10_000)):
            db.many(sql, part)
        failed = (rows + 9) // 10
        counters.add({(broadcast.id, 1, file.id, REPORT): rows - failed, (broadcast.id, 1, file.id, "failed"): failed})
        db.execute("UPDATE run SET started_at = ?, copied = ? WHERE broadcast_id = ?", [start, True, broadcast.id])
    return file
