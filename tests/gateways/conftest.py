"""Real gateways on this machine, each started for the tests and ended by its own process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateways.smsc import Smsc, modules


@pytest.fixture(scope="session")
def smsc_modules() -> Path:
    return modules()


@pytest.fixture(scope="session")
def smsc(smsc_modules: Path) -> Iterator[Smsc]:
    """The SMSC that most tests share: give every test numbers of its own."""
    server = Smsc(smsc_modules, DLR_MS=50).start()
    yield server
    server.stop()


@pytest.fixture
def another_smsc(smsc_modules: Path) -> Iterator[Callable[..., Smsc]]:
    """another_smsc(THROTTLE=20) is a server of the test's own."""
    started: list[Smsc] = []

    def make(**environment: int) -> Smsc:
        started.append(Smsc(smsc_modules, **environment).start())
        return started[-1]

    yield make
    for server in started:
        server.stop()
