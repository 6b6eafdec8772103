"""An operator's SMSC on this machine: smsc.js on the npm package `smpp`, its log the truth of the receiving side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "smpp@0.5.1"
PASSWORD = "gateway"
NEEDED = f"Node.js and npm (apt-get install nodejs npm) with {PACKAGE}, which npm fetches once"

Event = dict[str, Any]


class Smsc:
    """One server process on 127.0.0.1. The environment is that of smsc.js: DLR_MS, ANSWER_MS, THROTTLE, PORT."""

    def __init__(self, modules: Path, **environment: int) -> None:
        self.port = 0
        self.events: list[Event] = []  # everything it has said, in order; see smsc.js
        self._modules = modules
        self._environment = {name: str(value) for name, value in environment.items()}
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Smsc:
        self._process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("smsc.js"))],
            env={**os.environ, "NODE_PATH": str(self._modules), "PASSWORD": PASSWORD, **self._environment},
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="smsc", daemon=True)
        self._reader.start()
        self.port = int(self.wait(lambda: self.of("listening"), "its port")[0]["port"])
        return self

    def stop(self) -> Event:
        """End it by its own process; its totals."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._reader.join(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        return next(iter(self.of("totals")), {})

    def of(self, event: str, **fields: Any) -> list[Event]:
        """The events of one kind whose fields have these values."""
        with self._news:
            return [
                one
                for one in self.events
                if one["event"] == event and all(one.get(name) == value for name, value in fields.items())
            ]

    def submits(self, phone: str, least: int = 1) -> list[Event]:
        """What was handed over for one number, given with or without its plus; waits for that many."""

        def found() -> list[Event]:
            all_of_it = [one for one in self.of("submit") if one["to"].lstrip("+") == phone.lstrip("+")]
            return all_of_it if len(all_of_it) >= least else []

        return self.wait(found, f"{least} submits to {phone}")

    def wait(self, find: Callable[[], list[Event]], what: str, seconds: float = 15.0) -> list[Event]:
        """`find()` as soon as it is not empty."""
        until = time.monotonic() + seconds
        while not (found := find()):
            with self._news:
                if not self._news.wait(min(0.05, until - time.monotonic())) and time.monotonic() > until:
                    raise AssertionError(f"the SMSC did not show {what}: {self.events[-5:]}")
        return found

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()


def modules() -> Path:
    """The folder with the npm package, fetched once and kept; without Node.js the test skips, or fails if required."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molva-tests" / PACKAGE
    found = cache / "node_modules"
    if shutil.which("node") is None or (shutil.which("npm") is None and not (found / "smpp").is_dir()):
        _missing("")
    if not (found / "smpp").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", PACKAGE],
            capture_output=True,
            text=True,
            timeout=120,
        )
        if made.returncode:
            _missing(f": {made.stderr[-300:]}")
    return found


def _missing(why: str) -> None:
    if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
        pytest.fail(f"needs {NEEDED}{why}")
    pytest.skip(f"needs {NEEDED}{why}")
