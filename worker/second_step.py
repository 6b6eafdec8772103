"""The second step of signing in: a code of the phone, or one of the recovery codes.

The secret is sealed; a code works once; a recovery code is kept as a hash and dies with its use. Wrong codes are
counted for the account, which only somebody who knows the password can reach, so the wait may be long.
"""

from __future__ import annotations

import json
import secrets

from worker import audit, clock, db, people, totp, vault
from worker.models import RecoveryCode, User
from worker.settings import Settings

RECOVERY_CODES = 10
OFFER_LIFE = clock.HOUR
FREE, WAIT = 5, 15 * clock.MINUTE
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"


class CodeRefused(ValueError):
    """The code is wrong, has been used, or comes too late."""


def is_on(user: User) -> bool:
    return user.totp is not None


def offer(settings: Settings, user: User) -> tuple[str, str]:
    """A new secret, and the same sealed for the form that comes back with its first code."""
    secret = totp.new_secret()
    sealed = vault.seal(settings, {"totp": secret, "user": user.id, "until": clock.now() + OFFER_LIFE})
    return secret, sealed.decode()


def offered(settings: Settings, user: User, sealed: str) -> str:
    """The secret of an offer that this person got. Raises CodeRefused."""
    try:
        fact = vault.unseal(settings, sealed.encode())
    except (vault.VaultError, ValueError):
        raise CodeRefused from None
    if fact.get("user") != user.id or fact.get("until", 0) < clock.now():
        raise CodeRefused
    return str(fact["totp"])


def switch_on(settings: Settings, user: User, sealed: str, code: str) -> list[str]:
    """Ask for codes from now on; the recovery codes, for the only time. Raises CodeRefused."""
    secret = offered(settings, user, sealed)
    step = totp.accepted(secret, code, None)
    if step is None:
        raise CodeRefused
    with db.write():
        box = vault.seal(settings, {"totp": secret})
        User.update(totp=box, totp_step=step).where(User.id == user.id).execute()
        audit.record(user.email, "second_step.on", user.email)
        return _fresh_codes(user)


def switch_off(user: User, actor: str) -> None:
    """Ask for the password alone from now on."""
    with db.write():
        User.update(totp=None, totp_step=None).where(User.id == user.id).execute()
        RecoveryCode.delete().where(RecoveryCode.user == user.id).execute()
        audit.record(actor, "second_step.off", user.email)


def renew_codes(user: User) -> list[str]:
    """New recovery codes; the ones before are void."""
    with db.write():
        audit.record(user.email, "second_step.codes", user.email)
        return _fresh_codes(user)


def codes_left(user: User) -> int:
    return int(RecoveryCode.select().where(RecoveryCode.user == user.id).count())


def _fresh_codes(user: User) -> list[str]:
    RecoveryCode.delete().where(RecoveryCode.user == user.id).execute()
    made = ["-".join(_word() for _ in range(3)) for _ in range(RECOVERY_CODES)]
    for code in made:
        RecoveryCode.create(user=user.id, code_hash=_digest(code))
    return made


def _word() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(4))


def _digest(code: str) -> str:
    # 59 random bits: a plain hash cannot be turned back in any useful time.
    return people.digest("".join(c for c in code.casefold() if c.isalnum()))


def check(settings: Settings, user: User, code: str) -> bool:
    """Whether this is a code of the person's phone, or a recovery code; either works once.

    Raises TooManyAttempts before the code is looked at.
    """
    key = f"second:{user.id}"
    with db.write():  # of two with the same code at once, one finds it used
        people.require_patience(key)
        right = _takes(settings, User.get_by_id(user.id), code)
        if right:
            people.forget_failures(key)
        else:
            people.count_failure(key, FREE, WAIT)
            audit.record(user.email, "second_step.failed")
    return right


def _takes(settings: Settings, user: User, code: str) -> bool:
    if user.totp is None:
        return False
    if len(code) <= 50 and sum(c.isalnum() for c in code) > totp.DIGITS:
        used = (RecoveryCode.user == user.id) & (RecoveryCode.code_hash == _digest(code))
        if not RecoveryCode.delete().where(used).execute():
            return False
        audit.record(user.email, "second_step.recovery", left=codes_left(user))
        return True
    try:
        secret = vault.unseal(settings, user.totp)["totp"]
    except vault.VaultError:  # restored with another key: the recovery codes still work
        return False
    step = totp.accepted(secret, code[:50], user.totp_step)
    if step is None:
        return False
    User.update(totp_step=step).where(User.id == user.id).execute()
    return True


# --- between the two steps ---------------------------------------------------------------------------


def half_way(settings: Settings, user: User) -> str:
    """What the browser carries from the password to the code: sealed, for ten minutes, void with the password."""
    fact = {"user": user.id, "mark": people.digest(user.password_hash), "until": clock.now() + 10 * clock.MINUTE}
    return vault.seal(settings, fact).decode()


def who_is_half_way(settings: Settings, sealed: str) -> User | None:
    try:
        fact = vault.unseal(settings, sealed.encode())
    except (vault.VaultError, ValueError, json.JSONDecodeError):
        return None
    user = User.get_or_none(User.id == fact.get("user", 0))
    if user is None or not user.active or fact.get("until", 0) < clock.now():
        return None
    return user if fact.get("mark") == people.digest(user.password_hash) else None


def grouped(secret: str) -> str:
    """A secret as people copy it by hand: in groups of four."""
    return " ".join(secret[n : n + 4] for n in range(0, len(secret), 4))
