"""The one command: the web server in this process, the worker and the sandbox as supervised children."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from waitress.server import create_server

from webapp import create_app, loop
from worker import channels, db, installation, locks, memory, migrations, people, vault
from worker.providers import sandbox_address
from worker.settings import Settings

log = logging.getLogger("molva.serve")

THREADS = 16
# Every open tab keeps one; 1,024 open files are what a process usually may have.
CONNECTIONS = 900
# Above Flask's own limit, so that a file which is too large is usually answered by a readable page;
# beyond this one the connection is cut.
BODY_MAX = 32 * 1024 * 1024
SANDBOX_PATIENCE = 3.0
PATIENCE = 44.0  # seconds for the children to store what is in flight
BACKOFF = (0.5, 1, 2, 5, 10)
ANY_HOST = ("0.0.0.0", "::", "")  # noqa: S104
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServeError(RuntimeError):
    """Why the server cannot start, in words for the console."""


class Child:
    """One supervised process: started again with back-off when it dies; it leaves when its stdin ends."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._stopping = threading.Event()
        self._birth = threading.Lock()  # no child is born after the others were asked to stop
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._spawn()
        threading.Thread(target=self._watch, name=self.name, daemon=True).start()

    def _spawn(self) -> None:
        with self._birth:
            if not self._stopping.is_set():
                # Our own command, made by `serve`.
                self._process = subprocess.Popen(  # nosemgrep: dangerous-subprocess-use-audit
                    self._command, stdin=subprocess.PIPE, env=self._environment
                )

    def _watch(self) -> None:
        deaths = 0
        while self._process is not None:
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            deaths = deaths + 1 if time.monotonic() - began < 30 else 0
            wait = BACKOFF[min(deaths, len(BACKOFF) - 1)]
            log.warning("The %s ended with code %s; starting it again in %s s", self.name, code, wait)
            if self._stopping.wait(wait):
                return
            self._spawn()

    def expect_end(self) -> None:
        """From now on an end is no accident: it is not started again."""
        self._stopping.set()

    def ask_to_stop(self) -> None:
        self.expect_end()
        with self._birth:
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


def prepare(settings: Settings, upgrade: bool = True) -> None:
    """Data folder, schema, sandbox channels. Without `upgrade` a stale schema is refused. Raises ServeError."""
    db.open_database(settings)
    try:
        if upgrade:
            migrations.upgrade()
        else:
            migrations.require_current()
    except migrations.SchemaError as error:
        raise ServeError(str(error)) from error
    if not installation.has_the_key(settings):
        raise ServeError(installation.OTHER_KEY)
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
        server = create_server(
            app,
            host=settings.host,
            port=settings.port,
            map=loop.Lines(),
            threads=THREADS,
            ident=None,
            channel_timeout=60,
            connection_limit=CONNECTIONS,
            max_request_body_size=BODY_MAX,
            expose_tracebacks=False,
            # Whom to believe is decided in one place: ProxyFix, by MOLVA_TRUSTED_PROXIES.
            clear_untrusted_proxy_headers=not settings.trusted_proxies,
        )
    except OSError as error:
        raise ServeError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another port with --port."
        ) from error
    if hasattr(select, "epoll"):  # elsewhere waitress's own does
        server.asyncore = loop
    return server


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


@contextlib.contextmanager
def in_use(settings: Settings) -> Iterator[None]:
    """Keep a restore away while this process runs. Raises ServeError during one."""
    db.make_private(settings.data)
    use = locks.use(settings)
    if use is None:
        raise ServeError(f"The data folder {settings.data} is being restored. Start again when that is done")
    try:
        yield
    finally:
        use.end()


def addresses(settings: Settings, server: Any) -> tuple[str, str]:
    """Where people find the pages, and where this machine reaches them for the sandbox's callbacks."""
    listening = getattr(server, "effective_listen", None) or [(settings.host, server.effective_port)]
    port = listening[0][1]
    host = settings.host if settings.host not in ANY_HOST else "127.0.0.1"
    here = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return settings.base_url.rstrip("/") or here, here


def serve(settings: Settings, with_children: bool = True) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises ServeError."""
    memory.be_modest()
    with only_one(settings) if with_children else contextlib.nullcontext(), in_use(settings):
        prepare(settings, upgrade=with_children)
        server = listen(settings)
        shown, here = addresses(settings, server)
        workers, others = _children(settings, here) if with_children else ([], [])
        _on_signals(workers, others)
        try:
            for child in others:
                child.start()
            _wait_for_sandbox(settings)
            for child in workers:
                child.start()
            announce_setup(shown)
            warn_if_open(settings)
            warn_if_alone(settings)
            print(f"Molva: {here}", flush=True)
            server.run()
        except (SystemExit, KeyboardInterrupt):
            pass
        finally:
            server.close()  # nobody waits for an answer that will not come
            _let_go(workers, others)
    return 0


def _wait_for_sandbox(settings: Settings) -> None:
    """Give the emulator a moment to listen: a broadcast that is due at once should find it there."""
    deadline = time.monotonic() + SANDBOX_PATIENCE
    while sandbox_address.read(settings.data) is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _on_signals(workers: list[Child], others: list[Child]) -> None:
    """The first signal tells the workers and ends the server's loop; further ones change nothing."""

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for other in others:
            other.expect_end()
        for worker in workers:
            worker.ask_to_stop()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)


def _let_go(workers: list[Child], others: list[Child]) -> None:
    """Wait for the workers first: the sandbox still has to answer what is in flight."""
    deadline = time.monotonic() + PATIENCE
    for group in (workers, others):
        for child in group:
            child.ask_to_stop()
        for child in group:
            child.wait(deadline)


def warn_if_open(settings: Settings) -> None:
    """Say it when others can reach this server and nothing encrypts the way."""
    if settings.host not in LOOPBACK and not settings.trusted_proxies:
        log.warning(
            "%s is reachable from other machines without HTTPS. "
            "Put a proxy with a certificate in front and set MOLVA_TRUSTED_PROXIES.",
            settings.host,
        )


def warn_if_alone(settings: Settings) -> None:
    """Say it when the secret key lies on this host alone although other hosts may share the database."""
    if settings.database_url and not settings.secret_key:
        log.warning(  # nosemgrep: python-logger-credential-disclosure (the name of a file)
            "The secret key lies in %s: other hosts on the same database cannot read what it seals. "
            "Set MOLVA_SECRET_KEY to the same value everywhere.",
            settings.data / vault.KEY_FILE,
        )


def _children(settings: Settings, here: str) -> tuple[list[Child], list[Child]]:
    """The workers, and the others."""
    given = environment(settings)
    worker = [sys.executable, "-m", "worker", "--watch-stdin"]
    sandbox = [sys.executable, "-m", "webapp", "sandbox", "--watch-stdin", "--callbacks", here]
    return [Child("worker", worker, given) for _ in range(settings.senders)], [Child("sandbox", sandbox, given)]
