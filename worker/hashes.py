"""Phone numbers that may not be kept: a keyed hash stands for each, so that the same number is known again.

The key lies sealed in the database and is the same for ever: without the secret key of the installation nobody can
try numbers against the hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable

from worker import db, installation, vault
from worker.settings import Settings

log = logging.getLogger("molva.worker")

MARK = "#"  # what a hash begins with; a number begins with +
_SETTING = "number_key"


class _Process:
    settings: Settings | None = None
    key: tuple[Settings, bytes] | None = None


def configure(settings: Settings) -> None:
    """Say whose key this process uses."""
    _Process.settings = settings


def of(settings: Settings, phones: Iterable[str]) -> list[str]:
    """The hashes of numbers; what is one already stays."""
    key = _key(settings)
    return [
        phone if phone.startswith(MARK) else MARK + hmac.new(key, phone.encode(), hashlib.sha256).hexdigest()[:24]
        for phone in phones
    ]


def _key(settings: Settings) -> bytes:
    if _Process.key is None or _Process.key[0] is not settings:
        with db.write():
            sealed = installation.fact(_SETTING)
            if sealed is None:
                sealed = vault.seal(settings, {"key": secrets.token_hex(32)}).decode()
                installation.keep(_SETTING, sealed)
        _Process.key = settings, bytes.fromhex(vault.unseal(settings, sealed.encode())["key"])
    return _Process.key[1]


def reseal(settings: Settings) -> None:
    """Seal the key with the newest secret key, inside the caller's transaction. Raises VaultError."""
    sealed = installation.fact(_SETTING)
    if sealed is not None:
        installation.keep(_SETTING, vault.sealed_anew(settings, sealed.encode()).decode())


def opted_out(phones: Iterable[str], scopes: Iterable[str]) -> set[str]:
    """Which of these numbers stand on the stop list as a hash: people who were erased after they said stop."""
    condition, mark = db.beginning("phone", MARK)
    if _Process.settings is None or not db.value(f"SELECT 1 FROM opt_out WHERE {condition} LIMIT 1", [mark]):  # noqa: S608
        return set()
    given = list(phones)
    try:
        by_hash = dict(zip(of(_Process.settings, given), given, strict=True))
    except vault.VaultError:  # data of another installation, without its key: nothing can be compared any more
        log.error("the hashes on the stop list cannot be read with the present secret key")
        return set()
    sql = (
        "SELECT phone FROM opt_out WHERE scope IN (SELECT value FROM json_each(?))"
        " AND phone IN (SELECT value FROM json_each(?))"
    )
    return {by_hash[found] for (found,) in db.rows(sql, [json.dumps(list(scopes)), json.dumps(list(by_hash))])}
