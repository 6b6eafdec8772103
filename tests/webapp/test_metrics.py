"""/metrics: what Prometheus reads, for a token alone, and true."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import make
from tests.people import Browser
from worker import clock, db, people
from worker.latency import BOUNDS, Latency
from worker.models import Callback, Channel

Headers = dict[str, dict[str, str]]
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)*)\})? (-?[0-9.e+]+|\+Inf)')


def read(client: FlaskClient, api: Headers) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The numbers by name; the format is held to on the way."""
    answer = client.get("/metrics", headers=api["viewer"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    described: set[str] = set()
    assert answer.text.endswith("\n")
    for line in answer.text.splitlines():
        if line.startswith("#"):
            sign, what, name = line.split(" ")[:3]
            assert (sign, what in ("HELP", "TYPE")) == ("#", True)
            described.add(name)
            continue
        parts = SAMPLE.fullmatch(line)
        assert parts is not None, line
        base = re.sub(r"_(bucket|sum|count)$", "", parts[1])
        assert parts[1] in described or base in described, line
        labels = dict(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', parts[2] or ""))
        found.setdefault(parts[1], []).append((labels, float(parts[3])))
    return found


def one(found: dict[str, Any], metric: str, /, **labels: str) -> float:
    """The one number with these labels."""
    fitting = [n for has, n in found[metric] if labels.items() <= has.items()]
    assert len(fitting) == 1, (metric, labels, found[metric])
    return float(fitting[0])


def test_only_a_token_gets_there(client: FlaskClient, api: Headers, admin: Browser) -> None:
    for answer in (client.get("/metrics"), client.get("/metrics?token=x"), admin.get("/metrics")):
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json["error"]["code"] == "unauthorized"
    narrow = people.create_token("prometheus", "viewer", actor="test", areas=["metrics"])
    head = {"Authorization": f"Bearer {narrow}"}
    assert client.get("/metrics", headers=head).status_code == 200
    assert client.get("/api/v1/broadcasts", headers=head).status_code == 403


def test_an_empty_installation_has_its_numbers_too(client: FlaskClient, api: Headers) -> None:
    found = read(client, api)
    assert one(found, "molva_broadcasts", state="running") == 0
    assert one(found, "molva_callbacks_waiting") == 0
    assert one(found, "molva_workers") == 0 and "molva_worker_heartbeat_age_seconds" not in found
    assert one(found, "molva_build_info") == 1 and found["molva_build_info"][0][0]["version"]
    assert one(found, "molva_disk_free_bytes") > 0


def test_messages_are_counted_by_channel_and_status(client: FlaskClient, api: Headers) -> None:
    channel = make.channel(name="Main")
    for _ in range(2):
        make.messages(make.file(make.broadcast(channel=channel, state="finished")), "delivered", "failed")
    make.messages(make.file(make.broadcast(state="running")), "queued")
    found = read(client, api)
    assert one(found, "molva_messages", name="Main", status="delivered") == 2
    assert one(found, "molva_messages", name="Main", status="failed", channel=str(channel.id), kind="sms") == 2
    assert one(found, "molva_broadcasts", state="finished") == 2


def test_a_name_cannot_break_the_format(client: FlaskClient, api: Headers) -> None:
    name = 'a"} 1\nmolva_broadcasts{state="x"} 5\\'
    make.messages(make.file(make.broadcast(channel=make.channel(name=name))), "queued")
    found = read(client, api)
    assert len(found["molva_broadcasts"]) == 5
    assert found["molva_messages"][0][0]["name"] == name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def test_a_queue_that_stands_still_ages(client: FlaskClient, api: Headers, clock: Any) -> None:
    channel = make.channel()
    make.messages(make.file(make.broadcast(channel=channel, state="running")), "queued", "queued", "sent")
    make.messages(make.file(make.broadcast(channel=channel, state="stopped")), "queued")
    clock.tick(seconds=90)
    found = read(client, api)
    assert one(found, "molva_queue_messages", channel=str(channel.id)) == 2
    assert one(found, "molva_queue_age_seconds", channel=str(channel.id)) == 90


def test_a_broadcast_with_nothing_left_does_not_age(client: FlaskClient, api: Headers, clock: Any) -> None:
    make.messages(make.file(make.broadcast(state="running")), "sent")
    clock.tick(hours=1)
    assert [age for _labels, age in read(client, api).get("molva_queue_age_seconds", [])] in ([], [0.0])


def test_callbacks_that_wait_are_counted_with_their_age(client: FlaskClient, api: Headers, clock: Any) -> None:
    now = clock.now()
    for at, done in ((now - 60_000, now), (now - 30_000, None), (now - 10_000, None)):
        Callback.create(channel_id=1, body=b"{}", received_at=at, processed_at=done)
    found = read(client, api)
    assert (one(found, "molva_callbacks_waiting"), one(found, "molva_callbacks_age_seconds")) == (2, 30)


def test_the_worker_shows_itself(client: FlaskClient, api: Headers, clock: Any) -> None:
    make.worker()
    assert one(read(client, api), "molva_workers") == 1
    clock.tick(minutes=2)
    found = read(client, api)
    assert (one(found, "molva_workers"), one(found, "molva_worker_heartbeat_age_seconds")) == (0, 120)


@pytest.mark.parametrize(("changes", "up"), [({}, 1), ({"state": "stopped"}, 0), ({"opened_at": 5}, 0)])
def test_a_channel_is_up_while_it_is_used_and_answers(client: FlaskClient, api: Headers, changes: Any, up: int) -> None:
    channel = make.channel(**changes)
    assert one(read(client, api), "molva_channel_up", channel=str(channel.id)) == up


# ---- how long sending takes


def test_the_times_of_several_processes_and_lives_add_up(client: FlaskClient, api: Headers) -> None:
    channel = make.channel()
    first, second = Latency(), Latency()
    first.add([(channel.id, 0.01), (channel.id, 0.15)])
    second.add([(channel.id, 0.15), (channel.id, 99.0)])
    for process in (first, second, first):  # what was handed over is not counted again
        with db.write():
            process.flush()
    found = read(client, api)
    buckets = [(labels["le"], n) for labels, n in found["molva_send_seconds_bucket"]]
    assert [le for le, _n in buckets] == [f"{bound / 1000:g}" for bound in BOUNDS] + ["+Inf"]
    assert dict(buckets)["0.05"] == 1 and dict(buckets)["0.1"] == 1
    assert dict(buckets)["0.2"] == 3 and dict(buckets)["30"] == 3 and dict(buckets)["+Inf"] == 4
    assert [n for _le, n in buckets] == sorted(n for _le, n in buckets)
    assert one(found, "molva_send_seconds_count") == 4
    assert one(found, "molva_send_seconds_sum") == pytest.approx(99.31)


def test_metrics_stay_fast_with_many_broadcasts(client: FlaskClient, api: Headers) -> None:
    channel = make.channel()
    now = clock.now()
    with db.write():
        db.many(
            "INSERT INTO broadcast (name, state, channel_id, variables, text_version, region, ignore_duplicates,"
            " on_file_delete, rate_per_minute, timezone, run, epoch, next_slot, speed, created_by, created_at, updated_at,"
            " kind) VALUES (?, 'finished', ?, '{}', 1, 'RU', TRUE, 'keep', 1, 'UTC', 1, 0, 0, 0, '', ?, ?, 'list')",
            [(f"B{n}", channel.id, now, now) for n in range(5_000)],
        )
        db.many(
            "INSERT INTO counter (broadcast_id, run, file_id, status, n) VALUES (?, 1, ?, ?, 5)",
            [(n, n, status) for n in range(1, 5_001) for status in ("sent", "delivered", "failed", "read")],
        )
    assert Channel.select().count() == 1
    began = clock.monotonic()
    found = read(client, api)
    assert clock.monotonic() - began < 1.0
    assert one(found, "molva_messages", status="read") == 25_000
