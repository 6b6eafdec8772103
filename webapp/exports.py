"""CSV downloads, shared by pages and API: streamed, formula-safe, readable by a spreadsheet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, stream_with_context
from flask_babel import gettext as _

from webapp import auth, filters, sentences, words
from worker import audit, clock, db, optouts, recipients, reports
from worker.models import Broadcast, RecipientFile, RejectedRow
from worker.settings import Settings


def delimiter(language: str) -> str:
    """What the spreadsheet of this language expects."""
    return ";" if language == "ru" else ","


def _because(code: str, text: str | None) -> str:
    found = sentences.cause(code, text)
    return reports.safe_cell(found["text"]) if found else ""


def report_csv(broadcast: Broadcast, run: int | None, language: str) -> Response:
    """Every message of the run (None: of all) with its original columns.

    Whoever may not see numbers gets them masked and no columns of the files, which may hold them in any form.
    """
    whole = auth.me().can("sender")
    audit.note(auth.me().name, "report.export", str(broadcast.id), run=run, masked=not whole)

    def batches() -> Iterator[Iterable[list[Any]]]:
        with db.connection():
            _, columns = reports.export_columns(broadcast, run)
            columns = columns if whole else []
            yield [[*reports.FIXED, *(reports.safe_cell(name) for name in columns)]]
            lines = _lines_of(ZoneInfo(broadcast.timezone), whole)
            for name, messages, cells in reports.export(broadcast, run):
                yield lines(reports.safe_cell(name), messages, cells)

    return stream_csv(batches(), f"report-{broadcast.id}.csv", language)


class _Causes(dict[tuple[str | None, str | None], str]):
    """The words for a cause and what the provider said to it; the same few come again and again."""

    MOST = 1_000

    def __missing__(self, found: tuple[str | None, str | None]) -> str:
        if len(self) >= self.MOST:
            self.clear()
        code, text = found
        words = self[found] = _because(code, text) if code else ""
        return words


def _lines_of(
    zone: ZoneInfo, whole: bool
) -> Callable[[str, list[tuple[Any, ...]], list[reports.Cells]], list[list[Any]]]:
    """How messages stand in the report."""
    because, at, safe = _Causes(), reports.Seconds(zone), reports.safe_cell

    def lines(name: str, messages: list[tuple[Any, ...]], cells: list[reports.Cells]) -> list[list[Any]]:
        return [
            [
                phone if whole else filters.masked(phone),
                status,
                cause,
                because[cause, words],
                safe(identity) if identity and whole else "",  # that of WhatsApp holds the number
                run,
                name,
                line,
                at[sent],
                at[delivered],
                at[read],
                at[lost],
                *(map(safe, own) if whole else ()),
            ]
            for (phone, status, cause, words, identity, run, line, sent, delivered, read, lost, _), own in zip(
                messages, cells, strict=True
            )
        ]

    return lines


def errors_csv(file: RecipientFile, language: str) -> Response:
    """Every rejected row with its reason."""
    audit.note(auth.me().name, "file.errors", str(file.id), broadcast=file.broadcast_id)

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

    return stream_csv(batches(), f"errors-{file.id}.csv", language)


def optouts_csv(settings: Settings, language: str, actor: str) -> Response:
    """The whole stop list, the earliest entry first; worker.optout_files reads it back."""
    with db.write():
        audit.record(actor, "optout.export")

    def batches() -> Iterator[Iterable[list[str]]]:
        at, safe = reports.Seconds(ZoneInfo(settings.timezone)), reports.safe_cell
        scopes = {scope: str(label) for scope, label in words.OPTOUT_SCOPES.items()}
        sources = {source: str(label) for source, label in words.OPTOUT_SOURCES.items()}
        channels = {row_id: safe(filters.own_name(name)) for row_id, name in db.rows("SELECT id, name FROM channel")}
        because = lru_cache(1_000)(lambda source, reason: safe(sentences.optout_reason(source, reason)))
        yield [[_("Phone"), _("What is stopped"), _("Reason"), _("Source"), _("Channel"), _("Since")]]
        for rows in optouts.every():
            yield [
                [
                    phone if phone[1:].isdigit() else safe(phone),
                    scopes[scope],
                    because(source, reason),
                    sources[source],
                    channels.get(channel_id, ""),
                    at[since // clock.SECOND],
                ]
                for _id, phone, scope, reason, source, channel_id, since in rows
            ]

    return stream_csv(batches(), "optouts.csv", language)


def sample_csv(columns: list[str], language: str) -> Response:
    """The file template of a broadcast: its columns and one example row."""
    return csv_file(recipients.sample_csv(columns, language), "sample.csv")


def csv_file(data: bytes, name: str) -> Response:
    """A small file that is ready."""
    return Response(data, mimetype="text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})


def stream_csv(batches: Iterator[Iterable[list[Any]]], name: str, language: str) -> Response:
    response = Response(stream_with_context(reports.csv_lines(batches, delimiter(language))), mimetype="text/csv")
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
