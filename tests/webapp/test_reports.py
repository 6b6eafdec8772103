"""The report: who got it, why others did not, and the story of one message."""

from __future__ import annotations

import re

import pytest

from tests import make
from tests.people import Browser
from worker import clock, db
from worker.models import Broadcast, Message, RecipientFile
from worker.settings import Settings

ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def file(database: Settings) -> RecipientFile:
    row = make.broadcast(state="finished")
    return make.file(row, run=1, columns=["phone", "name"])


@pytest.fixture
def failed(file: RecipientFile) -> Message:
    make.messages(file, "delivered", "read")
    found = make.messages(file, "failed", cause="131026", cause_text="undeliverable", row='["+79001112233","Анна"]')
    return found[0]


def test_the_report_groups_causes_and_says_who_can_fix_them(
    sender: Browser, file: RecipientFile, failed: Message
) -> None:
    page = sender.page(f"/broadcasts/{file.broadcast_id}/report", headers=ENGLISH)
    assert "The number is not on WhatsApp" in page and "the recipient" in page and "131026" in page
    assert "status=failed&amp;cause=131026" in page


def test_filters_stand_in_the_address(sender: Browser, file: RecipientFile, failed: Message) -> None:
    url = f"/broadcasts/{file.broadcast_id}/report"
    only = sender.page(f"{url}?status=failed", headers=ENGLISH)
    assert len(re.findall(r"/messages/\d+\" hx-get", only)) == 1
    assert "Nothing was found" in sender.page(f"{url}?phone=%2B7999", headers=ENGLISH)
    for wrong in ("status=nonsense", "after=zzz", "run=x", "file=-1"):
        assert sender.get(f"{url}?{wrong}").status_code == 404, wrong


def test_long_reports_come_in_pages(sender: Browser, file: RecipientFile) -> None:
    make.messages(file, *["delivered"] * 120)
    seen: list[str] = []
    url: str | None = f"/broadcasts/{file.broadcast_id}/report"
    while url:
        page = sender.page(url, headers=ENGLISH)
        seen += re.findall(r"/messages/(\d+)\" hx-get", page)
        found = re.search(r'href="([^"]*after=[^"]*)">Next', page)
        url = found[1].replace("&amp;", "&") if found else None
    assert len(seen) == len(set(seen)) == 120


def test_the_story_of_one_message_tells_everything(sender: Browser, file: RecipientFile, failed: Message) -> None:
    now = clock.now()
    with db.write():
        db.execute(
            "INSERT INTO attempt (message_id, token, at, outcome, code, detail) VALUES (?, ?, ?, ?, ?, ?)",
            [failed.id, "t", now, "rejected", "131026", "undeliverable"],
        )
    page = sender.page(f"/broadcasts/{file.broadcast_id}/messages/{failed.id}", headers=ENGLISH)
    assert "Refused by the provider" in page and "Анна" in page and "Send an SMS" in page
    assert sender.get(f"/broadcasts/{file.broadcast_id + 1}/messages/{failed.id}").status_code == 404
    assert sender.get(f"/broadcasts/{file.broadcast_id}/messages/999999").status_code == 404


def test_an_uncertain_message_is_decided_by_a_person(sender: Browser, file: RecipientFile) -> None:
    one, two = make.messages(file, "uncertain", "uncertain")
    url = f"/broadcasts/{file.broadcast_id}/messages"
    assert "arrives twice" in sender.page(f"{url}/{one.id}", headers=ENGLISH)
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "sent"}).status_code == 303
    assert sender.post(f"{url}/{two.id}/resolve", {"as": "resend"}).status_code == 303
    assert (Message.get_by_id(one.id).status, Message.get_by_id(two.id).status) == ("sent", "queued")
    assert Broadcast.get_by_id(file.broadcast_id).state == "running"  # there is something to send again
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "resend"}).status_code == 303
    assert Message.get_by_id(one.id).status == "sent"  # decided once
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "burn"}).status_code == 400


def test_runs_stand_side_by_side(sender: Browser, file: RecipientFile, failed: Message) -> None:
    from worker.models import Run

    row = file.broadcast_id
    Run.update(started_at=1).where(Run.broadcast == row).execute()
    Run.create(broadcast=row, number=2, started_at=2)
    Broadcast.update(run=2).where(Broadcast.id == row).execute()
    page = sender.page(f"/broadcasts/{row}/report", headers=ENGLISH)
    assert "run=1" in page and "run=all" in page and "131026" not in page
    assert "131026" in sender.page(f"/broadcasts/{row}/report?run=all", headers=ENGLISH)


def test_a_viewer_sees_masked_numbers(viewer: Browser, file: RecipientFile, failed: Message) -> None:
    page = viewer.page(f"/broadcasts/{file.broadcast_id}/report")
    assert failed.phone not in page and "••" in page
    assert viewer.get(f"/broadcasts/{file.broadcast_id}/messages/{failed.id}").status_code == 403


def test_the_export_has_a_row_for_everybody(sender: Browser, file: RecipientFile, failed: Message) -> None:
    answer = sender.get(f"/broadcasts/{file.broadcast_id}/report.csv", headers={"Accept-Language": "ru"})
    lines = answer.data.decode("utf-8-sig").splitlines()
    assert len(lines) == 1 + 3 and lines[0].startswith('"phone";"status"')
    assert any("131026" in line and "Анна" in line for line in lines)
