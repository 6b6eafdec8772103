"""The real command against a provider in a process of its own, for the benches of the sender."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import tls
from tests.bench.common import shared
from tests.faults.world import World, phone
from worker import broadcasts, db, tasks
from worker.models import Broadcast
from worker.providers.http import HttpClient

CONNECTIONS = 128
LATENCY = 0.1


@contextmanager
def world(secure: bool = False, connections: int = CONNECTIONS, **environment: str) -> Iterator[World]:
    """An installation whose channel leads to the stub; answers take LATENCY seconds."""
    with tempfile.TemporaryDirectory(prefix="molva-bench-") as folder, shared() as servers:
        certificate = tls.certificate(Path(folder)) if secure else None
        found = World(Path(folder), connections, certificate=certificate, **servers, **environment)
        found.start()
        with db.connection():
            found.control(delay=[LATENCY, LATENCY])
            yield found
        found.close()


def start(found: World, people: int, broadcasts_at_once: int = 2) -> list[Broadcast]:
    """Start so many broadcasts at the highest rate: together they ask for more than any line gives."""
    each = people // broadcasts_at_once
    drafts = [found.draft(each, 60_000, n * each) for n in range(broadcasts_at_once)]
    started = [broadcasts.start(found.settings, draft, "bench") for draft in drafts]
    for one in started:
        tasks.wake(one.id)
    return started


def speed(found: World, skip: float = 2.0) -> float:
    """Accepted messages a second by the provider's log, without the first and the last moments."""
    moments = sorted(facts["mono"] for facts in found.accepted())
    first, last = moments[0] + skip, moments[-1] - 0.5
    inside = [moment for moment in moments if first <= moment <= last]
    return len(inside) / (last - first)


def sent(found: World, left: int = 0, seconds: float = 300) -> None:
    """Wait until no more than `left` people are in the queue or on their way."""
    deadline = time.monotonic() + seconds
    while db.value("SELECT COALESCE(SUM(n), 0) FROM counter WHERE status IN ('queued', 'sending')") > left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still more than {left} after {seconds} s")
        time.sleep(0.05)


def bare(found: World, seconds: float = 8.0) -> float:
    """Requests a second of the same transport and connections in a loop that does nothing else."""
    client = HttpClient(allowed_hosts=("127.0.0.1",))
    url = f"{found.stub_url}/v25.0/1001/messages"
    headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
    template: dict[str, Any] = {"name": "hello", "language": {"policy": "deterministic", "code": "ru"}}
    template["components"] = [{"type": "body", "parameters": [{"type": "text", "text": "Anna"}]}]
    counts = [0] * CONNECTIONS
    end = time.monotonic() + seconds + 1.0

    def loop(n: int) -> None:
        body = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": phone(n), "type": "template"}
        data = json.dumps(body | {"biz_opaque_callback_data": f"{n}.bare", "template": template}).encode()
        while (now := time.monotonic()) < end:
            client.request("POST", url, headers, data)
            if end - seconds <= now:
                counts[n] += 1

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    return sum(counts) / seconds
