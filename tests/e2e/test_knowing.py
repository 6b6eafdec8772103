"""A newcomer learns before and after a start what happens: who is left out, who replied, and who wants silence."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Window, sign_up
from tests.product import Product
from worker import channels, db
from worker.models import Channel
from worker.providers import sandbox_address

pytestmark = pytest.mark.e2e

Opener = Callable[..., Window]
STOP = "89000001010"
PEOPLE = [f"8901{n:07d}" for n in range(5)]
FINISHED = "#live a[href$='/restart']"


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


def draft(one: Window, name: str, phones: list[str]) -> str:
    """A broadcast by SMS to these people, ready to start; its address."""
    page = one.page
    one.open("/broadcasts/new")
    page.fill("#name", name)
    page.check("input[name=kind][value=sms]")
    page.fill("#text", "Скидка на всё. Отписаться: СТОП")
    page.fill("#rate_per_minute", "6000")
    data = "\r\n".join(["Телефон", *phones]).encode("cp1251")
    page.set_input_files("#file", {"name": "список.csv", "mimeType": "text/csv", "buffer": data})
    page.wait_for_selector(f"#files >> text=Строк: {len(phones)}.")
    page.click("text=Сохранить и продолжить")
    page.wait_for_url(re.compile(r"/broadcasts/\d+$"))
    return str(page.url.removeprefix(one.url))


def send(one: Window, address: str) -> None:
    """Start it and see it through."""
    one.open(address)
    one.page.click("#live a[href$='/start']")
    one.page.click("dialog[open] .button-primary")
    one.page.wait_for_selector(FINISHED, timeout=60_000)


def reload_until(page: Any, selector: str) -> None:
    """Look again until it is there: what comes back from people comes when it comes."""
    for _again in range(60):
        if page.query_selector(selector):
            return
        page.wait_for_timeout(250)
        page.reload()
    raise AssertionError(f"{selector} did not appear")


def test_stop_puts_a_person_on_the_list_and_the_next_broadcast_skips_them(window: Opener, product: Product) -> None:
    one = window("knowing")
    page = one.page
    sign_up(one, product.code)
    # Both lists are ready before anybody has asked for silence.
    first, second = (draft(one, name, [STOP, *PEOPLE]) for name in ("Распродажа", "Новинки"))
    one.open("/optouts")
    page.wait_for_selector("text=Стоп-лист пуст")
    send(one, first)
    one.open("/optouts")
    reload_until(page, "tbody >> text=+7900•••••10")
    one.shot("stop-list")
    page.click("tbody a >> nth=0")
    page.wait_for_selector("tbody tr:has-text('Внесён в стоп-лист'):has-text('STOP'):has-text('Ответ человека')")
    one.shot("history")
    send(one, second)
    page.click("#live .balance >> text=пропущено")
    page.wait_for_selector("tbody tr:has-text('+7900•••••10'):has-text('Номер в стоп-листе')")
    one.shot("skipped")
    reached = [facts["phone"] for facts in product.accepted()]
    assert reached.count("+79000001010") == 1, "only the message to which they replied"
    assert len(reached) == 2 * len(PEOPLE) + 1
    # A list that comes after it leaves them out at once.
    draft(one, "Итоги", [STOP, *PEOPLE])
    page.wait_for_selector("#files >> text=в стоп-листе: 1")
    one.shot("left-out")
