"""A real Kannel on this machine: bearerbox and smsbox with a configuration of the test's own, on free ports.

What the gateway is told, and why: reports and replies go to us by GET; texts of replies arrive in UTF-8
(`mo-recode`); nothing is answered to the phone (`max-messages = 0`); `msg-id-type` stays away, because Kannel
would read the SMSC's ids as numbers and mix reports up.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from worker.providers.base import RawCallback

NEEDED = "Kannel (apt-get install kannel)"
BINARIES = {
    name: shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for name in ("bearerbox", "smsbox")
}
ADMIN = "look"
CONF = "kannel.conf"
CONFIGURATION = """\
group = core
admin-port = {admin}
admin-interface = 127.0.0.1
admin-password = {password}
admin-allow-ip = 127.0.0.1
admin-deny-ip = "*.*.*.*"
smsbox-port = {boxes}
smsbox-interface = 127.0.0.1
box-allow-ip = 127.0.0.1
box-deny-ip = "*.*.*.*"
dlr-storage = internal
sms-incoming-queue-limit = -1
log-level = 1

group = smsc
smsc = smpp
smsc-id = operator
host = 127.0.0.1
port = {smsc}
transceiver-mode = true
smsc-username = kannel
smsc-password = "{smsc_password}"
system-type = ""
enquire-link-interval = 20
reconnect-delay = 1
max-pending-submits = 50

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
sendsms-interface = 127.0.0.1
mo-recode = true
http-request-retry = 20
http-queue-delay = 1
log-level = 1

group = sendsms-user
username = {username}
password = {user_password}
concatenation = true
max-messages = 10
user-allow-ip = 127.0.0.1

group = sms-service
keyword = default
catch-all = true
get-url = "{inbound}"
max-messages = 0
omit-empty = true
"""


class Kannel:
    """Use as a context, or start and stop it. `port` is that of /cgi-bin/sendsms.

    smsc_port: where the SMSC listens. inbound_url: what is called for a reply, with Kannel's own placeholders,
    such as `CallbackAddresses.inbound` of the provider's `paste`. folder: where configuration and logs stay;
    without one they are gone after `stop`.
    """

    def __init__(
        self, smsc_port: int, inbound_url: str, folder: Path | None = None, smsc_password: str = "gateway"
    ) -> None:
        self.username, self.password = "molva", "s3cret-of-kannel"
        self.port, self._boxes, self._admin = free_ports(3)
        self.send_url = f"http://127.0.0.1:{self.port}/cgi-bin/sendsms"
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._kept = folder
        self._folder = folder or Path()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._configuration = CONFIGURATION.format(
            admin=self._admin,
            password=ADMIN,
            boxes=self._boxes,
            smsc=smsc_port,
            smsc_password=smsc_password,
            sendsms=self.port,
            username=self.username,
            user_password=self.password,
            inbound=inbound_url,
        )

    def __enter__(self) -> Kannel:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, online: bool = True) -> Kannel:
        """Both boxes; returns when sends are taken and, unless told otherwise, the SMSC is bound."""
        self._folder = self._kept or Path(tempfile.mkdtemp(prefix="kannel-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / CONF).write_text(self._configuration, encoding="utf-8")
        self._run("bearerbox")
        self._wait(lambda: listens(self._boxes), "bearerbox")
        self.start_smsbox()
        if online:
            self.wait_online()
        return self

    def start_smsbox(self) -> None:
        """The box that takes requests and calls us."""
        self._run("smsbox")
        self._wait(lambda: listens(self.port), "smsbox")
        self._wait(lambda: "smsbox" in self.status(), "smsbox at bearerbox")

    def stop_smsbox(self) -> None:
        self._end("smsbox")

    def stop(self) -> None:
        """End both, each by its own process."""
        self._end("smsbox")
        self._end("bearerbox")
        if self._kept is None and self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        """All of it ends and begins again; what waited in memory is gone, as it is with Kannel's defaults."""
        self.stop()
        self.start()

    def wait_online(self) -> None:
        self._wait(lambda: "(online" in self.status(), "the SMSC online")

    def wait_offline(self) -> None:
        self._wait(lambda: "(online" not in self.status(), "the SMSC offline")

    def status(self) -> str:
        """Kannel's own page about its connections and queues; "" while it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._admin}/status.txt?password={ADMIN}", timeout=5
            ) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except OSError:
            return ""

    def log(self) -> str:
        """The end of what both boxes wrote, for a test that failed."""
        return "\n".join(file.read_text("utf-8", "replace")[-2000:] for file in sorted(self._folder.glob("*.log")))

    def _run(self, box: str) -> None:
        binary = BINARIES[box]
        assert binary is not None
        with (self._folder / f"{box}.log").open("ab") as log:
            self._running[box] = subprocess.Popen([binary, "-v", "1", CONF], stdout=log, stderr=log, cwd=self._folder)

    def _end(self, box: str) -> None:
        process = self._running.pop(box, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def _wait(self, true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while not true():
            if time.monotonic() > until or any(p.poll() is not None for p in self._running.values()):
                raise AssertionError(f"Kannel: no {what}\n{self.log()}")
            time.sleep(0.02)


class Catcher:
    """Takes callbacks as our own server would hand them to a Provider. Use as a context."""

    def __init__(self) -> None:
        self.seen: list[RawCallback] = []
        self._news = threading.Condition()

    def __enter__(self) -> Catcher:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                with outer._news:
                    outer.seen.append(RawCallback(self.command, parts.path.rpartition("/")[2], query, {}, body))
                    outer._news.notify_all()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/key"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def wait(self, fits: Callable[[RawCallback], bool], what: str, seconds: float = 15.0) -> RawCallback:
        """The first callback that fits, as soon as it is there."""
        until = time.monotonic() + seconds
        with self._news:
            while True:
                for callback in self.seen:
                    if fits(callback):
                        return callback
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no callback: {what}; {[c.query for c in self.seen[-5:]]}")
                self._news.wait(min(left, 0.5))


def require() -> None:
    """Skip where Kannel is missing, or fail where nothing may be missing."""
    if None in BINARIES.values():
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail(f"needs {NEEDED}")
        pytest.skip(f"needs {NEEDED}")


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
