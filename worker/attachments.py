"""Files that people sent: fetched in the background, kept under random names, shown only as what they are.

The row is the queue: a waiting one is taken by moving its time on, so that nobody else takes it meanwhile and a
process that dies leaves it to the next one.
"""

from __future__ import annotations

import logging
import mimetypes
import secrets
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

from worker import channels, clock, db, files, vault
from worker.models import Attachment, Channel
from worker.providers.base import FILE_MAX, LATER, UNCLEAR, InboundMessage, SendError, clean
from worker.settings import Settings

log = logging.getLogger("molva.attachments")

LEASE = 5 * clock.MINUTE  # how long one try may take
ROOM = FILE_MAX + 64 * 1024 * 1024  # bytes of the disk that stay free for the messages themselves
# The pauses after a try that told nothing for good. The vendor keeps a file for a week.
PAUSES = (10 * clock.SECOND, clock.MINUTE, 10 * clock.MINUTE, clock.HOUR, 6 * clock.HOUR)
FULL_PAUSE = 10 * clock.MINUTE
NAME_MAX = 100
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
BINARY = "application/octet-stream"
_STARTS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))
PICTURES = frozenset({*(mime for _start, mime in _STARTS), "image/webp"})


def picture_type(data: bytes) -> str:
    """The type of a picture that browsers show, by its first bytes; "" for anything else, whatever it is called."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for start, mime in _STARTS if data.startswith(start)), "")


def note(inbound_id: int, channel_id: int, item: InboundMessage) -> None:
    """Have the files of a message fetched, inside the caller's transaction."""
    now = clock.now()
    for one in item.attached:
        db.execute(
            "INSERT INTO attachment (inbound_id, channel_id, media_id, mime, name, size, path, state, tries, next_at,"
            " at) VALUES (?, ?, ?, ?, ?, 0, '', 'waiting', 0, ?, ?)",
            [inbound_id, channel_id, clean(one.media_id), clean(one.mime), clean(one.name), now, now],
        )


def of_inbound(ids: Iterable[int]) -> Mapping[int, list[Attachment]]:
    """The files of these messages (at most some hundreds)."""
    found: dict[int, list[Attachment]] = {}
    for row in Attachment.select().where(Attachment.inbound_id.in_(list(ids))).order_by(Attachment.id):
        found.setdefault(row.inbound_id, []).append(row)
    return found


def file_name(row: Attachment) -> str:
    """A name fit for anybody's disk: what the sender called it, without what a path or a terminal would take amiss."""
    kept = "".join(c for c in row.name if c.isprintable() and c not in _NOT_IN_NAMES).strip(". ")
    stem, dot, ending = kept.rpartition(".")
    if not dot or not ending.isalnum() or len(ending) > 8:
        stem, ending = kept, (mimetypes.guess_extension(row.mime) or "").lstrip(".")
    stem = stem[:NAME_MAX].strip(". ") or f"file-{row.id}"
    return f"{stem}.{ending}" if ending else stem


def file_of(settings: Settings, row: Attachment) -> Path | BytesIO | None:
    """A fetched file; None when it is not here."""
    return files.find(settings.media / row.path) if row.state == "ready" and row.path else None


def again(row: Attachment) -> bool:
    """A person wants a failed one tried once more; False when it is not failed any more."""
    with db.write():
        changed = Attachment.update(state="waiting", tries=0, next_at=clock.now(), cause=None).where(
            (Attachment.id == row.id) & (Attachment.state == "failed")
        )
        return bool(changed.execute())


def fetch_due(settings: Settings, providers: channels.Providers) -> bool:
    """Take one file that waits; whether there was one."""
    row = _take()
    if row is None:
        return False
    if shutil.disk_usage(settings.media).free < ROOM:
        log.error("attachment %d waits: the disk is nearly full", row.id)
        _put_off(row, FULL_PAUSE)
        return True
    try:
        data = _fetched(row, providers)
        path = _store(settings, data)
    except SendError as error:
        passes = error.outcome in (LATER, UNCLEAR) and error.cause != "answer_too_large" and row.tries < len(PAUSES)
        log.info("attachment %d: %s", row.id, error.cause)
        if passes:
            _put_off(row, PAUSES[row.tries], error.cause)
        else:
            _fail(row, error.cause)
    except OSError as error:
        log.error("attachment %d cannot be stored: %s", row.id, error.strerror)
        _put_off(row, FULL_PAUSE)
    except Exception:
        log.exception("attachment %d cannot be fetched", row.id)
        _fail(row, "internal")
    else:
        _keep(settings, row, data, path)
    return True


def _take() -> Attachment | None:
    now = clock.now()
    due = db.value("SELECT id FROM attachment WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at LIMIT 1", [now])
    if due is None:
        return None
    with db.write():
        taken = Attachment.update(next_at=now + LEASE).where(
            (Attachment.id == due) & (Attachment.state == "waiting") & (Attachment.next_at <= now)
        )
        return Attachment.get_by_id(due) if taken.execute() else None


def _fetched(row: Attachment, providers: channels.Providers) -> bytes:
    channel = Channel.get_or_none(Channel.id == row.channel_id)
    if channel is None or channel.state == channels.DELETED:
        raise SendError("refused", "channel_deleted")
    try:
        provider = providers.get(channel)
    except vault.VaultError:
        raise SendError(LATER, "credentials_locked") from None
    return provider.fetch(row.media_id)


def _store(settings: Settings, data: bytes) -> str:
    """Write the file whole or not at all; its name, which nobody can guess."""
    name = secrets.token_hex(16)
    path = settings.media / name
    try:
        with files.new(path) as file:
            file.write(data)
        files.keep(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return name


def _keep(settings: Settings, row: Attachment, data: bytes, path: str) -> None:
    mime = picture_type(data) or (row.mime if not row.mime.startswith("image/") else BINARY) or BINARY
    with db.write():
        kept = Attachment.update(state="ready", path=path, size=len(data), mime=mime, cause=None).where(
            (Attachment.id == row.id) & (Attachment.state == "waiting")
        )
        if kept.execute():
            return
    files.drop(settings.media / path)  # another try was faster, or the row is gone


def _put_off(row: Attachment, pause: int, cause: str | None = None) -> None:
    """`cause`: what the vendor's side did, which uses up a try; None: it was our own disk."""
    with db.write():
        Attachment.update(next_at=clock.now() + pause, tries=row.tries + (cause is not None), cause=cause).where(
            (Attachment.id == row.id) & (Attachment.state == "waiting")
        ).execute()


def _fail(row: Attachment, cause: str) -> None:
    with db.write():
        Attachment.update(state="failed", cause=cause).where(
            (Attachment.id == row.id) & (Attachment.state == "waiting")
        ).execute()
