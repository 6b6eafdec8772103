"""CSV downloads, shared by pages and API: streamed, formula-safe, readable by a spreadsheet."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, stream_with_context

from webapp import sentences
from worker import db, recipients, reports
from worker.clock import SECOND
from worker.models import Broadcast, RecipientFile, RejectedRow


def delimiter(language: str) -> str:
    """What the spreadsheet of this language expects."""
    return ";" if language == "ru" else ","


def _because(code: str, text: str | None) -> str:
    found = sentences.cause(code, text)
    return reports.safe_cell(found["text"]) if found else ""


def report_csv(broadcast: Broadcast, run: int | None, language: str) -> Response:
    """Every message of the run (None: of all) with its original columns."""

    def batches() -> Iterator[Iterable[list[Any]]]:
        with db.connection():
            _, columns = reports.export_columns(broadcast, run)
            yield [[*reports.FIXED, *(reports.safe_cell(name) for name in columns)]]
            line = _line_of(ZoneInfo(broadcast.timezone))
            for name, messages in reports.export(broadcast, run):
                safe_name = reports.safe_cell(name)
                yield [line(row, safe_name, cells) for row, cells in messages]

    return _csv(batches(), f"report-{broadcast.id}.csv", language)


def _line_of(zone: ZoneInfo) -> Callable[[tuple[Any, ...], str, list[str]], list[Any]]:
    """How a message stands in the report; the same few causes come again and again, and so do the seconds."""
    because = functools.lru_cache(1_000)(_because)
    seconds, safe = reports.Seconds(zone), reports.safe_cell

    def line(row: tuple[Any, ...], name: str, cells: list[str]) -> list[Any]:
        (_id, run, _file, at, phone, status, cause, words, identity, _began, sent, delivered, read, lost, _cells) = row
        return [
            phone,
            status,
            cause or "",
            because(cause, words) if cause else "",
            safe(identity) if identity else "",
            run,
            name,
            at,
            seconds[sent // SECOND] if sent else "",
            seconds[delivered // SECOND] if delivered else "",
            seconds[read // SECOND] if read else "",
            seconds[lost // SECOND] if lost else "",
            *map(safe, cells),
        ]

    return line


def errors_csv(file: RecipientFile, language: str) -> Response:
    """Every rejected row with its reason."""

    def line(row: RejectedRow) -> list[str]:
        reason = sentences.row_reason(row.code, row.line, row.value, row.column, row.other)
        texts = (reason, row.column, row.value, row.original)
        return [str(row.line), row.code, *(reports.safe_cell(text or "") for text in texts)]

    def batches() -> Iterator[Iterable[list[str]]]:
        with db.connection():
            yield [["line", "code", "reason", "column", "value", "row"]]
            rows = recipients.errors_iter(file.id)
            while batch := list(itertools.islice(rows, 500)):
                yield map(line, batch)

    return _csv(batches(), f"errors-{file.id}.csv", language)


def sample_csv(columns: list[str], language: str) -> Response:
    """The file template of a broadcast: its columns and one example row."""
    return csv_file(recipients.sample_csv(columns, language), "sample.csv")


def csv_file(data: bytes, name: str) -> Response:
    """A small file that is ready."""
    return Response(data, mimetype="text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})


def _csv(batches: Iterator[Iterable[list[Any]]], name: str, language: str) -> Response:
    response = Response(stream_with_context(reports.csv_lines(batches, delimiter(language))), mimetype="text/csv")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
