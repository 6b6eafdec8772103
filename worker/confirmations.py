"""One short answer to whoever put themselves on the stop list by a reply, where an administrator wants that.

The worker's tick finds them among the events of the stop list, after the stop itself is safely stored. Its place
in the events is kept in the transaction that queues the answers, so each event is looked at once, whatever dies.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker import audit, clock, db, direct, installation, optouts, stopwords
from worker.models import Channel
from worker.problems import Invalid, Problem
from worker.settings import Settings

log = logging.getLogger("molva.confirmations")

CONFIRMATION, PLACE = "optout_confirmation", "optout_confirmed"
KINDS, LANGUAGES = ("sms", "waba"), ("ru", "en")
TEXT_MAX = 1_000
AGAIN = 30 * clock.DAY  # at most one to a number within that time
LATE = clock.DAY  # nobody wants an answer after that, and WhatsApp allows none
BATCH = 100
# One segment of SMS each.
TEXTS = {
    "sms.ru": "Вы отписаны от рассылок. Вернуться: START",
    "sms.en": "You are unsubscribed and will get no more messages. To come back, reply START",
    "waba.ru": "Вы отписаны: рассылок больше не будет. Чтобы вернуться, ответьте START",
    "waba.en": "You are unsubscribed and will get no more messages. To come back, reply START",
}


@dataclass(frozen=True)
class Confirmation:
    """Whether it is sent, and the texts by kind of channel and language: sms.ru, sms.en, waba.ru, waba.en."""

    on: bool = False
    texts: Mapping[str, str] = field(default_factory=lambda: dict(TEXTS))


def chosen() -> Confirmation:
    found = installation.fact(CONFIRMATION)
    return Confirmation(found["on"], {**TEXTS, **found["texts"]}) if found else Confirmation()


def choose(on: bool, texts: Mapping[str, str], actor: str) -> None:
    """Switch it on or off and set its texts. Who left before is not written to. Raises Invalid."""
    wanted = {key: texts.get(key, "").strip() for key in TEXTS}
    problems = {key: found for key, text in wanted.items() if (found := _fault(text))}
    if problems:
        raise Invalid(problems)
    with db.write():
        if on and not chosen().on:
            installation.keep(PLACE, _latest())
        value = {"on": on, "texts": wanted}
        installation.keep(CONFIRMATION, value)
        audit.record(actor, "optout.confirmation", on=on)


def _fault(text: str) -> Problem | None:
    if not text:
        return Problem("text_required")
    if len(text) > TEXT_MAX:
        return Problem("setting_too_long", {"max": TEXT_MAX})
    if not all(c.isprintable() or c in "\r\n" for c in text):
        return Problem("text_invalid")
    return None


def send_due(settings: Settings) -> int:
    """Queue the answers to whoever has left since the last look; how many. The caller wakes the worker."""
    wanted = chosen()
    if not wanted.on or _latest() <= _place():
        return 0
    with db.write():
        latest = _latest()
        found = db.rows(
            "SELECT id, phone, channel_id, reason, at FROM opt_out_event"
            " WHERE id > ? AND id <= ? AND source = ? AND action = ? ORDER BY id LIMIT ?",
            [_place(), latest, optouts.REPLY, optouts.ADD, BATCH],
        )
        sent = sum(_answer(settings, wanted, *event) for event in found)
        installation.keep(PLACE, found[-1][0] if len(found) == BATCH else latest)
    return sent


def _answer(
    settings: Settings, wanted: Confirmation, event_id: int, phone: str, channel_id: int | None, said: str, at: int
) -> bool:
    """Queue one answer, unless there is a reason not to."""
    channel = Channel.get_or_none(Channel.id == channel_id)
    if channel is None or at < clock.now() - LATE or not _is_first(phone):
        return False
    text = wanted.texts[f"{channel.kind}.{_language(said)}"]
    conversation = db.value("SELECT id FROM conversation WHERE channel_id = ? AND phone = ?", [channel.id, phone])
    try:
        direct.send(
            settings,
            channel,
            phone,
            kind=direct.CONFIRMATION,
            actor="",
            text=text,
            conversation_id=conversation,
            form_token=f"optout-{event_id}",
        )
    except Invalid as error:
        log.info("opt-out %d is not confirmed: %s", event_id, error)
        return False
    return True


def _is_first(phone: str) -> bool:
    """Whether the number is still on the list and had no such answer lately, as two programs that answer each other
    would have."""
    return bool(
        db.value("SELECT 1 FROM opt_out WHERE phone = ? AND scope = ?", [phone, optouts.ALL])
        and not db.value(
            "SELECT 1 FROM direct WHERE phone = ? AND kind = ? AND at > ? LIMIT 1",
            [phone, direct.CONFIRMATION, clock.now() - AGAIN],
        )
    )


def _language(said: str) -> str:
    """The language that the person wrote in."""
    return "ru" if stopwords.is_cyrillic(said) else "en"


def _latest() -> int:
    return int(db.value("SELECT MAX(id) FROM opt_out_event") or 0)


def _place() -> int:
    return int(installation.fact(PLACE, 0))
