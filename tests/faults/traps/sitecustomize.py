"""Loaded by the interpreters of a test's product: signals the worker at a named point, once; sets its clock wrong.

The usual library for wrong clocks does not understand how Python's threads wait, so the wall clock is
set wrong here, while the product runs; the monotonic one goes on, as it does when a machine's time is corrected.
"""

import importlib.abc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHIFT_FILE = os.environ.get("CLOCK_SHIFT_FILE", "")  # holds seconds by which the clock is wrong, once it exists
POINT, AFTER = os.environ.get("TRAP", ""), int(os.environ.get("TRAP_AFTER", "0"))
SIGNAL = int(os.environ.get("TRAP_SIGNAL", signal.SIGKILL))
USED = Path(os.environ.get("TRAP_USED", ""))  # exists once the trap has fired
PRAGMAS = os.environ.get("TRAP_PRAGMAS", "")  # a file that gets a line for every connection to the database


def _fire() -> None:
    if not USED.exists():
        USED.touch()
        os.kill(os.getpid(), SIGNAL)
        time.sleep(0.5)  # the system may let another thread take the signal first, and this one run on meanwhile


def _note_connections(module: Any) -> None:
    database = module.database.obj  # what the proxy stands for
    connect = database._connect

    def noting() -> Any:
        found = connect()
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        values = [found.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        with Path(PRAGMAS).open("a") as file:
            file.write(json.dumps([Path(sys.argv[0]).parent.name, *values]) + "\n")
        return found

    database._connect = noting


def _set(module: Any) -> None:
    """Wrap the two steps between which a death hurts most."""
    sender, seen = module.Sender, [0]
    if POINT == "after_claim":
        turn = sender._turn

        def after_claim(self: Any, results: Any) -> Any:
            jobs = turn(self, results)
            seen[0] += len(jobs)
            if seen[0] > AFTER and jobs:
                _fire()  # committed as sending, and no byte has left
            return jobs

        sender._turn = after_claim
    else:
        send = sender._send

        def after_answer(self: Any, job: Any) -> Any:
            result = send(self, job)
            seen[0] += 1
            if seen[0] > AFTER:
                _fire()  # the provider has it, and nobody here wrote it down
            return result

        sender._send = after_answer


class _Finder(importlib.abc.MetaPathFinder):
    """Changes one module when it has been loaded."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self.name = name
        self.change = change

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            self.change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if SHIFT_FILE:
    now, now_ns, shift = time.time, time.time_ns, [0]

    def _watch() -> None:
        while not (Path(SHIFT_FILE).exists() and (text := Path(SHIFT_FILE).read_text())):
            time.sleep(0.05)
        shift[0] = int(text)

    time.time = lambda: now() + shift[0]
    time.time_ns = lambda: now_ns() + shift[0] * 1_000_000_000
    threading.Thread(target=_watch, daemon=True).start()

if POINT:
    sys.meta_path.insert(0, _Finder("worker.sender", _set))
if PRAGMAS:
    sys.meta_path.insert(0, _Finder("worker.db", _note_connections))
