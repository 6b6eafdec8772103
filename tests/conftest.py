"""The parts that every test may use: an installation of its own, the application, people, the clock."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests import described, make, people, servers
from webapp import create_app
from worker import clock, db, migrations
from worker.models import User
from worker.settings import Settings

SHOWN = 8_000  # characters of a log


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="play the faults of this seed again; a failed test shows its own")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the real commands said: their folders are gone when somebody reads of it."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and report.when == "call" and folder is not None:
        for path in sorted(folder.rglob("serve.log")):
            said = path.read_text(encoding="utf-8", errors="replace")
            report.sections.append((str(path.relative_to(folder)), said[-SHOWN:]))
        if (hosts := item.funcargs.get("hosts")) is not None:
            report.sections.append(("in flight", hosts.in_flight()))
    return report


class Clock:
    """Time that stands still until a test moves it. Milliseconds since the epoch, as in the tables."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now(self) -> int:
        return self.ms

    def now_us(self) -> int:
        return self.ms * 1000

    def monotonic(self) -> float:
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)

    def tick(self, ms: int = 0, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> int:
        """Let time pass; the new moment."""
        whole = seconds + 60 * minutes + 3600 * hours + 86400 * days
        self.ms += ms + round(whole * 1000)
        return self.ms


@pytest.fixture
def clock_now() -> int:
    """Where a frozen clock begins: Thursday, 5 November 2026, 12:00 in Moscow."""
    return 1_793_869_200_000


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch, clock_now: int) -> Clock:
    """The only clock of the product, held by the test."""
    held = Clock(clock_now)
    for name in ("now", "now_us", "monotonic", "sleep"):
        monkeypatch.setattr(clock, name, getattr(held, name))
    return held


@pytest.fixture(name="clock")
def clock_fixture(frozen: Clock) -> Clock:
    return frozen


@pytest.fixture
def settings(tmp_path: Path, server: servers.Postgres | None, request: pytest.FixtureRequest) -> Iterator[Settings]:
    given = Settings(data=tmp_path / "data", secret_key="only for tests, never for a real installation")
    if server is None or "database" not in request.fixturenames:
        yield given
        return
    request.getfixturevalue("schema")
    yield replace(given, database_url=server.empty("molva_test", "molva_schema"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("MOLVA_TEST_DATABASE", "sqlite") == "sqlite":
        return
    for item in items:
        if item.get_closest_marker("sqlite"):
            item.add_marker(pytest.mark.skip(reason="speaks of SQLite"))


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Postgres | None]:
    """The PostgreSQL that all tests of this run use instead of SQLite; None on SQLite, which is the default."""
    if os.environ.get("MOLVA_TEST_DATABASE", "sqlite") == "sqlite":
        yield None
        return
    with servers.postgres() as started:
        yield started


@pytest.fixture(scope="session")
def schema(server: servers.Postgres | None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty migrated database, made once and copied for every test."""
    data = tmp_path_factory.mktemp("schema")
    if server is not None:
        db.open_database(Settings(data=data, database_url=server.database("molva_schema")))
        migrations.upgrade()
        db.close()
        return b""
    db.open_database(Settings(data=data))
    migrations.upgrade()
    with db.connection():
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    return (data / "molva.db").read_bytes()


@pytest.fixture
def database(settings: Settings, schema: bytes) -> Iterator[Settings]:
    """A migrated database in a folder of its own, with an open connection for the test's thread."""
    settings.data.mkdir(mode=0o700)
    if not settings.database_url:
        settings.database_path.write_bytes(schema)
    db.open_database(settings)
    with db.connection():
        yield settings
    db.close()


@pytest.fixture
def app(database: Settings) -> Flask:
    """The application over the test's database; faults are raised into the test, not turned into pages."""
    app = create_app(database)
    app.testing = True
    app.after_request(described.check)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser that is not signed in, before any administrator exists."""
    return app.test_client()


@pytest.fixture
def users(database: Settings) -> dict[str, User]:
    """One person for each role."""
    return {role: people.person(role) for role in ("admin", "sender", "viewer")}


@pytest.fixture
def admin(app: Flask, users: dict[str, User]) -> people.Browser:
    return people.signed_in(app, users["admin"])


@pytest.fixture
def sender(app: Flask, users: dict[str, User]) -> people.Browser:
    return people.signed_in(app, users["sender"])


@pytest.fixture
def viewer(app: Flask, users: dict[str, User]) -> people.Browser:
    return people.signed_in(app, users["viewer"])


@pytest.fixture
def stranger(app: Flask, users: dict[str, User]) -> people.Browser:
    """Somebody without an account, where others have one."""
    return people.Browser(app)


@pytest.fixture
def api(app: Flask, users: dict[str, User]) -> dict[str, Any]:
    """Authorization headers for each role: api["sender"]."""
    return {role: {"Authorization": f"Bearer {make.token(role)}"} for role in users}
