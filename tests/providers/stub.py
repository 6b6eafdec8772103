"""A provider that behaves as a test says: a small HTTP server on this machine that keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """One request as it came, and the number of the connection it came on (the first is 1)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[socket.socket, Request], bool]
"""Answers one request; True keeps the connection."""


def answer(status: int = 200, body: bytes | dict[str, Any] | list[Any] = b"", **headers: str) -> Behaviour:
    """An ordinary answer with a length."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)


def raw(data: bytes, *, keep: bool = True) -> Behaviour:
    """Exactly these bytes."""

    def act(sock: socket.socket, _: Request) -> bool:
        sock.sendall(data)
        return keep

    return act


def then_close(data: bytes = b"") -> Behaviour:
    """Perhaps some bytes, then the end of the stream."""
    return raw(data, keep=False)


def reset(sock: socket.socket, _: Request) -> bool:
    """The hard end of a connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def silent(sock: socket.socket, _: Request) -> bool:
    """No answer: wait until the other side gives up."""
    with contextlib.suppress(OSError):
        sock.recv(1)
    return False


def drip(data: bytes, pause: threading.Event, gap: float = 0.02) -> Behaviour:
    """Byte by byte, each within the patience of any read timeout, until `pause` is set."""

    def act(sock: socket.socket, _: Request) -> bool:
        for byte in data:
            if pause.wait(gap):
                break
            try:
                sock.sendall(bytes([byte]))
            except OSError:
                break
        return False

    return act


@dataclass
class Stub:
    """Use as a context. `behave` answers every request that `script` has no behaviour left for."""

    behave: Behaviour = field(default_factory=answer)
    script: list[Behaviour] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Stub:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(5)

    def hang_up(self) -> None:
        """Close every connection from this side."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.end.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                self._open.discard(sock)
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            reader = sock.makefile("rb")
            with reader:
                while (request := _read(reader, number)) is not None:
                    self.requests.append(request)
                    act = self.script.pop(0) if self.script else self.behave
                    if not act(sock, request):
                        break
        except (OSError, ValueError):
            pass
        finally:
            self._open.discard(sock)
            sock.close()


def _read(reader: Any, number: int) -> Request | None:
    first = reader.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = {}
    while line := reader.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Request(first[0], first[1], headers, body, number)
