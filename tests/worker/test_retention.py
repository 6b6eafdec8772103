"""What has had its time goes; what is needed, and every total, stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import broadcasts, channels, db, hashes, retention, tasks, vault
from worker.models import (
    Attachment,
    Attempt,
    Broadcast,
    Callback,
    Conversation,
    DeliveryReport,
    Direct,
    Inbound,
    Message,
    RecipientFile,
    RejectedRow,
    Removal,
)
from worker.problems import Invalid
from worker.settings import Settings

STATUSES = ("delivered", "read", "failed", "uncertain")


@pytest.fixture
def ended(database: Settings, clock: Clock) -> Broadcast:
    """A broadcast that ended just now, with everything that is known of its messages."""
    now = clock.now()
    made = make.broadcast(
        state="finished", text="Hello {{ name }}", variables={"body.1": {"value": "x"}}, last_sent_at=now
    )
    (database.uploads / ("a" * 32)).write_text("phone\n+79000000001")
    columns = {"columns": ["phone", "name"], "sample": [["+79000000001", "Anna"]], "path": "a" * 32, "checked_at": now}
    file = make.file(made, **columns)
    for message in make.messages(file, *STATUSES, cause_text="said +79000000001", provider_id="wamid.1"):
        Message.update(row=json.dumps([message.phone, "Anna"])).where(Message.id == message.id).execute()
        Attempt.create(message_id=message.id, token="t", at=now, outcome="lost", detail="to +79000000001")
        DeliveryReport.create(
            channel_id=1, message_id=message.id, provider_id=f"wamid.{message.id}", status="delivered", at=now,
            received_at=now, detail="to +79000000001", dedupe=str(message.id),
        )  # fmt: skip
    RejectedRow.create(file_id=file.id, line=9, code="phone_invalid", value="+7900", original="+7900;Anna")
    return Broadcast.get_by_id(made.id)


def only(**chosen: int) -> None:
    retention.set_days({name: chosen.get(name) for name in retention.TIMERS}, "admin@example.org")


def shape(broadcast: Broadcast) -> tuple[Any, ...]:
    """What a report counts: totals, statuses and times."""
    rows = db.rows("SELECT id, status, line, run, sent_at, cause FROM message ORDER BY id")
    return broadcasts.count(broadcast, None), rows


def test_every_timer_is_off_until_somebody_sets_it(database: Settings, ended: Broadcast, clock: Clock) -> None:
    before = db.rows("SELECT * FROM message")
    clock.tick(days=4000)
    assert retention.run(database) == {}
    assert db.rows("SELECT * FROM message") == before
    assert (database.uploads / ("a" * 32)).exists()


def test_texts_go_after_their_days_and_totals_stay(database: Settings, ended: Broadcast, clock: Clock) -> None:
    only(texts=90)
    totals = shape(ended)
    clock.tick(days=89)
    assert retention.run(database) == {}
    clock.tick(days=2)
    assert retention.run(database) == {"rows": 4, "rejected_rows": 1, "texts": 1}
    assert shape(ended) == totals
    found = Broadcast.get_by_id(ended.id)
    assert (found.text, found.variables, found.name) == (None, {}, ended.name)
    stored = str([db.rows(f"SELECT * FROM {t}") for t in ("attempt", "delivery_report", "rejected_row")])
    assert "79000000001" not in stored and "Anna" not in str(db.rows("SELECT * FROM message"))
    assert RecipientFile.get().sample == []
    assert all(m.phone.startswith("+7900") for m in Message.select())
    assert retention.run(database) == {}
    assert Removal.get().body == {"rows": 4, "rejected_rows": 1, "texts": 1}


def test_numbers_become_hashes_that_know_the_same_number_again(
    database: Settings, ended: Broadcast, clock: Clock
) -> None:
    only(numbers=180)
    totals, phones = shape(ended), [m.phone for m in Message.select().order_by(Message.id)]
    clock.tick(days=181)
    removed = retention.run(database)
    assert removed["numbers"] == 4
    assert shape(ended) == totals
    hidden = [m.phone for m in Message.select().order_by(Message.id)]
    assert hidden == hashes.of(database, phones) and all(h.startswith("#") for h in hidden)
    whole = str([db.rows(f"SELECT * FROM {t}") for t in ("message", "delivery_report", "attempt", "recipient_file")])
    assert not any(phone in whole or phone[1:] in whole for phone in phones) and "wamid" not in whole
    assert retention.run(database) == {}


def test_the_hash_needs_the_secret_key_and_stays_after_its_change(database: Settings) -> None:
    from dataclasses import replace

    first = hashes.of(database, ["+79000000001"])
    assert "+79000000001" not in str(db.rows("SELECT * FROM setting"))
    both = replace(database, secret_key="another key, longer than it has to be\n" + database.secret_key)
    channels.reseal(both)
    alone = replace(database, secret_key="another key, longer than it has to be")
    assert hashes.of(alone, ["+79000000001"]) == first
    with pytest.raises(vault.VaultError):
        hashes.of(replace(database, secret_key="a key that never sealed anything here"), ["+79000000001"])


@pytest.mark.parametrize(
    "columns", [{"state": "running"}, {"state": "scheduled"}, {"last_sent_at": None, "state": "draft"}]
)
def test_what_is_not_at_its_end_keeps_its_texts(
    database: Settings, ended: Broadcast, clock: Clock, columns: dict[str, Any]
) -> None:
    only(texts=1, numbers=1)
    Broadcast.update(**columns).where(Broadcast.id == ended.id).execute()
    clock.tick(days=100)
    assert retention.run(database) == {}


def test_a_stopped_one_with_people_in_the_queue_keeps_them(database: Settings, ended: Broadcast, clock: Clock) -> None:
    only(texts=1, numbers=1)
    make.messages(RecipientFile.get(), "queued")
    Broadcast.update(state="stopped").where(Broadcast.id == ended.id).execute()
    clock.tick(days=100)
    assert retention.run(database) == {}


def test_a_broadcast_without_its_rows_is_not_sent_again(database: Settings, ended: Broadcast, clock: Clock) -> None:
    only(texts=1)
    RecipientFile.update(accepted=4).execute()
    clock.tick(days=2)
    retention.run(database)
    with pytest.raises(Invalid) as caught:
        broadcasts.restart(Broadcast.get_by_id(ended.id), "everyone", "anna")
    assert "broadcast" in caught.value.problems


def test_files_go_from_the_disk_but_not_those_of_drafts(database: Settings, ended: Broadcast, clock: Clock) -> None:
    only(files=7)
    draft = make.file(make.broadcast(), path="b" * 32, checked_at=clock.now())
    (database.uploads / ("b" * 32)).write_text("phone\n")
    clock.tick(days=8)
    assert retention.run(database) == {"files": 1}
    assert sorted(path.name for path in database.uploads.iterdir()) == ["b" * 32]
    assert RecipientFile.get_by_id(draft.id).path == "b" * 32


def conversation(phone: str, at: int) -> Conversation:
    found = Conversation.create(
        channel_id=1, phone=phone, name="Anna", last_text="Hi", last_in_at=at, last_at=at, created_at=at
    )
    inbound = Inbound.create(
        channel_id=1, provider_id=f"in {phone}", phone=phone, name="Anna", kind="text", text="Hi", at=at,
        received_at=at, conversation_id=found.id,
    )  # fmt: skip
    Attachment.create(
        inbound_id=inbound.id, channel_id=1, media_id="m", mime="image/png", name="a.png", path=phone[1:], at=at,
        state="ready",
    )  # fmt: skip
    return found


def test_old_conversations_go_with_their_files_and_answers(database: Settings, clock: Clock) -> None:
    only(inbox=365)
    old, folder = clock.now(), database.media
    folder.mkdir(exist_ok=True)
    for phone in ("+79000000001", "+79000000002"):
        (folder / phone[1:]).write_text("picture")
    conversation("+79000000001", old)
    message = make.messages(make.file(make.broadcast(kind="direct")), "sent", row='["+79000000001","Hi"]')[0]
    Message.update(phone="+79000000001").where(Message.id == message.id).execute()
    Direct.create(channel_id=1, message_id=message.id, kind="answer", phone="+79000000001", made_by="x", at=old)
    clock.tick(days=366)
    conversation("+79000000002", clock.now())
    removed = retention.run(database)
    assert removed == {"replies": 1, "answers": 1, "conversations": 1, "attachments": 1}
    assert [c.phone for c in Conversation.select()] == ["+79000000002"]
    assert [path.name for path in folder.iterdir()] == ["79000000002"]
    tables = ("message", "inbound", "direct", "attachment")
    assert "79000000001" not in str([db.rows(f"SELECT * FROM {t}") for t in tables])
    assert Inbound.select().count() == 2  # the totals of replies stay


def test_callbacks_go_after_a_week_or_as_set(database: Settings) -> None:
    assert retention.callback_days() == 7
    only(callbacks=2)
    assert retention.callback_days() == 2


@pytest.mark.parametrize(("name", "value"), [("audit", 365), ("texts", 0), ("texts", -1), ("files", 3651), ("x", 1)])
def test_a_timer_out_of_range_is_refused(database: Settings, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        retention.set_days({name: value}, "admin")


def test_a_round_ends_early_when_the_worker_stops(
    database: Settings, ended: Broadcast, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP", 1)
    only(texts=1)
    clock.tick(days=2)
    assert retention.run(database, lambda: False) == {"rows": 1}
    assert retention.run(database)["rows"] == 3


def test_no_write_lock_is_held_for_long(database: Settings, clock: Clock) -> None:
    """Steps of some thousand rows: whoever sends gets its turn in between."""
    import time

    made = make.broadcast(state="finished", last_sent_at=clock.now())
    file = make.file(made)
    rows = [(made.id, file.id, n, f"+7{n:010d}", "sent", '["x"]') for n in range(20_000)]
    with db.write():
        db.many(
            "INSERT INTO message (broadcast_id, run, file_id, line, phone, status, row, not_before, tries)"
            " VALUES (?, 1, ?, ?, ?, ?, ?, 0, 0)",
            rows,
        )
        db.execute("INSERT INTO counter VALUES (?, 1, ?, 'sent', 20000)", [made.id, file.id])
    only(numbers=1)
    clock.tick(days=2)
    longest, began = 0.0, time.perf_counter()

    def going() -> bool:
        nonlocal longest, began
        longest, began = max(longest, time.perf_counter() - began), time.perf_counter()
        return True

    assert retention.run(database, going)["numbers"] == 20_000
    assert longest < 2.0  # with room for a busy machine; a step takes some hundredths


def test_freed_pages_are_wiped_when_nothing_is_sent(database: Settings, ended: Broadcast, clock: Clock) -> None:
    Callback.create(channel_id=1, body=b"canary-4711", received_at=0, processed_at=0)
    with db.write():
        Callback.delete().execute()
        retention.want_vacuum()
    Broadcast.update(state="running").where(Broadcast.id == ended.id).execute()
    assert not retention.vacuum()
    Broadcast.update(state="finished").where(Broadcast.id == ended.id).execute()
    assert retention.vacuum()
    assert not retention.vacuum()
    assert b"canary-4711" not in b"".join(path.read_bytes() for path in database.data.glob("molva.db*"))


def test_the_hash_of_an_erased_person_keeps_them_on_the_stop_list(database: Settings) -> None:
    from worker import optouts

    tasks.configure(database)
    with db.write():
        optouts.record(hashes.of(database, ["+79000000001"])[0], "person")
    assert optouts.opted_out_among(["+79000000001", "+79000000002"]) == {"+79000000001"}


def test_without_the_key_nothing_is_compared_and_nothing_breaks(database: Settings) -> None:
    from dataclasses import replace

    from worker import optouts

    with db.write():
        optouts.record(hashes.of(database, ["+79000000001"])[0], "person")
    tasks.configure(replace(database, secret_key="a key that never sealed anything here"))
    assert optouts.opted_out_among(["+79000000001"]) == set()
