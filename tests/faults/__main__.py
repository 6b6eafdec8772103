"""`python -m tests.faults`: the whole proof, in three lanes side by side; ends with 0 when all of it held.

Most of the time goes into waiting (for a lease, for a provider's pause, for a lock) and into a thousand
random schedules. These run beside the rest, the schedules with the lowest priority, so that the rates of
the rest are measured on a machine that has room for them. Further arguments go to pytest: `--seed 7`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

LANES = {
    "faults": ["tests/faults", "--ignore=tests/faults/test_schedules.py", "-m", "faults and not patient"],
    "patience": ["tests/faults", "--ignore=tests/faults/test_schedules.py", "-m", "faults and patient"],
    "schedules": ["tests/faults/test_schedules.py", "-m", "faults"],
}
NICE = {"schedules": 19}


def main() -> int:
    began = time.monotonic()
    lanes = {name: _start(name, chosen) for name, chosen in LANES.items()}
    codes = {name: _show(name, process) for name, process in lanes.items()}
    minutes = (time.monotonic() - began) / 60
    said = ", ".join(f"{name}: {'green' if code == 0 else 'RED'}" for name, code in codes.items())
    print(f"{said}; {minutes:.0f} min")
    return max(codes.values())


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
