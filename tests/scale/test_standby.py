"""PostgreSQL with a server that follows: the first one dies in the middle, the other takes its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import servers
from tests.faults.world import sleep
from tests.scale.conftest import Hosts, making
from worker import db

pytestmark = [pytest.mark.scale, pytest.mark.faults]


class Pair(NamedTuple):
    """Two hosts, and the servers that they name in their one setting."""

    hosts: Hosts
    first: servers.Postgres
    standby: servers.Postgres


@pytest.fixture
def pair(parts: None, tmp_path: Path, redis: servers.Redis, pytestconfig: pytest.Config) -> Iterator[Pair]:
    with servers.postgres(durable=True) as first:
        standby = servers.Postgres(durable=True, standby_of=first)
        try:
            with making(tmp_path, first, redis, pytestconfig.getoption("--seed"), standby) as make:
                hosts = make()
                first.wait_for_standby()
                yield Pair(hosts, first, standby)
        finally:
            standby.close()


@pytest.mark.long
def test_the_server_that_follows_takes_over_and_nobody_gets_a_message_twice(pair: Pair) -> None:
    world = pair.hosts.world
    broadcast = world.broadcast(600, 2_400)
    world.left(broadcast, 500)
    db.close()
    pair.first.stop(3)  # as a crash; it does not come back
    sleep(2)
    before = len(world.accepted())
    pair.standby.promote()
    pair.hosts.goes_on(broadcast, before)
    assert world.most_in(60) <= 2_400
