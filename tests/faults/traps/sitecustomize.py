"""Loaded by the interpreter of a test's worker: kills it at a named point, once."""

import importlib.abc
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

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


if POINT:
    sys.meta_path.insert(0, _Finder())
