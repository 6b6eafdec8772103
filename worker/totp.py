"""Codes that change every half minute (TOTP, RFC 6238): six digits, SHA-1, as every authenticator app makes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from urllib.parse import quote

from worker import clock

STEP = 30 * clock.SECOND
DIGITS = 6
DRIFT = 1  # steps that a phone's clock may be off, either way


def new_secret() -> str:
    """160 random bits in base32, as authenticator apps take them."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def code(secret: str, step: int, digits: int = DIGITS) -> str:
    """The code of one half minute since the epoch."""
    digest = hmac.new(base64.b32decode(secret), step.to_bytes(8, "big"), hashlib.sha1).digest()
    at = digest[-1] & 15
    return str((int.from_bytes(digest[at : at + 4], "big") & 0x7FFFFFFF) % 10**digits).zfill(digits)


def accepted(secret: str, given: str, last: int | None) -> int | None:
    """The half minute whose code `given` is; None for a wrong one, and for one not later than `last`, already used."""
    given = "".join(given.split())
    now = clock.now() // STEP
    for step in range(now - DRIFT, now + DRIFT + 1):
        if hmac.compare_digest(code(secret, step).encode(), given.encode()) and (last is None or step > last):
            return step
    return None


def address(secret: str, account: str, issuer: str = "Molva") -> str:
    """The otpauth link that an authenticator app on this device opens."""
    label = quote(f"{issuer}:{account}")
    return (
        f"otpauth://totp/{label}?secret={secret}&issuer={quote(issuer)}&digits={DIGITS}&period={STEP // clock.SECOND}"
    )
