"""The pace: the next free slot of a broadcast and of a channel, reserved in the claim's own transaction.

A slot is a point in time in microseconds. Slots are a little wider apart than 60 s / N; the contract leaves
2 % of N for that. A slot in the past gives no credit beyond a moment of a slow disk, and that only while the
sender was watching all along, so there is no burst at a start, after a pause or after a jump of the clock.

Slots know when a message was claimed. When it really left (a slow connection, a clock that jumped) only
the process knows that sent it: its Window of departures is the second, hard guard. Where several processes
send, each knows its own departures only; there the slots are wider and the credit smaller.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

JUMP = 1_000_000
LAG = 5_000_000  # a slot so much in the past is one of before a pause or a jump of the clock


class Pace(NamedTuple):
    """How slots are laid: how much wider than 60 s / N, and how many microseconds of the past count."""

    widen: float
    credit: int

    def interval(self, per_minute: float) -> int:
        """Microseconds between two slots at this rate."""
        return int(60_000_000 * self.widen / per_minute) + 1

    def credit_since(self, watched: float, now: float) -> int:
        """Microseconds of the past that count for slots that were last looked at then (monotonic seconds)."""
        return self.credit if now - watched < self.credit / 1e6 * 2 else 0


ALONE = Pace(1.005, 1_000_000)
SHARED = Pace(1.01, 250_000)


def anchor(next_slot: int, step: int, now: int, credit: int = 0) -> int:
    """The first slot that may be used, seen from `now`.

    A slot further ahead than the pace allows can only be a jump of the clock or a raised rate: the
    pace begins anew, one step from now. A slot in the past counts from now, less `credit`.
    """
    if next_slot > now + step + JUMP:
        return now + step
    if next_slot < now - step - LAG:
        return now
    return max(next_slot, now - credit)


def due(slot: int, step: int, now: int) -> int:
    """How many slots have come by `now`, beginning with `slot`."""
    return 0 if slot > now else (now - slot) // step + 1


class Departure:
    """When one message left, on the monotonic clock; None until it has."""

    __slots__ = ("at", "void")

    def __init__(self) -> None:
        self.at: float | None = None
        self.void = False  # it never left


class Window:
    """The departures of the last so many seconds; what was claimed and has not left yet counts as leaving now."""

    def __init__(self) -> None:
        self._found: deque[Departure] = deque()
        self._void = 0

    def add(self, departure: Departure) -> None:
        self._found.append(departure)

    def drop(self, departure: Departure) -> None:
        """It never left after all."""
        departure.void = True
        self._void += 1

    def free(self, limit: int, seconds: float, now: float) -> int:
        """How many more may leave now, so that no window of that length holds more than `limit`."""
        found = self._found
        while found and (found[0].void or ((at := found[0].at) is not None and at <= now - seconds)):
            self._void -= found.popleft().void
        return max(0, limit - len(found) + self._void)

    def frees_at(self, seconds: float, now: float) -> float:
        """When the oldest one has been gone for so long; `now` plus a moment while that is not known."""
        at = self._found[0].at if self._found else None
        return now + 0.05 if at is None else at + seconds

    def __len__(self) -> int:
        return len(self._found)


def share(demands: list[int], budget: int, first: int = 0) -> list[int]:
    """Split `budget` fairly: nobody gets more than asked, what one leaves the others take.

    `first` says who begins when it does not divide evenly.
    """
    given = [0] * len(demands)
    order = [(first + i) % len(demands) for i in range(len(demands))] if demands else []
    while budget > 0:
        hungry = [i for i in order if given[i] < demands[i]]
        if not hungry:
            break
        each = max(1, budget // len(hungry))
        for i in hungry:
            take = min(each, demands[i] - given[i], budget)
            given[i] += take
            budget -= take
            if budget == 0:
                break
    return given
