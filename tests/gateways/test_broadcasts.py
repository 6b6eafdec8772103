"""Whole broadcasts through the real command and a real gateway, judged by what the operator's SMSC was given."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.gateways import kannel
from tests.gateways.smsc import PASSWORD, Smsc
from tests.journeys.conftest import Caller
from tests.product import Product, wait
from worker import db, people

pytestmark = pytest.mark.journey

PEOPLE = 3_000
FEWER = 1_000  # where the gateway goes away in the middle
REPLIES = 911  # the SMSC lets whose number ends so reply "Привет, это ответ"
WINDOW = 10


class World(NamedTuple):
    product: Product
    caller: Caller
    modules: Path

    def channel(self, provider: str, **settings: Any) -> dict[str, Any]:
        given = {"kind": "sms", "provider": provider, "name": f"Real {provider}", "settings": settings}
        given["per_second"] = 1_000  # as fast as it takes them
        found: dict[str, Any] = self.caller.call("POST", "/channels", 201, json=given)
        return found

    def start(self, channel: int, name: str, phones: list[str], text: str = "Привет, {{ name }}!") -> int:
        given = {"name": name, "channel_id": channel, "text": text, "rate_per_minute": 60_000}
        number = int(self.caller.call("POST", "/broadcasts", 201, json=given)["id"])
        rows = "\n".join(f"{phone},Имя{n}" for n, phone in enumerate(phones))
        assert self.caller.upload(number, f"phone,name\n{rows}".encode())["accepted"] == len(phones)
        self.caller.press(number, "start")
        return number

    def statuses(self, number: int) -> dict[str, str]:
        """What the report says of every person."""
        return dict(db.rows("SELECT phone, status FROM message WHERE broadcast_id = ?", [number]))

    def left(self, number: int) -> set[str]:
        """Who has not left the queue yet."""
        return {phone for phone, status in self.statuses(number).items() if status in ("queued", "sending")}

    def settled(self, number: int, seconds: float = 120) -> dict[str, str]:
        """The same, once nothing is queued, on its way, or waits for a report."""
        self.caller.finished(number, seconds)
        return self.statuses(number)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, smsc_modules: Path) -> Iterator[World]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    product = Product(
        tmp_path_factory.mktemp("gateways") / "data",
        port,
        MOLVA_BASE_URL=f"http://127.0.0.1:{port}",
        MOLVA_ALLOWED_PRIVATE_HOSTS="127.0.0.1",
    )
    try:
        product.start()
        db.open_database(product.settings)
        db.database.connect(reuse_if_open=True)
        caller = Caller(product)
        caller.session.headers["Authorization"] = f"Bearer {people.create_token('gateways', 'admin', actor='test')}"
        yield World(product, caller, smsc_modules)
        caller.session.close()
    finally:
        db.close()
        assert product.stop() == 0


def phones(first: int, count: int) -> list[str]:
    """Numbers whose last three digits choose nothing special at the SMSC."""
    return [f"+7916{first + n // 800:04d}{n % 800:03d}" for n in range(count)]


def taken(*servers: Smsc) -> Counter[str]:
    """How often each number was handed over and accepted, long messages once."""
    return Counter(
        f"+{one['to'].lstrip('+')}" for server in servers for one in server.of("submit", status=0) if not one["udh"]
    )


def judge(statuses: dict[str, str], given: Counter[str], uncertain_most: int) -> None:
    """Nobody twice, nobody lost, no lies."""
    assert max(given.values()) == 1, [phone for phone, n in given.items() if n > 1][:5]
    reached = {phone for phone, status in statuses.items() if status in ("sent", "delivered")}
    uncertain = {phone for phone, status in statuses.items() if status == "uncertain"}
    assert len(reached) + len(uncertain) == len(statuses), Counter(statuses.values())
    assert reached <= set(given)
    assert set(given) - reached <= uncertain
    assert len(uncertain) <= uncertain_most


def replies(text: str) -> list[tuple[str, int | None]]:
    return [(row[0], row[1]) for row in db.rows("SELECT phone, broadcast_id FROM inbound WHERE text = ?", [text])]


def test_smpp_delivers_three_thousand_with_every_report_and_a_reply(world: World) -> None:
    smsc = Smsc(world.modules, DLR_MS=50).start()
    try:
        channel = world.channel("smpp", **account(smsc), window=50)
        answering = f"+79160000{REPLIES}"
        number = world.start(channel["id"], "SMPP", [*phones(1000, PEOPLE - 1), answering])
        wait(lambda: set(world.statuses(number).values()) == {"delivered"}, 120)
        judge(world.statuses(number), taken(smsc), 0)
        wait(lambda: replies("Привет, это ответ") == [(answering, number)], 20)
    finally:
        smsc.stop()


def test_an_smsc_that_goes_away_in_the_middle_loses_nobody(world: World) -> None:
    first = Smsc(world.modules, DLR_MS=20).start()
    channel = world.channel("smpp", **account(first), window=WINDOW)
    number = world.start(channel["id"], "SMPP away", phones(2000, FEWER))
    wait(lambda: len(first.of("submit")) > FEWER // 4, 60)
    first.stop()
    time.sleep(1.0)
    second = Smsc(world.modules, DLR_MS=20, PORT=first.port).start()
    try:
        found = world.settled(number)
        judge(found, taken(first, second), WINDOW)
        assert len(second.of("submit")) > FEWER // 4
    finally:
        second.stop()


def test_kannel_delivers_three_thousand_with_every_report_and_a_reply(world: World) -> None:
    smsc, gateway, channel = behind_kannel(world)
    try:
        answering = f"+79160001{REPLIES}"
        number = world.start(channel["id"], "Kannel", [*phones(3000, PEOPLE - 1), answering])
        wait(lambda: set(world.statuses(number).values()) == {"delivered"}, 180)
        judge(world.statuses(number), taken(smsc), 0)
        wait(lambda: (answering, number) in replies("Привет, это ответ"), 20)
    finally:
        gateway.stop()
        smsc.stop()


def test_a_kannel_that_goes_away_in_the_middle_loses_nobody(world: World) -> None:
    smsc, gateway, channel = behind_kannel(world)
    try:
        number = world.start(channel["id"], "Kannel away", phones(4000, FEWER))
        wait(lambda: len(smsc.of("submit")) > FEWER // 4, 60)
        gateway.stop_smsbox()
        time.sleep(1.0)
        gateway.start_smsbox()
        wait(lambda: probe_now() or not world.left(number), 120)
        found = world.settled(number)
        wait(lambda: len(taken(smsc)) >= sum(s != "uncertain" for s in world.statuses(number).values()), 30)
        judge(found, taken(smsc), 128)  # as many as there are connections
        assert Counter(found.values())["uncertain"] < FEWER // 4
    finally:
        gateway.stop()
        smsc.stop()


def probe_now() -> None:
    """The time of the next probe has come, should the circuit breaker be open."""
    with db.write():
        db.execute("UPDATE channel SET probe_at = 0")


def account(smsc: Smsc) -> dict[str, Any]:
    return {
        **{"host": "127.0.0.1", "port": smsc.port, "system_id": "molva", "password": PASSWORD},
        "sender": "79160000000",
    }


def behind_kannel(world: World) -> tuple[Smsc, kannel.Kannel, dict[str, Any]]:
    """A Kannel in front of an SMSC of its own, and the channel that leads to it."""
    kannel.require()
    smsc = Smsc(world.modules, DLR_MS=50).start()
    given = {"username": "molva", "password": "x", "sender": "79160000000", "base_url": "http://127.0.0.1:9"}
    channel = world.channel("kannel", **given)
    gateway = kannel.Kannel(smsc.port, channel["inbound_url"]).start()
    changed = {"base_url": gateway.base_url, "username": gateway.username, "password": gateway.password}
    world.caller.call("PATCH", f"/channels/{channel['id']}", json={"settings": changed})
    return smsc, gateway, channel
