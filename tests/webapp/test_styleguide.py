"""The style guide shows every component, and only to administrators."""

from __future__ import annotations

import re
from pathlib import Path

from tests.people import Browser

ROOT = Path(__file__).parents[2]


def test_every_shared_component_is_shown() -> None:
    folder = ROOT / "templates"
    shown = "".join(path.read_text(encoding="utf-8") for path in (folder / "styleguide").glob("*.html"))
    for file, name in (("ui", "ui"), ("forms", "forms")):
        macros = re.findall(r"{% macro ([a-z]\w*)", (folder / "shared" / f"{file}.html").read_text(encoding="utf-8"))
        assert macros
        for macro in macros:
            if macro != "csrf":
                assert f"{name}.{macro}(" in shown, f"{name}.{macro} is not in the style guide"


def test_every_colour_icon_and_state_is_shown_in_both_schemes(admin: Browser) -> None:
    page = admin.page("/styleguide", headers={"Accept-Language": "en"})
    css = (ROOT / "static" / "app.css").read_text(encoding="utf-8")
    icons = (ROOT / "static" / "icons.svg").read_text(encoding="utf-8")
    for token in re.findall(r"--([\w-]+): light-dark\(", css):
        assert page.count(f'fill="var(--{token})"') == 2, token
    for icon in re.findall(r'<symbol id="([\w-]+)"', icons):
        assert page.count(f'aria-label="{icon}"') == 2, icon
    assert page.count("Awaiting delivery reports") >= 2


def test_others_do_not_see_it(sender: Browser, viewer: Browser) -> None:
    assert sender.get("/styleguide").status_code == viewer.get("/styleguide").status_code == 403
