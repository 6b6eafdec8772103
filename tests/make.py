"""Plain factories: the smallest thing that is real. Every one takes the columns that matter to the test."""

from __future__ import annotations

import itertools
from typing import Any

from worker import clock, people
from worker.models import Broadcast, Channel, Counter, Message, RecipientFile, Run, Worker

_numbers = itertools.count(1)


def token(role: str = "sender", name: str = "") -> str:
    """An API token."""
    return people.create_token(name or f"test {role}", role, actor="test")


def worker(**columns: Any) -> Worker:
    """A living worker."""
    now = clock.now()
    return Worker.create(**{"pid": 1, "host": "test", "started_at": now, "heartbeat_at": now, **columns})


def channel(**columns: Any) -> Channel:
    """A channel of the SMS sandbox."""
    n = next(_numbers)
    defaults = {"key": f"key{n}", "kind": "sms", "provider": "sandbox_sms", "name": f"Channel {n}"}
    return Channel.create(**{**defaults, "created_at": clock.now(), **columns})


def broadcast(**columns: Any) -> Broadcast:
    """A draft with a text and its first run."""
    n, now = next(_numbers), clock.now()
    defaults = {
        "name": f"Broadcast {n}",
        "text": "Hello",
        "region": "RU",
        "rate_per_minute": 600,
        "timezone": "Europe/Moscow",
        "created_at": now,
        "updated_at": now,
    }
    if "channel" not in columns:
        columns["channel"] = channel()
    made = Broadcast.create(**{**defaults, **columns})
    Run.create(broadcast=made, number=made.run)
    return made


def file(broadcast: Broadcast, **columns: Any) -> RecipientFile:
    """A checked file."""
    n = next(_numbers)
    defaults = {"role": "main", "name": f"list{n}.csv", "size": 100, "sha256": f"{n:064x}", "state": "ready"}
    defaults |= {"columns": ["phone"], "phone_column": "phone", "encoding": "utf-8", "delimiter": ";"}
    return RecipientFile.create(**{"broadcast": broadcast, **defaults, "created_at": clock.now(), **columns})


def messages(file: RecipientFile, *statuses: str, **columns: Any) -> list[Message]:
    """One message for each status, with the counters that belong to them."""
    made = []
    broadcast = file.broadcast
    for line, status in enumerate(statuses, Message.select().where(Message.file_id == file.id).count() + 2):
        defaults = {"broadcast_id": broadcast.id, "run": broadcast.run, "file_id": file.id, "line": line}
        phone = f"+7900{next(_numbers):07d}"
        made.append(Message.create(**{**defaults, "phone": phone, "status": status, **columns}))
        key = (broadcast.id, broadcast.run, file.id, status)
        same = (
            (Counter.broadcast_id == key[0])
            & (Counter.run == key[1])
            & (Counter.file_id == key[2])
            & (Counter.status == key[3])
        )
        if not Counter.update(n=Counter.n + 1).where(same).execute():
            Counter.insert(broadcast_id=key[0], run=key[1], file_id=key[2], status=key[3], n=1).execute()
    return made
