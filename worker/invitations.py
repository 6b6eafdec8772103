"""New people come in by a link that works once: whoever holds it chooses the password. No mail is sent."""

from __future__ import annotations

import secrets

from worker import audit, clock, db, people
from worker.models import Invitation, User
from worker.people import ROLES, PersonRefused

LIFE = 72 * clock.HOUR


class InvitationRefused(ValueError):
    """The link is unknown, used or expired."""


def invite(email: str, role: str, actor: str) -> str:
    """Make an invitation and return the token of its link, for the only time; one of the same address before is void.

    Raises PersonRefused with email, role or exists.
    """
    email = people.normal_email(email)
    if role not in ROLES:
        raise PersonRefused("role")
    token = secrets.token_urlsafe(32)
    now = clock.now()
    with db.write():
        if User.get_or_none(User.email == email) is not None:
            raise PersonRefused("exists")
        Invitation.delete().where((Invitation.email == email) | (Invitation.expires_at <= now)).execute()
        Invitation.create(
            token_hash=people.digest(token),
            email=email,
            role=role,
            made_by=actor,
            created_at=now,
            expires_at=now + LIFE,
        )
        audit.record(actor, "user.invite", email, role=role)
    return token


def of_token(token: str) -> Invitation:
    """The living invitation of a link. Raises InvitationRefused."""
    found = Invitation.get_or_none(Invitation.token_hash == people.digest(token))
    if found is None or found.expires_at <= clock.now():
        raise InvitationRefused
    return found


def accept(token: str, password: str) -> User:
    """Make the person with the password that they chose; the link dies with it. Of two at once, one wins.

    Raises InvitationRefused, PersonRefused or PasswordRefused.
    """
    found = of_token(token)
    people.check_password(password, found.email)
    password_hash = people.hash_password(password)  # slow on purpose: before the write lock, not inside it
    with db.write():
        if not Invitation.delete().where(Invitation.id == found.id).execute():
            raise InvitationRefused
        user = people.make_user(found.email, password_hash, found.role)
        audit.record(found.email, "user.join", found.email, role=found.role, invited_by=found.made_by)
    return user


def living() -> list[Invitation]:
    """Who has been invited and not come yet."""
    alive = Invitation.expires_at > clock.now()
    return list(Invitation.select().where(alive).order_by(Invitation.id.desc()).limit(200))


def withdraw(number: int, actor: str) -> bool:
    """Make a link void; False when there is none."""
    with db.write():
        found = Invitation.get_or_none(Invitation.id == number)
        if found is None:
            return False
        Invitation.delete().where(Invitation.id == number).execute()
        audit.record(actor, "user.uninvite", found.email)
    return True
