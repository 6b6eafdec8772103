"""The product, a provider that is not ours, and a judge who believes only the provider's log."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests

from tests.product import Product, wait
from worker import broadcasts, channels, clock, db, recipients, tasks
from worker.models import Broadcast, Channel, Message, MessageTemplate, RecipientFile
from worker.settings import Settings

TEMPLATE = [{"type": "BODY", "text": "Hello {{1}}", "example": {"body_text": [["Anna"]]}}]
SECRETS = {"access_token": "token", "app_secret": "secret", "verify_token": "verify"}
NEVER_LEFT = ("queued", "skipped", "cancelled", "failed")
TAKEN = ("sent", "held", "delivered", "read", "undelivered")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """One installation with one WhatsApp channel that leads to the stub."""

    def __init__(
        self,
        folder: Path,
        concurrency: int = 8,
        seed: int = 1,
        certificate: Path | None = None,
        stub: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        print(f"seed {seed}", file=sys.stderr)
        self.certificate = certificate
        self.stub_options = stub
        if certificate is not None:
            environment |= {"SSL_CERT_FILE": str(certificate)}
        self.concurrency = concurrency
        self.seed = seed
        self.truth = folder / "provider.log"
        self.product = Product(
            folder / "data",
            free_port(),
            MOLVA_CONCURRENCY=str(concurrency),
            MOLVA_ALLOWED_PRIVATE_HOSTS="127.0.0.1",
            **environment,
        )
        self.stub_port = 0
        self.stub: subprocess.Popen[str] | None = None
        self.channel_id = 0

    @property
    def settings(self) -> Settings:
        return self.product.settings

    # --- life

    def start(self) -> None:
        self.start_stub()
        self.product.start()
        db.open_database(self.settings)
        tasks.configure(self.settings)

    def start_stub(self) -> None:
        command = [sys.executable, "-m", "tests.stub", "--log", str(self.truth), "--port", str(self.stub_port)]
        self.stub = subprocess.Popen(
            [*command, "--seed", str(self.seed), *self.stub_options, *self._tls()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self.stub.stdout is not None
        self.stub_port = int(self.stub.stdout.readline())

    def _tls(self) -> list[str]:
        return ["--certificate", str(self.certificate)] if self.certificate is not None else []

    @property
    def stub_url(self) -> str:
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self.stub_port}"

    def stop_stub(self) -> None:
        if self.stub is not None:
            self.stub.kill()
            self.stub.wait()
            if self.stub.stdout is not None:
                self.stub.stdout.close()
            self.stub = None

    def close(self) -> None:
        if self.product.process is not None:
            self.product.stop()
        self.stop_stub()
        db.close()

    def control(self, **given: Any) -> dict[str, Any]:
        """Tell the provider what goes wrong from now on."""
        verify = str(self.certificate) if self.certificate is not None else True
        answer = requests.post(f"{self.stub_url}/_control", json=given, timeout=5, verify=verify)
        found: dict[str, Any] = answer.json()
        return found

    def callbacks(self, **plan: Any) -> None:
        """Let the provider report what it took."""
        key = Channel.get_by_id(self.channel()).key
        url = f"http://127.0.0.1:{self.settings.port}/hooks/{key}"
        self.control(callbacks={"url": url, "secret": SECRETS["app_secret"], **plan})

    def channel(self) -> int:
        if not self.channel_id:
            values = {"phone_number_id": "1001", "waba_id": "2001", "api_version": "v25.0", **SECRETS}
            values["base_url"] = self.stub_url
            made = channels.create(self.settings, "whatsapp_cloud", "Stub", values)
            with db.write():
                facts = {"status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL"}
                MessageTemplate.create(
                    channel=made, name="hello", language="ru", components=TEMPLATE, synced_at=clock.now(), **facts
                )
                Channel.update(templates_synced_at=clock.now()).where(Channel.id == made.id).execute()
            self.channel_id = made.id
        return self.channel_id

    # --- a broadcast

    def draft(self, people: int, rate: int = 60_000, first: int = 0) -> Broadcast:
        values = {
            "name": "Fault",
            "channel_id": self.channel(),
            "template": {"name": "hello", "language": "ru"},
            "variables": {"body.1": {"column": "name"}},
            "rate_per_minute": rate,
        }
        broadcast = broadcasts.create(self.settings, values, "test")
        self.upload(broadcast, people, first)
        return Broadcast.get_by_id(broadcast.id)

    def upload(self, broadcast: Broadcast, people: int, first: int = 0) -> RecipientFile:
        import io

        lines = "\n".join(f"{phone(n)},P{n}" for n in range(first, first + people))
        file = recipients.receive(
            broadcast, io.BytesIO(f"phone,name\n{lines}\n".encode()), "a.csv", self.settings.uploads, {}, "test"
        )
        tasks.read_file(file.id)
        wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 30)
        return file

    def broadcast(self, people: int, rate: int = 60_000) -> Broadcast:
        """A started broadcast to made-up people."""
        started = broadcasts.start(self.settings, self.draft(people, rate), "test")
        tasks.wake(started.id)
        return started

    def press(self, broadcast: Broadcast, action: str) -> Broadcast:
        deed = {"stop": broadcasts.stop, "resume": broadcasts.resume, "clear": broadcasts.clear}[action]
        changed = deed(Broadcast.get_by_id(broadcast.id), "test")
        tasks.wake(broadcast.id)
        return changed

    # --- looking

    def fresh(self, broadcast: Broadcast) -> Broadcast:
        return Broadcast.get_by_id(broadcast.id)

    def numbers(self, broadcast: Broadcast) -> dict[str, int]:
        found = broadcasts.count(broadcast, None)
        assert found["total"] == sum(n for status, n in found.items() if status != "total")
        return found

    def state(self, broadcast: Broadcast, state: str, seconds: float = 60) -> None:
        wait(lambda: self.fresh(broadcast).state == state, seconds)

    def left(self, broadcast: Broadcast, queued: int, seconds: float = 60) -> None:
        """Wait until no more than `queued` messages stand in the queue."""
        wait(lambda: self.numbers(broadcast)["queued"] <= queued, seconds)

    def accepted(self) -> list[dict[str, Any]]:
        found = []
        for line in self.truth.read_text(encoding="utf-8").splitlines() if self.truth.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # the last line of a stub that was killed
        return found

    def settled(self, broadcast: Broadcast, seconds: float = 60) -> None:
        """Wait until every delivery report is on its row."""

        def quiet() -> bool:
            numbers = self.numbers(broadcast)
            return numbers["sent"] + numbers["sending"] == 0 and self.control()["callbacks_open"] == 0

        wait(quiet, seconds)

    def judge(self, broadcast: Broadcast) -> dict[str, int]:
        """lost 0, dup 0, lies 0: the tables against the provider's log, row by row; the numbers."""
        log = Counter(facts["phone"] for facts in self.accepted())
        assert [phone for phone, n in log.items() if n > 1] == []
        rows = db.rows("SELECT phone, status FROM message WHERE broadcast_id = ?", [broadcast.id])
        assert len({phone for phone, _ in rows}) == len(rows)
        lies = [(phone, status) for phone, status in rows if status in TAKEN and phone not in log]
        lies += [(phone, status) for phone, status in rows if status in NEVER_LEFT and phone in log]
        assert lies == []
        assert set(log) <= {phone for phone, _ in rows}
        by_rows = Counter(status for _, status in rows)
        numbers = self.numbers(broadcast)
        assert {s: n for s, n in numbers.items() if n and s != "total"} == dict(by_rows)
        assert db.value("PRAGMA integrity_check") == "ok"
        assert (
            Message.select().where(Message.status == "sending").count() == 0 or self.fresh(broadcast).state == "running"
        )
        log_text = self.product.log.read_text(encoding="utf-8", errors="replace")
        assert "+7901" not in log_text and "Traceback" not in log_text, log_text[-2000:]
        return numbers

    def worker_pid(self) -> int:
        """The process that sends."""
        found = db.rows("SELECT pid FROM worker ORDER BY id DESC LIMIT 1")
        return int(found[0][0])

    def signal_worker(self, number: int) -> None:
        os.kill(self.worker_pid(), number)

    def rate_windows(self) -> tuple[int, float]:
        """The most messages in any 60 s of the provider's log, and messages per minute over all of it."""
        moments = sorted(facts["mono"] for facts in self.accepted())
        most, first = 0, 0
        for last, moment in enumerate(moments):
            while moment - moments[first] >= 60:
                first += 1
            most = max(most, last - first + 1)
        span = moments[-1] - moments[0]
        return most, (len(moments) - 1) / span * 60


def phone(n: int) -> str:
    return f"+7901{n:07d}"


def sleep(seconds: float) -> None:
    """Real time: what is tested here is what happens, or does not, while it passes."""
    time.sleep(seconds)


STOP, CONTINUE, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL
