"""Taking back the deletion of a file, or a Clear: everybody is where they were, nobody twice, and only while it is
offered."""

from __future__ import annotations

import pytest

from tests.conftest import Clock
from tests.driving import Driven, draft, people, upload
from worker import broadcasts, clock, counters, db, files, hashes, privacy, recipients, retention, undo
from worker.models import Broadcast, Channel, Message, RecipientFile
from worker.settings import Settings


def fresh(broadcast: Broadcast) -> Broadcast:
    return Broadcast.get_by_id(broadcast.id)


def numbers(broadcast: Broadcast) -> dict[str, int]:
    """The counters that are not zero; they agree with the rows."""
    assert not counters.drift(broadcast.id)
    return {status: n for status, n in broadcasts.count(broadcast, None).items() if n}


def read(settings: Settings, row: RecipientFile) -> RecipientFile:
    """What the worker does after `tasks.read_file`."""
    recipients.check(row.id, None, None, True, settings.uploads)
    return RecipientFile.get_by_id(row.id)


def running(driven: Driven, sms: Channel, *lists: list[str], sent: int = 10) -> Broadcast:
    """A broadcast of which so many have got their message."""
    broadcast = draft(driven.settings, sms.id)
    for rows in lists:
        upload(driven.settings, broadcast, *rows)
    broadcasts.start(driven.settings, fresh(broadcast), "test", sent)
    driven.run(10)
    assert len(driven.sent) == sent
    return broadcast


def test_a_deleted_list_of_a_draft_is_read_anew(driven: Driven, sms: Channel) -> None:
    broadcast = draft(driven.settings, sms.id)
    upload(driven.settings, broadcast, *people(3))
    row = RecipientFile.get()
    recipients.remove(row, "remove", "test")
    assert numbers(broadcast) == {} and undo.offered(broadcast) == [row]
    assert undo.file(row, "test")
    assert undo.offered(broadcast) == [] and RecipientFile.get().state == "checking"
    assert read(driven.settings, row).accepted == 3
    assert numbers(broadcast) == {"total": 3, "queued": 3}


def test_what_was_taken_out_of_the_queue_goes_back_and_is_sent_once(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(30))
    row = RecipientFile.get()
    recipients.remove(row, "remove", "test")
    assert numbers(broadcast) == {"total": 30, "sent": 10, "cancelled": 20}
    assert undo.file(row, "test") and not undo.file(row, "test")
    assert numbers(broadcast) == {"total": 30, "sent": 10, "queued": 20}
    broadcasts.resume(fresh(broadcast), "test")
    driven.run(10)
    assert fresh(broadcast).state == "finished"
    assert sorted(driven.phones) == [f"+7901{n:07d}" for n in range(30)]


def test_a_list_whose_people_stayed_in_the_queue_comes_back_into_sight(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(30))
    recipients.remove(RecipientFile.get(), "keep", "test")
    assert broadcasts.live_files(broadcast) == []
    assert undo.file(RecipientFile.get(), "test")
    assert [row.id for row in broadcasts.live_files(broadcast)] == [RecipientFile.get().id]
    assert numbers(broadcast) == {"total": 30, "sent": 10, "queued": 20}


def test_a_broadcast_that_ended_while_its_list_was_away_goes_on(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(30))
    broadcasts.resume(fresh(broadcast), "test")
    recipients.remove(RecipientFile.get(), "remove", "test")
    driven.run(2)
    assert fresh(broadcast).state == "finished"
    assert undo.file(RecipientFile.get(), "test") and fresh(broadcast).state == "running"
    driven.run(10)
    assert fresh(broadcast).state == "finished" and len(set(driven.phones)) == len(driven.phones) == 30


def test_a_clear_is_taken_back_and_nothing_leaves_before_resume(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(20), people(10, 500))
    first, _second = RecipientFile.select().order_by(RecipientFile.id)
    recipients.remove(first, "keep", "test")
    later = clock.now() + undo.KEPT + 1
    retention.forget_removed(driven.settings, later)  # the kept one's upload goes in its time
    broadcasts.clear(fresh(broadcast), "test")
    assert numbers(broadcast) == {"total": 30, "sent": 10, "cancelled": 20}
    back = undo.clear(fresh(broadcast), "test")
    assert (back.state, back.stop_reason, back.stop_detail) == ("stopped", "cleared", {"by": "test"})
    assert [row.name for row in broadcasts.live_files(broadcast)] == [RecipientFile.get_by_id(first.id + 1).name]
    driven.run(5)
    assert len(driven.sent) == 10
    broadcasts.resume(back, "test")
    driven.run(10)
    assert numbers(broadcast) == {"total": 30, "sent": 30} and len(set(driven.phones)) == 30


def test_one_that_had_not_begun_comes_back_stopped(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = draft(driven.settings, sms.id, send_at=clock.ms + 60_000)
    upload(driven.settings, broadcast, *people(3))
    broadcasts.start(driven.settings, fresh(broadcast), "test")
    broadcasts.clear(fresh(broadcast), "test")
    broadcasts.resume(undo.clear(fresh(broadcast), "test"), "test")
    driven.run(5)
    assert fresh(broadcast).state == "finished" and len(set(driven.phones)) == 3


def test_it_is_offered_for_ten_seconds_and_taken_a_little_longer(driven: Driven, sms: Channel, clock: Clock) -> None:
    broadcast = running(driven, sms, people(30), people(5, 500))
    first, second = RecipientFile.select().order_by(RecipientFile.id)
    recipients.remove(first, "remove", "test")
    clock.tick(seconds=9.9)
    assert undo.offered(broadcast) == [first]
    clock.tick(seconds=0.2)
    assert undo.offered(broadcast) == []
    clock.tick(seconds=4)
    assert undo.file(first, "test")
    recipients.remove(second, "remove", "test")
    clock.tick(seconds=15)
    assert not undo.file(second, "test")
    broadcasts.clear(fresh(broadcast), "test")
    clock.tick(seconds=15)
    assert undo.clear_offered(broadcast) == []
    with pytest.raises(broadcasts.NotAllowed):
        undo.clear(fresh(broadcast), "test")
    assert fresh(broadcast).state == "draft"


def test_a_list_that_came_after_it_has_its_people_now(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(30))
    first = RecipientFile.get()
    recipients.remove(first, "remove", "test")
    upload(driven.settings, broadcast, *people(30))
    assert undo.offered(broadcast) == [] and not undo.file(first, "test")
    broadcasts.clear(fresh(broadcast), "test")
    upload(driven.settings, broadcast, *people(30, 500))
    with pytest.raises(broadcasts.NotAllowed):
        undo.clear(fresh(broadcast), "test")


def test_a_run_that_began_after_it_stands(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(10), people(10, 500), sent=10)
    first = RecipientFile.get()
    broadcasts.resume(fresh(broadcast), "test")
    driven.run(2)
    recipients.remove(first, "remove", "test")
    broadcasts.restart(fresh(broadcast), "everyone", "test")
    assert not undo.file(first, "test")


def test_who_was_forgotten_at_their_wish_stays_forgotten(driven: Driven, sms: Channel) -> None:
    broadcast = running(driven, sms, people(30))
    privacy.erase(driven.settings, "+79010000029", "test")
    broadcasts.clear(fresh(broadcast), "test")
    undo.clear(fresh(broadcast), "test")
    assert numbers(broadcast) == {"total": 30, "sent": 10, "queued": 19, "cancelled": 1}
    assert not Message.select().where(Message.phone.startswith(hashes.MARK) & (Message.status == "queued")).exists()


def test_the_worker_goes_on_where_a_process_died(driven: Driven, sms: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast = running(driven, sms, people(30))
    recipients.remove(RecipientFile.get(), "remove", "test")
    monkeypatch.setattr(undo, "STEP", 7)
    real = counters.add

    def die(deltas: counters.Deltas) -> None:
        monkeypatch.setattr(counters, "add", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(counters, "add", die)
    with pytest.raises(KeyboardInterrupt):
        undo.file(RecipientFile.get(), "test")
    broadcasts.sweep_removed()
    assert RecipientFile.get().removed_how == undo.RESTORING
    undo.go_on()
    assert numbers(broadcast) == {"total": 30, "sent": 10, "queued": 20} and RecipientFile.get().removed_at is None


@pytest.mark.sqlite
def test_the_rows_are_found_by_an_index(database: Settings) -> None:
    plan = [row[3] for row in db.rows(f"EXPLAIN QUERY PLAN {undo._NEXT}", [1, 1, 1, "#%", 9])]
    assert plan == ["SEARCH message USING INDEX message_file_id_run_line (file_id=? AND run=? AND line>?)"]


def test_uploads_of_removed_lists_go_after_a_minute_and_strays_at_the_second_look(
    driven: Driven, sms: Channel, clock: Clock
) -> None:
    uploads = driven.settings.uploads
    broadcast = draft(driven.settings, sms.id)
    upload(driven.settings, broadcast, *people(3))
    upload(driven.settings, broadcast, *people(3, 500))
    recipients.remove(RecipientFile.get(), "remove", "test")
    retention.forget_removed(driven.settings, clock.ms - undo.KEPT)
    assert len(files.names(uploads)) == 2
    clock.tick(minutes=2)
    retention.forget_removed(driven.settings, clock.ms - undo.KEPT)
    assert files.names(uploads) == [row.path for row in RecipientFile.select() if row.path]
    broadcasts.delete(fresh(broadcast), "test")
    assert files.names(uploads) == []
    stray = uploads / ("0" * 32)
    stray.write_bytes(b"phone")
    files.keep(stray)
    strays = retention.Strays(driven.settings)
    assert (strays.forget(), len(files.names(uploads))) == (0, 1)
    assert (strays.forget(), files.names(uploads)) == (1, [])
