"""The polls of a running broadcast's page, answered before Flask while there is nothing new to draw.

Some hundred open pages ask once a second and see the same numbers. Flask answers the first question of a browser
and draws the part once a second; what it decided is used again for the same headers, and only as long as the login
session, the person's role and language, and the broadcast's own row are what they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import peewee

from webapp import connection
from webapp.glance import SEAT, Glances, Seat
from worker import people

SEATS_MAX = 2_000
_PATH = re.compile(r"/broadcasts/([1-9][0-9]{0,17})/live")
# All that Flask looks at before it answers this address; ProxyFix has already put the last three right.
_LOOKED_AT = (
    "HTTP_COOKIE",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_HX_BOOSTED",
    "HTTP_HX_HISTORY_RESTORE_REQUEST",
    "HTTP_HOST",
    "SERVER_NAME",
    "wsgi.url_scheme",
)
_OF_ONE_ANSWER = ("content-length", "content-encoding")

Headers = list[tuple[str, str]]
Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class _Known(NamedTuple):
    """A browser that Flask has let in, and the headers that it gets."""

    seat: Seat
    headers: Headers


class Polls:
    """A WSGI application that answers known browsers' polls and hands everything else to the one inside."""

    def __init__(self, inside: Wsgi, glances: Glances) -> None:
        self._inside = inside
        self._glances = glances
        self._known: dict[tuple[Any, ...], _Known] = {}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        asked = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        if asked is None or environ["REQUEST_METHOD"] != "GET" or environ.get("HTTP_HX_REQUEST") != "true":
            return self._inside(environ, start_response)
        browser = tuple(environ.get(name) for name in _LOOKED_AT)
        known = self._known.get(browser)
        if known is not None:
            answer = self._again(known, int(asked[1]), environ.get("QUERY_STRING", ""))
            if answer is not None:
                start_response(*answer[:2])
                return [answer[2]]
        return self._remember(browser, environ, start_response)

    def _again(self, known: _Known, number: int, query: str) -> tuple[str, Headers, bytes] | None:
        """(status, headers, body) if what Flask found still holds and the part is fresh."""
        seat = known.seat
        try:
            connection.use()
            session = people.session_of(seat.token)
            if session is None or (session.user.id, session.user.role, session.user.language) != seat.account:
                return None
            glance = self._glances.fresh(number, seat.language, seat.csrf)
        except peewee.OperationalError:
            return None  # Flask's error pages know what to say
        finally:
            connection.leave(None)
        if glance is None:
            return None
        if parse_qs(query).get("mark", [""])[0] == glance.mark:
            return "204 No Content", known.headers, b""
        body = glance.html.encode()
        return "200 OK", [*known.headers, ("Content-Length", str(len(body)))], body

    def _remember(self, browser: tuple[Any, ...], environ: Environ, start_response: Any) -> Iterable[bytes]:
        answered: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, *rest: Any) -> Any:
            answered.append((status, headers))
            return start_response(status, headers, *rest)

        self._known.pop(browser, None)
        body = self._inside(environ, start)
        seat = environ.get(SEAT)
        if seat is not None and answered and answered[-1][0].startswith("200 "):
            headers = answered[-1][1]
            if not any(name.lower() == "set-cookie" for name, _value in headers):
                if len(self._known) >= SEATS_MAX:
                    self._known.clear()
                kept = [(name, value) for name, value in headers if name.lower() not in _OF_ONE_ANSWER]
                self._known[browser] = _Known(seat, kept)
        return body
