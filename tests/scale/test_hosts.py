"""F01, F22, F37, F41, F42 on two hosts with one PostgreSQL and one Redis; judged by the provider's own log."""

from __future__ import annotations

import os
import signal
import time

import pytest
import requests

from tests import servers
from tests.faults.world import SECRETS, sleep
from tests.product import wait
from tests.scale.conftest import Hosts
from worker import db
from worker.models import Channel

pytestmark = [pytest.mark.scale, pytest.mark.faults]
SECOND = 20  # messages
BURST = 1.05


def test_f22_two_hosts_share_the_rate_and_one_that_dies_is_not_missed(hosts: Hosts) -> None:
    world = hosts.world
    broadcast = world.broadcast(400, SECOND * 60)
    world.left(broadcast, 300)
    hosts.second.kill()
    sleep(1)
    world.left(broadcast, 200)
    hosts.second.start()
    world.left(broadcast, 100)
    world.product.kill()
    world.left(broadcast, 40, 90)  # the second host alone
    world.product.start()
    world.state(broadcast, "finished")
    world.in_flight_stored(broadcast, seconds=90)  # what the dead had in flight
    assert world.most_in(3) <= 3 * SECOND + BURST * SECOND
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= 2 * world.concurrency


def test_any_web_process_takes_callbacks_files_and_reads_what_another_wrote(hosts: Hosts) -> None:
    world = hosts.world
    # The list comes in by the first host; whichever worker is faster reads it.
    broadcast = world.broadcast(60)
    key = Channel.get_by_id(world.channel()).key
    for host in hosts.all:
        url = f"http://127.0.0.1:{host.settings.port}/hooks/{key}"
        asked = {"hub.mode": "subscribe", "hub.verify_token": SECRETS["verify_token"], "hub.challenge": "42"}
        assert requests.get(url, params=asked, timeout=10).text == "42"
    world.state(broadcast, "finished")
    world.control(
        callbacks={
            "url": f"http://127.0.0.1:{hosts.second.settings.port}/hooks/{key}",
            "secret": SECRETS["app_secret"],
            "statuses": ["delivered"],
            "delay": [0.0, 0.2],
        }
    )
    world.control(report_all=True)
    wait(lambda: world.numbers(broadcast)["delivered"] == 60, 30)
    world.judge(broadcast)


def test_f42_postgres_restarted_in_the_middle(hosts: Hosts, postgres: servers.Postgres) -> None:
    world = hosts.world
    broadcast = world.broadcast(400, 2_400)
    world.left(broadcast, 320)
    db.close()
    postgres.stop()
    sleep(2)
    before = len(world.accepted())
    postgres.start()
    hosts.goes_on(broadcast, before)


def test_f41_redis_flushed_and_restarted(hosts: Hosts, redis: servers.Redis) -> None:
    world = hosts.world
    broadcast = world.broadcast(200, 2_400)
    world.left(broadcast, 150)
    redis.flush()
    redis.stop()
    sleep(2)
    later = world.broadcast(40, 2_400, first=1_000)  # nudged by nobody
    redis.start()
    redis.flush()
    for one in (broadcast, later):
        world.state(one, "finished")
    assert world.judge(broadcast, later)["uncertain"] == 0


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("victim", ["worker", "web", "redis"])
def test_any_one_process_may_be_lost(hosts: Hosts, redis: servers.Redis, victim: str, how: str) -> None:
    """Nothing changes but the speed, and not even that where the other host can do it alone."""
    world = hosts.world
    world.callbacks(statuses=["delivered"], delay=[0.05, 0.5])
    broadcast, later = world.broadcast(1_000, SECOND * 60), world.draft(60, SECOND * 60, first=2_000)
    world.left(broadcast, 940)
    assert redis.process is not None and hosts.second.process is not None
    pid = {"worker": hosts.worker_of(hosts.second), "web": hosts.second.process.pid, "redis": redis.process.pid}[victim]
    os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    sleep(2)
    before = len(world.accepted())
    began = time.monotonic()
    assert world.ask("POST", f"/broadcasts/{later.id}/start").status_code == 200  # by the web process that is left
    assert time.monotonic() - began < 10
    sleep(10)
    assert len(world.accepted()) - before >= 0.8 * 10 * SECOND
    if how == "frozen":
        os.kill(pid, signal.SIGCONT)
    elif victim == "web":
        hosts.second.kill()
        hosts.second.start()
    elif victim == "redis":
        redis.stop()
        redis.start()
    for one in (broadcast, later):
        world.state(one, "finished", 120)
    world.in_flight_stored(broadcast, later, seconds=90)
    world.settled(broadcast)
    world.settled(later)
    numbers = world.judge(broadcast, later)
    assert numbers["uncertain"] <= (world.concurrency if victim == "worker" else 0)
    assert world.most_in(60) <= 2 * SECOND * 60
    assert len(hosts.pids_of_workers()) == 2


@pytest.mark.long
def test_f37_a_worker_frozen_past_its_lease_sends_nothing_it_claimed_before(hosts: Hosts) -> None:
    world = hosts.world
    world.control(delay=[0.2, 0.4])
    broadcast = world.broadcast(3_000, 1_800)
    world.left(broadcast, 2_800)
    frozen = hosts.worker_of(hosts.second)
    os.kill(frozen, signal.SIGSTOP)
    try:
        sent = len(world.accepted())
        wait(lambda: len(world.accepted()) > sent + 60, 60)  # the other goes on
        sleep(75)
    finally:
        os.kill(frozen, signal.SIGCONT)
    sleep(5)
    world.press(broadcast, "stop")
    world.in_flight_stored(broadcast)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= world.concurrency
    assert world.most_in(60) <= 1_800


@pytest.mark.long
def test_f01_both_hosts_killed_at_random(hosts: Hosts) -> None:
    world = hosts.world
    world.callbacks(statuses=["delivered"], delay=[0.05, 0.5])
    broadcast = world.broadcast(6_000, 12_000)
    for kill in range(20):
        left = 6_000 - (kill + 1) * 250
        world.left(broadcast, left, 120)
        victim = world.chance.choice(hosts.all)
        victim.kill()
        sleep(world.chance.uniform(0, 1.5))
        victim.start()
    world.state(broadcast, "finished", 180)
    world.in_flight_stored(broadcast, seconds=120)
    world.report_all()
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= 20 * world.concurrency
    assert world.most_in(60) <= 12_000
