"""The two tables, walked whole."""

from __future__ import annotations

import itertools

from worker import states


def test_every_state_is_known() -> None:
    for step in states.BROADCAST.values():
        assert step.source | {step.target} <= set(states.BROADCAST_STATES)
    for step in states.MESSAGE.values():
        assert step.source | {step.target} <= set(states.MESSAGE_STATUSES)


def test_nothing_comes_back_into_the_queue_but_by_postpone_or_a_person() -> None:
    assert {a for a, step in states.MESSAGE.items() if step.target == "queued"} == {"postpone", "resend", "restore"}


def test_delivery_never_moves_down() -> None:
    rank = {"sent": 1, "delivered": 2, "read": 3}
    for action, status in itertools.product(("accept", "deliver", "read"), rank):
        target = states.move(action, status)
        assert target is None or rank[target] > rank[status]
    assert states.move("bounce", "delivered") is None
    assert states.move("bounce", "read") is None


def test_the_buttons_of_each_state() -> None:
    assert states.allowed("draft") == ["start", "schedule"]
    assert states.allowed("running") == ["stop", "clear"]
    assert states.allowed("stopped") == ["schedule", "resume", "clear"]
    assert states.allowed("finished") == ["restart"]
    assert states.allowed("scheduled") == ["start", "clear"]
