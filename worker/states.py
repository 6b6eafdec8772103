"""The two state tables of the product, as data. Buttons, answers, tests and documents derive from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from worker import clock


class Step(NamedTuple):
    """One action: the states it may begin from and the state it ends in."""

    source: frozenset[str]
    target: str


def _step(source: str, target: str) -> Step:
    return Step(frozenset(source.split()), target)


BROADCAST_STATES = ("draft", "scheduled", "running", "stopped", "finished")

BROADCAST: dict[str, Step] = {
    "schedule": _step("draft stopped", "scheduled"),
    "start": _step("draft scheduled", "running"),
    "stop": _step("running", "stopped"),
    "resume": _step("stopped", "running"),
    "clear": _step("scheduled running stopped", "draft"),
    "restart": _step("finished", "running"),
    "finish": _step("running", "finished"),
    "miss": _step("scheduled", "stopped"),
    # The data came back from a backup: what was sent since then is not in it. A stopped one gets the reason too.
    "restore": _step("scheduled running stopped", "stopped"),
    # A person put an uncertain message back into the queue of a finished broadcast.
    "reopen": _step("finished", "running"),
    # A Clear taken back at once: what was queued waits for a person.
    "undo": _step("draft", "stopped"),
}

# What a person may press; the other actions happen by themselves.
BROADCAST_BUTTONS = ("start", "schedule", "stop", "resume", "clear", "restart")

MESSAGE_STATUSES = (
    "queued",
    "sending",
    "sent",
    "held",
    "delivered",
    "read",
    "undelivered",
    "failed",
    "uncertain",
    "skipped",
    "cancelled",
)

MESSAGE: dict[str, Step] = {
    "claim": _step("queued", "sending"),
    "accept": _step("sending uncertain held", "sent"),
    "hold": _step("sending sent", "held"),
    "postpone": _step("sending", "queued"),
    "reject": _step("sending", "failed"),
    "lose": _step("sending", "uncertain"),
    "deliver": _step("sending sent held uncertain undelivered", "delivered"),
    "read": _step("sending sent held uncertain undelivered delivered", "read"),
    "bounce": _step("sending sent held uncertain", "undelivered"),
    "resend": _step("uncertain", "queued"),
    "skip": _step("queued", "skipped"),
    "cancel": _step("queued", "cancelled"),
    "restore": _step("cancelled", "queued"),  # a deletion or a Clear was taken back at once
}

# Statuses in which a message is not yet out of the queue.
PENDING = ("queued", "sending")
REPORT_LIFE = 72 * clock.HOUR  # how long a delivery report is waited for
# Statuses that the provider has taken over: what "already sent" means in a dialog.
TAKEN = ("sent", "held", "delivered", "read", "undelivered", "uncertain", "sending")
# Of these, what a person has got as far as anybody knows.
GOT = tuple(status for status in TAKEN if status != "undelivered")


def allowed(state: str) -> list[str]:
    """The actions a person may take on a broadcast in this state, in the order of the buttons."""
    return [action for action in BROADCAST_BUTTONS if state in BROADCAST[action].source]


def move(action: str, status: str) -> str | None:
    """The status a message gets by `action`, or None when the action changes nothing from `status`."""
    step = MESSAGE[action]
    return step.target if status in step.source else None


def sql_list(values: Iterable[str]) -> str:
    """A quoted SQL list of our own constants (never of user input)."""
    return "(" + ",".join(f"'{value}'" for value in sorted(values)) + ")"
