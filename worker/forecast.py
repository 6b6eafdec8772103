"""When a broadcast would end: its rate, the quiet hours of its people and the daily limits, counted ahead.

An estimate: people of one zone stand evenly in the queue, and no clock is changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from worker import clock, quiet
from worker.channel_health import Room

LOOKED_AHEAD = 2_000  # changes between quiet and not, of all zones together; from there on by the share of a day


class Forecast(NamedTuple):
    """`end`: when the last message would leave, ms. `waiting`: how many have to wait for the end of quiet hours."""

    end: int
    waiting: int


def forecast(
    begin: int, people: Mapping[str, int], per_minute: float, hours: tuple[int, int] | None, rooms: Sequence[Room] = ()
) -> Forecast:
    """For so many people in each time zone, from `begin` (ms) on at a rate. `hours`: the quiet ones, in minutes
    after midnight; None: none."""
    n = sum(people.values())
    pace = per_minute / clock.MINUTE
    end, waiting = begin + n / pace, 0
    if hours is not None and hours[0] != hours[1]:
        end, waiting = _through_nights(begin, people, pace, *hours)
    for room in rooms:
        end = max(end, _through_days(begin, n, pace, room))
    return Forecast(round(end), waiting)


def _through_days(begin: int, n: int, pace: float, room: Room) -> float:
    """A message leaves a day after the one before it by as many as the limit."""
    over = n - room.left
    if over <= 0:
        return begin
    days = -(-over // room.limit)
    return begin + days * clock.DAY + (over - (days - 1) * room.limit) / pace


def _through_nights(begin: int, people: Mapping[str, int], pace: float, start: int, stop: int) -> tuple[float, int]:
    left: dict[int, float] = {}  # minutes ahead of UTC → how many
    for zone, n in people.items():
        ahead = quiet.ahead(zone, begin)
        left[ahead] = left.get(ahead, 0) + n
    length = (stop - start) % quiet.DAY
    at, changes, waiting = float(begin), 0, 0.0
    held: set[int] = set()
    while left and changes < LOOKED_AHEAD:
        change, awake = float(quiet.DAY), []
        for ahead in left:
            into = (at / clock.MINUTE + ahead - start) % quiet.DAY  # the quiet hours, minutes
            change = min(change, (length if into < length else quiet.DAY) - into)
            if into >= length:
                awake.append(ahead)
            elif ahead not in held:
                held.add(ahead)
                waiting += left[ahead]
        able, time = sum(left[ahead] for ahead in awake), change * clock.MINUTE
        if able and able / pace <= time:
            at += able / pace
            for ahead in awake:
                del left[ahead]
        else:
            for ahead in awake:
                left[ahead] -= pace * time * left[ahead] / able
            at += time
        changes += len(left) + 1
    return at + sum(left.values()) / pace / (1 - length / quiet.DAY), round(waiting)
