"""The circuit breaker of a channel: a provider in trouble gets single probes instead of the whole list.

Without it every message of a long list would become uncertain, one after another, while the provider
answers 500 or nothing. Kept with the channel, so a restart and a second worker know it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from worker import clock

IN_A_ROW = 5
OF_THE_LAST, WINDOW = 10, 20
LONGEST = 30 * clock.MINUTE  # after that only a person closes it
PROBE_LINE = 10 * clock.SECOND  # when nothing was sent, asking again costs nothing
PROBE_UNCLEAR = clock.MINUTE  # each of these probes may be a message that nobody can vouch for

GOOD, LINE, UNCLEAR = ".", "l", "u"


@dataclass(frozen=True)
class Breaker:
    """What a channel remembers: its last results (GOOD, LINE, UNCLEAR), since when it is open, when to probe."""

    recent: str = ""
    opened_at: int | None = None
    probe_at: int = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def is_hopeless(self, now: int) -> bool:
        """Open for so long, and probed until now, that a person has to look.

        The time alone proves nothing: nobody probes while nothing is to be sent or the worker is down.
        """
        if self.opened_at is None or now - self.opened_at < LONGEST:
            return False
        return self.probe_at - self.opened_at >= LONGEST - PROBE_UNCLEAR

    def is_due(self, now: int) -> bool:
        """Whether a probe may leave; a time further ahead than any pause means that the clock was set back."""
        return self.probe_at <= now or self.probe_at > now + PROBE_UNCLEAR

    def probed(self, now: int) -> Breaker:
        """A probe leaves: the next one only after its time, whoever sends it."""
        pause = PROBE_UNCLEAR if UNCLEAR in self.recent[-1:] else PROBE_LINE
        return replace(self, probe_at=now + pause)

    def after(self, results: Iterable[tuple[str, bool]], now: int) -> Breaker:
        """The breaker after (result, was it a probe) of some requests, in the order of their answers."""
        found, given = self, list(results)
        if not self.is_open and all(result == GOOD for result, _probe in given):
            return replace(self, recent=(self.recent + GOOD * len(given))[-WINDOW:])
        for result, probe in given:
            found = found._one(result, probe, now)
        return found

    def _one(self, result: str, probe: bool, now: int) -> Breaker:
        if self.is_open:
            if probe and result == GOOD:
                return Breaker()
            # What was in flight when it opened tells nothing new; a bad probe tells what kind of trouble it is.
            return replace(self, recent=(self.recent + result)[-WINDOW:]) if probe else self
        recent = (self.recent + result)[-WINDOW:]
        if self._opens(recent):
            return Breaker(recent, now).probed(now)
        return replace(self, recent=recent)

    @staticmethod
    def _opens(recent: str) -> bool:
        row = recent[-IN_A_ROW:]
        return (len(row) == IN_A_ROW and GOOD not in row) or len(recent) - recent.count(GOOD) >= OF_THE_LAST
