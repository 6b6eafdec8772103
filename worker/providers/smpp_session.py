"""A bound SMPP connection: connect to a checked address, bind, read and write whole PDUs."""

from __future__ import annotations

import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import certifi

from worker import clock
from worker.providers import smpp_errors, smpp_wire
from worker.providers.base import SendError
from worker.providers.egress import Forbidden, NoAddress, Resolver
from worker.providers.rules import CHANNEL, DOWN, Rule
from worker.providers.smpp_wire import Frames, Pdu

_CHUNK = 64 * 1024
_READS = 16  # chunks in one turn, so that a flood cannot keep the line from writing


class Timing(NamedTuple):
    """Seconds. connect: name, TCP and TLS, each · bind: until its answer · start: until the first part of a message
    has left · answer: from then until its last answer · enquire: between two enquiries · silence: without a byte ·
    goodbye: for answers and the unbind at the end · refused: until a wrong password is tried again by itself ·
    again: until it is tried again for a message · trial: how long a message waits for that · lingering: from the
    start, how long the bind of a process that died may be in the way · backoff: before each next try to connect ·
    proven: how long a connection lasts that begins the back-off anew · slow: the shortest and the longest pause
    after "too fast"."""

    connect: float = 5.0
    bind: float = 10.0
    start: float = 12.0
    answer: float = 30.0
    enquire: float = 25.0
    silence: float = 60.0
    goodbye: float = 2.0
    refused: float = 300.0
    again: float = 10.0
    trial: float = 8.0
    lingering: float = 60.0
    backoff: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 30.0)
    proven: float = 10.0
    slow: tuple[float, float] = (1.0, 5.0)


class Account(NamedTuple):
    """Where to bind, and as whom. `binding`: the bind PDU."""

    host: str
    port: int
    tls: bool
    binding: bytes


class Failure(NamedTuple):
    """Why a message was not handed over, kept as data: each waiting thread raises an error of its own."""

    rule: Rule
    cause: str
    detail: str = ""
    retry_after: float | None = None

    def error(self) -> SendError:
        return self.rule.error(self.cause, self.detail, retry_after=self.retry_after)


class NotBound(Exception):
    """There is no connection, and surely nothing was sent."""

    def __init__(self, failure: Failure, status: int = 0) -> None:
        super().__init__(f"{failure.cause} {failure.detail}".strip())
        self.failure = failure
        self.status = status


class Lost(Exception):
    """The connection is gone."""


class Session:
    """One connection, bound as a transceiver. One thread uses it; after the bind nothing waits for the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.began = self.heard = self.enquired = clock.monotonic()
        self.ended: float | None = None
        self.proven = False  # whether it took a message
        self.forgotten: float | None = None  # when the SMSC said that we are not bound, though we are connected
        self.smsc = ""  # how the SMSC calls itself
        self.early: list[Pdu] = []  # what came together with the answer to the bind
        self._frames = Frames()
        self._sequence = 0
        self._out: deque[tuple[int, memoryview]] = deque()
        self._begun = 0  # octets of the first one that are gone
        self.more = False  # whether bytes may wait that the system does not announce

    def next_sequence(self) -> int:
        self._sequence = self._sequence % smpp_wire.LAST_SEQUENCE + 1
        return self._sequence

    def ask(self, octets: bytes) -> int:
        """Queue a request; its number."""
        sequence = self.next_sequence()
        self._out.append((sequence, memoryview(smpp_wire.numbered(octets, sequence))))
        return sequence

    def answer(self, octets: bytes) -> None:
        self._out.append((0, memoryview(octets)))

    @property
    def writing(self) -> bool:
        """Whether something queued has not left yet."""
        return bool(self._out)

    def unwritten(self) -> list[int]:
        """The numbers of the requests of which not a byte was given to the system."""
        return [sequence for at, (sequence, _) in enumerate(self._out) if sequence and (at or not self._begun)]

    def flush(self) -> None:
        """Write as much as the socket takes. Raises Lost."""
        try:
            while self._out:
                octets = self._out[0][1]
                # TLS may pass on what it then reports as failed; a plain socket does not.
                if isinstance(self.sock, ssl.SSLSocket):
                    self._begun = max(self._begun, 1)
                    done = self.sock.send(octets)
                    self._begun = 1
                else:
                    done = self.sock.send(octets)
                    self._begun += done
                if done < len(octets):
                    self._out[0] = (self._out[0][0], octets[done:])
                    continue
                self._out.popleft()
                self._begun = 0
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise Lost(error.strerror or type(error).__name__) from error

    def read(self) -> list[Pdu]:
        """What has come in. Raises Lost, but not before everything that came before the end was given out."""
        found, self.early = self.early, []
        self.more = False
        try:
            for _ in range(_READS):
                if self._frames.broken:
                    raise Lost(self._frames.broken)
                octets = self.sock.recv(_CHUNK)
                if not octets:
                    raise Lost("closed by the SMSC")
                found += self._frames.feed(octets)
                self.heard = clock.monotonic()
            self.more = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, Lost) as error:
            if not found:
                raise Lost(str(error) or type(error).__name__) from error
            self.more = True
        return found

    def close(self) -> None:
        self.ended = clock.monotonic()
        self.sock.close()

    def bind(self, binding: bytes, wait: float) -> None:
        """Bind, waiting. Raises NotBound."""
        until = clock.monotonic() + wait
        sequence = self.next_sequence()
        try:
            self.sock.settimeout(wait)
            self.sock.sendall(smpp_wire.numbered(binding, sequence))
            while True:
                left = until - clock.monotonic()
                if left <= 0:
                    raise TimeoutError("no answer to the bind")
                self.sock.settimeout(left)
                octets = self.sock.recv(_CHUNK)
                if not octets:
                    raise ConnectionError("closed instead of an answer to the bind")
                pdus = self._frames.feed(octets)
                for at, pdu in enumerate(pdus):
                    if pdu.command & smpp_wire.ANSWER and pdu.sequence == sequence:
                        self._bound(pdu)
                        self.early = pdus[at + 1 :]
                        self.more = bool(self.early)
                        return
                if self._frames.broken:
                    raise ConnectionError(self._frames.broken)
        except OSError as error:
            raise NotBound(Failure(DOWN, "connect_failed", str(error))) from error

    def _bound(self, pdu: Pdu) -> None:
        if pdu.status or pdu.command == smpp_wire.NACK:
            rule = smpp_errors.BIND.get(pdu.status, DOWN)
            raise NotBound(Failure(rule, smpp_errors.cause(pdu.status), smpp_wire.words(pdu.status)), pdu.status)
        self.smsc = smpp_wire.system_id(pdu)
        self.began = self.heard = self.enquired = clock.monotonic()
        self.sock.setblocking(False)

    def bye(self, wait: float, came: Callable[[Pdu], None] | None = None) -> None:
        """Unbind, wait for the answer a little, close. `came` gets what else still comes in."""
        until = clock.monotonic() + wait
        try:
            self.ask(smpp_wire.request("unbind"))
            with selectors.DefaultSelector() as selector:
                selector.register(self.sock, selectors.EVENT_READ)
                while (left := until - clock.monotonic()) > 0:
                    self.flush()
                    selector.select(min(left, 0.05) if self.writing else left)
                    for pdu in self.read():
                        if pdu.command == smpp_wire.UNBIND | smpp_wire.ANSWER:
                            return
                        if came is not None:
                            came(pdu)
        except Lost:
            pass
        finally:
            self.close()


def connect(account: Account, resolver: Resolver, timing: Timing) -> Session:
    """A bound session. Raises NotBound."""
    sock = _connected(account, resolver, timing)
    session = Session(sock)
    try:
        session.bind(account.binding, timing.bind)
    except BaseException:
        session.close()
        raise
    return session


def _connected(account: Account, resolver: Resolver, timing: Timing) -> socket.socket:
    try:
        targets = resolver.targets(account.host, account.port, timing.connect)
    except NoAddress as error:
        raise NotBound(Failure(DOWN, "dns", str(error))) from error
    except Forbidden as error:
        raise NotBound(Failure(CHANNEL, "address_forbidden", str(error))) from error
    failure = "no address"
    give_up = clock.monotonic() + timing.connect
    for target in targets:
        left = give_up - clock.monotonic()
        if left <= 0:
            break
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(left)
            sock.connect(target.address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timing.connect)
        except OSError as error:
            sock.close()
            failure = error.strerror or "timed out"
            continue
        return _secured(sock, account.host) if account.tls else sock
    raise NotBound(Failure(DOWN, "connect_failed", failure))


def _secured(sock: socket.socket, host: str) -> socket.socket:
    """The same connection under TLS, its certificate checked against the host's name."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except OSError as error:
        sock.close()
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror
        raise NotBound(Failure(DOWN, "tls", str(reason or type(error).__name__))) from error
