"""The lines of Providers that receive over a connection of their own: one process at a time keeps each of them.

A vendor often allows an account one connection, so only the process that keeps it sends and receives there. The
lock on a file decides which one that is, and the system drops it when the process dies. Where several hosts share a
database, the lock is the database server's, which drops it with the connection; who has lost it lets the line go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import IO, Protocol, runtime_checkable

from worker import channels, clock, db, delivery, locks
from worker.models import Channel
from worker.providers import PROVIDERS
from worker.providers.base import Provider, RawCallback, Receive
from worker.settings import Settings

log = logging.getLogger("molva.lines")

PROVIDERS_WITH_LINE = frozenset(key for key, provider in PROVIDERS.items() if provider.line)


LINE = 1  # the kind of lock


@runtime_checkable
class Shared(Protocol):
    """A lock that can be lost while its holder lives."""

    def stands(self) -> bool:
        """Whether it is still ours."""

    def close(self) -> None:
        """Give it back."""


_Lock = IO[bytes] | Shared


class Lines:
    """The lines that this process keeps."""

    def __init__(self, settings: Settings, providers: channels.Providers) -> None:
        self._settings = settings
        self._providers = providers
        self._locks: dict[int, _Lock] = {}
        self._open: dict[int, Provider] = {}
        self._lock = threading.Lock()
        self._closed = False

    def may_send(self, channel_id: int, provider: str) -> bool:
        """Whether this process may send on a channel: on one with a line only where the line is kept here."""
        return provider not in PROVIDERS_WITH_LINE or channel_id in self._locks

    def keep(self) -> None:
        """Take the lines that nobody keeps, connect them, and let go of those that are not used any more."""
        with self._lock:
            for lost in [one for one, lock in self._locks.items() if isinstance(lock, Shared) and not lock.stands()]:
                log.warning("channel %d: its line is another process's to keep now", lost)
                self._let_go(lost)
        found = {channel.id: channel for channel in channels.living().where(Channel.provider.in_(PROVIDERS_WITH_LINE))}
        with self._lock:
            if self._closed:
                return
            for gone in set(self._locks) - set(found):
                self._let_go(gone)
            for channel_id, channel in found.items():
                if channel_id not in self._locks:
                    lock = self._hold(channel_id)
                    if lock is None:
                        continue
                    self._locks[channel_id] = lock
                self._connect(channel)

    def _hold(self, channel_id: int) -> _Lock | None:
        if db.is_shared():
            held: _Lock | None = db.hold(LINE, channel_id)
            return held
        return locks.hold(self._settings.data / f"line-{channel_id}.lock")

    def _connect(self, channel: Channel) -> None:
        """Open the line by the channel's present settings; the Provider keeps it connected."""
        try:
            provider = self._providers.get(channel)
        except Exception:
            log.exception("channel %d cannot be used", channel.id)
            return
        if self._open.get(channel.id) is not provider:
            self._open[channel.id] = provider
            provider.open(_receiver(channel.id))

    def _let_go(self, channel_id: int) -> None:
        provider = self._open.pop(channel_id, None)
        if provider is not None:
            provider.close()
        self._locks.pop(channel_id).close()

    def close(self) -> None:
        """Disconnect all lines, for good."""
        with self._lock:
            self._closed = True
            for channel_id in list(self._locks):
                self._let_go(channel_id)


def _receiver(channel_id: int) -> Receive:
    def receive(callbacks: Sequence[RawCallback]) -> bool:
        now = clock.now()
        try:
            with db.connection():
                delivery.receive_all((channel_id, callback, now) for callback in callbacks)
        except db.FAILURES as error:
            log.error("channel %d: what came in could not be stored (%s)", channel_id, type(error).__name__)
            return False
        return True

    return receive
