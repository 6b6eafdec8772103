"""An installation of two hosts, each with its own data folder, on one PostgreSQL and one Redis."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.faults.world import World
from tests.network import Network
from tests.product import Product, wait
from worker import db
from worker.models import Broadcast

KEY = "the same on all hosts, and only for tests"


@pytest.fixture(scope="session", autouse=True)
def parts() -> None:
    """What these tests need besides Python; a missing part skips them by its name."""
    found = {
        "postgresql": servers.postgres_folder() is not None,
        "redis-server": shutil.which("redis-server") is not None,
        "molva[scale]": all(importlib.util.find_spec(name) for name in ("psycopg", "redis")),
    }
    missing = [name for name, here in found.items() if not here]
    if not missing:
        return
    said = f"missing: {', '.join(missing)} (apt-get install postgresql redis-server; pip install '.[scale]')"
    if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
        pytest.fail(said)
    pytest.skip(said)


@pytest.fixture(scope="session")
def postgres(parts: None) -> Iterator[servers.Postgres]:
    with servers.postgres(durable=True) as started:
        yield started


@pytest.fixture
def redis(parts: None) -> Iterator[servers.Redis]:
    with servers.redis() as started:
        yield started


class Hosts:
    """The world of the fault tests, and a second host beside its own."""

    def __init__(self, world: World, second: Product) -> None:
        self.world = world
        self.second = second

    @property
    def all(self) -> tuple[Product, Product]:
        return self.world.product, self.second

    def in_flight(self) -> str:
        """Which messages hang where, for whoever reads of a failed test."""
        try:
            now = db.value("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
            return "\n".join(
                f"{n} {status}: worker {owner}, lease of {lease} ms, seen {seen} ms ago"
                for status, owner, n, lease, seen in db.rows(
                    "SELECT m.status, m.owner, COUNT(*), MAX(m.lease_until) - ?, ? - MAX(w.heartbeat_at) FROM message m"
                    " LEFT JOIN worker w ON w.id = m.owner GROUP BY m.status, m.owner ORDER BY m.status",
                    [now, now],
                )
            )
        except Exception as error:
            return f"the database does not tell: {error}"

    def goes_on(self, broadcast: Broadcast, before: int) -> None:
        """The database is there again: messages leave beyond the `before` there were, and only what was on its way
        may be uncertain in the end."""
        wait(lambda: len(self.world.accepted()) > before + 8, 30)
        db.database.connect(reuse_if_open=True)
        self.world.state(broadcast, "finished", 90)
        self.world.in_flight_stored(broadcast, seconds=90)
        assert self.world.judge(broadcast)["uncertain"] <= 2 * self.world.concurrency

    def pids_of_workers(self) -> set[int]:
        """The sending processes that have shown themselves in the last ten seconds."""
        now = db.value("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        return {pid for (pid,) in db.rows("SELECT pid FROM worker WHERE heartbeat_at > ?", [now - 10_000])}

    def worker_of(self, product: Product) -> int:
        """The process that sends on a host."""
        place = (product.settings.data / "place").read_text(encoding="ascii")
        return int(db.value("SELECT pid FROM worker WHERE host LIKE ? ORDER BY id DESC LIMIT 1", [f"%/{place}"]))


Make = Callable[..., Hosts]


@contextlib.contextmanager
def making(
    tmp_path: Path,
    postgres: servers.Postgres,
    redis: servers.Redis,
    seed: int | None,
    standby: servers.Postgres | None = None,
) -> Iterator[Make]:
    """make(…) starts two hosts that share these servers; all of them end with the block."""
    made: list[Hosts] = []
    name = f"hosts_{tmp_path.name}".replace("-", "_").lower()[:60]
    postgres.drop(name)
    url = postgres.database(name)
    if standby is not None:
        both = f"{postgres.address}:{postgres.port},{standby.address}:{standby.port}"
        url = f"postgresql://molva@{both}/{name}?target_session_attrs=read-write"

    def make(cables: Network | None = None, **options: Any) -> Hosts:
        shared = {"MOLVA_DATABASE_URL": url, "MOLVA_QUEUE_URL": redis.url, "MOLVA_SECRET_KEY": KEY}
        world = World(tmp_path / "first", seed=seed, address=postgres.address, **shared, **options)
        world.truth.parent.mkdir()
        second = Product(tmp_path / "second" / "data", servers.free_port(), **world.product.environment)
        second.settings.data.parent.mkdir()
        for n, host in enumerate((world.product, second)):
            if cables is not None:
                host.inside = cables.inside(n)
                host.environment = host.environment | {"MOLVA_HOST": cables.address_of(n)}
        world.products.append(second)
        hosts = Hosts(world, second)
        made.append(hosts)
        world.start()
        second.start()
        db.database.connect(reuse_if_open=True)
        world.control(delay=[0.01, 0.05])
        return hosts

    yield make
    for hosts in made:
        if hosts.second.process is not None:
            hosts.second.stop()
        hosts.world.close()
    if postgres.process is not None:
        postgres.drop(name)


@pytest.fixture
def make_hosts(
    tmp_path: Path, postgres: servers.Postgres, redis: servers.Redis, pytestconfig: pytest.Config
) -> Iterator[Make]:
    with making(tmp_path, postgres, redis, pytestconfig.getoption("--seed")) as make:
        yield make


@pytest.fixture
def hosts(make_hosts: Make) -> Hosts:
    return make_hosts()
