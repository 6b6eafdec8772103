"""Taking back the deletion of a file, or a Clear, for as long as the page offers it.

Both take effect at once. What they took out of the queue goes back as it was, row by row; a list of which nobody
has left yet is read anew from the uploaded file, which stays for that long. While its rows go back, a file
stands as RESTORING, which nothing sends and nothing sweeps: should the process die, the worker goes on from there.
"""

from __future__ import annotations

import json

from worker import audit, broadcasts, clock, counters, db, hashes, recipients
from worker.models import Broadcast, RecipientFile, Run
from worker.states import MESSAGE

OFFERED = 10 * clock.SECOND  # how long a page shows it
TAKEN = OFFERED + 5 * clock.SECOND  # a click of the last moment, over a slow line, still counts
KEPT = 60 * clock.SECOND  # how long the uploaded file of a removed list stays
RESTORING = "restore"
STEP = 1_000
CLEARED = "cleared"  # why a broadcast stands still whose Clear was taken back

# Line after line, or a long list would be gone through again for every step.
_NEXT = (
    "SELECT id, line FROM message WHERE file_id = ? AND run = ? AND line > ? AND status = 'cancelled'"
    " AND phone NOT LIKE ? ORDER BY line LIMIT ?"
)
_BACK = (
    "UPDATE message SET status = ?, not_before = CASE WHEN cause IS NULL THEN 0 ELSE not_before END"
    " WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
)


def offered(broadcast: Broadcast) -> list[RecipientFile]:
    """The files whose deletion can be taken back now, as a page offers it."""
    found = _removed(broadcast.id, ("keep", "remove"), OFFERED)
    return [file for file in found if _is_free(file)]


def clear_offered(broadcast: Broadcast) -> list[RecipientFile]:
    """The files that a Clear has just removed, when it can be taken back; none otherwise."""
    return _cleared(broadcast, OFFERED)


def file(row: RecipientFile, actor: str) -> bool:
    """Take back the deletion of a file; False when it is too late, or something else has come of it.

    A file whose state is `checking` afterwards has to be read: `tasks.read_file`.
    """
    with db.write():
        fresh = RecipientFile.get_by_id(row.id)
        removed = _removed(fresh.broadcast_id, ("keep", "remove"), TAKEN)
        if fresh not in removed or not _is_free(fresh):
            return False
        how = fresh.removed_how
        queued = how == "remove" and _goes_back_by_rows(fresh)
        columns = {"removed_how": RESTORING} if queued else {"removed_at": None, "removed_how": None}
        RecipientFile.update(**columns).where(RecipientFile.id == fresh.id).execute()
        broadcasts.people_changed(fresh.broadcast_id, actor)
        audit.record(actor, "file.restore", str(fresh.id))
        if not queued and (how == "remove" or fresh.state != "ready"):
            recipients.recheck(RecipientFile.get_by_id(fresh.id))
    if queued:
        _put_back(fresh)
    return True


def clear(broadcast: Broadcast, actor: str) -> Broadcast:
    """Take back a Clear: the broadcast stands still, and what was queued waits for Resume. Raises NotAllowed."""
    with db.write():
        found = _cleared(broadcast, TAKEN)
        stopped = {"stop_reason": CLEARED, "stop_detail": {"by": actor}, "stopped_at": clock.now()}
        if not found or not broadcasts.advance(broadcast.id, "undo", **stopped):
            raise broadcasts.NotAllowed("undo", Broadcast.get_by_id(broadcast.id))
        RecipientFile.update(removed_how=RESTORING).where(RecipientFile.id.in_([row.id for row in found])).execute()
        audit.record(actor, "broadcast.undo", str(broadcast.id))
    for row in found:
        _put_back(row)
    return Broadcast.get_by_id(broadcast.id)


def go_on() -> None:
    """Finish what a process left half restored when it died."""
    for row in RecipientFile.select().where(RecipientFile.removed_how == RESTORING).limit(100):
        _put_back(row)


def _removed(broadcast_id: int, hows: tuple[str, ...], within: int) -> list[RecipientFile]:
    return list(
        RecipientFile.select()
        .where(
            (RecipientFile.broadcast == broadcast_id)
            & (RecipientFile.removed_at > clock.now() - within)
            & RecipientFile.removed_how.in_(hows)
        )
        .order_by(RecipientFile.id)
    )


def _cleared(broadcast: Broadcast, within: int) -> list[RecipientFile]:
    fresh = Broadcast.get_by_id(broadcast.id)
    found = _removed(broadcast.id, ("clear",), within) if fresh.state == "draft" else []
    return found if all(_is_free(row) for row in found) else []


def _is_free(row: RecipientFile) -> bool:
    """Whether nothing has come of the removal: no run begun and no list added, in which its people may stand."""
    since = row.removed_at or 0
    begun = Run.select().where((Run.broadcast == row.broadcast_id) & (Run.started_at >= since))
    newer = RecipientFile.select().where(
        (RecipientFile.broadcast == row.broadcast_id)
        & (RecipientFile.id != row.id)
        & (RecipientFile.created_at >= since)
    )
    return not begun.exists() and not newer.exists()


def _goes_back_by_rows(row: RecipientFile) -> bool:
    return bool(row.state == "ready" and recipients.has_begun(row))


def _put_back(row: RecipientFile) -> None:
    """cancelled → queued for what the removal took out, in short transactions; then the file stands as before it."""
    run = Broadcast.get_by_id(row.broadcast_id).run
    key = (row.broadcast_id, run, row.id)
    found = [(0, 0)]
    while found:
        with db.write():
            # Whoever was forgotten at their own wish stays so.
            found = db.rows(_NEXT, [row.id, run, found[-1][1], f"{hashes.MARK}%", STEP])
            db.execute(_BACK, [MESSAGE["restore"].target, json.dumps([id_ for id_, _line in found])])
            counters.add({(*key, "cancelled"): -len(found), (*key, "queued"): len(found)})
    with db.write():
        # A list that had been deleted before a Clear, its people staying in the queue, has no uploaded file any more.
        db.execute(
            "UPDATE recipient_file SET removed_at = CASE WHEN path = '' THEN removed_at END,"
            " removed_how = CASE WHEN path = '' THEN 'keep' END WHERE id = ? AND removed_how = ?",
            [row.id, RESTORING],
        )
        if broadcasts.count(Broadcast(id=row.broadcast_id), run)["queued"]:
            broadcasts.advance(row.broadcast_id, "reopen")  # it ended while its list was away
