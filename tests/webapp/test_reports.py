"""The report: who got it, why others did not, and the story of one message."""

from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest
from python_calamine import CalamineWorkbook

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import clock, db, statistics, tasks
from worker.models import Broadcast, Conversation, Message, OptOut, RecipientFile, Run
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


def test_a_code_that_a_gateway_made_up_becomes_no_formula(sender: Browser, file: RecipientFile) -> None:
    make.messages(file, "undelivered", cause='=HYPERLINK("http://evil.example")', row='["+79001112233","Anna"]')
    answer = sender.get(f"/broadcasts/{file.broadcast_id}/report.csv", headers=ENGLISH)
    rows = list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert not any(cell.startswith("=") for row in rows for cell in row)


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
    assert "may arrive twice" in sender.page(f"{url}/{one.id}", headers=ENGLISH)
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "sent"}).status_code == 303
    assert sender.post(f"{url}/{two.id}/resolve", {"as": "resend"}).status_code == 303
    assert (Message.get_by_id(one.id).status, Message.get_by_id(two.id).status) == ("sent", "queued")
    assert Broadcast.get_by_id(file.broadcast_id).state == "running"  # there is something to send again
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "resend"}).status_code == 303
    assert Message.get_by_id(one.id).status == "sent"  # decided once
    assert sender.post(f"{url}/{one.id}/resolve", {"as": "burn"}).status_code == 400


def test_runs_stand_side_by_side(sender: Browser, file: RecipientFile, failed: Message) -> None:
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
    assert len(lines) == 1 + 3 and lines[0].startswith('"Телефон";"Статус";"Код причины"')
    assert any("131026" in line and "Анна" in line and '"Ошибка отправки"' in line for line in lines)


# --- rates, times, the picture


def test_rates_say_of_what_they_are(sender: Browser, file: RecipientFile, failed: Message) -> None:
    page = sender.page(f"/broadcasts/{file.broadcast_id}/report", headers=ENGLISH)
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    text = re.sub(r" +", " ", text)
    assert "Delivered 100% 2 of those sent" in text
    assert "Replied 0% 0 of those delivered" in text
    assert "Did not arrive 33.3% 1 of all" in text
    assert "Read 50% 1 of those delivered" in text


def test_the_timeline_is_a_picture_with_its_table(sender: Browser, file: RecipientFile) -> None:
    at = clock.now()
    make.messages(file, *["delivered"] * 3, sent_at=at, delivered_at=at + 4_000)
    page = sender.page(f"/broadcasts/{file.broadcast_id}/report", headers=ENGLISH)
    assert "<polyline" in page and "line-delivered" in page and "style=" not in page
    table = page.split("The picture as a table")[1].split("</table>")[0]
    assert table.count('<td class="number">3</td>') == 2
    assert "2 sec to 5 sec" in page and "Half of them within" in page


def test_a_large_report_is_counted_by_the_worker_and_looks_again(
    sender: Browser, file: RecipientFile, failed: Message, frozen: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SMALL", 1)
    asked: list[tuple[int, int | None]] = []
    monkeypatch.setattr(tasks, "count_report", lambda *about: asked.append(about))
    row = file.broadcast_id
    Broadcast.update(last_sent_at=frozen.ms).where(Broadcast.id == row).execute()
    page = sender.page(f"/broadcasts/{row}/report", headers=ENGLISH)
    assert "are being counted" in page and "every 3s" in page
    assert asked == [(row, 1)]
    part = f"/broadcasts/{row}/report/facts?run=1"
    assert "every 3s" in sender.partial(part, headers=ENGLISH).text
    statistics.renew(row, 1)
    frozen.tick(seconds=2)
    shown = sender.partial(part, headers=ENGLISH).text
    assert "as of 12:00:00" in shown and "131026" in shown and "every 3s" not in shown
    mark = re.search(r"mark=([^\"]+)\"", sender.page(f"/broadcasts/{row}/report?run=1", headers=ENGLISH))
    assert mark is not None
    assert sender.partial(f"{part}&mark={unescape(mark[1])}").status_code == 204


def test_what_cannot_change_any_more_does_not_look_again(sender: Browser, file: RecipientFile, frozen: Clock) -> None:
    url = f"/broadcasts/{file.broadcast_id}/report/facts"
    Broadcast.update(last_sent_at=frozen.ms).where(Broadcast.id == file.broadcast_id).execute()
    assert "every 15s" in sender.partial(url).text
    frozen.tick(days=4)
    assert "hx-trigger" not in sender.partial(url).text
    assert sender.get(f"/broadcasts/{file.broadcast_id + 1}/report/facts").status_code == 404


def test_files_stand_side_by_side(sender: Browser, file: RecipientFile, failed: Message) -> None:
    url = f"/broadcasts/{file.broadcast_id}/report"
    assert '<h2 class="after">Files' not in sender.page(url, headers=ENGLISH), "one file is the whole"
    make.messages(make.file(file.broadcast, name="more.csv"), "delivered", "failed")
    table = sender.page(url, headers=ENGLISH).split('after">Files')[1].split("</table>")[0]
    assert "more.csv" in table and 'class="number">2</td>' in table


# --- deeds


@pytest.fixture
def waba(database: Settings) -> Broadcast:
    """A finished WhatsApp broadcast: two numbers are not on WhatsApp, one met the marketing limit."""
    row = make.broadcast(state="finished", channel=make.channel(kind="waba", provider="sandbox_waba"))
    Run.update(started_at=1).where(Run.broadcast == row.id).execute()
    file = make.file(row, run=1, accepted=4)
    make.messages(file, "failed", "undelivered", cause="131026")
    make.messages(file, "failed", cause="131049")
    make.messages(file, "uncertain", cause="timeout")
    return row


def test_causes_come_with_what_can_be_done(sender: Browser, viewer: Browser, waba: Broadcast) -> None:
    url = f"/broadcasts/{waba.id}/report"
    page = sender.page(url, headers=ENGLISH)
    rows = page.split('class="causes stacked"')[1].split("</table>")[0].split("<tr>")[2:]
    first, *others = rows
    assert "<b>2</b>" in first and "failed: 1" in first and "undelivered: 1" in first
    assert "causes/sms?cause=131026" in first and "causes/again" not in first and "no use in a retry" in first
    (limited,) = [row for row in others if "131049" in row]
    assert "causes/again?cause=131049" in limited and "causes/sms?cause=131049" in limited
    (unsure,) = [row for row in others if "uncertain: 1" in row]
    assert "/causes/" not in unsure and "report.csv" in unsure
    assert "/causes/" not in viewer.page(url, headers=ENGLISH)
    assert viewer.get(f"/broadcasts/{waba.id}/causes/sms?cause=131026").status_code == 403


def test_deeds_are_about_the_latest_run_and_wait_for_its_end(sender: Browser, waba: Broadcast) -> None:
    url = f"/broadcasts/{waba.id}/report"
    Broadcast.update(state="running").where(Broadcast.id == waba.id).execute()
    page = sender.page(url, headers=ENGLISH)
    assert "causes/again" not in page and "causes/sms" in page
    assert "Only a finished broadcast can be restarted" in page
    Broadcast.update(run=2, state="finished").where(Broadcast.id == waba.id).execute()
    assert "/causes/" not in sender.page(f"{url}?run=1", headers=ENGLISH)


def test_sending_again_asks_first_and_begins_a_run(sender: Browser, waba: Broadcast) -> None:
    url = f"/broadcasts/{waba.id}/causes/again"
    question = sender.page(f"{url}?cause=131049", headers=ENGLISH)
    assert "Run 2 begins" in question and "not got" not in question and "<b>WhatsApp limits" in question
    answer = sender.post(url, {"cause": "131049"})
    assert (answer.status_code, answer.location) == (303, f"/broadcasts/{waba.id}")
    run = Run.get(Run.number == 2)
    assert (run.who, run.cause) == ("undelivered", "131049")
    again = sender.post(url, {"cause": "131049"})
    assert again.status_code == 303 and Run.select().count() == 2
    assert sender.post(url, {"cause": "131026"}).status_code == 404, "it makes no sense for this cause"


def test_the_sms_is_offered_with_its_price_and_becomes_a_draft(sender: Browser, waba: Broadcast) -> None:
    url = f"/broadcasts/{waba.id}/causes/sms"
    assert "no SMS channel" in sender.page(f"{url}?cause=131026", headers=ENGLISH)
    make.channel(name="Trial", price=2.5)
    channel = make.channel(name="Gateway", provider="sms_ru", price=2.5, currency="RUB")
    question = sender.page(f"{url}?cause=131026", headers=ENGLISH)
    assert "Send to these 2 by SMS" in question and "Gateway" in question and "for a segment" in question
    assert "nothing: the sandbox" in question
    assert waba.name in question
    for wrong in ("", "x", "999", str(waba.channel_id)):
        sender.post(url, {"cause": "131026", "channel_id": wrong})
    assert Broadcast.select().count() == 1
    answer = sender.post(url, {"cause": "131026", "channel_id": str(channel.id), "form_token": "t"})
    made = Broadcast.get(Broadcast.id != waba.id)
    assert answer.location == f"/broadcasts/{made.id}/edit"
    assert (made.state, made.channel_id, made.name) == ("draft", channel.id, f"{waba.name} – SMS")
    sender.post(url, {"cause": "131026", "channel_id": str(channel.id), "form_token": "t"})
    assert Broadcast.select().count() == 2


def test_the_stop_list_takes_numbers_that_do_not_exist(sender: Browser, file: RecipientFile) -> None:
    one, two = make.messages(file, "failed", "undelivered", cause="21211")
    url = f"/broadcasts/{file.broadcast_id}/causes/stop"
    assert "Put 2 numbers on the stop list" in sender.page(f"{url}?cause=21211", headers=ENGLISH)
    assert sender.post(url, {"cause": "21211", "reason": "  not a\nnumber "}).status_code == 303
    assert {(found.phone, found.reason) for found in OptOut.select()} == {
        (one.phone, "not a number"),
        (two.phone, "not a number"),
    }
    assert sender.get(f"{url}?cause=131026").status_code == 404
    assert sender.get(f"{url}").status_code == 404


# --- exports and the story


def test_the_workbook_has_what_the_csv_has(sender: Browser, file: RecipientFile, failed: Message) -> None:
    answer = sender.get(f"/broadcasts/{file.broadcast_id}/report.xlsx", headers=ENGLISH)
    assert answer.headers["Content-Disposition"] == f"attachment; filename=report-{file.broadcast_id}.xlsx"
    rows = CalamineWorkbook.from_filelike(io.BytesIO(answer.data)).get_sheet_by_index(0).to_python()
    assert rows[0][:3] == ["Phone", "Status", "Cause code"] and rows[0][-2:] == ["phone", "name"]
    assert [row[1] for row in rows[1:]] == ["Delivered", "Read", "Failed"]
    assert rows[3][2:4] == ["131026", "The number is not on WhatsApp or cannot receive this"]
    assert rows[3][-1] == "Анна" and rows[3][7] == float(failed.line)


def test_exports_can_be_of_some_alone(sender: Browser, file: RecipientFile, failed: Message) -> None:
    url = f"/broadcasts/{file.broadcast_id}/report"
    for what, n in (("cause=131026", 1), ("status=read", 1), ("status=failed&cause=x", 0), ("run=1", 3)):
        assert len(sender.get(f"{url}.csv?{what}").data.splitlines()) == 1 + n, what
    assert sender.get(f"{url}.csv?status=nonsense").status_code == 404


def test_a_story_leads_to_the_conversation(sender: Browser, file: RecipientFile, failed: Message) -> None:
    url = f"/broadcasts/{file.broadcast_id}/messages/{failed.id}"
    made = Conversation.create(
        channel_id=file.broadcast.channel_id, phone=failed.phone, last_in_at=1, last_at=1, created_at=1
    )
    sender.client.application.extensions["molva"].paths |= {"/inbox"}
    assert f'href="/inbox/{made.id}"' in sender.page(url)
    Conversation.delete().execute()
    assert 'href="/inbox/' not in sender.page(url)


# --- all broadcasts compared


def test_all_broadcasts_stand_on_one_page(viewer: Browser, waba: Broadcast) -> None:
    page = viewer.page("/reports", headers=ENGLISH)
    assert f"/broadcasts/{waba.id}/report?run=1" in page and waba.name in page
    assert "Nothing was found" in viewer.page("/reports?name=nobody", headers=ENGLISH)
    assert 'aria-current="page"' in page.split('href="/reports"')[1][:30]
    assert viewer.get("/reports?before=x").status_code == 404


def test_the_comparison_comes_in_pages(viewer: Browser, waba: Broadcast) -> None:
    for n in range(2, 40):
        Run.create(broadcast=waba, number=n, started_at=n)
    first = viewer.page("/reports", headers=ENGLISH)
    following = re.search(r'href="(/reports\?before=\d+)"', first)
    assert first.count("<tr>") == 31 and following is not None
    assert viewer.page(following[1], headers=ENGLISH).count("<tr>") == 10


def test_without_a_broadcast_the_page_says_what_comes(viewer: Browser) -> None:
    assert "No reports yet" in viewer.page("/reports", headers=ENGLISH)
