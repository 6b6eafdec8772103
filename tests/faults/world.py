"""The product, a provider that is not ours, and a judge who believes only the provider's log."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from tests import make
from tests.product import Product, wait
from worker import broadcasts, channels, clock, db, recipients, tasks
from worker.models import Broadcast, Channel, MessageTemplate, RecipientFile
from worker.settings import Settings

LONG = pytest.mark.long
PATIENT = (pytest.mark.long, pytest.mark.patient)  # long, and most of it is waiting
TEMPLATE = [{"type": "BODY", "text": "Hello {{1}}", "example": {"body_text": [["Anna"]]}}]
SECRETS = {"access_token": "token", "app_secret": "secret", "verify_token": "verify"}
NEVER_LEFT = ("queued", "skipped", "cancelled", "failed")
TAKEN = ("sent", "held", "delivered", "read", "undelivered")
EXPLAINED = ("failed", "uncertain", "undelivered", "skipped")
ACCOUNT = "1001"  # the phone number id of the first channel


EVERYBODY = "everybody"  # what people read instead of their name in some tests


class Row(NamedTuple):
    """What the product believes of one message."""

    phone: str
    status: str
    cause: str | None
    provider_id: str | None
    token: str | None
    row: str | None


def _name(row: Row) -> str:
    return str(json.loads(row.row or "[]")[1])


def _surely_refused(facts: dict[str, Any]) -> bool:
    """Whether the provider said in words that it did not take the message."""
    return facts["kind"] == "refused" and facts["fault"] not in ("hang", "reset", "refuse_500")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class World:
    """One installation whose WhatsApp channels lead to the stub.

    `seed` decides everything that chance decides, here and in the stub; a failure prints it, and
    `pytest --seed N` plays it again.
    """

    def __init__(
        self,
        folder: Path,
        concurrency: int = 8,
        seed: int | None = None,
        certificate: Path | None = None,
        stub: tuple[str, ...] = (),
        address: str = "127.0.0.1",
        **environment: str,
    ) -> None:
        seed = random.SystemRandom().randrange(10**6) if seed is None else seed
        print(f"seed {seed}", file=sys.stderr)
        self.certificate = certificate
        self.address = address  # of the provider
        self.stub_options = (*stub, "--address", address)
        if certificate is not None:
            environment.setdefault("SSL_CERT_FILE", str(certificate))
        self.concurrency = concurrency
        self.seed = seed
        self.chance = random.Random(seed)
        self.truth = folder / "provider.log"
        self.product = Product(
            folder / "data",
            free_port(),
            MOLVA_CONCURRENCY=str(concurrency),
            MOLVA_ALLOWED_PRIVATE_HOSTS=address,
            **environment,
        )
        self.products = [self.product]  # with those of other hosts, whose logs are judged as well
        self.stub_port = 0
        self.stub: subprocess.Popen[str] | None = None
        self._channels: dict[str, int] = {}  # phone number id → channel
        self._uploaded: dict[int, dict[str, str]] = defaultdict(dict)  # broadcast → phone → what that person reads
        self._lines: list[dict[str, Any]] = []  # the provider's log, as far as it was read
        self._read = 0
        self._key = ""

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
        return f"{scheme}://{self.address}:{self.stub_port}"

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the stub may show a certificate that proves nothing
            answer = requests.post(f"{self.stub_url}/_control", json=given, timeout=5, verify=False)
        found: dict[str, Any] = answer.json()
        return found

    def callbacks(self, **plan: Any) -> None:
        """Let the provider report what it took on the first channel."""
        key = Channel.get_by_id(self.channel()).key
        url = f"http://127.0.0.1:{self.settings.port}/hooks/{key}"
        self.control(callbacks={"url": url, "secret": SECRETS["app_secret"], **plan})

    def report_all(self) -> None:
        """Have the provider say that everything it took was delivered, and wait until it is known here."""
        self.callbacks(statuses=["delivered"], delay=[0.0, 0.5])
        self.control(report_all=True)
        wait(lambda: self.control()["callbacks_open"] == 0, 120)
        self._applied()

    def reply(self, person: str, text: str) -> None:
        """Let a person answer by a message of their own, as the vendor would bring it."""
        message = {"from": person[1:], "id": f"wamid.in.{self.chance.getrandbits(64)}", "type": "text"}
        message |= {"timestamp": str(int(time.time())), "text": {"body": text}}
        value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": ACCOUNT}, "messages": [message]}
        body = json.dumps(
            {
                "object": "whatsapp_business_account",
                "entry": [{"id": "2001", "changes": [{"field": "messages", "value": value}]}],
            }
        ).encode()
        sign = hmac.new(SECRETS["app_secret"].encode(), body, hashlib.sha256).hexdigest()
        url = f"{self.product.url}/hooks/{Channel.get_by_id(self.channel()).key}"
        answer = requests.post(url, data=body, headers={"X-Hub-Signature-256": f"sha256={sign}"}, timeout=20)
        assert answer.status_code == 200

    def channel(self, account: str = ACCOUNT) -> int:
        """The channel of one sending account at the stub, made when it is first asked for."""
        if account not in self._channels:
            values = {"phone_number_id": account, "waba_id": "2001", "api_version": "v25.0", **SECRETS}
            values["base_url"] = self.stub_url
            made = channels.create(self.settings, "whatsapp_cloud", f"Stub {account}", values)
            with db.write():
                facts = {"status": "APPROVED", "category": "UTILITY", "parameter_format": "POSITIONAL"}
                MessageTemplate.create(
                    channel=made, name="hello", language="ru", components=TEMPLATE, synced_at=clock.now(), **facts
                )
                Channel.update(templates_synced_at=clock.now()).where(Channel.id == made.id).execute()
            self._channels[account] = made.id
        return self._channels[account]

    def ask(self, method: str, path: str, key: str = "", **given: Any) -> requests.Response:
        """One call of the API, as a sender."""
        if not key:
            key = self._key = self._key or make.token()
        headers = {"Authorization": f"Bearer {key}", "Accept-Language": "en", **given.pop("headers", {})}
        return requests.request(method, f"{self.product.url}/api/v1{path}", headers=headers, timeout=60, **given)

    # --- a broadcast

    def draft(self, people: int, rate: int = 60_000, first: int = 0, account: str = ACCOUNT) -> Broadcast:
        values = {
            "name": "Fault",
            "channel_id": self.channel(account),
            "template": {"name": "hello", "language": "ru"},
            "variables": {"body.1": {"column": "name"}},
            "rate_per_minute": rate,
        }
        broadcast = broadcasts.create(self.settings, values, "test")
        self.upload(broadcast, people, first)
        return Broadcast.get_by_id(broadcast.id)

    def upload(self, broadcast: Broadcast, people: int, first: int = 0) -> RecipientFile:
        self._uploaded[broadcast.id] |= {phone(n): f"P{n}" for n in range(first, first + people)}
        lines = "\n".join(f"{phone(n)},P{n}" for n in range(first, first + people))
        file = recipients.receive(
            broadcast, io.BytesIO(f"phone,name\n{lines}\n".encode()), "a.csv", self.settings.uploads, {}, "test"
        )
        tasks.read_file(file.id)
        wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 30)
        return file

    def broadcast(self, people: int, rate: int = 60_000, first: int = 0, account: str = ACCOUNT) -> Broadcast:
        """A started broadcast to made-up people."""
        started = broadcasts.start(self.settings, self.draft(people, rate, first, account), "test")
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

    def log(self) -> list[dict[str, Any]]:
        """Every line of the provider's log: one for each request that it has read."""
        if self.truth.exists():
            with self.truth.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    self._read += len(line)
                    self._lines.append(json.loads(line))
        return self._lines

    def accepted(self) -> list[dict[str, Any]]:
        """Every message that the provider took."""
        return [facts for facts in self.log() if facts["kind"] == "accepted"]

    def settled(self, broadcast: Broadcast, seconds: float = 60) -> None:
        """Wait until every delivery report is on its row."""

        def quiet() -> bool:
            numbers = self.numbers(broadcast)
            return numbers["sent"] + numbers["sending"] == 0 and self.control()["callbacks_open"] == 0

        wait(quiet, seconds)
        self._applied()

    @staticmethod
    def _applied(seconds: float = 60) -> None:
        """Wait until every callback that was stored is applied."""
        wait(lambda: not db.value("SELECT 1 FROM callback WHERE processed_at IS NULL LIMIT 1"), seconds)

    def why(self, broadcast: Broadcast) -> str:
        """Why it does not move, as the API tells; empty while it moves."""
        return str(self.ask("GET", f"/broadcasts/{broadcast.id}").json()["waiting"] or "")

    def in_flight_stored(self, *started: Broadcast, seconds: float = 45) -> None:
        """Wait until nothing is on its way any more."""
        wait(lambda: all(self.numbers(one)["sending"] == 0 for one in started), seconds)

    def judge(self, *judged: Broadcast) -> dict[str, int]:
        """lost 0, dup 0, lies 0: the tables and the exported report against the provider's log, row by row.

        `judged` are all the broadcasts that have sent anything, at rest; the numbers of them together.
        """
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for facts in self.log():
            found[facts["phone"]].append(facts)
        # A second request is a second message, but for those that the provider surely refused.
        repeated = {phone: [f for f in facts if not _surely_refused(f)] for phone, facts in found.items()}
        assert [facts for facts in repeated.values() if len(facts) > 1] == []
        taken = {facts["phone"]: facts for facts in self.accepted()}
        numbers: Counter[str] = Counter()
        for broadcast in judged:
            rows = self._rows(broadcast)
            state = self.fresh(broadcast).state
            # Nobody lost: the rows are the people of the files, whatever became of them.
            assert sorted(row.phone for row in rows) == sorted(self._uploaded[broadcast.id])
            counted = Counter(row.status for row in rows)
            assert {s: n for s, n in self.numbers(broadcast).items() if n and s != "total"} == dict(counted)
            assert not counted["sending"] or state == "running"
            assert not counted["queued"] or state != "finished"
            lies = [(row, taken.get(row.phone)) for row in rows if not self._is_true(row, taken.get(row.phone))]
            assert lies == []
            if self.product.process is not None:
                self._judge_report(broadcast, rows)
            numbers.update(counted)
        assert set(found) <= {person for broadcast in judged for person in self._uploaded[broadcast.id]}
        assert db.is_shared() or db.value("PRAGMA integrity_check") == "ok"
        for product in self.products:
            said = product.log.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"(?<!\d)790\d{8}(?!\d)", said) and "Traceback" not in said, said[-2000:]
        return defaultdict(int, numbers)

    @staticmethod
    def _rows(broadcast: Broadcast) -> list[Row]:
        return [
            Row(*row)
            for row in db.rows(
                "SELECT phone, status, cause, provider_id, token, row FROM message WHERE broadcast_id = ?",
                [broadcast.id],
            )
        ]

    @staticmethod
    def _is_true(row: Row, taken: dict[str, Any] | None) -> bool:
        """Whether a row says what the provider's log says."""
        if row.status in NEVER_LEFT and taken is not None:
            return False
        if row.status in TAKEN and (taken is None or taken["id"] != row.provider_id):
            return False
        if taken is not None and (taken["token"] != row.token or taken["text"] not in (_name(row), EVERYBODY)):
            return False
        return bool(row.cause) or row.status not in EXPLAINED

    def _judge_report(self, broadcast: Broadcast, rows: list[Row]) -> None:
        """F50: what a person downloads says the same of everybody, and explains it."""
        answer = self.ask("GET", f"/broadcasts/{broadcast.id}/report.csv?run=all")
        assert answer.status_code == 200
        lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
        said = sorted((line["phone"].lstrip("'"), line["status"], line["provider_id"]) for line in lines)
        assert said == sorted((row.phone, row.status, row.provider_id or "") for row in rows)
        assert all(line["cause"] for line in lines if line["status"] in EXPLAINED)

    def worker_pid(self) -> int:
        """The process that sends."""
        found = db.rows("SELECT pid FROM worker ORDER BY id DESC LIMIT 1")
        return int(found[0][0])

    def worker_peak(self) -> float:
        """The most memory that the sending process has had so far, MB."""
        status = Path(f"/proc/{self.worker_pid()}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

    def signal_worker(self, number: int) -> None:
        os.kill(self.worker_pid(), number)

    def moments(self, account: str = "") -> list[float]:
        """When the provider accepted what it has (of one account), on the monotonic clock, in order."""
        return sorted(facts["mono"] for facts in self.accepted() if account in ("", facts["account"]))

    def most_in(self, seconds: float, account: str = "") -> int:
        """The most messages in any window of that length in the provider's log."""
        moments = self.moments(account)
        most = first = 0
        for last, moment in enumerate(moments):
            while moment - moments[first] >= seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def rate_windows(self, account: str = "") -> tuple[int, float]:
        """The most messages in any 60 s of the provider's log, and messages per minute over all of it."""
        moments = self.moments(account)
        return self.most_in(60, account), (len(moments) - 1) / (moments[-1] - moments[0]) * 60


def phone(n: int) -> str:
    return f"+7901{n:07d}"


def sleep(seconds: float) -> None:
    """Real time: what is tested here is what happens, or does not, while it passes."""
    time.sleep(seconds)


STOP, CONTINUE, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL
