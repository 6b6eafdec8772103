"""One person's data: found and erased in every table and file; and what is stored at all, as data.

An erased person stays in the numbers: the rows of messages keep status and times, a keyed hash stands for the
phone. The stop list keeps that hash too, so that who said stop is not written to again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import zipfile
from collections import Counter as Numbers
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from worker import audit, clock, counters, db, files, hashes, repeats, retention, webhooks
from worker.models import TABLES, RecipientFile, Removal, User
from worker.settings import Settings

STEP = 2_000
FOUND_MAX = 10_000  # rows of one table that a search brings
UNPACKED_MAX = 200 * 1024 * 1024


class Stored(NamedTuple):
    """What one table keeps about people who get messages.

    `timer` removes it after its time; `days` are those after which it goes whatever people have set.
    """

    table: str
    personal: bool
    timer: str = ""
    days: int = 0


# Every table of the database: a test holds that none is missing, and the page draws itself from this.
STORED = (
    Stored("message", True, "numbers"),
    Stored("recipient_file", True, "files"),
    Stored("stored_file", True, "files"),
    Stored("rejected_row", True, "texts"),
    Stored("attempt", True, "texts"),
    Stored("delivery_report", True, "texts"),
    Stored("part", True, "numbers"),
    Stored("callback", True, "callbacks"),
    Stored("inbound", True, "inbox"),
    Stored("inbound_part", True, "inbox"),
    Stored("conversation", True, "inbox"),
    Stored("attachment", True, "inbox"),
    Stored("direct", True, "inbox"),
    Stored("opt_out", True),
    Stored("opt_out_event", True),
    Stored("marketing_choice", True),
    Stored("broadcast", False, "texts"),
    Stored("audit", False, "audit"),
    Stored("user_account", False),
    Stored("login_session", False),
    Stored("login_attempt", False),
    Stored("recovery_code", False),
    Stored("invitation", False),
    Stored("api_token", False),
    Stored("channel", False),
    Stored("message_template", False),
    Stored("media", False),
    Stored("quick_answer", False),
    Stored("run", False),
    Stored("counter", False),
    Stored("departure", False),
    Stored("snapshot", False),
    Stored("overlap", False),
    Stored("removal", False),
    Stored("repeat_answer", True, days=repeats.LIFE // clock.DAY),
    Stored("webhook", False),
    Stored("webhook_delivery", False, days=webhooks.LIFE // clock.DAY),
    Stored("event", False, days=webhooks.LIFE // clock.DAY),
    Stored("latency", False),
    Stored("setting", False),
    Stored("worker", False),
)

# Where a number stands in a column of its own.
BY_PHONE = ("inbound", "inbound_part", "conversation", "direct", "opt_out", "opt_out_event", "marketing_choice")
# Where it may stand inside something raw: (table, columns). Such rows are removed as a whole.
RAW = (("rejected_row", ("value", "original")), ("callback", ("body", "query")), ("repeat_answer", ("body",)))


def pattern(phone: str) -> re.Pattern[bytes]:
    """How the number may be written in raw bytes: its last ten figures, with what people put between them."""
    figures = "".join(c for c in phone if c.isdigit())[-10:]
    return re.compile(rb"[^0-9A-Za-z\r\n,;]{0,3}".join(figure.encode() for figure in figures))


def _holds(wanted: re.Pattern[bytes], values: Any) -> bool:
    return any(wanted.search(v if isinstance(v, bytes) else str(v).encode()) for v in values if v is not None)


def _key(table: str) -> tuple[str, Any, str]:
    """The key of a table, a value before its first, and how one out of a JSON list is read."""
    field: Any = next(model for model in TABLES if model._meta.table_name == table)._meta.primary_key
    whole = field.field_type in ("AUTO", "BIGAUTO")
    return field.column_name, -1 if whole else "", "CAST(value AS BIGINT)" if whole else "value"


def _raw_rows(table: str, columns: tuple[str, ...], wanted: re.Pattern[bytes]) -> Iterator[Any]:
    """The keys of rows of a table whose raw columns hold the number; a walk through the whole table."""
    key, last, _read = _key(table)
    while found := db.rows(
        f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?",  # noqa: S608
        [last, STEP],
    ):
        yield from (row[0] for row in found if _holds(wanted, row[1:]))
        last = found[-1][0]


# --- finding ----------------------------------------------------------------------------------------


def find(settings: Settings, phone: str) -> dict[str, list[dict[str, Any]]]:
    """Everything about one number: table → its rows; and the files of the data folder that hold it."""
    found = {"message": _named("message", "phone = ?", [phone])}
    ids = json.dumps([row["id"] for row in found["message"]])
    for table in ("attempt", "delivery_report", "part"):
        found[table] = _named(table, "message_id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))", [ids])
    for table in BY_PHONE:
        found[table] = _named(table, "phone = ?", [phone])
    replies = json.dumps([row["id"] for row in found["inbound"]])
    found["attachment"] = _named(
        "attachment", "inbound_id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))", [replies]
    )
    wanted = pattern(phone)
    for table, columns in RAW:
        keys = json.dumps(list(_raw_rows(table, columns, wanted)))
        key, _first, read = _key(table)
        found[table] = _named(table, f"{key} IN (SELECT {read} FROM json_each(?))", [keys])  # noqa: S608
    found["files"] = [{"name": file.name} for file in _files_with(settings, phone)]
    return {table: rows for table, rows in found.items() if rows}


def _named(table: str, where: str, parameters: list[Any]) -> list[dict[str, Any]]:
    cursor = db.execute(f"SELECT * FROM {table} WHERE {where} LIMIT {FOUND_MAX}", parameters)  # noqa: S608
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(_readable, row), strict=True)) for row in cursor.fetchall()]


def _readable(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _files_with(settings: Settings, phone: str) -> list[RecipientFile]:
    """The uploaded files on the disk that hold the number."""
    wanted = pattern(phone)
    kept = RecipientFile.select().where(RecipientFile.path != "").order_by(RecipientFile.id)
    return [file for file in kept.iterator() if in_file(settings.uploads / file.path, wanted)]


def in_file(path: Path, wanted: re.Pattern[bytes]) -> bool:
    """Whether a file holds the number, as text of any encoding or inside an XLSX."""
    try:
        data = files.read(path)
        if zipfile.is_zipfile(io.BytesIO(data)):
            data = b"\n".join(_unpacked(io.BytesIO(data)))
    except (OSError, zipfile.BadZipFile, RuntimeError, ValueError):
        return False
    return wanted.search(data) is not None or wanted.search(data.replace(b"\0", b"")) is not None


def _unpacked(packed: io.BytesIO) -> Iterator[bytes]:
    left = UNPACKED_MAX
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            if left <= 0:
                return
            with archive.open(info) as member:
                data = member.read(left)
            left -= len(data)
            yield data


# --- erasing ----------------------------------------------------------------------------------------


def erase(settings: Settings, phone: str, actor: str) -> dict[str, int]:
    """Erase one person everywhere; how many of what. What was queued for them is not sent."""
    removed: Numbers[str] = Numbers()
    with db.erasing():
        removed.update(_messages(settings, phone))
        removed.update(retention.forget_inbox(settings, phone, clock.now() + clock.DAY))
        removed.update(_stop_list(settings, phone))
        removed.update(_raw(phone))
        removed.update(_uploads(settings, phone))
        removed.update(_own_phones(phone))
        removed["emulator_lines"] = _blank_out(settings.data / "sandbox.log", phone)
        report = {what: n for what, n in sorted(removed.items()) if n}
        with db.write():
            Removal.create(at=clock.now(), kind="person", actor=actor, body=report)
            audit.record(actor, "privacy.erase", phone, **report)
            retention.want_vacuum()
    return report


_FORGET_SAMPLES = (
    "UPDATE recipient_file SET sample = '[]', repairs = '{}'"
    " WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
)


def _messages(settings: Settings, phone: str) -> dict[str, int]:
    with db.write():
        found = db.rows("SELECT id, broadcast_id, run, file_id, status FROM message WHERE phone = ?", [phone])
        deltas: counters.Deltas = {}
        for _id, broadcast_id, run, file_id, status in found:
            if status == "queued":
                counters.move(deltas, (broadcast_id, run, file_id), "queued", "cancelled")
        ids = [row[0] for row in found]
        if deltas:
            db.execute("UPDATE message SET status = 'cancelled' WHERE phone = ? AND status = 'queued'", [phone])
            counters.add(deltas)
        retention.forget_texts(ids)
        retention.hide_numbers(settings, ids)
        db.execute(_FORGET_SAMPLES, [json.dumps(sorted({row[3] for row in found}))])
    return {"messages": len(ids), "cancelled": sum(n for n in deltas.values() if n > 0)}


def _stop_list(settings: Settings, phone: str) -> dict[str, int]:
    """A hash in the place of the number: proof that silence was asked for, and whom not to write to."""
    hidden = hashes.of(settings, [phone])[0]
    with db.write():
        # Who was erased before and has come back stands there already.
        db.execute(
            "DELETE FROM opt_out WHERE phone = ? AND scope IN (SELECT scope FROM opt_out WHERE phone = ?)",
            [phone, hidden],
        )
        kept = db.execute("UPDATE opt_out SET phone = ?, reason = '' WHERE phone = ?", [hidden, phone]).rowcount
        kept += db.execute("UPDATE opt_out_event SET phone = ?, reason = '' WHERE phone = ?", [hidden, phone]).rowcount
        db.execute("DELETE FROM marketing_choice WHERE phone = ?", [phone])
    return {"stop_list_kept_as_hash": int(kept)}


def _raw(phone: str) -> dict[str, int]:
    wanted = pattern(phone)
    removed = {}
    for table, columns in RAW:
        keys = list(_raw_rows(table, columns, wanted))
        sql = f"DELETE FROM {table} WHERE {_key(table)[0]} = ?"  # noqa: S608
        for begin in range(0, len(keys), STEP):
            with db.write():
                db.many(sql, [(key,) for key in keys[begin : begin + STEP]])
        removed[f"{table}s"] = len(keys)
    return removed


def _uploads(settings: Settings, phone: str) -> dict[str, int]:
    """Files that hold the number go as a whole: the other people's messages stand in the database."""
    found = _files_with(settings, phone)
    for file in found:
        retention.forget_file(settings.uploads, file.id, file.path)
    return {"files": len(found)}


def _own_phones(phone: str) -> dict[str, int]:
    changed = 0
    for user in User.select().where(User.test_phones.is_null(False)):
        if phone in user.test_phones:
            with db.write():
                rest = [one for one in user.test_phones if one != phone]
                changed += User.update(test_phones=rest).where(User.id == user.id).execute()
    return {"test_phones": changed}


def _blank_out(path: Path, phone: str) -> int:
    """Zeros over the figures of the number, in place, since the emulator goes on writing to the file."""
    wanted, places = pattern(phone), []
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        places = [found.span() for found in wanted.finditer(data)]
        with path.open("r+b") as file:
            for begin, end in places:
                file.seek(begin)
                file.write(b"0" * (end - begin))
            file.flush()
            os.fsync(file.fileno())
    return len(places)


def copies(settings: Settings) -> list[str]:
    """Databases that a restore has put aside in the data folder: an erasure does not reach into them."""
    return sorted(path.name for path in settings.data.glob("molva.db.*"))


def is_being_checked() -> bool:
    """Whether a file is being read right now, which could bring the person back."""
    return bool(
        RecipientFile.select().where((RecipientFile.state == "checking") & RecipientFile.removed_at.is_null()).exists()
    )
