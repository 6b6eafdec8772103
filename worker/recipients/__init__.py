"""Recipient files: received, checked, removed; their errors and their sample."""

from __future__ import annotations

import csv
import hashlib
import io
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from worker import audit, clock, db, files
from worker.models import Broadcast, RecipientFile, RejectedRow, Run
from worker.recipients.checking import check, forget, waits
from worker.recipients.decoding import DELIMITERS, ENCODINGS, FileRefused
from worker.rendering import column_key

MAX_BYTES = 10 * 1024 * 1024
NAME_MAX = 200
FILES_MAX = 50
_CHUNK = 64 * 1024

__all__ = [
    "DELIMITERS",
    "ENCODINGS",
    "MAX_BYTES",
    "FileRefused",
    "breakdown",
    "check",
    "errors",
    "errors_iter",
    "forget",
    "receive",
    "recheck",
    "removal_numbers",
    "remove",
    "same_content",
    "sample_csv",
    "totals",
    "waits",
]


def receive(
    broadcast: Broadcast,
    stream: BinaryIO,
    name: str,
    uploads: Path,
    options: Mapping[str, Any],
    actor: str,
    declared_size: int | None = None,
) -> RecipientFile:
    """Store an uploaded file under a random name; the worker checks it. Raises FileRefused; nothing stays then.

    options: encoding, delimiter, phone_column as the user chose them; empty means: detect.
    """
    if declared_size is not None and declared_size > MAX_BYTES:
        raise FileRefused("file_too_large", size=declared_size)
    chosen = _options(options)
    path = uploads / secrets.token_hex(16)
    from worker import broadcasts

    try:
        size, digest = _store(stream, path)
        files.keep(path)
        with db.write():
            run = _run_for(broadcast.id)
            count = RecipientFile.select().where(RecipientFile.broadcast == broadcast.id).count()
            if count >= FILES_MAX:
                raise FileRefused("too_many_files", max=FILES_MAX)
            live = RecipientFile.select().where(
                (RecipientFile.broadcast == broadcast.id) & RecipientFile.removed_at.is_null()
            )
            file = RecipientFile.create(
                broadcast=broadcast.id,
                role="appended" if live.exists() else "main",
                name=shown_name(name),
                path=path.name,
                size=size,
                sha256=digest,
                run=run,
                options=chosen,
                created_at=clock.now(),
            )
            broadcasts.people_changed(broadcast.id, actor)
            audit.record(actor, "file.upload", str(file.id), broadcast=broadcast.id)
    except BaseException:
        files.drop(path)
        raise
    return file


def _options(options: Mapping[str, Any]) -> dict[str, str]:
    chosen = {k: str(options[k]) for k in ("encoding", "delimiter", "phone_column") if options.get(k)}
    if chosen.get("delimiter") == "tab":
        chosen["delimiter"] = "\t"
    if chosen.get("encoding", "utf-8") not in ENCODINGS:
        raise FileRefused("encoding_unknown")
    if chosen.get("delimiter", ",") not in DELIMITERS:
        raise FileRefused("delimiter_unknown")
    return chosen


def _store(stream: BinaryIO, path: Path) -> tuple[int, str]:
    """Copy to disk, counting: the size that was declared may be a lie."""
    size, digest = 0, hashlib.sha256()
    with files.new(path) as target:  # on the disk before the row that names it
        while piece := stream.read(_CHUNK):
            size += len(piece)
            if size > MAX_BYTES:
                raise FileRefused("file_too_large", size=size)
            digest.update(piece)
            target.write(piece)
    if size == 0:
        raise FileRefused("file_empty")
    return size, digest.hexdigest()


def shown_name(name: str) -> str:
    """A file name that is only ever shown: the last part of a path, without control characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(c for c in last if c.isprintable()).strip()
    return clean[:NAME_MAX] or "file.csv"


def _run_for(broadcast_id: int) -> int:
    """The run that a new file's rows belong to; a draft that was cleared after a run begins the next one."""
    broadcast = Broadcast.get_by_id(broadcast_id)
    if broadcast.state == "finished":
        return 0
    begun = Run.select().where(
        (Run.broadcast == broadcast_id) & (Run.number == broadcast.run) & Run.started_at.is_null(False)
    )
    if broadcast.state == "draft" and begun.exists():
        Broadcast.update(run=Broadcast.run + 1).where(Broadcast.id == broadcast_id).execute()
        return int(broadcast.run) + 1
    return int(broadcast.run)


def same_content(file: RecipientFile) -> RecipientFile | None:
    """An earlier file with the very same bytes."""
    found: RecipientFile | None = (
        RecipientFile.select()
        .where((RecipientFile.sha256 == file.sha256) & (RecipientFile.id < file.id))
        .order_by(RecipientFile.id.desc())
        .first()
    )
    return found


def recheck(file: RecipientFile, options: Mapping[str, Any] | None = None, actor: str = "") -> bool:
    """Check a file again, perhaps with other choices of `actor`; False when it cannot be read anew.

    That is so when a message of it has left the queue, or when the file itself has been removed after its time.
    """
    from worker import broadcasts

    columns: dict[str, Any] = {
        "state": "checking",
        "owner": None,
        "code": None,
        "detail": None,
        "done": 0,
        "rows": 0,
        "accepted": 0,
        "rejected": {},
        "facts": None,
        "created_at": clock.now(),
    }
    if options is not None:
        columns["options"] = _options(options)
    with db.write():
        left = db.value("SELECT SUM(n) FROM counter WHERE file_id = ? AND status <> 'queued'", [file.id])
        if left or file.removed_at is not None or not file.path:
            return False
        if options is not None:
            broadcasts.people_changed(file.broadcast_id, actor)
            audit.record(actor, "file.check", str(file.id), **columns["options"])
        RecipientFile.update(**columns).where(RecipientFile.id == file.id).execute()
    return True


def remove(file: RecipientFile, how: str, actor: str) -> bool:
    """Remove a file: `keep` leaves its recipients in the queue, `remove` takes out those not yet sent.

    One statement takes the whole file out of the queue; its rows follow in short transactions. Before
    the first start nothing was promised to anybody, so the rows simply go. The uploaded file stays a little
    while, for `worker.undo`. False when it was gone already.
    """
    from worker import broadcasts

    with db.write():
        changed = (
            RecipientFile.update(removed_at=clock.now(), removed_how=how)
            .where((RecipientFile.id == file.id) & RecipientFile.removed_at.is_null())
            .execute()
        )
        if changed != 1:
            return False
        broadcasts.people_changed(file.broadcast_id, actor)
        audit.record(actor, "file.remove", str(file.id), how=how)
        ready = RecipientFile.get_by_id(file.id).state == "ready"
    if ready and how == "remove" and has_begun(file):
        broadcasts.sweep_removed(file.broadcast_id)
    elif how == "remove" or not ready:
        forget(file.id)
    return True


def has_begun(file: RecipientFile) -> bool:
    """Whether the run that the rows of a file were made for has begun: from then on none of them is forgotten."""
    sql = "SELECT 1 FROM run WHERE broadcast_id = ? AND number = ? AND started_at IS NOT NULL"
    return bool(db.value(sql, [file.broadcast_id, file.run]))


def removal_numbers(file: RecipientFile) -> tuple[int, int]:
    """(still queued, already left the queue) of one file, from the counters."""
    found = dict(db.rows("SELECT status, SUM(n) FROM counter WHERE file_id = ? GROUP BY status", [file.id]))
    queued = int(found.get("queued", 0))
    return queued, int(sum(found.values())) - queued - int(found.get("cancelled", 0))


OTHER_CODES = ("duplicate", "opted_out", "blank_row")


def breakdown(rejected: Mapping[str, int]) -> dict[str, int]:
    """duplicates, invalid, opted_out and blank; with the accepted ones they are all the rows of a file."""
    return {
        "duplicates": rejected.get("duplicate", 0),
        "invalid": sum(n for code, n in rejected.items() if code not in OTHER_CODES),
        "opted_out": rejected.get("opted_out", 0),
        "blank": rejected.get("blank_row", 0),
    }


def totals(files: Iterable[RecipientFile]) -> dict[str, int]:
    """The rows of several files together, in the words of a check result."""
    found = {"rows": 0, "accepted": 0, **breakdown({})}
    for file in files:
        found["rows"] += file.rows
        found["accepted"] += file.accepted
        for name, n in breakdown(file.rejected).items():
            found[name] += n
    return found


def errors(file_id: int, after: int = 0, limit: int = 50) -> list[RejectedRow]:
    """Rejected rows in the order of the file, `limit` at a time; `after` is the last id seen."""
    return list(
        RejectedRow.select()
        .where((RejectedRow.file_id == file_id) & (RejectedRow.id > after))
        .order_by(RejectedRow.id)
        .limit(limit)
    )


def errors_iter(file_id: int, step: int = 1_000) -> Iterator[RejectedRow]:
    """Every rejected row, a few at a time."""
    after = 0
    while batch := errors(file_id, after, step):
        yield from batch
        after = batch[-1].id


def sample_csv(columns: list[str], language: str) -> bytes:
    """A file with exactly the columns that a broadcast needs and one example row, as Excel opens it. The names are
    written as they are given."""
    russian = language == "ru"
    phone = "телефон" if russian else "phone"
    needed = [name for name in columns if column_key(name) not in (column_key("телефон"), column_key("phone"))]
    text = io.StringIO()
    # No formulas for spreadsheets: the caller has made the names safe.
    writer = csv.writer(text, delimiter=";" if russian else ",", lineterminator="\r\n")  # nosemgrep: use-defusedcsv
    writer.writerow([phone, *needed])
    writer.writerow(["+79000000001", *("пример" if russian else "example" for _ in needed)])
    return text.getvalue().encode("utf-8-sig")
