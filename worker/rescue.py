"""What is done for all whom one cause kept from getting a broadcast: a draft of an SMS to them, or the stop list.

It is always about the latest message to each: whom a later run reached needs nothing more.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from worker import audit, broadcasts, channels, db, optouts, recipients, rendering, segments
from worker.models import Broadcast, Channel, RecipientFile
from worker.rendering import column_key
from worker.settings import Settings

LOST = broadcasts.AGAIN["undelivered"]
STEP = 1_000
SAMPLE = 500  # recipients by whom the parts of an SMS are estimated
PHONE = "phone"
ROOM = 64 * 1024  # left free at the end of a file


class Lost(NamedTuple):
    """One whom it did not reach: the line of the file, the number, the original cells."""

    line: int
    phone: str
    cells: list[str]


def number(broadcast: Broadcast, cause: str) -> int:
    """How many people did not get it because of this."""
    return sum(broadcasts.latest_count(broadcast, file, LOST, cause) for file in _files(broadcast))


def _files(broadcast: Broadcast) -> list[RecipientFile]:
    """All files whose rows were ever sent, removed ones as well."""
    found = RecipientFile.select().where((RecipientFile.broadcast == broadcast.id) & (RecipientFile.run > 0))
    return list(found.order_by(RecipientFile.id))


def _lost(broadcast: Broadcast, file: RecipientFile, cause: str) -> Iterator[list[Lost]]:
    """They and their rows, in the order of the file, a step at a time."""
    sql, parameters = broadcasts.latest(broadcast, file, LOST, cause)
    line = -1
    while found := db.rows(
        f"SELECT m.line, m.phone, m.row {sql} AND m.line > ? ORDER BY m.line LIMIT ?", [*parameters, line, STEP]
    ):
        yield [Lost(at, phone, json.loads(row) if row else [phone]) for at, phone, row in found]
        line = found[-1][0]


# --- by SMS -----------------------------------------------------------------------------------------


class Offer(NamedTuple):
    """What it would take to reach them by SMS: people, the text, parts for one (about), and channels to choose from."""

    people: int
    text: str
    parts: float | None
    channels: list[Channel]

    def cost(self, channel: Channel) -> float | None:
        """About what it costs on this channel; None where it has no price or the text is not known."""
        if channel.price is None or self.parts is None:
            return None
        return float(channel.price * self.parts * self.people)


def offer(broadcast: Broadcast, cause: str) -> Offer:
    """The question before a draft is made."""
    found = broadcasts.content(broadcast)
    text = rendering.as_text(found) if found is not None else ""
    return Offer(number(broadcast, cause), text, _parts(broadcast, cause, text), sms_channels())


def sms_channels() -> list[Channel]:
    """The channels that an SMS can go by now."""
    return list(channels.living().where((Channel.kind == "sms") & (Channel.state == "on")).order_by(Channel.id))


def _parts(broadcast: Broadcast, cause: str, text: str) -> float | None:
    """How many parts an SMS to one of them has, on the average of the first ones."""
    counted: list[int] = []
    for file in _files(broadcast) if text else []:
        try:
            renderer = rendering.sms_content(text).bind(file.columns or [PHONE])
        except rendering.MissingColumns:
            continue
        for one in next(_lost(broadcast, file, cause), [])[: SAMPLE - len(counted)]:
            try:
                counted.append(segments.count(renderer.render(one.cells).text).segments)
            except rendering.RowError:
                continue
    return sum(counted) / len(counted) if counted else None


def by_sms(
    settings: Settings, broadcast: Broadcast, cause: str, channel_id: int, actor: str, form_token: str | None = None
) -> tuple[Broadcast, list[RecipientFile]]:
    """Make a draft of an SMS to them, with their rows as its recipient files, which are still to be checked.

    The same `form_token` twice gives the same draft. Raises Invalid and FileRefused; no draft stays then.
    """
    content = broadcasts.content(broadcast)
    values = {
        "name": f"{broadcast.name[: broadcasts.NAME_MAX - 6]} – SMS",
        "channel_id": channel_id,
        "text": rendering.as_text(content) if content is not None else "",
        "region": broadcast.region,
        "ignore_duplicates": True,
        "rate_per_minute": broadcast.rate_per_minute,
        "timezone": broadcast.timezone,
    }
    made = broadcasts.create(settings, values, actor, complete=False, form_token=form_token)
    if broadcasts.live_files(made):
        return made, []  # the second press of a button
    files: list[RecipientFile] = []
    try:
        for n, data in enumerate(_as_csv(broadcast, cause), 1):
            with data:
                name = f"{broadcast.name[:100]} {cause}{f' {n}' if n > 1 else ''}.csv"
                options = {"encoding": "utf-8", "delimiter": ",", "phone_column": PHONE}
                files.append(recipients.receive(made, data, name, settings.uploads, options, actor))
        if not files:
            raise broadcasts.Invalid({"cause": broadcasts.Problem("no_recipients")})
    except BaseException:
        broadcasts.delete(made, actor)
        raise
    with db.write():
        audit.record(actor, "broadcast.by_sms", str(made.id), of=broadcast.id, cause=cause)
    return made, files


def _as_csv(broadcast: Broadcast, cause: str) -> Iterator[BinaryIO]:
    """Their original rows under the columns of all files, led by the number as it was sent to: files of the largest
    size that may be uploaded."""
    names = _names(broadcast)
    head = _line([PHONE, *names.values()])
    out: BinaryIO | None = None
    for line in _lines(broadcast, cause, list(names)):
        if out is not None and out.tell() + len(line) > recipients.MAX_BYTES - ROOM:
            out.seek(0)
            yield out
            out = None
        if out is None:
            out = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=1024 * 1024))  # noqa: SIM115
            out.write(head)
        out.write(line)
    if out is not None:
        out.seek(0)
        yield out


def _lines(broadcast: Broadcast, cause: str, keys: list[str]) -> Iterator[bytes]:
    """One line for each of them: the number, then the cells of the columns with these keys."""
    for file in _files(broadcast):
        own = [column_key(name) for name in file.columns]
        at = [own.index(key) if key in own else None for key in keys]
        for step in _lost(broadcast, file, cause):
            for one in step:
                cells = [one.cells[i] if i is not None and i < len(one.cells) else "" for i in at]
                yield _line([one.phone, *cells])


def _names(broadcast: Broadcast) -> dict[str, str]:
    """The columns of all files but for one that is named as ours; each once, by how it is compared."""
    names: dict[str, str] = {}
    for file in _files(broadcast):
        for name in file.columns:
            if column_key(name) not in ("", column_key(PHONE)):
                names.setdefault(column_key(name), name)
    return names


def _line(cells: list[str]) -> bytes:
    out = io.StringIO()
    # No formulas for spreadsheets: read by us alone.
    csv.writer(out, lineterminator="\r\n").writerow(cells)  # nosemgrep: use-defusedcsv
    return out.getvalue().encode("utf-8", "replace")


# --- the stop list ----------------------------------------------------------------------------------


def to_stop_list(broadcast: Broadcast, cause: str, reason: str, actor: str) -> int:
    """Put them on the stop list with a reason, in short transactions; how many they are."""
    done = 0
    for file in _files(broadcast):
        for step in _lost(broadcast, file, cause):
            with db.write():
                entries = [optouts.Entry(one.phone, reason=reason) for one in step]
                optouts.put(entries, optouts.PERSON, channel_id=broadcast.channel_id, actor=actor)
            done += len(step)
    with db.write():
        audit.record(actor, "broadcast.stop_list", str(broadcast.id), cause=cause, n=done)
    return done
