"""How often one person, token or address may do what costs the server much.

Kept in memory, so each web process counts for itself: with two of them twice as much gets through. What guards
passwords and codes is kept in the database instead (worker.people).
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from flask import current_app

from webapp import auth
from worker import clock

View = TypeVar("View", bound=Callable[..., Any])
KEYS_MAX = 10_000


class Rule(NamedTuple):
    """At most `n` times in any `seconds`."""

    n: int
    seconds: int


RULES = {
    "setup": Rule(20, 600),
    "invitation": Rule(30, 600),
    "upload": Rule(60, 60),
    "export": Rule(30, 60),
    "test": Rule(30, 600),
    "refused callback": Rule(120, 60),
}


class TooOften(Exception):
    """It has to wait; `seconds` until there is room again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"wait {seconds} s")
        self.seconds = seconds


class Limits:
    """The latest times of each (rule, who), in a window that slides."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], deque[float]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, who: str) -> int:
        """Count one more; 0, or the seconds to wait when there is no room (then nothing is counted)."""
        rule, now = RULES[name], clock.monotonic()
        with self._lock:
            if len(self._times) >= KEYS_MAX:
                self._forget(now)
            times = self._times.setdefault((name, who), deque())
            while times and times[0] <= now - rule.seconds:
                times.popleft()
            if len(times) >= rule.n:
                return max(1, round(times[0] + rule.seconds - now))
            times.append(now)
            return 0

    def _forget(self, now: float) -> None:
        """Drop who has not been seen in their window; all of them should that not help."""
        kept = {key: t for key, t in self._times.items() if t and t[-1] > now - RULES[key[0]].seconds}
        self._times = kept if len(kept) < KEYS_MAX else {}


def take(name: str) -> None:
    """One more by whoever asks: the person, the token, or a stranger's address. Raises TooOften."""
    who = auth.identity()
    limits: Limits = current_app.extensions["molva.limits"]
    wait = limits.take(name, who.name if who else auth.address())
    if wait:
        raise TooOften(wait)


def limited(name: str) -> Callable[[View], View]:
    """Hold a view to the rule `name`. Stands under the role."""
    if name not in RULES:
        raise ValueError(f"no rule {name}")

    def wrap(view: View) -> View:
        @functools.wraps(view)
        def counted(*args: Any, **kwargs: Any) -> Any:
            take(name)
            return view(*args, **kwargs)

        counted.molva_limited = True  # type: ignore[attr-defined]
        return counted  # type: ignore[return-value]

    return wrap
