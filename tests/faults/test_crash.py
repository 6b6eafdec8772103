"""F01-F05, F24-F26, F37: killed, stopped and frozen in mid-broadcast; judged by the provider's own log."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.world import CONTINUE, KILL, STOP, World, sleep
from tests.product import wait
from worker import broadcasts, db, recipients, tasks
from worker.models import RecipientFile
from worker.settings import Settings

pytestmark = pytest.mark.faults
MakeWorld = Callable[..., World]


def killed(world: World, people: int, kills: int) -> None:
    """Kill the whole group at random, again and again; each start goes on by itself."""
    chance = random.Random(world.seed)
    broadcast = world.broadcast(people)
    step = people // (kills + 1)
    for n in range(1, kills + 1):
        world.left(broadcast, people - n * step + chance.randrange(step // 2))
        world.product.kill()
        before = len(world.accepted())
        world.product.start()
        wait(lambda before=before: len(world.accepted()) > before, 60)  # type: ignore[misc]
    world.state(broadcast, "finished", 300)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == people
    assert numbers["uncertain"] <= kills * world.concurrency
    explained = db.value("SELECT COUNT(*) FROM message WHERE status = 'uncertain' AND cause = 'worker_lost'")
    assert explained == numbers["uncertain"]


def test_f01_three_kills_lose_nobody_and_reach_nobody_twice(world: World) -> None:
    killed(world, 600, 3)


@pytest.mark.long
def test_f01_twenty_kills_over_ten_thousand(world: World) -> None:
    killed(world, 10_000, 20)


@pytest.mark.long
def test_f02_twenty_kills_and_a_provider_with_faults(world: World) -> None:
    people, kills = 10_000, 20
    rules = [{"fault": fault, "share": 0.005} for fault in ("accept_500", "accept_reset", "accept_hang")]
    world.control(rules=rules)
    chance = random.Random(world.seed)
    broadcast = world.broadcast(people)
    for n in range(1, kills + 1):
        world.left(broadcast, people - n * people // (kills + 2) + chance.randrange(100), 200)
        world.product.kill()
        world.product.start()
    world.control(rules=[])
    world.state(broadcast, "finished", 400)
    numbers = world.judge(broadcast)
    injected = sum(bool(facts["fault"]) for facts in world.accepted())
    assert numbers["sent"] + numbers["uncertain"] == people
    assert numbers["uncertain"] <= kills * world.concurrency + injected


@pytest.mark.parametrize("point", ["after_claim", "after_answer"])
def test_f03_killed_at_a_named_point(make_world: MakeWorld, point: str) -> None:
    traps = str(Path(__file__).parent / "traps")
    world = make_world(PYTHONPATH=traps, TRAP=point, TRAP_AFTER="60")
    world.control(delay=[0.02, 0.05])
    broadcast = world.broadcast(300)
    # The trap kills the worker; its supervisor starts another one, and the trap is used up.
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    log = {facts["phone"] for facts in world.accepted()}
    lost = db.rows("SELECT phone, sending_at FROM message WHERE status = 'uncertain'")
    assert 1 <= len(lost) <= world.concurrency
    if point == "after_claim":
        last = max(moment for _, moment in lost)
        assert all(phone not in log for phone, moment in lost if moment == last)  # no byte of them had left
    else:
        assert any(phone in log for phone, _ in lost)
    assert numbers["sent"] + numbers["uncertain"] == 300


@pytest.mark.long
def test_f04_only_the_worker_dies_and_the_pages_stay(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.signal_worker(KILL)
    import requests

    assert requests.get(f"{world.product.url}/login", timeout=5).status_code == 200
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= world.concurrency


def test_f05_sigterm_stores_what_is_in_flight(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    assert world.product.stop() == 0
    taken = len(world.accepted())
    numbers = world.judge(broadcast)
    assert (numbers["uncertain"], numbers["sending"]) == (0, 0) and numbers["queued"] > 0
    sleep(0.5)
    assert len(world.accepted()) == taken
    world.product.start()
    world.state(broadcast, "finished")
    assert world.judge(broadcast)["sent"] == 400


def stop_and_resume(world: World, people: int, times: int) -> None:
    chance = random.Random(world.seed)
    broadcast = world.broadcast(people)
    for n in range(1, times + 1):
        world.left(broadcast, people - n * people // (times + 2) + chance.randrange(20))
        world.press(broadcast, "stop")
        seen = len(world.accepted())
        sleep(0.3)
        assert len(world.accepted()) <= seen + world.concurrency
        wait(lambda: world.numbers(broadcast)["sending"] == 0, 40)
        world.press(broadcast, "resume")
    world.state(broadcast, "finished", 120)
    assert world.judge(broadcast)["sent"] == people


def test_f24_stop_and_resume_at_random(world: World) -> None:
    stop_and_resume(world, 500, 5)


@pytest.mark.long
def test_f24_stop_and_resume_fifty_times(world: World) -> None:
    stop_and_resume(world, 5_000, 50)


def test_f25_stopped_stays_stopped_after_a_kill(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.press(broadcast, "stop")
    world.product.kill()
    seen = len(world.accepted())
    world.product.start()
    sleep(2)
    assert (world.fresh(broadcast).state, len(world.accepted())) == ("stopped", seen)
    world.judge(broadcast)


@pytest.mark.long
def test_f26_clear_in_the_middle(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.press(broadcast, "clear")
    seen = len(world.accepted())
    sleep(1)
    assert len(world.accepted()) <= seen + world.concurrency
    wait(lambda: world.numbers(broadcast)["sending"] == 0, 40)
    numbers = world.judge(broadcast)
    assert world.fresh(broadcast).state == "draft"
    assert numbers["cancelled"] == 400 - numbers["sent"] and numbers["queued"] == 0
    with pytest.raises(broadcasts.NotAllowed):
        world.press(broadcast, "resume")


def frozen(world: World, seconds: float) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.signal_worker(STOP)
    taken = len(world.accepted())
    sleep(seconds)
    assert len(world.accepted()) <= taken + world.concurrency
    world.signal_worker(CONTINUE)
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 400


def test_f37_a_frozen_worker_sends_nothing_it_claimed_before(world: World) -> None:
    frozen(world, 6)


@pytest.mark.long
def test_f37_frozen_for_three_leases(world: World) -> None:
    frozen(world, 190)


def test_f06_every_commit_of_every_connection_is_on_the_disk(settings: Settings, database: Settings) -> None:
    """A power cut cannot be played; the settings that survive one can be looked at."""
    found: list[tuple[object, ...]] = []

    def look() -> None:
        with db.connection():
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            found.append(tuple(db.value(f"PRAGMA {name}") for name in names))

    look()
    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert len(found) == 2
    for mode, synchronous, foreign_keys, busy in found:
        assert (mode, synchronous, foreign_keys) == ("wal", 2, 1) and int(str(busy)) >= 5_000


@pytest.mark.long
def test_f48_a_worker_that_dies_in_an_import_starts_it_over(world: World) -> None:
    sending = world.broadcast(3_000, 6_000)
    big = world.draft(5)
    people = 400_000
    lines = b"phone,name\n" + b"".join(b"+7902%07d,X\n" % n for n in range(people))
    file = recipients.receive(big, io.BytesIO(lines), "big.csv", world.settings.uploads, {}, "test")
    tasks.read_file(file.id)
    wait(lambda: RecipientFile.get_by_id(file.id).done > 1_000_000, 30)
    world.signal_worker(KILL)
    wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 120)
    assert RecipientFile.get_by_id(file.id).accepted == people
    assert world.numbers(big)["queued"] == people + 5
    world.state(sending, "finished", 120)
    assert world.judge(sending)["uncertain"] <= world.concurrency
