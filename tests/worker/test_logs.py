"""Logs hold no whole phone number, and a stranger's text cannot forge a line."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from worker.logs import JSONFormatter, TextFormatter, masked


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("sent to +79001234501", "sent to +7900•••••01"),
        ("two: +79001234501,+12125550123", "two: +7900•••••01,+1212•••••23"),
        ("number 89001234501 typed", "number 89001••••01 typed"),
        ("7 messages of 1234 in 5678 ms", "7 messages of 1234 in 5678 ms"),
        ("broadcast 7 at 1795487885985", "broadcast 7 at 1795487885985"),
    ],
)
def test_phone_numbers_are_masked(text: str, safe: str) -> None:
    assert masked(text) == safe


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("+79001234501")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("molva.web", logging.ERROR, "", 0, message, arguments, info)


def test_line_breaks_of_strangers_are_shown_not_obeyed() -> None:
    line = TextFormatter("%(message)s").format(record("name %s", "a\r\nERROR forged"))
    assert line == "name a\\r\\nERROR forged"


def test_json_is_one_object_a_line() -> None:
    line = JSONFormatter().format(record("no answer for %s", "+79001234501\n", error=True))
    event = json.loads(line)
    assert "\n" not in line
    assert (event["level"], event["logger"]) == ("error", "molva.web")
    assert event["message"] == "no answer for +7900•••••01\n"
    assert "ValueError: +7900•••••01" in event["exception"]
