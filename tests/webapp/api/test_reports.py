"""The report as JSON, its exports, and a restart for one cause."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask.testing import FlaskClient
from python_calamine import CalamineWorkbook

from tests import make
from worker import clock, statistics, tasks
from worker.models import RecipientFile, Run

Headers = dict[str, Any]


@pytest.fixture
def file(client: FlaskClient) -> RecipientFile:
    at = clock.now()
    channel = make.channel(kind="waba", provider="sandbox_waba", price=0.5, currency="RUB")
    row = make.broadcast(state="finished", channel=channel)
    Run.update(started_at=at).where(Run.broadcast == row.id).execute()
    found = make.file(row, run=1, accepted=4)
    make.messages(found, "delivered", "read", sent_at=at, delivered_at=at + 2_000)
    make.messages(found, "failed", "undelivered", cause="131049")
    return found


def test_the_report_has_numbers_rates_causes_and_times(client: FlaskClient, api: Headers, file: RecipientFile) -> None:
    url = f"/api/v1/broadcasts/{file.broadcast_id}/report"
    found = client.get(url, headers={**api["viewer"], "Accept-Language": "en"}).json
    assert (found["run"], found["counters"]["total"], found["counting"]) == (1, 4, False)
    rates = {rate["name"]: rate for rate in found["rates"]}
    assert rates["delivered"] == {"name": "delivered", "n": 2, "of": 3, "share": round(2 / 3, 6)}
    assert (rates["lost"]["n"], rates["replied"]["n"]) == (2, 0)
    assert (found["cost"], found["currency"]) == (1.5, "RUB")
    assert {(one["status"], one["n"], one["cause"]["code"]) for one in found["causes"]} == {
        ("failed", 1, "131049"),
        ("undelivered", 1, "131049"),
    }
    assert found["time_to_delivery"]["median"] == 2
    assert sum(found["timeline"]["sent"]) == 2 and found["timeline"]["step"] == 1
    assert found["files"][0]["counters"]["read"] == 1
    assert client.get(f"{url}?run=all", headers=api["viewer"]).json["run"] == "all"
    assert client.get(url).status_code == 401


def test_what_is_not_counted_yet_is_null_and_being_counted(
    client: FlaskClient, api: Headers, file: RecipientFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(statistics, "SMALL", 1)
    monkeypatch.setattr(tasks, "count_report", lambda *about: asked.append(about))
    found = client.get(f"/api/v1/broadcasts/{file.broadcast_id}/report", headers=api["viewer"]).json
    assert (found["counting"], found["timeline"], found["as_of"], found["causes"]) == (True, None, None, [])
    assert asked == [(file.broadcast_id, 1)]


def test_exports_take_the_filters_of_the_messages(client: FlaskClient, api: Headers, file: RecipientFile) -> None:
    url = f"/api/v1/broadcasts/{file.broadcast_id}/report"
    whole = client.get(f"{url}.xlsx", headers=api["viewer"])
    rows = CalamineWorkbook.from_filelike(io.BytesIO(whole.data)).get_sheet_by_index(0).to_python()
    assert len(rows) == 5
    some = client.get(f"{url}.csv?cause=131049&status=failed", headers=api["viewer"])
    assert len(some.data.splitlines()) == 2
    assert client.get(f"{url}.csv?status=nonsense", headers=api["viewer"]).status_code == 422


def test_a_restart_for_one_cause(client: FlaskClient, api: Headers, file: RecipientFile) -> None:
    url = f"/api/v1/broadcasts/{file.broadcast_id}/restart"
    make.messages(file, "failed", cause="131026")
    refused = client.post(url, json={"who": "everyone", "cause": "131049"}, headers=api["sender"])
    assert (refused.status_code, refused.json["error"]["code"]) == (422, "cause_needs_who")
    nobody = client.post(url, json={"who": "failed", "cause": "999"}, headers=api["sender"])
    assert (nobody.status_code, nobody.json["error"]["code"]) == (422, "no_recipients")
    answer = client.post(url, json={"who": "undelivered", "cause": "131049"}, headers=api["sender"])
    assert (answer.status_code, answer.json["run"]) == (200, 2)
    assert Run.get(Run.number == 2).cause == "131049"
