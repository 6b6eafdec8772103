"""Secrets at rest: one master key outside the database, from which every other key is derived."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from worker.settings import Settings

KEY_FILE = "secret.key"


class VaultError(RuntimeError):
    """Stored credentials cannot be read with the present key."""


def master_keys(settings: Settings) -> list[bytes]:
    """The master keys, newest first: MOLVA_SECRET_KEY, else the key file (0600), generated once.

    More than one line in the file means that a rotation is under way.
    """
    if settings.secret_key:
        return [settings.secret_key.encode()]
    path = settings.data / KEY_FILE
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        lines = path.read_text(encoding="ascii").split()
        if not lines or min(map(len, lines)) < 32:
            raise VaultError(f"{path} holds no usable key") from None
        return [line.encode() for line in lines]
    key = secrets.token_urlsafe(48)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    return [key.encode()]


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
