"""The HTTP client of all HTTP providers: one request, one answer, or a SendError with its meaning."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus

import requests

from worker import clock
from worker.providers import adapter as lean
from worker.providers.adapter import Answer, LeanAdapter, Timeouts
from worker.providers.base import LATER, REFUSED, STOP_CHANNEL, UNCLEAR, SendError
from worker.providers.egress import Egress, Resolver

AGENT = "Molva"
MASK = "•••"
LONGEST_WAIT = 24 * 3600.0  # seconds; whatever a Retry-After asks for
_LONG_NUMBER = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")


class HttpClient:
    """Requests over kept-alive connections, safe to share between threads.

    allowed_hosts: private destinations of the server's configuration (MOLVA_ALLOWED_PRIVATE_HOSTS).
    allow_loopback: the sandbox's exemption; this machine and nothing else.
    cap: the largest body of an answer in bytes.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str] = (),
        allow_loopback: bool = False,
        timeouts: Timeouts | None = None,
        cap: int = lean.BODY_CAP,
    ) -> None:
        egress = Egress(allowed_hosts, loopback=allow_loopback)
        self.adapter = LeanAdapter(Resolver(egress), timeouts or lean.TIMEOUTS, cap)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
    ) -> Answer:
        """Send once and return any answer that could be read, whatever its status.

        Raises SendError: LATER (surely not sent), UNCLEAR (it had begun to leave), or STOP_CHANNEL for
        an address or a setting that cannot be used.
        """
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method, url, body
        # A plain mapping does: our adapter compares names itself, and building the usual one costs more.
        prepared.headers = {  # type: ignore[assignment]
            "User-Agent": AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        try:
            response = self.adapter.send(prepared)
        except lean.NotSent as error:
            raise SendError(LATER, error.cause, error.detail, counts=False, breaker=True) from error
        except lean.Unclear as error:
            raise SendError(UNCLEAR, error.cause, error.detail) from error
        except lean.NotAllowed as error:
            raise SendError(STOP_CHANNEL, "address_forbidden", str(error)) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise SendError(STOP_CHANNEL, "settings_invalid", str(error)) from error
        return Answer(response.status_code, response.headers, response.content)

    def session(self) -> requests.Session:
        """A `requests` session over the same connections, for calls that are not worth hand-made requests."""
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", self.adapter)
        session.mount("https://", self.adapter)
        return session

    def close(self) -> None:
        """Close the idle connections."""
        self.adapter.close()


def classify_http(status: int, retry_after: str | None = None, detail: str = "") -> SendError | None:
    """What an HTTP status means when the vendor's own code says nothing; None for 2xx.

    `retry_after` is the header of that name.
    """
    if 200 <= status < 300:
        return None
    cause = f"http_{status}"
    if status == 429:
        return SendError(
            LATER,
            cause,
            detail,
            http_status=status,
            retry_after=seconds(retry_after),
            slow_channel=True,
            counts=False,
        )
    if status in (401, 402, 403) or 300 <= status < 400:
        return SendError(STOP_CHANNEL, cause, detail, http_status=status)
    if 400 <= status < 500 and status != 408:
        return SendError(REFUSED, cause, detail, http_status=status, about_message=True)
    return SendError(UNCLEAR, cause, detail, http_status=status)


def speaks_for_itself(status: int) -> bool:
    """Whether a refusal with a code that no table knows is about this one message: its status says nothing more.

    401, 402 and 403 speak of the account, 429 of the pace, and a 5xx may hide an acceptance.
    """
    return status < 500 and status not in (401, 402, 403, 408, 429)


def unreadable(answer: Answer, secrets: Iterable[str] = ()) -> SendError:
    """An answer that may mean acceptance but does not say so; `secrets`: forms of them that it must not show."""
    return SendError(UNCLEAR, "answer_unreadable", excerpt(answer.body, secrets), http_status=answer.status)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (seconds or a date) as seconds from now, at most a day; None if unusable."""
    if not retry_after:
        return None
    text = retry_after.strip()
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = parsedate_to_datetime(text).timestamp() - clock.now() / clock.MS
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0.0), LONGEST_WAIT) if wait == wait else None


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, or None when there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def excerpt(body: bytes, secrets: Iterable[str] = ()) -> str:
    """The beginning of an unexpected answer for the history of a message, fit to be shown."""
    return shown(" ".join(without(body.decode("utf-8", "replace"), secrets)[:2000].split()))


def shown(words: str, secrets: Iterable[str] = ()) -> str:
    """A vendor's words for the history of a message: without forms of our secrets and digits of numbers.

    Secrets are covered first, while they are whole: they may hold digits, and the end may be cut off.
    """
    return mask_digits(without(words, secrets))[:500]


def secret_forms(username: str, secrets: Iterable[str]) -> list[str]:
    """Every form in which a secret could be seen in an address, a header, a body or an error, longest first."""
    plain = [secret for secret in secrets if secret]
    found: set[str] = set()
    for text in plain + [f"{username}:{secret}" for secret in plain]:
        coded = base64.b64encode(text.encode()).decode()
        found.update((text, quote(text, safe=""), quote(text), quote_plus(text), json.dumps(text)[1:-1], coded))
    return sorted(found, key=len, reverse=True)


def without(text: str, forms: Iterable[str]) -> str:
    """`text` with every form of a secret covered."""
    for form in forms:
        text = text.replace(form, MASK)
    return text


def mask_digits(text: str) -> str:
    """`text` with every run of seven or more digits (a phone number, most likely) cut to its last two."""
    return _LONG_NUMBER.sub(lambda found: "…" + found[0][-2:], text)
