"""From a report to what helps, in a real browser: causes, the SMS to those whom WhatsApp could not reach, the stop list."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from python_calamine import CalamineWorkbook

from tests.e2e.conftest import Window, sign_up
from tests.journeys.conftest import Caller
from tests.product import Product, wait

pytestmark = pytest.mark.e2e

PEOPLE = 40
NOT_THERE = "+79000001001"  # for the sandbox: not on WhatsApp, and no subscriber either
FAILS_LATER = "+79000001004"  # accepted, then reported as not on WhatsApp


def finished(caller: Caller) -> int:
    """A WhatsApp broadcast that has been sent and reported."""
    number = caller.draft(
        "sandbox_waba",
        name="Осенняя распродажа",
        template={"name": "welcome", "language": "ru"},
        variables={"body.1": {"column": "имя", "fallback": "друг"}},
        rate_per_minute=6000,
    )
    lines = ["телефон,имя,город", f"{NOT_THERE},Анна,Тула", f"{FAILS_LATER},Пётр,"]
    lines += [f"+7901{n:07d},Гость {n},Москва" for n in range(PEOPLE)]
    assert caller.upload(number, "\n".join(lines).encode())["accepted"] == PEOPLE + 2
    caller.call("POST", f"/broadcasts/{number}/start")
    wait(lambda: caller.call("GET", f"/broadcasts/{number}")["completed"], 60)
    return number


def test_from_a_cause_to_the_people_it_kept_out(window: Callable[..., Window], product: Product) -> None:
    one = window("reports")
    page = one.page
    sign_up(one, product.code)
    caller = Caller(product, "ru")
    wait(lambda: any(c["provider"] == "sandbox_waba" for c in caller.call("GET", "/channels")["items"]), 20)
    wait(lambda: caller.call("GET", f"/channels/{caller.channel('sandbox_waba')}/templates")["items"], 20)
    number = finished(caller)

    page.click(".menu >> text=Отчёты")
    page.click("text=Осенняя распродажа")
    page.wait_for_selector("table.causes >> text=Номера нет в WhatsApp")
    page.click("summary >> text=График таблицей")
    page.wait_for_selector("svg.plot-lines polyline.line-read")
    one.shot("report")
    with page.expect_download() as download:
        page.click("text=XLSX")
    book = CalamineWorkbook.from_filelike(io.BytesIO(download.value.path().read_bytes()))
    assert len(book.get_sheet_by_index(0).to_python()) == PEOPLE + 3

    page.click("table.causes >> text=Отправить по SMS")
    page.wait_for_selector("dialog[open] >> text=Отправить этим 2 по SMS")
    page.wait_for_selector("dialog[open] >> text={{ имя | друг }}")
    one.shot("by-sms")
    page.click("dialog[open] .button-primary")
    page.wait_for_url(re.compile(r"/broadcasts/\d+/edit$"))
    page.wait_for_selector("text=Принято: 2, дублей: 0")
    assert page.input_value("#name") == "Осенняя распродажа – SMS"
    assert page.input_value("#text").startswith("Здравствуйте, {{ имя | друг }}")
    one.shot("draft")
    page.click("text=Сохранить и продолжить")
    page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    page.click("#live >> text=/Отправить 2 сообщения/")
    page.click("dialog[open] .button-primary")
    page.wait_for_selector("#live a[href$='/restart']", timeout=60_000)
    assert caller.numbers(int(page.url.rpartition("/")[2]))["total"] == 2

    page.click(".page-actions >> text=Отчёт")
    page.click("table.causes >> text=Добавить в стоп-лист")
    page.wait_for_selector("dialog[open] >> text=Добавить 1 номер в стоп-лист")
    one.shot("stop-list")
    page.click("dialog[open] .button-danger")
    page.wait_for_selector("text=В стоп-листе: 1")

    again = caller.call("POST", f"/broadcasts/{number}/restart", json={"who": "undelivered", "cause": "131026"})
    assert again["run"] == 2
    wait(lambda: caller.numbers(number, "2")["total"] == 2, 20)
