"""Huey: nudges from the web process to the worker. Nothing may depend on a task surviving.

Huey deletes a task before it runs it, so the tables are the truth: what a lost nudge would have begun,
the worker's own tick finds within seconds.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from huey import Huey
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import RedisStorage, SqliteStorage

from worker import broadcasts, channels, clock, db, hashes, overlap, recipients, statistics
from worker.models import Broadcast, RecipientFile
from worker.providers.base import SendError
from worker.settings import Settings

log = logging.getLogger("molva.tasks")

QUEUE_PAUSE = 1.0  # seconds until it is asked again after it did not
QUEUE_PATIENCE = 3.0  # seconds that Redis may take to answer: a nudge is not worth more


class _Readable(Serializer):  # type: ignore[misc]
    """Tasks as JSON: whoever can write to the queue must not be able to run code by it."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Any:
        found = json.loads(data)
        return Message(*found) if len(found) == len(Message._fields) else found


class _Redis(RedisStorage):  # type: ignore[misc]
    """While Redis is away no nudge waits there; the worker's own tick finds the work."""

    def dequeue(self) -> Any:
        return self._unless_away(super().dequeue, None)

    def read_schedule(self, ts: Any) -> Any:
        return self._unless_away(lambda: super(_Redis, self).read_schedule(ts), [])

    @staticmethod
    def _unless_away(ask: Callable[[], Any], nothing: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            return ask()
        except RedisError as error:
            log.warning("Redis does not answer: %s", type(error).__name__)
            clock.sleep(QUEUE_PAUSE)
            return nothing


class _LateHuey(Huey):  # type: ignore[misc]
    """A queue whose place is known only after the settings are; tasks are declared at import."""

    def create_storage(self) -> Any:
        return None


huey = _LateHuey("molva", results=False, utc=True, serializer=_Readable())


class _Process:
    settings: Settings | None = None
    owner: int | None = None
    on_wake: Callable[[], None] = staticmethod(lambda: None)


def configure(settings: Settings, owner: int | None = None, on_wake: Callable[[], None] | None = None) -> None:
    """Name the queue's file; `owner` and `on_wake` in a worker process only."""
    _Process.settings = settings
    _Process.owner = owner
    hashes.configure(settings)
    if on_wake is not None:
        _Process.on_wake = staticmethod(on_wake)
    huey.storage = _storage(settings)


def _storage(settings: Settings) -> Any:
    """Where the nudges lie: Redis by its URL, or a file of the data folder."""
    if settings.queue_url:
        limits = {"socket_timeout": QUEUE_PATIENCE, "socket_connect_timeout": QUEUE_PATIENCE}
        return _Redis("molva", url=_with(settings.queue_url, limits))
    if not settings.queue_path.exists():
        os.close(os.open(settings.queue_path, os.O_CREAT | os.O_RDWR, 0o600))
    # NORMAL is enough for a file that holds only nudges.
    return SqliteStorage("molva", filename=str(settings.queue_path), fsync=False)


def _with(url: str, limits: Mapping[str, float]) -> str:
    return url + ("&" if "?" in url else "?") + urlencode(limits)


def _nudge(task: Any, *arguments: int) -> None:
    """Enqueue, and never fail the caller: the worker's tick finds what a lost nudge meant."""
    if huey.storage is None:
        return
    try:
        task(*arguments)
    except Exception as error:
        log.warning("the queue did not take a nudge: %s", type(error).__name__)


def wake(broadcast_id: int) -> None:
    """Tell the worker that a broadcast may have something to send."""
    _nudge(_wake, broadcast_id)


def read_file(file_id: int) -> None:
    """Tell the worker that a file waits to be checked."""
    _nudge(_read_file, file_id)


def sync_templates(channel_id: int) -> None:
    """Have the templates of a channel fetched."""
    _nudge(_sync_templates, channel_id)


def count_report(broadcast_id: int, run: int | None) -> None:
    """Have the facts of a large report counted; whoever looks asks again, so a lost nudge costs seconds."""
    _nudge(_count_report, broadcast_id, run or statistics.ALL_RUNS)


def copy_run(broadcast_id: int) -> None:
    """Have the rows of a restarted run made."""
    _nudge(_copy_run, broadcast_id)


def count_overlap(broadcast_id: int) -> None:
    """Have the queue of a broadcast gone through for its pre-flight sheet."""
    _nudge(_count_overlap, broadcast_id)


@huey.task(name="wake")  # type: ignore[untyped-decorator]
def _wake(broadcast_id: int) -> None:
    _Process.on_wake()


@huey.task(name="read_file")  # type: ignore[untyped-decorator]
def _read_file(file_id: int) -> None:
    run_read_file(file_id)


@huey.task(name="sync_templates")  # type: ignore[untyped-decorator]
def _sync_templates(channel_id: int) -> None:
    run_sync_templates(channel_id)


@huey.task(name="copy_run")  # type: ignore[untyped-decorator]
def _copy_run(broadcast_id: int) -> None:
    with db.connection():
        if Broadcast.get_or_none(Broadcast.id == broadcast_id) is not None:
            broadcasts.copy_run(broadcast_id)
    _Process.on_wake()


@huey.task(name="count_report")  # type: ignore[untyped-decorator]
def _count_report(broadcast_id: int, run: int) -> None:
    with db.connection():
        statistics.renew(broadcast_id, run)


@huey.task(name="count_overlap")  # type: ignore[untyped-decorator]
def _count_overlap(broadcast_id: int) -> None:
    with db.connection():
        overlap.count(broadcast_id)


def run_read_file(file_id: int) -> None:
    """Check one file against its broadcast's content, in this process."""
    with db.connection():
        file = RecipientFile.get_or_none(RecipientFile.id == file_id)
        if file is None or file.state != "checking" or _Process.settings is None:
            return
        broadcast = file.broadcast
        recipients.check(
            file_id,
            _Process.owner,
            broadcasts.content(broadcast),
            broadcasts.mobile_only(broadcast),
            _Process.settings.uploads,
        )
    _Process.on_wake()


def run_sync_templates(channel_id: int) -> int | None:
    """Fetch templates; None when the provider could not be asked."""
    if _Process.settings is None:
        return None
    try:
        return channels.sync_templates(_Process.settings, channel_id)
    except SendError as error:
        log.info("templates of channel %d: %s", channel_id, error.cause)
        return None
