"""P11: messages in any 60 s at the provider, and the share of the typed rate, through a kill and two workers."""

from __future__ import annotations

import time

from tests.bench import engine
from tests.bench.common import Result, apart

SHARE = 0.98


ACCOUNTS = {60: "1001", 600: "1002", 6_000: "1003"}


def together(seconds: int) -> dict[int, tuple[int, float]]:
    """Three rates on three channels at once: the numbers of each."""
    with engine.world(connections=64) as world:
        for n, (rate, account) in enumerate(ACCOUNTS.items()):
            world.broadcast(rate * seconds // 60 + rate // 10 + 5, rate, n * 100_000, account)
        time.sleep(seconds)
        return {rate: world.rate_windows(account) for rate, account in ACCOUNTS.items()}


def fastest(seconds: int) -> tuple[int, float]:
    """The highest rate there is, alone."""
    rate = 60_000
    with engine.world() as world:
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
    long = 600 if big else 130
    found = {**apart(together, long), 60_000: apart(fastest, 70)}
    for rate, (most, average) in found.items():
        met = most <= rate and average >= SHARE * rate
        shown = (f"most in 60 s: {most:,}", "", f"{average / rate:.3f}")
        note = "70 s" if rate == 60_000 else f"{long} s, three rates on three channels at once"
        results.append(Result(f"P11 {rate:,}/min", *shown, "≤ N; ≥ 0.98", met, note))
    most, _average = apart(shaken, 6_000, 90)
    note = "two workers, the whole group killed in the middle"
    results.append(Result("P11 shaken", f"most in 60 s: {most:,}", "", "", "≤ 6,000", most <= 6_000, note))
    return results
