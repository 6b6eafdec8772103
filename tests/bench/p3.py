"""P3: two answers of a hundred take 1.5 s; nothing waits for them."""

from __future__ import annotations

from tests.bench import engine
from tests.bench.common import Result, apart, middle

SHARE, TAIL = 0.02, 1.5


def product() -> float:
    people = 10_000
    with engine.world() as world:
        world.control(rules=[{"fault": "slow", "share": SHARE, "seconds": TAIL}])
        engine.start(world, people)
        engine.sent(world)
        return engine.speed(world)


def run(big: bool) -> list[Result]:
    ideal = engine.CONNECTIONS / (engine.LATENCY + SHARE * TAIL)
    ours = middle(lambda: apart(product))
    ratio = ours / ideal
    shown = (f"{ours:,.0f} sends/s", f"{ideal:,.0f}/s connections ÷ mean latency", f"{ratio:.2f}")
    return [Result("P3", *shown, "≥ 0.65", ratio >= 0.65, "2 % of the answers take 1.5 s")]
