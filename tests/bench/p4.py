"""P4: what the database costs for each message, from the claim to the stored answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from tests import make
from tests.bench.common import TIMES, Result, apart, installation
from worker import broadcasts, channels, counters, db
from worker.models import Broadcast
from worker.providers import base
from worker.providers.sandbox_sms import SandboxSms
from worker.sender import Sender
from worker.settings import Settings

PEOPLE = 20_000
LANES = 4  # broadcasts at once, each at the highest rate: 4,000 messages a second are asked for


class Meter:
    """The transactions of the sender's thread: their processor time and how long they took."""

    def __init__(self, write: Callable[[], Any]) -> None:
        self._write = write
        self.cpu = self.wall = 0.0
        self.turns = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        cpu, wall = time.thread_time(), time.perf_counter()
        with self._write():
            yield
        if threading.current_thread().name == "sender":
            self.cpu += time.thread_time() - cpu
            self.wall += time.perf_counter() - wall
            self.turns += 1


def messages(settings: Settings, lanes: int, people: int) -> list[Broadcast]:
    """Started broadcasts with queued messages."""
    channel = channels.ensure_sandbox(settings)[1]
    db.execute("UPDATE channel SET per_second = NULL")
    made = []
    for lane in range(lanes):
        row = broadcasts.create(
            settings,
            {"name": f"Bench {lane}", "channel_id": channel.id, "text": "Hi", "rate_per_minute": 60_000},
            "bench",
        )
        file = make.file(row, run=1, rows=people, accepted=people)
        with db.write():
            db.many(
                "INSERT INTO message (broadcast_id, run, file_id, line, phone, status, not_before, tries)"
                " VALUES (?, 1, ?, ?, ?, 'queued', 0, 0)",
                [(row.id, file.id, n + 1, f"+7901{lane}{n:06d}") for n in range(people)],
            )
            counters.add({(row.id, 1, file.id, "queued"): people})
        made.append(broadcasts.start(settings, Broadcast.get_by_id(row.id), "bench"))
    return made


def product() -> tuple[float, float, float]:
    """(CPU µs, elapsed µs, messages of a transaction) of a sender whose provider answers at once."""
    SandboxSms.send = lambda self, out: base.Accepted(f"id-{out.token}")  # type: ignore[method-assign]
    with installation() as settings:
        made = messages(settings, LANES, PEOPLE // LANES)
        meter = db.write = Meter(db.write)  # type: ignore[assignment]
        sender = Sender(settings, 1)
        sender.start()
        while any(Broadcast.get_by_id(row.id).state != "finished" for row in made):
            time.sleep(0.1)
        sender.stop()
        assert sum(broadcasts.count(row, None)["sent"] for row in made) == PEOPLE
        return meter.cpu / PEOPLE * 1e6, meter.wall / PEOPLE * 1e6, PEOPLE / meter.turns


def floor(batch: int) -> float:
    """CPU µs of the two updates of a message alone, so many in a transaction."""
    with installation() as settings:
        messages(settings, 1, PEOPLE)
        began = time.thread_time()
        for first in range(1, PEOPLE + 1, batch):
            ids = range(first, min(first + batch, PEOPLE + 1))
            with db.write():
                db.many(
                    "UPDATE message SET status = 'sending', token = ?, sending_at = 1 WHERE id = ?",
                    [(f"t{i}", i) for i in ids],
                )
            with db.write():
                db.many(
                    "UPDATE message SET status = 'sent', provider_id = ?, sent_at = 2 WHERE id = ?",
                    [(f"p{i}", i) for i in ids],
                )
        return (time.thread_time() - began) / PEOPLE * 1e6


def run(big: bool) -> list[Result]:
    found = [apart(product) for _ in range(TIMES)]
    cpu, wall, batch = (median(column) for column in zip(*found, strict=True))
    bare = median(apart(floor, max(1, round(batch))) for _ in range(TIMES))
    note = f"{batch:.0f} messages to a transaction; {wall:.0f} µs with waiting for disk and interpreter"
    return [
        Result(
            "P4 database work of a message",
            f"{cpu:.0f} µs",
            f"{bare:.0f} µs",
            f"{cpu / bare:.2f}",
            "≤ 40 µs",
            cpu <= 40,
            note,
        )
    ]
