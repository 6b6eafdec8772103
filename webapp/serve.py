"""The one command: the web server in this process, the worker and the sandbox as supervised children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from waitress.server import create_server

from webapp import create_app
from worker import channels, db, locks, migrations, people
from worker.settings import Settings

THREADS = 16
BODY_MAX = 13 * 1024 * 1024
PATIENCE = 43.0  # seconds for the children to store what is in flight
BACKOFF = (0.5, 1, 2, 5, 10)


class ServeError(RuntimeError):
    """Why the server cannot start, in words for the console."""


class Child:
    """One supervised process: started again with back-off when it dies; it leaves when its stdin ends."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        self._spawn()
        self._thread.start()

    def _spawn(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=self._environment)

    def _watch(self) -> None:
        deaths = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.is_set():
                return
            deaths = deaths + 1 if time.monotonic() - began < 30 else 0
            wait = BACKOFF[min(deaths, len(BACKOFF) - 1)]
            print(f"The {self.name} ended with code {code}; starting it again in {wait} s", file=sys.stderr, flush=True)
            if self._stopping.wait(wait):
                return
            self._spawn()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self, deadline: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)


def environment(settings: Settings) -> dict[str, str]:
    """What a child must know of the settings of this process."""
    return {
        **os.environ,
        "MOLVA_DATA": str(settings.data),
        "MOLVA_HOST": settings.host,
        "MOLVA_PORT": str(settings.port),
        "PYTHONUNBUFFERED": "1",
    }


def prepare(settings: Settings) -> None:
    """Data folder, schema, sandbox channels. Raises ServeError."""
    db.open_database(settings)
    try:
        migrations.upgrade()
    except migrations.SchemaError as error:
        raise ServeError(str(error)) from error
    channels.ensure_sandbox(settings)


def announce_setup(address: str) -> None:
    """Print the one-time code while there is no administrator."""
    with db.connection():
        code = people.new_setup_code()
    if code:
        print(
            f"\nNo account yet. Open {address}/setup and enter this code (valid for one hour):\n\n    {code}\n",
            flush=True,
        )


def listen(settings: Settings) -> Any:
    """A waitress server on the wanted address. Raises ServeError when the port is taken."""
    app = create_app(settings)
    try:
        return create_server(
            app,
            host=settings.host,
            port=settings.port,
            threads=THREADS,
            ident=None,
            channel_timeout=60,
            max_request_body_size=BODY_MAX,
            expose_tracebacks=False,
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise ServeError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another port with --port."
        ) from error


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """One server for each data folder. Raises ServeError for the second."""
    db.make_private(settings.data)
    lock = locks.hold(settings.data / "serve.lock")
    if lock is None:
        raise ServeError(f"Another Molva already serves the data folder {settings.data}")
    try:
        yield
    finally:
        lock.close()


def _address(settings: Settings, server: Any) -> tuple[str, str]:
    """(address for people, address for callbacks from this machine)."""
    port = getattr(server, "effective_port", None) or settings.port
    host = settings.host if settings.host not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}", f"http://{shown}:{port}"


def serve(settings: Settings, with_children: bool = True) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises ServeError."""
    with only_one(settings) if with_children else contextlib.nullcontext():
        prepare(settings)
        server = listen(settings)
        address, callbacks = _address(settings, server)
        announce_setup(address)
        children = _children(settings, callbacks) if with_children else []
        for child in children:
            child.start()
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, _leave)
        print(f"Molva: {address}", flush=True)
        try:
            server.run()
        except (SystemExit, KeyboardInterrupt):
            pass
        finally:
            deadline = time.monotonic() + PATIENCE
            # The workers first: the sandbox still has to answer what is in flight.
            workers, others = children[: settings.senders], children[settings.senders :]
            for group in (workers, others):
                for child in group:
                    child.ask_to_stop()
                for child in group:
                    child.wait(deadline)
            with contextlib.suppress(OSError, socket.error):
                server.close()
    return 0


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(0)


def _children(settings: Settings, callbacks: str) -> list[Child]:
    given = environment(settings)
    made = [Child("worker", [sys.executable, "-m", "worker", "--watch-stdin"], given) for _ in range(settings.senders)]
    sandbox = [sys.executable, "-m", "webapp", "sandbox", "--watch-stdin", "--callbacks", callbacks]
    return [*made, Child("sandbox", sandbox, given)]
