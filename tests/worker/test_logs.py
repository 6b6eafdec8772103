"""Logs hold no whole phone number, and a stranger's text cannot forge a line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from worker.logs import JSONFormatter, TextFormatter, masked, request_id


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("sent to +79001234501", "sent to +7900•••••01"),
        ("two: +79001234501,+12125550123", "two: +7900•••••01,+1212•••••23"),
        ("number 89001234501 typed", "number 89001••••01 typed"),
        ("7 messages of 1234 in 5678 ms", "7 messages of 1234 in 5678 ms"),
        ("broadcast 7 at 1795487885985", "broadcast 7 at 1795487885985"),
        ("typed as +7 (900) 123-45-01", "typed as +7900•••••01"),
        ("typed as 8 900 123 45 01", "typed as 89001••••01"),
        ("?to=%2B4915112345601&x=1", "?to=+4915•••••••01&x=1"),
        ("?to=79001234501", "?to=79001••••01"),
        ("id 0123456789abcdef in 2026-11-26 at 10:20:30", "id 0123456789abcdef in 2026-11-26 at 10:20:30"),
    ],
)
def test_phone_numbers_are_masked(text: str, safe: str) -> None:
    assert masked(text) == safe


def record(message: str, *arguments: object, error: bool = False, text: str = "+79001234501") -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError(text)
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("molva.web", logging.ERROR, "", 0, message, arguments, info)


@pytest.mark.parametrize("sign", ["\r\n", "\x85", "\u2028"])
def test_line_breaks_of_strangers_are_shown_not_obeyed(sign: str) -> None:
    line = TextFormatter("%(message)s").format(record("name %s", f"a{sign}ERROR forged"))
    assert len(line.splitlines()) == 1 and "forged" in line


def test_a_stranger_s_text_in_an_exception_cannot_pass_for_a_line() -> None:
    text = TextFormatter("%(levelname)s %(message)s").format(record("no", error=True, text="x\nERROR forged"))
    assert [line for line in text.splitlines() if line.startswith("ERROR")] == ["ERROR no"]


def test_json_is_one_object_a_line() -> None:
    line = JSONFormatter().format(record("no answer for %s", "+79001234501\n", error=True))
    event = json.loads(line)
    assert "\n" not in line
    assert set(event) == {"time", "level", "logger", "message", "request_id", "exception"}
    assert (event["level"], event["logger"], event["request_id"]) == ("error", "molva.web", None)
    assert event["message"] == "no answer for +7900•••••01\n"
    assert "ValueError: +7900•••••01" in event["exception"]


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter("%(message)s")])
def test_a_line_names_the_request_that_it_belongs_to(formatter: logging.Formatter) -> None:
    held = request_id.set("7f")
    try:
        assert "7f" in formatter.format(record("x"))
    finally:
        request_id.reset(held)
    assert "7f" not in formatter.format(record("x"))


def test_what_nobody_caught_is_in_the_log_too() -> None:
    program = """
import threading, warnings
from worker import logs
from worker.settings import Settings
logs.configure(Settings(log="json"))
warnings.warn("beware of +79001234501")
def fail(): raise ValueError("thread +79001234501")
thread = threading.Thread(target=fail); thread.start(); thread.join()
class Bad:
    def __del__(self): raise ValueError("unraisable +79001234501")
Bad()
raise ValueError("main +79001234501")
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["level"] for event in events] == ["warning", "critical", "critical", "critical"]
    told = " ".join(event["message"] + event.get("exception", "") for event in events)
    for word in ("beware of", "thread", "unraisable", "main"):
        assert f"{word} +7900•••••01" in told
