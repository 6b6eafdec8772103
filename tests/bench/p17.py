"""P17: two worker processes against one, while cores are free: a slow provider, few connections."""

from __future__ import annotations

from tests.bench import engine
from tests.bench.common import Result, apart, middle

CONNECTIONS = 24
SECONDS = 15


def product(workers: int) -> float:
    people = int(workers * CONNECTIONS / engine.LATENCY) * SECONDS
    with engine.world(connections=CONNECTIONS, MOLVA_SENDERS=str(workers)) as world:
        engine.start(world, people)
        engine.sent(world)
        return engine.speed(world)


def run(big: bool) -> list[Result]:
    one, two = (middle(lambda n=n: apart(product, n)) for n in (1, 2))  # type: ignore[misc]
    note = f"{CONNECTIONS} connections each, the provider answers in {engine.LATENCY * 1000:.0f} ms"
    return [
        Result(
            "P17 two workers",
            f"{two:,.0f} sends/s",
            f"{one:,.0f}/s",
            f"{two / one:.2f}",
            "≥ 1.7",
            two >= 1.7 * one,
            note,
        )
    ]
