"""The whole way of a broadcast through a running server and its API, judged by the sandbox's own log."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections import Counter
from typing import Any

import pytest

from tests.journeys.conftest import Caller
from tests.product import Product, wait

pytestmark = pytest.mark.journey

SPECIAL = {1: "failed", 2: "failed", 4: "undelivered"}  # special numbers whose end is never in doubt


def phone(group: int, n: int) -> str:
    return f"+7{group}{n:07d}"


def people(group: int, count: int) -> str:
    return "phone,name\n" + "".join(f"{phone(group, n)},Guest {n}\n" for n in range(count))


def messy(group: int, rows: int, separator: str) -> tuple[str, dict[int, str]]:
    """A list of `rows` rows as people have them, and the rows that get no message: line → reason."""
    lines = [separator.join(("Телефон", "name", "Город"))]
    bad: dict[int, str] = {}
    for n in range(rows):
        line = n + 2
        number, name = f"8{group}{n:07d}", f"Гость {n}"
        if n % 50 == 7:
            number, bad[line] = f"8{group}{n - 1:07d}", "duplicate"
        elif n % 50 == 17:
            number, bad[line] = "12345", "phone_invalid"
        elif n % 50 == 27:
            name, bad[line] = "", "variable_missing"
        lines.append(separator.join((number, name, "Тула")))
    return "\n".join(lines) + "\n", bad


def report(caller: Caller, number: int) -> list[dict[str, str]]:
    answer = caller.call("GET", f"/broadcasts/{number}/report.csv", params={"run": "all"})
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_five_thousand_rows_in_two_encodings_reach_everybody_they_should(caller: Caller, product: Product) -> None:
    drafts = []
    for group, encoding, separator in ((911, "utf-8", ","), (912, "cp1251", ";")):
        text, bad = messy(group, 5_000, separator)
        number = caller.draft("sandbox_sms")
        file = caller.upload(number, text.encode(encoding))
        assert (file["state"], file["encoding"], file["delimiter"]) == ("ready", encoding, separator)
        assert (file["rows"], file["accepted"]) == (5_000, 5_000 - len(bad))
        assert file["rejected"] == dict(Counter(bad.values()))
        named = caller.call("GET", f"/broadcasts/{number}/files/{file['id']}/errors.csv")
        rows = csv.DictReader(io.StringIO(named.content.decode("utf-8-sig")))
        assert {int(row["line"]): row["code"] for row in rows} == bad
        drafts.append((number, group, set(bad)))
    for number, _group, _bad in drafts:
        assert caller.press(number, "start")["state"] == "running"
    for number, group, bad in drafts:
        caller.finished(number, 60)
        caller.finished(number, 60, completed=True)
        expected = {phone(group, n) for n in range(5_000) if n + 2 not in bad}
        found = report(caller, number)
        assert {row["phone"] for row in found} == expected and len(found) == len(expected)
        assert {row["status"] for row in found} == {"delivered"}
        arrived = [facts["phone"] for facts in product.accepted() if facts["phone"].startswith(f"+7{group}")]
        assert sorted(arrived) == sorted(expected)  # nobody twice, nobody lost


def test_failures_of_the_sandbox_have_their_causes(caller: Caller) -> None:
    number = caller.draft("sandbox_sms", text="Hi")
    caller.upload(number, "".join(f"+790000010{n:02d}\n" for n in range(1, 11) if n not in (5, 6)).encode())
    caller.press(number, "start")
    caller.finished(number, 60)
    wait(lambda: caller.numbers(number)["sent"] == 0, 30)
    found = {m["phone"]: m for m in caller.call("GET", f"/broadcasts/{number}/messages")["items"]}
    assert len(found) == 8  # the slow one and the one that never answers would take half a minute
    for n, status in SPECIAL.items():
        message = found[f"+790000010{n:02d}"]
        assert message["status"] == status and message["cause"]["text"] and message["cause"]["advice"]
        assert message["cause"]["who"]
    groups = Counter(m["status"] for m in found.values())
    assert groups["failed"] == 2 and groups["undelivered"] == 1
    wait(lambda: caller.session.get(f"{caller.product.url}/healthz", timeout=5).status_code == 200, 5)


def test_a_waba_broadcast_with_bound_variables_is_delivered_and_read(caller: Caller) -> None:
    channel = caller.channel("sandbox_waba")
    wait(lambda: bool(caller.call("GET", f"/channels/{channel}/templates")["items"]), 20)
    template = next(
        t
        for t in caller.call("GET", f"/channels/{channel}/templates")["items"]
        if t["status"] == "APPROVED" and [s["id"] for s in t["slots"]] and t["name"] == "welcome"
    )
    bindings = {slot["id"]: {"column": "name", "fallback": "friend"} for slot in template["slots"]}
    chosen = {"name": template["name"], "language": template["language"]}
    number = caller.draft("sandbox_waba", template=chosen, variables=bindings)
    file = caller.upload(number, people(913, 100).encode())
    assert file["accepted"] == 100
    caller.press(number, "start")
    caller.finished(number, 30)
    wait(lambda: caller.numbers(number)["read"] > 50, 30)


def test_after_stop_only_what_was_in_flight_arrives_and_resume_goes_on(caller: Caller, product: Product) -> None:
    number = caller.draft("sandbox_sms", rate_per_minute=6_000)
    caller.upload(number, people(914, 600).encode())
    caller.press(number, "start")
    wait(lambda: len(arrived(product, 914)) > 100, 20)
    stopped = caller.press(number, "stop")
    in_flight = stopped["counters"]["sending"]
    seen = len(arrived(product, 914))
    time.sleep(1.5)
    assert len(arrived(product, 914)) <= seen + in_flight
    assert stopped["state"] == "stopped" and stopped["allowed_actions"] == ["schedule", "resume", "clear"]
    caller.press(number, "resume")
    caller.finished(number, 30)
    assert sorted(arrived(product, 914)) == sorted(phone(914, n) for n in range(600))


def test_a_canary_of_twenty_stops_by_itself_and_the_rest_goes(caller: Caller, product: Product) -> None:
    number = caller.draft("sandbox_sms")
    for first in (0, 100):
        rows = "".join(f"{phone(919, first + n)},Guest {n}\n" for n in range(100))
        caller.upload(number, f"phone,name\n{rows}".encode())
    assert caller.press(number, "start", canary=20, pick="random")["canary"] == 20
    wait(lambda: caller.call("GET", f"/broadcasts/{number}")["state"] == "stopped", 20)
    stopped = caller.call("GET", f"/broadcasts/{number}")
    assert stopped["stop_reason"] == "canary" and "20" in stopped["stop_text"]
    assert len(set(arrived(product, 919))) == len(arrived(product, 919)) == 20
    wait(lambda: caller.numbers(number)["delivered"] == 20, 20)  # the result comes in while it stands still
    assert caller.press(number, "resume")["canary"] is None
    caller.finished(number, 30)
    assert sorted(arrived(product, 919)) == sorted(phone(919, n) for n in range(200))


def test_clear_empties_and_what_was_sent_stays_in_the_report(caller: Caller, product: Product) -> None:
    number = caller.draft("sandbox_sms", rate_per_minute=6_000)
    caller.upload(number, people(915, 1_000).encode())
    caller.press(number, "start")
    wait(lambda: len(arrived(product, 915)) > 50, 20)
    cleared = caller.press(number, "clear")
    assert cleared["state"] == "draft" and cleared["files"] == []
    time.sleep(1)
    numbers = caller.numbers(number, "all")
    assert numbers["queued"] == 0 and numbers["cancelled"] > 500
    sent = numbers["total"] - numbers["cancelled"]
    assert len(arrived(product, 915)) == sent
    assert len(report(caller, number)) == 1_000
    refused = caller.call("POST", f"/broadcasts/{number}/start", 422)
    assert refused["error"]["code"] == "no_recipients"


def test_a_restart_is_a_second_run_and_both_are_in_the_report(caller: Caller, product: Product) -> None:
    number = caller.draft("sandbox_sms")
    caller.upload(number, (people(916, 20) + "+79000001001,Nobody\n").encode())
    caller.press(number, "start")
    caller.finished(number, 20, completed=True)
    only = caller.press(number, "restart", who="failed")
    assert only["run"] == 2
    caller.finished(number, 20)
    assert caller.numbers(number)["total"] == 1
    caller.press(number, "restart", who="everyone")
    caller.finished(number, 20, completed=True)
    assert Counter(row["run"] for row in report(caller, number)) == {"1": 21, "2": 1, "3": 21}
    assert Counter(arrived(product, 916)) == {phone(916, n): 2 for n in range(20)}


@pytest.mark.parametrize(("how", "group"), [("keep", 917), ("remove", 918)])
def test_deleting_an_appended_file_in_mid_run_does_what_it_said(
    caller: Caller, product: Product, how: str, group: int
) -> None:
    number = caller.draft("sandbox_sms", rate_per_minute=3_000)
    caller.upload(number, people(group, 150).encode())
    caller.press(number, "start")
    second = "phone,name\n" + "".join(f"{phone(group, n)},Late {n}\n" for n in range(100, 300))  # 50 are there already
    file = caller.upload(number, second.encode())
    assert (file["role"], file["accepted"], file["rejected"]) == ("appended", 150, {"duplicate": 50})
    caller.call("DELETE", f"/broadcasts/{number}/files/{file['id']}", params={"on_delete": how})
    caller.finished(number, 30)
    numbers = caller.numbers(number)
    got = set(arrived(product, group))
    assert len(arrived(product, group)) == len(got)
    if how == "keep":
        assert (numbers["cancelled"], len(got)) == (0, 300)
    else:
        assert numbers["cancelled"] > 0 and len(got) == 300 - numbers["cancelled"]
        assert {phone(group, n) for n in range(150)} <= got
    assert numbers["total"] == 300


def test_ten_megabytes_are_checked_while_the_server_stays_quick(caller: Caller) -> None:
    number = caller.draft("sandbox_sms", text="Hi")
    lines = io.BytesIO()
    n = 0
    while lines.tell() < 10 * 1024 * 1024 - 13:
        lines.write(b"7%010d\n" % (9_200_000_000 + n))
        n += 1
    data = lines.getvalue()
    file: dict[str, Any] = {}
    checking = threading.Thread(target=lambda: file.update(caller.upload(number, data)))
    checking.start()
    slowest, looks = 0.0, 0
    other = Caller(caller.product)
    while checking.is_alive():
        began = time.monotonic()
        other.call("GET", "/broadcasts")
        slowest, looks = max(slowest, time.monotonic() - began), looks + 1
        time.sleep(0.05)
    checking.join()
    assert (file["state"], file["accepted"]) == ("ready", n)
    assert looks > 20 and slowest < 5  # alive all the while; how quick is for the benchmarks
    refused = caller.call(
        "POST", f"/broadcasts/{number}/files", 413, files={"file": ("big.csv", b"1" * (10 * 1024 * 1024 + 1))}
    )
    assert refused["error"]["code"] == "file_too_large"
    caller.call("DELETE", f"/broadcasts/{number}", 204)


def arrived(product: Product, group: int) -> list[str]:
    """What the sandbox took for the numbers of one test."""
    return [facts["phone"] for facts in product.accepted() if facts["phone"].startswith(f"+7{group}")]
