"""An installation as other programs see it: webhooks, metrics and the log of a real server that sends."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.journeys.conftest import Caller
from tests.product import Product, wait
from tests.providers.stub import Stub, answer

pytestmark = pytest.mark.journey

CANARIES = [f"+7916{n:07d}" for n in range(5_550_001, 5_550_021)]
REPLIES, FAILS, ODD = "+79000001009", "+79000001004", "+79000001007"  # special numbers of the sandbox


@pytest.fixture
def receiver() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


@pytest.fixture
def product(tmp_path: Path, receiver: Stub) -> Iterator[Product]:
    allowed = f"127.0.0.1:{receiver.port}"
    found = Product(tmp_path / "data", MOLVA_LOG="json", MOLVA_ALLOWED_PRIVATE_HOSTS=allowed)
    found.start()
    yield found
    assert found.stop() == 0


def told(receiver: Stub, event: str) -> list[dict[str, Any]]:
    """What one kind of event said, each event once whatever was repeated."""
    found = {request.json["id"]: request.json for request in receiver.requests if request.json["type"] == event}
    return list(found.values())


def test_a_broadcast_as_another_program_sees_it(product: Product, receiver: Stub) -> None:
    caller = Caller(product, role="admin")
    receiver.script = [answer(500)]  # the first try fails
    events = ["broadcast.finished", "broadcast.stopped", "message.status", "message.inbound"]
    hook = caller.call("POST", "/webhooks", 201, json={"url": f"{receiver.url}/in", "events": events})
    number = caller.draft("sandbox_sms", text="Hi")
    people = [*CANARIES, REPLIES, FAILS, ODD]
    caller.upload(number, "\n".join(people).encode())
    caller.press(number, "start")
    caller.finished(number, 60, completed=True)

    # Everything that was to be told arrives, whatever failed on the way.
    def statuses() -> dict[str, str]:
        return {m["phone"]: m["status"] for e in told(receiver, "message.status") for m in e["data"]["messages"]}

    wait(lambda: len(statuses()) == len(people) and len(told(receiver, "message.inbound")) > 0, 40)
    wait(lambda: len(told(receiver, "broadcast.finished")) == 1, 20)
    assert {statuses()[phone] for phone in CANARIES} == {"delivered"} and statuses()[FAILS] == "undelivered"
    replies = [m for e in told(receiver, "message.inbound") for m in e["data"]["messages"]]
    assert {reply["phone"] for reply in replies} == {REPLIES}
    finished = told(receiver, "broadcast.finished")[0]["data"]["broadcast"]
    assert (finished["id"], finished["counters"]["total"]) == (number, len(people))
    for request in receiver.requests:
        said = request.headers["molva-timestamp"].encode() + b"." + request.body
        expected = hmac.new(hook["secret"].encode(), said, hashlib.sha256).hexdigest()
        assert request.headers["molva-signature"] == f"v1={expected}"
    log = caller.call("GET", f"/webhooks/{hook['id']}/deliveries")["items"]
    assert log[-1]["http_status"] == 500 and log[-1]["event_id"] in [line["event_id"] for line in log[:-1]]

    # The numbers add up.
    def sent() -> float:
        page = requests.get(f"{product.url}/metrics", headers=caller.session.headers, timeout=10).text
        return sum(float(n) for n in re.findall(r"molva_send_seconds_count\{[^}]*\} (\S+)", page))

    wait(lambda: sent() == len(people), 10)

    assert product.process is not None
    # A worker that was killed is in the log, and the next one goes on telling.
    pid = int(
        subprocess.run(
            ["pgrep", "-P", str(product.process.pid), "-f", "worker --watch-stdin"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    os.kill(pid, signal.SIGKILL)
    again = caller.draft("sandbox_sms", text="Hi")
    caller.upload(again, CANARIES[0].encode())
    caller.press(again, "start")
    wait(lambda: len(told(receiver, "broadcast.finished")) == 2, 60)

    # What strangers bring to the log stays one line of it, and nobody's number is in it.
    url = f"{product.url}/hooks/{CANARIES[0]}%0d%0aERROR"
    assert requests.post(url, data=CANARIES[0], params={"phone": CANARIES[1]}, timeout=10).status_code == 404
    requests.get(f"{product.url}/broadcasts?name={CANARIES[2]}", timeout=10)
    caller.call("POST", "/phones/parse", 422, json={"phones": CANARIES[:1], "region": CANARIES[1]})
    assert product.stop() == 0
    lines = product.log.read_text(encoding="utf-8").splitlines()
    for line in lines:
        event = json.loads(line)
        assert {"time", "level", "logger", "message", "request_id"} <= set(event), line
    assert any("The worker ended with code -9" in line for line in lines)
    whole = "\n".join(lines)
    for phone in people:
        assert phone[1:] not in whole and phone[2:] not in whole
