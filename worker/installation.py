"""Facts about this installation that are no setting of its server: a name and a JSON value each."""

from __future__ import annotations

import json
from typing import Any

from worker import db, vault
from worker.models import Setting
from worker.settings import Settings

_KEY = "key_mark"
OTHER_KEY = "MOLVA_SECRET_KEY is not that of the other hosts: what they have sealed cannot be read here"


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


def has_the_key(settings: Settings) -> bool:
    """Whether this host has the secret key of the others on a shared database; the first one says which that is.

    What is kept is derived from the key and tells nothing of it.
    """
    if not settings.database_url:
        return True
    ours = [vault.derive(key, "mark").hex() for key in vault.master_keys(settings)]
    with db.connection(), db.write():
        known = fact(_KEY)
        if known is None or (known in ours and known != ours[0]):  # the newest of a rotation
            keep(_KEY, ours[0])
    return known is None or known in ours
