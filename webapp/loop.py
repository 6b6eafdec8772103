"""The event loop of the web server, for many open connections that mostly rest.

Waitress asks every connection at every event whether it wants to read or to write, and has the system look at all
of them; with some hundred open tabs that is most of its work. Here a connection that waits for its next request is
asked again when something comes in, and the system keeps the list (Linux epoll).
"""

from __future__ import annotations

import contextlib
import errno
import select
from collections.abc import Mapping
from typing import Any

from waitress import wasyncore

from worker import clock

LOOK_AT_ALL = 1.0  # seconds: for what changed about a resting connection without an event, such as its timeout


class Lines(dict[int, Any]):
    """The open connections by file descriptor; knows which came or went since the loop last asked."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: set[int] = set()

    def __setitem__(self, fd: int, line: Any) -> None:
        self.changed.add(fd)
        super().__setitem__(fd, line)

    def __delitem__(self, fd: int) -> None:
        self.changed.add(fd)
        super().__delitem__(fd)


def loop(timeout: float, map: Lines, use_poll: bool = True) -> None:
    """What wasyncore.loop does, for as long as anything is open. SystemExit and KeyboardInterrupt pass through."""
    with contextlib.closing(select.epoll()) as poller:
        _loop(poller, timeout, map)


def _loop(poller: Any, timeout: float, map: Lines) -> None:
    restless: set[int] = set()
    due = 0.0
    while map:
        if clock.monotonic() >= due:
            due = clock.monotonic() + LOOK_AT_ALL
            restless.update(map)
        if map.changed:
            restless |= map.changed
            map.changed.clear()
        look(poller, map, restless)
        for fd, flags in poller.poll(timeout):
            restless.add(fd)
            if fd in map:
                wasyncore.readwrite(map[fd], flags)


def look(poller: Any, map: Mapping[int, Any], restless: set[int]) -> None:
    """Ask every restless line what it wants to hear; those that rest from now on leave the set."""
    for fd in tuple(restless):
        line = map.get(fd)
        if line is None:
            # Closed, with which the system has forgotten it; its number may be that of some file by now.
            restless.discard(fd)
            continue
        # First whether it rests: a thread that answers in between would otherwise leave it unheard.
        rests = _rests(line)
        _listen(poller, fd, _wants(line))
        if rests:
            restless.discard(fd)


def _listen(poller: Any, fd: int, events: int) -> None:
    """Hear of these events on an open line; with none, of nothing at all, for it would be told of its end for ever."""
    try:
        if not events:
            poller.unregister(fd)
        else:
            try:
                poller.modify(fd, events)
            except FileNotFoundError:
                poller.register(fd, events)
    except OSError as error:
        # Not known, or closed while the server stops: it is no line any more.
        if error.errno not in (errno.ENOENT, errno.EBADF, errno.EPERM):
            raise


def _wants(line: Any) -> int:
    # Asked in waitress's own order: the server does its housekeeping when it is asked whether it can read.
    reading = select.EPOLLIN | select.EPOLLPRI if line.readable() else 0
    return reading | (select.EPOLLOUT if line.writable() and not line.accepting else 0)


def _rests(line: Any) -> bool:
    """Whether only its peer can make a connection do something; the server itself never rests."""
    requests = getattr(line, "requests", None)
    return requests is not None and not requests and line.readable() and not line.writable()
