"""The buttons of a broadcast: which stand there, why the others do not, and what pressing one does."""

from __future__ import annotations

from typing import NamedTuple

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l

from worker import broadcasts, canary, tasks
from worker.models import Broadcast
from worker.settings import Settings
from worker.states import allowed


class Control(NamedTuple):
    """One thing a person may do to a broadcast. `asks`: a question with its numbers comes first."""

    action: str
    label: LazyString
    icon: str
    kind: str = ""
    asks: bool = True


CONTROLS = (
    Control("start", _l("Start"), "play", "primary"),
    Control("stop", _l("Stop"), "stop", "primary", asks=False),  # it loses nothing, and seconds count
    Control("resume", _l("Resume"), "play", "primary"),
    Control("clear", _l("Clear"), "trash", "danger"),
    Control("restart", _l("Restart"), "refresh"),
)
BY_ACTION = {control.action: control for control in CONTROLS}
MISSING: dict[str, LazyString] = {
    "stop": _l("Only a running broadcast can be stopped"),
    "resume": _l("Only a stopped broadcast can be resumed"),
    "clear": _l("A scheduled, running or stopped broadcast can be cleared"),
    "restart": _l("Only a finished broadcast can be restarted"),
}


def possible(broadcast: Broadcast) -> list[Control]:
    """The buttons that stand there now."""
    actions = set(allowed(broadcast.state))
    if broadcasts.lies_ahead(broadcast) and "schedule" in actions:
        actions.add("start")  # Start with a time ahead means: at that time
    return [control for control in CONTROLS if control.action in actions]


def missing(broadcast: Broadcast) -> list[LazyString]:
    """Why the other buttons are not there."""
    there = {control.action for control in possible(broadcast)}
    return [text for action, text in MISSING.items() if action not in there]


SEND_AGAIN_FREELY = 100


def is_large(broadcast: Broadcast, who: str, cause: str | None = None) -> bool:
    """Whether sending again to these is a thing to confirm."""
    if broadcast.state != "finished":
        return False
    return broadcasts.restart_numbers(broadcast, cause).get(who, 0) > SEND_AGAIN_FREELY


def press(
    settings: Settings,
    broadcast: Broadcast,
    action: str,
    actor: str,
    who: str = "everyone",
    first: int | None = None,
    pick: str = canary.FIRST,
    cause: str | None = None,
) -> Broadcast:
    """Do it, and wake the worker. `who` and `cause`: of a restart; `first` and `pick`: the canary of a start.

    Raises Invalid and NotAllowed of worker.broadcasts.
    """
    if action == "start":
        changed = broadcasts.start(settings, broadcast, actor, first, pick)
    elif action == "restart":
        changed = broadcasts.restart(broadcast, who, actor, cause)
        tasks.copy_run(changed.id)
    else:
        deed = {"stop": broadcasts.stop, "resume": broadcasts.resume, "clear": broadcasts.clear}[action]
        changed = deed(broadcast, actor)
    tasks.wake(changed.id)
    return changed
