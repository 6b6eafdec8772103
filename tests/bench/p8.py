"""P8: callbacks by the second, each signed and on the disk before it is answered, and how fast they are applied."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import threading
import time
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tests import make
from tests.bench.common import TIMES, Result, environment, installation
from worker import channels, clock, counters, db, delivery, vault
from worker.models import Channel, Message
from worker.settings import Settings

LINES = 16  # connections on which the provider calls
SECRET = "a secret of the bench"
NUMBER = "1001"
ROWS = 60_000


def run(big: bool) -> list[Result]:
    rows = 200_000 if big else ROWS
    with installation() as settings:
        channel = whatsapp(settings)
        ids = messages(channel, rows)
        found = [received(settings, channel, ids[n * 10_000 : (n + 1) * 10_000]) for n in range(TIMES)]
        speed, slow = median(one[0] for one in found), median(one[1] for one in found)
        drained = drain(settings, channel, ids)
        return [
            Result(
                "P8 callbacks, one status each",
                f"{speed:,.0f}/s",
                "",
                "",
                "≥ 2,000/s, p99 ≤ 50 ms",
                speed >= 2_000 and slow <= 0.05,
                f"p99 {slow * 1000:.0f} ms on {LINES} connections, the caller on the same two cores",
            ),
            Result("P8 applying them", f"{drained:,.0f}/s", "", "", "≥ 50,000/s", drained >= 50_000, f"{rows:,} rows"),
        ]


def whatsapp(settings: Settings) -> Channel:
    secrets = {"access_token": "t", "app_secret": SECRET, "verify_token": "v"}
    return make.channel(
        kind="waba",
        provider="whatsapp_cloud",
        settings={"phone_number_id": NUMBER, "waba_id": "2001", "base_url": "http://127.0.0.1:9"},
        secrets=vault.seal(settings, secrets),
    )


def messages(channel: Channel, rows: int) -> list[str]:
    """So many messages that were sent; their ids at the provider."""
    broadcast = make.broadcast(channel=channel, state="finished", template_name="hello", template_language="ru")
    file = make.file(broadcast, rows=rows, accepted=rows)
    ids = [f"wamid.{n:032x}" for n in range(rows)]
    now = clock.now()
    with db.write():
        db.many(
            "INSERT INTO message (broadcast_id, run, file_id, line, phone, status, not_before, tries, provider_id,"
            " token, sending_at, sent_at) VALUES (?, 1, ?, ?, ?, 'sent', 0, 0, ?, ?, ?, ?)",
            [(broadcast.id, file.id, n + 2, f"+79{n:09d}", one, f"{n + 1}.ab", now, now) for n, one in enumerate(ids)],
        )
        counters.add({(broadcast.id, 1, file.id, "sent"): rows})
    return ids


def body(identity: str, status: str) -> bytes:
    item = {"id": identity, "status": status, "timestamp": str(clock.now() // 1000), "recipient_id": "79000000001"}
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": NUMBER}, "statuses": [item]}
    entry = [{"id": "2001", "changes": [{"field": "messages", "value": value}]}]
    return json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()


def request(key: str, data: bytes) -> bytes:
    """A whole callback as it stands on the wire."""
    sign = hmac.new(SECRET.encode(), data, hashlib.sha256).hexdigest()
    head = (
        f"POST /hooks/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"X-Hub-Signature-256: sha256={sign}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def received(settings: Settings, channel: Channel, ids: list[str]) -> tuple[float, float]:
    """(callbacks a second, the slowest of a hundred in seconds) at the web server, one at a time per connection."""
    requests = [request(channel.key, body(identity, "delivered")) for identity in ids]
    command = [sys.executable, "-m", "webapp", "web", "--data", str(settings.data), "--port", "0"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(settings)
    )
    try:
        assert server.stdout is not None
        port = urlsplit(next(line.split()[1] for line in server.stdout if line.startswith("Molva: "))).port
        took: list[float] = []
        threads = [threading.Thread(target=_call, args=(port, requests[n::LINES], took)) for n in range(LINES)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        assert len(took) == len(ids)
        return len(ids) / seconds, sorted(took)[len(took) * 99 // 100]
    finally:
        server.terminate()
        server.wait(60)
        if server.stdout is not None:
            server.stdout.close()


def _call(port: int | None, requests: list[bytes], took: list[float]) -> None:
    with socket.create_connection(("127.0.0.1", port or 0), timeout=30) as line:
        for one in requests:
            began = time.perf_counter()
            line.sendall(one)
            answer = line.recv(4096)
            took.append(time.perf_counter() - began)
            assert answer.startswith(b"HTTP/1.1 200"), answer


def drain(settings: Settings, channel: Channel, ids: list[str]) -> float:
    """Stored callbacks that the worker applies in a second."""
    db.execute("DELETE FROM callback")
    Message.update(status="sent", delivered_at=None).execute()
    db.execute("DELETE FROM delivery_report")
    for at in range(0, len(ids), 5_000):
        delivery.receive_all((channel.id, raw(body(identity, "delivered")), 1) for identity in ids[at : at + 5_000])
    providers: Any = channels.Providers(settings)
    began = time.perf_counter()
    while delivery.apply_waiting(providers):
        pass
    seconds = time.perf_counter() - began
    assert db.value("SELECT COUNT(*) FROM message WHERE status = 'delivered'") == len(ids)
    return len(ids) / seconds


def raw(data: bytes) -> delivery.RawCallback:
    return delivery.RawCallback("POST", "", {}, {"content-type": "application/json"}, data)
