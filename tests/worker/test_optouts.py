"""The stop list: what puts a number on it or takes it off, at once and with proof."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import peewee
import pytest

from tests import make
from tests.conftest import Clock
from worker import db, delivery, optouts
from worker.models import Audit, Channel, Message, OptOut, OptOutEvent
from worker.optouts import ALL, MARKETING, Entry, Filter
from worker.problems import Invalid
from worker.providers.base import InboundMessage
from worker.sender import Sender
from worker.settings import Settings

PHONE = "+79010000001"


@pytest.fixture(autouse=True)
def proven(database: Settings) -> Iterator[None]:
    """After every test: what the list holds is what its events say, one after the other."""
    yield
    said: dict[tuple[str, str], bool] = {}
    for phone, scope, action in db.rows("SELECT phone, scope, action FROM opt_out_event ORDER BY id"):
        assert said.get((phone, scope), False) == (action == "remove"), "an add and a remove take turns"
        said[phone, scope] = action == "add"
    held = {(phone, scope) for phone, scope in db.rows("SELECT phone, scope FROM opt_out")}
    assert held == {key for key, on in said.items() if on}


def says(channel: Channel, text: str, at: int, payload: str | None = None) -> None:
    """The person writes, and it comes at once."""
    message = InboundMessage(f"in-{at}-{text}", PHONE, at, kind="text", text=text, payload=payload)
    with db.write():
        delivery.receive_inbound(channel.id, message, at)


def events() -> list[tuple[str, str, str, str]]:
    return db.rows("SELECT action, source, reason, actor FROM opt_out_event ORDER BY id")


# --- by a reply ---------------------------------------------------------------------------------------


def test_the_persons_own_words_are_the_proof(sms: Channel) -> None:
    says(sms, " Стоп! ", 5_000)
    says(sms, "STOP", 6_000)
    (row,) = optouts.of_phone(PHONE)
    assert (row.scope, row.source, row.reason, row.channel_id, row.at) == (ALL, "reply", "Стоп!", sms.id, 5_000)
    assert events() == [("add", "reply", "Стоп!", "")], "a repeat changes nothing"


def test_start_takes_ones_own_stop_back_and_the_proof_stays(sms: Channel) -> None:
    says(sms, "STOP", 5_000)
    says(sms, "Start.", 6_000)
    assert optouts.of_phone(PHONE) == []
    assert events() == [("add", "reply", "STOP", ""), ("remove", "reply", "Start.", "")]


def test_a_word_from_a_clock_that_is_ahead_was_said_when_it_came(sms: Channel) -> None:
    with db.write():
        delivery.receive_inbound(sms.id, InboundMessage("in-1", PHONE, 9_000_000, text="STOP"), 5_000)
    says(sms, "START", 6_000)
    assert optouts.of_phone(PHONE) == []


def test_start_does_not_lift_what_somebody_else_has_put_there(sms: Channel) -> None:
    with db.write():
        optouts.put([Entry(PHONE, ALL, "by phone")], optouts.PERSON, actor="anna")
        optouts.record(PHONE, optouts.PROVIDER, "131050", sms.id, MARKETING)
    says(sms, "START", 2**42)
    assert {(row.scope, row.source) for row in optouts.of_phone(PHONE)} == {(ALL, "person"), (MARKETING, "provider")}


def test_a_start_that_comes_late_does_not_lift_a_stop_that_was_said_after_it(sms: Channel) -> None:
    says(sms, "STOP", 6_000)
    says(sms, "START", 5_000)
    assert [row.at for row in optouts.of_phone(PHONE)] == [6_000]


@pytest.mark.parametrize("text", ["HELP", "нет", "Отмена", "yes"])
def test_other_words_change_nothing(sms: Channel, text: str) -> None:
    says(sms, text, 5_000)
    assert optouts.of_phone(PHONE) == []


def test_words_of_the_settings_count_from_then_on(sms: Channel) -> None:
    says(sms, "хватит", 5_000)
    optouts.set_stop_words(["Хватит", " Хватит ", ""], ["НЕТ", "YES", "nonsense"], "anna")
    assert optouts.stop_words() == optouts.Words(("Хватит",), ("НЕТ", "YES"))
    assert optouts.of_phone(PHONE) == []
    says(sms, "Нет!", 6_000)
    says(sms, "yes", 7_000)
    says(sms, "ХВАТИТ", 8_000)
    assert [reason for _, _, reason, _ in events()] == ["Нет!", "yes", "ХВАТИТ"]
    assert Audit.get(Audit.action == "optout.words").actor == "anna"


@pytest.mark.parametrize(
    ("word", "code"),
    [
        *(("START", "word_means_other"), ("Yes", "word_means_other"), ("info", "word_means_other")),
        *(("!!!", "word_without_letters"), ("x" * 51, "setting_too_long")),
    ],
)
def test_a_word_that_cannot_be_used_is_refused_and_nothing_is_stored(database: Settings, word: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        optouts.set_stop_words(["Хватит", word], [], "anna")
    assert refused.value.problems["extra"].code == code
    assert optouts.stop_words() == optouts.Words()


def test_the_button_that_says_stop_counts_and_its_label_is_the_proof(sms: Channel) -> None:
    says(sms, "Больше не присылайте", 5_000, payload="STOP")
    assert [row.reason for row in optouts.of_phone(PHONE)] == ["Больше не присылайте"]


# --- by the provider ----------------------------------------------------------------------------------


def test_marketing_is_stopped_and_allowed_again_at_the_provider_with_proof_of_both(sms: Channel) -> None:
    with db.write():
        optouts.choose_marketing(PHONE, "stop", 5_000, sms.id)
        optouts.choose_marketing(PHONE, "stop", 5_000, sms.id)
        optouts.choose_marketing(PHONE, "resume", 6_000, sms.id)
    assert [(action, source, reason) for action, source, reason, _ in events()] == [
        ("add", "provider", "marketing_stopped"),
        ("remove", "provider", "marketing_resumed"),
    ]


# --- by hand ------------------------------------------------------------------------------------------


def test_a_number_is_added_and_removed_by_hand_with_a_reason(database: Settings, clock: Clock) -> None:
    row, new = optouts.add(PHONE, " asked by phone ", "anna")
    assert new and (row.source, row.reason, row.at) == ("person", "asked by phone", clock.ms)
    same, new = optouts.add(PHONE, "again", "boris")
    assert (same.id, same.reason, new) == (row.id, "asked by phone", False)
    assert optouts.remove(row.id, "added by mistake", "boris")
    assert not optouts.remove(row.id, "added by mistake", "boris")
    assert events() == [
        ("add", "person", "asked by phone", "anna"),
        ("remove", "person", "added by mistake", "boris"),
    ]
    acts = {row.action: (row.actor, row.subject) for row in Audit.select()}
    assert acts == {"optout.add": ("anna", str(row.id)), "optout.remove": ("boris", str(row.id))}


@pytest.mark.parametrize(
    ("reason", "scope", "field"), [("x" * 201, ALL, "reason"), ("a\0b", ALL, "reason"), ("ok", "some", "scope")]
)
def test_what_cannot_be_stored_is_refused(database: Settings, reason: str, scope: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        optouts.add(PHONE, reason, "anna", scope)
    assert set(refused.value.problems) == {field}
    assert OptOut.select().count() == 0


def test_the_history_of_a_number_outlives_its_entry(database: Settings) -> None:
    row, _new = optouts.add(PHONE, "first", "anna")
    optouts.remove(row.id, "second", "boris")
    optouts.add(PHONE, "third", "anna", MARKETING)
    optouts.add("+79010000002", "somebody else", "anna")
    assert [(e.action, e.scope, e.reason, e.actor) for e in optouts.history(PHONE)] == [
        ("add", MARKETING, "third", "anna"),
        ("remove", ALL, "second", "boris"),
        ("add", ALL, "first", "anna"),
    ]


@pytest.mark.sqlite
def test_a_change_without_its_proof_does_not_stand(database: Settings) -> None:
    db.execute("CREATE TRIGGER no_proof BEFORE INSERT ON opt_out_event BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises((peewee.PeeweeException, sqlite3.Error)):
        optouts.add(PHONE, "x", "anna")
    assert OptOut.select().count() == OptOutEvent.select().count() == 0


# --- the list -----------------------------------------------------------------------------------------


def fill() -> None:
    with db.write():
        for n in range(120):
            source = optouts.SOURCES[n % 4]
            scope = MARKETING if n % 3 == 0 else ALL
            optouts.put([Entry(f"+7901{n:07d}", scope)], source, at=1_000 + n)
        optouts.put([Entry("+79010000000", ALL)], optouts.REPLY, at=5_000)  # the same number under both


def pages(chosen: Filter, limit: int) -> list[optouts.Row]:
    found, after = [], ""
    while True:
        page = optouts.find(chosen, after, limit)
        found += page.items
        if page.next is None:
            return found
        assert len(page.items) == limit
        after = page.next


@pytest.mark.parametrize("limit", [1, 7, 50, 500])
@pytest.mark.parametrize(
    "chosen",
    [
        Filter(),
        Filter(source="reply"),
        Filter(scope=MARKETING),
        Filter(source="import", scope=ALL),
        Filter(phone="+79010000"),
        Filter(phone="+7901000000", scope=ALL),
        Filter(phone="+79010000000"),
        Filter(phone="+7999"),
    ],
)
def test_a_list_is_read_page_by_page_whatever_is_chosen(database: Settings, chosen: Filter, limit: int) -> None:
    fill()
    wanted = [
        row
        for row in db.rows("SELECT id, phone, scope, source FROM opt_out ORDER BY id DESC")
        if row[1].startswith(chosen.phone)
        and row[2] == (chosen.scope or row[2])
        and row[3] == (chosen.source or row[3])
    ]
    if chosen.phone:
        wanted.sort(key=lambda row: (row[1], row[2]))
    assert [(row.id, row.phone, row.scope, row.source) for row in pages(chosen, limit)] == wanted


@pytest.mark.parametrize(
    ("chosen", "after"),
    [
        *((Filter(source="nobody"), ""), (Filter(scope="some"), ""), (Filter(), "x"), (Filter(), "9" * 30)),
        (Filter(phone="+7"), "17"),
    ],
)
def test_a_choice_or_a_cursor_that_is_not_ours_is_refused(database: Settings, chosen: Filter, after: str) -> None:
    with pytest.raises(ValueError):
        optouts.find(chosen, after)


def test_the_numbers_of_the_list(database: Settings) -> None:
    fill()
    assert (optouts.count(), optouts.count(ALL), optouts.count(MARKETING)) == (121, 81, 40)
    some = ["+79010000000", "+79010000001", "+79010000003", "+79019999999"]
    assert optouts.opted_out_among(some) == {"+79010000000", "+79010000001"}
    assert optouts.opted_out_among(some, optouts.SCOPES) == set(some[:3])
    assert sum(len(batch) for batch in optouts.every(50)) == 121


@pytest.mark.sqlite
def test_every_page_is_read_through_an_index(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    rows = db.rows

    def explained(sql: str, parameters: list[object]) -> list[tuple[object, ...]]:
        plans.extend(str(row[3]) for row in rows(f"EXPLAIN QUERY PLAN {sql}", parameters))
        return rows(sql, parameters)

    monkeypatch.setattr(db, "rows", explained)
    for chosen in (Filter(), Filter(source="reply"), Filter(phone="+79"), Filter(phone="+79", source="reply")):
        optouts.find(chosen)
    assert plans and not [plan for plan in plans if "SCAN" in plan or "TEMP B-TREE" in plan]


# --- at the moment of sending -------------------------------------------------------------------------


def test_whoever_is_on_the_list_is_skipped_also_when_their_message_was_queued_before(
    sms: Channel, settings: Settings, clock: Clock
) -> None:
    broadcast = make.broadcast(channel=sms, state="running", rate_per_minute=60_000)
    first, second = make.messages(make.file(broadcast), "queued", "queued")
    optouts.add(first.phone, "asked", "anna")
    sender, jobs = Sender(settings, 1), []
    for _turn in range(3):
        jobs += sender._turn([])
        clock.tick(seconds=1)
    assert [job.id for job in jobs] == [second.id]
    skipped = Message.get_by_id(first.id)
    assert (skipped.status, skipped.cause) == ("skipped", "opted_out")


def test_a_stop_that_was_said_again_outlives_a_start_that_comes_late(sms: Channel) -> None:
    for word, at in (("STOP", 5_000), ("STOP", 7_000), ("START", 6_000)):
        says(sms, word, at)
    assert optouts.of_phone(PHONE)
    says(sms, "START", 8_000)
    assert not optouts.of_phone(PHONE)
