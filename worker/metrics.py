"""The state of an installation as Prometheus reads it (text format 0.0.4). Every number comes from the tables, so it
is true whichever process is asked, and asking costs the senders nothing."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from worker import clock, db, delivery, watchdog
from worker.latency import BEYOND, BOUNDS
from worker.settings import version
from worker.states import BROADCAST_STATES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


class Sample(NamedTuple):
    """One number; `suffix` is _bucket, _sum or _count for a part of a histogram."""

    labels: Labels
    value: float
    suffix: str = ""


class Metric(NamedTuple):
    name: str
    kind: str  # gauge, counter, histogram
    help: str
    samples: Iterable[Sample]


def text() -> str:
    """Everything, in lines."""
    return "".join(line for metric in _all() for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP molva_{metric.name} {metric.help}\n# TYPE molva_{metric.name} {metric.kind}\n"
    for labels, value, suffix in metric.samples:
        inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        number = f"{value:.15g}"
        yield f"molva_{metric.name}{suffix}{{{inside}}} {number}\n" if inside else f"molva_{metric.name} {number}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _all() -> Iterator[Metric]:
    now = clock.now()
    channels = _channels()
    build = {"version": version(), "python": platform.python_version()}
    yield Metric("build_info", "gauge", "The program that answers.", [Sample(build, 1)])
    yield Metric("broadcasts", "gauge", "Broadcasts by state.", _broadcasts())
    yield Metric("messages", "gauge", "Messages by channel and status.", _messages(channels))
    queue = _queue(now)
    yield Metric(
        "queue_messages",
        "gauge",
        "Messages in the queue of running broadcasts.",
        [Sample(channels.get(id_, {}), n) for id_, (n, _age) in queue.items()],
    )
    yield Metric(
        "queue_age_seconds",
        "gauge",
        "For how long the running broadcast that waits longest has sent nothing, though its queue is not empty.",
        [Sample(channels.get(id_, {}), age / 1000) for id_, (_n, age) in queue.items()],
    )
    yield Metric(
        "send_seconds",
        "histogram",
        "From the claim of a message until the provider's answer is stored.",
        _latency(channels),
    )
    yield Metric("channel_up", "gauge", "1: in use, and its provider responds.", _up(channels))
    waiting, since = _callbacks()
    yield Metric("callbacks_waiting", "gauge", "Callbacks that are stored and not applied.", [Sample({}, waiting)])
    age = (now - since) / 1000 if since else 0
    yield Metric("callbacks_age_seconds", "gauge", "Age of the oldest of them.", [Sample({}, age)])
    alive, latest = _workers(now)
    yield Metric("workers", "gauge", "Worker processes that show themselves.", [Sample({}, alive)])
    yield Metric(
        "worker_heartbeat_age_seconds",
        "gauge",
        "Since when no worker has shown itself; absent while there never was one.",
        [Sample({}, (now - latest) / 1000)] if latest else [],
    )
    yield Metric("webhooks", "gauge", "Webhooks by state.", _webhooks())
    yield Metric("disk_free_bytes", "gauge", "Room in the data folder.", [Sample({}, watchdog.free_space())])


def _channels() -> dict[int, Labels]:
    """The labels of every channel, of deleted ones as well."""
    rows = db.rows("SELECT id, kind, provider, name FROM channel ORDER BY id")
    return {id_: {"channel": str(id_), "kind": k, "provider": p, "name": n} for id_, k, p, n in rows}


def _broadcasts() -> list[Sample]:
    found = dict(db.rows("SELECT state, COUNT(*) FROM broadcast WHERE kind = 'list' GROUP BY state"))
    return [Sample({"state": state}, found.get(state, 0)) for state in BROADCAST_STATES]


def _messages(channels: Mapping[int, Labels]) -> list[Sample]:
    rows = db.rows(
        "SELECT b.channel_id, c.status, SUM(c.n) FROM counter c JOIN broadcast b ON b.id = c.broadcast_id"
        " WHERE b.channel_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [Sample({**channels.get(id_, {}), "status": status}, int(n)) for id_, status, n in rows]


def _queue(now: int) -> dict[int, tuple[int, int]]:
    """Of each channel with running broadcasts: how many are queued, and the longest silence in ms."""
    found: dict[int, tuple[int, int]] = {}
    for channel_id, n, sent_at, updated_at in db.rows(
        "SELECT b.channel_id, SUM(c.n), MAX(b.last_sent_at), MAX(b.updated_at) FROM broadcast b"
        " JOIN counter c ON c.broadcast_id = b.id AND c.run = b.run AND c.status = 'queued'"
        " WHERE b.state = 'running' AND b.channel_id IS NOT NULL GROUP BY b.id, b.channel_id"
    ):
        before = found.get(channel_id, (0, 0))
        age = max(0, now - max(sent_at or 0, updated_at)) if n else 0
        found[channel_id] = (before[0] + int(n), max(before[1], age))
    return found


def _latency(channels: Mapping[int, Labels]) -> Iterator[Sample]:
    """Cumulative, as histograms are: a bound counts everything below it too."""
    of_channel: dict[int, dict[int, tuple[int, int]]] = {}
    for channel_id, upto, n, ms in db.rows("SELECT channel_id, upto, n, ms FROM latency ORDER BY channel_id"):
        of_channel.setdefault(channel_id, {})[upto] = (n, ms)
    for channel_id, found in of_channel.items():
        labels, sum_ = channels.get(channel_id, {}), 0
        for bound in (*BOUNDS, BEYOND):
            sum_ += found.get(bound, (0, 0))[0]
            yield Sample({**labels, "le": f"{bound / 1000:g}" if bound else "+Inf"}, sum_, "_bucket")
        yield Sample(labels, sum(ms for _n, ms in found.values()) / 1000, "_sum")
        yield Sample(labels, sum_, "_count")


def _up(channels: Mapping[int, Labels]) -> list[Sample]:
    rows = db.rows("SELECT id, state = 'on' AND opened_at IS NULL FROM channel WHERE state <> 'deleted' ORDER BY id")
    return [Sample(channels[id_], int(up)) for id_, up in rows]


def _callbacks() -> tuple[int, int | None]:
    """How many wait, and since when the first one does (ms)."""
    n = int(db.value("SELECT COUNT(*) FROM callback WHERE processed_at IS NULL"))
    return n, db.value("SELECT received_at FROM callback WHERE processed_at IS NULL ORDER BY id LIMIT 1")


def _workers(now: int) -> tuple[int, int | None]:
    n = int(db.value("SELECT COUNT(*) FROM worker WHERE heartbeat_at > ?", [now - delivery.ALIVE]))
    return n, db.value("SELECT MAX(heartbeat_at) FROM worker WHERE heartbeat_at > 0")


def _webhooks() -> list[Sample]:
    rows = db.rows(
        "SELECT CASE WHEN state <> 'on' THEN 'stopped' WHEN failing_since IS NULL THEN 'on' ELSE 'failing' END,"
        " COUNT(*) FROM webhook GROUP BY 1"
    )
    found = dict(rows)
    return [Sample({"state": state}, found.get(state, 0)) for state in ("on", "failing", "stopped")]
