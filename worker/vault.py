"""Secrets at rest: one master key outside the database, from which every other key is derived.

Changing the key (`molva key rotate`) goes in three steps, each of which leaves everything readable: a new key
becomes the first line of the key file (`add_key`), everything is sealed again with it (`reseal` of worker.channels
and worker.webhooks), the other lines go (`drop_old_keys`). Whoever finds more than one line goes on from there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from worker import files
from worker.settings import Settings

KEY_FILE = "secret.key"


class VaultError(RuntimeError):
    """Stored credentials cannot be read with the present key."""


def master_keys(settings: Settings) -> list[bytes]:
    """The master keys, newest first: the lines of MOLVA_SECRET_KEY, else of the key file (0600), generated once.

    More than one line means that a rotation is under way.
    """
    if settings.secret_key:
        return [line.encode() for line in settings.secret_key.splitlines() if line.strip()]
    path = settings.data / KEY_FILE
    try:
        with files.new(path) as file:
            key = secrets.token_urlsafe(48).encode()
            file.write(key + b"\n")
    except FileExistsError:
        lines = path.read_text(encoding="ascii").split()
        if not lines or min(map(len, lines)) < 32:
            raise VaultError(f"{path} holds no usable key") from None
        return [line.encode() for line in lines]
    return [key]


def add_key(settings: Settings) -> None:
    """Put a new key before the old ones in the key file; nothing when a rotation is under way already."""
    keys = master_keys(settings)
    if len(keys) == 1:
        _write_keys(settings, [secrets.token_urlsafe(48).encode(), *keys])


def drop_old_keys(settings: Settings) -> None:
    """Leave only the newest key in the key file. Everything must be sealed with it by now."""
    _write_keys(settings, master_keys(settings)[:1])


def _write_keys(settings: Settings, keys: list[bytes]) -> None:
    """Replace the key file, so that at any moment there is a whole one, on the disk."""
    path = settings.data / KEY_FILE
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with files.new(fresh) as file:
        file.write(b"".join(key + b"\n" for key in keys))
    fresh.replace(path)
    if os.name == "posix":
        folder = os.open(settings.data, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def derive(master: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, so that no two uses share a key."""
    return hmac.new(master, b"molva:" + purpose.encode(), hashlib.sha256).digest()


def session_key(settings: Settings) -> bytes:
    """The key that signs login cookies."""
    return derive(master_keys(settings)[0], "session")


def _box(settings: Settings) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(derive(key, "credentials"))) for key in master_keys(settings)])


def seal(settings: Settings, value: dict[str, Any]) -> bytes:
    """Encrypt credentials for the database."""
    return _box(settings).encrypt(json.dumps(value).encode())


def unseal(settings: Settings, sealed: bytes | None) -> dict[str, Any]:
    """Decrypt credentials. Raises VaultError when the key is not the one they were sealed with."""
    if not sealed:
        return {}
    try:
        value: dict[str, Any] = json.loads(_box(settings).decrypt(bytes(sealed)))
    except InvalidToken:
        raise VaultError("Channel credentials were stored with another secret key") from None
    return value


def sealed_anew(settings: Settings, sealed: bytes | None) -> bytes:
    """The same with the newest key. Raises VaultError."""
    return seal(settings, unseal(settings, sealed))
