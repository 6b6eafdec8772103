"""A click while the server is away leads to a page of ours, in the person's language, and back by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.house import House

READY = "navigator.serviceWorker.ready.then((found) => Boolean(found.active))"


@pytest.fixture(params=["ru", "en"])
def page(chromium: Any, house: House, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A signed-in page of a browser that keeps what it is asked to keep."""
    context = chromium.new_context(locale=request.param, viewport={"width": 360, "height": 740})
    context.set_default_timeout(15_000)
    context.add_cookies([house.cookie("admin"), {"name": "molva_language", "value": request.param, "url": house.url}])
    opened = context.new_page()
    opened.language = request.param
    yield opened
    context.close()


def test_a_page_of_ours_stands_in_for_the_server_and_gives_way_to_it(page: Any, house: House) -> None:
    words = {"ru": "Нет связи с сервером", "en": "No connection with the server"}[page.language]
    page.goto(f"{house.url}/broadcasts")
    assert page.evaluate(READY)
    house.close()
    try:
        page.goto(f"{house.url}/channels")
        assert page.inner_text("h1") == words
        assert page.evaluate("getComputedStyle(document.querySelector('.error-page')).maxWidth") != "none"
        assert page.url.endswith("/channels")
        said = page.content()
        assert "csrf" not in said and "@" not in said  # nothing of the person who kept it
    finally:
        house.open()
    page.wait_for_selector("[data-reach]", state="detached")
    assert page.url.endswith("/channels") and page.inner_text("h1") != words


def test_answers_of_the_server_and_downloads_pass_through(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts")
    assert page.evaluate(READY)
    assert page.goto(f"{house.url}/answers/500").status == 500
    assert page.locator("[data-reach]").count() == 0
    kept = page.evaluate(
        "caches.keys().then((names) => caches.open(names[0])).then((one) => one.keys()).then((all) => all.map((one) => new URL(one.url).pathname))"
    )
    assert sorted(kept) == [
        "/offline",
        *(f"/static/{name}" for name in ("app.css", "app.js", "favicon.svg", "icons.svg")),
    ]
