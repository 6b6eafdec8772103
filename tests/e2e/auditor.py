"""Judges pages as they stand in the browser: axe, reflow, the console, other servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.house import House

AXE = (Path(__file__).parents[1] / "vendor" / "axe-4.14.1.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AUDIT = """async (rules) => {
    const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
    return found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ")).join(" | ")}`);
}"""
# Whatever has the focus is seen, at least in part: no sticky bar lies over it (WCAG 2.4.11).
COVERED = """() => {
    const among = document.querySelector("dialog[open]") || document;
    const reached = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    const covered = [];
    for (const one of among.querySelectorAll(reached)) {
        one.focus();
        if (document.activeElement !== one) continue;
        const { left, top, width, height } = one.getBoundingClientRect();
        const hidden = [0.1, 0.5, 0.9].every((part) => {
            const found = document.elementFromPoint(left + width / 2, top + height * part);
            const over = found && found.closest(".top, .side, .toasts, .stale");
            return over && !over.contains(one);
        });
        if (hidden) covered.push(one.outerHTML.slice(0, 80));
    }
    document.activeElement.blur();
    scrollTo(0, 0);
    return covered;
}"""
WIDE = {"width": 1280, "height": 800}
# 320 px is what 1280 px are at a zoom of 400 %; 640 px at 200 %.
NARROW = (640, 320)


class Auditor:
    """One browser page for one person in one language. It notes what is wrong instead of stopping at it."""

    def __init__(self, chromium: Any, house: House, who: str, language: str) -> None:
        self.house = house
        self.language = language
        self.wrong: list[str] = []
        self.context = chromium.new_context(locale=language, viewport=WIDE, reduced_motion="reduce")
        self.context.set_default_timeout(15_000)
        self.context.add_init_script(AXE)
        cookies = [{"name": "molva_language", "value": language, "url": house.url}]
        if who != "stranger":
            cookies.append(house.cookie(who))
        self.context.add_cookies(cookies)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.note(str(error)))
        self.page.on("request", self._request)

    def note(self, text: str) -> None:
        self.wrong.append(f"[{self.language}] {self.page.url.removeprefix(self.house.url)}: {text}")

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.note(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.house.url, "data:")):
            self.note(f"asked another server: {request.url}")

    def look(self, path: str) -> None:
        """Open a page and judge it."""
        self.page.goto(self.house.url + path)
        self.judge()

    def judge(self, where: str = "") -> None:
        """Judge what the page shows now, in both schemes, wide and narrow."""
        page = self.page
        if page.get_attribute("html", "lang") != self.language:
            self.note("html lang is not the language")
        self._theme("light")
        self._audit(where, {"type": "tag", "values": TAGS})
        self._theme("dark")
        self._audit(f"{where} dark", {"type": "rule", "values": ["color-contrast", "link-in-text-block"]})
        for width in NARROW:
            page.set_viewport_size({"width": width, "height": 800})
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if over > 0:
                self.note(f"{where} sticks out by {over} px at {width} px")
        for covered in page.evaluate(COVERED):
            self.note(f"{where} covered while it has the focus: {covered}")
        self._audit(f"{where} narrow", {"type": "rule", "values": ["target-size", "scrollable-region-focusable"]})
        page.set_viewport_size(WIDE)

    def _theme(self, name: str) -> None:
        self.page.evaluate("(name) => { document.documentElement.dataset.theme = name; }", name)

    def _audit(self, where: str, rules: dict[str, Any]) -> None:
        for found in self.page.evaluate(AUDIT, rules):
            self.note(f"{where} {found}")


@contextlib.contextmanager
def looking(chromium: Any, house: House, who: str, language: str) -> Iterator[Auditor]:
    """An auditor; at the end nothing may be wrong."""
    auditor = Auditor(chromium, house, who, language)
    yield auditor
    auditor.context.close()
    assert auditor.wrong == [], "\n".join(["", *auditor.wrong])
