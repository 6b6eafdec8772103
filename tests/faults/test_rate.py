"""F33, F36, F22: the typed rate is the real rate, at the provider, through kills, pauses and other clocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.world import World, sleep
from tests.product import wait
from worker import broadcasts, db, tasks
from worker.models import Channel

pytestmark = pytest.mark.faults
MakeWorld = Callable[..., World]


def most_in(world: World, seconds: float) -> int:
    """The most messages in any window of that length in the provider's log."""
    moments = sorted(facts["mono"] for facts in world.accepted())
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_no_window_is_too_full_through_a_kill_and_a_pause(world: World) -> None:
    broadcast = world.broadcast(400, 1_200)  # twenty a second
    wait(lambda: len(world.accepted()) > 60, 30)
    world.product.kill()
    world.product.start()
    wait(lambda: len(world.accepted()) > 120, 30)
    world.press(broadcast, "stop")
    sleep(1.5)
    world.press(broadcast, "resume")
    wait(lambda: len(world.accepted()) > 180, 30)
    assert most_in(world, 3) <= 60 + 1  # 20 a second; the edge of a window may fall between two
    world.press(broadcast, "stop")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    world.judge(broadcast)


@pytest.mark.long
@pytest.mark.parametrize(
    ("rate", "concurrency", "seconds"), [(60, 8, 200), (600, 8, 150), (6_000, 32, 130), (60_000, 128, 75)]
)
def test_f36_the_rate_is_kept(make_world: MakeWorld, rate: int, concurrency: int, seconds: int) -> None:
    world = make_world(concurrency=concurrency)
    world.control(delay=[0.05, 0.1])
    world.broadcast(rate * seconds // 60 + 10, rate)
    wait(lambda: len(world.accepted()) >= rate * seconds // 60, seconds * 1.3)
    most, average = world.rate_windows()
    assert most <= rate and average >= 0.98 * rate, (most, average)


@pytest.mark.long
@pytest.mark.parametrize(("rate", "kills"), [(60, 6), (600, 6), (6_000, 6)])
def test_f36_no_kill_makes_it_faster(make_world: MakeWorld, rate: int, kills: int) -> None:
    world = make_world(concurrency=16)
    world.control(delay=[0.02, 0.05])
    broadcast = world.broadcast(rate * 3, rate)
    for n in range(1, kills + 1):
        wait(lambda n=n: len(world.accepted()) >= n * rate * 2 // (kills + 1), 200)  # type: ignore[misc]
        world.product.kill()
        world.product.start()
    wait(lambda: len(world.accepted()) >= rate * 2, 200)
    most, _average = world.rate_windows()
    assert most <= rate
    world.press(broadcast, "stop")


@pytest.mark.long
@pytest.mark.parametrize("hours", [2, -2])
def test_f33_another_clock_after_a_restart_neither_bursts_nor_stalls(make_world: MakeWorld, hours: int) -> None:
    world = make_world(PYTHONPATH=str(Path(__file__).parent / "traps"))
    world.control(delay=[0.01, 0.03])
    broadcast = world.broadcast(3_000, 600)
    wait(lambda: len(world.accepted()) > 100, 60)
    assert world.product.stop() == 0
    world.product.environment |= {"CLOCK_SHIFT": str(hours * 3_600)}
    world.product.start()
    before = len(world.accepted())
    wait(lambda: len(world.accepted()) > before + 100, 60)
    assert most_in(world, 6) <= 61
    world.press(broadcast, "stop")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    assert world.judge(broadcast)["uncertain"] == 0


@pytest.mark.long
def test_f22_two_workers_share_the_rate_and_nobody_is_reached_twice(make_world: MakeWorld) -> None:
    world = make_world(concurrency=8, MOLVA_SENDERS="2")
    world.control(delay=[0.02, 0.1])
    broadcast = world.broadcast(2_400, 1_200)
    wait(lambda: len(world.accepted()) >= 2_200, 150)
    most, average = world.rate_windows()
    assert most <= 1_200 and average >= 0.98 * 1_200
    owners = {row[0] for row in db.rows("SELECT pid FROM worker")}
    assert len(owners) >= 2
    world.press(broadcast, "stop")
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 10)
    world.judge(broadcast)


@pytest.mark.long
def test_two_broadcasts_on_one_channel_share_its_pace_fairly(make_world: MakeWorld) -> None:
    world = make_world(concurrency=16)
    world.control(delay=[0.02, 0.05])
    Channel.update(per_second=20).where(Channel.id == world.channel()).execute()
    drafts = [world.draft(1_500, 6_000, first) for first in (0, 2_000)]
    for draft in drafts:
        tasks.wake(broadcasts.start(world.settings, draft, "test").id)
    wait(lambda: len(world.accepted()) >= 1_400, 120)
    most, average = world.rate_windows()
    assert most <= 1_200 and average >= 0.97 * 1_200
    sent = [world.numbers(draft)["sent"] for draft in drafts]
    assert abs(sent[0] - sent[1]) <= 0.1 * sum(sent)
    for draft in drafts:
        world.press(draft, "stop")
    wait(lambda: all(world.numbers(draft)["sending"] == 0 for draft in drafts), 10)
    assert db.value("SELECT SUM(n) FROM departure") == len(world.accepted())
