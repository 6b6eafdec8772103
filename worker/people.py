"""People and machines that may use this installation: users, passwords, the first administrator, API tokens.

Expected refusals are exceptions that carry facts; the sentences are made where a language is known.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

import argon2
import peewee

from worker import audit, clock, db, installation
from worker.models import ApiToken, LoginAttempt, LoginSession, User

ROLES = ("viewer", "sender", "admin")  # each may do what the ones before it may

PASSWORD_MIN, PASSWORD_MAX = 12, 256
SETUP_CODE_LIFE = clock.HOUR
_SETUP_CODE = "setup_code"
SESSION_IDLE = 12 * clock.HOUR
SESSION_LIFE = 30 * clock.DAY
SESSION_TOUCH = clock.MINUTE  # last_at is written at most this often
TOKEN_LIFE = 365 * clock.DAY
TOKENS_MAX = 500
# The parts of the API that a token can be limited to; whatever is in none of them takes a token without limits.
AREAS = ("broadcasts", "channels", "inbox", "optouts", "metrics")

# Failures that cost nothing, and the longest wait that later ones can cost. The account's wait is
# short, so that nobody can lock its owner out; the address is what guesses, so it waits longer.
ACCOUNT_FREE, ACCOUNT_WAIT = 5, 2 * clock.MINUTE
ADDRESS_FREE, ADDRESS_WAIT = 15, 15 * clock.MINUTE
FORGET_AFTER = clock.HOUR

# OWASP's floor for Argon2id: 19 MiB, two passes, one lane.
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

# Words that attackers try first; a password made of one of them and digits is no password.
_COMMON_WORDS = frozenset(
    [
        "password",
        "passwort",
        "parol",
        "пароль",
        "qwerty",
        "qwertyuiop",
        "qwertyui",
        "asdfghjkl",
        "zxcvbnm",
        "йцукен",
        "йцукенгшщзхъ",
        "iloveyou",
        "letmein",
        "welcome",
        "administrator",
        "admin",
        "administrador",
        "superman",
        "batman",
        "dragon",
        "monkey",
        "football",
        "baseball",
        "basketball",
        "princess",
        "sunshine",
        "master",
        "shadow",
        "michael",
        "jennifer",
        "computer",
        "internet",
        "samsung",
        "liverpool",
        "chelsea",
        "arsenal",
        "barcelona",
        "whatever",
        "trustno",
        "changeme",
        "changemenow",
        "default",
        "secret",
        "mustang",
        "starwars",
        "passw0rd",
        "p@ssw0rd",
        "p@ssword",
        "pa$$word",
        "molva",
        "molvamolva",
        "passwordpassword",
        "qwertyqwerty",
        "qwerty123qwerty",
        "1q2w3e4r5t",
        "1q2w3e4r5t6y",
        "1q2w3e4r",
        "1qaz2wsx",
        "1qaz2wsx3edc",
        "qazwsxedc",
        "qazwsxedcrfv",
        "zaq12wsx",
        "q1w2e3r4t5y6",
        "correcthorsebatterystaple",
        "любовь",
        "наташа",
        "привет",
        "люблютебя",
        "солнышко",
    ]
)


class PasswordRefused(ValueError):
    """A password that may not be used; `code` is too_short, too_long or common."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class PersonRefused(ValueError):
    """A person that cannot be made or changed; `code` is email, exists, role, area, unknown, self or last_admin."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SetupRefused(ValueError):
    """The first administrator cannot be made; `code` is done (there is one) or code (wrong or expired)."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TooManyAttempts(RuntimeError):
    """Sign-in has to wait; `seconds` until the next try is looked at."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"wait {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: a signed-in person or an API token. `name` is what the audit log shows.

    `areas`: the parts of the API that a token reaches; None for all.
    """

    name: str
    role: str
    user_id: int | None = None
    token_id: int | None = None
    areas: frozenset[str] | None = None
    via: str = ""  # the login session or the beginning of the token, for the audit log

    def can(self, role: str) -> bool:
        """Whether this one may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def reaches(self, area: str) -> bool:
        """Whether this part of the API is open to this one."""
        return self.areas is None or area in self.areas


# ---- passwords


def check_password(password: str, email: str = "") -> None:
    """Raise PasswordRefused for a password that is too short, too long or too well known."""
    if len(password) < PASSWORD_MIN:
        raise PasswordRefused("too_short")
    if len(password) > PASSWORD_MAX:
        raise PasswordRefused("too_long")
    plain = password.casefold()
    core = re.sub(r"^[\d\W_]+|[\d\W_]+$", "", plain)
    repeated = re.fullmatch(r"(.{1,4}?)\1+", plain, re.DOTALL)
    if not core or core in _COMMON_WORDS or plain in _COMMON_WORDS or repeated or plain == email.casefold():
        raise PasswordRefused("common")


def hash_password(password: str) -> str:
    return _hasher.hash(password)


@functools.cache
def _nobody() -> str:
    """A hash that no password opens, so that an unknown account costs the same time as a known one."""
    return _hasher.hash(secrets.token_urlsafe(24))


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


# ---- users


def normal_email(email: str) -> str:
    """The form in which addresses are stored and compared. Raises PersonRefused("email")."""
    email = email.strip().casefold()
    if len(email) > 254 or not re.fullmatch(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+", email):
        raise PersonRefused("email")
    return email


def add_user(email: str, password: str, role: str, *, actor: str) -> User:
    """Make a person. Raises PersonRefused or PasswordRefused."""
    email = normal_email(email)
    if role not in ROLES:
        raise PersonRefused("role")
    check_password(password, email)
    password_hash = hash_password(password)
    with db.write():
        user = make_user(email, password_hash, role)
        audit.record(actor, "user.add", email, role=role)
    return user


def make_user(email: str, password_hash: str, role: str) -> User:
    """Store a person whose values were checked, inside the caller's transaction. Raises PersonRefused("exists")."""
    try:
        return User.create(email=email, password_hash=password_hash, role=role, created_at=clock.now())
    except peewee.IntegrityError:
        raise PersonRefused("exists") from None


def set_password(user: User, password: str, *, actor: str) -> None:
    """Change a password and end every login session of that person. Raises PasswordRefused."""
    check_password(password, user.email)
    password_hash = hash_password(password)
    with db.write():
        User.update(password_hash=password_hash).where(User.id == user.id).execute()
        end_sessions(user.id)
        audit.record(actor, "user.password", user.email)
    user.password_hash = password_hash


def change_role(user_id: int, role: str, *, actor: str) -> User:
    """Give a person another role and end their login sessions.

    Raises PersonRefused: role, unknown, self or last_admin.
    """
    if role not in ROLES:
        raise PersonRefused("role")
    with db.write():
        user = _other(user_id, actor)
        if user.role == role:
            return user
        if role != "admin":
            _require_another_admin(user)
        User.update(role=role).where(User.id == user.id).execute()
        end_sessions(user.id)
        audit.record(actor, "user.role", user.email, before=user.role, role=role)
    return User.get_by_id(user_id)


def deactivate(user_id: int, *, actor: str) -> User:
    """Shut a person out at once; what they did stays in the log. Raises PersonRefused: unknown, self, last_admin."""
    with db.write():
        user = _other(user_id, actor)
        _require_another_admin(user)
        User.update(active=False).where(User.id == user.id).execute()
        end_sessions(user.id)
        audit.record(actor, "user.off", user.email)
    return User.get_by_id(user_id)


def activate(user_id: int, *, actor: str) -> User:
    """Let a person in again. Raises PersonRefused("unknown")."""
    with db.write():
        user = _other(user_id, actor)
        User.update(active=True).where(User.id == user.id).execute()
        audit.record(actor, "user.on", user.email)
    return User.get_by_id(user_id)


def _other(user_id: int, actor: str) -> User:
    """Another person than the one who acts: nobody changes their own role, and nobody shuts themselves out."""
    user = User.get_or_none(User.id == user_id)
    if user is None:
        raise PersonRefused("unknown")
    if user.email == actor:
        raise PersonRefused("self")
    return user


def _require_another_admin(user: User) -> None:
    """Inside the caller's transaction, so that of two who remove each other the second is refused."""
    others = (User.role == "admin") & User.active & (User.id != user.id)
    if user.role == "admin" and not User.select().where(others).exists():
        raise PersonRefused("last_admin")


def find_user(email: str) -> User:
    """Raises PersonRefused("unknown")."""
    user = User.get_or_none(User.email == normal_email(email))
    if user is None:
        raise PersonRefused("unknown")
    return user


def password_is(user: User, password: str) -> bool:
    """Whether this is the person's password: asked again before a change that matters."""
    return len(password) <= PASSWORD_MAX and _matches(user.password_hash, password)


# ---- the first administrator


def has_admin() -> bool:
    return bool(User.select().where(User.role == "admin").exists())


def new_setup_code() -> str | None:
    """A fresh one-time code, valid for an hour; the one before it is void. None when there is an administrator."""
    alphabet = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
    code = "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(4))
    with db.write():
        if has_admin():
            return None
        fact = {"hash": digest(_normal_code(code)), "until": clock.now() + SETUP_CODE_LIFE}
        installation.keep(_SETUP_CODE, fact)
    return code


def first_admin(code: str, email: str, password: str) -> User:
    """Make the first administrator; the code dies with it. Of two at once, one wins.

    Raises SetupRefused, PersonRefused or PasswordRefused.
    """
    if has_admin():
        raise SetupRefused("done")
    _require_code(code)
    email = normal_email(email)
    check_password(password, email)
    password_hash = hash_password(password)  # slow on purpose: before the write lock, not inside it
    with db.write():
        if has_admin():
            raise SetupRefused("done")
        _require_code(code)
        installation.forget(_SETUP_CODE)
        user = make_user(email, password_hash, "admin")
        audit.record("setup", "user.add", email, role="admin")
    return user


def _require_code(code: str) -> None:
    fact = installation.fact(_SETUP_CODE)
    good = fact is not None and secrets.compare_digest(fact["hash"], digest(_normal_code(code)))
    if not good or fact["until"] < clock.now():
        raise SetupRefused("code")


def _normal_code(code: str) -> str:
    return re.sub(r"[^0-9A-Z]", "", code.upper())


def digest(text: str) -> str:
    """SHA-256: how tokens with enough chance in them are kept."""
    return hashlib.sha256(text.encode()).hexdigest()


# ---- signing in


def authenticate(email: str, password: str, address: str) -> User | None:
    """The person with this password, or None: one answer, and one time, for every kind of wrong.

    Raises TooManyAttempts before the password is looked at.
    """
    email = email.strip().casefold()
    account_key, address_key = f"account:{digest(email)}", f"address:{address}"
    require_patience(account_key, address_key)
    user = User.get_or_none(User.email == email) if len(email) <= 254 else None
    right = _matches(user.password_hash if user else _nobody(), password[: PASSWORD_MAX + 1])
    if user is None or not right or not user.active:
        with db.write():
            count_failure(account_key, ACCOUNT_FREE, ACCOUNT_WAIT)
            count_failure(address_key, ADDRESS_FREE, ADDRESS_WAIT)
            audit.record(user.email if user else "", "login.failed")
        return None
    rehash = hash_password(password) if _hasher.check_needs_rehash(user.password_hash) else None
    with db.write():
        if rehash:
            User.update(password_hash=rehash).where(User.id == user.id).execute()
        forget_failures(account_key)
    return user


def require_patience(*keys: str) -> None:
    """Raise TooManyAttempts while one of these has to wait."""
    now = clock.now()
    until = LoginAttempt.select(peewee.fn.MAX(LoginAttempt.until)).where(LoginAttempt.key.in_(keys)).scalar() or 0
    if until > now:
        raise TooManyAttempts(-(-(until - now) // clock.SECOND))


def forget_failures(key: str) -> None:
    LoginAttempt.delete().where(LoginAttempt.key == key).execute()


def count_failure(key: str, free: int, longest: int) -> None:
    """One more wrong try, inside the caller's transaction; after `free` of them the wait doubles up to `longest` ms."""
    now = clock.now()
    LoginAttempt.delete().where(LoginAttempt.last_at < now - FORGET_AFTER).execute()
    seen = LoginAttempt.get_or_none(LoginAttempt.key == key)
    failures = 1 + (seen.failures if seen else 0)
    wait = 0 if failures < free else min(longest, clock.SECOND << min(failures - free, 20))
    LoginAttempt.insert(key=key, failures=failures, until=now + wait, last_at=now).on_conflict(
        conflict_target=[LoginAttempt.key],
        preserve=[LoginAttempt.failures, LoginAttempt.until, LoginAttempt.last_at],
    ).execute()


# ---- login sessions


def begin_session(user: User, address: str, agent: str) -> str:
    """Open a login session; the token for the cookie. The table keeps only its hash."""
    token = secrets.token_urlsafe(32)
    now = clock.now()
    with db.write():
        LoginSession.delete().where(LoginSession.created_at < now - SESSION_LIFE).execute()
        LoginSession.create(
            token_hash=digest(token),
            user=user.id,
            created_at=now,
            last_at=now,
            address=address,
            agent=agent[:200],
            confirmed_at=now,
        )
        audit.record(user.email, "login")
    return token


def confirm(user: User, session_id: int, password: str) -> bool:
    """Whether the password is right: then this login session may do what matters for a while.

    Raises TooManyAttempts before the password is looked at.
    """
    key = f"confirm:{user.id}"
    require_patience(key)
    right = password_is(user, password)
    with db.write():
        if right:
            forget_failures(key)
            confirmed(session_id)
        else:
            count_failure(key, ACCOUNT_FREE, ACCOUNT_WAIT)
            audit.record(user.email, "confirm.failed")
    return right


def confirmed(session_id: int) -> None:
    """Note that the person has just proved to be there, inside the caller's transaction."""
    LoginSession.update(confirmed_at=clock.now()).where(LoginSession.id == session_id).execute()


_OF_SESSION = ("id", "created_at", "last_at", "address", "agent", "confirmed_at")
_OF_USER = ("id", "email", "password_hash", "role", "language", "active", "created_at", "totp")
_SESSION = (
    f"SELECT {', '.join(f's.{name}' for name in _OF_SESSION)}, {', '.join(f'u.{name}' for name in _OF_USER)}"  # noqa: S608
    " FROM login_session s JOIN user_account u ON u.id = s.user_id WHERE s.token_hash = ? AND u.active"
)


def session_of(token: str) -> LoginSession | None:
    """The living session of a cookie's token, with its user; touched when it was used."""
    # Every request asks this; building the query anew would be most of its cost.
    rows = db.rows(_SESSION, [digest(token)])
    if not rows:
        return None
    names = len(_OF_SESSION)
    found = LoginSession(**dict(zip(_OF_SESSION, rows[0][:names], strict=True)))
    found.user = User(**dict(zip(_OF_USER, rows[0][names:], strict=True)))
    now = clock.now()
    if found.last_at < now - SESSION_IDLE or found.created_at < now - SESSION_LIFE:
        with db.write():
            LoginSession.delete().where(LoginSession.id == found.id).execute()
        return None
    if found.last_at < now - SESSION_TOUCH:
        # A disk that is full or busy is no reason to turn a reader away.
        with contextlib.suppress(peewee.OperationalError), db.write():
            LoginSession.update(last_at=now).where(LoginSession.id == found.id).execute()
    return found


def end_session(token: str, *, actor: str) -> None:
    with db.write():
        if LoginSession.delete().where(LoginSession.token_hash == digest(token)).execute():
            audit.record(actor, "logout")


def end_sessions(user_id: int) -> int:
    """End every login session of a person, inside the caller's transaction; how many there were."""
    return int(LoginSession.delete().where(LoginSession.user == user_id).execute())


def end_one_session(user_id: int, session_id: int, *, actor: str) -> bool:
    """Sign out one browser of a person; False when there is no such session."""
    with db.write():
        which = (LoginSession.id == session_id) & (LoginSession.user == user_id)
        gone = bool(LoginSession.delete().where(which).execute())
        if gone:
            audit.record(actor, "login.end", str(session_id))
    return gone


def end_other_sessions(user_id: int, kept: int, *, actor: str) -> int:
    """Sign out every browser of a person but the one whose session is `kept`; how many there were."""
    with db.write():
        gone = int(LoginSession.delete().where(LoginSession.user == user_id, LoginSession.id != kept).execute())
        audit.record(actor, "login.end_all", n=gone)
    return gone


def sessions(user_id: int) -> list[LoginSession]:
    """The living sessions of a person, latest first."""
    alive = clock.now() - SESSION_IDLE
    return list(
        LoginSession.select()
        .where(LoginSession.user == user_id, LoginSession.last_at >= alive)
        .order_by(LoginSession.last_at.desc())
        .limit(50)
    )


# ---- API tokens


def create_token(
    name: str,
    role: str,
    *,
    actor: str,
    life: int | None = TOKEN_LIFE,
    areas: Collection[str] | None = None,
    user_id: int | None = None,
) -> str:
    """Make an API token and return it, for the only time. Raises PersonRefused.

    `life` in ms, None for no end. `areas`: the parts of the API that it reaches, None or none for all of them.
    `user_id`: the person who makes it; it can do no more than that person, and ends with the account.
    """
    if role not in ROLES:
        raise PersonRefused("role")
    if not set(areas or ()) <= set(AREAS):
        raise PersonRefused("area")
    token = "molva_" + secrets.token_urlsafe(32)
    now = clock.now()
    with db.write():
        ApiToken.create(
            name=name.strip()[:100],
            prefix=token[:12],
            token_hash=digest(token),
            role=role,
            created_at=now,
            expires_at=None if life is None else now + life,
            areas=sorted(areas) if areas else None,
            user_id=user_id,
        )
        audit.record(actor, "token.create", name, role=role, areas=sorted(areas or ()))
    return token


def token_identity(token: str) -> Identity | None:
    """Who an API token is, or None when it is unknown, expired, or made by somebody whose account has ended."""
    found = ApiToken.get_or_none(ApiToken.token_hash == digest(token))
    now = clock.now()
    if found is None or (found.expires_at is not None and found.expires_at <= now):
        return None
    role = _role_now(found)
    if role is None:
        return None
    if found.last_used_at is None or found.last_used_at < now - SESSION_TOUCH:
        with contextlib.suppress(peewee.OperationalError), db.write():
            ApiToken.update(last_used_at=now).where(ApiToken.id == found.id).execute()
    areas = None if found.areas is None else frozenset(found.areas)
    return Identity(f"token {found.name}", role, token_id=found.id, areas=areas, via=found.prefix)


def _role_now(token: ApiToken) -> str | None:
    """The role of a token, no higher than its maker's is now; None when the maker may not sign in any more."""
    if token.user_id is None:
        return str(token.role)
    maker = User.get_or_none((User.id == token.user_id) & User.active)
    return None if maker is None else min(str(token.role), str(maker.role), key=ROLES.index)


def tokens() -> list[ApiToken]:
    """The API tokens, oldest first."""
    return list(ApiToken.select().order_by(ApiToken.id).limit(TOKENS_MAX))


def revoke_token(prefix: str, *, actor: str) -> int:
    """Delete the tokens with this prefix or name; how many there were."""
    return _revoke((ApiToken.prefix == prefix) | (ApiToken.name == prefix), prefix, actor)


def revoke_token_by_id(token_id: int, *, actor: str) -> bool:
    """Delete one token; False when there is none."""
    found = ApiToken.get_or_none(ApiToken.id == token_id)
    return found is not None and bool(_revoke(ApiToken.id == token_id, found.name, actor))


def _revoke(which: peewee.Expression, name: str, actor: str) -> int:
    with db.write():
        gone = ApiToken.delete().where(which).execute()
        if gone:
            audit.record(actor, "token.revoke", name)
    return int(gone)
