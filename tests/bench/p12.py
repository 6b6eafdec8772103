"""P12: the memory of an installation, idle and at full speed, and the time from the command to the first page."""

from __future__ import annotations

import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

from tests.bench import engine
from tests.bench.common import TIMES, Result, apart, memory
from tests.product import Product

SETTLE = 6.0  # seconds: the first ticks, the first heartbeat


def children(pid: int) -> dict[str, int]:
    """The processes that the server started, by what they are."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(entry.joinpath("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            command = entry.joinpath("cmdline").read_text(encoding="utf-8")
        except OSError:
            continue
        if parent == pid:
            found["sandbox" if "\0sandbox\0" in command else "worker"] = int(entry.name)
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def installed(data: Path) -> tuple[float, dict[str, float]]:
    """(seconds to the first 200, PSS of each process in MB) of the real command."""
    product = Product(data)
    began = time.perf_counter()
    product.start()
    while not answers(product.url + "/healthz"):
        time.sleep(0.005)
    took = time.perf_counter() - began
    try:
        answers(product.url + "/setup")
        time.sleep(SETTLE)
        assert product.process is not None
        pids = {"web": product.process.pid, **children(product.process.pid)}
        return took, {name: memory(pid)["Pss"] for name, pid in pids.items()}
    finally:
        product.stop()


def busy() -> tuple[float, float]:
    """(PSS of web and worker together in MB, sends/s) while two broadcasts go as fast as they can."""
    people = 16_000
    with engine.world() as world:
        engine.start(world, people)
        engine.sent(world, people // 3)
        assert world.product.process is not None
        web = world.product.process.pid
        sizes = [memory(web)["Pss"] + memory(children(web)["worker"])["Pss"] for _ in range(TIMES)]
        engine.sent(world, 0)
        return median(sizes), engine.speed(world)


def run(big: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="molva-bench-") as folder:
        first, _ = installed(Path(folder) / "data")  # makes the database
        found = [installed(Path(folder) / "data") for _ in range(TIMES)]
    took = median(seconds for seconds, _ in found)
    web, worker, sandbox = (median(sizes[name] for _, sizes in found) for name in ("web", "worker", "sandbox"))
    both = web + worker
    sending, speed = apart(busy)
    note = f"web {web:.0f}, worker {worker:.0f}; the sandbox beside them {sandbox:.0f}"
    return [
        Result("P12 idle memory (PSS)", f"{both:.0f} MB", "", "", "≤ 90 MB", both <= 90, note),
        Result(
            "P12 memory while sending",
            f"{sending:.0f} MB",
            "",
            "",
            "≤ 130 MB at 1,000/s",
            sending <= 130 and speed >= 1_000,
            f"web and worker at {speed:,.0f} sends/s",
        ),
        Result(
            "P12 start to the first 200", f"{took:.2f} s", "", "", "≤ 1.5 s", took <= 1.5, f"a new folder {first:.2f} s"
        ),
    ]
