"""P14: report, comparison, story and filters of a million messages while the product sends, and the exports of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from statistics import median, quantiles
from typing import Any

from tests import make, people
from tests.bench import engine
from tests.bench.common import Result, apart, asked, installation, memory
from webapp import create_app, exports
from worker import broadcasts, counters, db, statistics, tasks
from worker.models import Broadcast, RecipientFile
from worker.reports import Filter

LARGE = 1_000_000
ROUNDS = 30
RATE = 15_000  # messages a minute that leave meanwhile
CONVERSATIONS = 20_000
OTHERS = 60  # broadcasts beside the large one
BAR = 200.0  # ms
EMPTY = "a page that lists nothing"
START, HOUR = 1_793_869_200_000, 3_600_000


def fill(rows: int) -> RecipientFile:
    """A finished broadcast as reports find it: most are read or delivered, one in ten was lost for some cause."""
    channel = make.channel(kind="waba", provider="sandbox_waba", price=2.5, currency="RUB")
    row = make.broadcast(state="finished", channel=channel, last_sent_at=START + HOUR)
    file = make.file(row, rows=rows, accepted=rows, run=1, columns=["phone", "name", "city"])
    chance, tally = random.Random(1), Counter[str]()

    def made() -> Iterator[tuple[Any, ...]]:
        for n in range(rows):
            at, luck = START + n * HOUR // rows, chance.random()
            arrived = at + chance.choice((900, 1_500, 2_500, 4_000, 9_000, 60_000, 600_000))
            status, cause, times = "read", None, (at + 90, arrived, arrived + int(chance.expovariate(1 / HOUR)))
            if luck < 0.45:
                status, times = "delivered", (at + 90, arrived, None)
            if luck < 0.10:
                status, times, cause = "undelivered", (at + 90, None, None), chance.choice(("131026", "131049"))
            if luck < 0.05:
                status, times, cause = "failed", (None, None, None), chance.choice(("131026", "132018", "131021"))
            if luck < 0.00001:
                cause = "130497"
            if n == rows - 3:
                status, cause, times = "sent", None, (at + 90, None, None)
            tally[status] += 1
            phone = f"+79{n:09d}"
            cells = f'["{phone}","Ann Smith","Perm"]'
            yield (row.id, file.id, n + 2, phone, cells, status, f"wamid.{n:032x}", cause, at, *times)

    with db.write():
        connection: Any = db.database.connection()  # type: ignore[no-untyped-call]
        connection.executemany(
            "INSERT INTO message (broadcast_id, run, file_id, line, phone, row, status, not_before, tries, provider_id,"
            " cause, sending_at, sent_at, delivered_at, read_at) VALUES (?, 1, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?, ?)",
            made(),
        )
        counters.add({(row.id, 1, file.id, status): n for status, n in tally.items()})
        db.execute("UPDATE run SET started_at = ?, finished_at = ? WHERE broadcast_id = ?", [START, START, row.id])
        step = max(1, rows // (2 * CONVERSATIONS))
        replies = "FROM message WHERE broadcast_id = ? AND delivered_at IS NOT NULL AND line % ? = 0"
        db.execute(
            "INSERT INTO inbound (channel_id, provider_id, phone, kind, text, message_id, broadcast_id, at, received_at)"
            f" SELECT ?, 'in' || id, phone, 'text', 'Yes', id, broadcast_id, delivered_at, delivered_at {replies}",
            [channel.id, row.id, step],
        )
        db.execute(
            "INSERT INTO conversation (channel_id, phone, state, unread, broadcast_id, last_in_at, last_at, last_text,"
            f" last_direction, created_at) SELECT ?, phone, 'open', 1, broadcast_id, 1, 1, '', 'in', 1 {replies}",
            [channel.id, row.id, step],
        )
    return file


def pages() -> list[Result]:
    """The pages, one after the other in every round, while the worker sends and counts."""
    with engine.world() as found:
        file = fill(LARGE)
        row = file.broadcast
        for _ in range(OTHERS):
            other = make.broadcast(state="finished")
            make.messages(make.file(other), "delivered", "failed")
            db.execute("UPDATE run SET started_at = 1 WHERE broadcast_id = ?", [other.id])
        app = create_app(found.settings)
        browser = people.signed_in(app, people.person("admin", "bench@example.org"))
        sending = found.draft(RATE, RATE, 0)
        broadcasts.start(found.settings, sending, "bench")
        tasks.wake(sending.id)
        tasks.count_report(row.id, 1)
        while (counted := statistics.kept(row.id, 1)) is None:
            time.sleep(0.2)
        took: dict[str, list[float]] = {name: [] for name in _addresses(row.id, file.id)}
        for n in range(ROUNDS):
            if n % 10 == 5:
                db.execute("UPDATE snapshot SET took = 0, made_at = 0, body = json_set(body, '$.mark', '')")
                tasks.count_report(row.id, 1)  # the worker counts beside its sending
            for name, url in _addresses(row.id, file.id).items():
                began = time.perf_counter()
                answer = browser.get(url)
                took[name].append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, url
        left = db.value("SELECT COUNT(*) FROM message WHERE broadcast_id = ? AND status = 'queued'", [sending.id])
        note = f"while {RATE // 60:,}/s leave, {left:,} of {RATE:,} still waited at the end"
        ends = {name: quantiles(times, n=20)[-1] for name, times in took.items()}
        floor = ends.pop(EMPTY)
        results = [
            Result(
                f"P14 {name}, p95 (median)",
                f"{p95:.0f} ms ({median(took[name]):.0f})",
                f"{floor:.0f} ms {EMPTY}",
                f"{p95 / floor:.1f}",
                f"≤ {BAR:.0f} ms",
                p95 <= BAR,
                note,
            )
            for name, p95 in ends.items()
        ]
        worker = f"{counted.took / 1000:.1f} s of reading by the worker while it sends"
        return [*results, Result("P14 counting the facts", worker, "", "", "", True)]


def _addresses(broadcast: int, file: int) -> dict[str, str]:
    report = f"/broadcasts/{broadcast}/report?run=1"
    message = db.value("SELECT id FROM message WHERE file_id = ? AND run = 1 AND line = ?", [file, LARGE // 2])
    return {
        EMPTY: "/broadcasts?name=nobody",
        "report": report,
        "facts": f"/broadcasts/{broadcast}/report/facts?run=1",
        "comparison": "/reports",
        "story": f"/broadcasts/{broadcast}/messages/{message}",
        "deep page": f"{report}&after=1.{file}.{LARGE - 100}",
        "by status": f"{report}&status=failed&after=1.{file}.{LARGE // 2}",
        "by a status that hardly any has": f"{report}&status=sent",
        "by a cause that hardly any has": f"{report}&cause=130497",
        "by number": f"{report}&phone=%2B79000999990",
        "by the beginning of numbers": f"{report}&phone=%2B7900099",
        "question before a rescue": f"/broadcasts/{broadcast}/causes/sms?cause=131026",
    }


def workbook(rows: int) -> tuple[float, float]:
    """(rows/s of the workbook, MB that it added)."""
    with installation() as settings:
        row = Broadcast.get_by_id(fill(rows).broadcast_id)
        with asked(create_app(settings), row.id):
            next(iter(exports.report_xlsx(row, Filter(status="sent")).response))
            before = memory()["Peak"]
            began = time.perf_counter()
            for _piece in exports.report_xlsx(row, Filter()).response:
                pass
            return rows / (time.perf_counter() - began), memory()["Peak"] - before


def run(big: bool) -> list[Result]:
    rows = LARGE if big else 300_000
    speed, grown = apart(workbook, rows)
    size = Result(
        "P14 report as XLSX, 3 columns",
        f"{speed:,.0f} rows/s",
        "",
        "",
        "+ ≤ 50 MB",
        grown <= 50,
        f"{rows:,} rows, + {grown:.0f} MB",
    )
    return [*pages(), size]
