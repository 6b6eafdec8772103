"""Numbered steps, each with its own frozen tables; applied in order and recorded by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker import db


class SchemaError(RuntimeError):
    """The database and the program do not belong together; the message says what to run."""


def _runner() -> Any:
    # Imported here: a running web or worker process needs the schema's state only once.
    from playhouse.migrations import Runner

    return Runner(db.database.obj, directory=str(Path(__file__).parent))


def upgrade() -> list[str]:
    """Apply every step that is missing, each in a transaction; the names of the applied ones."""
    with db.connection(), db.migrating():
        runner = _runner()
        _refuse_newer(runner)
        db.prepare()
        return [str(name) for name in runner.up()]


def require_current() -> None:
    """Raise SchemaError when steps are missing or the database is newer than this program."""
    with db.connection():
        runner = _runner()
        _refuse_newer(runner)
        missing = [step.name for step in runner.status() if step.applied is None]
    if missing:
        raise SchemaError("The database is older than the program. Run: molva migrate")


def names() -> list[str]:
    """All steps of this program, in order."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[0-9]*.py"))


def _refuse_newer(runner: Any) -> None:
    unknown = [step.name for step in runner.status() if step.path is None]
    if unknown:
        raise SchemaError(
            f"The database was made by a newer Molva (step {unknown[-1]}). Install that version or restore a backup."
        )
