"""A connection that the server ends in the middle of a transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import peewee
import pytest

from tests import servers

if TYPE_CHECKING:
    from worker.postgres import PostgresDatabase

pytestmark = pytest.mark.scale


@pytest.fixture
def handle(postgres: servers.Postgres) -> Iterator[PostgresDatabase]:
    from worker.postgres import PostgresDatabase  # only where there is the driver

    postgres.drop("ended")
    made = PostgresDatabase(postgres.database("ended"))
    made.connect()
    made.execute_sql("CREATE TABLE kept (n BIGINT)")
    yield made
    if not made.is_closed():
        made.close()
    made.drain()
    postgres.drop("ended")


def end(postgres: servers.Postgres, handle: PostgresDatabase) -> None:
    postgres.sql("ended", f"SELECT pg_terminate_backend({handle.connection().info.backend_pid}, 5000)")


def test_a_commit_is_never_said_to_have_been_done_on_another_connection(
    postgres: servers.Postgres, handle: PostgresDatabase
) -> None:
    with pytest.raises(peewee.OperationalError), handle.atomic():
        handle.execute_sql("INSERT INTO kept VALUES (1)")
        end(postgres, handle)
        with contextlib.suppress(peewee.DatabaseError):  # whoever passes over a fault must not hide this one
            handle.execute_sql("INSERT INTO kept VALUES (2)")
    assert handle.execute_sql("SELECT COUNT(*) FROM kept").fetchone() == (0,)


def test_outside_of_a_transaction_another_connection_takes_its_place(
    postgres: servers.Postgres, handle: PostgresDatabase
) -> None:
    end(postgres, handle)
    with contextlib.suppress(peewee.DatabaseError):
        handle.execute_sql("SELECT 1")
    assert handle.execute_sql("SELECT COUNT(*) FROM kept").fetchone() == (0,)
