"""A world for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.world import World
from worker import db


@pytest.fixture
def make_world(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        world = World(tmp_path, seed=pytestconfig.getoption("--seed"), **options)
        made.append(world)
        world.start()
        db.database.connect(reuse_if_open=True)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """The default: eight connections, a provider that answers in 10 to 50 ms."""
    found = make_world()
    found.control(delay=[0.01, 0.05])
    return found
