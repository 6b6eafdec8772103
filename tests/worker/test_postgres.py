"""How our SQL is spelt for PostgreSQL. That it then does the same is the whole suite's business, which runs there too."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from types import SimpleNamespace

import pytest

pytest.importorskip("psycopg", reason="needs molva[scale]")

from worker import postgres

SENT = "UPDATE message SET status = ?, sent_at = COALESCE(sent_at, ?), owner = NULL WHERE id = ? AND token = ?"


@pytest.mark.parametrize(
    ("sql", "spelt"),
    [
        ("SELECT 1 WHERE a LIKE '%x' AND b = ?", "SELECT 1 WHERE a LIKE '%%x' AND b = %s"),
        ("SELECT 1 WHERE a IS ?", "SELECT 1 WHERE a IS NOT DISTINCT FROM %s"),
        ("SELECT CAST(a AS INTEGER) FROM m INDEXED BY i", "SELECT molva_whole(a) FROM m"),
        ("SELECT value FROM json_each(?)", "SELECT value FROM molva_each(%s)"),
    ],
)
def test_a_statement_is_spelt(sql: str, spelt: str) -> None:
    assert postgres.spelt(sql) == spelt


def test_many_rows_are_changed_by_one_statement() -> None:
    columns = postgres.Columns([("sent", 5, 1, "a"), ("sent", 5, 2, "b"), ("sent", 5, 3, "c")])
    assert columns.values == ["sent", 5, "{1,2,3}", '{"a","b","c"}'] and columns.fit(SENT)
    assert postgres.at_once(SENT, columns.kinds) == (
        "UPDATE message SET status = given.c0, sent_at = COALESCE(sent_at, given.c1), owner = NULL FROM (SELECT"
        " %s::text AS c0, %s::bigint AS c1, unnest(%s::bigint[]) AS c2, unnest(%s::text[]) AS c3) AS given"
        " WHERE id = given.c2 AND token = given.c3"
    )


def test_many_rows_are_added_by_one_statement() -> None:
    sql = "INSERT INTO attempt (message_id, at, outcome, code) VALUES (?, ?, 'lost', ?)"
    columns = postgres.Columns([(1, 7, None), (2, 7, None)])
    assert postgres.at_once(sql, columns.kinds) == (
        "INSERT INTO attempt (message_id, at, outcome, code) SELECT given.c0, given.c1, 'lost', NULL FROM"
        " (SELECT unnest(%s::bigint[]) AS c0, %s::bigint AS c1) AS given"
    )


def test_an_array_may_hold_nulls_and_zero_bytes_are_found_in_it() -> None:
    columns = postgres.Columns([("a\0", 1), (None, 2)])
    assert columns.kinds == ["text[]", "bigint[]"]
    assert postgres._has_zero(columns.values)
    assert postgres._without_zero(columns.values) == [["a\ufffd", None], "{1,2}"]


def test_rows_that_may_be_there_already_are_added_together() -> None:
    sql = (
        "INSERT INTO counter (file_id, status, n) VALUES (?, ?, ?) ON CONFLICT (file_id, status)"
        " DO UPDATE SET n = counter.n + excluded.n"
    )
    columns = postgres.Columns([(1, "sent", 4), (1, "failed", 5)])
    assert columns.fit(sql)
    assert postgres.at_once(sql, columns.kinds) == (
        "INSERT INTO counter (file_id, status, n) SELECT given.c0, given.c1, given.c2 FROM (SELECT %s::bigint AS c0,"
        " unnest(%s::text[]) AS c1, unnest(%s::bigint[]) AS c2) AS given ON CONFLICT (file_id, status)"
        " DO UPDATE SET n = counter.n + excluded.n"
    )
    assert not postgres.Columns([(1, "sent", 4), (1, "sent", 5)]).fit(sql)  # one would have to see the other


@pytest.mark.parametrize("word", ["", "NULL", "a,b", "{}", "it's", 'a "word"', "back\\slash", " x ", "я"])
def test_any_text_may_stand_in_an_array(word: str) -> None:
    found = postgres._literal("text", [word, "x"])
    if '"' in word or "\\" in word:
        assert found == [word, "x"]  # the driver knows how to say it
    else:
        assert found == f'{{"{word}","x"}}'


def test_a_connection_that_waits_may_have_any_number() -> None:
    """select() knows no file above 1,023, and a web process with many viewers has more."""
    here, there = socket.socketpair()
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with here, there:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, 2_048), most))
        high = fcntl.fcntl(here.fileno(), fcntl.F_DUPFD, 1_500)
        waiting = SimpleNamespace(closed=False, fileno=lambda: high)
        try:
            assert not postgres._has_died(waiting)
            there.send(b"the server takes its leave")
            assert postgres._has_died(waiting)
        finally:
            os.close(high)
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("UPDATE m SET a = ? WHERE id = ?", [(1, 5)]),  # one row needs nothing
        ("UPDATE m SET a = ? WHERE id = ?", [(1, 5), (2, 5)]),  # the later change must win
        ("UPDATE m SET a = ? WHERE id = ?", [(1, 5), ("x", 6)]),  # of no one kind
        ("INSERT INTO m (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET b = 1", [(1, 2), (1, 3)]),  # meets itself
        ("INSERT INTO m (a) VALUES (?) ON CONFLICT (a) DO UPDATE SET b = ?", [(1, 2), (2, 3)]),
        ("DELETE FROM m WHERE id = ?", [(1,), (2,)]),
    ],
)
def test_what_would_not_be_the_same_goes_row_by_row(sql: str, rows: list[tuple[object, ...]]) -> None:
    columns = postgres.Columns(rows)
    assert not (columns.fit(sql) and postgres.at_once(sql, columns.kinds))
