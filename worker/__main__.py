"""The worker process: Huey's consumer, the sender, the callbacks, and the tick that needs no nudge."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from worker import (
    attachments,
    broadcasts,
    clock,
    confirmations,
    counters,
    db,
    delivery,
    direct,
    installation,
    locks,
    logs,
    memory,
    migrations,
    recipients,
    repeats,
    retention,
    settings,
    tasks,
    undo,
    webhooks,
)
from worker.models import RecipientFile
from worker.models import Worker as WorkerRow
from worker.sender import Sender

log = logging.getLogger("molva.worker")

TICK = 1.0
RECOVER_EVERY = 30.0
BEAT_EVERY = 3.0  # from a thread of its own: no import or copy may make a living worker look dead
DRAIN_PAUSE = 0.2
ASK_AGAIN = 600.0
SAY_AGAIN = 60.0  # seconds until the log hears once more of a storage that still fails
CHECK_EVERY = 3_600.0
CLOCK_MAX = 2 * clock.SECOND  # leases and the rate of several machines need one time
CLOCK = "This machine's clock is %+.1f s off that of the database's machine: let both follow one time server"
RETAIN_EVERY = 3_600.0


class WorkerProcess:
    """Everything that runs beside the web server; made once per process."""

    def __init__(self, options: settings.Settings) -> None:
        self.settings = options
        self.stopping = threading.Event()
        with db.connection():
            delivery.recover(options)  # before this process has an id, so that no row can be its own
            direct.tend()
            self.owner = self._register()
        self.sender = Sender(options, self.owner)
        # The same objects that send: a line is one connection for both ways.
        self.providers = self.sender.providers
        self.courier = webhooks.Courier(options, self.stopping.is_set)
        tasks.configure(options, self.owner, self.sender.wake)
        self._threads = [
            threading.Thread(target=self._loop, args=(name, step, pause), name=name, daemon=True)
            for name, step, pause in (
                ("heartbeat", self._beat, BEAT_EVERY),
                ("tick", self._tick, TICK),
                ("callbacks", self._callbacks, DRAIN_PAUSE),
                ("lines", self.sender.lines.keep, TICK),
                ("leftovers", self._leftovers, TICK),
                ("templates", self._templates, TICK),
                *((f"attachments {n}", self._attachments, TICK) for n in (1, 2)),  # one may be slow
                ("counters", self._check_counters, TICK),
                ("webhooks", self.courier.step, TICK),
                ("retention", self._retain, TICK),
            )
        ]
        self._recovered = self._checked = clock.monotonic()
        self._strays = retention.Strays(options)
        self._retained = clock.monotonic() - RETAIN_EVERY
        self._join_at = 0.0
        self._asked: dict[int, tuple[float, float]] = {}  # channel → when to ask again, the pause after that

    def _register(self) -> int:
        now = clock.now()
        with db.write():
            row = WorkerRow.create(pid=os.getpid(), host=self._host(), started_at=now, heartbeat_at=now)
        self._lock = locks.hold_worker(self.settings, row.id)
        return int(row.id)

    def _host(self) -> str:
        return locks.place(self.settings.data) if db.is_shared() else socket.gethostname()

    def start(self) -> None:
        self.sender.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Nothing new leaves; what is in flight is stored."""
        self.stopping.set()
        self.sender.stop()
        for thread in self._threads:
            thread.join(5)
        self.courier.close()
        with db.connection(), db.write():
            self.sender.latency.flush()
            WorkerRow.update(heartbeat_at=0).where(WorkerRow.id == self.owner).execute()
        self._lock.close()
        locks.worker_file(self.settings, self.owner).unlink(missing_ok=True)

    def _loop(self, name: str, step: Callable[[], None], pause: float) -> None:
        told, quiet_until = None, 0.0
        while not self.stopping.is_set():
            found = None
            try:
                with db.connection():
                    step()
            except Exception as error:
                found = db.trouble(error)
                if found is None:
                    log.exception("%s failed", name)
                elif found is not told or clock.monotonic() > quiet_until:
                    log.error("%s failed: the storage is %s", name, found.value)
                    quiet_until = clock.monotonic() + SAY_AGAIN
            told = found
            self.stopping.wait(pause)

    def _beat(self) -> None:
        with db.write():
            delivery.heartbeat(self.owner)
            self.sender.latency.flush()

    def _tick(self) -> None:
        now = clock.monotonic()
        if broadcasts.start_due():
            self.sender.wake()
        if confirmations.send_due(self.settings):
            self.sender.wake()
        if now - self._recovered > RECOVER_EVERY:
            self._recovered = now
            direct.tend()
            delivery.recover(self.settings, self.owner, self.sender.owned())
            undo.go_on()
            broadcasts.sweep_removed()
            retention.forget_removed(self.settings, clock.now() - undo.KEPT)
            self._forget()
            self.sender.wake()

    def _templates(self) -> None:
        """Fetch the templates of channels that have none yet, ever more rarely while that fails."""
        for (channel_id,) in db.rows(
            "SELECT id FROM channel WHERE kind = 'waba' AND state <> 'deleted' AND templates_synced_at IS NULL"
        ):
            due, pause = self._asked.get(channel_id, (0.0, TICK))
            if clock.monotonic() < due:
                continue
            self._asked[channel_id] = (clock.monotonic() + pause, min(2 * pause, ASK_AGAIN))
            try:
                tasks.run_sync_templates(channel_id)
            except Exception:
                log.exception("channel %d: the templates cannot be fetched", channel_id)

    def _attachments(self) -> None:
        while attachments.fetch_due(self.settings, self.providers) and not self.stopping.is_set():
            pass

    def _check_counters(self) -> None:
        if clock.monotonic() - self._checked > CHECK_EVERY:
            self._checked = clock.monotonic()
            counters.check(clock.now() - clock.DAY)

    def _forget(self) -> None:
        """Raw callbacks live for days after they were applied, reports of unknown messages for 72 hours."""
        delivery.forget_orphans()
        delivery.join_late_parts()
        delivery.forget_parts()
        repeats.forget()
        webhooks.forget()
        with db.write():
            db.execute(
                "DELETE FROM callback WHERE id IN (SELECT id FROM callback WHERE processed_at < ? LIMIT 5000)",
                [clock.now() - retention.callback_days() * clock.DAY],
            )

    def _retain(self) -> None:
        """What has had its time, once an hour; freed pages are wiped when nothing is being sent."""
        if clock.monotonic() - self._retained > RETAIN_EVERY:
            self._retained = clock.monotonic()
            retention.run(self.settings, lambda: not self.stopping.is_set())
            self._strays.forget()
        retention.vacuum()

    def _callbacks(self) -> None:
        while delivery.apply_waiting(self.providers) and not self.stopping.is_set():
            pass
        began = clock.monotonic()
        if began >= self._join_at:
            delivery.join_orphans()
            # Reports of another program on the same account stay unknown for days: a twentieth of the time.
            self._join_at = clock.monotonic() + 20 * (clock.monotonic() - began)

    def _leftovers(self) -> None:
        """Work whose nudge was lost, or whose worker died: taken up by anyone after a moment."""
        for (broadcast_id,) in db.rows(
            "SELECT r.broadcast_id FROM run r JOIN broadcast b ON b.id = r.broadcast_id AND b.run = r.number"
            " WHERE NOT r.copied AND r.started_at < ?",
            [clock.now() - 10 * clock.SECOND],
        ):
            broadcasts.copy_run(broadcast_id)
        for file in (
            RecipientFile.select()
            .where((RecipientFile.state == "checking") & RecipientFile.removed_at.is_null())
            .order_by(RecipientFile.id)
            .limit(10)
        ):
            orphaned = file.owner not in (None, self.owner) and delivery.is_gone(self.settings, file.owner)
            forgotten = file.owner is None and file.created_at < clock.now() - 5 * clock.SECOND
            if orphaned or forgotten or recipients.waits(file.id):
                tasks.run_read_file(file.id)


def run(options: settings.Settings, watch_stdin: bool = False) -> int:
    """Run until SIGTERM, SIGINT or (with `watch_stdin`) the end of stdin; the exit code."""
    db.make_private(options.data)
    use = locks.use(options)
    if use is None:
        log.error("The data folder %s is being restored. Start again when that is done", options.data)
        return 1
    try:
        return _run(options, watch_stdin)
    finally:
        use.end()


def _run(options: settings.Settings, watch_stdin: bool) -> int:
    db.open_database(options)
    try:
        migrations.require_current()
    except migrations.SchemaError as error:
        log.error("%s", error)
        return 1
    if abs(ahead := db.clock_ahead()) > CLOCK_MAX:
        log.error(CLOCK, ahead / 1000)
        return 1
    if not installation.has_the_key(options):
        log.error(installation.OTHER_KEY)  # nosemgrep: python-logger-credential-disclosure (the name of a setting)
        return 1
    stopping = threading.Event()
    process = WorkerProcess(options)
    consumer = tasks.huey.create_consumer(
        workers=3,
        worker_type="thread",
        initial_delay=0.02,
        backoff=1.1,
        max_delay=0.1,
        scheduler_interval=1,
        periodic=False,
        graceful_signal="TERM",
        shutdown_timeout=5,
    )
    consumer.start()  # installs its own signal handlers; ours replace them
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    # Ctrl-C reaches the whole group: under `serve` it decides, alone this process does.
    signal.signal(signal.SIGINT, signal.SIG_IGN if watch_stdin else lambda *_: stopping.set())
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if watch_stdin:
        threading.Thread(target=_wait_for_parent, args=(stopping,), daemon=True).start()
    process.start()
    while not stopping.wait(5) and process.sender.alive:
        consumer.check_worker_health()
    failed = not process.sender.alive
    process.stop()
    consumer.stop(graceful=True)
    return 1 if failed else 0  # serve starts another one


def _wait_for_parent(stopping: threading.Event) -> None:
    os.read(0, 1)  # the end of stdin: serve closed it, or died
    stopping.set()


def main() -> int:
    options = settings.from_env(os.environ)
    logs.configure(options)
    memory.be_modest()
    return run(options, "--watch-stdin" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
