"""What is removed after its time, in short transactions beside the sending. Every timer is off until a person sets it.

Totals stay: counters, times and statuses of messages are never touched.
"""

from __future__ import annotations

import json
import logging
from collections import Counter as Numbers
from collections.abc import Callable, Iterator
from pathlib import Path

from worker import audit, clock, db, hashes, installation, undo
from worker import files as kept_files
from worker.models import Broadcast, Conversation, RecipientFile, Removal
from worker.settings import Settings

log = logging.getLogger("molva.worker")

# Timer → the fewest days that it may be set to. A year of the audit log is kept by the database itself.
TIMERS = {"texts": 1, "files": 1, "callbacks": 1, "numbers": 1, "inbox": 1, "audit": 366}
OFFERED = {"texts": 90, "files": 7, "callbacks": 7, "numbers": 180, "inbox": 365, "audit": 730}
CALLBACK_DAYS = 7  # raw callbacks go even when nobody has set the timer
DAYS_MAX = 3650
STEP = 500
PAUSE = 0.005  # seconds between two steps, in which whoever sends gets the write lock
_SETTING, _VACUUM = "retention", "vacuum_wanted"

Removed = dict[str, int]
Going = Callable[[], bool]


def days() -> dict[str, int | None]:
    """The timers in days; None: off."""
    chosen: dict[str, int | None] = installation.fact(_SETTING, {})
    return dict.fromkeys(TIMERS) | chosen


def set_days(chosen: dict[str, int | None], actor: str) -> None:
    """Set the timers. Raises ValueError with the name of one that is out of range."""
    for name, value in chosen.items():
        if name not in TIMERS or (value is not None and not TIMERS[name] <= value <= DAYS_MAX):
            raise ValueError(name)
    with db.write():
        installation.keep(_SETTING, days() | chosen)
        audit.record(actor, "settings.retention", "", **chosen)


def callback_days() -> int:
    """How long raw callbacks are kept."""
    return days()["callbacks"] or CALLBACK_DAYS


def run(settings: Settings, going: Going = lambda: True) -> Removed:
    """One round of all timers; how many of what were removed. Ends early when `going` says so."""
    removed: Numbers[str] = Numbers()
    for timer, limit in _limits().items():
        if timer in _ROUNDS:
            for found in _ROUNDS[timer](settings, limit):
                removed.update(found)
                if not going():
                    break
                clock.sleep(PAUSE)
    report = {name: n for name, n in removed.items() if n}
    if report:
        with db.write():
            Removal.create(at=clock.now(), kind="timer", actor="timer", body=report)
            want_vacuum()
        log.info("removed after their time: %s", ", ".join(f"{name} {n}" for name, n in sorted(report.items())))
    return report


def _limits() -> dict[str, int]:
    """The moment (ms) before which each timer that is on removes."""
    return {name: clock.now() - value * clock.DAY for name, value in days().items() if value}


# --- texts and numbers of broadcasts ------------------------------------------------------------------


def _ended(before: int, mark: str) -> list[Broadcast]:
    """Broadcasts that ended before that moment, have nothing left to send, and do not carry the mark."""
    # A draft that was cleared after it had sent is at its end as well.
    found = (
        Broadcast.select()
        .where(
            (Broadcast.kind == "list")
            & Broadcast.state.in_(["finished", "draft", "stopped"])
            & (Broadcast.last_sent_at < before)
            & (Broadcast.updated_at < before)
            & getattr(Broadcast, mark).is_null()
        )
        .order_by(Broadcast.id)
        .limit(100)
    )
    moving = "SELECT 1 FROM counter WHERE broadcast_id = ? AND status IN ('queued', 'sending') AND n > 0"
    return [one for one in found if not db.value(moving, [one.id])]


def _texts(settings: Settings, before: int) -> Iterator[Removed]:
    for broadcast in _ended(before, "texts_gone_at"):
        yield from _texts_of(broadcast)


def _numbers(settings: Settings, before: int) -> Iterator[Removed]:
    for broadcast in _ended(before, "numbers_gone_at"):
        if broadcast.texts_gone_at is None:  # the rows hold the numbers too
            yield from _texts_of(broadcast)
        for ids in _messages(broadcast):
            with db.write():
                n = hide_numbers(settings, ids)
            yield {"numbers": n}
        with db.write():
            Broadcast.update(numbers_gone_at=clock.now()).where(Broadcast.id == broadcast.id).execute()


def _texts_of(broadcast: Broadcast) -> Iterator[Removed]:
    for ids in _messages(broadcast):
        with db.write():
            n = forget_texts(ids)
        yield {"rows": n}
    yield from _forget_rejected(broadcast)
    with db.write():
        RecipientFile.update(sample=[], repairs={}).where(RecipientFile.broadcast == broadcast.id).execute()
        # The time of the last change stays: the timer of the numbers counts from it.
        gone = Broadcast.update(text=None, variables={}, texts_gone_at=clock.now())
        gone.where(Broadcast.id == broadcast.id).execute()
    yield {"texts": 1}


def _messages(broadcast: Broadcast) -> Iterator[list[int]]:
    """The ids of all messages of a broadcast, some at a time, in the order of its files."""
    segments = "SELECT DISTINCT run, file_id FROM counter WHERE broadcast_id = ? ORDER BY run, file_id"
    for run, file_id in db.rows(segments, [broadcast.id]):
        line = -1
        while found := db.rows(
            "SELECT id, line FROM message WHERE file_id = ? AND run = ? AND line > ? ORDER BY line LIMIT ?",
            [file_id, run, line, STEP],
        ):
            yield [row[0] for row in found]
            line = found[-1][1]


# Statements about some messages, whose ids come as a JSON list.
_GIVEN = "(SELECT CAST(value AS BIGINT) FROM json_each(?))"
_FORGET_ROWS = f"UPDATE message SET row = NULL WHERE id IN {_GIVEN} AND row IS NOT NULL"  # noqa: S608
_FORGET_WORDS = (
    f"UPDATE message SET cause_text = NULL WHERE id IN {_GIVEN} AND cause_text IS NOT NULL",  # noqa: S608
    f"UPDATE attempt SET detail = NULL WHERE message_id IN {_GIVEN} AND detail IS NOT NULL",  # noqa: S608
    f"UPDATE delivery_report SET detail = NULL WHERE message_id IN {_GIVEN}",  # noqa: S608
)
_NUMBERS_OF = f"SELECT id, phone FROM message WHERE id IN {_GIVEN} AND phone NOT LIKE '#%'"  # noqa: S608
_FORGET_NAMES = (
    f"UPDATE delivery_report SET provider_id = NULL, also = NULL WHERE message_id IN {_GIVEN}",  # noqa: S608
    f"DELETE FROM part WHERE message_id IN {_GIVEN}",  # noqa: S608
)


def forget_texts(ids: list[int]) -> int:
    """Rows and the vendor's words of these messages, inside the caller's transaction; how many rows there were."""
    given = [json.dumps(ids)]
    n = db.execute(_FORGET_ROWS, given).rowcount
    for statement in _FORGET_WORDS:
        db.execute(statement, given)
    return int(n)


def hide_numbers(settings: Settings, ids: list[int]) -> int:
    """Hashes in the place of the numbers of these messages, inside the caller's transaction; how many there were.

    The provider's ids go with them: those of WhatsApp hold the number.
    """
    given = [json.dumps(ids)]
    found = db.rows(_NUMBERS_OF, given)
    hidden = hashes.of(settings, [phone for _id, phone in found])
    db.many(
        "UPDATE message SET phone = ?, provider_id = NULL WHERE id = ?",
        [(phone, row[0]) for phone, row in zip(hidden, found, strict=True)],
    )
    for statement in _FORGET_NAMES:
        db.execute(statement, given)
    return len(found)


def _forget_rejected(broadcast: Broadcast) -> Iterator[Removed]:
    for (file_id,) in db.rows("SELECT id FROM recipient_file WHERE broadcast_id = ?", [broadcast.id]):
        sql = "DELETE FROM rejected_row WHERE id IN (SELECT id FROM rejected_row WHERE file_id = ? LIMIT ?)"
        for n in db.in_steps(sql, [file_id], STEP):
            yield {"rejected_rows": n}


def forget_removed(settings: Settings, before: int) -> None:
    """Drop the uploaded files of lists that a person removed before that moment (ms)."""
    for file_id, path in db.rows(
        "SELECT id, path FROM recipient_file WHERE removed_at < ? AND path <> '' AND removed_how <> ? LIMIT 1000",
        [before, undo.RESTORING],
    ):
        forget_file(settings.uploads, file_id, path)


class Strays:
    """Files that no row speaks of, because a process died between the two. Told apart from those whose row is about
    to be written by being looked at twice, an hour or so between."""

    _OWNERS = {"uploads": "recipient_file", "media": "attachment"}

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: set[Path] = set()

    def forget(self) -> int:
        """Drop those that were strays at the last look as well; how many."""
        found = {path for folder in kept_files.FOLDERS for path in self._of(folder)}
        gone = found & self._seen
        for path in gone:
            kept_files.drop(path)
        self._seen = found - gone
        return len(gone)

    def _of(self, folder: str) -> Iterator[Path]:
        here = self._settings.data / folder
        names = kept_files.names(here)
        for at in range(0, len(names), STEP):
            part = names[at : at + STEP]
            marks = ",".join("?" * len(part))
            sql = f"SELECT path FROM {self._OWNERS[folder]} WHERE path IN ({marks})"  # noqa: S608
            known = {path for (path,) in db.rows(sql, part)}
            yield from (here / name for name in part if name not in known)


# --- files, the inbox, the log ------------------------------------------------------------------------


def _files(settings: Settings, before: int) -> Iterator[Removed]:
    """Uploaded files; their messages stand in the database. A draft keeps its own: they may be read anew."""
    old = (
        RecipientFile.select(RecipientFile.id, RecipientFile.path)
        .join(Broadcast)
        .where(
            (RecipientFile.path != "")
            & (RecipientFile.state != "checking")
            & (RecipientFile.checked_at < before)
            & (Broadcast.state != "draft")
        )
        .limit(1_000)
    )
    found = list(old)
    for file in found:
        forget_file(settings.uploads, file.id, file.path)
    yield {"files": len(found)}


def forget_file(uploads: Path, file_id: int, path: str) -> None:
    """Remove one uploaded file from the disk."""
    with db.write():
        RecipientFile.update(path="").where(RecipientFile.id == file_id).execute()
    kept_files.drop(uploads / path)


def _inbox(settings: Settings, before: int) -> Iterator[Removed]:
    """Conversations in which nobody has written since."""
    old = Conversation.select(Conversation.id, Conversation.phone).where(Conversation.last_at < before)
    for conversation in list(old.order_by(Conversation.id).limit(1_000)):
        yield forget_inbox(settings, conversation.phone, before)


def forget_inbox(settings: Settings, phone: str, before: int) -> Removed:
    """What one person wrote and was answered before a moment (ms); how many of what."""
    removed: Removed = {}
    with db.write():
        hidden = hashes.of(settings, [phone])[0]
        attached = (
            "SELECT a.id, a.path FROM attachment a JOIN inbound i ON i.id = a.inbound_id WHERE i.phone = ? AND i.at < ?"
        )
        files = db.rows(attached, [phone, before])
        db.many("DELETE FROM attachment WHERE id = ?", [(row[0],) for row in files])
        removed["replies"] = db.execute(
            "UPDATE inbound SET phone = ?, name = NULL, text = NULL, context = NULL, conversation_id = NULL,"
            " provider_id = '#' || id WHERE phone = ? AND at < ?",
            [hidden, phone, before],
        ).rowcount
        db.execute("DELETE FROM inbound_part WHERE phone = ? AND at < ?", [phone, before])
        answers = db.rows("SELECT message_id FROM direct WHERE phone = ? AND at < ?", [phone, before])
        removed["answers"] = db.execute(
            "UPDATE direct SET phone = ?, conversation_id = NULL WHERE phone = ? AND at < ?", [hidden, phone, before]
        ).rowcount
        ids = [row[0] for row in answers if row[0] is not None]
        forget_texts(ids)
        hide_numbers(settings, ids)
        removed["conversations"] = db.execute(
            "DELETE FROM conversation WHERE phone = ? AND last_at < ?", [phone, before]
        ).rowcount
    for _id, path in files:
        if path:
            kept_files.drop(settings.media / path)
    return {**removed, "attachments": len(files)}


def _audit(settings: Settings, before: int) -> Iterator[Removed]:
    sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ? ORDER BY id LIMIT ?)"
    for n in db.in_steps(sql, [before], STEP):
        yield {"audit_lines": n}


_ROUNDS: dict[str, Callable[[Settings, int], Iterator[Removed]]] = {
    "texts": _texts,
    "files": _files,
    "numbers": _numbers,
    "inbox": _inbox,
    "audit": _audit,
}


# --- free pages ---------------------------------------------------------------------------------------


def want_vacuum() -> None:
    """Have the freed pages of the database wiped when nothing is being sent, inside the caller's transaction."""
    installation.keep(_VACUUM, True)


def vacuum_waits() -> bool:
    return bool(installation.fact(_VACUUM))


def vacuum() -> bool:
    """Wipe the freed pages; False while there is nothing to wipe or a broadcast runs, which would have to wait."""
    if (
        not vacuum_waits()
        or Broadcast.select().where((Broadcast.state == "running") & (Broadcast.kind == "list")).exists()
    ):
        return False
    with db.write():
        installation.forget(_VACUUM)
    db.wipe()
    return True


def removals(limit: int = 20) -> list[Removal]:
    """What was removed lately, newest first."""
    return list(Removal.select().order_by(Removal.id.desc()).limit(limit))
