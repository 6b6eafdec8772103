"""Values that cannot be used: what every use case says instead of storing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """Why a value cannot be used: a code with words in the catalogues, and the facts for the sentence."""

    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Invalid(ValueError):
    """Values that cannot be used: field → Problem."""

    def __init__(self, problems: Mapping[str, Problem]) -> None:
        super().__init__(", ".join(f"{name}: {p.code}" for name, p in problems.items()))
        self.problems = dict(problems)
