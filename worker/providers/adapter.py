"""A lean transport adapter for `requests` that knows how far a request got.

`requests.adapters.HTTPAdapter` cannot say whether a failed request had begun to leave. Here everything
before the first byte (name, connection, TLS) raises NotSent, everything after it raises Unclear.
One write carries head and body; the answer is read against one deadline, so that a server that drips
cannot hold a sender; nothing is repeated, redirected, unpacked or taken from the environment.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import requote_uri
from urllib3.util import wait_for_read

from worker import clock
from worker.providers.base import leaving
from worker.providers.egress import Forbidden, NoAddress, Resolver, Target


class Timeouts(NamedTuple):
    """Seconds. connect: name, TCP and TLS, each · read: without a single byte · total: from the call to the
    last byte of the answer · start: from the call to the first byte of the request · idle: how old a
    kept-alive connection may be when it is used again."""

    connect: float = 5.0
    read: float = 30.0
    total: float = 40.0
    start: float = 12.0
    idle: float = 5.0


TIMEOUTS = Timeouts()
BODY_CAP = 1_000_000
HEAD_CAP = 64 * 1024
_CHUNK = 64 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9]\d\d)(?: |$)")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")
_NOT_IN_HEADER = re.compile(r"[\x00\r\n]")


class NotSent(requests.exceptions.ConnectionError):
    """Surely not sent. `cause`: dns, connect_failed or tls."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class Unclear(requests.exceptions.ConnectionError):
    """The request had begun to leave.

    `cause`: timeout, connection_lost, answer_too_large or answer_unreadable.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


class NotAllowed(requests.exceptions.InvalidURL):
    """The address is not one that may be asked. Nothing was sent."""


class Origin(NamedTuple):
    """What one connection can be used again for."""

    secure: bool
    host: str
    port: int


class LeanResponse(requests.Response):
    """A response whose body has been read; made without the parts that an API call never uses."""

    def __init__(self, status: int, headers: CaseInsensitiveDict[str], body: bytes, url: str) -> None:
        self._content = body
        self._content_consumed = True
        self._next = None
        self.status_code = status
        self.headers = headers
        self.url = url
        self.raw = None
        self.reason = ""
        self.encoding = "utf-8"
        self.history = []

    def __getattr__(self, name: str) -> Any:
        if name == "cookies":  # a jar costs more than the rest of the response; a Session wants one
            self.cookies = requests.cookies.RequestsCookieJar()
            return self.cookies
        raise AttributeError(name)

    def close(self) -> None:
        """Nothing is held: the connection went back when the last byte was read."""


class _NothingWritten(Exception):
    """The peer had closed the connection before the first byte was handed over."""


class Connection:
    """One open socket and the moment of its last use."""

    __slots__ = ("secure", "sock", "used_at")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.secure = isinstance(sock, ssl.SSLSocket)
        self.used_at = clock.monotonic()

    def usable(self, idle: float) -> bool:
        """Young enough, and silent: a readable idle socket means that the peer has closed it."""
        return clock.monotonic() - self.used_at < idle and not wait_for_read(self.sock, timeout=0)

    def write(self, data: bytes, timeout: float) -> None:
        """Hand the whole request over. Raises _NothingWritten or Unclear."""
        sock = self.sock
        sock.settimeout(timeout)
        try:
            done = sock.send(data)
        except OSError as error:
            # A TLS library may have passed something on before it failed; a plain socket has not.
            if self.secure:
                raise _unclear(error) from error
            raise _NothingWritten(str(error)) from error
        try:
            if done < len(data):
                sock.sendall(memoryview(data)[done:])
        except OSError as error:
            raise _unclear(error) from error

    def close(self) -> None:
        self.sock.close()


def _unclear(error: OSError) -> Unclear:
    if isinstance(error, TimeoutError):
        return Unclear("timeout")
    return Unclear("connection_lost", error.strerror or type(error).__name__)


class Answer(NamedTuple):
    """What came back. Header names compare without case."""

    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes
    reusable: bool = False


class _Reader:
    """Reads one answer from a connection within its deadline, a body of at most `cap` bytes."""

    def __init__(self, sock: socket.socket, deadline: float, read_timeout: float, cap: int) -> None:
        self._sock = sock
        self._cap = cap
        self._deadline = deadline
        self._read_timeout = read_timeout
        self._have = b""

    def answer(self, method: str) -> Answer:
        """The final answer; interim ones (1xx) are passed over."""
        while True:
            minor, status, headers = self._head()
            if status >= 200:
                break
            if status == 101:
                raise Unclear("answer_unreadable", "protocol switch")
        persistent = headers.get("connection", "" if minor else "close").lower()
        keep = "close" not in persistent
        coding = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif coding:
            if coding != "chunked":
                raise Unclear("answer_unreadable", "transfer coding")
            body = self._chunked()
        elif length is not None:
            if not length.isascii() or not length.isdigit():
                raise Unclear("answer_unreadable", "content length")
            body = self._exactly(self._capped(int(length)))
        else:
            body, keep = self._to_the_end(), False
        # Bytes after the answer belong to nothing we asked for: such a connection is not used again.
        return Answer(status, headers, body, keep and not self._have)

    def _more(self) -> bytes:
        left = self._deadline - clock.monotonic()
        if left <= 0:
            raise Unclear("timeout", "the answer took too long")
        self._sock.settimeout(min(left, self._read_timeout))
        try:
            return self._sock.recv(_CHUNK)
        except OSError as error:
            raise _unclear(error) from error

    def _must(self) -> None:
        piece = self._more()
        if not piece:
            raise Unclear("connection_lost", "the answer ended early")
        self._have += piece

    def _head(self) -> tuple[int, int, CaseInsensitiveDict[str]]:
        while (end := _HEAD_END.search(self._have)) is None:
            if len(self._have) > HEAD_CAP:
                raise Unclear("answer_unreadable", "endless head")
            self._must()
        lines = self._have[: end.start()].decode("latin-1").replace("\r\n", "\n").split("\n")
        self._have = self._have[end.end() :]
        first = _STATUS_LINE.match(lines[0])
        if first is None:
            raise Unclear("answer_unreadable", "not HTTP")
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        name = ""
        for line in lines[1:]:
            if line[:1] in (" ", "\t") and name:
                headers[name] += " " + line.strip()
                continue
            name, colon, value = line.partition(":")
            if not colon:
                raise Unclear("answer_unreadable", "header")
            if name in headers and name.lower() != "content-length":
                value = f"{headers[name]}, {value.strip()}"
            headers[name] = value.strip()
        return int(first[1]), int(first[2]), headers

    def _capped(self, size: int) -> int:
        if size > self._cap:
            raise Unclear("answer_too_large")
        return size

    def _exactly(self, size: int) -> bytes:
        if len(self._have) < size:
            pieces, have = [self._have], len(self._have)
            while have < size:
                piece = self._more()
                if not piece:
                    raise Unclear("connection_lost", "the answer ended early")
                pieces.append(piece)
                have += len(piece)
            self._have = b"".join(pieces)
        body, self._have = self._have[:size], self._have[size:]
        return body

    def _to_the_end(self) -> bytes:
        pieces, size = [self._have], len(self._have)
        self._have = b""
        while piece := self._more():
            size = self._capped(size + len(piece))
            pieces.append(piece)
        return b"".join(pieces)

    def _line(self) -> bytes:
        while b"\n" not in self._have:
            if len(self._have) > HEAD_CAP:
                raise Unclear("answer_unreadable", "endless line")
            self._must()
        line, _, self._have = self._have.partition(b"\n")
        return line.strip()

    def _chunked(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                length = int(self._line().partition(b";")[0], 16)
            except ValueError:
                raise Unclear("answer_unreadable", "chunk") from None
            if length < 0:
                raise Unclear("answer_unreadable", "chunk")
            if length == 0:
                break
            size = self._capped(size + length)
            pieces.append(self._exactly(length))
            self._line()
        trailer = 0
        while line := self._line():
            trailer += len(line)
            if trailer > HEAD_CAP:
                raise Unclear("answer_unreadable", "endless trailer")
        return b"".join(pieces)


class LeanAdapter(BaseAdapter):
    """Kept-alive connections shared by all threads: never more than requests at one time.

    Mount it in a `requests.Session`, or call `send` with a prepared request, which is cheaper. The
    timeouts are its own whatever the caller passes, and certificates are always checked.
    """

    def __init__(self, resolver: Resolver, timeouts: Timeouts | None = None, cap: int = BODY_CAP) -> None:
        super().__init__()
        self._cap = cap
        self.timeouts = timeouts or TIMEOUTS
        self._resolver = resolver
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._closed = False

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send once and read the answer. Raises NotSent, Unclear, NotAllowed, InvalidURL or InvalidHeader."""
        started = clock.monotonic()
        method, url = request.method or "GET", request.url or ""
        origin, path = parse(url)
        data = _serialised(method, path, origin, request.headers, request.body)
        connection = self._deliver(origin, data, started)
        try:
            reader = _Reader(connection.sock, started + self.timeouts.total, self.timeouts.read, self._cap)
            answer = reader.answer(method)
        except BaseException:
            connection.close()
            raise
        if answer.reusable:
            self._give_back(origin, connection)
        else:
            connection.close()
        response = LeanResponse(answer.status, answer.headers, answer.body, url)
        response.request = request
        return response

    def close(self) -> None:
        """Close what is idle; connections in use close when their answer is read."""
        self._closed = True
        for idle in list(self._idle.values()):
            while idle:
                idle.pop().close()

    def _deliver(self, origin: Origin, data: bytes, started: float) -> Connection:
        """A connection over which the whole request has left."""
        reused = self._idle_connection(origin)
        if reused is not None and self._wrote(reused, data, started):
            return reused
        fresh = self._open(origin)
        if self._wrote(fresh, data, started):
            return fresh
        raise NotSent("connect_failed", "closed before the request")

    def _wrote(self, connection: Connection, data: bytes, started: float) -> bool:
        late = clock.monotonic() - started
        try:
            # A process that was stopped meanwhile must not send what others have given up.
            if late > self.timeouts.start:
                raise NotSent("connect_failed", "too late to begin")
            leaving()
            connection.write(data, min(self.timeouts.read, self.timeouts.total - late))
        except _NothingWritten:
            connection.close()
            return False
        except BaseException:
            connection.close()
            raise
        return True

    def _idle_connection(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.usable(self.timeouts.idle):
                return connection
            connection.close()
        return None

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        connection.used_at = clock.monotonic()
        idle = self._idle.get(origin)
        if idle is None:
            with self._lock:
                idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        # The latest is used first, so the oldest wait at the other end until they are too old.
        try:
            oldest = idle.popleft()
        except IndexError:
            return
        if self._closed or oldest.used_at < connection.used_at - self.timeouts.idle:
            oldest.close()
        else:
            idle.appendleft(oldest)

    def _open(self, origin: Origin) -> Connection:
        try:
            targets = self._resolver.targets(origin.host, origin.port, self.timeouts.connect)
        except NoAddress as error:
            raise NotSent("dns", str(error)) from error
        except Forbidden as error:
            raise NotAllowed(str(error)) from error
        sock = self._connected(targets)
        if not origin.secure:
            return Connection(sock)
        try:
            return Connection(self._context().wrap_socket(sock, server_hostname=origin.host))
        except OSError as error:  # ssl.SSLError and ssl.CertificateError are kinds of OSError
            sock.close()
            reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror
            raise NotSent("tls", str(reason or type(error).__name__)) from error
        except BaseException:
            sock.close()
            raise

    def _connected(self, targets: list[Target]) -> socket.socket:
        failure = "no address"
        give_up = clock.monotonic() + self.timeouts.connect
        for target in targets:
            left = give_up - clock.monotonic()
            if left <= 0:
                break
            sock = socket.socket(target.family, socket.SOCK_STREAM)
            try:
                sock.settimeout(left)
                sock.connect(target.address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeouts.connect)  # for a TLS handshake that follows
            except OSError as error:
                sock.close()
                failure = error.strerror or "timed out"
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise NotSent("connect_failed", failure)

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                # The machine's own authorities count as well: gateways in an office often have one.
                context = ssl.create_default_context()
                context.load_verify_locations(certifi.where())
                context.set_alpn_protocols(["http/1.1"])
                self._tls = context
            return self._tls


def parse(url: str) -> tuple[Origin, str]:
    """Split an address into where to connect and what to ask for.

    Raises requests' InvalidURL for anything but plain http(s) addresses without credentials.
    """
    if _NOT_IN_URL.search(url):
        raise requests.exceptions.InvalidURL("white space or control characters in the address")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise requests.exceptions.InvalidURL(str(error)) from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise requests.exceptions.InvalidURL("not a plain http or https address")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise requests.exceptions.InvalidURL("host name") from error
    secure = parts.scheme == "https"
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    if not path.isascii():
        path = requote_uri(path)
    return Origin(secure, host, port or (443 if secure else 80)), path


def _serialised(method: str, path: str, origin: Origin, headers: Mapping[str, str], body: bytes | str | None) -> bytes:
    payload = body.encode() if isinstance(body, str) else body or b""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    if origin.port != (443 if origin.secure else 80):
        host += f":{origin.port}"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    for name, value in headers.items():
        if _NOT_IN_HEADER.search(name) or _NOT_IN_HEADER.search(value):
            raise requests.exceptions.InvalidHeader("line break in a header")
        if name.lower() not in ("host", "content-length", "transfer-encoding", "connection"):
            lines.append(f"{name}: {value}")
    if payload or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(payload)}")
    lines.append("\r\n")
    try:
        return "\r\n".join(lines).encode("latin-1") + payload
    except UnicodeEncodeError as error:
        raise requests.exceptions.InvalidHeader("a header holds letters that HTTP cannot carry") from error
