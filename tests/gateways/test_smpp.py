"""The `smpp` Provider against a third-party SMPP server: every outcome, told by both ends."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateways.smsc import PASSWORD, Smsc
from worker.providers.base import (
    LATER,
    REFUSED,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    InboundMessage,
    Outgoing,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.smpp import Smpp

CYRILLIC = "Здравствуйте! Ваш заказ готов, приходите за ним когда удобно. " * 3
LATIN = "Your order is ready {today} at noon, price 10€. " * 8
_numbers = itertools.count(1)


class Handset:
    """A Provider on a server, and everything that came in over its line, read."""

    def __init__(self, smsc: Smsc, **settings: Any) -> None:
        self.smsc = smsc
        self.stored: list[RawCallback] = []
        given = {"host": "127.0.0.1", "port": smsc.port, "system_id": "molva", "password": PASSWORD, "sender": "Molva"}
        self.provider = Smpp({**given, "allowed_private_hosts": ("127.0.0.1",), **settings})

    def listen(self) -> Handset:
        self.provider.open(lambda callbacks: self.stored.extend(callbacks) or True)
        return self

    def send(self, ending: str = "000", text: str = "hello") -> tuple[str, Accepted]:
        """A message to a new number that ends so."""
        phone = f"+7916{next(_numbers):04d}{ending}"
        return phone, self.provider.send(Outgoing(phone, "token", text))

    def refusal(self, ending: str, text: str = "hello") -> SendError:
        with pytest.raises(SendError) as caught:
            self.send(ending, text)
        return caught.value

    def items(self, kind: type) -> list[Any]:
        return [i for c in list(self.stored) for i in self.provider.parse(c) if isinstance(i, kind)]

    def reports(self, accepted: Accepted) -> list[StatusUpdate]:
        ids = {accepted.provider_id, *accepted.parts}
        return [i for i in self.items(StatusUpdate) if ids & {i.provider_id, *i.also}]

    def replies(self, phone: str) -> list[InboundMessage]:
        return [i for i in self.items(InboundMessage) if i.phone == phone]


def eventually(found: Callable[[], Any], seconds: float = 10.0) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
    return value


def taken(smsc: Smsc, phone: str) -> str:
    """The text that a phone would show: all parts that were accepted, put together by their numbers."""
    parts = [one for one in smsc.submits(phone) if one["status"] == 0]
    return "".join(one["text"] for one in sorted(parts, key=lambda one: one["udh"] or []))


def answers(provider: Smpp) -> bool:
    try:
        provider.ping()
    except SendError:
        return False
    return True


@pytest.fixture
def handset(smsc: Smsc) -> Iterator[Handset]:
    made = Handset(smsc).listen()
    yield made
    made.provider.close()


def test_check_binds_and_says_goodbye(smsc: Smsc) -> None:
    found = Handset(smsc).provider.check()
    assert [(f.level, f.code, f.detail) for f in found] == [("ok", "account_found", "operator")]


def test_a_wrong_password_stops_the_channel(smsc: Smsc) -> None:
    stranger = Handset(smsc, password="wrong")
    assert [(f.level, f.code) for f in stranger.provider.check()] == [("error", "smpp_0x0e")]
    error = stranger.refusal("000")
    stranger.provider.close()
    assert (error.outcome, error.cause) == (STOP_CHANNEL, "smpp_0x0e")


@pytest.mark.parametrize(
    ("ending", "statuses"),
    [
        ("000", ["delivered"]),
        ("903", ["failed"]),
        ("904", ["failed"]),
        ("906", ["delivered"]),
        ("907", ["delivered", "delivered"]),
        ("913", ["delivered", "sent"]),
        ("916", ["delivered"]),
    ],
)
def test_reports_find_their_message(handset: Handset, ending: str, statuses: list[str]) -> None:
    phone, accepted = handset.send(ending)
    eventually(lambda: len(handset.reports(accepted)) >= len(statuses))
    found = handset.reports(accepted)
    assert sorted(report.status for report in found) == statuses
    assert {report.phone for report in found} == {phone}
    if ending == "903":
        assert (found[0].code, found[0].detail) == ("smpp_undeliv", "err:011")
    if ending == "904":
        assert found[0].code == "smpp_expired"


def test_what_is_never_reported_is_accepted_all_the_same(handset: Handset) -> None:
    _, accepted = handset.send("905")
    _, other = handset.send()
    eventually(lambda: handset.reports(other))
    assert accepted.provider_id
    assert handset.reports(accepted) == []


def test_refusals_have_their_outcomes(handset: Handset) -> None:
    gone = handset.refusal("901")
    assert (gone.outcome, gone.cause, gone.about_message) == (REFUSED, "smpp_0x0b", False)
    full = handset.refusal("908")
    assert (full.outcome, full.cause, full.slow_channel, full.counts) == (LATER, "smpp_0x14", True, False)
    assert full.retry_after is not None
    assert 1 <= full.retry_after <= 5


def test_too_fast_once_is_tried_again_and_arrives(handset: Handset) -> None:
    phone = "+79169990902"
    with pytest.raises(SendError) as caught:
        handset.provider.send(Outgoing(phone, "t", "hello"))
    assert (caught.value.outcome, caught.value.cause) == (LATER, "smpp_0x58")
    assert handset.provider.send(Outgoing(phone, "t", "hello")).provider_id
    assert [s["status"] for s in handset.smsc.submits(phone, 2)] == [0x58, 0]


def test_a_dropped_line_leaves_its_message_unclear_and_comes_back(handset: Handset) -> None:
    lost = handset.refusal("909")
    assert (lost.outcome, lost.cause) == (UNCLEAR, "connection_lost")
    assert handset.send()[1].provider_id


def test_silence_ends_unclear_and_nobody_hangs(smsc: Smsc) -> None:
    quiet = Handset(smsc)
    quiet.provider.timing = quiet.provider.timing._replace(answer=0.5)
    error = quiet.refusal("914")
    assert (error.outcome, error.cause) == (UNCLEAR, "timeout")
    assert quiet.send()[1].provider_id
    quiet.provider.close()


@pytest.mark.parametrize(("ending", "text"), [("910", "STOP"), ("911", "Привет, это ответ"), ("915", "СТОП")])
def test_replies_are_read(handset: Handset, ending: str, text: str) -> None:
    phone, _ = handset.send(ending)
    (reply,) = eventually(lambda: handset.replies(phone))
    assert (reply.text, reply.part, reply.kind) == (text, None, "text")


def test_a_long_reply_comes_in_parts_that_belong_together(handset: Handset) -> None:
    phone, _ = handset.send("912")
    eventually(lambda: len(handset.replies(phone)) == 3)
    parts = sorted(handset.replies(phone), key=lambda reply: reply.part[1] if reply.part else 0)
    assert [reply.part[1:] for reply in parts if reply.part] == [(1, 3), (2, 3), (3, 3)]
    assert len({reply.part[0] for reply in parts if reply.part}) == 1
    assert "".join(reply.text for reply in parts) == "one long answer " * 25
    assert len({reply.provider_id for reply in parts}) == 3


@pytest.mark.parametrize("form", ["udh8", "udh16", "sar", "payload"])
@pytest.mark.parametrize("text", [CYRILLIC, LATIN], ids=["ucs2", "gsm7"])
def test_every_form_of_a_long_message_arrives_whole(smsc: Smsc, form: str, text: str) -> None:
    handset = Handset(smsc, long_messages=form).listen()
    phone, accepted = handset.send(text=text)
    seen = smsc.submits(phone, 1 if form == "payload" else 3)
    if form == "payload":
        assert [one["payload"] for one in seen] == [text]
        assert accepted.parts == ()
    else:
        assert "".join(one["text"] for one in seen) == text
        assert len(accepted.parts) == len(seen) == 3
        assert accepted.parts[0] == accepted.provider_id
    count = len(seen)
    if form == "sar":
        assert [one["sar"][1:] for one in seen] == [[count, n] for n in range(1, count + 1)]
        assert len({one["sar"][0] for one in seen}) == 1
    elif form != "payload":
        assert [one["udh"][0][-4:] for one in seen] == [f"{count:02x}{n:02x}" for n in range(1, count + 1)]
        assert len({one["udh"][0][:-2] for one in seen}) == 1
        assert {one["esm_class"] for one in seen} == {0x40}
    assert {one["registered"] for one in seen} == {1}
    eventually(lambda: len(handset.reports(accepted)) == count)
    handset.provider.close()


def test_the_addresses_say_what_they_are(smsc: Smsc) -> None:
    for sender, expected in [
        ("Molva", (5, 0, "Molva")),
        ("+7 495 000-00-00", (1, 1, "74950000000")),
        ("1234", (3, 0, "1234")),
    ]:
        handset = Handset(smsc, sender=sender)
        phone, _ = handset.send()
        (seen,) = smsc.submits(phone)
        assert (seen["from_ton"], seen["from_npi"], seen["from"]) == expected
        assert (seen["to_ton"], seen["to_npi"], seen["to"]) == (1, 1, phone[1:])
        handset.provider.close()


def test_a_throttled_operator_loses_nothing(another_smsc: Callable[..., Smsc]) -> None:
    smsc = another_smsc(THROTTLE=20)
    handset = Handset(smsc).listen()

    def until_accepted(_: int) -> str:
        phone = f"+7917{next(_numbers):04d}000"
        for _try in range(30):
            try:
                handset.provider.send(Outgoing(phone, "t", LATIN if phone[-4] in "05" else "hello"))
            except SendError as error:
                assert error.outcome == LATER
                time.sleep(error.retry_after or 0.1)
            else:
                return phone
        raise AssertionError("never accepted")

    with ThreadPoolExecutor(10) as pool:
        phones = list(pool.map(until_accepted, range(40)))
    for phone in phones:
        wanted = LATIN if phone[-4] in "05" else "hello"
        eventually(lambda phone=phone, wanted=wanted: taken(smsc, phone) == wanted)
    accepted = len(smsc.of("submit", status=0))
    assert smsc.of("submit", status=0x58)
    eventually(lambda: len(handset.items(StatusUpdate)) == accepted)
    handset.provider.close()


def test_what_could_not_be_stored_comes_again(smsc: Smsc) -> None:
    handset = Handset(smsc)
    refused: list[RawCallback] = []

    def receive(callbacks: Sequence[RawCallback]) -> bool:
        if len(refused) < 2:
            refused.extend(callbacks)
            return False
        handset.stored.extend(callbacks)
        return True

    handset.provider.open(receive)
    phone, accepted = handset.send("910")
    eventually(lambda: handset.reports(accepted) and handset.replies(phone))
    assert len(handset.replies(phone)) == 1
    handset.provider.close()


def test_a_paced_line_spaces_its_parts(smsc: Smsc) -> None:
    handset = Handset(smsc, per_second=20)
    began = time.monotonic()
    for _ in range(4):
        handset.send(text=CYRILLIC)
    handset.provider.close()
    assert time.monotonic() - began >= 11 / 20


def test_an_operator_that_restarts_is_found_again(another_smsc: Callable[..., Smsc]) -> None:
    smsc = another_smsc()
    handset = Handset(smsc)
    handset.provider.timing = handset.provider.timing._replace(backoff=(0.1,))
    handset.listen()
    handset.send()
    smsc.stop()
    away = handset.refusal("000")
    assert (away.outcome, away.cause, away.breaker) == (LATER, "connect_failed", True)
    handset.smsc = another_smsc(PORT=smsc.port)
    eventually(lambda: answers(handset.provider))
    _, accepted = handset.send()
    eventually(lambda: handset.reports(accepted))
    handset.provider.close()
    assert len(handset.smsc.of("submit")) == 1
