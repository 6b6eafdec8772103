"""`python -m tests.faults`: the whole proof, in lanes side by side; ends with 0 when all of it held.

Most of the time goes into waiting: for a lease, for a provider's pause, for a lock, for the minutes in which
a rate is watched. So the lanes run beside each other, a thousand random schedules with the lowest priority,
and what needs the machine for itself comes last. Further arguments go to pytest: `--seed 7`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

SCHEDULES, RATES = "tests/faults/test_schedules.py", "tests/faults/test_rate.py"
OTHERS = ["tests/faults", f"--ignore={SCHEDULES}", f"--ignore={RATES}"]
LANES = {
    "crashes": ["tests/faults/test_crash.py", "-m", "faults and not patient", "-k", "not f02"],
    "more crashes": ["tests/faults/test_crash.py", "-m", "faults", "-k", "f02"],
    "faults": [*OTHERS, "--ignore=tests/faults/test_crash.py", "-m", "faults and not patient"],
    "outages": ["tests/faults/test_provider.py", "-m", "faults and patient", "-k", "f07 or f09 or f32"],
    "patience": ["tests/faults/test_provider.py", "-m", "faults and patient", "-k", "not (f07 or f09 or f32)"],
    "more patience": [*OTHERS, "--ignore=tests/faults/test_provider.py", "-m", "faults and patient"],
    "rates": [RATES, "-m", "faults and not alone and not patient", "-k", "not kills"],
    "more rates": [RATES, "-m", "faults", "-k", "kills"],
    "clocks": [RATES, "-m", "faults and patient"],
    "schedules": [SCHEDULES, "-m", "faults", "-k", "few or thousand_schedules[1]"],
    "more schedules": [SCHEDULES, "-m", "faults", "-k", "thousand_schedules[2]"],
}
ALONE = {"full speed": ["tests/faults", "-m", "faults and alone"]}
NICE = {"schedules": 19, "more schedules": 19}


def main() -> int:
    began = time.monotonic()
    codes = {**_run(LANES), **_run(ALONE)}
    said = ", ".join(f"{name}: {'green' if code == 0 else 'RED'}" for name, code in codes.items())
    print(f"{said}; {(time.monotonic() - began) / 60:.0f} min")
    return max(codes.values())


def _run(chosen: dict[str, list[str]]) -> dict[str, int]:
    """Play these lanes at the same time; the exit code of each."""
    lanes = {name: _start(name, arguments) for name, arguments in chosen.items()}
    return {name: _show(name, process) for name, process in lanes.items()}


def _start(name: str, chosen: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", *chosen, "-rs", "--tb=short", *sys.argv[1:]]
    nice = ["nice", "-n", str(NICE[name])] if name in NICE and os.name == "posix" else []
    return subprocess.Popen([*nice, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _show(name: str, process: subprocess.Popen[str]) -> int:
    """Print what a lane says once it has ended; its exit code."""
    said, _ = process.communicate()
    print(f"--- {name}\n{re.sub(r'^[.]+ +.*%]$', '', said, flags=re.M).strip()}", flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
