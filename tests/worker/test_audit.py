"""The log is only appended to, keeps a year, and never holds a whole number."""

from __future__ import annotations

import peewee
import pytest

from tests.conftest import Clock
from worker import audit, clock, db
from worker.models import Audit
from worker.settings import Settings

YEAR = 365 * 24 * clock.HOUR


def line(action: str = "test", **columns: object) -> Audit:
    return Audit.create(**{"at": clock.now(), "actor": "anna@example.org", "action": action, **columns})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        pytest.param(
            "REPLACE INTO audit (id, at, actor, action, subject, address, via) VALUES (1, 0, 'x', 'x', '', '', '')",
            marks=pytest.mark.sqlite,
        ),
    ],
)
def test_the_database_itself_refuses_to_change_a_line(database: Settings, statement: str) -> None:
    line()
    with pytest.raises(peewee.IntegrityError), db.write():
        db.execute(statement)
    assert [a.actor for a in Audit.select()] == ["anna@example.org"]


def test_what_is_older_than_a_year_may_go(database: Settings) -> None:
    line(at=clock.now() - YEAR - clock.HOUR)
    line(at=clock.now() - YEAR + clock.HOUR)
    with pytest.raises(peewee.IntegrityError), db.write():
        db.execute("DELETE FROM audit")
    with db.write():
        assert db.execute("DELETE FROM audit WHERE at < ?", [clock.now() - YEAR]).rowcount == 1


def test_no_whole_number_comes_in(database: Settings) -> None:
    with db.write():
        audit.record("anna", "test", "+79001234567", text="call 89001234567", deep={"to": ["+79001234567"]})
    stored = str(db.rows("SELECT * FROM audit"))
    assert "9001234567" not in stored and stored.count("+7900•••••67") == 2


def test_where_an_act_came_from_stands_with_it(database: Settings) -> None:
    token = audit.origin.set(audit.Origin("203.0.113.5", "session 7"))
    with db.write():
        audit.record("anna", "test")
    audit.origin.reset(token)
    with db.write():
        audit.record("schedule", "test")
    assert [(a.address, a.via) for a in Audit.select().order_by(Audit.id)] == [("203.0.113.5", "session 7"), ("", "")]


def test_lines_are_found_by_person_action_and_time(database: Settings, clock: Clock) -> None:
    begin = clock.now()
    for n, (actor, action) in enumerate([("anna", "user.role"), ("boris", "user.off"), ("anna", "broadcast.start")]):
        line(action, actor=actor, at=begin + n)
    assert [a.action for a in audit.lines(audit.Filter(actor="anna"))] == ["broadcast.start", "user.role"]
    assert [a.action for a in audit.lines(audit.Filter(action="user."))] == ["user.off", "user.role"]
    assert [a.action for a in audit.lines(audit.Filter(since=begin + 1, until=begin + 2))] == ["user.off"]
    assert audit.actors() == ["anna", "boris"]


def test_pages_follow_each_other(database: Settings) -> None:
    for n in range(25):
        line(f"a{n}")
    first = audit.lines(audit.Filter(), limit=10)
    second = audit.lines(audit.Filter(), audit.cursor(first[-1]), 10)
    assert [a.action for a in first + second] == [f"a{n}" for n in range(24, 4, -1)]
    assert len(list(audit.every(audit.Filter()))) == 25
    assert [a.action for a in audit.every(audit.Filter(action="a1"))][-1] == "a1"
    for wrong in ("x", "1", "1.x", "-1.2", "9" * 30 + ".1"):
        with pytest.raises(ValueError, match="after"):
            audit.lines(audit.Filter(), wrong)
