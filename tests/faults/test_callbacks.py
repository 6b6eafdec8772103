"""F21, F23, F35: callbacks while the database is locked, twenty starts at once, a start that was missed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests import make
from tests.faults.world import LONG, PATIENT
from tests.product import Product, wait
from worker import broadcasts, channels, clock, db, recipients, tasks
from worker.models import Audit, Broadcast, Callback, Channel, RecipientFile, Run
from worker.providers import sandbox_address, sandbox_sms

pytestmark = pytest.mark.faults

HOLD = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
database.execute("ROLLBACK")
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    found = Product(tmp_path_factory.mktemp("callbacks") / "data")
    found.start()
    db.open_database(found.settings)
    with db.connection():
        tasks.configure(found.settings)
        yield found
    found.stop()
    db.close()


def draft(product: Product, name: str, people: int, send_at: int | None = None) -> Broadcast:
    values = {"name": name, "channel_id": sms().id, "text": "Hi", "rate_per_minute": 60_000, "send_at": send_at}
    made = broadcasts.create(product.settings, values, "test")
    lines = "\n".join(f"+7901{made.id:02d}{n:05d}" for n in range(people))
    file = recipients.receive(
        made, io.BytesIO(f"phone\n{lines}".encode()), "a.csv", product.settings.uploads, {}, "test"
    )
    tasks.read_file(file.id)
    wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 20)
    return Broadcast.get_by_id(made.id)


def sms() -> Channel:
    return Channel.get(Channel.provider == "sandbox_sms")


def finished(broadcast: Broadcast) -> bool:
    return Broadcast.get_by_id(broadcast.id).state == "finished"


def taken(product: Product, broadcast: Broadcast) -> int:
    """How many messages of this broadcast the sandbox took."""
    return sum(facts["phone"].startswith(f"+7901{broadcast.id:02d}") for facts in product.accepted())


def soon(product: Product, **delays: tuple[float, float]) -> None:
    """Have the sandbox report sooner."""
    key = channels.all_settings(product.settings, sms())["token"]
    address = sandbox_address.read(product.settings.data)
    answer = requests.post(f"{address}/_control", json=delays, headers={"Authorization": f"Bearer {key}"}, timeout=5)
    assert answer.status_code == 200


def test_f23_start_pressed_twenty_times_at_once_is_one_run(product: Product) -> None:
    broadcast = draft(product, "Twenty", 30)
    url, key = f"{product.url}/api/v1/broadcasts/{broadcast.id}/start", make.token()
    gate = threading.Barrier(20)

    def press(_n: int) -> int:
        gate.wait(10)
        return requests.post(url, headers={"Authorization": f"Bearer {key}"}, timeout=20).status_code

    with ThreadPoolExecutor(20) as browsers:
        answers = sorted(browsers.map(press, range(20)))
    assert answers == [200] + [409] * 19
    wait(lambda: finished(broadcast), 20)
    assert Run.select().where(Run.broadcast == broadcast.id).count() == 1
    assert Audit.select().where(Audit.action == "broadcast.start", Audit.subject == str(broadcast.id)).count() == 1
    assert taken(product, broadcast) == 30
    product.judge(broadcast)


@pytest.mark.parametrize("seconds", [pytest.param(4, marks=LONG), pytest.param(20, marks=PATIENT)])
def test_f21_no_callback_is_lost_while_a_foreign_program_locks_the_database(product: Product, seconds: int) -> None:
    soon(product, sent=(0.3, 0.5), delivered=(0.5, 1.0))
    broadcast = draft(product, f"Locked {seconds}", 40)
    broadcasts.start(product.settings, broadcast, "test")
    tasks.wake(broadcast.id)
    wait(lambda: taken(product, broadcast) == 40, 20)
    bodies = [
        json.dumps({"id": f"foreign-{seconds}-{n}", "status": "delivered", "time": 5}).encode() for n in range(24)
    ]
    channel = sms()
    secret = channels.all_settings(product.settings, channel)["secret"]
    answers: list[int] = []

    def call(body: bytes) -> None:
        """As a provider does: again until it is answered with 200."""
        headers = {"X-Sandbox-Signature": sandbox_sms.signature(secret, body)}
        while True:
            began = time.monotonic()
            answer = requests.post(
                f"{product.url}/hooks/{channel.key}/status", data=body, headers=headers, timeout=20
            ).status_code
            assert answer in (200, 503) and time.monotonic() - began < 20
            answers.append(answer)
            if answer == 200:
                return
            time.sleep(0.5)

    command = [sys.executable, "-c", HOLD, str(product.settings.database_path), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreign, ThreadPoolExecutor(24) as calls:
        assert foreign.stdout is not None and foreign.stdout.readline() == "locked\n"
        waiting = [calls.submit(call, body) for body in bodies]
        time.sleep(1.5)
        began = time.monotonic()
        requests.get(f"{product.url}/login", timeout=10)
        assert time.monotonic() - began < 3  # people are served meanwhile
        for one in waiting:
            one.result(30)
    assert 503 in answers and answers.count(200) == 24
    stored = {bytes(row.body) for row in Callback.select(Callback.body)}
    assert stored >= set(bodies)
    wait(lambda: product.numbers(broadcast)["delivered"] == 40, 20)
    product.judge(broadcast)


@pytest.mark.long
def test_f35_a_start_missed_by_minutes_is_late_and_one_missed_by_hours_is_not_made(product: Product) -> None:
    ahead = clock.now() + clock.HOUR
    late, missed = draft(product, "Late", 5, ahead), draft(product, "Missed", 5, ahead)
    for broadcast in (late, missed):
        assert broadcasts.start(product.settings, broadcast, "test").state == "scheduled"
    assert product.stop() == 0
    for broadcast, minutes in ((late, 5), (missed, 180)):
        due = clock.now() - minutes * clock.MINUTE
        Broadcast.update(send_at=due).where(Broadcast.id == broadcast.id).execute()
    product.start()
    wait(lambda: finished(late), 20)
    assert taken(product, late) == 5
    product.judge(late)
    key = {"Authorization": f"Bearer {make.token()}", "Accept-Language": "en"}
    shown = requests.get(f"{product.url}/api/v1/broadcasts/{late.id}", headers=key, timeout=5).json()
    assert shown["late_text"] == "Started 5 minutes after the set time"
    found = Broadcast.get_by_id(missed.id)
    assert (found.state, found.stop_reason) == ("stopped", "missed")
    assert taken(product, missed) == 0
    shown = requests.get(f"{product.url}/api/v1/broadcasts/{missed.id}", headers=key, timeout=5).json()
    assert shown["stop_text"] == "Stopped: the server was down at the start time"
    assert shown["counters"]["queued"] == 5 and "resume" in shown["allowed_actions"]
