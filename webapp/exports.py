"""CSV downloads, shared by pages and API: streamed, formula-safe, readable by a spreadsheet."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, stream_with_context

from webapp import sentences
from worker import db, recipients, reports
from worker.models import Broadcast, RecipientFile


def delimiter(language: str) -> str:
    """What the spreadsheet of this language expects."""
    return ";" if language == "ru" else ","


def _because(code: str, text: str | None) -> str:
    found = sentences.cause(code, text)
    return reports.safe_cell(found["text"]) if found else ""


def report_csv(broadcast: Broadcast, run: int | None, language: str) -> Response:
    """Every message of the run (None: of all) with its original columns."""

    def rows() -> Iterator[list[Any]]:
        with db.connection():
            zone = ZoneInfo(broadcast.timezone)
            _, columns = reports.export_columns(broadcast, run)
            yield [*reports.FIXED, *(reports.safe_cell(name) for name in columns)]
            # The same few causes and files come again and again.
            because = functools.lru_cache(1_000)(_because)
            safe = functools.lru_cache(1_000)(reports.safe_cell)
            for row, name, cells in reports.export(broadcast, run):
                yield [
                    row.phone,
                    row.status,
                    row.cause or "",
                    because(row.cause, row.cause_text) if row.cause else "",
                    reports.safe_cell(row.provider_id or ""),
                    row.run,
                    safe(name),
                    row.line,
                    *(
                        reports.local(at, zone)
                        for at in (row.sent_at, row.delivered_at, row.read_at, row.undelivered_at)
                    ),
                    *(reports.safe_cell(cell) for cell in cells),
                ]

    return _csv(rows(), f"report-{broadcast.id}.csv", language)


def errors_csv(file: RecipientFile, language: str) -> Response:
    """Every rejected row with its reason."""

    def rows() -> Iterator[list[str]]:
        with db.connection():
            yield ["line", "code", "reason", "column", "value", "row"]
            for row in recipients.errors_iter(file.id):
                reason = sentences.row_reason(row.code, row.line, row.value, row.column, row.other)
                yield [
                    str(row.line),
                    row.code,
                    *(reports.safe_cell(text or "") for text in (reason, row.column, row.value, row.original)),
                ]

    return _csv(rows(), f"errors-{file.id}.csv", language)


def sample_csv(columns: list[str], language: str) -> Response:
    """The file template of a broadcast: its columns and one example row."""
    return csv_file(recipients.sample_csv(columns, language), "sample.csv")


def csv_file(data: bytes, name: str) -> Response:
    """A small file that is ready."""
    return Response(data, mimetype="text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})


def _csv(rows: Iterator[list[Any]], name: str, language: str) -> Response:
    response = Response(stream_with_context(reports.csv_lines(rows, delimiter(language))), mimetype="text/csv")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
