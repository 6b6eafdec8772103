"""The stop list on the pages: found, added to, taken from, brought in and out, by whom it may be."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.people import Browser
from tests.webapp.test_files import multipart
from worker import channels, confirmations, db, delivery, optouts
from worker.models import Audit, Channel, OptOut, Setting
from worker.optouts import ALL, MARKETING, Entry
from worker.providers import meta_webhooks
from worker.rendering import STOP_PAYLOAD
from worker.settings import Settings

ENGLISH = {"Accept-Language": "en"}
PHONE = "+79010000001"
SHOWN = "+7\u00a0901\u00a0000-00-01"


def put(*phones: str, source: str = "person", scope: str = ALL, reason: str = "asked") -> list[int]:
    with db.write():
        optouts.put([Entry(phone, scope, reason) for phone in phones], source, actor="anna")
    return [row.id for row in OptOut.select().order_by(OptOut.id)]


# --- the list -----------------------------------------------------------------------------------------


def test_an_empty_list_says_what_it_is_for(sender: Browser) -> None:
    page = sender.page("/optouts", headers=ENGLISH)
    assert "The stop list is empty" in page and "replies STOP" in page
    assert 'href="/optouts" aria-current="page"' in page, "the menu leads here"


def test_a_number_is_found_however_it_is_typed(sender: Browser) -> None:
    put(PHONE, "+79020000002")
    for typed in ("8 (901) 000-00-01", "%2B7901", "+79010000001", "7901"):
        page = sender.page(f"/optouts?phone={typed}", headers=ENGLISH)
        assert "+7901•••••01" in page and "902" not in page.split("<tbody>")[1], typed
        assert SHOWN not in page, "the whole number stands one click further, where the audit log sees it"
    assert "Nothing was found" in sender.page("/optouts?phone=12", headers=ENGLISH)


def test_filters_and_pages_stand_in_the_address(sender: Browser) -> None:
    put(*(f"+7901{n:07d}" for n in range(60)), source="reply")
    put("+79020000002", scope=MARKETING)
    seen: list[str] = []
    url: str | None = "/optouts?source=reply"
    while url:
        page = sender.page(url, headers=ENGLISH)
        assert "On the list: 61" in page and "marketing only: 1" in page
        seen += re.findall(r'href="/optouts/(\d+)"', page)
        found = re.search(r'href="([^"]*after=[^"]*)">Next', page)
        url = found[1].replace("&amp;", "&") if found else None
    assert len(seen) == len(set(seen)) == 60
    only = sender.page("/optouts?scope=marketing", headers=ENGLISH)
    assert len(re.findall(r'href="/optouts/(\d+)"', only)) == 1
    for wrong in ("source=nobody", "scope=some", "after=zzz"):
        assert sender.get(f"/optouts?{wrong}").status_code == 404, wrong


def test_who_may_what(admin: Browser, sender: Browser, viewer: Browser, stranger: Browser) -> None:
    (number,) = put(PHONE)
    mine = ("/optouts", "/optouts/add", f"/optouts/{number}", f"/optouts/{PHONE}")
    admins = ("/optouts/import", "/optouts/export.csv", "/optouts/settings", f"/optouts/{number}/remove")
    for path in (*mine, *admins):
        assert admin.get(path).status_code == 200, path
        assert sender.get(path).status_code == (200 if path in mine else 403), path
        assert viewer.get(path).status_code == 403, path
        assert stranger.get(path).status_code == 302, path
    for path in admins:
        assert path not in sender.page("/optouts") + sender.page(f"/optouts/{number}"), path


# --- by hand ------------------------------------------------------------------------------------------


def form(**changes: str) -> dict[str, str]:
    return {"phones": "8 901 000-00-01", "region": "ru", "scope": ALL, "reason": "asked by phone", **changes}


def test_pasted_numbers_are_added_and_the_others_named(sender: Browser) -> None:
    put("+79010000002")
    answer = sender.post("/optouts/add", form(phones="89010000001\n89010000002, x1"), headers=ENGLISH)
    assert "Rows: 3. Added: 1, there already: 1, with an error: 1" in answer.text
    assert "Row 2: “x1” is not a phone number" in answer.text
    row = OptOut.get(OptOut.phone == PHONE)
    assert (row.source, row.reason) == ("person", "asked by phone")
    assert optouts.history(PHONE)[0].actor == "sender@example.org"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"phones": ""}, "Enter a phone number"),
        ({"phones": "12345"}, "“12345” is not a phone number"),
        ({"region": "XX"}, "There is no such country code"),
        ({"scope": "some"}, "Choose one of the offered values"),
        ({"reason": "  "}, "Fill this in"),
        ({"reason": "x" * 201}, "up to 200 characters"),
    ],
)
def test_what_cannot_be_used_is_said_beside_its_field_and_nothing_is_stored(
    sender: Browser, changes: dict[str, str], sentence: str
) -> None:
    answer = sender.post("/optouts/add", form(**changes), headers=ENGLISH)
    assert answer.status_code == 422 and sentence in answer.text
    assert changes.get("phones", "8 901 000-00-01") in answer.text, "what was typed stays"
    assert OptOut.select().count() == 0


def test_a_number_is_read_by_the_country_that_is_typed(sender: Browser) -> None:
    assert sender.post("/optouts/add", form(phones="020 7946 0958", region="gb")).status_code == 200
    assert OptOut.get().phone == "+442079460958"


def test_a_number_is_taken_off_with_a_reason_and_its_history_stays(admin: Browser, sender: Browser) -> None:
    (number,) = put(PHONE)
    question = admin.partial(f"/optouts/{number}/remove", headers=ENGLISH)
    assert SHOWN in question.text and question.headers["HX-Retarget"] == "#dialog"
    again = admin.post(f"/optouts/{number}/remove", {"reason": ""}, htmx=True, headers=ENGLISH)
    assert again.status_code == 422 and "Fill this in" in again.text and OptOut.select().count() == 1
    assert sender.post(f"/optouts/{number}/remove", {"reason": "x"}).status_code == 403
    answer = admin.post(f"/optouts/{number}/remove", {"reason": "put there by mistake"})
    assert answer.status_code == 303
    page = sender.page(answer.headers["Location"], headers=ENGLISH)
    assert "Not on the stop list now" in page
    assert "put there by mistake" in page and "admin@example.org" in page and "asked" in page
    assert f'href="/optouts/{PHONE}"' in sender.page(f"/optouts?phone={PHONE}").replace("%2B", "+")
    assert admin.get(f"/optouts/{number}/remove").status_code == 404


def test_the_history_shows_the_persons_own_words_as_text(sender: Browser, settings: Settings) -> None:
    sms = channels.ensure_sandbox(settings)[1]
    with db.write():
        optouts.put([Entry(PHONE, ALL, "<b>стоп</b>")], "reply", channel_id=sms.id)
        optouts.record(PHONE, "provider", "131050", sms.id, MARKETING)
    page = sender.page(f"/optouts/{OptOut.get().id}", headers=ENGLISH)
    assert "&lt;b&gt;стоп&lt;/b&gt;" in page and "SMS sandbox" in page
    assert "The person has opted out of marketing" in page, "a vendor's code in words"
    assert "+7901•••••01" in page.split("</title>")[0], "no full number in a title"


@pytest.mark.parametrize("path", ["/optouts/99", f"/optouts/{PHONE}", "/optouts/x", f"/optouts/{2**70}"])
def test_a_number_that_never_was_on_the_list_has_no_page(sender: Browser, path: str) -> None:
    assert sender.get(path).status_code == 404


# --- in and out ---------------------------------------------------------------------------------------


def bring(who: Browser, data: bytes, htmx: bool = False, **fields: str) -> Any:
    given = {"scope": ALL, "file": (io.BytesIO(data), "список.csv"), **fields}
    return who.post("/optouts/import", given, htmx=htmx, headers=ENGLISH, content_type="multipart/form-data")


def test_a_file_is_brought_in_with_its_counts(admin: Browser) -> None:
    data = "Телефон;Имя\r\n89010000001;Анна\r\n123;Борис\r\n89010000001;Анна\r\n".encode("cp1251")
    answer = bring(admin, data, reason="from the CRM")
    assert answer.status_code == 200
    assert "Rows: 3. Added: 1, there already: 1, with an error: 1" in answer.text
    assert "Row 3: “123” is not a phone number" in answer.text
    row = OptOut.get()
    assert (row.phone, row.source, row.reason) == (PHONE, "import", "from the CRM")


@pytest.mark.parametrize(
    ("data", "fields", "sentence"),
    [
        (b"", {}, "The file is empty"),
        (b"name;town\nA;B", {}, "No phone column found"),
        (b"phone\n+79010000001", {"reason": "x" * 201}, "up to 200 characters"),
        (b"phone\n+79010000001", {"encoding": "rot13"}, "The encoding could not be detected"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(
    admin: Browser, data: bytes, fields: dict[str, str], sentence: str
) -> None:
    for htmx in (False, True):
        answer = bring(admin, data, htmx, **fields)
        assert answer.status_code == 422 and sentence in answer.text
    assert "Choose a file" in admin.post("/optouts/import", {"scope": ALL}, headers=ENGLISH).text
    assert OptOut.select().count() == 0


def test_too_large_a_file_is_refused_in_words(admin: Browser) -> None:
    for size, status in ((10 * 1024 * 1024 + 1, 422), (13 * 1024 * 1024, 413)):
        answer = admin.post("/optouts/import", htmx=True, headers=ENGLISH, **multipart(size))
        assert answer.status_code == status and "10" in answer.text, size
    assert (
        "Split it and import the parts"
        in admin.post("/optouts/import", headers=ENGLISH, **multipart(10**7 + 10**6)).text
    )
    assert OptOut.select().count() == 0


@pytest.mark.parametrize("language", ["ru", "en"])
def test_what_goes_out_comes_in_again(admin: Browser, settings: Settings, language: str) -> None:
    sms = channels.ensure_sandbox(settings)[1]
    with db.write():
        optouts.put([Entry(PHONE, ALL, "=1+1")], "reply", channel_id=sms.id)
        optouts.put([Entry("+79010000002", MARKETING, "по телефону; «да»")], "person")
        optouts.put([Entry("=cmd|' /C calc'!A0", ALL)], "reply")
    answer = admin.get("/optouts/export.csv", headers={"Accept-Language": language})
    assert answer.headers["Content-Disposition"] == "attachment; filename=optouts.csv"
    text = answer.data.decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text), delimiter=";" if language == "ru" else ","))
    assert [len(row) for row in rows] == [6] * 4
    assert [row[0] for row in rows[1:]] == [PHONE, "+79010000002", "'=cmd|' /C calc'!A0"]
    assert rows[1][2] == "'=1+1", "a spreadsheet takes none of it for a formula"
    assert rows[0][0] == {"ru": "Телефон", "en": "Phone"}[language]
    assert Audit.select().where(Audit.action == "optout.export").count() == 1
    OptOut.delete().execute()
    assert "Added: 2" in bring(admin, answer.data).text
    kept = db.rows("SELECT phone, scope, reason FROM opt_out ORDER BY phone")
    assert kept == [(PHONE, ALL, "=1+1"), ("+79010000002", MARKETING, "по телефону; «да»")]


# --- settings -----------------------------------------------------------------------------------------


def test_words_are_chosen_on_the_page(admin: Browser) -> None:
    assert admin.post("/optouts/settings/words", {"on": ["НЕТ", "YES"], "extra": "Хватит\r\n"}).status_code == 303
    assert optouts.stop_words() == optouts.Words(("Хватит",), ("НЕТ", "YES"))
    page = admin.page("/optouts/settings", headers=ENGLISH)
    assert len(re.findall(r'name="on"[^>]*checked|checked[^>]*name="on"', page)) == 2 and ">\nХватит<" in page.replace(
        "\r", ""
    )
    answer = admin.post("/optouts/settings/words", {"extra": "START"}, headers=ENGLISH)
    assert answer.status_code == 422 and "“START” means something else already" in answer.text
    assert optouts.stop_words().extra == ("Хватит",)


def test_the_answer_is_switched_on_with_its_texts(admin: Browser) -> None:
    texts = {key.replace(".", "_"): text for key, text in confirmations.TEXTS.items()}
    page = admin.page("/optouts/settings", headers=ENGLISH)
    assert "Segments: 1" in page and texts["sms_ru"] in page
    answer = admin.post("/optouts/settings/confirmation", {**texts, "on": "y", "sms_ru": "Свой текст"})
    assert answer.status_code == 303
    assert confirmations.chosen() == confirmations.Confirmation(True, {**confirmations.TEXTS, "sms.ru": "Свой текст"})
    answer = admin.post("/optouts/settings/confirmation", {**texts, "on": "y", "waba_en": " "}, headers=ENGLISH)
    assert answer.status_code == 422 and "Enter the message text" in answer.text
    assert admin.post("/optouts/settings/confirmation", texts).status_code == 303
    assert not confirmations.chosen().on
    assert Setting.select().where(Setting.name == confirmations.CONFIRMATION).count() == 1


# --- what WhatsApp brings -----------------------------------------------------------------------------


@pytest.fixture
def waba(settings: Settings, database: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[0]


def calls(client: FlaskClient, settings: Settings, waba: Channel, field: str, value: dict[str, Any]) -> None:
    """A signed callback takes the whole way: stored, answered, applied."""
    values = channels.all_settings(settings, waba)
    metadata = {"display_phone_number": "79000000000", "phone_number_id": values["phone_number_id"]}
    change = {"field": field, "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}
    entry = {"id": values["waba_id"], "changes": [change]}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    headers = {"X-Hub-Signature-256": meta_webhooks.signature(values["app_secret"], body)}
    assert client.post(f"/hooks/{waba.key}", data=body, headers=headers).status_code == 200
    assert delivery.apply_waiting(channels.Providers(settings)) == 1


def button(n: int, at: int, text: str, payload: str) -> dict[str, Any]:
    item = {"from": PHONE[1:], "id": f"wamid.{n}", "timestamp": str(at), "type": "button"}
    contacts = [{"profile": {"name": "Anna"}, "wa_id": PHONE[1:]}]
    return {"contacts": contacts, "messages": [{**item, "button": {"text": text, "payload": payload}}]}


def test_the_opt_out_button_of_a_template_puts_the_person_on_the_list(
    client: FlaskClient, settings: Settings, waba: Channel
) -> None:
    calls(client, settings, waba, "messages", button(1, 1_793_869_200, "Подробнее", "Подробнее"))
    assert OptOut.select().count() == 0
    calls(client, settings, waba, "messages", button(2, 1_793_869_260, "Больше не надо", STOP_PAYLOAD))
    (row,) = optouts.of_phone(PHONE)
    assert (row.scope, row.source, row.reason, row.at) == (ALL, "reply", "Больше не надо", 1_793_869_260_000)
    calls(client, settings, waba, "messages", button(2, 1_793_869_260, "Больше не надо", STOP_PAYLOAD))
    assert len(optouts.history(PHONE)) == 1


def test_marketing_preferences_of_whatsapp_are_kept_apart_from_the_persons_own_stop(
    client: FlaskClient, settings: Settings, waba: Channel
) -> None:
    def prefers(value: str, at: int) -> None:
        choice = {"wa_id": PHONE[1:], "category": "marketing_messages", "value": value, "timestamp": at, "detail": "x"}
        calls(client, settings, waba, "user_preferences", {"user_preferences": [choice]})

    calls(client, settings, waba, "messages", button(1, 1_793_869_200, "Стоп", STOP_PAYLOAD))
    prefers("stop", 1_793_869_210)
    assert {(row.scope, row.source) for row in optouts.of_phone(PHONE)} == {(ALL, "reply"), (MARKETING, "provider")}
    prefers("resume", 1_793_869_220)
    assert [(row.scope, row.source) for row in optouts.of_phone(PHONE)] == [(ALL, "reply")]
    assert [(event.action, event.scope) for event in optouts.history(PHONE)] == [
        ("remove", MARKETING),
        ("add", MARKETING),
        ("add", ALL),
    ]
