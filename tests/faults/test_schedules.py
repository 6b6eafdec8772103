"""F49: random schedules of faults, stops, resumes, clears and deaths over 200 messages.

The sender runs in this process, so that hundreds of schedules fit into a minute; its provider is a
ledger that notes what it took before it answers, or does not.
"""

from __future__ import annotations

import io
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from worker import breaker, broadcasts, channels, db, delivery, migrations, recipients, sender
from worker.models import Broadcast, Message
from worker.providers import base
from worker.providers.sandbox_sms import SandboxSms
from worker.settings import Settings

pytestmark = pytest.mark.faults

PEOPLE = 200
FAULTS = ("none", "accept_unclear", "unclear", "later", "refused", "mixed")
TAKEN = ("sent", "held", "delivered", "read", "undelivered")
NEVER_LEFT = ("queued", "skipped", "cancelled", "failed")


class Ledger:
    """The provider: what it accepted is the truth."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.fault = "none"
        self.taken: list[str] = []
        self._lock = threading.Lock()

    def send(self, out: base.Outgoing) -> base.Accepted:
        with self._lock:
            fault = self.fault if self.fault != "mixed" else self.chance.choice(FAULTS[:-1])
            pause = self.chance.random() * 0.004
            accepted = fault in ("none", "accept_unclear")
            if accepted:
                self.taken.append(out.phone)
        time.sleep(pause)
        if fault in ("accept_unclear", "unclear"):
            raise base.SendError(base.UNCLEAR, "timeout")
        if fault == "later":
            raise base.SendError(base.LATER, "connect_failed", counts=False, breaker=True)
        if fault == "refused":
            raise base.SendError(base.REFUSED, "131026", http_status=400)
        return base.Accepted(f"id-{out.token}")


class Mortal(sender.Sender):
    """A sender that can die: from then on it stores nothing and claims nothing."""

    dead = False

    def _turn(self, results: Sequence[sender.Result]) -> list[sender.Job]:
        return [] if self.dead else super()._turn(results)


class Schedules(RuleBasedStateMachine):
    """One broadcast that somebody, and bad luck, play with."""

    schema: Path

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="schedule-"))
        self.settings = Settings(data=self.folder / "data", secret_key="only for tests", concurrency=8)
        self.settings.data.mkdir()
        shutil.copy(self.schema, self.settings.database_path)
        db.open_database(self.settings)
        db.database.connect()
        self.ledger = Ledger(seed)
        ledger = self.ledger
        self.patches = [
            mock.patch.object(SandboxSms, "send", lambda _provider, out: ledger.send(out)),
            mock.patch.object(SandboxSms, "ping", lambda _provider: None),
            mock.patch.object(sender, "BACKOFF", (0.01,)),
            mock.patch.object(breaker, "PROBE_LINE", 10),
            mock.patch.object(breaker, "PROBE_UNCLEAR", 10),
            mock.patch("worker.delivery.is_alive", lambda _settings, owner: owner == self.owner),
        ]
        for patch in self.patches:
            patch.start()
        channel = channels.ensure_sandbox(self.settings)[1]
        values = {"name": "S", "channel_id": channel.id, "text": "Hi", "rate_per_minute": 60_000}
        made = broadcasts.create(self.settings, values, "test")
        lines = "\n".join(f"+7901{n:07d}" for n in range(PEOPLE))
        file = recipients.receive(made, io.BytesIO(lines.encode()), "a.csv", self.settings.uploads, {}, "test")
        recipients.check(file.id, None, broadcasts.content(made), True, self.settings.uploads)
        self.broadcast = broadcasts.start(self.settings, Broadcast.get_by_id(made.id), "test")
        self.owner = 0
        self.cleared = False
        self.deaths = 0
        self._employ()

    def _employ(self) -> None:
        self.owner += 1
        self.sender = Mortal(self.settings, self.owner)
        self.sender.start()

    @property
    def state(self) -> str:
        return str(Broadcast.get_by_id(self.broadcast.id).state)

    @rule(fault=st.sampled_from(FAULTS))
    def another_fault(self, fault: str) -> None:
        self.ledger.fault = fault

    @rule(ms=st.integers(1, 40))
    def time_passes(self, ms: int) -> None:
        time.sleep(ms / 1000)

    @rule()
    def stop(self) -> None:
        self._press(broadcasts.stop)

    @rule()
    def resume(self) -> None:
        self._press(broadcasts.resume)

    @precondition(lambda self: self.deaths > 0)
    @rule()
    def clear(self) -> None:
        self.cleared = self._press(broadcasts.clear) or self.cleared

    def _press(self, deed: Any) -> bool:
        try:
            deed(Broadcast.get_by_id(self.broadcast.id), "test")
        except broadcasts.NotAllowed:
            return False
        self.sender.wake()
        return True

    @rule()
    def death(self) -> None:
        """The process dies with what it knows; the next one finds what is in the tables."""
        old, self.deaths = self.sender, self.deaths + 1
        with db._write_lock:
            old.dead = True
        self._bury(old)
        self._employ()
        delivery.recover(self.settings, self.owner)
        self.sender.wake()

    @staticmethod
    def _bury(old: Mortal) -> None:
        old._stopping.set()
        old._in_flight.clear()
        old.wake()
        old._thread.join(10)

    def teardown(self) -> None:
        if not hasattr(self, "broadcast"):
            return
        try:
            self.ledger.fault = "none"
            self._to_the_end()
            self._judge()
        finally:
            self.sender.stop()
            for patch in self.patches:
                patch.stop()
            db.close()
            shutil.rmtree(self.folder)

    def _to_the_end(self) -> None:
        deadline = time.monotonic() + 20
        while self.state not in ("finished", "draft"):
            if self.state == "stopped":
                self.resume()
            assert time.monotonic() < deadline, (self.state, broadcasts.count(self.broadcast, None))
            time.sleep(0.005)
        while Message.select().where(Message.status == "sending").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _judge(self) -> None:
        """lost 0, dup 0, lies 0, and the counters are the rows."""
        log = Counter(self.ledger.taken)
        rows = db.rows("SELECT phone, status FROM message")
        assert len(rows) == PEOPLE
        assert [phone for phone, n in log.items() if n > 1] == []
        assert [(p, s) for p, s in rows if s in TAKEN and p not in log] == []
        assert [(p, s) for p, s in rows if s in NEVER_LEFT and p in log] == []
        numbers = {s: n for s, n in broadcasts.count(self.broadcast, None).items() if n and s != "total"}
        assert numbers == dict(Counter(status for _, status in rows))
        if not self.cleared:
            assert set(numbers) <= {"sent", "uncertain", "failed"}


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    db.open_database(Settings(data=tmp_path))
    migrations.upgrade()
    with db.connection():
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    return tmp_path / "molva.db"


def play(schema: Path, schedules: int) -> None:
    Schedules.schema = schema
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Schedules,
        settings=settings(
            max_examples=schedules,
            stateful_step_count=15,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_f49_a_few_schedules(schema_file: Path) -> None:
    play(schema_file, 6)


@pytest.mark.long
def test_f49_a_thousand_schedules(schema_file: Path) -> None:
    play(schema_file, 1_000)
