"""Four eyes: above so many recipients a second person approves a run before it starts.

Whoever last changed the content or the files cannot approve them, and a change withdraws the approval. An approval
is for one run: a restart wants its own.
"""

from __future__ import annotations

from worker import audit, clock, db, installation
from worker.models import Broadcast
from worker.problems import Invalid, Problem

_SETTING = "approval_above"


def above() -> int | None:
    """How many recipients need no second person; None: the rule is off."""
    limit: int | None = installation.fact(_SETTING)
    return limit


def set_above(n: int | None, actor: str) -> None:
    """Change the rule, inside the caller's transaction."""
    installation.keep(_SETTING, n)
    audit.record(actor, "settings.approval", above=n)


def run_ahead(broadcast: Broadcast) -> int:
    """The run that Start, Resume or Restart would send."""
    return int(broadcast.run) + (1 if broadcast.state == "finished" else 0)


def is_missing(broadcast: Broadcast, people: int, run: int | None = None) -> bool:
    """Whether a run (None: the one ahead) to so many people waits for a second person."""
    limit = above()
    wanted = run_ahead(broadcast) if run is None else run
    return limit is not None and people > limit and broadcast.approved_run != wanted


def require(broadcast: Broadcast, people: int, run: int | None = None) -> None:
    """Raise Invalid with approval_needed, inside the transaction that starts the run."""
    if is_missing(broadcast, people, run):
        raise Invalid({"approval": Problem("approval_needed", {"n": people, "max": above()})})


def may_approve(broadcast: Broadcast, actor: str) -> bool:
    """Whether this is somebody else than whoever last changed it: a token counts as the person who made it."""
    return _behind(broadcast.changed_by).isdisjoint(_behind(actor))


def _behind(actor: str) -> set[str]:
    """The people who may act under a name of the audit log; a token that nobody of us made stands for itself."""
    if not actor.startswith("token "):
        return {actor}
    sql = "SELECT u.email FROM api_token t JOIN user_account u ON u.id = t.user_id WHERE t.name = ?"
    return {actor, *(email for (email,) in db.rows(sql, [actor.removeprefix("token ")]))}


def approve(broadcast: Broadcast, actor: str, seen: int | None = None) -> bool:
    """Let the run ahead start; False when it changed since `seen` (its updated_at) or runs already. Raises Invalid."""
    if not may_approve(broadcast, actor):
        raise Invalid({"approval": Problem("approval_own")})
    with db.write():
        same = (
            (Broadcast.id == broadcast.id)
            & (Broadcast.updated_at == (broadcast.updated_at if seen is None else seen))
            & (Broadcast.changed_by == broadcast.changed_by)
            & Broadcast.state.in_(["draft", "scheduled", "stopped", "finished"])
        )
        facts = {"approved_by": actor, "approved_at": clock.now(), "approved_run": run_ahead(broadcast)}
        if not Broadcast.update(**facts).where(same).execute():
            return False
        audit.record(actor, "broadcast.approve", str(broadcast.id), run=facts["approved_run"])
    return True


def withdraw(broadcast_id: int, actor: str) -> None:
    """Note who changed the content or the files, inside the caller's transaction; an approval is void."""
    Broadcast.update(
        changed_by=actor, approved_by=None, approved_at=None, approved_run=None, updated_at=clock.now()
    ).where(Broadcast.id == broadcast_id).execute()
