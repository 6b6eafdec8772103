"""Where requests may go: a name is resolved once, all its addresses are checked, a checked one is used.

Public addresses on the usual web ports only, unless the server's own configuration lists a private
host. Because the connection goes to the address that was checked, a name whose answer changes
between check and use gains nothing.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from worker import clock

PORTS = frozenset({80, 443, 8080, 8443})
KEPT = 10.0  # seconds an answer of the name server is used again
KEPT_FAILURE = 1.0

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_TRANSLATED = tuple(ipaddress.ip_network(net) for net in ("2002::/16", "2001::/32", "64:ff9b:1::/48"))


class Forbidden(Exception):
    """The destination is not one that this server may talk to. Nothing was sent."""


class NoAddress(Exception):
    """The name could not be resolved. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Target:
    """One place to connect to: what `socket.connect` takes, and its family."""

    family: int
    address: tuple[str, int]


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet, looking inside addresses that carry another one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(address in net for net in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Egress:
    """The rule of one client.

    allowed: hosts, addresses or networks of the server's configuration, each optionally with `:port`.
    loopback: the sandbox's fixed exemption; nothing but 127.0.0.0/8 and ::1 is reachable, on any port.
    any_port: for wires other than HTTP, whose vendors choose their ports freely.
    """

    def __init__(self, allowed: Iterable[str] = (), *, loopback: bool = False, any_port: bool = False) -> None:
        self._loopback = loopback
        self._any_port = any_port
        self._allowed = [_split_port(entry.strip().lower()) for entry in allowed if entry.strip()]

    def check(self, host: str, port: int, addresses: Iterable[IPAddress]) -> None:
        """Raise Forbidden unless every address of `host` may be connected to on `port`."""
        found = list(addresses)
        if self._loopback:
            if all(address.is_loopback for address in found):
                return
            raise Forbidden(f"{host} is not this machine")
        if self.lists(host, port):
            return
        strangers = [address for address in found if not self.lists(str(address), port)]
        if any(not is_public(address) for address in strangers):
            raise Forbidden(f"{host} is not a public address")
        if strangers and port not in PORTS and not self._any_port:
            raise Forbidden(f"port {port} is not allowed")

    def lists(self, host: str, port: int) -> bool:
        """Whether the server's configuration names this destination."""
        name = host.lower().rstrip(".")
        return any(
            allowed_port in (None, port) and (entry == name or _within(name, entry))
            for entry, allowed_port in self._allowed
        )


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, int(port[1:]) if port[1:].isdigit() else None
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return host, int(port)
    return entry, None


def _within(name: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


Lookup = Callable[[str, int], list[tuple[int, str]]]


def system_lookup(host: str, port: int) -> list[tuple[int, str]]:
    """Every (family, address) that the system's resolver gives for `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


class Resolver:
    """Names → checked targets, one lookup at a time, answers kept for a few seconds."""

    def __init__(self, egress: Egress, lookup: Lookup = system_lookup) -> None:
        self._egress = egress
        self._lookup = lookup
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[float, list[Target] | Exception]] = {}

    def targets(self, host: str, port: int, wait: float) -> list[Target]:
        """Where to connect for `host`, checked. Raises NoAddress after about `wait` seconds, or Forbidden."""
        key = (host, port)
        result = self._recent(key)
        if result is None:
            # The others wait for the one lookup; a failure is kept too, so they do not wait in a row.
            with self._lock:
                result = self._recent(key)
                if result is None:
                    result = self._ask(host, port, wait)
                    kept = KEPT_FAILURE if isinstance(result, Exception) else KEPT
                    if len(self._kept) > 1000:
                        self._kept.clear()
                    self._kept[key] = (clock.monotonic() + kept, result)
        if isinstance(result, NoAddress):
            raise NoAddress(*result.args)
        if isinstance(result, Exception):
            raise Forbidden(*result.args)
        return result

    def _recent(self, key: tuple[str, int]) -> list[Target] | Exception | None:
        until, result = self._kept.get(key, (0.0, None))
        return result if until > clock.monotonic() else None

    def _ask(self, host: str, port: int, wait: float) -> list[Target] | Exception:
        try:
            found = self._find(host, port, wait)
            addresses = [ipaddress.ip_address(address.partition("%")[0]) for _, address in found]
            self._egress.check(host, port, addresses)
        except (NoAddress, Forbidden) as error:
            return error
        return [Target(family, (address, port)) for family, address in dict.fromkeys(found)]

    def _find(self, host: str, port: int, wait: float) -> list[tuple[int, str]]:
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return self._in_time(host, port, wait)
        return [(socket.AF_INET6 if literal.version == 6 else socket.AF_INET, host)]

    def _in_time(self, host: str, port: int, wait: float) -> list[tuple[int, str]]:
        # The system's resolver has no timeout of its own, so it waits in a thread that may be left behind.
        answers: queue.SimpleQueue[list[tuple[int, str]] | OSError | UnicodeError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._lookup(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=max(wait, 0.01))
        except queue.Empty:
            raise NoAddress(f"no answer for {host} in time") from None
        if isinstance(answer, Exception) or not answer:
            raise NoAddress(f"no address for {host}")
        return answer
