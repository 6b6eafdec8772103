"""kill -9 and SIGTERM in mid-broadcast, with the real command and the sandbox's own log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import Product, wait
from worker import db, direct, tasks
from worker.models import Broadcast, Channel

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


def test_answers_to_people_leave_once_whatever_is_killed(product: Product) -> None:
    broadcast = product.broadcast("sandbox_sms", 400, 6_000)
    channel = Channel.get(Channel.provider == "sandbox_sms")
    phones = [f"+7902{n:07d}" for n in range(120)]
    for n, phone in enumerate(phones):
        for _press in range(2):  # a double click
            direct.send(
                product.settings, channel, phone, kind=direct.ANSWER, actor="test", text=f"Answer {n}", form_token=phone
            )
        tasks.wake(0)
        if n in (30, 60, 90):
            wait(lambda n=n: len(product.accepted()) > n, 30)  # type: ignore[misc]
            product.kill()
            product.start()
    own = Broadcast.get(Broadcast.kind == direct.DIRECT)
    wait(lambda: {Broadcast.get_by_id(one.id).state for one in (broadcast, own)} == {"finished"}, 60)
    wait(lambda: product.numbers(own)["sent"] == 0, 40)
    assert product.numbers(own)["total"] == len(phones)
    product.judge(own)
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
