"""A tiny SMSC inside the test's process, for what a proper server never does: half PDUs, garbage, silence."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

SUBMIT, DELIVER, UNBIND, BIND, ENQUIRE, ANSWER = 0x04, 0x05, 0x06, 0x09, 0x15, 0x80000000


class Pdu(NamedTuple):
    command: int
    status: int
    sequence: int
    body: bytes


def pack(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    return struct.pack(">4I", 16 + len(body), command, status, sequence) + body


def ok(pdu: Pdu, identity: str = "") -> bytes:
    """The answer that takes a submit."""
    return pack(SUBMIT | ANSWER, 0, pdu.sequence, (identity or f"id{pdu.sequence}").encode() + b"\x00")


def no(pdu: Pdu, status: int) -> bytes:
    return pack(pdu.command | ANSWER, status, pdu.sequence)


def deliver(
    sequence: int = 1,
    text: bytes = b"",
    *,
    source: bytes = b"79160000001",
    ton: int = 1,
    esm_class: int = 0,
    coding: int = 0,
    options: bytes = b"",
) -> bytes:
    """A deliver_sm."""
    head = b"\x00" + bytes([ton, 1]) + source + b"\x00" + b"\x05\x00Molva\x00" + bytes([esm_class, 0, 0])
    body = head + b"\x00\x00" + bytes([0, 0, coding, 0, len(text)]) + text + options
    return pack(DELIVER, 0, sequence, body)


def option(code: int, value: bytes) -> bytes:
    return struct.pack(">HH", code, len(value)) + value


def short_message(pdu: Pdu) -> bytes:
    """The octets of a submit's text, with its header."""
    at = pdu.body.index(b"\x00") + 3  # service_type, source ton and npi
    at = pdu.body.index(b"\x00", at) + 3  # source, destination ton and npi
    at = pdu.body.index(b"\x00", at) + 4  # destination, esm_class, protocol, priority
    at = pdu.body.index(b"\x00", at) + 1  # schedule
    at = pdu.body.index(b"\x00", at) + 1  # validity
    return pdu.body[at + 5 : at + 5 + pdu.body[at + 4]]


Act = Callable[["TinySmsc", socket.socket, Pdu], bytes | None]


def accept_all(smsc: TinySmsc, sock: socket.socket, pdu: Pdu) -> bytes | None:
    return ok(pdu)


class TinySmsc:
    """Listens on a free port; `act` says what comes back for a submit, everything else is answered as it should be.

    bind: the status of each bind, the last one for all that follow. `pdus`: all that came in, in order.
    """

    def __init__(
        self,
        act: Act = accept_all,
        *,
        bind: tuple[int, ...] = (0,),
        enquiries: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.act = act
        self.tls = tls
        self.bind = list(bind)
        self.enquiries = enquiries
        self.pdus: list[Pdu] = []
        self.times: list[float] = []
        self.connections: list[socket.socket] = []
        self.news = threading.Condition()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accepting, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> TinySmsc:
        return self

    def __exit__(self, *_: Any) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self.connections:
            self.drop(sock)
        for thread in self._threads:
            thread.join(5)

    @property
    def submits(self) -> list[Pdu]:
        return [pdu for pdu in list(self.pdus) if pdu.command == SUBMIT]

    def of(self, command: int) -> list[Pdu]:
        return [pdu for pdu in list(self.pdus) if pdu.command == command]

    def wait(self, done: Callable[[], Any], seconds: float = 5.0) -> Any:
        """`done()` as soon as it is true. It is asked while nothing comes in, so it must not call the SMSC itself."""
        until = time.monotonic() + seconds
        with self.news:
            while not (found := done()):
                assert time.monotonic() < until, f"it never came; the SMSC saw {self.pdus}"
                self.news.wait(0.02)
        return found

    def send(self, octets: bytes) -> None:
        """Over the latest connection."""
        self.connections[-1].sendall(octets)

    def drop(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _accepting(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections.append(sock)
            thread = threading.Thread(target=self._serving, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serving(self, sock: socket.socket) -> None:
        have = b""
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self.connections[-1] = sock
            while octets := sock.recv(65536):
                have += octets
                while len(have) >= 16 and len(have) >= (length := int.from_bytes(have[:4], "big")):
                    pdu = Pdu(*struct.unpack(">3I", have[4:16]), have[16:length])
                    have = have[length:]
                    with self.news:
                        self.pdus.append(pdu)
                        self.times.append(time.monotonic())
                        if answer := self._answer(sock, pdu):
                            sock.sendall(answer)
                        self.news.notify_all()
        except OSError:
            return

    def _answer(self, sock: socket.socket, pdu: Pdu) -> bytes | None:
        if pdu.command == BIND:
            status = self.bind.pop(0) if len(self.bind) > 1 else self.bind[0]
            return no(pdu, status) if status else pack(BIND | ANSWER, 0, pdu.sequence, b"tiny\x00")
        if pdu.command == SUBMIT:
            return self.act(self, sock, pdu)
        if pdu.command in (UNBIND, ENQUIRE) and (pdu.command != ENQUIRE or self.enquiries):
            return pack(pdu.command | ANSWER, 0, pdu.sequence)
        return None
