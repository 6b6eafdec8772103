"""Who did what: one appended line for each act."""

from __future__ import annotations

from typing import Any

from worker import clock
from worker.models import Audit


def record(actor: str, action: str, subject: str = "", **detail: Any) -> None:
    """Append one line, inside the caller's transaction."""
    Audit.insert(at=clock.now(), actor=actor, action=action, subject=subject, detail=detail or None).execute()
