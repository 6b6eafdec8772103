"""F01-F05, F24-F26, F37: killed, stopped and frozen in mid-broadcast; judged by the provider's own log."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.faults.world import CONTINUE, KILL, PATIENT, STOP, World, sleep
from tests.product import wait
from worker import db, recipients, tasks
from worker.models import RecipientFile
from worker.settings import Settings

pytestmark = pytest.mark.faults
MakeWorld = Callable[..., World]
TRAPS = str(Path(__file__).parent / "traps")


def killed(world: World, people: int, kills: int, settled: int) -> None:
    """Kill the whole group at random, again and again; each start goes on by itself, and reports settle the rest."""
    broadcast = world.broadcast(people)
    step = people // (kills + 1)
    slowest = 0.0
    for n in range(1, kills + 1):
        world.left(broadcast, people - n * step + world.chance.randrange(step // 2))
        world.product.kill()
        before = len(world.accepted())
        began = time.monotonic()
        world.product.start()
        wait(lambda before=before: len(world.accepted()) > before, 60)  # type: ignore[misc]
        slowest = max(slowest, time.monotonic() - began)
    world.state(broadcast, "finished", 300)
    numbers = world.judge(broadcast)
    uncertain = numbers["uncertain"]
    assert numbers["sent"] + uncertain == people
    assert uncertain <= kills * world.concurrency
    explained = db.value("SELECT COUNT(*) FROM message WHERE status = 'uncertain' AND cause = 'worker_lost'")
    assert explained == uncertain
    world.report_all()
    numbers = world.judge(broadcast)
    print(f"{kills} kills, {uncertain} uncertain, {numbers['uncertain']} after reports, back after {slowest:.1f} s")
    # Only those whose request never left cannot be settled.
    assert numbers["delivered"] == len(world.accepted())
    assert numbers["delivered"] + numbers["uncertain"] == people
    assert numbers["uncertain"] <= settled


def test_f01_three_kills_lose_nobody_and_reach_nobody_twice(world: World) -> None:
    killed(world, 300, 3, settled=2 * world.concurrency)


@pytest.mark.long
def test_f01_twenty_kills_over_ten_thousand(world: World) -> None:
    killed(world, 10_000, 20, settled=2 * world.concurrency)


@pytest.mark.long
def test_f02_twenty_kills_and_a_provider_with_faults(world: World) -> None:
    people, kills = 10_000, 20
    rules = [{"fault": fault, "share": 0.005} for fault in ("accept_500", "accept_reset", "accept_hang")]
    world.control(rules=rules)
    broadcast = world.broadcast(people)
    for n in range(1, kills + 1):
        world.left(broadcast, people - n * people // (kills + 2) + world.chance.randrange(100), 200)
        world.product.kill()
        world.product.start()
    world.control(rules=[])
    world.state(broadcast, "finished", 400)
    numbers = world.judge(broadcast)
    injected = sum(world.control()["injected"].values())
    assert injected > 50
    assert numbers["sent"] + numbers["uncertain"] == people
    assert numbers["uncertain"] <= kills * world.concurrency + injected
    world.report_all()
    assert world.judge(broadcast)["delivered"] == len(world.accepted())


@pytest.mark.parametrize("point", ["after_answer", pytest.param("after_claim", marks=pytest.mark.long)])
def test_f03_killed_at_a_named_point(make_world: MakeWorld, tmp_path: Path, point: str) -> None:
    used = tmp_path / "used"
    world = make_world(PYTHONPATH=TRAPS, TRAP=point, TRAP_AFTER="30", TRAP_USED=str(used))
    world.control(delay=[0.02, 0.05])
    broadcast = world.broadcast(100)
    # The trap kills the worker; its supervisor starts another one, and the trap is used up.
    world.state(broadcast, "finished", 60)
    assert used.exists()
    numbers = world.judge(broadcast)
    log = {facts["phone"] for facts in world.accepted()}
    lost = db.rows("SELECT phone, sending_at FROM message WHERE status = 'uncertain'")
    assert 1 <= len(lost) <= world.concurrency
    if point == "after_claim":
        last = max(moment for _, moment in lost)
        assert all(phone not in log for phone, moment in lost if moment == last)  # no byte of them had left
    else:
        assert any(phone in log for phone, _ in lost)
    assert numbers["sent"] + numbers["uncertain"] == 100


@pytest.mark.long
def test_f04_only_the_worker_dies_and_the_pages_stay(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.signal_worker(KILL)
    assert requests.get(f"{world.product.url}/login", timeout=5).status_code == 200
    world.state(broadcast, "finished", 60)
    numbers = world.judge(broadcast)
    assert numbers["sent"] + numbers["uncertain"] == 400 and numbers["uncertain"] <= world.concurrency


@pytest.mark.long
def test_f04_only_the_pages_die_and_the_worker_sends_on(world: World) -> None:
    broadcast = world.broadcast(600, 6_000)
    world.product.stop()
    web, worker = world.product.part("web"), world.product.part("worker")
    try:
        wait(lambda: answers(world.product.url), 20)
        world.left(broadcast, 400)
        web.kill()
        web.wait(10)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{world.product.url}/login", timeout=5)
        world.state(broadcast, "finished", 60)
        assert world.judge(broadcast)["sent"] == 600
        web = world.product.part("web")
        wait(lambda: answers(world.product.url), 20)
    finally:
        for part in (web, worker):
            part.terminate()
            part.wait(50)
    world.product.start()
    world.judge(broadcast)


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/login", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_f05_sigterm_stores_what_is_in_flight(world: World) -> None:
    broadcast = world.broadcast(200)
    world.left(broadcast, 150)
    world.control(delay=[1.2, 1.5])
    wait(lambda: world.control()["waiting"] == world.concurrency, 20)  # all of them will take their time
    asked = time.monotonic()
    assert world.product.stop() == 0
    assert time.monotonic() - asked < 45
    assert all(moment < asked + 1 for moment in world.moments())  # nothing new left after the signal
    taken = len(world.accepted())
    numbers = world.judge(broadcast)
    assert (numbers["uncertain"], numbers["sending"]) == (0, 0) and numbers["queued"] > 0
    sleep(0.5)
    assert len(world.accepted()) == taken
    world.control(delay=[0.01, 0.05])
    world.product.start()
    world.state(broadcast, "finished")
    assert world.judge(broadcast)["sent"] == 200


def stop_and_resume(world: World, people: int, times: int) -> None:
    broadcast = world.broadcast(people)
    for n in range(1, times + 1):
        world.left(broadcast, people - n * people // (times + 2) + world.chance.randrange(20))
        world.press(broadcast, "stop")
        answered = time.monotonic()
        world.in_flight_stored(broadcast, seconds=40)
        sleep(0.2)
        assert sum(moment > answered for moment in world.moments()) <= world.concurrency
        world.press(broadcast, "resume")
    world.state(broadcast, "finished", 120)
    assert world.judge(broadcast)["sent"] == people


def test_f24_stop_and_resume_at_random(world: World) -> None:
    stop_and_resume(world, 160, 2)


@pytest.mark.long
def test_f24_stop_and_resume_fifty_times(world: World) -> None:
    stop_and_resume(world, 5_000, 50)


@pytest.mark.parametrize("seconds", [1, pytest.param(35, marks=PATIENT)])  # a look at leases comes every 30
def test_f25_stopped_stays_stopped_after_a_kill(world: World, seconds: int) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.press(broadcast, "stop")
    world.product.kill()
    sleep(0.2)
    seen = len(world.accepted())
    world.product.start()
    sleep(seconds)
    assert (world.fresh(broadcast).state, len(world.accepted())) == ("stopped", seen)
    world.in_flight_stored(broadcast)  # what the dead worker had under way is seen when the new one has begun
    assert world.judge(broadcast)["uncertain"] <= world.concurrency


@pytest.mark.long
def test_f26_clear_in_the_middle(world: World) -> None:
    broadcast = world.broadcast(400)
    world.left(broadcast, 300)
    world.press(broadcast, "clear")
    answered = time.monotonic()
    world.in_flight_stored(broadcast, seconds=40)
    sleep(1)
    assert sum(moment > answered for moment in world.moments()) <= world.concurrency
    numbers = world.judge(broadcast)
    assert world.fresh(broadcast).state == "draft"
    assert numbers["cancelled"] == 400 - numbers["sent"] and numbers["queued"] == 0
    assert not [file for file in RecipientFile.select() if file.removed_at is None]
    answer = world.ask("POST", f"/broadcasts/{broadcast.id}/resume")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_allowed")
    assert world.ask("GET", f"/broadcasts/{broadcast.id}/messages?status=sent&run=all").json()["items"]


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
    assert numbers["sent"] + numbers["uncertain"] == 400 and numbers["uncertain"] <= world.concurrency


def test_f37_what_was_claimed_before_a_freeze_does_not_leave_after_it(make_world: MakeWorld, tmp_path: Path) -> None:
    used = tmp_path / "used"
    signal = {"TRAP": "after_claim", "TRAP_AFTER": "30", "TRAP_SIGNAL": str(STOP)}
    world = make_world(PYTHONPATH=TRAPS, TRAP_USED=str(used), **signal)
    world.control(delay=[0.02, 0.05])
    broadcast = world.broadcast(100)
    wait(used.exists, 30)
    sleep(0.5)
    claimed = {phone for (phone,) in db.rows("SELECT phone FROM message WHERE status = 'sending'")}
    claimed -= {facts["phone"] for facts in world.accepted()}
    assert claimed  # committed, and no byte has left
    sleep(5)
    thawed = time.monotonic()
    world.signal_worker(CONTINUE)
    world.state(broadcast, "finished", 60)
    assert world.judge(broadcast)["sent"] == 100
    # They went back into the queue and left under another token, each once.
    left = {facts["phone"]: facts["mono"] for facts in world.accepted()}
    assert all(left[phone] > thawed for phone in claimed)


@pytest.mark.long
def test_f37_a_frozen_worker_sends_nothing_it_claimed_before(world: World) -> None:
    frozen(world, 6)


@pytest.mark.patient
@pytest.mark.long
def test_f37_frozen_for_three_leases(world: World) -> None:
    frozen(world, 190)


@pytest.mark.long
def test_f06_every_connection_of_the_running_product_commits_to_the_disk(make_world: MakeWorld, tmp_path: Path) -> None:
    """A power cut cannot be played; the settings that survive one can be looked at."""
    noted = tmp_path / "pragmas"
    world = make_world(PYTHONPATH=TRAPS, TRAP_PRAGMAS=str(noted))
    broadcast = world.broadcast(20)
    world.state(broadcast, "finished")
    world.judge(broadcast)
    found = [json.loads(line) for line in noted.read_text().splitlines()]
    assert {"webapp", "worker"} <= {process for process, *_ in found}
    for _, mode, synchronous, foreign_keys, busy in found:
        assert (mode, synchronous, foreign_keys) == ("wal", 2, 1) and busy >= 5_000


def test_f06_every_commit_of_every_thread_is_on_the_disk(settings: Settings, database: Settings) -> None:
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
    assert world.fresh(sending).state == "running"
    world.signal_worker(KILL)
    wait(lambda: RecipientFile.get_by_id(file.id).state == "ready", 120)
    assert RecipientFile.get_by_id(file.id).accepted == people
    assert db.rows("SELECT COUNT(*), COUNT(DISTINCT line) FROM message WHERE file_id = ?", [file.id]) == [
        (people, people)
    ]
    assert world.numbers(big)["queued"] == people + 5
    world.state(sending, "finished", 120)
    assert world.judge(sending)["uncertain"] <= world.concurrency
