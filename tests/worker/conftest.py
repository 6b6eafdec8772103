"""What several tests of the worker begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Clock
from tests.driving import Driven
from worker import channels
from worker.models import Channel
from worker.sender import Sender
from worker.settings import Settings


@pytest.fixture
def sms(database: Settings) -> Channel:
    """The SMS channel of the sandbox."""
    return channels.ensure_sandbox(database)[1]


@pytest.fixture
def sending(database: Settings) -> Iterator[Sender]:
    """A sender that sends by itself."""
    sender = Sender(database, 1)
    sender.start()
    yield sender
    sender.stop()


@pytest.fixture
def driven(sms: Channel, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Driven:
    """A sender that the test drives, on a clock that stands still."""
    return Driven(settings, clock, monkeypatch)
