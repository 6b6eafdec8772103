"""Callbacks of the providers, answered before Flask: checked over the raw bytes, on the disk, then 200.

A provider repeats what was not answered with 200, and stops calling a host that answers slowly, so
this path is short: no session, no template, one kept connection for all, and one commit for
everything that came in while the last one was being synced.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import peewee

from webapp.limits import Limits
from worker import channels, clock, db, delivery
from worker.models import Channel
from worker.providers.base import Provider, RawCallback
from worker.settings import Settings

log = logging.getLogger("molva.web")

PREFIX = "/hooks/"
PATHS = ("", "status", "inbound")
BODY_MAX = 3 * 1024 * 1024
HEADERS = ("content-type", "x-hub-signature-256", "x-sandbox-signature", "d360-webhook-secret")
WAIT = 8.0  # seconds that a callback may wait for its commit; providers give up after about ten
STALL = 1.0  # seconds after which a commit is slow, and callbacks leave threads to the pages
CROWD = 8  # callbacks that may wait for a slow commit at the same time
FRESH = 2.0  # seconds for which a channel that was looked up is known
TOGETHER = 500

StartResponse = Any  # of PEP 3333
Environ = dict[str, Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]


class Answer(NamedTuple):
    status: str
    body: bytes = b""
    wait: int = 0  # seconds to wait, told to whoever asks too often


OK = Answer("200 OK")
FORGED = Answer("403 Forbidden", b"the signature does not match")
UNKNOWN = Answer("404 Not Found", b"there is no such address")
WRONG_METHOD = Answer("405 Method Not Allowed")
REFUSED = (FORGED, UNKNOWN, WRONG_METHOD)
TOO_LARGE = Answer("413 Content Too Large")
BUSY = Answer("503 Service Unavailable", b"try again")


class _Waiting:
    """One callback on its way to the disk."""

    def __init__(self, channel_id: int, callback: RawCallback) -> None:
        self.channel_id = channel_id
        self.callback = callback
        self.received_at = clock.now()
        self.stored = False
        self.done = threading.Event()


class Store:
    """Writes callbacks from one thread, as many in a commit as have come in meanwhile."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None
        self._counting = threading.Lock()
        self._inside = 0  # threads that wait here
        self._began: float | None = None  # when the commit under way began

    def put(self, channel_id: int, callback: RawCallback) -> bool:
        """Wait until the callback is on the disk; False when it could not be stored in time.

        While the storage does not answer, only CROWD callbacks wait for it: the pages need threads as well.
        """
        self._count(1)
        try:
            began = self._began
            if self._inside > CROWD and began is not None and clock.monotonic() - began > STALL:
                return False
            self._start()
            waiting = _Waiting(channel_id, callback)
            self._queue.put(waiting)
            if not waiting.done.wait(STALL) and (self._inside > CROWD or not waiting.done.wait(WAIT - STALL)):
                return False
            return waiting.stored
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self._inside += change

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._started:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < TOGETHER and not self._queue.empty():
                batch.append(self._queue.get())
            self._began = clock.monotonic()
            try:
                delivery.receive_all((w.channel_id, w.callback, w.received_at) for w in batch)
                for waiting in batch:
                    waiting.stored = True
            except Exception as error:
                # The provider brings them again; a fault of our own is worth its traceback.
                log.error("%d callbacks could not be stored", len(batch), exc_info=db.trouble(error) is None)
            self._began = None
            for waiting in batch:
                waiting.done.set()


class Callbacks:
    """A WSGI application that answers /hooks/… and hands everything else to the one inside."""

    def __init__(self, settings: Settings, inside: Wsgi, headers: Mapping[str, str], limits: Limits) -> None:
        self._inside = inside
        self._limits = limits
        self._headers = [*headers.items(), ("Cache-Control", "no-store")]
        self._store = Store()
        self._providers = channels.Providers(settings)
        self._hops = settings.trusted_proxies
        self._known: dict[str, tuple[float, int, Provider]] = {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith(PREFIX):
            return self._inside(environ, start_response)
        try:
            answer = self._answer(path[len(PREFIX) :], environ)
        except peewee.OperationalError:
            answer = BUSY
        if answer in REFUSED:
            answer = self._counted(answer, environ)
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(answer.body)))]
        if answer.wait:
            headers.append(("Retry-After", str(answer.wait)))
        start_response(answer.status, headers + self._headers)
        return [answer.body]

    def _counted(self, answer: Answer, environ: Environ) -> Answer:
        """A refusal, or that there have been too many of them. What is genuine is never counted, nor kept out."""
        wait = self._limits.take("refused callback", _address(environ, self._hops))
        return Answer("429 Too Many Requests", b"too many refused requests", wait) if wait else answer

    def _answer(self, rest: str, environ: Environ) -> Answer:
        key, _slash, path = rest.partition("/")
        found = self._channel(key) if path in PATHS else None
        if found is None:
            return UNKNOWN
        channel_id, provider = found
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD", "POST"):
            return WRONG_METHOD
        body = _body(environ)
        if body is None:
            return TOO_LARGE
        query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
        headers = _headers(environ, provider.callback_headers, self._hops)
        callback = RawCallback("GET" if method == "HEAD" else method, path, query, headers, body)
        if method not in provider.callback_methods:
            challenge = provider.handshake(callback)
            return FORGED if challenge is None else Answer("200 OK", challenge.encode())
        if not provider.verify(callback):
            return FORGED
        if not self._store.put(channel_id, callback):
            return BUSY
        status, said = provider.reply_to(callback)
        return OK if status == 200 and not said else Answer(f"{status} {HTTPStatus(status).phrase}", said)

    def _channel(self, key: str) -> tuple[int, Provider] | None:
        """The channel behind a key. A known one is looked at again every other second."""
        kept = self._known.get(key)
        if kept is not None and clock.monotonic() - kept[0] < FRESH:
            return kept[1], kept[2]
        with db.connection():
            channel = channels.living().where(Channel.key == key).first()
        if channel is None:
            self._known.pop(key, None)
            return None
        provider = self._providers.get(channel)
        self._known[key] = (clock.monotonic(), channel.id, provider)
        return channel.id, provider


def _headers(environ: Environ, more: frozenset[str], hops: int) -> Mapping[str, str]:
    given = {name: environ.get(f"HTTP_{name.upper().replace('-', '_')}") for name in (*HEADERS, *more)}
    given["content-type"] = environ.get("CONTENT_TYPE")
    if "remote-addr" in more:  # never a header that came in: who called, as the trusted proxies say
        given["remote-addr"] = _address(environ, hops)
    return {name: value for name, value in given.items() if value}


def _address(environ: Environ, hops: int) -> str:
    """Who called, as the trusted proxies say."""
    seen = environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hops else []
    found = seen[-hops].strip() if 0 < hops <= len(seen) else environ.get("REMOTE_ADDR")
    return str(found or "")


def _body(environ: Environ) -> bytes | None:
    """The raw bytes; None when they are too many, whatever length was declared."""
    declared = environ.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isascii() and declared.isdigit() else None
    if length is not None and length > BODY_MAX:
        return None
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""
    body: bytes = environ["wsgi.input"].read(BODY_MAX + 1 if length is None else length)
    return None if len(body) > BODY_MAX else body
