"""What a vendor's code means, as data: the rows of every Provider's error table."""

from __future__ import annotations

from typing import NamedTuple

from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_BROADCAST,
    STOP_CHANNEL,
    SendError,
)


class Rule(NamedTuple):
    """One meaning; the fields are those of SendError. `wait` is in seconds and yields to Retry-After."""

    outcome: str
    wait: float | None = None
    slow_channel: bool = False
    counts: bool = True
    about_message: bool = False
    breaker: bool = False
    budget: int | None = None
    then: str = REFUSED

    @property
    def beyond(self) -> str:
        """What the code in a delivery report means beyond its message; nothing is sent again by itself."""
        reach = {self.outcome, self.then}
        return next((stop for stop in (STOP_CHANNEL, STOP_BROADCAST) if stop in reach), REFUSED)

    def error(
        self,
        cause: str,
        detail: str = "",
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> SendError:
        """The SendError that this rule stands for."""
        if retry_after is None:
            retry_after = self.wait
        return SendError(
            self.outcome,
            cause,
            detail,
            http_status=http_status,
            retry_after=retry_after if self.outcome == LATER else None,
            slow_channel=self.slow_channel,
            counts=self.counts,
            about_message=self.about_message,
            breaker=self.breaker,
            budget=self.budget,
            then=self.then,
        )


PERSON = Rule(REFUSED)  # speaks of this person: ten in a row are a poor list
MESSAGE = Rule(REFUSED, about_message=True)  # speaks of the message: ten in a row stop the broadcast
UNKNOWN = Rule(REFUSED, about_message=True)  # a code that no table knows stops nothing by itself
BROADCAST = Rule(STOP_BROADCAST)
CHANNEL = Rule(STOP_CHANNEL)
DOWN = Rule(LATER, counts=False, breaker=True)  # the vendor is in trouble: back-off, and the circuit breaker counts it
TOO_FAST = Rule(LATER, slow_channel=True, counts=False)
