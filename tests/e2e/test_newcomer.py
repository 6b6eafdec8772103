"""The newcomer's whole way in a real browser, with JavaScript and without."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.conftest import Window, sign_in, sign_up
from tests.product import Product

pytestmark = pytest.mark.e2e

PEOPLE = 60
Opener = Callable[..., Window]


def recipients() -> bytes:
    """A list as Russian Excel saves it: special numbers, a duplicate, a bad number, a missing name, a blank row."""
    lines = ["Телефон;Имя;Город"]
    lines += [f"890000010{n:02d};Особый {n};Тула" for n in (1, 2, 3, 4, 8)]
    lines += [f"8901{n:07d};Гость {n};Москва" for n in range(PEOPLE)]
    lines += ["89010000005;Повтор;Омск", "12345;Ошибка;Омск", "89019999999;;Омск", ""]
    return "\r\n".join(lines).encode("cp1251")


def test_from_the_code_on_the_console_to_the_report(window: Opener, product: Product) -> None:
    one = window("newcomer")
    page = one.page
    sign_up(one, product.code)
    one.shot("empty")
    page.click("form[action$='/try'] button")
    page.wait_for_url(re.compile(r"/broadcasts/\d+/edit$"))
    page.fill("#text", "Здравствуйте, {{ имя }}")
    page.wait_for_selector("#counter >> text=UCS-2")
    browser.drop(page, "список.csv", recipients())
    page.wait_for_selector(f"text=Принято: {PEOPLE + 5}, дублей: 1, с ошибкой: 2, в стоп-листе: 0, пустых: 0")
    one.shot("file-checked")
    page.click("[data-insert='{{ Город }}']")
    assert page.input_value("#text").endswith("{{ Город }}")
    page.fill("#text", "Здравствуйте, {{ имя }}. Это проверка")
    page.fill("#rate_per_minute", "600")
    page.wait_for_selector("#summary div:has-text('Закончится'):has-text('около')")
    one.shot("form")
    page.click("text=Сохранить и продолжить")
    page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    page.click("#live >> text=/Отправить \\d+ сообщени/")
    page.wait_for_selector("dialog[open] >> text=Здравствуйте, Особый 1")
    one.shot("start")
    page.click("dialog[open] .button-primary")
    page.wait_for_selector("#live >> text=Идёт отправка")
    page.wait_for_selector("#live >> text=/отправлено/")
    one.shot("running")
    page.click("#live form[action$='/stop'] button")
    page.wait_for_selector("#live >> text=Остановлена")
    one.shot("stopped")
    stopped_at = len(product.accepted())
    assert 0 < stopped_at < PEOPLE
    page.click("#live a[href$='/resume']")
    page.wait_for_selector("dialog[open] >> text=Осталось отправить")
    page.click("dialog[open] .button-primary")
    page.wait_for_selector("#live a[href$='/restart']", timeout=60_000)
    one.shot("finished")
    page.click(".page-actions >> text=Отчёт")
    page.wait_for_url(re.compile("/report$"))
    page.wait_for_selector("text=Оператор не пропустил сообщение")
    one.shot("report")
    page.click("tbody a[href*='/messages/'] >> nth=0")
    page.wait_for_selector("dialog[open] >> text=История сообщения")
    one.shot("message")
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.click("text=Скачать отчёт (CSV)")
    text = download.value.path().read_text(encoding="utf-8-sig")
    heads, *rows = csv.reader(io.StringIO(text), delimiter=";")
    assert heads[:2] == ["Телефон", "Статус"]
    assert len(rows) == len({phone for phone, *_rest in rows}) == PEOPLE + 5
    accepted = {facts["phone"] for facts in product.accepted()}
    assert {phone for phone, status, *_rest in rows if status != "Ошибка отправки"} == accepted


def test_the_whole_way_without_javascript(window: Opener) -> None:
    one = window("plain", java_script_enabled=False)
    sign_in(one)
    page = one.page
    one.open("/broadcasts/new")
    page.fill("#name", "Без сценариев")
    page.check("input[name=kind][value=waba]")
    page.click("text=Показать поля для этого способа")
    page.select_option("#template", index=1)
    page.click("#contact button[name=refresh]")
    assert page.input_value("#name") == "Без сценариев"
    one.shot("template")
    page.check("input[name=kind][value=sms]")
    page.click("text=Показать поля для этого способа")
    page.fill("#text", "Привет, {{ имя }}")
    page.fill("#rate_per_minute", "6000")
    page.set_input_files("#file", {"name": "список.csv", "mimeType": "text/csv", "buffer": recipients()})
    page.click("text=Сохранить и продолжить")
    page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    browser.reload_until(page, "a[href$='/start']")
    one.shot("ready")
    page.click("#live a[href$='/start']")
    one.shot("question")
    page.click(".button-primary")
    browser.reload_until(page, "a[href$='/restart']")
    one.shot("finished")
    page.click("#files >> text=Удалить")
    page.check("input[name=how][value=remove]")
    page.click("text=Удалить файл >> nth=-1")
    assert page.query_selector("#files .file") is None
    page.click(".page-actions >> text=Отчёт")
    one.shot("report")
    assert page.query_selector("text=Такого номера нет") is not None


def reach(page: Any, selector: str, most: int = 90) -> None:
    """Press Tab until that has the focus; a mouse is never touched."""
    for _press in range(most):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by Tab")


def test_the_whole_way_by_the_keyboard_alone(window: Opener) -> None:
    one = window("keyboard", locale="en-GB")
    sign_in(one)
    page, press = one.page, one.page.keyboard.press
    people = "\n".join(f"+7902{n:07d},Guest {n}" for n in range(40))
    file = {"name": "list.csv", "mimeType": "text/csv", "buffer": f"phone,name\n{people}".encode()}
    page.on("filechooser", lambda chooser: chooser.set_files(file))
    press("n")
    page.wait_for_url(re.compile("/broadcasts/new$"))
    reach(page, ".skip")
    press("Enter")  # over the menu
    reach(page, "#name", 3)
    page.keyboard.type("By keyboard")
    reach(page, "input[name=kind][value=sms]")
    press("Space")
    reach(page, "#text")
    page.keyboard.type("Hello, {{ name }}")
    reach(page, "#file")
    press("Enter")
    page.wait_for_selector("text=Accepted: 40")
    reach(page, "#rate_per_minute")
    page.keyboard.type("600")
    one.shot("form")
    reach(page, ".actions .button-primary")
    press("Enter")
    page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    page.wait_for_selector("#do-start")
    reach(page, "#do-start")
    press("Enter")
    page.wait_for_selector("dialog[open]")
    reach(page, "dialog .button-primary", 20)
    press("Enter")
    page.wait_for_selector("#do-stop")
    page.wait_for_selector("dialog", state="hidden")
    page.wait_for_selector("#live:focus-within")
    reach(page, "#do-stop", 5)  # not from the beginning of the page
    press("Enter")
    page.wait_for_selector("#do-resume")
    page.wait_for_selector("#live:focus-within")
    reach(page, "#do-resume", 5)
    press("Enter")
    page.wait_for_selector("dialog[open] .button-primary")
    press("Escape")
    assert page.evaluate("document.activeElement.id") == "do-resume"
    press("Enter")
    page.wait_for_selector("dialog[open] .button-primary")
    reach(page, "dialog .button-primary", 10)
    press("Enter")
    page.wait_for_selector("#do-restart", timeout=60_000)
    one.shot("finished")
