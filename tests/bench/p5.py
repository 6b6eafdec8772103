"""P5: from the click on Start to the first request at the provider, whatever the size of the list."""

from __future__ import annotations

import time
from statistics import median

import requests

from tests import make
from tests.bench import engine
from tests.bench.common import TIMES, Result, apart
from worker import broadcasts

BAR = 0.5


def product(people: int) -> float:
    with engine.world() as world:
        headers = {"Authorization": f"Bearer {make.token('sender')}"}
        waits = []
        for n in range(TIMES):
            draft = world.draft(people, 6_000, n * people)
            before = len(world.accepted())
            clicked = time.monotonic()
            url = f"{world.product.url}/api/v1/broadcasts/{draft.id}/start"
            requests.post(url, headers=headers, timeout=10).raise_for_status()
            while len(world.accepted()) == before:
                time.sleep(0.002)
            waits.append(world.accepted()[before]["mono"] - clicked)
            broadcasts.clear(world.fresh(draft), "bench")
            time.sleep(1)
        return median(waits)


def run(big: bool) -> list[Result]:
    found = [(people, apart(product, people)) for people in (10, 200_000)]
    return [
        Result("P5", f"{wait:.2f} s", "", "", f"≤ {BAR} s", wait <= BAR, f"a list of {people:,}")
        for people, wait in found
    ]
