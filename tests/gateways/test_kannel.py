"""The preset for Kannel against a real Kannel, and an operator's SMSC behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import kannel as gateways
from tests.gateways.kannel import Catcher, Kannel
from tests.gateways.smsc import Smsc
from worker import segments
from worker.providers import PROVIDERS
from worker.providers.base import (
    LATER,
    STOP_CHANNEL,
    Accepted,
    CallbackAddresses,
    InboundMessage,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
    StatusUpdate,
)

numbers = itertools.count(1)


@pytest.fixture(scope="module")
def catcher() -> Iterator[Catcher]:
    with Catcher() as catcher:
        yield catcher


@pytest.fixture(scope="module")
def addresses(catcher: Catcher) -> CallbackAddresses:
    return CallbackAddresses(catcher.url, f"{catcher.url}/status", f"{catcher.url}/inbound")


def provider_for(addresses: CallbackAddresses, **settings: Any) -> Provider:
    return PROVIDERS["kannel"]({"sender": "MyBrand", "allowed_private_hosts": ["127.0.0.1"], **settings}, addresses)


@pytest.fixture(scope="module")
def kannel(smsc: Smsc, addresses: CallbackAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kannel]:
    gateways.require()
    inbound = provider_for(addresses).paste().inbound
    with Kannel(smsc.port, inbound, tmp_path_factory.mktemp("kannel")) as running:
        yield running


@pytest.fixture(scope="module")
def account(kannel: Kannel) -> dict[str, str]:
    return {"base_url": kannel.base_url, "username": kannel.username, "password": kannel.password}


@pytest.fixture(scope="module")
def provider(account: dict[str, str], addresses: CallbackAddresses) -> Iterator[Provider]:
    made = provider_for(addresses, **account)
    yield made
    made.close()


def message(ending: str, text: str = "hello") -> Outgoing:
    """To a number of its own, whose last three digits choose what the SMSC does."""
    number = next(numbers)
    return Outgoing(f"+7916{number:04d}{ending}", f"{number}.0123456789abcdef", text)


Reported = Callable[[Outgoing, str], StatusUpdate]


@pytest.fixture
def reported(catcher: Catcher, provider: Provider) -> Reported:
    """The report that Kannel makes for a message, by its type, as the Provider reads it."""

    def wait(out: Outgoing, kind: str) -> StatusUpdate:
        fits = catcher.wait(
            lambda c: c.query.get("ref") == out.token and c.query.get("type") == kind, f"{kind} for {out}"
        )
        assert fits.path == "status"
        assert provider.verify(fits)
        (update,) = provider.parse(fits)
        assert isinstance(update, StatusUpdate)
        assert (update.token, update.provider_id) == (out.token, out.token)
        assert update.at > 1_600_000_000_000
        return update

    return wait


@pytest.fixture
def replied(catcher: Catcher, provider: Provider) -> Callable[[Outgoing], InboundMessage]:
    def wait(out: Outgoing) -> InboundMessage:
        def fits(callback: RawCallback) -> bool:
            return callback.path == "inbound" and callback.query.get("from", "").endswith(out.phone.lstrip("+"))

        (reply,) = provider.parse(catcher.wait(fits, f"a reply of {out.phone}"))
        assert isinstance(reply, InboundMessage)
        assert reply.phone == out.phone
        return reply

    return wait


def arrived(smsc: Smsc, out: Outgoing, parts: int = 1) -> list[str]:
    """The texts of the parts as the operator got them."""
    found = smsc.wait(
        lambda: smsc.submits(out.phone) if len(smsc.submits(out.phone)) >= parts else [], f"{parts} parts for {out}"
    )
    return [str(one["text"]) for one in found]


def test_the_settings_are_checked_without_sending_anything(smsc: Smsc, provider: Provider) -> None:
    before = len(smsc.of("submit"))
    assert [finding.level for finding in provider.check()] == ["ok"]
    provider.ping()
    assert len(smsc.of("submit")) == before


def test_a_message_is_accepted_taken_by_the_operator_and_delivered(
    smsc: Smsc, provider: Provider, reported: Reported
) -> None:
    out = message("001")
    assert provider.send(out) == Accepted(out.token)
    assert reported(out, "8").status == "sent"
    assert reported(out, "1").status == "delivered"
    assert arrived(smsc, out) == ["hello"]
    submit = smsc.submits(out.phone)[0]
    assert (submit["from"], submit["from_ton"], submit["to_ton"]) == ("MyBrand", 5, 1)


@pytest.mark.parametrize(
    ("ending", "kind", "cause"),
    [("901", "16", "sms_unknown_subscriber"), ("903", "2", "sms_undelivered"), ("904", "34", "sms_expired")],
)
def test_what_the_operator_refuses_or_cannot_deliver_has_its_cause(
    provider: Provider, reported: Reported, ending: str, kind: str, cause: str
) -> None:
    out = message(ending)
    provider.send(out)
    update = reported(out, kind)
    assert (update.status, update.code) == ("failed", cause)


@pytest.mark.parametrize("text", ["Привет, Ёж № 5", "ça va", "€{}[]~^|\\", "&?#%+ a=b;", "first\nsecond", "👍"])
def test_every_alphabet_arrives_as_written(smsc: Smsc, provider: Provider, text: str) -> None:
    out = message("001", text)
    provider.send(out)
    assert arrived(smsc, out) == [text]


@pytest.mark.parametrize("text", ["a" * 160, "a" * 161, "a" * 459, "я" * 70, "я" * 71, "я" * 300, "€" * 200])
def test_a_long_text_arrives_whole_in_as_many_parts_as_we_count(smsc: Smsc, provider: Provider, text: str) -> None:
    out = message("001", text)
    provider.send(out)
    parts = arrived(smsc, out, segments.count(text).segments)
    assert len(parts) == segments.count(text).segments
    assert "".join(parts) == text


@pytest.mark.parametrize("before", [65, 66, 67, 132, 133, 134])
def test_an_emoji_at_the_border_of_two_parts_arrives_whole(
    smsc: Smsc, provider: Provider, reported: Reported, before: int
) -> None:
    text = "ж" * before + "😀" + "ж" * 40
    out = message("001", text)
    assert provider.send(out) == Accepted(out.token)
    parts = arrived(smsc, out, len(segments.split(text)))
    assert parts == segments.split(text)
    headers = [one["udh"] for one in smsc.submits(out.phone)]
    assert len({header[0][:6] for header in headers if header}) <= 1
    assert reported(out, "1").status == "delivered"


def test_a_text_that_we_cut_has_one_report_as_every_other(
    catcher: Catcher, provider: Provider, reported: Reported
) -> None:
    out = message("001", "ж" * 66 + "😀" + "ж" * 40)
    provider.send(out)
    reported(out, "1")
    last = message("001")
    provider.send(last)
    reported(last, "1")
    assert len([c for c in catcher.seen if c.query.get("ref") == out.token and c.query["type"] == "1"]) == 1


@pytest.mark.parametrize(("ending", "text"), [("910", "STOP"), ("911", "Привет, это ответ"), ("915", "СТОП")])
def test_a_reply_comes_with_its_number_and_its_words(
    provider: Provider, replied: Callable[[Outgoing], InboundMessage], ending: str, text: str
) -> None:
    out = message(ending)
    provider.send(out)
    reply = replied(out)
    assert reply.text == text
    assert reply.provider_id and reply.at > 1_600_000_000_000


def test_a_long_reply_is_joined_by_the_gateway(
    provider: Provider, replied: Callable[[Outgoing], InboundMessage]
) -> None:
    out = message("912")
    provider.send(out)
    assert replied(out).text.strip() == ("one long answer " * 25).strip()


def test_a_wrong_password_stops_the_channel(account: dict[str, str], addresses: CallbackAddresses) -> None:
    wrong = provider_for(addresses, **{**account, "password": "guess"})
    with pytest.raises(SendError) as caught:
        wrong.send(message("001"))
    assert (caught.value.outcome, caught.value.cause) == (STOP_CHANNEL, "sms_bad_token")
    assert "guess" not in str(caught.value)
    assert [(f.level, f.code) for f in wrong.check()] == [("error", "sms_bad_token")]
    wrong.close()


def test_a_report_asked_twice_says_the_same(catcher: Catcher, provider: Provider, reported: Reported) -> None:
    out = message("907")
    provider.send(out)
    reported(out, "1")
    delivered = [c for c in catcher.seen if c.query.get("ref") == out.token and c.query["type"] == "1"]
    assert {update.status for c in delivered for update in provider.parse(c) if isinstance(update, StatusUpdate)} == {
        "delivered"
    }


def test_the_gateway_keeps_messages_while_the_operator_is_away_and_takes_none_while_it_is_itself(
    another_smsc: Callable[..., Smsc], addresses: CallbackAddresses, reported: Reported, tmp_path: Path
) -> None:
    gateways.require()
    away = another_smsc()
    with Kannel(away.port, f"{addresses.inbound}?from=%p", tmp_path) as alone:
        provider = provider_for(addresses, base_url=alone.base_url, username=alone.username, password=alone.password)
        port = away.port
        away.stop()
        alone.wait_offline()
        out = message("001", "late")
        assert provider.send(out) == Accepted(out.token)  # "3: Queued for later delivery"
        back = another_smsc(PORT=port)
        alone.wait_online()
        assert reported(out, "1").status == "delivered"
        assert arrived(back, out) == ["late"]

        alone.stop_smsbox()
        with pytest.raises(SendError) as caught:
            provider.send(message("001"))
        assert (caught.value.outcome, caught.value.counts) == (LATER, False)
        alone.start_smsbox()
        again = message("001")
        provider.send(again)
        assert reported(again, "1").status == "delivered"
        provider.close()


def test_a_gateway_that_is_down_has_surely_not_taken_anything(
    account: dict[str, str], addresses: CallbackAddresses
) -> None:
    gone = provider_for(addresses, **{**account, "base_url": "http://127.0.0.1:9"})
    with pytest.raises(SendError) as caught:
        gone.send(message("001"))
    assert (caught.value.outcome, caught.value.cause) == (LATER, "connect_failed")
    gone.close()
