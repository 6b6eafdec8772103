"""A PostgreSQL and a Redis of the tests' own, from the Debian packages, on free ports of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "postgres"  # its server refuses to run as root
HERE = "127.0.0.1"
START = 60.0  # seconds
# Nothing of a test has to survive a power cut; the faults that are about that ask for another.
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


# Whoever is still connected from the test before; then every row and every sequence, whatever refers to what.
ALONE = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
EMPTY = """
DO $$ DECLARE one text; here boolean; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migration' LOOP
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', one) INTO here;
    CONTINUE WHEN NOT here;
    IF pg_relation_size(format('public.%I', one)::regclass) > 65536 THEN EXECUTE format('TRUNCATE %I CASCADE', one);
    ELSE EXECUTE format('DELETE FROM %I', one); END IF;
  END LOOP;
  FOR one IN SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL AND sequencename NOT LIKE 'schema_migration%' LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', one);
  END LOOP;
END $$"""
SHAPE = (
    "SELECT (SELECT COUNT(*) FROM schema_migration), (SELECT COUNT(*) FROM pg_trigger),"
    " (SELECT string_agg(c.relname || ' ' || c.relnatts, ',' ORDER BY c.relname) FROM pg_class c"
    " WHERE c.relnamespace = 'public'::regnamespace)"
)


def postgres_folder() -> Path | None:
    """Where the newest PostgreSQL server lies; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A running server: `url(name)` for one of its databases, `sql` as its owner."""

    def __init__(self, durable: bool = False, address: str = HERE, standby_of: Postgres | None = None) -> None:
        self.address = address
        self.bin = postgres_folder()
        assert self.bin is not None, "apt-get install postgresql"
        self.folder = Path(tempfile.mkdtemp(prefix="molva-postgres-"))
        self.port = free_port()
        self.durable = durable
        self._as = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(self.folder, ACCOUNT, ACCOUNT)
        if standby_of is None:
            self._make()
        else:
            # -R writes what makes it follow.
            of = ["-h", standby_of.address, "-p", str(standby_of.port), "-U", "molva"]
            self._run("pg_basebackup", "-D", str(self.folder / "data"), *of, "-R", "-X", "stream", "-c", "fast")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _make(self) -> None:
        self._run(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-U",
            "molva",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        )
        if self.address != HERE:
            with (self.folder / "data" / "pg_hba.conf").open("a", encoding="ascii") as trusted:
                trusted.write("host all all samenet trust\n")

    def _run(self, program: str, *arguments: str) -> None:
        assert self.bin is not None
        subprocess.run(
            [*self._as, str(self.bin / program), *arguments], check=True, capture_output=True, cwd="/", timeout=START
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self.bin is not None
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-h", self.address, "-k", str(self.folder), "-c", "max_connections=300"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._as, *command, *(() if self.durable else FAST)], cwd="/", stdout=log, stderr=log
            )
        deadline = time.monotonic() + START
        while True:
            try:
                self.sql("postgres", "SELECT 1")
                return
            except Exception:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self, how: int = 2) -> None:
        """End it: SIGINT (2) is a fast shutdown, SIGQUIT (3) a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def close(self) -> None:
        self.stop(3)
        shutil.rmtree(self.folder, ignore_errors=True)

    def wait_for_standby(self) -> None:
        """From here on a commit is one when the server that follows has it as well."""
        self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("postgres", "SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make the one that followed the one that is written to. It follows nobody and waits for nobody."""
        self.sql("postgres", "SELECT pg_promote()")

    def url(self, name: str) -> str:
        return f"postgresql://molva@{self.address}:{self.port}/{name}"

    def sql(self, name: str, statement: str) -> None:
        """Run one statement outside of any transaction."""
        import psycopg

        with psycopg.connect(self.url(name), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)

    def database(self, name: str, template: str = "template1") -> str:
        """The URL of a new database."""
        self.sql("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def empty(self, name: str, template: str) -> str:
        """The URL of a database as the template is, made once: taking its rows away costs a tenth of making it anew."""
        import psycopg

        try:
            with psycopg.connect(self.url(name), autocommit=True, connect_timeout=5) as connection:
                connection.execute(ALONE)
                connection.execute(EMPTY)
                same = connection.execute(SHAPE).fetchone()
            with psycopg.connect(self.url(template), autocommit=True, connect_timeout=5) as connection:
                if connection.execute(SHAPE).fetchone() == same:
                    return self.url(name)
        except psycopg.Error:
            pass  # not there yet, or a test has changed more than rows
        self.drop(name)
        return self.database(name, template)

    def drop(self, name: str) -> None:
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def postgres(durable: bool = False, address: str = HERE) -> Iterator[Postgres]:
    """A server for as long as the block lasts."""
    server = Postgres(durable, address)
    try:
        yield server
    finally:
        server.close()


class Redis:
    """A running Redis that keeps nothing on the disk."""

    def __init__(self, address: str = HERE) -> None:
        self.address = address
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", self.address]
        command += ["--save", "", "--appendonly", "no", "--protected-mode", "no"]
        self.process = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def flush(self) -> None:
        """Take everything away, as `redis-cli flushall`."""
        with socket.create_connection((self.address, self.port), 5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(16) == b"+OK\r\n"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextmanager
def redis(address: str = HERE) -> Iterator[Redis]:
    """A server for as long as the block lasts."""
    server = Redis(address)
    try:
        yield server
    finally:
        server.stop()
