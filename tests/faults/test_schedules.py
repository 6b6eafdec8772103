"""F49: random schedules of faults, stops, resumes, clears, deaths, reports and choices over 200 messages.

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
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from worker import breaker, broadcasts, channels, db, delivery, migrations, optouts, recipients, sender
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
        self.taken: list[base.Outgoing] = []
        self.asked: Counter[str] = Counter()  # requests that the provider may have taken, by phone
        self._lock = threading.Lock()

    def send(self, out: base.Outgoing) -> base.Accepted:
        with self._lock:
            fault = self.fault if self.fault != "mixed" else self.chance.choice(FAULTS[:-1])
            pause = self.chance.random() * 0.004
            accepted = fault in ("none", "accept_unclear")
            if accepted:
                self.taken.append(out)
            if fault not in ("later", "refused"):
                self.asked[out.phone] += 1
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
            mock.patch.object(sender, "PAUSE", 0.01),
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
        self.channel_id = channel.id
        self.again: Counter[str] = Counter()  # how often a person chose to send again, by phone
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

    @rule(which=st.integers(0, PEOPLE), status=st.sampled_from(["delivered", "failed"]))
    def report(self, which: int, status: str) -> None:
        """A delivery report of a message that the provider took comes in, soon or late or twice."""
        if not self.ledger.taken:
            return
        out = self.ledger.taken[which % len(self.ledger.taken)]
        with db.write():
            update = base.StatusUpdate(
                status, 5, f"id-{out.token}", out.token, "131026" if status == "failed" else None
            )
            delivery.apply_updates(self.channel_id, [update], 5)

    @rule()
    def send_again(self) -> None:
        """A person does not want to wait for the truth about one uncertain message."""
        found = db.rows("SELECT id, phone FROM message WHERE status = 'uncertain' LIMIT 1")
        if found and delivery.resolve(found[0][0], "resend", "ann"):
            self.again[found[0][1]] += 1
            self.sender.wake()

    @rule(n=st.integers(0, PEOPLE - 1))
    def stop_word(self, n: int) -> None:
        with db.write():
            optouts.record(f"+7901{n:07d}", "reply", "STOP", self.channel_id)

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
        broadcasts.sweep_removed()  # as the worker's tick does: what was put off after a clear is cancelled too

    def _judge(self) -> None:
        """lost 0, dup 0, lies 0, and the counters are the rows."""
        log = {out.phone for out in self.ledger.taken}
        rows = db.rows("SELECT phone, status FROM message")
        assert len(rows) == PEOPLE
        assert {phone: n for phone, n in self.ledger.asked.items() if n > 1 + self.again[phone]} == {}
        assert [(p, s) for p, s in rows if s in TAKEN and p not in log] == []
        # Where a person chose to send again, the status speaks of that second try; the story has the first one.
        assert [(p, s) for p, s in rows if s in NEVER_LEFT and p in log and not self.again[p]] == []
        numbers = {s: n for s, n in broadcasts.count(self.broadcast, None).items() if n and s != "total"}
        assert numbers == dict(Counter(status for _, status in rows))
        left = {"cancelled"} if self.cleared else set()
        assert set(numbers) <= {"sent", "uncertain", "failed", "delivered", "undelivered", "skipped"} | left


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
            # The schedule as it was played is shown: a race is hardly ever the same when it is played again.
            phases=(Phase.generate,),
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.mark.long
def test_f49_a_few_schedules(schema_file: Path) -> None:
    play(schema_file, 6)


@pytest.mark.long
@pytest.mark.parametrize("half", [1, 2])
def test_f49_a_thousand_schedules(schema_file: Path, half: int) -> None:
    play(schema_file, 500)
