"""Every page for everyone: axe finds nothing in both languages, light and dark; it reflows; nobody complains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.routing import Map, Rule

from tests.e2e import house as houses
from tests.e2e import places
from tests.e2e.auditor import looking
from tests.e2e.house import House
from tests.e2e.places import Place


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with houses.standing(tmp_path_factory.mktemp("full") / "data", houses.everything) as house:
        yield house


@pytest.mark.parametrize("who", ["admin", "viewer", "stranger"])
@pytest.mark.parametrize("language", ["ru", "en"])
def test_every_page_is_for_everyone(chromium: Any, full: House, who: str, language: str) -> None:
    with looking(chromium, full, who, language) as auditor:
        for place in places.of(full):
            if place.who == who:
                auditor.look(place.path)


# A page, the button that is pressed on it, what is there afterwards: forms with everything wrong, and questions.
DEEDS = (
    ("/login", "main .button-primary", "main .error, main .notice"),
    ("/broadcasts/new", "#settings .actions .button-primary", "main .notice[role=alert]"),
    ("/channels/new?provider=whatsapp_cloud", "main form .button-primary", "main .error"),
    ("/settings", "main form .button-primary", "main .error"),
    ("/broadcasts/{ready}", "#live a.button-primary", "dialog[open] form"),
    ("/broadcasts/{stopped}", "#live a.button-danger", "dialog[open] form"),
    ("/broadcasts/{done}", "#live a[href$='/restart']", "dialog[open] form"),
    ("/broadcasts/{files}", ".file-actions a[href$='/delete']", "dialog[open] form"),
    ("/broadcasts/{done}/report", "tbody a[href*='/messages/']", "dialog[open] .story"),
    ("/broadcasts", ".account > summary", ".account[open] .popup"),
)


@pytest.mark.parametrize("language", ["ru", "en"])
def test_what_a_press_shows_is_for_everyone_too(chromium: Any, full: House, language: str) -> None:
    for who in ("admin", "stranger"):
        with looking(chromium, full, who, language) as auditor:
            for path, press, shown in DEEDS:
                if (path == "/login") != (who == "stranger"):
                    continue
                auditor.page.goto(full.url + path.format(**full.numbers))
                # An empty form is sent as it is: the browser's own checks would keep it.
                auditor.page.evaluate(
                    "document.querySelectorAll('form').forEach((form) => { form.noValidate = true; })"
                )
                auditor.page.click(f"{press} >> nth=0")
                auditor.page.wait_for_selector(f"{shown} >> nth=0")
                auditor.judge(f"after {press}:")


def test_a_new_page_cannot_be_forgotten(full: House) -> None:
    found = places.of(full)
    assert {Place("/broadcasts"), Place("/settings"), Place("/login", "stranger")} <= set(found)
    assert len(found) > 40
    rule = Rule("/shelves/<int:number>", endpoint="shelves.one", methods=["GET"])
    Map([rule])
    with pytest.raises(AssertionError, match=r"shelves.*say in tests/e2e/places"):
        list(places.addresses(full, rule))


def test_the_auditor_has_eyes(chromium: Any, full: House) -> None:
    with pytest.raises(AssertionError) as seen, looking(chromium, full, "admin", "en") as auditor:
        auditor.page.goto(full.url + "/broadcasts")
        auditor.page.evaluate(
            """() => {
                document.querySelector("main").style.minWidth = "500px";
                document.querySelector("main label").remove();
                const pale = document.createElement("p");
                pale.style.color = "#888";
                pale.style.backgroundColor = "#777";
                pale.textContent = "pale";
                document.querySelector("main").append(pale);
                document.querySelector(".top").style.minHeight = "600px";
                fetch("http://localhost:9/").catch(() => {});
            }"""
        )
        auditor.judge()
    for expected in ("label: ", "dark color-contrast: ", "sticks out", "covered while", "Content Security Policy"):
        assert expected in str(seen.value), expected
