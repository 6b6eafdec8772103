"""P10: the polled fragment and the pages of messages, at a million rows and at a thousand."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tests import make, people
from tests.bench.common import TIMES, Result, environment, fill, installation
from webapp import create_app
from worker import clock
from worker.settings import Settings

SMALL, LARGE = 1_000, 1_000_000
ROUNDS = 40
VIEWERS = 500
SECONDS = 10
POLL = {"HX-Request": "true"}


def run(big: bool) -> list[Result]:
    with installation() as settings:
        make.worker(heartbeat_at=clock.now() + clock.HOUR)
        sizes = {rows: fill(rows, state="running") for rows in (SMALL, LARGE)}
        app = create_app(settings)
        browser = people.signed_in(app, people.person("admin"))
        pages = [_addresses(file.broadcast_id, file.id, rows) for rows, file in sizes.items()]
        results = []
        for what, small, large in [(name, pages[0][name], pages[1][name]) for name in pages[0]]:
            floor, value = _milliseconds(browser, small, large)
            ratio = value / floor
            results.append(
                Result(
                    f"P10 {what} at {LARGE:,} rows",
                    f"{value:.2f} ms",
                    f"{floor:.2f} ms at {SMALL:,}",
                    f"{ratio:.2f}",
                    "≤ 1.2",
                    ratio <= 1.2,
                )
            )
        viewer = people.signed_in(app, people.person("viewer"))
        cookie = viewer.client.get_cookie("molva")
        assert cookie is not None
        cores, slowest = _viewers(settings, pages[1]["fragment"], f"{cookie.key}={cookie.value}")
        note = f"{cores / VIEWERS * 1000:.2f} ms CPU each, slowest answer {slowest * 1000:.0f} ms"
        results.append(
            Result(f"P10 {VIEWERS} viewers, a poll a second", f"{cores:.2f} cores", "", "", "≤ 0.5", cores <= 0.5, note)
        )
        return results


def _addresses(broadcast: int, file: int, rows: int) -> dict[str, str]:
    report = f"/broadcasts/{broadcast}/report?run=1"
    return {
        "fragment": f"/broadcasts/{broadcast}/live",
        "first page": report,
        "middle page": f"{report}&after=1.{file}.{rows // 2}",
        "last page": f"{report}&after=1.{file}.{rows - 49}",
        "failed only": f"{report}&status=failed",
    }


def _milliseconds(browser: people.Browser, *urls: str) -> list[float]:
    """The median of each address, asked in turn so that noise meets both."""
    took: list[list[float]] = [[] for _ in urls]
    for _ in range(ROUNDS * TIMES):
        for url, times in zip(urls, took, strict=True):
            browser.client.application.extensions["molva.glances"].forget()  # drawn anew, not shown again
            began = time.perf_counter()
            answer = browser.get(url, headers=POLL if url.endswith("live") else {})
            times.append(time.perf_counter() - began)
            assert answer.status_code == 200, url
    return [median(times) * 1000 for times in took]


def _viewers(settings: Settings, url: str, cookie: str) -> tuple[float, float]:
    """(cores that the web server uses, the slowest answer in seconds), every viewer on a connection of their own."""
    command = [sys.executable, "-m", "webapp", "web", "--data", str(settings.data), "--port", "0"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(settings)
    )
    try:
        assert server.stdout is not None
        address = next(line.split()[1] for line in server.stdout if line.startswith("Molva: "))
        lines = [http.client.HTTPConnection(urlsplit(address).netloc, timeout=10) for _ in range(VIEWERS)]
        for line in lines:
            _poll(line, url, cookie)
        begun, used, slowest = time.perf_counter(), _cpu(server.pid), 0.0
        for n in range(VIEWERS * SECONDS):
            wait = begun + n / VIEWERS - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            slowest = max(slowest, _poll(lines[n % VIEWERS], url, cookie))
        # Slower than asked would flatter it: count against the polls, not the clock.
        cores = (_cpu(server.pid) - used) / SECONDS
        for line in lines:
            line.close()
        return cores, slowest
    finally:
        server.terminate()
        server.wait(60)
        if server.stdout is not None:
            server.stdout.close()


def _poll(line: http.client.HTTPConnection, url: str, cookie: str) -> float:
    began = time.perf_counter()
    line.request("GET", url, headers={**POLL, "Cookie": cookie})
    answer: Any = line.getresponse()
    assert answer.status == 200 and b'id="live"' in answer.read()
    return time.perf_counter() - began


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
