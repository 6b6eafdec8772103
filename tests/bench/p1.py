"""P1: claim, request, durable status and counters, against a bare loop of the same transport."""

from __future__ import annotations

from statistics import median

from tests.bench import engine
from tests.bench.common import TIMES, Result, apart


def floor() -> float:
    with engine.world() as world:
        return engine.bare(world)


def product() -> float:
    people = 12_000
    with engine.world() as world:
        engine.start(world, people)
        engine.sent(world)
        return engine.speed(world)


def run(big: bool) -> list[Result]:
    pairs = [(apart(product), apart(floor)) for _ in range(TIMES)]
    ratio = median(ours / bare for ours, bare in pairs)
    ours, bare = median(p[0] for p in pairs), median(p[1] for p in pairs)
    shown = (f"{ours:,.0f} sends/s", f"{bare:,.0f}/s bare loop", f"{ratio:.2f}")
    return [Result("P1", *shown, "≥ 0.80", ratio >= 0.80, "128 connections, the provider answers in 100 ms")]
