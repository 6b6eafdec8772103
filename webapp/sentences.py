"""Codes and facts of the worker as sentences in the reader's language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask_babel import gettext as _

from worker.broadcasts import Problem

Facts = Mapping[str, Any]


def _names(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)


def problem(found: Problem) -> str:
    """Why a value cannot be used, or why a broadcast cannot start."""
    facts: dict[str, Any] = {"v": "", "slot": "", "name": "", "min": 1, "max": 0, "status": "", "language": ""}
    facts.update({key: _names(value) for key, value in found.facts.items()})
    words = {
        "name_required": _("Enter a name"),
        "name_too_long": _("The name is too long, up to %(max)s characters are possible", **facts),
        "name_invalid": _("The name has a character that cannot be shown"),
        "channel_required": _("Choose a channel"),
        "channel_unknown": _("There is no such channel"),
        "text_required": _("Enter the message text"),
        "text_empty": _("Enter the message text"),
        "text_too_long": _("The text is too long"),
        "text_bad_variable": _("A variable has no name: %(v)s", **facts),
        "text_unclosed": _("A variable is not closed: write {{ name }}"),
        "template_required": _("Choose an approved template"),
        "template_unknown": _("The template does not exist or is not approved in this language"),
        "template_not_approved": _("The template is not approved: %(status)s", **facts),
        "template_unsupported": _("This version cannot send such a template"),
        "template_needs_waba": _("A template needs a WABA channel"),
        "slot_unbound": _("Say where the value of %(slot)s comes from", **facts),
        "slot_unknown": _("The template has no variable %(slot)s", **facts),
        "rate_range": _("From 1 to 60,000 messages per minute"),
        "send_at_past": _("The start time is already past"),
        "send_at_far": _("The start time is more than a year ahead"),
        "send_at_invalid": _("This is not a date and time"),
        "timezone_unknown": _("There is no such time zone"),
        "region_unknown": _("There is no such country code"),
        "only_in_draft": _("This can be changed only in a draft"),
        "already_started": _("The broadcast has already started"),
        "file_checking": _("A file is still being checked"),
        "no_recipients": _("Nobody would get the message: add a recipient file"),
        "has_report": _("It has sent messages and stays for its report"),
        "not_a_choice": _("Choose one of the offered values"),
        "not_a_boolean": _("Say yes or no"),
        "variables_invalid": _("The variables cannot be read"),
    }
    return str(words.get(found.code, _("This value cannot be used")))


def file_code(code: str, detail: Facts | None) -> str:
    """Why a whole file was refused."""
    facts: dict[str, Any] = {"n": "", "c": "", "max": "", "cols": "", "size": ""}
    facts.update({key: _names(value) for key, value in (detail or {}).items()})
    words = {
        "file_too_large": _("The file is over 10 MB. Split it and upload the second part by “Append to the list”"),
        "file_empty": _("The file is empty"),
        "file_binary": _("This is not a text file. Save the table as “CSV UTF-8”"),
        "encoding_unknown": _("The encoding could not be detected. Choose it from the list"),
        "delimiter_unknown": _("Choose one of the offered values"),
        "bad_quoting": _("A quotation mark is opened and never closed. Save the file again from the table"),
        "no_header": _("The first row has no column names"),
        "repeated_column": _("Two columns have the same name: %(c)s", **facts),
        "no_phone_column": _("No phone column found. Choose it or name it “phone”"),
        "phone_column_ambiguous": _("Several columns may hold the phone: %(cols)s. Choose one", **facts),
        "missing_columns": _("Missing columns: %(cols)s", **facts),
        "no_valid_rows": _("No row was accepted. The reasons are below"),
        "cell_too_large": _("A cell is too long: row %(n)s, column “%(c)s”", **facts),
        "too_many_rows": _("Too many rows: %(n)s, up to %(max)s are possible", **facts),
        "too_many_files": _("Too many files: up to %(max)s are possible", **facts),
    }
    return str(words.get(code, _("The file cannot be used")))


def row_reason(code: str, line: int, value: str | None, column: str | None, other: Facts | None) -> str:
    """Why one row got no message."""
    facts: dict[str, Any] = {"n": line, "v": value or "", "c": column or "", "m": "", "file": "", "max": ""}
    facts.update(other or {})
    if code == "duplicate":
        facts["m"] = (other or {}).get("line", "")
        if facts["file"]:
            return str(_("Row %(n)s: duplicate, the number is already in “%(file)s”, row %(m)s", **facts))
        return str(_("Row %(n)s: duplicate, the number is already in row %(m)s", **facts))
    words: dict[str, Callable[[], str]] = {
        "blank_row": lambda: _("Row %(n)s: blank", **facts),
        "phone_missing": lambda: _("Row %(n)s: no phone number", **facts),
        "phone_invalid": lambda: _("Row %(n)s: “%(v)s” is not a phone number", **facts),
        "phone_scientific": lambda: _(
            "Row %(n)s: Excel shortened the number to “%(v)s”. Make the column text and save the file again", **facts
        ),
        "phone_not_mobile": lambda: _("Row %(n)s: SMS cannot be sent to a fixed-line number", **facts),
        "opted_out": lambda: _("Row %(n)s: the number is on the stop list", **facts),
        "variable_missing": lambda: _("Row %(n)s: “%(c)s” is empty", **facts),
        "variable_invalid": lambda: _(
            "Row %(n)s: “%(c)s” has a line break, a tab or five spaces in a row, which WhatsApp refuses", **facts
        ),
        "text_too_long": lambda: _("Row %(n)s: the text is too long, %(m)s of %(max)s", **facts),
        "too_many_columns": lambda: _("Row %(n)s: more cells than columns. A value may contain the delimiter", **facts),
    }
    return str(words[code]()) if code in words else code


def cause(code: str | None, detail: str | None = None) -> dict[str, str] | None:
    """Why a message is not delivered: code, words, who can fix it, what to do."""
    if not code:
        return None
    person, you, provider, passes = _("recipient"), _("you"), _("provider"), _("it passes")
    unreachable = (_("The provider is unreachable: retried automatically"), passes, _("Wait"))
    unclear = (
        _("The request left, no answer came. Most likely it was sent. It is never repeated by itself"),
        passes,
        _("Wait for a delivery report, or decide"),
    )
    words = {
        "131026": (_("The number is not on WhatsApp or cannot receive this. Send an SMS"), person, _("Send an SMS")),
        "131049": (
            _("WhatsApp limits marketing to this person. Try again after a day at the earliest"),
            passes,
            _("Try again after a day"),
        ),
        "131050": (
            _("The person has opted out of marketing. The number is on the stop list"),
            person,
            _("Nothing to do"),
        ),
        "132000": (
            _("The variables do not fit the template. Check their number and format"),
            you,
            _("Check the variables"),
        ),
        "132001": (
            _("The template does not exist or is not approved in this language"),
            you,
            _("Choose another template"),
        ),
        "132015": (_("The template is paused for quality"), you, _("Choose another template")),
        "190": (_("The access key is refused. Renew it in the channel settings"), you, _("Renew the key")),
        "130429": (_("Too fast for the provider: slowed down automatically"), passes, _("Wait")),
        "sms_throttled": (_("Too fast for the provider: slowed down automatically"), passes, _("Wait")),
        "sms_bad_token": (_("The access key is refused. Renew it in the channel settings"), you, _("Renew the key")),
        "sms_no_balance": (_("The provider account is out of money. Top it up"), you, _("Top up the account")),
        "sms_bad_sender": (
            _("The sender name is not registered. Arrange it with the provider"),
            you,
            _("Register the sender name"),
        ),
        "sms_unknown_subscriber": (_("No such number"), person, _("Correct the number")),
        "sms_absent": (_("The phone was off or out of reach for too long"), person, _("Try again later")),
        "sms_barred": (_("The subscriber is barred by the operator"), person, _("Nothing to do")),
        "sms_rejected": (
            _("The operator did not let the message through. Check the text and the contract"),
            provider,
            _("Check the text"),
        ),
        "sms_bad_text": (
            _("The operator did not let the message through. Check the text and the contract"),
            you,
            _("Check the text"),
        ),
        "opted_out": (_("The number is on the stop list"), person, _("Nothing to do")),
        "connect_failed": unreachable,
        "dns": unreachable,
        "tls": (_("The secure connection to the provider failed"), you, _("Check the address of the channel")),
        "variable_missing": (_("A value is missing in the file"), you, _("Correct the file")),
    }
    text, who, advice = words.get(
        code,
        unclear
        if code in ("timeout", "connection_lost", "worker_lost", "internal", "unreadable") or code.startswith("http_5")
        else (_("An answer we do not know: “%(text)s”", text=detail or code), provider, _("Ask the provider")),
    )
    return {"code": code, "text": str(text), "who": str(who), "advice": str(advice)}


def stop_reason(code: str | None, detail: Facts | None) -> str:
    """Why a broadcast stands still."""
    facts = dict(detail or {})
    if not code:
        return ""
    because = cause(facts.get("cause"), facts.get("text"))
    words = because["text"] if because else ""
    if code == "person":
        return str(_("Stopped: %(user)s", user=facts.get("by", "")))
    if code == "missed":
        return str(_("Stopped: the server was down at the start time"))
    if code == "same_error":
        return str(_("Stopped: the same error for %(n)s recipients in a row: %(cause)s", n=facts.get("n"), cause=words))
    return str(_("Stopped: %(cause)s", cause=words))


def waiting(found: Facts | None) -> str:
    """Why a running broadcast waits."""
    words = {
        "provider_asked": _("Waiting: the provider asks to wait"),
        "rate": _("Waiting: the next message leaves at its turn"),
        "retry": _("Waiting: some messages are tried again later"),
        "file_checking": _("Waiting: a file is still being checked"),
    }
    return str(words.get(str(found["code"]), "")) if found else ""
