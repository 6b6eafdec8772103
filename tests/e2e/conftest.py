"""A real Chromium in front of the real command. Screenshots of every step are kept in .artifacts/."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import browser
from tests.e2e import house as houses
from tests.e2e.house import House
from tests.product import Product

ARTIFACTS = Path(__file__).parents[2] / ".artifacts" / "e2e"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser of this machine; without one the tests skip, or fail where it is required."""
    try:
        with browser.launched() as found:
            yield found
    except browser.NoBrowser as missing:
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail(f"needs {missing}")
        pytest.skip(f"needs {missing}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A web server with something in every state."""
    with houses.standing(tmp_path_factory.mktemp("house") / "data", houses.everything) as standing:
        yield standing


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A fresh installation that runs; its one-time code is still unused."""
    found = Product(tmp_path_factory.mktemp("e2e") / "data")
    found.start()
    yield found
    if found.process is not None:
        found.stop()


class Window:
    """One page of a browser. It notes every complaint of the console and every failed request."""

    def __init__(self, page: Any, url: str, name: str) -> None:
        self.page = page
        self.url = url.rstrip("/")
        self.complaints: list[str] = []
        self._folder = ARTIFACTS / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._shots = 0
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{self.page.url}: {message.text}")

    def _response(self, response: Any) -> None:
        if response.status >= 500:
            self.complaints.append(f"{response.url}: {response.status}")

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def shot(self, name: str) -> None:
        self._shots += 1
        # caret: hiding it would put a style into the page, which its policy forbids
        self.page.screenshot(path=self._folder / f"{self._shots:02d}-{name}.png", full_page=True, caret="initial")

    def fits(self) -> bool:
        """Nothing sticks out at the side."""
        width = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return bool(width <= 0)


@pytest.fixture
def window(chromium: Any, product: Product) -> Iterator[Callable[..., Window]]:
    """window("name", locale="ru-RU", …) opens a page; at the end none of them may have complained."""
    opened: list[Window] = []
    contexts = []

    def make(name: str, **options: Any) -> Window:
        context = chromium.new_context(**{"locale": "ru-RU", "viewport": {"width": 1200, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        opened.append(Window(context.new_page(), product.url, name))
        return opened[-1]

    yield make
    complaints = [text for one in opened for text in one.complaints]
    for context in contexts:
        context.close()
    assert complaints == []


def sign_up(window: Window, code: str) -> None:
    """The first administrator, by the code on the console."""
    window.open("/")
    page = window.page
    page.wait_for_url(re.compile("/setup$"))
    for name, text in (("code", code), ("email", "anna@example.org")):
        page.fill(f"#{name}", text)
    for name in ("password", "again"):
        page.fill(f"#{name}", "seven quiet rivers")
    page.click("button.button-primary")
    page.wait_for_url(re.compile("/broadcasts$"))


def sign_in(window: Window) -> None:
    window.open("/login")
    window.page.fill("#email", "anna@example.org")
    window.page.fill("#password", "seven quiet rivers")
    window.page.click("button.button-primary")
    window.page.wait_for_url(re.compile("/broadcasts$"))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest) -> None:
    """Every browser test carries the mark, so that it can be left out."""
    request.node.add_marker(pytest.mark.e2e)
