"""A newcomer knows before a start what will happen, and afterwards who got it, who did not, and who replied.

One story, in the order in which a person meets it; each of its steps finds what the steps before have left.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.conftest import Window, sign_up
from tests.product import Product
from worker import channels, db
from worker.models import Channel
from worker.providers import sandbox_address

pytestmark = pytest.mark.e2e

Opener = Callable[..., Window]
CANARY = 20
REPLIES, STOPS, SMS_ONLY = "+79000001009", "+79000001010", "+79000001013"
GUESTS = [f"+7901{n:07d}" for n in range(CANARY + 2)]
# Who is only reached by SMS is among the first; who writes back comes after the canary.
PEOPLE = [*GUESTS[:3], SMS_ONLY, *GUESTS[3:], REPLIES, STOPS]
LONGEST = "Константин-Александр"
FINISHED = "#live a[href$='/restart']"
SLOW = 60_000  # ms, for what is sent


@pytest.fixture(autouse=True)
def hurry(product: Product) -> Iterator[None]:
    """Reports and replies of the sandbox come at once, so that nobody waits for them."""
    db.open_database(product.settings)
    with db.connection():
        channel = Channel.get(Channel.provider == "sandbox_sms")
        token = channels.all_settings(product.settings, channel)["token"]
    delays = {name: [0, 0.1] for name in ("sent", "delivered", "read", "failed", "reply")}
    request = urllib.request.Request(
        f"{sandbox_address.read(product.settings.data)}/_control",
        json.dumps(delays).encode(),
        {"Authorization": f"Bearer {token}"},
    )
    urllib.request.urlopen(request, timeout=10).close()
    yield
    db.close()


def people(with_names: bool = True) -> bytes:
    """The list as Russian Excel saves it."""
    names = [LONGEST if n == 7 else f"Гость {n}" for n in range(len(PEOPLE))]
    rows = [f"{phone};{name}" for phone, name in zip(PEOPLE, names, strict=True)] if with_names else PEOPLE
    return "\r\n".join(["Телефон;Имя" if with_names else "Телефон", *rows]).encode("cp1251")


def file(data: bytes) -> dict[str, Any]:
    return {"name": "список.csv", "mimeType": "text/csv", "buffer": data}


def draft_by_whatsapp(one: Window, name: str) -> None:
    """A broadcast with a template, filled in on the page; its list is still missing."""
    page = one.page
    one.open("/channels")
    page.click("text=Песочница WABA")
    browser.reload_until(page, "td >> text=welcome")  # the worker fetches them after the first start
    one.open("/broadcasts/new")
    page.fill("#name", name)
    page.check("input[name=kind][value=waba]")
    page.wait_for_selector("#template")
    page.select_option("#template", value="welcome|ru")
    page.fill("input[name$='.column']", "Имя")
    page.fill("#rate_per_minute", "6000")


def draft_by_sms(one: Window, name: str) -> str:
    """A broadcast by SMS to the same people, ready to start; its address."""
    page = one.page
    one.open("/broadcasts/new")
    page.fill("#name", name)
    page.check("input[name=kind][value=sms]")
    page.fill("#text", "{{ имя }}, у нас новинки. Отписаться: СТОП")
    page.fill("#rate_per_minute", "6000")
    page.set_input_files("#file", file(people()))
    page.wait_for_selector(f"#files >> text=Строк: {len(PEOPLE)}.")
    return save(one)


def save(one: Window) -> str:
    one.page.click("text=Сохранить и продолжить")
    one.page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    return str(one.page.url.removeprefix(one.url))


def send(one: Window, address: str) -> None:
    """Start it and see it through."""
    one.open(address)
    one.page.click("#live a[href$='/start']")
    one.page.click("dialog[open] .button-primary")
    one.page.wait_for_selector(FINISHED, timeout=SLOW)


def test_from_a_broken_list_to_whoever_wants_silence(window: Opener, product: Product) -> None:
    one = window("knowing")
    sign_up(one, product.code)
    queued_before = draft_by_sms(one, "Новинки")
    draft_by_whatsapp(one, "Осень")
    address = before_the_start(one)
    canary_and_the_rest(one, product)
    whoever_replied_is_answered(one, product)
    rescue_by_sms(one, product, address)
    whoever_said_stop_is_skipped(one, product, queued_before)


def before_the_start(one: Window) -> str:
    """The sheet forbids the start in words, then lets it happen; the preview steps through the rows."""
    page = one.page
    page.set_input_files("#file", file(people(with_names=False)))
    page.wait_for_selector("#files >> text=Не хватает столбцов: Имя")
    address = save(one)
    page.wait_for_selector("#preflight >> text=Мешает запуску")
    assert page.query_selector("#live a[href$='/start']") is None
    one.shot("blocked")
    page.click("#files >> text=Удалить")
    page.click("dialog[open] .button-danger")
    page.set_input_files("#file", file(people()))
    page.wait_for_selector(f"#files >> text=Принято: {len(PEOPLE)}, дублей: 0")
    page.wait_for_selector("#preflight >> text=Можно запускать")
    assert page.query_selector("#preflight >> text=Мешает запуску") is None
    one.shot("ready")
    shown = "#preview >> text=Здравствуйте, %s!"
    page.wait_for_selector(shown % "Гость 0")
    for step, name in (("next", "Гость 1"), ("longest", LONGEST), ("first", "Гость 0")):
        page.click(f"#preview a[href*='which={step}']")
        page.wait_for_selector(shown % name)
    one.shot("preview")
    return address


def canary_and_the_rest(one: Window, product: Product) -> None:
    """The first twenty get it and it stops by itself; the others follow with one button."""
    page = one.page
    page.click("#live a[href$='/start']")
    page.wait_for_selector("dialog[open] #canary_size")
    assert page.input_value("#canary_size") == str(len(PEOPLE) // 10)
    page.fill("#canary_size", str(CANARY))
    page.click("dialog[open] button[name=canary]")
    page.wait_for_selector("#live >> text=Пробная партия отправлена", timeout=SLOW)
    one.shot("canary")
    assert sorted(facts["phone"] for facts in product.accepted()) == sorted(PEOPLE[:CANARY])
    one.open("/inbox")
    page.wait_for_selector("text=Диалогов пока нет")  # nobody has written yet
    page.go_back()
    page.click("#live a[href$='/resume']")
    page.click("dialog[open] .button-primary")
    page.wait_for_selector(FINISHED, timeout=SLOW)
    one.shot("finished")
    assert sorted(facts["phone"] for facts in product.accepted()) == sorted(PEOPLE)


def whoever_replied_is_answered(one: Window, product: Product) -> None:
    """Who replied has a conversation with the message they answered above the reply; the answer arrives."""
    page = one.page
    one.open("/inbox")
    page.click("[data-conversation]:has-text('000-10-09')", timeout=SLOW)
    page.wait_for_selector(".entry-in >> text=часы работы")
    first = page.locator(".entry").first
    assert "Здравствуйте, Гость" in first.inner_text() and "Осень" in first.inner_text()
    page.fill("#answer-text", "Мы работаем с 9 до 18")
    page.press("#answer-text", "Control+Enter")
    answer = page.locator(".entry-out", has_text="с 9 до 18")
    answer.locator(".badge", has_text=re.compile("Доставлено|Прочитано")).wait_for(timeout=SLOW)
    one.shot("answered")
    assert [facts["phone"] for facts in product.accepted() if facts["text"] == "Мы работаем с 9 до 18"] == [REPLIES]


def rescue_by_sms(one: Window, product: Product, address: str) -> None:
    """The report says whom WhatsApp could not reach, and offers them an SMS that goes to them alone."""
    page = one.page
    one.open(f"{address}/report")
    browser.reload_until(page, "text=Номера нет в WhatsApp")
    one.shot("causes")
    page.click("a[href*='/causes/sms']")
    page.click("dialog[open] .button-primary")
    page.wait_for_url(re.compile(r"/broadcasts/\d+/edit"))
    page.wait_for_selector("#files >> text=Принято: 1,")
    assert "Здравствуйте" in page.input_value("#text")
    before = len(product.accepted())
    send(one, save(one))
    assert [(facts["phone"], facts["provider"]) for facts in product.accepted()[before:]] == [(SMS_ONLY, "sandbox_sms")]
    one.shot("rescued")


def whoever_said_stop_is_skipped(one: Window, product: Product, queued_before: str) -> None:
    """STOP puts a person on the list with their words as proof; what was queued before skips them too."""
    page = one.page
    one.open("/optouts")
    browser.reload_until(page, "tbody >> text=+7900•••••10")
    one.shot("stop-list")
    page.click("tbody a:has-text('+7900•••••10')")
    page.wait_for_selector("tbody tr:has-text('Внесён в стоп-лист'):has-text('STOP'):has-text('Ответ человека')")
    one.shot("history")
    before = len(product.accepted())
    send(one, queued_before)
    page.click("#live .balance >> text=пропущено")
    page.wait_for_selector("tbody tr:has-text('+7900•••••10'):has-text('Номер в стоп-листе')")
    one.shot("skipped")
    reached = {facts["phone"] for facts in product.accepted()[before:]}
    assert reached == set(PEOPLE) - {STOPS}
    # A list that comes after it leaves them out at once.
    draft_by_sms(one, "Итоги")
    page.wait_for_selector("#files >> text=в стоп-листе: 1")
    one.shot("left-out")
