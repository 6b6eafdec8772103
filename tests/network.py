"""Hosts of their own on this machine: a network namespace and a cable for each, the servers at the other end.

They need root and Debian's iproute2.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


def missing() -> str:
    """Why there can be none here; empty when there can."""
    if os.getuid() != 0:
        return "root, for network namespaces"
    try:
        subprocess.run(["ip", "netns", "add", _name("try")], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "network namespaces (apt-get install iproute2)"
    subprocess.run(["ip", "netns", "delete", _name("try")], check=True, capture_output=True, timeout=10)
    return ""


def _name(what: object) -> str:
    return f"mo{os.getpid() % 100_000}{what}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Network:
    """A switch at which the servers stand (`address`), and so many hosts, each behind a cable."""

    def __init__(self, hosts: int) -> None:
        self._net = f"10.213.{os.getpid() % 250 + 1}"
        self.address = f"{self._net}.1"
        self.hosts = hosts
        self._switch = _name("s")
        _ip("link", "add", self._switch, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._switch)
        _ip("link", "set", self._switch, "up")
        for n in range(hosts):
            inside = _name(f"n{n}")
            _ip("netns", "add", inside)
            _ip("link", "add", self._cable(n), "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("link", "set", self._cable(n), "master", self._switch)
            _ip("-netns", inside, "address", "add", f"{self.address_of(n)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-netns", inside, "link", "set", device, "up")
            self.mend(n)

    def _cable(self, n: int) -> str:
        return _name(f"c{n}")

    def address_of(self, n: int) -> str:
        """Where host `n` is reached."""
        return f"{self._net}.{n + 2}"

    def inside(self, n: int) -> tuple[str, ...]:
        """What a command begins with that runs on host `n`."""
        return ("ip", "netns", "exec", _name(f"n{n}"))

    def cut(self, n: int) -> None:
        """Pull the cable: nothing comes or goes, and nobody is told."""
        _ip("link", "set", self._cable(n), "down")

    def mend(self, n: int) -> None:
        _ip("link", "set", self._cable(n), "up")

    def close(self) -> None:
        for n in range(self.hosts):
            subprocess.run(["ip", "netns", "delete", _name(f"n{n}")], check=False, capture_output=True, timeout=10)
        subprocess.run(["ip", "link", "delete", self._switch], check=False, capture_output=True, timeout=10)


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """A network for as long as the block lasts."""
    found = Network(hosts)
    try:
        yield found
    finally:
        found.close()
