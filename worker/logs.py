"""Logs: one line for each event, as text or JSON, without whole phone numbers and without line breaks of strangers."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from worker import clock
from worker.settings import Settings

# What a line belongs to that is written while a request is answered; "" outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")

# Eight digits and more after a plus, or a Russian number without one, in whatever way they are set apart:
# shown as +7900•••••01.
_APART = r"(?:[ ().-]{0,2}\d)"
_PHONE = re.compile(rf"(?:\+|%2B)\d{_APART}{{7,14}}(?!\d)|(?<!\d)[78]{_APART}{{10}}(?!\d)")
_BREAKS = re.compile(r"[\r\n\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


def masked(text: str) -> str:
    """`text` with every phone number reduced to its beginning and its last two digits."""
    return _PHONE.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    plus = "" if found[0][0].isdigit() else "+"
    number = plus + re.sub(r"\D", "", found[0].removeprefix("%2B"))
    return number[:5] + "•" * (len(number) - 7) + number[-2:]


class TextFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _BREAKS.sub(lambda found: repr(found[0])[1:-1], masked(record.message))
        request = request_id.get()
        return super().formatMessage(record) + (f" [{request}]" if request else "")

    def formatException(self, ei: Any) -> str:
        # Set in, so that no line of a stranger's text can pass for one of the log.
        return "  " + masked(super().formatException(ei)).replace("\r", "\\r").replace("\n", "\n  ")


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": clock.iso(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
            "request_id": request_id.get() or None,
        }
        if record.exc_info:
            event["exception"] = masked(self.formatException(record.exc_info))
        return json.dumps(event, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Write this process's log to stderr in the form that MOLVA_LOG asks for, whatever goes wrong included."""
    handler = logging.StreamHandler(sys.stderr)
    shape = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(JSONFormatter() if settings.log == "json" else TextFormatter(shape))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("huey").setLevel(logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """A fault that nobody caught ends up in the log as well, not beside it."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("molva").critical("uncaught fault", exc_info=(kind, error or kind(), trace))
