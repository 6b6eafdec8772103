"""Two hosts on a network of their own, with PostgreSQL, Redis and the provider at the other end; one cable is pulled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import network, servers
from tests.faults.world import sleep
from tests.product import wait
from tests.scale.conftest import Hosts, making
from worker import clock, db

pytestmark = [pytest.mark.scale, pytest.mark.faults]
RATE = 1_800


class Site(NamedTuple):
    """The hosts, and the network between them and the servers."""

    hosts: Hosts
    network: network.Network


@pytest.fixture
def site(parts: None, tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Site]:
    if missing := network.missing():
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail(f"missing: {missing}")
        pytest.skip(f"missing: {missing}")
    with (
        network.network(2) as cables,
        servers.postgres(durable=True, address=cables.address) as postgres,
        servers.redis(cables.address) as redis,
        making(tmp_path, postgres, redis, pytestconfig.getoption("--seed")) as make,
    ):
        yield Site(make(cables), cables)


def seen_since(hosts: Hosts, moment: int) -> bool:
    """Whether the second host's worker has shown itself after that moment (ms)."""
    place = (hosts.second.settings.data / "place").read_text(encoding="ascii")
    latest = db.value("SELECT MAX(heartbeat_at) FROM worker WHERE host LIKE ?", [f"%/{place}"])
    return bool(latest > moment)


def cut_off(site: Site, seconds: float) -> None:
    from worker.postgres import STALL  # only where there is the driver

    hosts, cables = site
    world = hosts.world
    world.control(delay=[0.1, 0.2])
    broadcast = world.broadcast(6_000, RATE)
    world.left(broadcast, 5_900)
    cables.cut(1)
    sent = len(world.accepted())
    sleep(seconds)
    # The first host goes on alone, at the rate of both: at once, or when the server has ended the turn that the other
    # one was cut off in.
    assert len(world.accepted()) - sent >= 0.85 * (seconds - STALL) * RATE / 60
    cables.mend(1)
    mended = clock.now()
    wait(lambda: seen_since(hosts, mended), 90)
    sent = len(world.accepted())
    wait(lambda: len(world.accepted()) > sent + 200, 60)
    world.press(broadcast, "stop")
    world.in_flight_stored(broadcast, seconds=90)
    numbers = world.judge(broadcast)
    assert numbers["uncertain"] <= world.concurrency
    assert world.most_in(60) <= RATE


def test_a_host_that_is_cut_off_for_a_moment_goes_on_where_it_was(site: Site) -> None:
    cut_off(site, 10)


@pytest.mark.long
def test_f22_a_host_cut_off_past_its_lease_sends_nothing_it_claimed_before(site: Site) -> None:
    cut_off(site, 90)
