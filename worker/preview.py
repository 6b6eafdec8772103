"""One row of a broadcast as its phone gets it: to look at, and to send to one's own phone as a test."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker import audit, broadcasts, channels, db, direct, optouts, phone, preflight, rendering, segments
from worker.models import Broadcast, Direct, RecipientFile, User
from worker.problems import Invalid, Problem
from worker.settings import Settings

FIRST, NEXT, LONGEST, SHORTEST, RANDOM, EMPTY, FOREIGN = WHICH = (
    *("first", "next", "longest", "shortest", "random", "empty"),
    "foreign",
)
REMEMBERED = 10  # of one's own numbers


ABSENT = frozenset({"no_recipients", "row_missing", "row_last", "nothing_empty", "nothing_foreign"})


class Missing(LookupError):
    """There is no such row (`absent`), or its message cannot be made; `problem` says why."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.problem = Problem(code, facts)
        self.absent = code in ABSENT


@dataclass(frozen=True)
class Preview:
    """One message. `components`: the parts of a template as the phone shows them, empty for an SMS; `counted` and
    `parts`: how an SMS is counted and cut, None and empty for WABA; `cells`: the row of the file, by column."""

    phone: str
    line: int
    file: RecipientFile
    rendered: rendering.Rendered
    components: list[dict[str, Any]]
    cells: list[tuple[str, str]]

    @property
    def text(self) -> str:
        return self.rendered.text

    @property
    def counted(self) -> segments.Segments | None:
        return segments.count(self.text) if self.rendered.template is None else None

    @property
    def foreign(self) -> list[str]:
        """The few characters that force an SMS into UCS-2."""
        return list(dict.fromkeys(segments.few_foreign(self.text))) if self.rendered.template is None else []

    @property
    def parts(self) -> list[str]:
        return segments.split(self.text) if self.rendered.template is None else []


class _Row(NamedTuple):
    file: RecipientFile
    line: int
    phone: str
    cells: list[str]


def find(
    broadcast: Broadcast, which: str = FIRST, *, line: int | None = None, file: int | None = None, after: int = 0
) -> Preview:
    """The message of one recipient: of `line` (as a spreadsheet counts) where it is given, else of `which`.

    `file`: of this file alone; `after`: with `next`, the first one behind this line of `file`, and in the files
    that follow it. Raises Missing.
    """
    files = _files(broadcast)
    if line is not None:
        return _show(broadcast, _at(files, line, file))
    if which == NEXT:
        return _show(broadcast, _next(files, after, file))
    if file is not None:
        files = [one for one in files if one.id == file]
    if not files:
        raise Missing("no_recipients")
    if which == RANDOM:
        return _show(broadcast, _random(files))
    if which in (LONGEST, SHORTEST, EMPTY, FOREIGN):
        return _show(broadcast, _of_facts(files, which))
    return _show(broadcast, _next(files, 0, None))


def _files(broadcast: Broadcast) -> list[RecipientFile]:
    return [one for one in broadcasts.live_files(broadcast) if one.state == "ready" and one.accepted]


def _at(files: Iterable[RecipientFile], line: int, file: int | None) -> _Row:
    for one in files:
        if file in (None, one.id) and (found := _row(one, "= ?", line)) is not None:
            return found
    raise Missing("row_missing", n=line)


def _next(files: Iterable[RecipientFile], after: int, file: int | None) -> _Row:
    for one in files:
        if file is not None and one.id < file:
            continue
        if (found := _row(one, "> ?", after if one.id == file or file is None else 0)) is not None:
            return found
        after = 0 if file is None else after
    raise Missing("row_last")


def _random(files: list[RecipientFile]) -> _Row:
    chosen = random.choices(files, [one.accepted for one in files])[0]  # noqa: S311
    found = _row(chosen, "> ?", random.randrange(chosen.rows + 1)) or _row(chosen, "> ?", 0)  # noqa: S311
    if found is None:
        raise Missing("no_recipients")
    return found


def _of_facts(files: list[RecipientFile], which: str) -> _Row:
    """The row that checking kept in mind."""
    known = preflight.lengths([(one, one.accepted) for one in files])
    if known is None:
        raise Missing("length_unknown")
    place = {LONGEST: known.longest, SHORTEST: known.shortest, EMPTY: known.empty, FOREIGN: known.foreign}[which]
    if "line" not in place:
        raise Missing("nothing_empty" if which == EMPTY else "nothing_foreign")
    return _at(files, place["line"], place["file"])


def _row(file: RecipientFile, where: str, line: int) -> _Row | None:
    """The message made of the first line of a file that fits, whatever has become of it since."""
    found = db.rows(
        f"SELECT line, phone, row FROM message WHERE file_id = ? AND run = ? AND line {where} ORDER BY line LIMIT 1",  # noqa: S608
        [file.id, file.run, max(-1, min(line, 2**62))],
    )
    if not found:
        return None
    at, phone_, cells = found[0]
    return _Row(file, at, phone_, json.loads(cells) if cells else [phone_])


def _show(broadcast: Broadcast, row: _Row) -> Preview:
    content = broadcasts.content(broadcast)
    if content is None:
        raise Missing("not_written")
    try:
        renderer = content.bind(row.file.columns)
        rendered, values = renderer.render(row.cells), renderer.values(row.cells)
    except rendering.MissingColumns as missing:
        raise Missing("columns_missing", cols=missing.columns) from None
    except rendering.RowError as error:
        raise Missing("row_unusable", n=row.line, c=error.column or "") from None
    cells = [(name, value) for name, value in zip(row.file.columns, row.cells, strict=False) if name]
    return Preview(row.phone, row.line, row.file, rendered, rendering.shown(content.components, values), cells)


def as_written(broadcast: Broadcast) -> list[dict[str, Any]]:
    """The parts of the chosen template with the places of its variables still open; empty for an SMS."""
    content = broadcasts.content(broadcast)
    return rendering.shown(content.components, {}) if content is not None else []


# --- to one's own phone -----------------------------------------------------------------------------


def send_test(
    settings: Settings,
    broadcast: Broadcast,
    number: str,
    actor: str,
    *,
    user_id: int | None = None,
    line: int | None = None,
    file: int | None = None,
    form_token: str | None = None,
) -> Direct:
    """Send the message of one row (the first one, where none is chosen) to `number`; the caller wakes the worker.

    A message that is the same for everybody needs no row. The number is remembered for `user_id`. The same
    `form_token` twice with the same message and number is one message. Raises Invalid.
    """
    channel = broadcast.channel
    if channel is None or channel.state == channels.DELETED:
        raise Invalid({"channel": Problem("channel_required")})
    e164 = _own_number(broadcast, number)
    rendered = _to_send(broadcast, line, file)
    token = direct.token_of(f"test-{broadcast.id}", form_token, e164, rendered) if form_token else None
    made = direct.send(
        settings,
        channel,
        e164,
        kind=direct.TEST,
        actor=actor,
        text=rendered.text,
        template=rendered.template,
        about_id=broadcast.id,
        form_token=token,
    )
    with db.write():
        audit.record(actor, "broadcast.test", str(broadcast.id))
        if user_id is not None:
            _remember(user_id, e164)
    return made


def _own_number(broadcast: Broadcast, number: str) -> str:
    found = phone.parse(number[:100], broadcast.region, broadcasts.mobile_only(broadcast))
    if found.e164 is None:
        raise Invalid({"phone": Problem(found.reason or "phone_invalid", {"v": number[:40]})})
    scopes = optouts.SCOPES if broadcasts.is_marketing(broadcast) else (optouts.ALL,)
    if optouts.opted_out_among([found.e164], scopes):
        raise Invalid({"phone": Problem("phone_opted_out")})
    return found.e164


def _to_send(broadcast: Broadcast, line: int | None, file: int | None) -> rendering.Rendered:
    content = broadcasts.content(broadcast)
    if content is None:
        raise Invalid({"message": Problem("not_written")})
    try:
        if line is None and not content.columns:
            return content.bind(()).render(())
        return find(broadcast, line=line, file=file).rendered
    except Missing as missing:
        raise Invalid({"line": missing.problem}) from None
    except rendering.RowError as error:
        # An SMS is too long by its parts, a template by its characters.
        code = "too_many_segments" if error.code == "text_too_long" and content.template is None else error.code
        raise Invalid({"message": Problem(code, {"max": broadcasts.TEXT_MAX, **error.detail})}) from None


def own_numbers(user_id: int) -> list[str]:
    """The numbers that this person sent tests to, the latest first."""
    user = User.get_or_none(User.id == user_id)
    return list(user.test_phones or []) if user is not None else []


def _remember(user_id: int, number: str) -> None:
    """Keep a number for the next test, inside the caller's transaction."""
    known = [number, *(one for one in own_numbers(user_id) if one != number)]
    User.update(test_phones=known[:REMEMBERED]).where(User.id == user_id).execute()
