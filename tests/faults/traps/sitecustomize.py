"""Loaded by the interpreters of a test's product: kills the worker at a named point, once; sets its clock wrong.

The usual library for wrong clocks does not understand how Python's threads wait, so the wall clock is
set wrong here; the monotonic one goes on, as it does when a machine's time is corrected.
"""

import importlib.abc
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHIFT = int(os.environ.get("CLOCK_SHIFT", "0"))  # seconds
POINT, AFTER = os.environ.get("TRAP", ""), int(os.environ.get("TRAP_AFTER", "0"))


def _fire() -> None:
    used = Path(tempfile.gettempdir()) / f"trap-{os.getpgid(0)}"
    if not used.exists():
        used.touch()
        os.kill(os.getpid(), signal.SIGKILL)


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
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "worker.sender":
            return None
        sys.meta_path.remove(self)
        import importlib.util

        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            _set(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if SHIFT:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + SHIFT
    time.time_ns = lambda: now_ns() + SHIFT * 1_000_000_000

if POINT:
    sys.meta_path.insert(0, _Finder())
