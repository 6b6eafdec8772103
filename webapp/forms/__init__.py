"""One class per form; errors are sentences of the catalogues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wtforms.fields.choices import SelectChoice


def choices(offered: Mapping[str, Any]) -> list[SelectChoice]:
    """What a field offers: value → label."""
    return [SelectChoice(value=value, label=label) for value, label in offered.items()]
