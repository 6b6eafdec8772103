"""The pre-flight sheet says what will happen, and forbids what the start forbids."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import broadcasts, channels, db, optouts, preflight, recipients
from worker.models import Broadcast, Channel, Departure, MessageTemplate, RecipientFile
from worker.settings import Settings

HOUR = 3_600_000


@pytest.fixture
def sms(settings: Settings, database: Settings) -> Channel:
    """A real SMS channel with a price."""
    values = {"username": "u", "password": "p", "sender": "Molva"}
    return channels.create(settings, "smsc_ru", "SMSC", values, price=2.5, currency="RUB")


@pytest.fixture
def waba(settings: Settings, database: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[0]


def draft(settings: Settings, channel: Channel, data: bytes = b"", **values: Any) -> Broadcast:
    given = {"name": "Sale", "channel_id": channel.id, "rate_per_minute": 60, "text": "Hi {{name}}", **values}
    row = broadcasts.create(settings, given, "test", complete=False)
    if data:
        file = recipients.receive(row, io.BytesIO(data), "a.csv", settings.uploads, {}, "test")
        recipients.check(file.id, None, broadcasts.content(row), channel.kind == "sms", settings.uploads)
    return Broadcast.get_by_id(row.id)


PEOPLE = b"phone,name\n+79010000001,Ann\n+79010000002,Bob\n+79010000001,Ann\n123,Eve\n,\n"


def look(settings: Settings, row: Broadcast) -> dict[str, preflight.Item]:
    return {item.code: item for item in preflight.sheet(settings, Broadcast.get_by_id(row.id)).items}


def level(settings: Settings, row: Broadcast, code: str) -> str:
    found = look(settings, row).get(code)
    return found.level if found else ""


def test_a_good_broadcast_says_what_it_will_do(settings: Settings, sms: Channel, clock: Clock) -> None:
    make.worker()
    row = draft(replace(settings, base_url="https://molva.example.org"), sms, PEOPLE)
    found = preflight.sheet(settings, row)
    numbers = found.numbers
    assert found.ok and (found.cost, found.currency, found.eta) == (5.0, "RUB", clock.now() + 2_000)
    assert numbers["recipients"] == 2 and numbers["segments"] == 2
    assert (numbers["rows"], numbers["accepted"]) == (5, 2)
    assert [numbers[name] for name in ("duplicates", "invalid", "opted_out", "blank")] == [1, 1, 0, 1]
    assert numbers["longest"]["line"] == 2 and numbers["received"] == 0
    codes = {item.code: item.level for item in found.items}
    assert codes["cost"] == codes["ends"] == codes["channel"] == "ok"
    assert codes["recipients"] == "warn"  # a row with an error is something to heed


def test_what_blocks_is_what_the_start_refuses(settings: Settings, sms: Channel) -> None:
    for row in (
        draft(settings, sms, name="", text=""),
        draft(settings, sms, b"phone\n+79010000001\n", name=""),
        draft(settings, sms, PEOPLE),
        broadcasts.create(settings, {}, "test", complete=False),
    ):
        found = preflight.sheet(settings, row)
        assert [item.code for item in found.of("block")] == [p.code for p in broadcasts.problems(row)]
        assert all(item.fix for item in found.of("block"))
        assert found.ok == (not broadcasts.problems(row))


def test_a_file_of_an_earlier_version_leaves_lengths_unknown_and_breaks_nothing(
    settings: Settings, sms: Channel
) -> None:
    row = draft(settings, sms, PEOPLE)
    RecipientFile.update(facts=None).execute()
    found = preflight.sheet(settings, row)
    assert "length_unknown" in look(settings, row) and found.ok
    assert found.cost is None and found.numbers["segments"] is None and found.numbers["zones"] is None


def test_what_has_left_already_is_not_paid_for_again(settings: Settings, sms: Channel) -> None:
    row = draft(settings, sms, PEOPLE)
    db.execute("UPDATE counter SET n = 1 WHERE status = 'queued'")
    assert preflight.sheet(settings, Broadcast.get_by_id(row.id)).cost == 2.5


def test_without_a_price_the_cost_is_not_known_and_says_where_to_set_it(settings: Settings, sms: Channel) -> None:
    Channel.update(price=None).execute()
    row = draft(settings, sms, PEOPLE)
    assert preflight.sheet(settings, row).cost is None
    assert look(settings, row)["price_missing"].fix == "price"


def test_a_daily_limit_is_held_against_what_left_today(settings: Settings, sms: Channel, clock: Clock) -> None:
    Channel.update(per_day=10).execute()
    Departure.create(channel_id=sms.id, minute=clock.now() // 60_000 - 60, n=9)
    row = draft(settings, sms, PEOPLE)
    item = look(settings, row)["daily_limit"]
    assert item.level == "warn" and (item.facts["left"], item.facts["n"], item.facts["days"]) == (1, 1, 1)
    assert item.facts["at"] == clock.now() + 23 * HOUR + 60_000
    Departure.delete().execute()
    assert level(settings, row, "daily_limit") == "ok"


def test_the_state_of_the_channel_and_of_the_worker_is_told(settings: Settings, sms: Channel, clock: Clock) -> None:
    row = draft(settings, sms, PEOPLE)
    assert level(settings, row, "worker") == "warn"
    make.worker()
    assert not level(settings, row, "worker")
    for columns, code in (
        ({"slow_until": clock.now() + HOUR}, "channel_slow"),
        ({"opened_at": clock.now()}, "channel_silent"),
        ({"state": "stopped", "stop_reason": "channel_off"}, "channel_off"),
    ):
        Channel.update(**columns).execute()
        assert level(settings, row, code) == "warn" and not level(settings, row, "channel")
    assert preflight.sheet(settings, row).ok  # these do not forbid the start


@pytest.mark.parametrize(("sender", "code"), [("Molva", "unanswerable"), ("79010000000", "answerable")])
def test_whether_people_can_reply_depends_on_the_sender(
    settings: Settings, sms: Channel, sender: str, code: str
) -> None:
    Channel.update(settings={**sms.settings, "sender": sender}).execute()
    assert code in look(settings, draft(settings, sms, PEOPLE))


def test_a_channel_that_cannot_be_opened_is_told_and_breaks_nothing(settings: Settings, sms: Channel) -> None:
    row = draft(settings, sms, PEOPLE)
    Channel.update(secrets=b"of another key").execute()
    assert level(settings, row, "channel_locked") == "warn"


def test_without_a_public_address_no_reports_come_in(settings: Settings, sms: Channel, waba: Channel) -> None:
    row = draft(settings, sms, PEOPLE)
    assert level(settings, row, "no_base_url") == "warn"
    assert not level(replace(settings, base_url="https://molva.example.org"), row, "no_base_url")
    sandbox = draft(settings, channels.ensure_sandbox(settings)[1], PEOPLE)
    assert not level(settings, sandbox, "no_base_url") and level(settings, sandbox, "sandbox") == "info"


def test_a_template_is_told_with_its_age_its_category_and_its_quality(
    settings: Settings, waba: Channel, clock: Clock
) -> None:
    facts = {"status": "APPROVED", "category": "MARKETING", "quality": "RED", "synced_at": clock.now()}
    body = [{"type": "BODY", "text": "Hi {{1}}"}]
    template = MessageTemplate.create(channel=waba, name="hi", language="ru", components=body, **facts)
    Channel.update(templates_synced_at=clock.now()).execute()
    chosen = {"template": {"name": "hi", "language": "ru"}, "variables": {"body.1": {"column": "name"}}}
    row = draft(settings, waba, PEOPLE, text=None, **chosen)
    found = look(settings, row)
    assert found["template"].level == "ok" and found["category"].facts["category"] == "MARKETING"
    assert found["template_quality"].level == "warn"
    clock.tick(days=1, seconds=1)
    stale = look(settings, row)["template_stale"]
    assert (stale.level, stale.fix) == ("warn", "templates")
    MessageTemplate.update(status="PAUSED").where(MessageTemplate.id == template.id).execute()
    assert look(settings, row)["template_not_approved"].level == "block"


def test_quiet_hours_hold_and_say_how_many_live_where(settings: Settings, sms: Channel, clock: Clock) -> None:
    data = "phone,name,timezone\n+79010000001,Ann,UTC+12\n+79010000002,Bob,\n+79010000003,Eve,UTC+3\n"
    row = draft(settings, sms, data.encode())
    Broadcast.update(quiet_from=21 * 60, quiet_to=9 * 60).execute()
    found = look(settings, row)
    assert found["quiet"].facts["n"] == 1  # at noon in Moscow it is nine in the evening there
    assert found["quiet"].level == "warn"
    assert [found["zones"].facts[source] for source in ("column", "number", "broadcast")] == [2, 0, 1]
    sheet = preflight.sheet(settings, Broadcast.get_by_id(row.id))
    assert sheet.eta == clock.now() + 12 * HOUR + 1_000 and sheet.numbers["waiting"] == 1


def test_who_came_to_the_stop_list_and_who_knows_the_text_is_noted(
    settings: Settings, sms: Channel, clock: Clock
) -> None:
    row = draft(settings, sms, PEOPLE)
    other = draft(settings, sms, PEOPLE)
    db.execute(
        "UPDATE message SET status = 'sent', sending_at = ?, text_version = 1 WHERE broadcast_id = ?",
        [clock.now(), other.id],
    )
    Broadcast.update(state="finished", last_sent_at=clock.now()).where(Broadcast.id == other.id).execute()
    clock.tick(hours=3)
    with db.write():
        optouts.record("+79010000002", "reply", "STOP")
    found = look(settings, row)
    assert found["received"].facts == {"n": 2, "at": clock.now() - 3 * HOUR, "broadcast_id": other.id}
    assert (found["received"].level, found["received"].fix) == ("warn", "same")
    assert found["stopped"].facts["n"] == 1
    assert found["recipients"].facts["n"] == 1  # of two


def test_foreign_characters_and_empty_variables_lead_to_their_rows(settings: Settings, sms: Channel) -> None:
    data = b"phone,name\n+79010000001,Ann\n+79010000002,\n"
    text = "Hi {{name|friend}}, your “parcel” waits. Come and get it until nine, or write to us."
    found = look(settings, draft(settings, sms, data, text=text))
    assert found["foreign"].facts["segments"] == 2 and found["foreign"].fix == "foreign"
    assert (found["empty"].facts["rows"], found["empty"].facts["line"]) == (1, 3)
