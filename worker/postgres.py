"""The one place where PostgreSQL differs from SQLite: the handle, the spelling of SQL, the errors.

All SQL of the house is written once, for SQLite. A few functions of the same meaning, made at every migration,
and two replacements in the text let PostgreSQL read it. Writers take turns by an advisory lock, across all
hosts, as SQLite's BEGIN IMMEDIATE makes them do on one: what holds there for claims, the throttle and counters
holds here by the same reasoning. Transactions are short, so the turns cost little (README, "How it is built").
"""

from __future__ import annotations

import contextlib
import re
import selectors
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import peewee
import psycopg
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus

from worker import clock

LOCK = 0x6D6F6C7661  # "molva"
# Whoever is frozen or cut off in the middle of a transaction holds up all writers: the server ends it soon.
STALL = 5  # seconds
OPTIONS = (
    f"-c lock_timeout=10s -c idle_in_transaction_session_timeout={STALL}s -c tcp_keepalives_idle=5"
    " -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=20s"
    " -c timezone=UTC -c synchronous_commit=on -c jit=off"
)
WAITING = 32  # connections that no thread uses at the moment
PATIENCE = 10  # seconds to connect
Look = getattr(selectors, "PollSelector", selectors.SelectSelector)  # select() itself knows no file above 1,023

# PostgreSQL has a json_each of its own that does something else.
FUNCTIONS = r"""
CREATE OR REPLACE FUNCTION molva_path(text) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT string_to_array(trim(both '.' from regexp_replace($1, '[$.\[\]]+', '.', 'g')), '.') $$;
CREATE OR REPLACE FUNCTION molva_extract(text, text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT $1::jsonb #>> molva_path($2) $$;
CREATE OR REPLACE FUNCTION molva_each(text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT ROWS 500 AS
$$ SELECT jsonb_array_elements_text($1::jsonb) $$;
CREATE OR REPLACE FUNCTION molva_each(text, text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE STRICT ROWS 2 AS
$$ SELECT jsonb_array_elements_text($1::jsonb #> molva_path($2)) $$;
CREATE OR REPLACE FUNCTION molva_whole(text) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS
$$ SELECT substring($1 from '^[0-9]{1,17}')::bigint $$;
CREATE OR REPLACE FUNCTION max(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN $1 IS NULL OR $2 IS NULL THEN NULL ELSE greatest($1, $2) END $$;
CREATE OR REPLACE FUNCTION min(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN $1 IS NULL OR $2 IS NULL THEN NULL ELSE least($1, $2) END $$;
CREATE OR REPLACE FUNCTION casefold(text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT lower($1 COLLATE "und-x-icu") $$;
"""


FULL, BUSY = {"53100"}, {"55P03", "57014"}


def trouble(error: BaseException) -> str:
    """What the server suffers from: full, busy, broken, or "" for a fault of our own making."""
    if not isinstance(error, psycopg.Error):
        return ""
    state = error.sqlstate or ""
    if state in FULL:
        return "full"
    if state in BUSY:
        return "busy"
    # Without a state the connection itself was lost; classes 08, 53, 57, 58 are the server's own troubles.
    lost = isinstance(error, psycopg.OperationalError) and not state
    return "broken" if lost or state[:2] in ("08", "53", "57", "58") else ""


_Base: Any = peewee.PostgresqlDatabase


class PostgresDatabase(_Base):  # type: ignore[misc]
    """One database of a PostgreSQL server, by its URL. A lost connection is made anew where it is next needed."""

    def __init__(self, url: str) -> None:
        self._waiting: list[Any] = []
        super().__init__(
            url,
            autoconnect=False,
            prefer_psycopg3=True,
            options=OPTIONS,
            connect_timeout=PATIENCE,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
            application_name="molva",
        )

    def _connect(self) -> Any:
        """A connection that waits, else a new one: opening one costs more than most of what is asked of it."""
        while self._waiting:
            with contextlib.suppress(IndexError):  # another thread was faster
                found = self._waiting.pop()
                if not _has_died(found):
                    return found
                found.close()
        made: Any = super()._connect()
        made.adapters.register_loader("numeric", _Whole)
        made.prepare_threshold = 2
        return made

    def _close(self, conn: Any) -> None:
        if conn.closed or len(self._waiting) >= WAITING or conn.info.transaction_status != TransactionStatus.IDLE:
            conn.close()
        else:
            self._waiting.append(conn)

    def drain(self) -> None:
        """Close what waits."""
        while self._waiting:
            self._waiting.pop().close()

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """As peewee's, with texts as PostgreSQL takes them."""
        try:
            return super().execute_sql(sql, params)
        except peewee.DataError:
            if not _has_zero(params):
                raise
        return super().execute_sql(sql, _without_zero(params))

    def cursor(self, named_cursor: Any = None) -> Any:
        """A cursor of `connection()`, by which peewee asks: it would keep one that the server has closed."""
        if not self.is_closed():
            self.connection()
        return super().cursor(named_cursor)

    def connection(self) -> Any:
        """This thread's connection; one that the server has closed is replaced, outside of a transaction."""
        found: Any = super().connection()
        if found.closed and not self.in_transaction():
            self.close()
            self.connect()
            found = super().connection()
        return found

    def begin(self, isolation_level: Any = None) -> None:
        """Begin to write, when all other writers of all hosts have ended."""
        self.connection()
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined,unused-ignore]
            try:
                # nosemgrep: formatted-sql-query (a constant of ours)
                self.cursor().execute(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK})")
            except Exception:
                with contextlib.suppress(Exception):
                    self.cursor().execute("ROLLBACK")
                raise

    def commit(self) -> None:
        """Commit on the connection that began; peewee has forgotten by now that there was a transaction."""
        if self._has_lost():
            raise peewee.OperationalError("the connection was lost in the transaction")
        super().commit()

    def rollback(self) -> None:
        """Undo the transaction; a server that is gone has done so itself."""
        if not self._has_lost():
            super().rollback()

    def _has_lost(self) -> bool:
        return self._state.conn is None or bool(self._state.conn.closed)

    # --- what worker.db calls ---------------------------------------------------------------------

    def run(self, sql: str, parameters: Any) -> Any:
        return self.run_spelt(spelt(sql), parameters)

    def run_spelt(self, sql: str, parameters: Any) -> Any:
        try:
            return self.connection().execute(sql, parameters)
        except psycopg.DataError:
            if not _has_zero(parameters):
                raise
        return self.connection().execute(sql, _without_zero(parameters))

    def run_many(self, sql: str, parameters: Any) -> int:
        columns = Columns(parameters)
        together = columns.fit(sql) and at_once(sql, columns.kinds)
        if together:
            return int(self.run_spelt(together, columns.values).rowcount)
        cursor = self.connection().cursor()
        cursor.executemany(spelt(sql), parameters)
        return int(cursor.rowcount)

    def spelt(self, sql: str) -> str:
        return spelt(sql)

    def among(self, column: str, numbers: Sequence[int]) -> tuple[str, list[Any]]:
        # One text of the statement for any number of them, so that the server knows it.
        return f"{column} = ANY(?::bigint[])", [_literal("bigint", numbers)]

    def holding(self, column: str, text: str) -> tuple[str, str]:
        return f"casefold({column}) LIKE ? ESCAPE '!'", f"%{_escaped(text.lower())}%"

    def beginning(self, column: str, text: str) -> tuple[str, str]:
        return f"{column} LIKE ? ESCAPE '!'", f"{_escaped(text)}%"

    def inbound_with(self, text: str, latest: int) -> tuple[str, str]:
        condition, value = self.holding("text", text)
        sql = f"SELECT id FROM inbound WHERE {condition} AND text <> '' ORDER BY id DESC LIMIT {latest:d}"  # noqa: S608
        return sql, value

    def copy_in(self, sql: str, given: Iterable[Sequence[Any]]) -> int:
        n = 0
        with self.connection().cursor().copy(sql) as target:
            for row in given:
                target.write_row(row)
                n += 1
        return n

    def hold(self, kind: int, number: int) -> Held | None:
        with peewee.__exception_wrapper__:  # type: ignore[attr-defined,unused-ignore]
            held = Held(self.database, kind, number)
        return held if held.taken else None

    @contextlib.contextmanager
    def migrating(self) -> Iterator[None]:
        # nosemgrep: formatted-sql-query (a constant of ours)
        self.connection().execute(f"SET lock_timeout = 0; SELECT pg_advisory_lock({LOCK + 1})")
        try:
            yield
        finally:
            # nosemgrep: formatted-sql-query (a constant of ours)
            self.connection().execute(f"SELECT pg_advisory_unlock({LOCK + 1}); SET lock_timeout = '10s'")

    def clock_ahead(self) -> int:
        row = self.connection().execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
        return int(clock.now() - row[0])

    def prepare(self) -> None:
        """Make the functions that our SQL uses; done before every migration."""
        with self.atomic():
            self.connection().execute(FUNCTIONS)


def _escaped(text: str) -> str:
    return re.sub("([!%_])", r"!\1", text)


# SQLite reads a whole number off the beginning of any text; PostgreSQL raises.
_CAST = re.compile(r"CAST\((\S+) AS INTEGER\)")
_INDEX = re.compile(r" INDEXED BY \w+")


@lru_cache(4_096)
def spelt(sql: str) -> str:
    """A statement of ours as PostgreSQL spells it. No literal in our SQL has a question mark."""
    sql = _CAST.sub(
        r"molva_whole(\1)", sql.replace("%", "%%").replace(" IS ?", " IS NOT DISTINCT FROM ?").replace("?", "%s")
    )
    sql = _INDEX.sub("", sql)  # its planner has statistics and takes no advice
    return sql.replace("json_each(", "molva_each(").replace("json_extract(", "molva_extract(")


# A row after the other costs the server more than the change itself, so the values of all rows go as arrays.
_UPDATE = re.compile(r"(UPDATE \w+ SET .+?) (WHERE .+)", re.DOTALL)
_INSERT = re.compile(r"(INSERT INTO \S+ \([^()]+\)) VALUES \((.+?)\)( ON CONFLICT [^?]+)?", re.DOTALL)
_CONFLICT = re.compile(r"ON CONFLICT \(([^()]+)\)")
_KINDS = {int: "bigint", str: "text", float: "float8", bytes: "bytea", bool: "boolean"}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _literal(kind: str, values: Sequence[Any]) -> Any:
    """Values as the text of an array, a tenth of the work of handing over each; a list where that is safer."""
    if None in values:
        return list(values)
    if kind == "bigint":
        return f"{{{','.join(map(str, values))}}}"
    if kind == "text":
        inside = "".join(values)
        if '"' not in inside and "\\" not in inside:
            return '{"' + '","'.join(values) + '"}'
    return list(values)


class Columns:
    """The values of many rows, place by place: as an array, or once where all rows have the same."""

    def __init__(self, given: Sequence[Sequence[Any]]) -> None:
        self._given = given
        self.rows = len(given)
        self.kinds: list[str] = []  # of each place: "bigint[]" for an array, "bigint" for one value, "" for NULL
        self.values: list[Any] = []
        self._last: tuple[Any, ...] = ()
        for column in zip(*given, strict=True):
            self._last = column
            kinds = {type(value) for value in column if value is not None}
            if not kinds:
                self.kinds.append("")
                continue
            kind = _KINDS.get(kinds.pop(), "?") if len(kinds) == 1 else "?"
            same = column.count(column[0]) == len(column)
            self.kinds.append(kind if same else f"{kind}[]")
            self.values.append(column[0] if same else _literal(kind, column))

    def fit(self, sql: str) -> bool:
        """Whether one statement does the same as many: there are many, and no row is changed twice."""
        if self.rows < 2 or any(kind[0] == "?" for kind in self.kinds if kind):
            return False
        if not sql.startswith("INSERT"):
            return len(set(self._last)) == self.rows
        if (conflict := _CONFLICT.search(sql)) is None:
            return True
        names = _names(sql[sql.index("(") + 1 : sql.index(")")])
        at = [names.index(name) for name in _names(conflict[1])]
        return len({tuple(row[n] for n in at) for row in self._given}) == self.rows


def at_once(sql: str, kinds: Sequence[str]) -> str:
    """A statement of ours for one row as PostgreSQL carries it out for many, with the values of `Columns`; "" where
    it has no such form. The last place of an UPDATE names the row."""
    return _at_once(sql, tuple(kinds))


@lru_cache(1_024)
def _at_once(sql: str, kinds: tuple[str, ...]) -> str:
    update, insert = _UPDATE.fullmatch(sql), _INSERT.fullmatch(sql)
    if not (update or insert) or not any(kind.endswith("[]") for kind in kinds):
        return ""
    at = iter(range(len(kinds)))

    def place(_found: re.Match[str]) -> str:
        n = next(at)
        return f"given.c{n}" if kinds[n] else "NULL"  # which takes the type of where it goes

    def places(text: str) -> str:
        # spelt() comes first: it escapes what psycopg would take for a place of its own.
        return re.sub("%s", place, spelt(text))

    if update:
        form = places(update[1]), places(update[2])
    else:
        assert insert is not None
        form = f"{insert[1]} SELECT {places(insert[2])}", spelt((insert[3] or "").strip())
    source = ", ".join(
        f"{'unnest(%s::' + kind + ')' if kind.endswith('[]') else '%s::' + kind} AS c{n}"
        for n, kind in enumerate(kinds)
        if kind
    )
    return f"{form[0]} FROM (SELECT {source}) AS given {form[1]}".rstrip()


# A text may hold a zero byte in SQLite; here it is refused before anything is sent.


def _has_zero(parameters: Any) -> bool:
    return any(
        _has_zero(value) if isinstance(value, list) else isinstance(value, str) and "\0" in value
        for value in parameters or ()
    )


def _without_zero(parameters: Any) -> list[Any]:
    return [
        _without_zero(value)
        if isinstance(value, list)
        else value.replace("\0", "\ufffd")
        if isinstance(value, str)
        else value
        for value in parameters
    ]


def _has_died(connection: Any) -> bool:
    """Whether an idle connection was closed, or something arrived there unasked, which is the server's farewell."""
    if connection.closed:
        return True
    with Look() as look:
        look.register(connection, selectors.EVENT_READ)
        return bool(look.select(0))


class Held:
    """A lock of the whole installation, on a connection of its own: the server frees it when its holder is gone."""

    def __init__(self, url: str, kind: int, number: int) -> None:
        self._connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=PATIENCE,
            options=OPTIONS,
            application_name="molva lock",
            tcp_user_timeout=5_000,  # sooner than the server gives the lock to another
        )
        try:
            row = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [kind, number]).fetchone()
        except BaseException:
            self._connection.close()
            raise
        self.taken = bool(row and row[0])
        if not self.taken:
            self._connection.close()

    def stands(self) -> bool:
        """Whether the server still knows us, and so keeps the lock for us."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        self._connection.close()


class _Whole(Loader):
    """SUM of whole numbers is a NUMERIC here; to the rest of the house it is a whole number."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return float(text) if "." in text or "N" in text else int(text)
