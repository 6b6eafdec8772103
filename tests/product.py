"""The real command in a real process group, and the sandbox's log as the truth."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker import broadcasts, db, recipients, tasks
from worker.models import Broadcast, Channel, RecipientFile
from worker.settings import Settings

# What the hosts of an installation have in common.
SHARED = ("database_url", "queue_url", "secret_key")


class Product:
    """`molva serve` on a data folder, killed and started as a test says; judged by sandbox.log."""

    def __init__(self, data: Path, port: int = 0, **environment: str) -> None:
        shared = {name: environment.get(f"MOLVA_{name.upper()}", "") for name in SHARED}
        self.settings = Settings(data=data, port=port, **shared)
        self.environment = environment
        self.inside: tuple[str, ...] = ()  # what its commands begin with, on a host of its own
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.code = ""  # the one-time code of the first run

    def part(self, name: str) -> subprocess.Popen[str]:
        """`molva NAME` on the data folder, in a process group of its own; whoever starts it ends it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MOLVA_")} | self.environment
        address = ["--port", str(self.settings.port)] if name in ("serve", "web") else []
        with self.log.open("ab") as errors:
            return subprocess.Popen(
                [*self.inside, sys.executable, "-m", "webapp", name, "--data", str(self.settings.data), *address],
                stdout=subprocess.PIPE if name == "serve" else subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,
                env=environment,
            )

    def start(self) -> None:
        self.process = self.part("serve")
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.fullmatch(r"\s*((?:[0-9A-Z]{4}-){3}[0-9A-Z]{4})\s*", line):
                self.code = found[1]
            if line.startswith("Molva: "):
                self.url = line.split()[1]
                return
        raise AssertionError("the server did not start")

    @property
    def log(self) -> Path:
        """Where the command's own log goes."""
        return self.settings.data.with_name("serve.log")

    def kill(self) -> None:
        """kill -9 of the whole group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(50)
        self._reap()
        return code

    def _reap(self) -> None:
        if self.process is not None:
            self.process.wait(10)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def accepted(self) -> list[dict[str, Any]]:
        """Every message the sandbox took."""
        path = self.settings.data / "sandbox.log"
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                facts = json.loads(line)
            except ValueError:
                continue  # the last line of a killed emulator
            if facts.get("kind") == "accepted":
                found.append(facts)
        return found

    def broadcast(self, provider: str, people: int, rate: int, first: int | None = None) -> Broadcast:
        """A started broadcast to made-up people, with a canary of `first`."""
        tasks.configure(self.settings)
        channel = Channel.get(Channel.provider == provider)
        broadcast = broadcasts.create(
            self.settings, {"name": "Fault", "channel_id": channel.id, "text": "Hi", "rate_per_minute": rate}, "test"
        )
        lines = "\n".join(f"+7901{n:07d}" for n in range(people))
        file = recipients.receive(
            broadcast, io.BytesIO(f"phone\n{lines}".encode()), "a.csv", self.settings.uploads, {}, "test"
        )
        tasks.read_file(file.id)
        wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 20)
        started = broadcasts.start(self.settings, Broadcast.get_by_id(broadcast.id), "test", first)
        tasks.wake(started.id)
        return started

    def numbers(self, broadcast: Broadcast) -> dict[str, int]:
        found = broadcasts.count(broadcast, None)
        assert found["total"] == sum(n for status, n in found.items() if status != "total")
        return found

    def judge(self, broadcast: Broadcast) -> None:
        """Nobody twice, nobody lost, no lies: the report against the sandbox's log, row by row."""
        log: dict[str, int] = {}
        for facts in self.accepted():
            log[facts["phone"]] = log.get(facts["phone"], 0) + 1
        twice = {phone for phone, n in log.items() if n > 1}
        assert twice == set()
        for phone, status in db.rows("SELECT phone, status FROM message WHERE broadcast_id = ?", [broadcast.id]):
            if status in ("sent", "delivered", "read", "undelivered", "held"):
                assert phone in log, f"{phone} is {status} but was never accepted"
            elif status in ("failed", "queued", "skipped", "cancelled"):
                assert phone not in log, f"{phone} is {status} but was accepted"


def wait(done: Callable[[], bool], seconds: float) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
