"""CSV and XLSX downloads, shared by pages and API: streamed, formula-safe, readable by a spreadsheet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, stream_with_context
from flask_babel import gettext as _

from webapp import auth, filters, sentences, words
from worker import audit, clock, db, optouts, recipients, reports, workbook
from worker.models import Broadcast, RecipientFile, RejectedRow
from worker.settings import Settings


def delimiter(language: str) -> str:
    """What the spreadsheet of this language expects."""
    return ";" if language == "ru" else ","


Safe = Callable[[str], str]


def report_csv(broadcast: Broadcast, chosen: reports.Filter, language: str) -> Response:
    """Every chosen message with its original columns.

    Whoever may not see numbers gets them masked and no columns of the files, which may hold them in any form.
    """
    seen = _noted(broadcast, chosen)

    def batches() -> Iterator[Iterable[list[Any]]]:
        with db.connection():
            _, columns = reports.export_columns(broadcast, chosen)
            yield [[*heads(reports.FIXED), *(reports.safe_cell(name) for name in columns if seen)]]
            lines = _lines_of(ZoneInfo(broadcast.timezone), reports.safe_cell, int, seen)
            for name, messages, cells in reports.export(broadcast, chosen):
                yield lines(reports.safe_cell(name), messages, cells)

    return stream_csv(batches(), f"report-{broadcast.id}.csv", language)


def report_xlsx(broadcast: Broadcast, chosen: reports.Filter) -> Response:
    """The same as a workbook."""
    seen = _noted(broadcast, chosen)

    def batches() -> Iterator[Iterable[list[Any]]]:
        lines = _lines_of(ZoneInfo(broadcast.timezone), str, workbook.Number, seen)
        for name, messages, cells in reports.export(broadcast, chosen):
            yield lines(name, messages, cells)

    def pieces() -> Iterator[bytes]:
        with db.connection():
            _, columns = reports.export_columns(broadcast, chosen)
            yield from workbook.pieces([*heads(reports.FIXED), *(columns if seen else [])], batches(), numbers=2)

    return _file(pieces(), f"report-{broadcast.id}.xlsx", workbook.MIME)


def heads(names: Iterable[str]) -> list[str]:
    """The heads of a table: for a program the names of the interface, for a person words of their language."""
    return list(names) if auth.by_token() else [str(words.COLUMNS[name]) for name in names]


def _noted(broadcast: Broadcast, chosen: reports.Filter) -> bool:
    """Whether whoever asks sees whole numbers and the columns of the files; the audit log knows of the export."""
    seen = auth.me().can("sender")
    audit.note(auth.me().name, "report.export", str(broadcast.id), run=chosen.run, masked=not seen)
    return seen


class _Causes(dict[tuple[str | None, str | None], str]):
    """The words for a cause and what the provider said to it; the same few come again and again."""

    MOST = 1_000

    def __init__(self, safe: Safe) -> None:
        super().__init__()
        self._safe = safe

    def __missing__(self, found: tuple[str | None, str | None]) -> str:
        if len(self) >= self.MOST:
            self.clear()
        code, text = found
        because = sentences.cause(code, text)
        words = self[found] = self._safe(because["text"]) if because else ""
        return words


def _lines_of(
    zone: ZoneInfo, safe: Safe, whole: Callable[[int], Any], seen: bool
) -> Callable[[str, list[tuple[Any, ...]], list[reports.Cells]], list[list[Any]]]:
    """How messages stand in the report. `safe` makes a text harmless, `whole` a number ready to be written;
    `seen`: with the numbers of people and their own cells."""
    because, at = _Causes(safe), reports.Seconds(zone)
    statuses = {name: name if auth.by_token() else str(word.label) for name, word in words.MESSAGE_STATUSES.items()}

    def lines(name: str, messages: list[tuple[Any, ...]], cells: list[reports.Cells]) -> list[list[Any]]:
        return [
            [
                phone if seen else filters.masked(phone),
                statuses[status],
                safe(cause) if cause else "",
                because[cause, words],
                safe(identity) if identity and seen else "",  # that of WhatsApp holds the number
                whole(run),
                name,
                whole(line),
                at[sent],
                at[delivered],
                at[read],
                at[lost],
                *(map(safe, own) if seen else ()),
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
            yield [heads(("line", "code", "reason", "column", "value", "row"))]
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
    return csv_file(recipients.sample_csv([reports.safe_cell(name) for name in columns], language), "sample.csv")


def csv_file(data: bytes, name: str) -> Response:
    """A small file that is ready."""
    return Response(data, mimetype="text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})


def stream_csv(batches: Iterator[Iterable[list[Any]]], name: str, language: str) -> Response:
    return _file(reports.csv_lines(batches, delimiter(language)), name, "text/csv")


def _file(pieces: Iterator[bytes], name: str, mime: str) -> Response:
    response = Response(stream_with_context(pieces), mimetype=mime)
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
