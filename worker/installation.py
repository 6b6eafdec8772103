"""Facts about this installation that are no setting of its server: a name and a JSON value each."""

from __future__ import annotations

import json
from typing import Any

from worker import db
from worker.models import Setting


def fact(name: str, default: Any = None) -> Any:
    """What is kept under a name."""
    # Every message that comes in asks this; building the query anew would be most of its cost.
    found = db.value("SELECT value FROM setting WHERE name = ?", [name])
    return default if found is None else json.loads(found)


def keep(name: str, value: Any) -> None:
    """Keep a fact in place of what was known, inside the caller's transaction."""
    made = Setting.insert(name=name, value=value)
    made.on_conflict(conflict_target=[Setting.name], preserve=[Setting.value]).execute()


def forget(name: str) -> None:
    """Inside the caller's transaction."""
    Setting.delete().where(Setting.name == name).execute()
