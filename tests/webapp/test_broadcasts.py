"""The pages of a broadcast, in a browser with and without JavaScript."""

from __future__ import annotations

import io
import json
import re

import pytest

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import broadcasts, channels, clock, recipients
from worker.models import Broadcast, Channel, MessageTemplate, RecipientFile
from worker.settings import Settings

FORM = {"name": "Sale", "kind": "sms", "text": "Hi {{name}}", "rate_per_minute": "60", "when": "now"}
FORM |= {"on_file_delete": "keep", "ignore_duplicates": "y", "timezone": "Europe/Moscow"}


@pytest.fixture
def sandbox(settings: Settings, database: Settings) -> dict[str, Channel]:
    return {channel.kind: channel for channel in channels.ensure_sandbox(settings)}


@pytest.fixture
def template(sandbox: dict[str, Channel]) -> MessageTemplate:
    body = {"type": "BODY", "text": "Hi {{1}}, code {{2}}", "example": {"body_text": [["Anna", "7"]]}}
    now = clock.now()
    return MessageTemplate.create(
        channel=sandbox["waba"],
        name="welcome",
        language="ru",
        status="APPROVED",
        category="UTILITY",
        parameter_format="POSITIONAL",
        components=[body],
        synced_at=now,
    )


@pytest.fixture
def draft(settings: Settings, sandbox: dict[str, Channel]) -> Broadcast:
    values = {"name": "Sale", "channel_id": sandbox["sms"].id, "text": "Hi {{name}}", "rate_per_minute": 60}
    row = broadcasts.create(settings, values, "test")
    data = b"phone,name\n+79010000001,<b>A</b>\n123,B\n"
    file = recipients.receive(row, io.BytesIO(data), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(row), True, settings.uploads)
    return Broadcast.get_by_id(row.id)


def state(row: Broadcast) -> str:
    return str(Broadcast.get_by_id(row.id).state)


# --- the list


def test_an_empty_list_offers_the_sandbox_and_its_sample(sender: Browser, sandbox: dict[str, Channel]) -> None:
    assert "/broadcasts/try" in sender.page("/broadcasts")
    sample = sender.get("/broadcasts/trial.csv", headers={"Accept-Language": "ru"})
    assert sample.data.startswith(b"\xef\xbb\xbf") and "телефон;имя" in sample.text
    answer = sender.post("/broadcasts/try", {"form_token": "once"})
    again = sender.post("/broadcasts/try", {"form_token": "once"})
    assert answer.headers["Location"] == again.headers["Location"]  # pressed twice: one draft
    assert Broadcast.select().count() == 1
    assert "Моя первая рассылка" in sender.page(answer.headers["Location"])


def test_the_list_finds_by_a_part_of_the_name_whatever_its_case(sender: Browser, database: Settings) -> None:
    make.broadcast(name="Осенняя распродажа")
    make.broadcast(name="Winter 100%")
    for wanted, others in (("РАСПРО", "Winter"), ("100%", "Осенняя"), ("w", "Осенняя")):
        page = sender.partial("/broadcasts/list", query_string={"name": wanted}).text
        assert others not in page and "<a href" in page
    assert "Nothing was found" in sender.page("/broadcasts?name=zzz", headers={"Accept-Language": "en"})
    assert sender.get("/broadcasts?state=nonsense").status_code == 404


def test_a_long_list_comes_in_pages_that_do_not_repeat(sender: Browser, database: Settings) -> None:
    channel = make.channel()
    for n in range(70):
        make.broadcast(name=f"Number {n:02d}", channel=channel)
    seen: list[str] = []
    url: str | None = "/broadcasts"
    while url:
        page = sender.page(url, headers={"Accept-Language": "en"})
        seen += re.findall(r"Number \d\d", page)
        found = re.search(r'href="(/broadcasts\?[^"]*before=\d+[^"]*)">Next', page)
        url = found[1].replace("&amp;", "&") if found else None
    assert seen == [f"Number {n:02d}" for n in reversed(range(70))]


# --- the settings form


def test_a_form_becomes_a_draft_and_its_page(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = FORM | {"channel_sms": str(sandbox["sms"].id), "form_token": "t1"}
    data |= {"file": (io.BytesIO(b"phone,name\n+79010000001,A\n"), "list.csv")}
    answer = sender.post("/broadcasts/new", data, content_type="multipart/form-data")
    assert answer.status_code == 303
    row = Broadcast.get()
    assert (row.name, row.text, row.state, row.rate_per_minute) == ("Sale", "Hi {{name}}", "draft", 60)
    assert answer.headers["Location"] == f"/broadcasts/{row.id}"
    assert RecipientFile.get().name == "list.csv"  # without JavaScript the file comes with the form


def test_the_same_form_sent_twice_is_one_draft(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = FORM | {"channel_sms": str(sandbox["sms"].id), "form_token": "t1"}
    first, second = (sender.post("/broadcasts/new", data).headers["Location"] for _ in range(2))
    assert first == second and Broadcast.select().count() == 1


def test_a_wrong_form_comes_back_with_what_was_typed(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = FORM | {
        "name": "",
        "text": "Kept {{ words",
        "rate_per_minute": "0",
        "when": "at",
        "send_at": "2001-01-01T10:00",
    }
    page = sender.post("/broadcasts/new", data)
    assert page.status_code == 422
    assert "Kept {{ words" in page.text
    for field in ("name", "text", "rate_per_minute", "send_at"):
        assert f'id="{field}-error"' in page.text, field
    assert 'value="2001-01-01T10:00"' in page.text
    assert Broadcast.select().count() == 0


@pytest.mark.parametrize("rate", ["60 000", "1", "60000", "6,000"])
def test_a_rate_may_be_grouped_by_people(sender: Browser, sandbox: dict[str, Channel], rate: str) -> None:
    data = FORM | {"channel_sms": str(sandbox["sms"].id), "rate_per_minute": rate}
    assert sender.post("/broadcasts/new", data).status_code == 303
    assert Broadcast.get().rate_per_minute == int(re.sub(r"\D", "", rate))


@pytest.mark.parametrize("rate", ["0", "60001", "-1", "abc", "1.5", "", "9" * 400, "²"])
def test_an_impossible_rate_is_refused_beside_its_field(
    sender: Browser, sandbox: dict[str, Channel], rate: str
) -> None:
    data = FORM | {"channel_sms": str(sandbox["sms"].id), "rate_per_minute": rate}
    page = sender.post("/broadcasts/new", data)
    assert (page.status_code, 'id="rate_per_minute-error"' in page.text) == (422, True)


def test_switching_the_kind_swaps_the_fields_and_loses_nothing(sender: Browser, template: MessageTemplate) -> None:
    typed = FORM | {"text": "Do not lose me", "kind": "waba"}
    waba = sender.post("/broadcasts/form", typed, htmx=True).text
    assert 'id="template"' in waba and 'id="text"' not in waba and "Do not lose me" in waba
    chosen = typed | {"template": "welcome|ru", "slot.body.1.source": "column", "slot.body.1.column": "имя"}
    bound = sender.post("/broadcasts/form", chosen, htmx=True).text
    assert 'value="имя"' in bound and "slot.body.2.column" in bound
    back = sender.post("/broadcasts/form", chosen | {"kind": "sms"}, htmx=True).text
    assert 'name="template" value="welcome|ru"' in back and 'value="имя"' in back and "Do not lose me" in back


def test_without_javascript_the_same_switch_is_a_button(sender: Browser, template: MessageTemplate) -> None:
    page = sender.post("/broadcasts/new", FORM | {"kind": "waba", "refresh": "1"})
    assert page.status_code == 200 and 'id="template"' in page.text and 'value="Sale"' in page.text
    assert Broadcast.select().count() == 0


def test_a_waba_form_binds_every_variable(sender: Browser, template: MessageTemplate) -> None:
    data = FORM | {"kind": "waba", "channel_waba": str(template.channel_id), "template": "welcome|ru"}
    data |= {"slot.body.1.source": "column", "slot.body.1.column": "name", "slot.body.1.fallback": "friend"}
    missing = sender.post("/broadcasts/new", data)
    assert missing.status_code == 422 and 'id="slot.body.2-error"' in missing.text
    data |= {"slot.body.2.source": "value", "slot.body.2.value": "42"}
    assert sender.post("/broadcasts/new", data).status_code == 303
    row = Broadcast.get()
    assert row.variables == {"body.1": {"column": "name", "fallback": "friend"}, "body.2": {"value": "42"}}
    page = sender.page(f"/broadcasts/{row.id}/edit")
    assert 'value="friend"' in page and 'value="42"' in page


def test_a_draft_may_be_incomplete(sender: Browser, sandbox: dict[str, Channel]) -> None:
    assert sender.post("/broadcasts/new", {"name": "", "draft": "1", "kind": "sms"}).status_code == 303
    row = Broadcast.get()
    page = sender.page(f"/broadcasts/{row.id}", headers={"Accept-Language": "en"})
    assert "Blocks the start" in page and f"/broadcasts/{row.id}/start" not in page


def test_a_file_dropped_on_a_new_form_makes_it_a_draft(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = FORM | {"form_token": "t9", "name": "", "rate_per_minute": "0"}
    data |= {"file": (io.BytesIO(b"phone,name\n+79010000001,A\n"), "list.csv")}
    answer = sender.post("/broadcasts/form/files", data, htmx=True, content_type="multipart/form-data")
    row = Broadcast.get()
    assert answer.status_code == 200 and "list.csv" in answer.text
    assert answer.headers["HX-Replace-Url"] == f"/broadcasts/{row.id}/edit"
    assert (row.name, row.text) == ("", "Hi {{name}}")  # what could be kept was kept
    saved = sender.post("/broadcasts/new", FORM | {"form_token": "t9", "channel_sms": str(sandbox["sms"].id)})
    assert saved.headers["Location"] == f"/broadcasts/{row.id}"
    assert Broadcast.select().count() == 1


def test_an_empty_file_dropped_on_the_form_is_refused_in_place(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = FORM | {"form_token": "t9", "file": (io.BytesIO(b""), "list.csv")}
    answer = sender.post("/broadcasts/form/files", data, htmx=True, content_type="multipart/form-data")
    assert answer.status_code == 422 and "data-upload-error" in answer.text
    assert RecipientFile.select().count() == 0


def test_the_counter_speaks_while_one_types(sender: Browser, sandbox: dict[str, Channel]) -> None:
    plain = sender.post("/broadcasts/form/counter", {"text": "x" * 161}, htmx=True).text
    assert "161" in plain and "GSM-7" in plain and "2" in plain
    odd = sender.post("/broadcasts/form/counter", {"text": "Sale — today"}, htmx=True).text
    assert "UCS-2" in odd and "—" in odd


def test_the_form_sums_up_what_the_sheet_will_say(sender: Browser, draft: Broadcast) -> None:
    Channel.update(provider="http", price=2.5, currency="EUR").where(Channel.id == draft.channel_id).execute()
    given = {
        "id": str(draft.id),
        "channel_sms": str(draft.channel_id),
        "rate_per_minute": "60",
        "text": draft.text or "",
    }
    sure = figures(sender.post("/broadcasts/form/summary", given, headers=EN).text)
    assert (sure["Recipients"], sure["Segments"], sure["Cost"]) == ("1", "1", "about €2.50")
    typed = figures(sender.post("/broadcasts/form/summary", given | {"text": "x" * 161}, headers=EN).text)
    assert (typed["Segments"], typed["Cost"]) == ("about 2", "about €5.00")
    assert Broadcast.get_by_id(draft.id).text == draft.text


def test_the_form_sums_up_before_there_is_anybody(sender: Browser, sandbox: dict[str, Channel]) -> None:
    given = {"form_token": "t7", "channel_sms": str(sandbox["sms"].id), "rate_per_minute": "60", "text": "x" * 161}
    found = figures(sender.post("/broadcasts/form/summary", given, headers=EN).text)
    assert found == {"Recipients": "0", "Segments": "2 a message", "Cost": "nothing: the sandbox", "Ends": "–"}
    assert not Broadcast.select().exists()


def figures(text: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))


def test_the_end_time_follows_the_rate(sender: Browser, draft: Broadcast) -> None:
    slow = sender.post("/broadcasts/form/summary", {"id": str(draft.id), "rate_per_minute": "1"}, htmx=True).text
    wrong = sender.post("/broadcasts/form/summary", {"id": str(draft.id), "rate_per_minute": "x"}, htmx=True).text
    assert re.search(r"\d\d:\d\d", slow) and not re.search(r"\d\d:\d\d", wrong)


def test_the_file_template_has_exactly_the_needed_columns(sender: Browser, sandbox: dict[str, Channel]) -> None:
    russian = {"Accept-Language": "ru"}
    answer = sender.post("/broadcasts/sample.csv", FORM | {"text": "{{имя}} {{ город | Москва }}"}, headers=russian)
    assert answer.data.decode("utf-8-sig").splitlines()[0] == "телефон;имя;город"
    assert answer.data.startswith(b"\xef\xbb\xbf")
    english = sender.post("/broadcasts/sample.csv", FORM, headers={"Accept-Language": "en"})
    assert english.data.decode("utf-8-sig").splitlines()[0] == "phone,name"
    hostile = sender.post("/broadcasts/sample.csv", FORM | {"text": "{{=HYPERLINK(1)}}"}, headers=russian)
    assert hostile.data.decode("utf-8-sig").splitlines()[0] == "телефон;'=HYPERLINK(1)"  # no formula


def test_after_the_start_only_name_rate_and_policy_change(sender: Browser, draft: Broadcast) -> None:
    sender.post(f"/broadcasts/{draft.id}/start")
    page = sender.page(f"/broadcasts/{draft.id}/edit")
    assert 'id="text"' not in page and 'id="name"' in page
    data = {"name": "New name", "text": "Forged", "rate_per_minute": "120", "on_file_delete": "remove"}
    assert sender.post(f"/broadcasts/{draft.id}/edit", data).status_code == 303
    row = Broadcast.get_by_id(draft.id)
    assert (row.name, row.text, row.rate_per_minute) == ("New name", "Hi {{name}}", 120)


# --- the live page


def test_pages_show_what_a_file_says_as_text(sender: Browser, draft: Broadcast) -> None:
    for path in ("", "/edit", "/report", "/live", "/start"):
        assert "<b>A</b>" not in sender.page(f"/broadcasts/{draft.id}{path}"), path


def test_buttons_ask_with_numbers_and_then_act(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}"
    question = sender.partial(f"{url}/start")
    assert "+7" in question.text and question.headers["HX-Retarget"] == "#dialog"
    for action, now in (("start", "running"), ("stop", "stopped"), ("resume", "running"), ("clear", "draft")):
        assert sender.post(f"{url}/{action}").status_code == 303
        assert state(draft) == now
    assert sender.post(f"{url}/stop").status_code == 303  # pressed too late: the same page
    assert state(draft) == "draft"


def test_a_clear_is_taken_back_while_that_is_offered(sender: Browser, viewer: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}"
    for action in ("start", "stop", "clear"):
        sender.post(f"{url}/{action}")
    assert f"{url}/undo" in sender.page(url) and f"{url}/undo" not in viewer.page(url)
    back = sender.post(f"{url}/undo", htmx=True)
    assert state(draft) == "stopped" and f"{url}/resume" in back.text and f"{url}/undo" not in back.text
    assert "files-changed" in back.headers["HX-Trigger"]
    late = sender.post(f"{url}/undo", htmx=True)  # pressed twice
    assert json.loads(late.headers["HX-Trigger"])["toast"]["level"] == "info" and state(draft) == "stopped"
    sender.post(f"{url}/resume")
    assert state(draft) == "running"


def test_with_htmx_a_button_answers_with_the_new_state(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}"
    started = sender.post(f"{url}/start", htmx=True)
    assert started.status_code == 200 and f"{url}/stop" in started.text and 'id="live"' in started.text
    again = sender.post(f"{url}/start", htmx=True)  # a second browser
    assert again.status_code == 200 and f"{url}/stop" in again.text
    assert json.loads(again.headers["HX-Trigger"])["toast"]["level"] == "info"


def test_a_question_that_came_too_late_leads_back(sender: Browser, draft: Broadcast) -> None:
    answer = sender.get(f"/broadcasts/{draft.id}/restart")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/broadcasts/{draft.id}")


def test_a_restart_proposes_those_whom_the_message_did_not_reach(sender: Browser, draft: Broadcast) -> None:
    sender.post(f"/broadcasts/{draft.id}/start")
    make.messages(RecipientFile.get(RecipientFile.broadcast == draft), "delivered", "undelivered")
    Broadcast.update(state="finished").execute()
    page = sender.page(f"/broadcasts/{draft.id}/restart")
    assert re.findall(r'name="who" value="(\w+)" checked', page) == ["undelivered"]


def test_the_live_part_says_nothing_while_nothing_changes(sender: Browser, draft: Broadcast, clock: object) -> None:
    url = f"/broadcasts/{draft.id}/live"
    mark = re.search(r"mark=([0-9a-f]{8})", sender.partial(url).text)
    assert mark is not None
    assert sender.partial(f"{url}?mark={mark[1]}").status_code == 204
    sender.post(f"/broadcasts/{draft.id}/rate", {"rate_per_minute": "61"})
    assert sender.partial(f"{url}?mark={mark[1]}").status_code == 200


def test_a_missing_button_says_why(sender: Browser, draft: Broadcast) -> None:
    sender.post(f"/broadcasts/{draft.id}/start")
    page = sender.page(f"/broadcasts/{draft.id}", headers={"Accept-Language": "en"})
    assert "Only a stopped broadcast can be resumed" in page
    assert "Only a running broadcast can be stopped" not in page


def test_a_stopped_broadcast_names_cause_and_cure(sender: Browser, database: Settings) -> None:
    detail = {"cause": "190", "text": "Error validating access token"}
    channel = make.channel(state="stopped", stop_reason="190")
    stop = {"stop_reason": "channel", "stop_detail": detail, "stopped_at": clock.now()}
    row = make.broadcast(channel=channel, state="stopped", **stop)
    page = sender.page(f"/broadcasts/{row.id}", headers={"Accept-Language": "en"})
    assert "The access key is refused" in page and "Renew it in the channel settings" in page
    channels.switch_on(channel.id, "anna")
    page = sender.page(f"/broadcasts/{row.id}", headers={"Accept-Language": "en"})
    assert "Renew it in the channel settings" not in page and "The channel is in use again" in page


def test_start_with_a_time_ahead_schedules(sender: Browser, draft: Broadcast) -> None:
    Broadcast.update(send_at=clock.now() + clock.HOUR).where(Broadcast.id == draft.id).execute()
    sender.post(f"/broadcasts/{draft.id}/start")
    assert state(draft) == "scheduled"
    sender.post(f"/broadcasts/{draft.id}/start")  # pressed once more it means: now
    assert state(draft) == "running"


def test_a_draft_is_deleted_after_asking(sender: Browser, draft: Broadcast) -> None:
    assert "a.csv" not in sender.page(f"/broadcasts/{draft.id}/delete")
    assert state(draft) == "draft"
    assert sender.post(f"/broadcasts/{draft.id}/delete").headers["Location"] == "/broadcasts"
    assert Broadcast.select().count() == 0


def test_a_viewer_may_look_and_not_touch(viewer: Browser, draft: Broadcast) -> None:
    page = viewer.page(f"/broadcasts/{draft.id}")
    assert "/start" not in page and "data-upload" not in page
    assert viewer.post(f"/broadcasts/{draft.id}/start").status_code == 403
    assert viewer.get("/broadcasts/new").status_code == 403
    for path in ("999", "99999999999999999999999", "999/live", "999/report"):
        assert viewer.get(f"/broadcasts/{path}").status_code == 404


@pytest.mark.parametrize("language", ["ru", "en"])
@pytest.mark.parametrize("face", ["draft", "scheduled", "running", "stopped", "finished"])
def test_every_state_has_its_pages(sender: Browser, database: Settings, face: str, language: str) -> None:
    row = make.broadcast(state=face, send_at=clock.now() + clock.HOUR, last_sent_at=clock.now())
    file = make.file(row, run=1)
    make.messages(file, "queued", "sent", "delivered", "uncertain", "failed", cause="131026")
    for path in ("", "/live", "/edit", "/report", "/files", f"/files/{file.id}", f"/files/{file.id}/delete"):
        assert sender.page(f"/broadcasts/{row.id}{path}", headers={"Accept-Language": language})


# --- quiet hours, breaks, canaries

EN = {"Accept-Language": "en"}


def test_quiet_hours_are_off_until_somebody_wants_them(sender: Browser, sandbox: dict[str, Channel]) -> None:
    page = sender.page("/broadcasts/new")
    assert 'value="21:00"' in page and 'value="09:00"' in page  # offered
    made = sender.post("/broadcasts/new", {**FORM, "channel_sms": str(sandbox["sms"].id), "quiet_from": "21:00"})
    row = Broadcast.get()
    assert made.status_code == 303 and broadcasts.quiet_hours(row) is None and row.cooldown_days is None


def test_quiet_hours_and_a_break_come_back_as_they_were_typed(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}"
    hours = {"quiet": "y", "quiet_from": "22:30", "quiet_to": "08:00", "cooldown_days": "3"}
    given = {**FORM, "id": str(draft.id), "channel_sms": str(draft.channel_id), **hours}
    assert sender.post(f"{url}/edit", given).status_code == 303
    page = sender.page(f"{url}/edit")
    assert all(f'value="{value}"' in page for value in ("22:30", "08:00", "3"))
    shown = sender.page(url, headers=EN)
    assert "22:30 to 08:00, recipient" in shown and "in the last 3 days" in shown
    sender.post(f"{url}/start")  # and they can be changed while it runs
    assert (
        sender.post(f"{url}/edit", {**FORM, "quiet": "y", "quiet_from": "23:00", "quiet_to": "7:00"}).status_code == 303
    )
    assert broadcasts.quiet_hours(Broadcast.get_by_id(draft.id)) == {"from": "23:00", "to": "07:00"}


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ({"quiet": "y", "quiet_from": "25:00", "quiet_to": "09:00"}, "Enter both times of the quiet hours"),
        ({"quiet": "y", "quiet_from": "21:00", "quiet_to": ""}, "Enter both times of the quiet hours"),
        ({"quiet": "y", "quiet_from": "09:00", "quiet_to": "9:00"}, "begin and end at the same time"),
        ({"cooldown_days": "0"}, "From 1 to 365"),
        ({"cooldown_days": "a week"}, "From 1 to 365"),
    ],
)
def test_impossible_hours_are_refused_beside_their_field(
    sender: Browser, draft: Broadcast, hours: dict[str, str], said: str
) -> None:
    given = {**FORM, "id": str(draft.id), "channel_sms": str(draft.channel_id), **hours}
    answer = sender.post(f"/broadcasts/{draft.id}/edit", given, headers=EN)
    assert answer.status_code == 422 and said in answer.text
    assert all(f'value="{value}"' in answer.text for value in hours.values() if value and value != "y")


def test_the_end_time_heeds_the_night(sender: Browser, draft: Broadcast, clock: object) -> None:
    given = {**FORM, "id": str(draft.id), "rate_per_minute": "1"}
    assert "12:01" in sender.post("/broadcasts/form/summary", given, headers=EN).text
    night = {"quiet": "y", "quiet_from": "12:00", "quiet_to": "15:30"}
    assert "3:31" in sender.post("/broadcasts/form/summary", {**given, **night}, headers=EN).text


def test_the_column_of_the_time_zones_is_named_and_not_called_unused(
    sender: Browser, draft: Broadcast, settings: Settings
) -> None:
    data = b"phone,name,Time zone,town\n+79010000009,A,UTC+7,X\n"
    file = recipients.receive(draft, io.BytesIO(data), "b.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(draft), True, settings.uploads)
    page = sender.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "from the column “Time zone”" in page and "not used: town<" in page


@pytest.fixture
def long_draft(settings: Settings, draft: Broadcast) -> Broadcast:
    data = "phone,name\n" + "".join(f"+7902{n:07d},P{n}\n" for n in range(40))
    file = recipients.receive(draft, io.BytesIO(data.encode()), "b.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(draft), True, settings.uploads)
    return Broadcast.get_by_id(draft.id)


@pytest.mark.parametrize("htmx", [True, False])
def test_a_canary_is_a_button_of_the_question(sender: Browser, long_draft: Broadcast, htmx: bool) -> None:
    url = f"/broadcasts/{long_draft.id}"
    question = sender.partial(f"{url}/start").text if htmx else sender.page(f"{url}/start")
    assert 'name="canary"' in question and 'max="40" value="4"' in question
    sender.post(f"{url}/start", {"canary": "1", "canary_size": "7", "pick": "random"}, htmx=htmx)
    row = Broadcast.get_by_id(long_draft.id)
    assert (row.state, row.canary) == ("running", 7)
    assert "Canary: send the first 7, then stop" in sender.page(url, headers=EN)


def test_the_other_button_sends_to_all(sender: Browser, long_draft: Broadcast) -> None:
    sender.post(f"/broadcasts/{long_draft.id}/start", {"canary_size": "7", "pick": "first"})
    assert Broadcast.get_by_id(long_draft.id).canary is None


@pytest.mark.parametrize(("size", "pick"), [("41", "first"), ("0", "first"), ("", "first"), ("x", "first"), ("5", "x")])
def test_an_impossible_canary_starts_nothing(sender: Browser, long_draft: Broadcast, size: str, pick: str) -> None:
    given = {"canary": "1", "canary_size": size, "pick": pick}
    answer = sender.post(f"/broadcasts/{long_draft.id}/start", given, htmx=True)
    assert json.loads(answer.headers["HX-Trigger"])["toast"]["level"] == "error"
    assert state(long_draft) == "draft"


def test_the_start_time_is_told_in_the_zone_of_the_broadcast(frozen: Clock, sender: Browser, draft: Broadcast) -> None:
    Broadcast.update(timezone="Asia/Vladivostok", send_at=frozen.now() + clock.HOUR).execute()  # 13:00 in Moscow
    url = f"/broadcasts/{draft.id}"
    for page in (sender.page(url, headers=EN), sender.page(f"{url}/start", headers=EN)):
        assert "(Vladivostok, UTC+10)" in page and re.search(r">8:00\sPM</time>", page)
        assert "Asia/Vladivostok" not in page
    assert re.search(r"Starts 8:00\sPM \(Vladivostok, UTC\+10\)", sender.page(url, headers=EN))
    sender.post(f"{url}/start")
    page = sender.page(url, headers=EN)
    assert state(draft) == "scheduled" and page.count("(Vladivostok, UTC+10)") == 3


def test_who_was_not_sent_to_is_one_click_away(sender: Browser, database: Settings) -> None:
    row = make.broadcast(state="finished")
    file = make.file(row)
    make.messages(file, "delivered", "undelivered", "failed", "failed", "cancelled")
    page = sender.page(f"/broadcasts/{row.id}", headers=EN)
    assert "Not sent: 3. Who and why" in page
    for status, text in (("failed", "failed 2"), ("cancelled", "cancelled 1")):
        where = f"/broadcasts/{row.id}/report?run=1&amp;status={status}#messages"
        assert f'href="{where}">{text}</a>' in page
    assert "of 5 sent" not in page  # the balance has said it


def test_the_list_says_why_something_stands(sender: Browser, database: Settings) -> None:
    make.broadcast(state="stopped", stop_reason="person", stop_detail={"by": "vera@example.org"})
    make.broadcast(state="stopped", stop_reason="channel", stop_detail={"cause": "190"})
    page = sender.page("/broadcasts", headers=EN)
    assert ">vera@example.org</span>" in page and ">The access key is refused</span>" in page


def test_a_viewer_is_told_why_there_are_no_controls(viewer: Browser, draft: Broadcast) -> None:
    page = viewer.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "Controls need the role “sender”" in page and "sample.csv" not in page and "trial.csv" not in page


def test_a_test_waits_for_a_message(sender: Browser, draft: Broadcast) -> None:
    Broadcast.update(text=None).execute()
    page = sender.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "A test can be sent when there is a message" in page and "test-phone" not in page
    Broadcast.update(state="finished").execute()
    page = sender.page(f"/broadcasts/{draft.id}", headers=EN)
    assert "can no longer be shown" in page and "not complete yet" not in page and "A test can be" not in page


def test_one_person_is_no_list_for_a_canary(sender: Browser, draft: Broadcast) -> None:
    assert 'name="canary"' not in sender.page(f"/broadcasts/{draft.id}/start")


def test_a_canary_that_is_through_shows_its_result_and_the_way_on(sender: Browser, database: Settings) -> None:
    stop = {"stop_reason": "canary", "stop_detail": {"n": 5}, "stopped_at": clock.now(), "canary": 5}
    row = make.broadcast(state="stopped", **stop)
    file = make.file(row)
    make.messages(file, "delivered", "read", "sent", *["queued"] * 9)
    make.messages(file, "failed", "undelivered", cause="131026")
    url = f"/broadcasts/{row.id}"
    page = sender.page(url, headers=EN)
    assert "Canary sent. Delivered: 2, failed: 2, awaiting a report: 1" in page
    assert "The number is not on WhatsApp or cannot receive this: 1" in page  # of each kind
    assert "Reports still come in" in page and "Send to the rest: 9" in page and f"{url}/clear" in page
    assert "Left to send: 9" in sender.page(f"{url}/resume", headers=EN)
    assert sender.post(f"{url}/resume").status_code == 303
    fresh = Broadcast.get_by_id(row.id)
    assert (fresh.state, fresh.canary) == ("running", None)
    assert "Canary" not in sender.page(url, headers=EN)


def test_a_canary_that_a_person_stopped_is_resumed_as_one(sender: Browser, long_draft: Broadcast) -> None:
    url = f"/broadcasts/{long_draft.id}"
    sender.post(f"{url}/start", {"canary": "1", "canary_size": "7", "pick": "first"})
    sender.post(f"{url}/stop")
    assert "Left of its canary: 7" in sender.page(f"{url}/resume", headers=EN)
    sender.post(f"{url}/resume")
    assert Broadcast.get_by_id(long_draft.id).canary == 7


# --- the form saves itself


def seen(page: str) -> str:
    found = re.search(r'name="seen" value="(\d*)"', page)
    assert found
    return found[1]


def test_what_is_typed_becomes_a_draft_by_itself(sender: Browser, sandbox: dict[str, Channel]) -> None:
    given = {**FORM, "form_token": "t" * 22, "text": "Hi {{", "seen": ""}
    saved = sender.post("/broadcasts/form/draft", given, htmx=True, headers={"Accept-Language": "en"})
    row = Broadcast.get()
    assert saved.headers["HX-Replace-Url"] == f"/broadcasts/{row.id}/edit"
    assert "without what cannot be used yet" in saved.text and (row.name, row.text) == ("Sale", None)
    again = {**given, "text": "Hi", "seen": seen(saved.text)}
    saved = sender.post("/broadcasts/form/draft", again, htmx=True, headers={"Accept-Language": "en"})
    assert re.search(r">Saved [\d:]+", saved.text) and Broadcast.get().text == "Hi"
    last = sender.post("/broadcasts/new", {**again, "text": "Hi there"})
    assert last.status_code == 303 and Broadcast.get().text == "Hi there"


def test_what_saves_itself_never_overtakes_a_person(sender: Browser, draft: Broadcast) -> None:
    page = sender.page(f"/broadcasts/{draft.id}/edit")
    given = {**FORM, "id": str(draft.id), "seen": seen(page), "rate_per_minute": "61"}
    broadcasts.update(Settings(), draft, {"rate_per_minute": 600}, "somebody else")
    assert sender.post("/broadcasts/form/draft", given, htmx=True).status_code == 204
    assert Broadcast.get_by_id(draft.id).rate_per_minute == 600
    # A press on Save is a person's word: it counts, also when it takes back what had saved itself.
    assert sender.post(f"/broadcasts/{draft.id}/edit", {**given, "rate_per_minute": "60"}).status_code == 303
    assert Broadcast.get_by_id(draft.id).rate_per_minute == 60


def test_only_drafts_save_themselves(sender: Browser, draft: Broadcast, settings: Settings) -> None:
    given = {**FORM, "id": str(draft.id), "seen": seen(sender.page(f"/broadcasts/{draft.id}/edit")), "name": "Other"}
    Broadcast.update(state="running").where(Broadcast.id == draft.id).execute()
    assert sender.post("/broadcasts/form/draft", given, htmx=True).status_code == 204
    assert Broadcast.get_by_id(draft.id).name == "Sale"
    assert 'name="seen"' not in sender.page(f"/broadcasts/{draft.id}/edit")


def test_a_dropped_file_tells_the_form_what_it_saved(sender: Browser, sandbox: dict[str, Channel]) -> None:
    data = {**FORM, "form_token": "u" * 22, "file": (io.BytesIO(b"phone,name\n+79010000001,A\n"), "a.csv")}
    answer = sender.post("/broadcasts/form/files", data, htmx=True, content_type="multipart/form-data")
    row = Broadcast.get()
    assert seen(answer.text) == str(row.updated_at)
    again = {**FORM, "form_token": "u" * 22, "seen": seen(answer.text), "name": "Later"}
    assert sender.post("/broadcasts/form/draft", again, htmx=True).status_code == 200
    assert Broadcast.get().name == "Later"
