"""Codes and facts of the worker as sentences in the reader's language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask_babel import get_locale, ngettext
from flask_babel import gettext as _

from webapp import filters, words
from worker import causes, clock, logs, undo
from worker.broadcasts import MISS_AFTER, NotAllowed, Problem
from worker.channels import InUse
from worker.reports import Event

Facts = Mapping[str, Any]
LATE = clock.MINUTE  # a start so much after its time is worth telling


def _names(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)


def _figure(value: Any) -> str:
    return filters.number(value) if isinstance(value, int | float) else str(value)


def problem(found: Problem) -> str:
    """Why a value cannot be used, or why a broadcast cannot start."""
    facts: dict[str, Any] = {"v": "", "slot": "", "name": "", "min": 1, "max": 0, "status": "", "language": ""}
    facts |= {"host": "", "port": "", "kind": "", "text": "", "setting": "MOLVA_ALLOWED_PRIVATE_HOSTS"}
    facts |= {"parts": "", "code": "", "why": "", "m": "", "n": "", "cols": ""}
    facts.update({key: v if isinstance(v, int | float) else _names(v) for key, v in found.facts.items()})
    known = {
        "name_required": _("Enter a name"),
        "name_too_long": _("The name is too long, up to %(max)s characters are possible", **facts),
        "name_invalid": _("The name has a character that cannot be shown"),
        "channel_required": _("Choose a channel"),
        "channel_unknown": _("There is no such channel"),
        "text_required": _("Enter the message text"),
        "text_empty": _("Enter the message text"),
        "text_too_long": _too_long(facts),
        "too_many_segments": _("The text is too long: %(m)s SMS segments, up to %(max)s are possible", **facts),
        "window_closed": _("The reply window is closed: send a template"),
        "optout_unconfirmed": _("This person is on the stop list. Confirm that you want to answer anyway"),
        "channel_gone": _("The channel has been deleted, nothing can be sent through it"),
        "not_an_operator": _("This is nobody who may answer people"),
        "too_many": _("Up to %(max)s are possible. Delete one first", **facts),
        "text_invalid": _("The text has a character that cannot be sent"),
        "text_bad_variable": _("A variable has no name: %(v)s", **facts),
        "text_unclosed": _("A variable is not closed: write {{ name }}"),
        "url_insecure": _("The address must begin with https://, unless the server lists it in %(setting)s", **facts),
        "template_required": _("Choose an approved template"),
        "template_unknown": _("The template does not exist or is not approved in this language"),
        "template_not_approved": _("The template is not approved: %(status)s", status=_template_state(facts["status"])),
        "template_unsupported": _("This version cannot send such a template: %(parts)s", **facts),
        "template_needs_waba": _("A template needs a WABA channel"),
        "slot_unbound": _("Say where the value of %(slot)s comes from", **facts),
        "slot_invalid": _slot_invalid(facts),
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
        "quiet_hours_invalid": _("Enter both times of the quiet hours, such as 21:00 and 09:00"),
        "quiet_hours_same": _("The quiet hours begin and end at the same time"),
        "canary_range": (
            _("A canary takes from 1 to %(max)s people: fewer than the list has", max=_figure(facts["max"]))
            if facts["max"]
            else _("The list is too short for a canary")
        ),
        "canary_late": _("A canary is possible only before anything has been sent"),
        "has_report": _("It has sent messages and stays for its report"),
        "cause_needs_who": _("A cause goes with “failed” or “undelivered” only"),
        "not_a_choice": _("Choose one of the offered values"),
        "not_a_boolean": _("Say yes or no"),
        "variables_invalid": _("The variables cannot be read"),
        "channel_deleted": _("The channel has been deleted. Clear the broadcast and choose another one"),
        "provider_unknown": _("There is no such provider"),
        "provider_fixed": _("The provider of a channel cannot change: add another channel"),
        "sandbox_exists": _("There is already a sandbox channel of this kind"),
        "sandbox_fixed": _("Molva itself chooses the settings of the sandbox"),
        "kind_differs": _("This provider sends %(kind)s", **facts),
        "not_an_object": _("This must be an object with the names of the settings"),
        "not_a_text": _("This must be a text"),
        "not_a_number": _("This is not a number"),
        "not_whole": _("This must be a whole number"),
        "number_range": _("From %(min)s to %(max)s", min=_figure(facts["min"]), max=_figure(facts["max"])),
        "currency_invalid": _("A currency is three Latin letters, such as RUB"),
        "setting_required": _("Fill this in"),
        "setting_unknown": _("There is no such field"),
        "setting_too_long": _("Too long, up to %(max)s characters are possible", max=_figure(facts["max"])),
        "setting_invalid": _("There is a character in it that cannot be used"),
        "url_invalid": _("This is not an address that begins with https:// or http://"),
        "url_password": _("Take name and password out of the address: they have fields of their own"),
        "address_private": _(
            "%(host)s is not a public address. If it is meant to be reached, list it in %(setting)s on the server",
            **facts,
        ),
        "address_port": _(
            "Port %(port)s is not one of the usual ones. If it is right, list %(host)s:%(port)s in %(setting)s"
            " on the server",
            **facts,
        ),
        "place_unknown": _("Nothing fills the place %(text)s. The hint lists what can stand there", **facts),
        "place_missing": _("The place %(text)s stands nowhere, so the message would go out without it", **facts),
        "key_in_header": _("Everybody could read this key. Put it into “Token” and write {token} here"),
        "not_an_id": _("This is a phone number or a name. Enter the id, digits only, as the provider shows it"),
        "phone_missing": _("Enter a phone number"),
        "phone_invalid": _("“%(v)s” is not a phone number", **facts) if facts["v"] else _("Enter a phone number"),
        "phone_scientific": _("Excel shortened the number to “%(v)s”. Enter it whole", **facts),
        "too_many_words": _("Too many words: up to %(max)s are possible", **facts),
        "word_without_letters": _("“%(v)s” has neither letters nor digits", **facts),
        "word_means_other": _("“%(v)s” means something else already: see the list of words", **facts),
        "host_only": _("Enter the name or address alone, without http:// and port"),
        "sender_long": _("A sender name has Latin letters and digits, 11 at most; a number has digits only"),
        "approval_needed": _(
            "Recipients: %(n)s, more than %(max)s, so a second person has to approve it first",
            n=_figure(facts.get("n", 0)),
            max=_figure(facts["max"]),
        ),
        "approval_own": _("You made the last change yourself: somebody else has to approve it"),
        "texts_gone": _("Its texts and rows have been removed after their time, so it cannot be sent again"),
        "channel_off": _("The channel is out of use. Check its connection and switch it on"),
        "phone_not_mobile": _("SMS cannot be sent to a fixed-line number"),
        "phone_opted_out": _("The number is on the stop list, so nothing is sent to it"),
        "row_missing": _("Row %(n)s has no message", **facts),
        "row_last": _("That was the last row"),
        "row_unusable": _("The message of row %(n)s cannot be made any more: the template has changed", **facts),
        "columns_missing": _("Missing columns: %(cols)s", **facts),
        "not_written": _("The message is not complete yet"),
        "length_unknown": _("Not known: an earlier version checked the file. Have it read again"),
        "nothing_empty": _("No message has an empty variable"),
        "nothing_foreign": _("No message has such characters"),
        "fault": _("This line cannot be read: “%(text)s”", text=facts["text"]) if facts["text"] else _("Fill this in"),
    }
    return str(known.get(found.code, _("This value cannot be used")))


def _template_state(status: str) -> str:
    return str(words.template_state(status).label).lower() if status else ""


def _too_long(facts: Facts) -> str:
    if not facts["m"]:
        return str(_("The text is too long"))
    return str(_("The text is too long: %(m)s characters, up to %(max)s are possible", **facts))


def _slot_invalid(facts: Facts) -> str:
    """Why a fixed value or a fallback cannot be sent."""
    if facts["code"] == "text_too_long":
        return str(_("The value of %(slot)s is too long, %(m)s of %(max)s", **facts))
    if facts["code"] == "variable_missing":
        return str(_("The value of %(slot)s is empty", **facts))
    known = {
        "not_media": _("The value of %(slot)s is neither a link nor the id of an uploaded file", **facts),
        "link_spaces": _("The value of %(slot)s has a space, which a link cannot have", **facts),
        "not_degrees": _("The value of %(slot)s is not a coordinate in degrees", **facts),
    }
    other = _("The value of %(slot)s has a line break, a tab or five spaces in a row, which WhatsApp refuses", **facts)
    return str(known.get(facts["why"], other))


def file_code(code: str, detail: Facts | None) -> str:
    """Why a whole file was refused."""
    facts: dict[str, Any] = {"n": "", "c": "", "max": "", "cols": "", "size": ""}
    facts.update({key: _names(value) for key, value in (detail or {}).items()})
    known = {
        "file_too_large": _("The file is over 10 MB. Split it and upload the second part by “Append to the list”"),
        "file_missing": _("Choose a file"),
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
        "storage_full": _("The server’s disk was full. Have space freed, then upload the file again"),
        "upload_lost": _("The uploaded file is gone from the server. Upload it again"),
        "too_many_files": _("Too many files: up to %(max)s are possible", **facts),
    }
    return str(known.get(code, _("The file cannot be used")))


def row_reason(code: str, line: int, value: str | None, column: str | None, other: Facts | None) -> str:
    """Why one row got no message."""
    facts: dict[str, Any] = {"n": line, "v": value or "", "c": column or "", "m": "", "file": "", "max": ""}
    facts.update(other or {})
    if code == "duplicate":
        facts["m"] = (other or {}).get("line", "")
        if facts["file"]:
            return str(_("Row %(n)s: duplicate, the number is already in “%(file)s”, row %(m)s", **facts))
        return str(_("Row %(n)s: duplicate, the number is already in row %(m)s", **facts))
    code = facts.get("why") or code
    known: dict[str, Callable[[], str]] = {
        "not_media": lambda: _("Row %(n)s: “%(c)s” is neither a link nor the id of an uploaded file", **facts),
        "link_spaces": lambda: _("Row %(n)s: “%(c)s” has a space, which a link cannot have", **facts),
        "not_degrees": lambda: _("Row %(n)s: “%(c)s” is not a coordinate in degrees", **facts),
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
    return str(known[code]()) if code in known else code


def cause(code: str | None, detail: str | None = None) -> dict[str, str] | None:
    """Why a message is not delivered: code, words, who can fix it, what to do; None when nothing is wrong."""
    if not code:
        return None
    found = causes.cause(code)
    text, advice = words.CAUSES[found.key]
    shown = str(text) % {"text": logs.masked(detail or code)}
    return {"code": code, "text": shown, "who": str(words.WHO[found.who]), "advice": str(advice)}


def held_up(code: str | None, detail: str | None = None) -> str:
    """Why a single message failed, or why its channel does not send now; empty when nothing keeps it."""
    because = cause(code, detail)
    return waiting({"code": code}) or (because["text"] if because else "")


def inside(text: str) -> str:
    """A sentence as it stands after a colon or a dash: its first word small, unless it is a name or letters."""
    first = text.split(" ", 1)[0].rstrip(",.:")
    return text[:1].lower() + text[1:] if first[1:] == first[1:].lower() else text


def stop_cause(code: str | None, detail: Facts | None) -> str:
    """What stands beside the word “Stopped”: the same, without that word again."""
    if code == "person":
        return str((detail or {}).get("by", ""))
    text = stop_reason(code, detail).removeprefix(str(_("Stopped: %(cause)s", cause="")))
    return text[:1].upper() + text[1:]


def stop_reason(code: str | None, detail: Facts | None) -> str:
    """Why a broadcast stands still."""
    facts = dict(detail or {})
    if not code:
        return ""
    because = cause(facts.get("cause"), facts.get("text"))
    why = inside(because["text"]) if because else ""
    if code == "person":
        return str(_("Stopped: %(user)s", user=facts.get("by", "")))
    if code == undo.CLEARED:
        return str(_("Clear was taken back. Nothing leaves until you press “Resume”"))
    if code == "missed":
        return str(_("Stopped: the server was down at the start time"))
    if code == "approval":
        return str(_("Stopped: a second person has to approve what has changed"))
    if code == "restored":
        when = filters.when(facts.get("at"))
        return str(_("Stopped: data restored from a backup of %(d)s. Later messages may have left", d=when))
    if code == "canary":
        return str(_("Stopped by itself: the canary of %(n)s has been sent", n=_figure(facts.get("n"))))
    if code == "same_error":
        return str(_("Stopped: the same error for %(n)s recipients in a row: %(cause)s", n=facts.get("n"), cause=why))
    return str(_("Stopped: %(cause)s", cause=why))


def channel_again() -> str:
    """What to do about a stop whose cause, a channel out of use, is over."""
    return str(_("The channel is in use again: press “Resume” and the rest will leave"))


def waiting(found: Facts | None) -> str:
    """Why a running broadcast waits, as `worker.watchdog.why` found it, with the time where there is one."""
    if not found:
        return ""
    ahead = found.get("until")
    near = {"t": filters.ago(max(ahead, clock.now() + clock.SECOND))} if ahead else {}
    moment = {"t": filters.until(ahead)} if ahead else {}
    known: dict[str, Callable[[], str]] = {
        "provider_asked": lambda: (
            _("Waiting: the provider asks to wait until %(t)s", **moment)
            if moment
            else _("Waiting: the provider asks to wait")
        ),
        "rate": lambda: (
            _("Waiting: next message %(t)s", **near) if near else _("Waiting: the next message leaves at its turn")
        ),
        "retry": lambda: (
            _("Waiting: some messages are tried again %(t)s", **near)
            if near
            else _("Waiting: some messages are tried again later")
        ),
        "quiet_hours": lambda: _("Waiting: quiet hours until %(t)s", **moment) if moment else _("Waiting: quiet hours"),
        "daily_limit": lambda: (
            _("Waiting: the channel's daily limit is used up, going on at %(t)s", **moment)
            if moment
            else _("Waiting: the channel's daily limit is used up")
        ),
        "file_checking": lambda: _("Waiting: a file is still being checked"),
        "copying": lambda: _("Waiting: the recipients of the new run are being prepared"),
        "breaker": lambda: _("Waiting: the provider does not respond, probing each minute"),
        "provider_slow": lambda: _("Waiting: the provider is slow to answer"),
        "channel": lambda: _("Nothing is being sent: the channel is out of use"),
        "worker": lambda: _("Nothing is being sent: the worker is not running"),
        "disk": lambda: _("Nothing is being sent: the disk is full"),
        "locked": lambda: _("Nothing is being sent: another program keeps the database locked"),
        "stuck": lambda: _("Nothing is being sent, and the cause is not known"),
    }
    code = str(found["code"])
    return str(known[code]()) if code in known else ""


def waiting_advice(found: Facts | None) -> str:
    """What a person can do about it; empty where it passes by itself."""
    known = {
        "channel": _("Check the connection of the channel and switch it on"),
        "worker": _("Start Molva again on the server. Nothing is lost, sending goes on by itself"),
        "disk": _("Free some space on the server's disk. Nothing is lost, sending goes on by itself"),
        "locked": _(
            "Close whatever has the data folder open: a database viewer, a copy, an antivirus. Nothing is lost"
        ),
        "stuck": _("Look at what “molva doctor” says on the server, and at the log"),
    }
    return str(known.get(str(found["code"]), "")) if found else ""


def hint(code: str) -> str:
    """What is likely true of an uncertain message, as `worker.reports.hint` found it."""
    known = {
        "wait": _("A report may still come and settle it. Wait a quarter of an hour before you decide"),
        "not_sent": _("Probably not sent: others of those minutes have their reports, this one has none"),
        "unknown": _("There is no way to know yet. Such a message has nearly always arrived"),
        "silent": _("No report will come any more. Such a message has nearly always arrived"),
    }
    return str(known[code])


def late_start(due: int | None, begun: int | None) -> str:
    """That a scheduled broadcast began after its time; empty when it did not."""
    if not due or not begun or not LATE < begun - due <= MISS_AFTER + LATE:
        return ""
    return str(_("Started %(t)s after the set time", t=filters.duration(begun - due)))


def changed(error: NotAllowed) -> str:
    """Somebody was faster: what the broadcast is now."""
    state = words.BROADCAST_STATES[error.state].label
    return str(_("The broadcast has changed: it is now “%(state)s”. Nothing was done", state=state))


def channel_stop(code: str | None, detail: Facts | None) -> dict[str, str] | None:
    """Why a channel is out of use, and what to do; None when it is in use."""
    facts = dict(detail or {})
    found = cause(code, facts.get("text"))
    if found is not None and code == "channel_off" and facts.get("by"):
        found["text"] = str(_("Switched off: %(user)s", user=facts["by"]))
    return found


def in_use(error: InUse) -> str:
    """Why a channel cannot be deleted."""
    named = [f"“{name}”" if get_locale().language == "en" else f"«{name}»" for name in error.names if name]
    names = ", ".join(named) or "–"
    if named and (more := error.number - len(named)) > 0:
        names = str(_("%(names)s and %(n)s more", names=names, n=filters.number(more)))
    return str(
        ngettext(
            "%(num)s broadcast needs this channel: %(names)s. Delete it or choose another channel for it first",
            "%(num)s broadcasts need this channel: %(names)s. Delete them or choose another channel for them first",
            error.number,
            names=names,
        )
    )


def failed_call(code: str | None, detail: str | None, advise: bool = True) -> str:
    """Why a call to a provider that a person asked for did not succeed, and what to do."""
    because = cause(code, detail)
    if because is None:
        return ""
    said = f" ({detail})" if detail and detail not in because["text"] else ""
    return f"{because['text']}{said}. {because['advice']}" if advise else f"{because['text']}{said}"


def webhook_failure(code: str | None) -> str:
    """Why a webhook was not told something, or is switched off; "" when nothing is wrong."""
    if not code:
        return ""
    known = words.WEBHOOK_FAILURES.get(code)
    if known is None and code.startswith("http_"):
        return str(_("It answered %(status)s", status=code.removeprefix("http_")))
    return str(known or _("It cannot be told: %(code)s", code=code))


def finding(code: str, detail: str) -> str:
    """One result of "Check connection"."""
    text = words.FINDINGS.get(code)
    if text is not None:
        return str(text) % {"text": detail}
    # Nothing repeats a check by itself, so there is nothing to wait for.
    return failed_call(code, detail, advise=causes.cause(code).who != causes.PASSES)


def special(key: str, kind: str) -> str:
    """What one of the special numbers of the sandbox does."""
    return str(words.SPECIAL_SMS.get(key) or words.SPECIAL[key] if kind == "sms" else words.SPECIAL[key])


def _effect(found: Event) -> str:
    """What became of a report that did not move its message on."""
    known = {
        "kept": _("nothing new"),
        "conflict": _("contradicts what is known, and changes nothing"),
    }
    return str(known.get(found.effect or "", ""))


def _stop_event(found: Event) -> str:
    reason = optout_reason(found.cause or "", found.detail or "") or "–"
    if found.code == "remove":
        return str(_("Taken off the stop list: %(reason)s", reason=reason))
    return str(_("Put on the stop list: %(reason)s", reason=reason))


def optout_reason(source: str, reason: str) -> str:
    """Why a number was put on the stop list or taken off: the words as they are, or what a code means."""
    if source != "provider" or not reason:
        return reason
    known = {
        "marketing_stopped": _("The person stopped marketing in WhatsApp"),
        "marketing_resumed": _("The person allows marketing in WhatsApp again"),
    }
    return known.get(reason) or (cause(reason) or {})["text"]


def event(found: Event) -> str:
    """One line of the story of a message."""
    if found.kind == "reply":
        return str(_("The person replied: “%(text)s”", text=found.detail or found.code))
    if found.kind == "stop":
        return _stop_event(found)
    if found.kind == "own" and found.code == "sending":
        return str(_("Taken from the queue"))
    label = str(words.MESSAGE_STATUSES[found.code].label if found.code in words.MESSAGE_STATUSES else found.code)
    if found.kind == "attempt":
        label = str(words.OUTCOMES.get(found.code, found.code))
    elif found.kind == "report":
        label = str(_("Delivery report: %(status)s", status=label.lower()))
    because = cause(found.cause, found.detail)
    detail = because["text"] if because else found.detail or ""
    more = [f"HTTP {found.http}" if found.http else "", _effect(found)]
    tail = f" ({', '.join(filter(None, more))})" if any(more) else ""
    if detail and detail.startswith(label):
        return detail + tail  # the cause says all of it
    sign = f"{filters.NO_BREAK}— " if ": " in label else ": "
    return sign.join(filter(None, (label, inside(detail) if because else detail))) + tail
