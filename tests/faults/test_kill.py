"""kill -9 and SIGTERM in mid-broadcast, with the real command and the sandbox's own log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, wait
from worker import db
from worker.models import Broadcast

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    found = Product(tmp_path / "data")
    found.start()
    db.open_database(found.settings)
    with db.connection():
        yield found
    if found.process is not None:
        found.stop()


def test_after_kill_9_it_goes_on_by_itself_and_nobody_gets_it_twice(product: Product) -> None:
    broadcast = product.broadcast("sandbox_sms", 400, 6_000)
    for left in (300, 200):
        wait(lambda left=left: product.numbers(broadcast)["queued"] <= left, 30)  # type: ignore[misc]
        product.kill()
        product.start()
    wait(lambda: Broadcast.get_by_id(broadcast.id).state == "finished", 60)
    # The sandbox remembers what it took, so its reports settle all but what never left.
    wait(lambda: product.numbers(broadcast)["sent"] == 0, 40)
    numbers = product.numbers(broadcast)
    assert numbers["total"] == 400
    assert numbers["delivered"] + numbers["uncertain"] == 400
    assert numbers["uncertain"] <= 2 * product.settings.concurrency
    product.judge(broadcast)


def test_killed_in_a_canary_it_sends_to_nobody_beyond_it(product: Product) -> None:
    broadcast = product.broadcast("sandbox_sms", 300, 600, first=60)
    for sent in (15, 35):
        wait(lambda sent=sent: len(product.accepted()) >= sent, 30)  # type: ignore[misc]
        product.kill()
        product.start()
    wait(lambda: Broadcast.get_by_id(broadcast.id).state == "stopped", 60)
    assert Broadcast.get_by_id(broadcast.id).stop_reason == "canary"
    assert product.numbers(broadcast)["queued"] == 240 and len(product.accepted()) <= 60
    product.judge(broadcast)


def test_sigterm_stores_what_is_in_flight_and_leaves_nothing_uncertain(product: Product) -> None:
    broadcast = product.broadcast("sandbox_sms", 300, 6_000)
    wait(lambda: product.numbers(broadcast)["queued"] <= 200, 30)
    assert product.stop() == 0
    numbers = product.numbers(broadcast)
    assert (numbers["uncertain"], numbers["sending"]) == (0, 0)
    assert numbers["queued"] > 0
    product.start()
    wait(lambda: Broadcast.get_by_id(broadcast.id).state == "finished", 60)
    product.judge(broadcast)
