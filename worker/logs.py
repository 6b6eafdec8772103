"""Logs: one line for each event, as text or JSON, without whole phone numbers and without line breaks of strangers."""

from __future__ import annotations

import json
import logging
import re
import sys

from worker import clock
from worker.settings import Settings

# Eight digits and more after a plus, or a Russian number without one: shown as +7900•••••01.
_PHONE = re.compile(r"\+\d{4}\d{2,9}\d{2}(?!\d)|(?<!\d)[78]\d{10}(?!\d)")
_BREAKS = re.compile(r"[\r\n\x00-\x08\x0b-\x1f\x7f]")


def masked(text: str) -> str:
    """`text` with every phone number reduced to its beginning and its last two digits."""
    return _PHONE.sub(lambda found: found[0][:5] + "•" * (len(found[0]) - 7) + found[0][-2:], text)


class TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _BREAKS.sub(lambda found: repr(found[0])[1:-1], masked(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        return masked(super().formatException(ei))  # type: ignore[arg-type]


class JSONFormatter(TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "at": clock.iso(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Write this process's log to stderr in the form that MOLVA_LOG asks for."""
    handler = logging.StreamHandler(sys.stderr)
    shape = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(JSONFormatter() if settings.log == "json" else TextFormatter(shape))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("huey").setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
