"""P13: the report of a large broadcast as a streamed CSV."""

from __future__ import annotations

import csv
import io
import time
from statistics import median

from tests.bench.common import TIMES, Result, apart, asked, fill, installation, memory
from webapp import create_app, exports
from worker import db
from worker.models import Broadcast, RecipientFile
from worker.reports import Filter


def measure(rows: int, columns: list[str] | None) -> tuple[float, float, float]:
    """(rows/s of the export, rows/s of reading and writing the bare columns, MB that the export added)."""
    with installation() as settings:
        file: RecipientFile = fill(rows, columns)
        app = create_app(settings)
        with asked(app, file.broadcast_id):
            broadcast = Broadcast.get_by_id(file.broadcast_id)
            next(iter(exports.report_csv(broadcast, Filter(), "en").response))  # whatever is loaded at the first time
            before = memory()["Peak"]
            began = time.perf_counter()
            lines = sum(piece.count(b"\n") for piece in exports.report_csv(broadcast, Filter(), "en").response)
            took = time.perf_counter() - began
            grown = memory()["Peak"] - before
        assert lines == rows + 1
        return rows / took, rows / bare(file.id), grown


def bare(file_id: int) -> float:
    """Seconds of the floor: one cursor over the same columns into csv.writer."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    began = time.perf_counter()
    for row in db.execute(
        "SELECT phone, status, cause, cause, provider_id, run, file_id, line, sent_at, delivered_at, read_at,"
        " undelivered_at, row FROM message WHERE file_id = ? ORDER BY line",
        [file_id],
    ):
        writer.writerow(row)
        if out.tell() > 65_536:
            out.seek(0)
            out.truncate()
    return time.perf_counter() - began


def run(big: bool) -> list[Result]:
    rows = 1_000_000 if big else 300_000
    results = []
    for what, columns in (("phones", None), ("3 columns", ["phone", "name", "city"])):
        found = [apart(measure, rows, columns) for _ in range(TIMES)]
        speed, floor, grown = (median(column) for column in zip(*found, strict=True))
        results.append(
            Result(
                f"P13 report, {what}",
                f"{speed:,.0f} rows/s",
                f"{floor:,.0f} rows/s",
                f"{speed / floor:.2f}",
                "≥ 100,000 rows/s, + ≤ 50 MB",
                speed >= 100_000 and grown <= 50,
                f"{rows:,} rows, + {grown:.0f} MB",
            )
        )
    return results
