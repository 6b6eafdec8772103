"""An installation in which nothing has happened yet: its empty pages teach the next step, and are for everyone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import people
from tests.e2e import house as houses
from tests.e2e import places
from tests.e2e.auditor import looking


@pytest.mark.parametrize("language", ["ru", "en"])
def test_an_empty_installation_is_for_everyone(chromium: Any, tmp_path: Path, language: str) -> None:
    with houses.standing(tmp_path / "data", houses.nothing) as empty:
        with looking(chromium, empty, "stranger", language) as auditor:
            auditor.look("/setup")
            auditor.page.fill("#email", "nobody")
            auditor.page.evaluate("document.querySelector('main form').noValidate = true")
            auditor.page.click("main .button-primary")
            auditor.page.wait_for_selector("main .error >> nth=0")
            auditor.judge("with everything wrong:")
        people.person("admin")
        empty.app.extensions["molva"].has_admin = True
        with looking(chromium, empty, "admin", language) as auditor:
            for place in places.of(empty):
                if place.who == "admin":
                    auditor.look(place.path)
