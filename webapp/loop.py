"""The event loop of the web server, for many open connections that mostly rest.

Waitress asks every connection at every event whether it wants to read or to write; with some hundred open tabs
that is most of its work. Here a connection that waits for its next request is asked again when something comes in.
"""

from __future__ import annotations

import contextlib
import select
from typing import Any

from waitress import wasyncore

from worker import clock

LOOK_AT_ALL = 1.0  # seconds: for what changed about a resting connection without an event, such as its timeout


def loop(timeout: float, map: dict[int, Any], use_poll: bool = True) -> None:
    """What wasyncore.loop does, for as long as anything is open. SystemExit and KeyboardInterrupt pass through."""
    poller = select.poll()
    known: dict[int, Any] = {}
    restless: set[int] = set()
    due = 0.0
    while map:
        every = clock.monotonic() >= due
        if every:
            due = clock.monotonic() + LOOK_AT_ALL
        for fd, what in list(map.items()):
            if every or fd in restless or known.get(fd) is not what:
                known[fd] = what
                _listen(poller, fd, _wants(what))
                if _rests(what):
                    restless.discard(fd)
                else:
                    restless.add(fd)
        for fd in known.keys() - map.keys():
            del known[fd]
            restless.discard(fd)
            _listen(poller, fd, 0)
        for fd, flags in poller.poll(timeout * 1000):
            restless.add(fd)
            if fd in map:
                wasyncore.readwrite(map[fd], flags)


def _listen(poller: Any, fd: int, events: int) -> None:
    """Hear of these events; with none, of nothing at all, for a closed line would otherwise be told for ever."""
    if events:
        poller.register(fd, events)
    else:
        with contextlib.suppress(KeyError):
            poller.unregister(fd)


def _wants(what: Any) -> int:
    # Asked in waitress's own order: the server does its housekeeping when it is asked whether it can read.
    reading = select.POLLIN | select.POLLPRI if what.readable() else 0
    return reading | (select.POLLOUT if what.writable() and not what.accepting else 0)


def _rests(what: Any) -> bool:
    """Whether only its peer can make a connection do something; the server itself never rests."""
    requests = getattr(what, "requests", None)
    return requests is not None and not requests and what.readable() and not what.writable()
