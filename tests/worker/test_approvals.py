"""Four eyes: above so many recipients a second person approves before anything leaves."""

from __future__ import annotations

import io

import pytest

from tests import make
from tests.conftest import Clock
from worker import approvals, broadcasts, db, recipients
from worker.models import Audit, Broadcast, RecipientFile
from worker.problems import Invalid
from worker.settings import Settings

ANNA, BORIS = "anna@example.org", "boris@example.org"


@pytest.fixture(autouse=True)
def rule(database: Settings, clock: Clock) -> None:
    """More than two recipients need a second person."""
    with db.write():
        approvals.set_above(2, "admin@example.org")


def draft(people: int = 3, **columns: object) -> Broadcast:
    made = make.broadcast(changed_by=ANNA, created_by=ANNA, **columns)
    make.messages(make.file(made, accepted=people), *["queued"] * people)
    return made


def fresh(broadcast: Broadcast) -> Broadcast:
    return Broadcast.get_by_id(broadcast.id)


def refused(broadcast: Broadcast, settings: Settings, actor: str = ANNA) -> str:
    with pytest.raises(Invalid) as caught:
        broadcasts.start(settings, fresh(broadcast), actor)
    return next(iter(caught.value.problems.values())).code


def test_without_the_rule_nobody_is_asked(database: Settings) -> None:
    with db.write():
        approvals.set_above(None, "admin@example.org")
    assert broadcasts.start(database, draft(), ANNA).state == "running"


def test_up_to_the_number_nobody_is_asked(database: Settings) -> None:
    assert broadcasts.start(database, draft(2), ANNA).state == "running"


def test_above_it_the_start_is_refused_until_another_has_approved(database: Settings) -> None:
    made = draft()
    assert refused(made, database) == "approval_needed"
    assert fresh(made).state == "draft"
    assert approvals.approve(fresh(made), BORIS)
    assert broadcasts.start(database, fresh(made), ANNA).state == "running"
    assert [a.actor for a in Audit.select().where(Audit.action == "broadcast.approve")] == [BORIS]


def test_whoever_changed_it_last_cannot_approve(database: Settings) -> None:
    made = draft()
    with pytest.raises(Invalid):
        approvals.approve(fresh(made), ANNA)
    broadcasts.update(database, fresh(made), {"text": "Other"}, BORIS)
    with pytest.raises(Invalid):
        approvals.approve(fresh(made), BORIS)
    assert approvals.approve(fresh(made), ANNA)


def test_a_change_of_the_content_withdraws_the_approval(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    broadcasts.update(database, fresh(made), {"text": "Other"}, ANNA)
    assert fresh(made).approved_by is None
    assert refused(made, database) == "approval_needed"


def test_name_and_rate_leave_it(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    broadcasts.update(database, fresh(made), {"name": "Other", "rate_per_minute": 7}, ANNA)
    assert broadcasts.start(database, fresh(made), ANNA).state == "running"


def upload(broadcast: Broadcast, settings: Settings, actor: str) -> RecipientFile:
    return recipients.receive(broadcast, io.BytesIO(b"phone\n+79010000001"), "a.csv", settings.uploads, {}, actor)


def test_a_file_withdraws_it_whoever_brings_or_removes_it(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    file = upload(made, database, ANNA)
    assert (fresh(made).approved_by, fresh(made).changed_by) == (None, ANNA)
    approvals.approve(fresh(made), BORIS)
    recipients.recheck(file, {"encoding": "utf-8"}, ANNA)
    assert fresh(made).approved_by is None
    approvals.approve(fresh(made), BORIS)
    recipients.remove(RecipientFile.get_by_id(file.id), "remove", ANNA)
    assert fresh(made).approved_by is None


def test_a_file_for_a_running_one_stops_it(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    running = broadcasts.start(database, fresh(made), ANNA)
    file = upload(running, database, ANNA)
    assert (fresh(made).state, fresh(made).stop_reason) == ("stopped", "approval")
    RecipientFile.update(state="ready").where(RecipientFile.id == file.id).execute()
    with pytest.raises(Invalid, match="approval"):
        broadcasts.resume(fresh(made), ANNA)
    approvals.approve(fresh(made), BORIS)
    assert broadcasts.resume(fresh(made), ANNA).state == "running"


def test_a_file_that_is_still_checked_cannot_slip_through_with_a_resume(database: Settings) -> None:
    made = draft(1)
    running = broadcasts.start(database, fresh(made), ANNA)
    upload(running, database, ANNA)
    with pytest.raises(Invalid) as caught:
        broadcasts.resume(fresh(made), ANNA)
    assert "file_checking" in caught.value.problems


def test_stop_and_resume_keep_the_approval(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    broadcasts.start(database, fresh(made), ANNA)
    broadcasts.stop(fresh(made), ANNA)
    assert broadcasts.resume(fresh(made), ANNA).state == "running"


def test_a_restart_wants_an_approval_of_its_own(database: Settings) -> None:
    made = draft()
    approvals.approve(fresh(made), BORIS)
    broadcasts.start(database, fresh(made), ANNA)
    Broadcast.update(state="finished").where(Broadcast.id == made.id).execute()
    with pytest.raises(Invalid, match="approval"):
        broadcasts.restart(fresh(made), "everyone", ANNA)
    approvals.approve(fresh(made), BORIS)
    assert broadcasts.restart(fresh(made), "everyone", ANNA).state == "running"


def test_what_was_changed_after_the_look_is_not_approved(database: Settings, clock: Clock) -> None:
    made = draft()
    seen = fresh(made)
    clock.tick(seconds=1)
    broadcasts.update(database, fresh(made), {"text": "Other"}, ANNA)
    assert not approvals.approve(fresh(made), BORIS, seen.updated_at)
    assert not approvals.approve(seen, BORIS)
    assert fresh(made).approved_by is None


def test_a_running_one_is_not_approved(database: Settings) -> None:
    made = draft(2)
    broadcasts.start(database, made, ANNA)
    assert not approvals.approve(fresh(made), BORIS)


def test_a_scheduled_one_that_lost_its_approval_does_not_start(database: Settings, clock: Clock) -> None:
    made = draft(send_at=clock.now() + 60_000)
    approvals.approve(fresh(made), BORIS)
    assert broadcasts.start(database, fresh(made), ANNA).state == "scheduled"
    upload(made, database, ANNA)
    clock.tick(minutes=2)
    assert broadcasts.start_due() == []
    assert (fresh(made).state, fresh(made).stop_reason) == ("stopped", "approval")
