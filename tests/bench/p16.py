"""P16: from a press to the changed picture, in Chromium: how long a person waits for the page to answer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.common import Result
from tests.e2e import house as houses
from tests.e2e.browser import launched
from worker.models import Broadcast

PRESSES = 15
# Press, then wait until the page fits the selector and has been drawn; milliseconds.
PRESS = """([press, shown]) => new Promise((done) => {
    const began = performance.now();
    const drawn = () => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
    const look = () => { if (document.querySelector(shown)) { watch.disconnect(); drawn(); return true; } };
    const watch = new MutationObserver(look);
    watch.observe(document, { subtree: true, childList: true, attributes: true });
    document.querySelector(press).click();
    look();
})"""


def times(page: Any, press: str, shown: str, again: Callable[[], object]) -> list[float]:
    found = []
    for _press in range(PRESSES):
        found.append(page.evaluate(PRESS, [press, shown]))
        again()
    return found[1:]  # the first one warms up


def run(_big: bool) -> list[Result]:
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="molva-bench-") as folder,
        houses.standing(Path(folder) / "data", houses.everything) as house,
        launched() as browser,
    ):
        context = browser.new_context()
        context.add_cookies([house.cookie("admin")])
        page = context.new_page()

        def note(name: str, found: list[float]) -> None:
            middle, worst = median(found), max(found)
            results.append(
                Result(f"P16 {name}", f"{middle:.0f} ms", "", "", "≤ 100 ms", middle <= 100, f"at most {worst:.0f} ms")
            )

        page.goto(f"{house.url}/broadcasts/{house.numbers['ready']}")
        note(
            "a question",
            times(page, "#live a.button-primary", "dialog[open] form", lambda: page.keyboard.press("Escape")),
        )
        page.click(".account > summary")
        theme = "[data-theme-switch] button[value=%s]"
        note(
            "a switch",
            times(page, theme % "dark", "html[data-theme=dark]", lambda: page.click(theme % "light")),
        )
        running = house.numbers["running"]
        page.goto(f"{house.url}/broadcasts/{running}")

        def run_again() -> None:
            Broadcast.update(state="running").where(Broadcast.id == running).execute()
            page.reload()

        note("Stop", times(page, "#live form[action$='/stop'] button", "#live a[href$='/resume']", run_again))
        context.close()
    return results
