"""The one command as people run it: a real process, its children, and how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

COMMAND = [sys.executable, "-m", "webapp"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MOLVA_")}


class Server:
    """`molva …` on a folder of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.said: list[str] = []

    def start(self, *arguments: str, **environment: str) -> Server:
        self.process = subprocess.Popen(
            [*COMMAND, *(arguments or ("serve",)), "--data", str(self.data), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT | environment,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Molva: "):
                self.url = line.split()[1]
                return self
        raise AssertionError(f"it did not start: {self.said}")

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=10, allow_redirects=False, **kwargs)

    def children(self) -> dict[str, int]:
        """The children by name: worker and sandbox → process id."""
        assert self.process is not None
        found = {}
        for pid in children_of(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except FileNotFoundError:
                continue  # it has just died
            found["sandbox" if "sandbox" in words else "worker"] = pid
        return found

    def end(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(45)

    def clean_up(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
            if self.process.stdout is not None:
                self.process.stdout.close()


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    yield made
    made.clean_up()


def test_one_command_serves_sends_and_tells_how_to_come_in(server: Server) -> None:
    server.start()
    console = "".join(server.said)
    assert f"{server.url}/setup" in console
    code = re.search(r"\b(?:[2-9A-Z]{4}-){3}[2-9A-Z]{4}\b", console)
    assert code is not None
    assert server.get("/").headers["Location"] == "/setup"
    assert "Server" not in server.get("/setup").headers
    until(lambda: server.get("/healthz").status_code == 200)
    assert server.get("/healthz").json() == {"database": "ok", "queue": "ok", "worker": "ok"}

    browser = requests.Session()
    form = browser.get(f"{server.url}/setup", timeout=10).text
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', form)
    assert csrf is not None
    fields = {"csrf_token": csrf[1], "code": code[0], "email": "anna@example.org"}
    fields |= {"password": "seven quiet rivers", "again": "seven quiet rivers"}
    answer = browser.post(f"{server.url}/setup", fields, timeout=10)
    assert answer.status_code == 200 and "anna@example.org" in answer.text
    assert server.end() == 0


def test_what_it_stores_is_closed_to_others(server: Server) -> None:
    server.start()
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    for name in ("molva.db", "secret.key", "queue.db"):
        assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600, name


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_children(server: Server, how: int) -> None:
    server.start()
    children = server.children()
    assert set(children) == {"worker", "sandbox"}
    assert server.end(how) == 0
    assert not any(runs(pid) for pid in children.values())


def test_a_signal_to_the_whole_group_ends_it_cleanly(server: Server) -> None:
    process = server.start().process
    assert process is not None
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(45) == 0


def test_a_dead_worker_is_started_again(server: Server) -> None:
    server.start()
    before = server.children()["worker"]
    os.kill(before, signal.SIGKILL)
    until(lambda: server.children().get("worker", before) != before)
    assert server.end() == 0


def test_children_leave_when_the_server_is_killed(server: Server) -> None:
    children = server.start().children()
    server.end(signal.SIGKILL)
    until(lambda: not any(runs(pid) for pid in children.values()))


def test_a_second_server_on_the_same_data_is_refused_in_words(server: Server) -> None:
    server.start()
    second = subprocess.run(
        [*COMMAND, "--data", str(server.data), "--port", "0"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 1
    assert "Another Molva already serves the data folder" in second.stderr


def test_a_taken_port_is_told_in_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        tried = subprocess.run(
            [*COMMAND, "--data", str(tmp_path / "data"), "--port", port],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert tried.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in tried.stderr
    assert "--port" in tried.stderr and "Traceback" not in tried.stderr


def test_web_alone_refuses_a_stale_schema_and_says_what_to_run(tmp_path: Path) -> None:
    tried = subprocess.run(
        [*COMMAND, "web", "--data", str(tmp_path / "data"), "--port", "0"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert tried.returncode == 1
    assert "molva migrate" in tried.stderr


def test_web_alone_has_no_children(server: Server) -> None:
    subprocess.run([*COMMAND, "migrate", "--data", str(server.data)], env=ENVIRONMENT, capture_output=True, check=True)
    server.start("web")
    assert server.children() == {}
    assert server.get("/healthz").status_code == 503
    assert server.end() == 0


@pytest.mark.parametrize(("proxies", "secure"), [("0", False), ("1", True)])
def test_a_proxy_is_believed_only_when_the_settings_say_so(server: Server, proxies: str, secure: bool) -> None:
    server.start(MOLVA_TRUSTED_PROXIES=proxies)
    cookie = server.get("/setup", headers={"X-Forwarded-Proto": "https"}).headers["Set-Cookie"]
    assert ("Secure" in cookie) == secure


def test_a_body_over_the_limit_is_answered_not_cut(server: Server) -> None:
    server.start()
    answer = requests.post(f"{server.url}/setup", files={"file": b"x" * 14_000_000}, timeout=20)
    assert answer.status_code == 413
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_unknown_variable_ends_the_start_with_its_name(tmp_path: Path) -> None:
    tried = subprocess.run(
        [*COMMAND, "--data", str(tmp_path)],
        env=ENVIRONMENT | {"MOLVA_PROT": "1"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert tried.returncode == 1
    assert "MOLVA_PROT" in tried.stderr and "Traceback" not in tried.stderr


def test_the_door_for_other_servers_makes_the_application(tmp_path: Path) -> None:
    script = "import wsgi; print('ready', wsgi.app.name)"
    fresh = ENVIRONMENT | {"MOLVA_DATA": str(tmp_path / "data")}
    root = Path(__file__).parents[2]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script], env=fresh, capture_output=True, text=True, timeout=20, cwd=root
        )

    assert "molva migrate" in run().stderr
    subprocess.run([*COMMAND, "migrate"], env=fresh, capture_output=True, check=True, cwd=root)
    assert run().stdout.startswith("ready webapp")


def test_importing_the_package_does_not_load_flask() -> None:
    script = "import webapp, sys; print('flask' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert told.stdout.strip() == "False"
