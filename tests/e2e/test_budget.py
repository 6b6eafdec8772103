"""What a first visit costs: its bytes, its servers, and nothing inline."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from tests import make, people
from tests.e2e import house as houses
from tests.e2e import places
from tests.e2e.auditor import looking
from tests.e2e.house import House
from worker.models import User
from worker.settings import Settings

FIRST_PAGE = 60 * 1024  # bytes on the wire, with heads, page, style, scripts and pictures
KEPT = ("/offline", "/offline.js")  # what the browser fetches after that, for when the server is away
HEAD = 700  # bytes of the heads of an answer, at most
ON_THE_WIRE = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map((one) => [one.name, one.transferSize])"""


def busy(settings: Settings) -> houses.Numbers:
    """A first page that is full: so many lines as it ever has."""
    numbers = houses.everything(settings)
    for n in range(30):
        row = make.broadcast(name=f"Скидки выходного дня, магазин {n}", state="finished", last_sent_at=n)
        make.messages(make.file(row), "sent", "delivered", "failed")
    return numbers


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with houses.standing(tmp_path_factory.mktemp("budget") / "data", busy) as standing:
        yield standing


@pytest.mark.parametrize(("path", "who"), [("/login", "stranger"), ("/broadcasts", "admin")])
def test_a_first_page_is_light_and_asks_nobody_else(chromium: Any, house: House, path: str, who: str) -> None:
    with looking(chromium, house, who, "ru") as auditor:
        auditor.page.goto(house.url + path)
        auditor.page.wait_for_load_state("networkidle")
        found = auditor.page.evaluate(ON_THE_WIRE)
    assert len(found) >= 5, found
    assert all(size > 0 for _name, size in found), "something came from a cache: this was no first visit"
    kept = [house.app.test_client().get(path, headers={"Accept-Encoding": "gzip"}) for path in KEPT]
    total = sum(size for _name, size in found) + sum(len(answer.data) + HEAD for answer in kept)
    print(f"{path}: {total:,} bytes")
    assert total <= FIRST_PAGE, found


class Inline(HTMLParser):
    """Collects what a strict policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and not given.get("src")):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            scripted = name.startswith(("on", "hx-on")) or (value or "").strip().lower().startswith("javascript:")
            foreign = name in ("src", "href") and tag != "a" and (value or "").startswith(("http", "//"))
            if name == "style" or scripted or foreign:
                self.found.append(f"<{tag} {name}={value}>")


def test_nothing_is_inline_and_nothing_is_foreign(house: House) -> None:
    browser = people.signed_in(house.app, User.get(User.role == "admin"))
    for place in places.of(house):
        reader = Inline()
        reader.feed(browser.get(place.path).text)
        assert reader.found == [], place
