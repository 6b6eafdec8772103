"""Admin, sender, viewer and stranger, each with a browser of their own."""

from __future__ import annotations

import functools
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from worker import clock, people
from worker.models import User

PASSWORD = "seven quiet rivers"


@functools.cache
def password_hash() -> str:
    """Hashed once for the whole run: slow on purpose."""
    return people.hash_password(PASSWORD)


def person(role: str, email: str = "") -> User:
    """A person with this role and the password PASSWORD."""
    return User.create(
        email=email or f"{role}@example.org", password_hash=password_hash(), role=role, created_at=clock.now()
    )


class Browser:
    """A test client that sends the CSRF token like our pages do."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()
        self._csrf = ""

    def get(self, url: str, **kwargs: Any) -> TestResponse:
        return self.client.get(url, **kwargs)

    def page(self, url: str, **kwargs: Any) -> str:
        """The text of a page that must be there."""
        answer = self.client.get(url, **kwargs)
        assert answer.status_code == 200, f"GET {url}: {answer.status}"
        return answer.text

    def partial(self, url: str, **kwargs: Any) -> TestResponse:
        """GET as htmx asks."""
        return self.client.get(url, headers=self._htmx(kwargs), **kwargs)

    def post(self, url: str, data: dict[str, Any] | None = None, *, htmx: bool = False, **kwargs: Any) -> TestResponse:
        """POST with the token of this login; `htmx` asks as htmx does."""
        headers = self._htmx(kwargs) if htmx else dict(kwargs.pop("headers", {}))
        headers["X-CSRFToken"] = self.csrf()
        return self.client.post(url, data=data, headers=headers, **kwargs)

    def csrf(self) -> str:
        """The token of this login, taken from a page that everybody may see."""
        if not self._csrf:
            text = self.client.get("/no-such-page").text
            self._csrf = text.split('"X-CSRFToken": "')[1].split('"')[0]
        return self._csrf

    def forget_csrf(self) -> None:
        """After signing in or out the token is another one."""
        self._csrf = ""

    @staticmethod
    def _htmx(kwargs: dict[str, Any]) -> dict[str, str]:
        return {"HX-Request": "true", "HX-Current-URL": "http://localhost/", **kwargs.pop("headers", {})}


def signed_in(app: Flask, user: User) -> Browser:
    """A browser with a login session, without the slow way through the password."""
    browser = Browser(app)
    with app.test_request_context():
        from flask import session

        from webapp import auth

        auth.sign_in(user)
        kept = dict(session)
    with browser.client.session_transaction() as fresh:
        fresh.update(kept)
        fresh.permanent = True
    return browser
