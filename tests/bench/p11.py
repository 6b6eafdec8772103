"""P11: messages in any 60 s at the provider, and the share of the typed rate, through a kill and two workers."""

from __future__ import annotations

import time

from tests.bench import engine
from tests.bench.common import Result, apart

SHARE = 0.98


def plain(rate: int, seconds: int) -> tuple[int, float]:
    with engine.world(connections=32 if rate < 60_000 else 128) as world:
        world.broadcast(rate * seconds // 60 + 5, rate)
        _until(world, rate * seconds // 60, seconds)
        return world.rate_windows()


def shaken(rate: int, seconds: int) -> tuple[int, float]:
    """Two workers, and the whole group killed in the middle: never faster, whatever it costs."""
    with engine.world(connections=32, MOLVA_SENDERS="2") as world:
        world.broadcast(rate * seconds // 60 + 5, rate)
        _until(world, rate * seconds // 120, seconds)
        world.product.kill()
        world.product.start()
        _until(world, rate * seconds // 60 - 100, seconds)
        return world.rate_windows()


def _until(world: engine.World, messages: int, seconds: int) -> None:
    deadline = time.monotonic() + 1.5 * seconds + 30
    while len(world.accepted()) < messages and time.monotonic() < deadline:
        time.sleep(0.5)


def run(big: bool) -> list[Result]:
    results = []
    for rate, seconds in ((60, 600 if big else 130), (600, 600 if big else 80), (6_000, 80), (60_000, 70)):
        most, average = apart(plain, rate, seconds)
        met = most <= rate and average >= SHARE * rate
        shown = (f"most in 60 s: {most:,}", "", f"{average / rate:.3f}")
        results.append(Result(f"P11 {rate:,}/min", *shown, "≤ N; ≥ 0.98", met, f"{seconds} s"))
    most, _average = apart(shaken, 6_000, 90)
    note = "two workers, the whole group killed in the middle"
    results.append(Result("P11 shaken", f"most in 60 s: {most:,}", "", "", "≤ 6,000", most <= 6_000, note))
    return results
