"""Signing in, login sessions on the server, and the role that every route declares.

A route without a declaration is refused. People come with a cookie, machines with a bearer token;
neither door opens the other one's routes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from flask import (
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    redirect,
    request,
    session,
    url_for,
)
from flask.sessions import SecureCookieSessionInterface
from flask_babel import gettext as _
from flask_login import LoginManager, current_user, login_user, logout_user
from flask_wtf import CSRFProtect

from webapp import htmx
from worker import audit, clock, db, people
from worker.models import LoginSession, User
from worker.people import ROLES, Identity

View = TypeVar("View", bound=Callable[..., Any])

log = logging.getLogger("molva.web")
manager = LoginManager()
manager.session_protection = None  # the sessions table protects; a changed address must not sign people out
csrf = CSRFProtect()

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
CONFIRMED_FOR = 10 * clock.MINUTE  # what matters is asked for again after this


class Refused(Exception):
    """This one may not do that; `role` is the one it takes, `area` a part of the API that the token is not for."""

    def __init__(self, role: str, area: str = "") -> None:
        super().__init__(role, area)
        self.role = role
        self.area = area


class Unconfirmed(Exception):
    """What matters wants the password or a code again; `back` is the page to go on from."""

    def __init__(self, back: str) -> None:
        super().__init__(back)
        self.back = back


# ---- what a route declares


def role(name: str) -> Callable[[View], View]:
    """Declare who may call a view: viewer, sender or admin. Stands under the route decorator."""
    if name not in ROLES:
        raise ValueError(f"no role {name}")

    def declare(view: View) -> View:
        view.molva_role = name  # type: ignore[attr-defined]
        return view

    return declare


def public(view: View) -> View:
    """Declare that anybody may call a view, also before the first administrator exists."""
    view.molva_role = "public"  # type: ignore[attr-defined]
    return view


def guest(view: View) -> View:
    """Declare a view for people who are not signed in; it waits for the first administrator."""
    view.molva_role = "guest"  # type: ignore[attr-defined]
    return view


def step_up(view: View) -> View:
    """Ask the person for the password or a code again unless that was minutes ago. Stands under the role.

    API tokens are asked for nothing: there is nobody who could answer.
    """

    @functools.wraps(view)
    def asked(*args: Any, **kwargs: Any) -> Any:
        require_confirmed()
        return view(*args, **kwargs)

    asked.molva_step_up = True  # type: ignore[attr-defined]
    return asked  # type: ignore[return-value]


def require_confirmed() -> None:
    """Raise Unconfirmed when this person last proved to be there more than minutes ago."""
    if by_token() or current_user.confirmed_at >= clock.now() - CONFIRMED_FOR:
        return
    if request.method == "GET" and not htmx.asked() and not request.path.endswith((".csv", ".xlsx", ".json")):
        raise Unconfirmed(request.full_path.rstrip("?"))
    seen = urlsplit(request.referrer or "")
    here = htmx.current_path() if htmx.asked() else seen.path + (f"?{seen.query}" if seen.query else "")
    raise Unconfirmed(local_path(here) or "/")


def declared(endpoint: str) -> str | None:
    """The declared role of a route; None is refused."""
    return getattr(current_app.view_functions.get(endpoint), "molva_role", None)


def by_token() -> bool:
    """Whether this request comes through the machines' door."""
    return request.path.startswith("/api/") or request.path == "/metrics"


# Nouns of the API that belong to the area of another one, and tools that touch nothing.
AREA_OF = {"messages": "broadcasts", "conversations": "inbox"}
FREE = ("phones", "sms")


def area() -> str:
    """The part of the API that this request is for, by the first noun of its path; "" for one that needs no leave."""
    noun = request.path.removeprefix("/api/v1").strip("/").partition("/")[0].partition(".")[0]
    return "" if noun in FREE else AREA_OF.get(noun, noun)


# ---- who asks


class Person:
    """A user in the shape that Flask-Login wants: its id is the token of this very login."""

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def __init__(self, user: User, token: str, session_id: int = 0, confirmed_at: int = 0) -> None:
        self.user = user
        self.token = token
        self.session_id = session_id
        self.confirmed_at = confirmed_at
        self.identity = Identity(user.email, user.role, user.id, via=f"session {session_id}")

    def get_id(self) -> str:
        return self.token


@manager.user_loader  # type: ignore[untyped-decorator]
def _load(token: str) -> Person | None:
    with db.connection():
        found = people.session_of(token)
    return Person(found.user, token, found.id, found.confirmed_at) if found else None


def identity() -> Identity | None:
    """Who makes this request: a signed-in person or an API token; None for a stranger."""
    if "identity" not in g:
        g.identity = _token_identity() if by_token() else getattr(current_user, "identity", None)
    found: Identity | None = g.identity
    return found


def me() -> Identity:
    """Who makes this request, in a view that declared a role."""
    found = identity()
    if found is None:
        raise RuntimeError("a view without a declared role asked who is there")
    return found


def my_user() -> User:
    """The signed-in person's row, in a page that declared a role."""
    found: User = current_user.user
    return found


def my_sessions() -> list[LoginSession]:
    """The living login sessions of the signed-in person."""
    return people.sessions(my_user().id)


def my_token() -> str:
    """The token of the signed-in person's login session, in a page that declared a role."""
    found: str = current_user.token
    return found


def my_session_id() -> int:
    found: int = current_user.session_id
    return found


def _token_identity() -> Identity | None:
    scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    with db.connection():
        return people.token_identity(token.strip())


# ---- signing in and out


def sign_in(user: User) -> None:
    """Begin a login session. Whatever the browser held before, the CSRF token included, is void."""
    session.clear()
    session.permanent = True
    agent = request.headers.get("User-Agent", "")
    token = people.begin_session(user, address(), agent)
    login_user(Person(user, token))
    g.pop("identity", None)


def sign_out() -> None:
    """End this login session on the server and in the browser."""
    if current_user.is_authenticated:
        people.end_session(current_user.token, actor=current_user.identity.name)
    logout_user()
    session.clear()
    g.pop("identity", None)


def address() -> str:
    """The address of the other side; behind a proxy only as far as MOLVA_TRUSTED_PROXIES goes."""
    return request.remote_addr or ""


def local_path(target: str | None) -> str | None:
    """`target` if it is a path on this server, else None.

    Checked as it came and decoded: one leading slash, no second slash or backslash, no control
    characters, no scheme and no host.
    """
    if not target or len(target) > 2000:
        return None
    seen = target
    for _again in range(3):
        if not seen.startswith("/") or "\\" in seen or seen[1:2] == "/":
            return None
        if any(ord(c) < 32 or ord(c) == 127 for c in seen) or "//" in seen.split("?")[0]:
            return None
        seen = unquote(seen)
    parts = urlsplit(target)
    return None if parts.scheme or parts.netloc else target


# ---- the guard before every request


def guard() -> Response | None:
    """Refuse whatever was not declared, and whoever may not. Registered before the CSRF check."""
    audit.origin.set(audit.Origin(address()))
    if request.endpoint is None:
        return None  # no such page; the error handlers answer
    needed = declared(request.endpoint)
    if needed is None:
        log.error("the route %s declares no role and is refused", request.endpoint)
        abort(403)
    if needed == "public":
        return None
    if not by_token() and not _has_admin():
        return _to(url_for("setup.setup"))
    if needed == "guest":
        return None
    who = identity()
    if who is None:
        if by_token():
            abort(401)
        return _to_login()
    audit.origin.set(audit.Origin(address(), who.via))
    if not who.can(needed):
        raise Refused(needed)
    if by_token() and area() and not who.reaches(area()):
        raise Refused(needed, area())
    return None


def refuse_foreign_origin() -> None:
    """A change that another site's page asked for is refused even before its CSRF token is looked at."""
    if request.method not in UNSAFE or by_token():
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in ("same-origin", "none"):
        abort(403)
    origin = request.headers.get("Origin")
    if site is None and origin is not None and urlsplit(origin).netloc not in _own_hosts():
        abort(403)


def _own_hosts() -> set[str]:
    public = urlsplit(current_app.extensions["molva"].settings.base_url).netloc
    return {request.host, public} - {""}


def _has_admin() -> bool:
    house = current_app.extensions["molva"]
    if not house.has_admin:
        house.has_admin = people.has_admin()
    return bool(house.has_admin)


def _to_login() -> Response:
    if session.get("_user_id"):  # there was a login session, and it has ended
        session.clear()
        flash(_("You have been signed out, sign in again"), "info")
    wanted = htmx.current_path() if htmx.asked() else request.full_path.rstrip("?")
    back = local_path(wanted) if request.method == "GET" or htmx.asked() else None
    return _to(url_for("setup.login", next=back if back not in (None, "/") else None))


def _to(url: str) -> Response:
    """Another page first: never swapped into a panel, always the whole window."""
    if htmx.asked():
        response = Response(status=401)
        response.headers["HX-Redirect"] = url
        return response
    return redirect(url)  # type: ignore[return-value]


# ---- cookies


class CookieSession(SecureCookieSessionInterface):
    """Under HTTPS the cookie is Secure and bound to this host by its name."""

    def get_cookie_name(self, app: Flask) -> str:
        return "__Host-molva" if request and request.is_secure else "molva"

    def get_cookie_secure(self, app: Flask) -> bool:
        return bool(request and request.is_secure)


def init_app(app: Flask) -> None:
    """Sessions, sign-in, the guard and CSRF, in the order in which a request meets them."""
    app.session_interface = CookieSession()
    manager.init_app(app, add_context_processor=False)
    app.before_request(refuse_foreign_origin)
    app.before_request(guard)
    app.teardown_request(lambda _error: audit.origin.set(audit.Origin()) and None)
    csrf.init_app(app)
