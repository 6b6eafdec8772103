"""P15: the inbox with 20,000 conversations beside a broadcast of a million messages, while the product sends."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from statistics import quantiles
from typing import Any

from tests import people
from tests.bench import engine
from tests.bench.common import TIMES, Result, fill
from webapp import create_app
from worker import broadcasts, channels, clock, db, direct, tasks
from worker.models import Channel, Conversation
from worker.settings import Settings

MESSAGES, PEOPLE, EACH, LONG = 1_000_000, 20_000, 5, 1_000
ROUNDS = 20
RATE = 15_000  # messages a minute that leave meanwhile
WORDS = [
    "Здравствуйте",
    "подскажите",
    "пожалуйста",
    "когда",
    "будет",
    "готов",
    "мой",
    "заказ",
    "номер",
    "сколько",
    "стоит",
    "доставка",
    "спасибо",
    "до",
    "завтра",
]
POLL = {"HX-Request": "true"}


def run(big: bool) -> list[Result]:
    with engine.world() as found:
        settings = found.settings
        channel = channels.ensure_sandbox(settings)[1]
        file = fill(MESSAGES, ["phone", "name", "city"], state="finished", channel=channel, text="Hello, {{ name }}")
        _talk(channel, file.broadcast_id)
        _answer(settings, channel)
        app = create_app(settings)
        people.person("admin", "admin-bench@example.org")
        browser = people.signed_in(app, people.person("sender", "bench@example.org"))
        sending = found.draft(RATE, RATE, 0)
        broadcasts.start(settings, sending, "bench")
        tasks.wake(sending.id)
        results = [_measured(browser, name, url) for name, url in _addresses(file.broadcast_id).items()]
        left = broadcasts.count(sending, 1)["queued"]
        return [
            *results,
            Result("P15 left to send at the end", f"{left:,}", "", "", f"> 0 at {RATE // 60}/s", left > 0),
        ]


def _talk(channel: Channel, broadcast: int) -> None:
    """People who wrote a few messages each, the first of them very many."""
    chance, now = random.Random(1), clock.now()

    def said() -> Iterator[tuple[Any, ...]]:
        for n in range(PEOPLE):
            for k in range(LONG if n == 0 else EACH):
                at = now - (PEOPLE - n) * 1_000 - (LONG - k) * 10
                text = " ".join(chance.choices(WORDS, k=8))
                yield channel.id, f"in-{n}-{k}", _phone(n), text, broadcast, at, at, n + 1

    with db.write():
        db.many(
            "INSERT INTO inbound (channel_id, provider_id, phone, kind, text, broadcast_id, at, received_at,"
            " conversation_id) VALUES (?, ?, ?, 'text', ?, ?, ?, ?, ?)",
            list(said()),
        )
        db.execute(
            "INSERT INTO conversation (id, channel_id, phone, name, state, unread, broadcast_id, last_in_at, last_at,"
            " last_text, last_direction, created_at) SELECT conversation_id, channel_id, phone, 'Человек ' || phone,"
            " CASE conversation_id % 4 WHEN 0 THEN 'closed' ELSE 'open' END, conversation_id % 10 = 0, broadcast_id,"
            " MAX(at), MAX(at), text, 'in', MIN(at) FROM inbound GROUP BY conversation_id"
        )


def _answer(settings: Settings, channel: Channel) -> None:
    """An answer in every tenth conversation."""
    with db.write():
        for row in list(Conversation.select().where(Conversation.id % 10 == 1)):
            direct.send(settings, channel, row.phone, kind="answer", actor="anna", text="Да", conversation_id=row.id)


def _phone(n: int) -> str:
    return f"+79{n * 50:09d}"


def _addresses(broadcast: int) -> dict[str, str]:
    (middle,) = (
        Conversation.select().where(Conversation.state == "open").order_by(Conversation.last_at).offset(9_000).limit(1)
    )
    return {
        "list": "/inbox/list",
        "list, all": "/inbox/list?view=all",
        "list, closed": "/inbox/list?view=closed",
        "list, unread": "/inbox/list?view=new",
        "list, mine (nobody)": "/inbox/list?view=mine",
        "list, page in the middle": f"/inbox/list?after={middle.last_at}.{middle.id}",
        "list, a broadcast": f"/inbox/list?view=all&broadcast={broadcast}",
        "list, another broadcast": f"/inbox/list?view=all&broadcast={broadcast + 1}",
        "search, many found": "/inbox/list?view=all&q=доставка",
        "search, nobody found": "/inbox/list?view=all&q=нигде",
        "search, a number": f"/inbox/list?view=all&q={_phone(123)[3:]}",
        "open a conversation": f"/inbox/{PEOPLE}",
        "open a long one": "/inbox/1",
        "look again": f"/inbox/{PEOPLE}/talk",
        "number in the menu": "/inbox/unread",
    }


def _measured(browser: people.Browser, name: str, url: str) -> Result:
    took = []
    for _ in range(ROUNDS * TIMES):
        began = time.perf_counter()
        answer = browser.get(url, headers=POLL if "/list" in url or "/talk" in url else {})
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200 and ("after" not in url or answer.text.count("data-conversation") == 30), url
    p95 = quantiles(took, n=20)[-1]
    note = f"median {sorted(took)[len(took) // 2]:.0f} ms"
    return Result(f"P15 {name}", f"{p95:.0f} ms p95", "", "", "≤ 200 ms", p95 <= 200, note)
