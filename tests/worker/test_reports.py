"""The report reads what it shows and nothing more, however large the broadcast."""

from __future__ import annotations

from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import clock, db, reports
from worker.models import DeliveryReport, Message, OptOutEvent, RecipientFile, Run
from worker.settings import Settings
from worker.states import MESSAGE_STATUSES


@pytest.fixture
def plans(database: Settings, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How SQLite reads the message table for each query that is made."""
    if database.database_url:
        pytest.skip("speaks of SQLite")
    found: list[str] = []
    rows = db.rows

    def explained(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        if "FROM message" in sql:
            found.extend(step[3] for step in rows(f"EXPLAIN QUERY PLAN {sql}", parameters) if "message" in step[3])
        return rows(sql, parameters)

    monkeypatch.setattr(db, "rows", explained)
    return found


@pytest.mark.parametrize("status", ["failed", "undelivered", "uncertain", "held", "skipped", "cancelled"])
def test_problems_are_listed_through_their_own_index(plans: list[str], status: str) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "sent", status, "delivered", status)
    page = reports.messages(file.broadcast, reports.Filter(run=1, status=status))
    assert [row.line for row in page.items] == [3, 5]
    assert all("INDEX message_problem" in plan for plan in plans) and plans


@pytest.mark.parametrize("run", [1, None])
def test_causes_are_counted_through_the_index_of_the_problems(plans: list[str], run: int | None) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "failed", "failed", "undelivered", cause="meta_131026")
    make.messages(file, "skipped", cause="opted_out")
    found = reports.cause_groups(file.broadcast, run)
    assert found == [("failed", "meta_131026", 2), ("undelivered", "meta_131026", 1)]
    assert all("INDEX message_problem" in plan for plan in plans) and plans


def test_a_page_begins_where_the_last_one_ended(plans: list[str]) -> None:
    file = make.file(make.broadcast())
    make.messages(file, *["delivered"] * 5)
    first = reports.messages(file.broadcast, reports.Filter(run=1), limit=3)
    rest = reports.messages(file.broadcast, reports.Filter(run=1), first.next or "", limit=3)
    assert [row.line for row in (*first.items, *rest.items)] == [2, 3, 4, 5, 6]
    assert all("INDEX message_file_id_run_line" in plan for plan in plans)


@pytest.mark.parametrize(
    ("age", "reported", "expected"),
    [
        (14 * clock.MINUTE, 20, "wait"),
        (16 * clock.MINUTE, 20, "not_sent"),
        (16 * clock.MINUTE, 19, "not_sent"),  # 95 % is healthy
        (16 * clock.MINUTE, 18, "unknown"),
        (71 * clock.HOUR, 0, "unknown"),
        (73 * clock.HOUR, 0, "silent"),
        (73 * clock.HOUR, 20, "not_sent"),
    ],
)
def test_an_uncertain_message_comes_with_what_is_likely_true(
    database: Settings, frozen: Clock, age: int, reported: int, expected: str
) -> None:
    file, at = make.file(make.broadcast()), frozen.ms - age
    neighbours = make.messages(file, *["sent"] * 20, sending_at=at + clock.MINUTE, provider_id="w")
    make.messages(file, *["sent"] * 20, sending_at=at + clock.HOUR, provider_id="w")  # another time tells nothing
    for message in neighbours[:reported]:
        DeliveryReport.create(
            channel_id=1, message_id=message.id, status="delivered", at=at, received_at=at, dedupe=str(message.id)
        )
    (lost,) = make.messages(file, "uncertain", sending_at=at)
    row = reports.message(lost.id)
    assert row is not None and reports.hint(row) == expected
    Message.delete().where(Message.id != lost.id).execute()
    assert reports.hint(row) in ("wait", "unknown", "silent")  # alone, it tells nothing


# --- filters that no index leads to, and those that one does


def pages(file: RecipientFile, **chosen: Any) -> tuple[list[int], int]:
    """(the lines that are found, how many pages it took)."""
    found: list[int] = []
    after, number = "", 0
    while True:
        page = reports.messages(file.broadcast, reports.Filter(**{"run": 1, **chosen}), after)
        found += [row.line for row in page.items]
        number += 1
        if page.next is None:
            return found, number
        after = page.next


def test_a_cause_is_found_through_the_index_whatever_the_status(plans: list[str]) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "undelivered", "delivered", "failed", cause="131026")
    make.messages(file, "failed", cause="131049")
    assert pages(file, cause="131026") == ([2, 4], 1)
    assert pages(file, cause="131026", status="failed") == ([4], 1)
    assert all("INDEX message_problem" in plan for plan in plans) and plans


def test_what_is_rare_is_looked_for_as_long_as_a_page_may_take(
    database: Settings, frozen: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make.file(make.broadcast())
    make.messages(file, *["delivered"] * 10, "sent", *["delivered"] * 9)
    monkeypatch.setattr(reports, "STRETCH", 4)
    assert pages(file, status="sent") == ([12], 1)
    rows = db.rows

    def slow(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        frozen.tick(ms=60 if "line <= ?" in sql else 0)
        return rows(sql, parameters)

    monkeypatch.setattr(db, "rows", slow)
    found, number = pages(file, status="sent")
    assert found == [12]
    assert number > 2, "every page gave up in time, and the next one went on from there"


def test_a_number_is_found_at_once_when_it_has_left_and_by_looking_while_it_waits(plans: list[str]) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "queued", "delivered", "failed", phone="+79001112233")
    make.messages(file, "queued", "delivered", phone="+79004445566")
    assert pages(file, phone="+79001112233") == ([3, 4, 2], 1)
    assert any("INDEX message_phone" in plan for plan in plans)
    assert pages(file, phone="+79001112233", status="queued") == ([2], 1)
    assert pages(file, phone="+7900111", status="failed") == ([4], 1)
    assert pages(file, phone="+7999") == ([], 1)


def test_a_cursor_goes_on_among_those_who_wait(database: Settings) -> None:
    file = make.file(make.broadcast())
    make.messages(file, *["queued"] * 3, *["delivered"] * 3, phone="+79001112233")
    chosen, found, after = reports.Filter(run=1, phone="+79001112233"), [], ""
    for _ in range(3):
        page = reports.messages(file.broadcast, chosen, after, limit=2)
        found += [row.line for row in page.items]
        after = page.next or ""
    assert found == [5, 6, 7, 2, 3, 4]
    for wrong in ("1.2", "1.2.3.4.5", "1.2.x", "-1.2.3"):
        with pytest.raises(ValueError, match="after"):
            reports.messages(file.broadcast, chosen, wrong)


def test_the_beginning_of_many_numbers_is_a_filter_like_any_other(
    plans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "NARROW", 1)
    file = make.file(make.broadcast())
    make.messages(file, "queued", "delivered", "failed", phone="+79001112233")
    assert pages(file, phone="+7900") == ([2, 3, 4], 1)
    assert all("INDEX message_file_id_run_line" in plan for plan in plans)


def test_what_is_on_its_way_is_found_through_its_index(plans: list[str]) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "queued", "sending", "delivered")
    assert pages(file, status="sending") == ([3], 1)
    assert all("INDEX message_sending" in plan for plan in plans)


def test_an_export_can_be_of_some_alone(database: Settings) -> None:
    file = make.file(make.broadcast())
    make.messages(file, "failed", "delivered", "undelivered", cause="131026")
    make.messages(file, "delivered")

    def lines(**chosen: Any) -> list[int]:
        found = reports.export(file.broadcast, reports.Filter(**chosen), step=2)
        return [row[6] for _, batch, _ in found for row in batch]

    assert lines() == [2, 3, 4, 5]
    assert lines(run=1, cause="131026") == [2, 4]
    assert lines(run=1, status="delivered") == [3, 5]
    assert lines(run=2) == []


# --- all broadcasts side by side


def test_runs_are_compared_the_latest_first(database: Settings) -> None:
    price = make.channel(kind="waba", provider="sandbox_waba", price=0.5, currency="RUB")
    first = make.broadcast(name="Осенняя распродажа", channel=price)
    make.messages(make.file(first), "delivered", "read", "failed", "queued")
    second = make.broadcast(name="Spring", text="Hello {{ name }}", channel=make.channel(price=2))
    make.messages(make.file(second), "sent")
    make.broadcast(name="a draft")
    hidden = make.broadcast(kind="direct")
    started = Run.broadcast << [first.id, second.id, hidden.id]
    Run.update(started_at=1).where(started).execute()
    Run.create(broadcast=first, number=2, started_at=2)
    found, following = reports.compare()
    assert [(one.broadcast.name, one.run) for one in found] == [
        ("Осенняя распродажа", 2),
        ("Spring", 1),
        ("Осенняя распродажа", 1),
    ]
    assert following is None
    assert (found[2].numbers["total"], found[2].cost) == (4, 1.0)
    assert found[1].cost is None, "how many parts the messages have is not known"
    page, following = reports.compare(limit=2)
    assert [one.run for one in page] == [2, 1]
    rest, end = reports.compare(before=following, limit=2)
    assert ([one.run for one in rest], end) == ([1], None)
    assert len(reports.compare("РАСПРОДАЖА")[0]) == 2
    assert reports.compare("%")[0] == []


def test_the_cost_counts_the_parts_of_an_sms(database: Settings) -> None:
    row = make.broadcast(text="Я" * 71, channel=make.channel(price=2))
    assert reports.cost(row, {**dict.fromkeys(MESSAGE_STATUSES, 0), "delivered": 10, "queued": 5}) == 40
    varied = make.broadcast(text="{{ name }}", channel=make.channel(price=2))
    make.file(varied, facts={"segments": {"1": 30, "3": 10}})
    assert reports.parts_each(varied) == 1.5
    make.file(varied)
    assert reports.parts_each(varied) is None, "one file was checked before such facts were kept"
    assert reports.cost(make.broadcast(channel=None), dict.fromkeys(MESSAGE_STATUSES, 1)) is None


def test_the_story_tells_of_the_stop_list_and_of_what_a_report_changed(database: Settings, frozen: Clock) -> None:
    file = make.file(make.broadcast())
    (message,) = make.messages(file, "delivered", sending_at=frozen.ms, sent_at=frozen.ms, delivered_at=frozen.ms + 5)
    row = reports.message(message.id)
    assert row is not None
    assert [event.code for event in reports.story(row)] == ["sending", "sent", "delivered"]
    DeliveryReport.create(
        channel_id=1, message_id=message.id, status="failed", at=frozen.ms + 9, received_at=1, dedupe="x", effect="kept"
    )
    for at, action in ((frozen.ms - 1, "add"), (frozen.ms + 20, "add")):
        OptOutEvent.create(
            phone=message.phone, scope="all", action=action, source="reply", reason="STOP", actor="", at=at
        )
    events = [(event.kind, event.code, event.effect) for event in reports.story(row)]
    assert events[-2:] == [("report", "failed", "kept"), ("stop", "add", None)]
    assert len(events) == 4, "delivered is told by its report, and what was before is no part of the story"
