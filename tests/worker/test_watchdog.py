"""A running broadcast that does not move says why within ten seconds: in the page, the API and doctor."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests import make
from tests.conftest import Clock
from tests.product import wait
from webapp import __main__ as command
from webapp.app import build
from webapp.sentences import waiting
from worker import __main__ as process
from worker import broadcasts, db, delivery, locks, watchdog
from worker.models import Broadcast, Channel, Run, Worker
from worker.settings import Settings


@pytest.fixture
def standing(database: Settings, frozen: Clock) -> Callable[..., Broadcast]:
    """A running broadcast with `statuses`, whose last change is a minute ago; its worker lives."""

    def made(*statuses: str, **columns: Any) -> Broadcast:
        frozen.tick(minutes=-1)
        broadcast = make.broadcast(state="running", **columns)
        Run.update(started_at=frozen.ms).where(Run.broadcast == broadcast.id).execute()
        make.messages(make.file(broadcast), *statuses)
        frozen.tick(minutes=1)
        make.worker()
        return Broadcast.get_by_id(broadcast.id)

    return made


def test_who_does_not_run_has_no_reason(database: Settings) -> None:
    for state in ("draft", "scheduled", "stopped", "finished"):
        assert watchdog.why(make.broadcast(state=state, waiting={"code": "retry"})) is None


def test_a_worker_that_does_not_show_itself_for_ten_seconds_is_named(
    standing: Callable[..., Broadcast], frozen: Clock
) -> None:
    broadcast = standing("queued", waiting={"code": "breaker", "until": frozen.ms + 60_000})
    frozen.tick(seconds=9)
    assert watchdog.why(broadcast) == {"code": "breaker", "until": frozen.ms + 51_000}
    frozen.tick(seconds=2)
    assert watchdog.why(broadcast) == {"code": "worker"}


@pytest.mark.sqlite
def test_a_worker_that_lives_but_cannot_write_is_not_called_dead(
    standing: Callable[..., Broadcast], frozen: Clock, settings: Settings
) -> None:
    broadcast = standing("queued")
    held = locks.hold(locks.worker_file(settings, Worker.get().id))
    assert held is not None
    frozen.tick(seconds=20)
    assert watchdog.why(broadcast) == {"code": "stuck"}
    with closing(sqlite3.connect(settings.database_path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        assert watchdog.why(broadcast) == {"code": "locked"}
    held.close()
    assert watchdog.why(broadcast) == {"code": "worker"}


def test_a_full_disk_comes_before_all_else(
    standing: Callable[..., Broadcast], frozen: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast = standing("queued")
    monkeypatch.setattr(watchdog, "free_space", lambda: watchdog.DISK_MIN - 1)
    assert watchdog.why(broadcast) == {"code": "disk"}
    frozen.tick(minutes=1)  # nor could a heartbeat be written any more
    assert watchdog.why(broadcast) == {"code": "disk"}


@pytest.mark.parametrize("code", ["provider_asked", "rate", "retry", "breaker", "daily_limit"])
def test_what_the_sender_said_holds_until_its_time_is_over(
    standing: Callable[..., Broadcast], frozen: Clock, code: str
) -> None:
    said = {"code": code, "until": frozen.ms + 5_000}
    broadcast = standing("queued", waiting=said)
    assert watchdog.why(broadcast) == said
    frozen.tick(seconds=16)
    Worker.update(heartbeat_at=frozen.ms).execute()
    assert watchdog.why(broadcast) == {"code": "stuck"}


def test_nothing_is_wrong_for_the_first_ten_seconds(database: Settings, frozen: Clock) -> None:
    make.worker()
    broadcast = make.broadcast(state="running")
    make.messages(make.file(broadcast), "queued")
    frozen.tick(seconds=9)
    assert watchdog.why(broadcast) is None
    frozen.tick(seconds=2)
    Worker.update(heartbeat_at=frozen.ms).execute()
    assert watchdog.why(broadcast) == {"code": "stuck"}


def test_one_that_moves_is_left_alone(standing: Callable[..., Broadcast], frozen: Clock) -> None:
    assert watchdog.why(standing("queued", last_sent_at=frozen.ms - 3_000)) is None
    # Refused one after the other: nothing is sent, and yet it moves.
    assert watchdog.why(standing("queued", "failed", next_slot=(frozen.ms - 3_000) * 1000)) is None


@pytest.mark.parametrize(
    ("statuses", "columns", "code"),
    [
        (("queued", "sending"), {}, "provider_slow"),
        (("sending",), {}, "provider_slow"),
        (("queued",), {}, "stuck"),
        (("sent",), {}, "stuck"),  # nobody ends it
        (("queued",), {"rate_per_minute": 1, "next_slot": 40}, "rate"),
    ],
)
def test_silence_is_explained_by_what_the_tables_say(
    standing: Callable[..., Broadcast],
    frozen: Clock,
    statuses: tuple[str, ...],
    columns: dict[str, Any],
    code: str,
) -> None:
    if "next_slot" in columns:
        columns = columns | {"next_slot": (frozen.ms + columns["next_slot"] * 1000) * 1000}
    found = watchdog.why(standing(*statuses, **columns))
    assert found is not None and found["code"] == code


def test_a_slot_beyond_the_pace_is_a_jump_of_the_clock_and_no_reason(
    standing: Callable[..., Broadcast], frozen: Clock
) -> None:
    broadcast = standing("queued", next_slot=(frozen.ms + 7_200_000) * 1000)
    assert watchdog.why(broadcast) == {"code": "stuck"}


def test_a_channel_out_of_use_a_later_try_and_a_new_run_are_named(
    standing: Callable[..., Broadcast], frozen: Clock
) -> None:
    broadcast = standing("queued")
    with db.write():
        db.execute("UPDATE message SET not_before = ?", [frozen.ms + 30_000])
    assert watchdog.why(broadcast) == {"code": "retry", "until": frozen.ms + 30_000}
    Channel.update(state="stopped").execute()
    assert watchdog.why(Broadcast.get_by_id(broadcast.id)) == {"code": "channel"}
    Run.update(copied=False).execute()
    assert watchdog.why(broadcast) == {"code": "copying"}


def test_messages_that_are_put_off_again_and_again_are_named(standing: Callable[..., Broadcast], frozen: Clock) -> None:
    broadcast = standing("queued", "queued", next_slot=(frozen.ms - 500) * 1000)  # something is always being tried
    assert watchdog.why(broadcast) is None
    db.execute("UPDATE message SET not_before = ? WHERE line = 2", [frozen.ms + 60_000])
    assert watchdog.why(broadcast) == {"code": "retry", "until": frozen.ms + 60_000}


def test_a_neighbour_that_holds_the_lines_is_a_slow_provider(standing: Callable[..., Broadcast]) -> None:
    broadcast = standing("queued")
    neighbour = make.broadcast(state="running", channel=broadcast.channel)
    make.messages(make.file(neighbour), "sending")
    assert watchdog.why(broadcast) == {"code": "provider_slow"}


def test_times_from_before_the_clock_was_set_back_hide_nothing(
    standing: Callable[..., Broadcast], frozen: Clock
) -> None:
    broadcast = standing("queued", last_sent_at=frozen.ms)
    frozen.tick(hours=-2)
    Worker.update(heartbeat_at=frozen.ms).execute()
    assert watchdog.why(broadcast) == {"code": "stuck"}


def test_a_file_is_named_only_while_it_is_checked(standing: Callable[..., Broadcast]) -> None:
    broadcast = standing(waiting={"code": "file_checking"})
    assert watchdog.why(broadcast) == {"code": "stuck"}
    make.file(broadcast, state="checking")
    assert watchdog.why(broadcast) == {"code": "file_checking"}


# --- said in the page, the API and on the console -----------------------------------------------------


@pytest.mark.parametrize(
    ("found", "english", "russian"),
    [
        (
            {"code": "provider_asked", "until": 95_000},
            "Waiting: the provider asks to wait until 12:01:35 PM",
            "Ждём: провайдер просит подождать до 12:01:35",
        ),
        (
            {"code": "rate", "until": 37_000},
            "Waiting: next message in 37 seconds",
            "Ждём: следующее сообщение через 37 секунд",
        ),
        (
            {"code": "daily_limit", "until": 13 * 3_600_000},
            "Waiting: the channel's daily limit is used up, going on at Nov 6, 1:00 AM",
            "Ждём: суточный лимит канала исчерпан, продолжим 6 нояб., 01:00",
        ),
        (
            {"code": "quiet_hours", "until": 21 * 3_600_000},
            "Waiting: quiet hours until Nov 6, 9:00 AM",
            "Ждём: тихие часы до 6 нояб., 09:00",
        ),
        (
            {"code": "breaker", "until": 60_000},
            "Waiting: the provider does not respond, probing each minute",
            "Ждём: провайдер не отвечает, проверяем каждую минуту",
        ),
        (
            {"code": "worker"},
            "Nothing is being sent: the worker is not running",
            "Отправка не работает: служба отправки не запущена",
        ),
        ({"code": "disk"}, "Nothing is being sent: the disk is full", "Отправка не работает: диск заполнен"),
    ],
)
def test_every_reason_has_words_with_its_time(
    database: Settings, frozen: Clock, found: dict[str, Any], english: str, russian: str
) -> None:
    if "until" in found:
        found = found | {"until": frozen.ms + found["until"]}
    app = build(database)
    for language, text in (("en", english), ("ru", russian)):
        with app.test_request_context(headers={"Accept-Language": language}):
            assert waiting(found).replace("\u202f", " ").replace("\xa0", " ") == text


def test_every_code_has_words_in_the_page_and_on_the_console(database: Settings) -> None:
    with build(database).test_request_context():
        for code in command.WAITS:
            assert waiting({"code": code})
            assert waiting({"code": code, "until": 1})
    assert set(watchdog.NEEDS_A_PERSON) <= set(command.WAITS)


def test_the_page_and_the_api_say_the_same(client: FlaskClient, standing: Callable[..., Broadcast]) -> None:
    broadcast = standing("queued")
    key = {"Authorization": f"Bearer {make.token()}", "Accept-Language": "en"}
    shown = client.get(f"/api/v1/broadcasts/{broadcast.id}", headers=key).json
    assert shown is not None
    assert (shown["waiting"], shown["waiting_until"]) == ("stuck", None)
    assert shown["waiting_text"] == "Nothing is being sent, and the cause is not known"
    assert "molva doctor" in shown["waiting_advice"]


def test_healthz_is_503_ten_seconds_after_the_last_heartbeat(client: FlaskClient, frozen: Clock) -> None:
    make.worker()
    frozen.tick(ms=delivery.ALIVE)
    assert client.get("/healthz").status_code == 200
    frozen.tick(ms=1)
    answer = client.get("/healthz")
    assert (answer.status_code, (answer.json or {})["worker"]) == (503, "late")


def test_doctor_names_every_broadcast_that_does_not_move(
    standing: Callable[..., Broadcast], settings: Settings, frozen: Clock
) -> None:
    stuck = standing("queued", name="Sale\x1b[31m")
    waits = standing("queued", name="Later", waiting={"code": "provider_asked", "until": frozen.ms + 60_000})
    standing("queued", name="Moves", last_sent_at=frozen.ms)
    found = {text: level for level, text in command._findings(settings)}
    text = f"broadcast {stuck.id} “Sale[31m” waits: nothing is being sent, and the cause is not known: look at the log"
    assert found[text] == "WRONG"
    asked = next(text for text in found if f"broadcast {waits.id} " in text)
    assert found[asked] == "note"
    assert "“Later” waits: the provider asks to wait, until 2026-11-05T" in asked
    assert not any("Moves" in text for text in found)
    assert found["the disk of the data folder has room"] == "ok"


def test_a_busy_worker_keeps_showing_itself(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.BEAT_EVERY * 1000 * 3 <= delivery.ALIVE
    monkeypatch.setattr(process, "BEAT_EVERY", 0.02)
    busy, free = threading.Event(), threading.Event()

    def long_work() -> list[int]:
        busy.set()
        free.wait(10)
        return []

    monkeypatch.setattr(broadcasts, "start_due", long_work)
    worker = process.WorkerProcess(database)
    worker.start()
    try:
        assert busy.wait(5)
        Worker.update(heartbeat_at=0).execute()
        wait(delivery.worker_alive, 5)
    finally:
        free.set()
        worker.stop()
