"""What checking learns of the rows it accepts: the pre-flight sheet is made of it, whatever the size of the file.

Kept with the file: `rows`; `longest` and `shortest` (line, chars, units, segments, encoding); for an SMS `segments`
(number of parts → rows), and `foreign` (rows, line of the first, chars, segments) where a few characters make it
take so many parts more; `empty` (rows, line of the first) where a value was empty and nothing, or a fallback,
stands in its place; `zones` (where it is known from → zone → rows) for the quiet hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from worker import quiet, segments
from worker.rendering import Content

FOREIGN_SHOWN = 12


class Facts:
    """The facts of one file, gathered in the order of its lines."""

    def __init__(self, content: Content, columns: Sequence[str]) -> None:
        self._sms = content.template is None
        self._places = content.places(columns)
        self._zone_column = quiet.zone_column(columns)
        self._zones: Counter[quiet.Zone] = Counter()
        self._rows = 0
        self._segments: Counter[int] = Counter()
        self._longest: dict[str, Any] = {}
        self._shortest: dict[str, Any] = {}
        self._empty: dict[str, Any] = {"rows": 0}
        self._foreign: dict[str, Any] = {"rows": 0, "segments": 0}
        self._chars: dict[str, None] = {}

    def text(self, line: int, text: str, rows: int = 1) -> None:
        """What the message of a line says, and of how many rows from that line on."""
        self._rows += rows
        length = segments.measure(text) if self._sms else segments.Length(True, len(text), 0)
        size = (length.segments, length.units)
        longest, shortest = self._longest, self._shortest
        if not longest or size > (longest["segments"], longest["units"]):
            self._longest = self._size(line, text, length)
        if not shortest or size < (shortest["segments"], shortest["units"]):
            self._shortest = self._size(line, text, length)
        if self._sms:
            self._segments[length.segments] += rows
            if not length.gsm and (foreign := segments.few_foreign(text)):
                self._hint(line, foreign, length.segments - segments.measure(segments.native(text)).segments, rows)

    def people(self, rows: Sequence[tuple[int, str, Sequence[str] | None]]) -> None:
        """Where the people of these lines live: (line, phone, cells)."""
        at = self._zone_column
        if at is None:
            self._zones += quiet.zones([phone for _line, phone, _cells in rows])
        else:
            self._zones.update(quiet.zone(phone, _cell(cells, at), "") for _line, phone, cells in rows)

    def cells(self, line: int, cells: Sequence[str]) -> None:
        """The cells of a line."""
        for at in self._places:
            if at >= len(cells) or not cells[at] or cells[at].isspace():
                self._empty["rows"] += 1
                self._empty.setdefault("line", line)
                return

    def _size(self, line: int, text: str, length: segments.Length) -> dict[str, Any]:
        how_long = {"chars": len(text), "units": length.units, "segments": length.segments}
        return {"line": line, **how_long, "encoding": length.encoding if self._sms else ""}

    def _hint(self, line: int, foreign: Sequence[str], more: int, rows: int) -> None:
        if more <= 0:
            return
        self._foreign["rows"] += rows
        self._foreign["segments"] += more * rows
        self._foreign.setdefault("line", line)
        if len(self._chars) < FOREIGN_SHOWN:
            self._chars |= dict.fromkeys(foreign)

    def json(self) -> dict[str, Any]:
        """As they are kept with the file."""
        found: dict[str, Any] = {"rows": self._rows, "longest": self._longest, "shortest": self._shortest}
        if self._sms:
            found["segments"] = {str(n): rows for n, rows in sorted(self._segments.items())}
        if self._chars:
            found["foreign"] = {**self._foreign, "chars": list(self._chars)[:FOREIGN_SHOWN]}
        if self._empty["rows"]:
            found["empty"] = self._empty
        found["zones"] = {}
        for (name, source), rows in self._zones.items():
            found["zones"].setdefault(source, {})[name] = rows
        return found


def _cell(cells: Sequence[str] | None, at: int) -> str:
    return cells[at] if cells is not None and at < len(cells) else ""
