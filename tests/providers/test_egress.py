"""Where requests may go, whatever a settings form says."""

from __future__ import annotations

import ipaddress
import socket
import threading

import pytest

from worker.providers.base import LATER, STOP_CHANNEL, SendError
from worker.providers.egress import Egress, Forbidden, NoAddress, Resolver, is_public
from worker.providers.http import HttpClient


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378::1",
        "fd00::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_an_address_of_no_public_machine_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4010:c0d::71", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_fine(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433", "0x7f.1"),
        *("017700000001", "169.254.169.254", "100.64.0.1", "10.0.0.1", "192.168.0.1", "[fd00::1]", "127.0.0.1."),
    ],
)
def test_however_it_is_spelt_a_private_destination_stops_the_channel(host: str) -> None:
    client = HttpClient()
    with pytest.raises(SendError) as caught:
        client.request("GET", f"http://{host}/")
    # "127.0.0.1." is no name for some resolvers: then nothing leaves either
    assert (caught.value.outcome, caught.value.cause) in ((STOP_CHANNEL, "address_forbidden"), (LATER, "dns"))


@pytest.mark.parametrize("port", [22, 25, 6379, 8000])
def test_a_port_that_is_not_of_the_web_is_refused(port: int) -> None:
    with pytest.raises(Forbidden):
        Egress().check("gateway.example", port, [ipaddress.ip_address("8.8.8.8")])


@pytest.mark.parametrize("port", [80, 443, 8080, 8443])
def test_the_ports_of_the_web_are_open(port: int) -> None:
    Egress().check("gateway.example", port, [ipaddress.ip_address("8.8.8.8")])


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    addresses = [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")]
    with pytest.raises(Forbidden):
        Egress().check("gateway.example", 443, addresses)


@pytest.mark.parametrize(
    ("allowed", "host", "port", "address"),
    [
        ("modem.office", "modem.office", 13013, "10.1.2.3"),
        ("Modem.Office", "modem.office.", 80, "10.1.2.3"),
        ("10.1.2.3", "modem.office", 22, "10.1.2.3"),
        ("10.1.0.0/16", "10.1.2.3", 8000, "10.1.2.3"),
        ("10.1.2.3:13013", "10.1.2.3", 13013, "10.1.2.3"),
        ("[fd00::5]:13013", "fd00::5", 13013, "fd00::5"),
        ("::1", "::1", 5000, "::1"),
        ("kannel.example:13013", "kannel.example", 13013, "8.8.8.8"),
    ],
)
def test_what_the_server_allows_is_reachable(allowed: str, host: str, port: int, address: str) -> None:
    Egress([allowed]).check(host, port, [ipaddress.ip_address(address)])


@pytest.mark.parametrize(
    ("allowed", "host", "port", "address"),
    [
        ("modem.office", "other.office", 80, "10.1.2.3"),
        ("10.1.2.3:13013", "10.1.2.3", 22, "10.1.2.3"),
        ("10.1.0.0/16", "10.2.0.1", 80, "10.2.0.1"),
        ("", "127.0.0.1", 80, "127.0.0.1"),
    ],
)
def test_allowing_one_destination_opens_no_other(allowed: str, host: str, port: int, address: str) -> None:
    with pytest.raises(Forbidden):
        Egress([allowed]).check(host, port, [ipaddress.ip_address(address)])


def test_the_exemption_of_the_sandbox_reaches_this_machine_only() -> None:
    egress = Egress(loopback=True)
    egress.check("127.0.0.1", 40123, [ipaddress.ip_address("127.0.0.1")])
    for address in ("10.0.0.1", "8.8.8.8"):
        with pytest.raises(Forbidden):
            egress.check("sandbox", 443, [ipaddress.ip_address(address)])


def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    resolver = Resolver(Egress(), lambda host, port: [(socket.AF_INET, a) for a in next(answers)])
    (target,) = resolver.targets("rebind.example", 80, 1)
    assert target.address == ("8.8.8.8", 80)
    resolver._kept.clear()
    with pytest.raises(Forbidden):
        resolver.targets("rebind.example", 80, 1)


def test_many_threads_ask_the_name_server_once() -> None:
    asked: list[str] = []

    def lookup(host: str, port: int) -> list[tuple[int, str]]:
        asked.append(host)
        return [(socket.AF_INET, "8.8.8.8"), (socket.AF_INET, "8.8.8.8"), (socket.AF_INET, "8.8.4.4")]

    resolver = Resolver(Egress(), lookup)
    threads = [threading.Thread(target=resolver.targets, args=("gateway.example", 443, 1)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["gateway.example"]
    assert [t.address[0] for t in resolver.targets("gateway.example", 443, 1)] == ["8.8.8.8", "8.8.4.4"]


def test_a_failed_lookup_is_asked_again_soon(clock: object) -> None:
    answers = iter([[], [(socket.AF_INET, "8.8.8.8")]])
    resolver = Resolver(Egress(), lambda host, port: next(answers))
    for _ in range(2):
        with pytest.raises(NoAddress):
            resolver.targets("gateway.example", 443, 1)
    clock.tick(seconds=2)  # type: ignore[attr-defined]
    assert resolver.targets("gateway.example", 443, 1)


def test_a_wire_whose_vendors_choose_their_ports_is_still_public_only() -> None:
    public, private = ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("10.0.0.1")
    with pytest.raises(Forbidden):
        Egress().check("smsc.example", 2775, [public])
    Egress(any_port=True).check("smsc.example", 2775, [public])
    with pytest.raises(Forbidden):
        Egress(any_port=True).check("smsc.example", 2775, [public, private])
