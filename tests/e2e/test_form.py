"""The settings form sums itself up while one types, takes a file wherever it is dropped, and lets an upload be ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e.house import House
from worker.models import RecipientFile

LIST = b"phone,name\n+79010000001,Ann\n"
SIDE = "() => document.querySelector('.side').getBoundingClientRect().toJSON()"


@pytest.fixture
def page(chromium: Any, house: House) -> Iterator[Any]:
    """A signed-in page in English."""
    context = chromium.new_context(locale="en", viewport={"width": 1200, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    context.add_cookies([house.cookie("admin")])
    yield context.new_page()
    context.close()


def test_the_sum_follows_what_is_typed_and_keeps_the_caret(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['ready']}/edit")
    before = page.text_content("#summary div:last-child dd")
    page.fill("#rate_per_minute", "1")
    page.locator(f'#summary div:last-child dd:not(:text-is("{before}"))').wait_for()
    page.fill("#text", "x" * 400)
    page.wait_for_selector("#summary >> text=about 36")  # 12 people, 3 segments each
    assert page.evaluate("document.activeElement.id") == "text"


@pytest.mark.parametrize(("width", "height"), [(1200, 500), (768, 800), (360, 740)])
def test_the_sum_and_its_button_stay_in_sight(page: Any, house: House, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{house.url}/broadcasts/{house.numbers['ready']}/edit")
    for part in (0.0, 0.5, 0.9):
        page.evaluate("(part) => scrollTo(0, part * document.documentElement.scrollHeight)", part)
        side = page.evaluate(SIDE)
        assert side["top"] >= 0 and side["bottom"] <= height, (part, side)
        assert side["height"] < 0.55 * height


def test_a_low_window_is_left_to_the_form(page: Any, house: House) -> None:
    page.set_viewport_size({"width": 640, "height": 320})
    page.goto(f"{house.url}/broadcasts/{house.numbers['ready']}/edit")
    assert page.evaluate(SIDE)["top"] > 320


def test_a_file_may_be_dropped_anywhere_on_the_form(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/new")
    page.fill("#name", "Dropped")
    browser.drop(page, "first.csv", LIST, "h2 >> nth=0")
    page.wait_for_selector("#files >> text=first.csv")
    page.wait_for_selector("#summary >> text=Checking the file…")
    browser.drop(page, "second.csv", LIST, "#rate_per_minute")
    page.wait_for_selector("#files >> text=second.csv")
    assert page.input_value("#name") == "Dropped"


def test_an_upload_says_how_far_it_is_and_can_be_ended(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/new")
    known = RecipientFile.select().count()
    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", slow)
    browser.drop(page, "long.csv", LIST + b"+79010000002,Bob\n" * 200_000, "#name")
    page.wait_for_selector("text=/Uploading: \\d+% \\([\\d.]+ [kM]B of 3.2 MB\\), about \\d+ (sec|min) left/")
    page.click("[data-cancel] >> visible=true")
    page.wait_for_selector("[data-upload-progress] >> nth=0", state="hidden")
    assert page.evaluate("document.activeElement.id") == "file"
    assert "long.csv" not in page.text_content("#files")
    assert page.text_content("#alerts").strip() == ""
    assert RecipientFile.select().count() == known
    line.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    browser.drop(page, "short.csv", LIST, "#name")
    page.wait_for_selector("#files >> text=short.csv")


def test_on_a_phone_the_row_of_places_shows_where_one_is(page: Any, house: House) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{house.url}/privacy")
    for row in (".menu", ".tabs"):
        box = page.evaluate(
            "(at) => document.querySelector(at + ' [aria-current]').getBoundingClientRect().toJSON()", row
        )
        assert box["left"] >= 0 and box["right"] <= 360, row
    assert page.evaluate("scrollY") == 0
