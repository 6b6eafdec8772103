"""The examples of the README, which the tests run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def block(name: str) -> str:
    """The lines of the README between two marks, without the fence."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```\n<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, f"the README has no example {name}"
    return found[1]
