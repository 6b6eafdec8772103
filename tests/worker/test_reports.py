"""The report reads what it shows and nothing more, however large the broadcast."""

from __future__ import annotations

from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import clock, db, reports
from worker.models import DeliveryReport, Message
from worker.settings import Settings


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
