"""A sender that a test drives by hand: turn after turn on a clock that stands still in between."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest

from tests.conftest import Clock
from worker import broadcasts, recipients
from worker.models import Broadcast
from worker.providers import base
from worker.providers.sandbox_sms import SandboxSms
from worker.sender import Job, Result, Sender
from worker.settings import Settings


class Driven:
    """One worker's sender, and what the provider was given: (phone, moment in ms)."""

    def __init__(self, settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = settings
        self.clock = clock
        self.sent: list[tuple[str, int]] = []
        self.answer: Callable[[base.Outgoing], base.Accepted] = lambda out: base.Accepted(f"id-{out.token}")
        monkeypatch.setattr(SandboxSms, "send", lambda _provider, out: self._send(out))
        self.sender = Sender(settings, 1)

    def _send(self, out: base.Outgoing) -> base.Accepted:
        self.sent.append((out.phone, self.clock.ms))
        return self.answer(out)

    @property
    def phones(self) -> list[str]:
        return [phone for phone, _at in self.sent]

    def claim(self) -> list[Job]:
        """One turn of which nothing leaves."""
        return self.sender._turn([])

    def run(self, seconds: float, step: float = 0.05, late: Sequence[Result] = ()) -> None:
        """Let so much time pass, with a turn every `step` seconds. Answers come at once, `late` ones to begin with."""
        results = list(late)
        end = self.clock.ms + round(seconds * 1000)
        while self.clock.ms < end:
            results = [self.sender._send(job) for job in self.sender._turn(results)]
            self.clock.tick(seconds=step)
        self.sender._turn(results)

    def restart(self) -> None:
        """The process dies, and another one takes its place."""
        self.sender = Sender(self.settings, self.sender.owner + 1)


def draft(settings: Settings, channel: int, rate: int = 6_000, **values: object) -> Broadcast:
    given = {"name": "Sale", "channel_id": channel, "text": "Hi {{name}}", "rate_per_minute": rate, **values}
    return broadcasts.create(settings, given, "test")


def upload(settings: Settings, broadcast: Broadcast, *rows: str, head: str = "phone,name") -> None:
    """Add a list to a broadcast and check it."""
    data = "\n".join((head, *rows)).encode()
    fresh = Broadcast.get_by_id(broadcast.id)
    file = recipients.receive(fresh, io.BytesIO(data), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(fresh), True, settings.uploads)


def people(count: int, first: int = 0) -> list[str]:
    return [f"+7901{n:07d},P{n}" for n in range(first, first + count)]
