"""The answer to a stop word: once, where it is wanted, on the channel on which it was said."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import Clock
from worker import channels, confirmations, db, delivery, direct, installation, optouts, segments
from worker.models import Channel, Direct
from worker.problems import Invalid
from worker.providers.base import InboundMessage
from worker.settings import Settings

PHONE = "+79010000001"


@pytest.fixture
def sandbox(database: Settings) -> dict[str, Channel]:
    return {channel.kind: channel for channel in channels.ensure_sandbox(database)}


def switch(on: bool = True, **texts: str) -> None:
    confirmations.choose(on, {**confirmations.TEXTS, **texts}, "anna")


def says(channel: Channel, text: str, clock: Clock, phone: str = PHONE, at: int | None = None) -> None:
    clock.tick(seconds=1)
    message = InboundMessage(f"in-{clock.ms}", phone, at or clock.ms, kind="text", text=text)
    with db.write():
        delivery.receive_inbound(channel.id, message, clock.ms)


def sent() -> list[tuple[str, str]]:
    """(number, text) of the answers that were queued."""
    found = direct.by_ids(row.id for row in Direct.select(Direct.id))
    assert {one.kind for one in found} <= {direct.CONFIRMATION}
    return [(one.phone, one.text) for one in found]


def test_it_is_off_at_first_and_whoever_left_before_it_was_on_is_left_alone(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock
) -> None:
    says(sandbox["sms"], "STOP", clock)
    assert confirmations.send_due(settings) == 0
    switch()
    assert confirmations.send_due(settings) == 0
    says(sandbox["sms"], "STOP", clock, "+79010000002")
    assert confirmations.send_due(settings) == 1
    assert [phone for phone, _ in sent()] == ["+79010000002"]


@pytest.mark.parametrize("kind", ["sms", "waba"])
@pytest.mark.parametrize(("word", "language"), [("STOP", "en"), ("Стоп", "ru"), ("CTOП", "ru")])
def test_it_speaks_the_language_of_the_word_on_the_same_channel(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock, kind: str, word: str, language: str
) -> None:
    switch(**{f"{kind}.{language}": "Own words"})
    says(sandbox[kind], word, clock)
    assert confirmations.send_due(settings) == 1
    assert sent() == [(PHONE, "Own words")]
    assert Direct.get().channel_id == sandbox[kind].id


def test_it_is_sent_once_and_again_only_after_thirty_days(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock
) -> None:
    switch()
    for word in ("STOP", "STOP", "START", "STOP"):
        says(sandbox["sms"], word, clock)
        confirmations.send_due(settings)
    assert len(sent()) == 1
    says(sandbox["sms"], "START", clock)
    clock.tick(days=31)
    says(sandbox["sms"], "STOP", clock)
    assert confirmations.send_due(settings) == 1
    assert confirmations.send_due(settings) == 0


def test_nobody_is_answered_who_did_not_write(sandbox: dict[str, Channel], settings: Settings, clock: Clock) -> None:
    switch()
    optouts.add(PHONE, "by phone", "anna")
    with db.write():
        optouts.record("+79010000002", "provider", "21610", sandbox["sms"].id)
        optouts.put([optouts.Entry("+79010000003")], "import", actor="anna")
    assert confirmations.send_due(settings) == 0


def test_who_has_come_back_meanwhile_or_wrote_long_ago_is_not_answered(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock
) -> None:
    switch()
    says(sandbox["sms"], "STOP", clock)
    says(sandbox["sms"], "START", clock)
    says(sandbox["sms"], "STOP", clock, "+79010000002", at=clock.ms - 25 * 3_600_000)
    assert confirmations.send_due(settings) == 0


def test_a_channel_that_is_off_answers_nobody_and_the_log_says_so(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    switch()
    channels.switch_off(sandbox["sms"].id, "anna")
    says(sandbox["sms"], "STOP", clock)
    with caplog.at_level(logging.INFO, "molva.confirmations"):
        assert confirmations.send_due(settings) == 0
    assert "is not confirmed" in caplog.text and PHONE not in caplog.text
    channels.switch_on(sandbox["sms"].id, "anna")
    assert confirmations.send_due(settings) == 0, "it is not made up for later"
    assert optouts.of_phone(PHONE)


def test_a_long_queue_is_answered_in_turns(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmations, "BATCH", 3)
    switch()
    for n in range(7):
        says(sandbox["sms"], "STOP", clock, f"+7901000000{n}")
        optouts.add(f"+7902000000{n}", "between them", "anna")
    assert [confirmations.send_due(settings) for _turn in range(4)] == [3, 3, 1, 0]
    assert len({phone for phone, _ in sent()}) == 7


def test_a_look_that_fails_is_made_again_and_answers_nobody_twice(
    sandbox: dict[str, Channel], settings: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch()
    for n in range(2):
        says(sandbox["sms"], "STOP", clock, f"+7901000000{n}")
    kept = installation.keep
    monkeypatch.setattr(installation, "keep", lambda _name, _value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        confirmations.send_due(settings)
    assert sent() == []
    monkeypatch.setattr(installation, "keep", kept)
    assert confirmations.send_due(settings) == 2


@pytest.mark.parametrize("text", ["", " ", "x" * 1_001, "a\0b"])
def test_a_text_that_cannot_be_sent_is_refused(database: Settings, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        switch(**{"sms.ru": text})
    assert set(refused.value.problems) == {"sms.ru"}
    assert not confirmations.chosen().on


def test_the_first_texts_fit_into_one_segment() -> None:
    for key, text in confirmations.TEXTS.items():
        if key.startswith("sms"):
            assert segments.count(text).segments == 1, key
