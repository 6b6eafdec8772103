"""P2: sustained sends a second, durable, over HTTP and over HTTPS."""

from __future__ import annotations

from tests.bench import engine
from tests.bench.common import Result, apart

BAR = 1_000


def product(secure: bool, seconds: int) -> float:
    people = 1_150 * seconds
    with engine.world(secure=secure) as world:
        engine.start(world, people)
        engine.sent(world)
        return engine.speed(world)


def run(big: bool) -> list[Result]:
    seconds = 60 if big else 15
    found = [(name, apart(product, secure, seconds)) for name, secure in (("P2 HTTP", False), ("P2 HTTPS", True))]
    note = f"for about {seconds} s, two broadcasts on one channel"
    return [Result(name, f"{n:,.0f} sends/s", "", "", f"≥ {BAR:,}", n >= BAR, note) for name, n in found]
