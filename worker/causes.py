"""Why a message is not delivered, as data: who can do something about it, and whether another try makes sense.

The words are made elsewhere, from `key`: many codes of many vendors mean the same to a person.
"""

from __future__ import annotations

import re
from typing import NamedTuple

YOU = "you"
PROVIDER = "provider"
RECIPIENT = "recipient"
PASSES = "passes"
WHO = (YOU, PROVIDER, RECIPIENT, PASSES)


class Cause(NamedTuple):
    """One reason. `code`: as stored with the message, the vendor's own where it has one. `key`: its meaning.
    `who` can fix it: one of WHO. `retry`: whether sending to these people again is worth it."""

    code: str
    key: str
    who: str
    retry: bool


# meaning: who can fix it, worth a retry, the codes that mean it
MEANINGS: dict[str, tuple[str, bool, str]] = {
    # the person and their phone
    "not_on_whatsapp": (RECIPIENT, False, "131026"),
    "no_such_number": (
        YOU,
        False,
        "sms_unknown_subscriber 21211 21614 30005 30006 smpp_0x0b smpp_0x33 smpp_0x34",
    ),
    "no_route": (PROVIDER, False, "21612"),
    "phone_unreachable": (RECIPIENT, True, "sms_absent sms_expired 30003 smpp_expired"),
    "subscriber_barred": (RECIPIENT, False, "sms_barred"),
    "undelivered": (RECIPIENT, True, "sms_undelivered 30008 smpp_undeliv smpp_deleted smpp_0xfe"),
    "marketing_cap": (PASSES, True, "131049"),
    "marketing_experiment": (PASSES, False, "130472"),
    "marketing_stopped": (RECIPIENT, False, "131050 sms_opted_out 21610"),
    "opted_out": (RECIPIENT, False, "opted_out"),
    "quiet_hours": (PASSES, False, "quiet_hours"),
    "cooldown": (PASSES, True, "cooldown"),
    "window_closed": (YOU, False, "131047"),
    "blocked_by_us": (YOU, False, "130403"),
    "recipient_is_sender": (YOU, False, "131021"),
    "country_not_allowed": (YOU, False, "130497"),
    "not_on_test_list": (YOU, True, "131030"),
    "needs_phone_number": (RECIPIENT, False, "131062"),
    "identity_changed": (RECIPIENT, True, "137000"),
    "inbound_media_lost": (RECIPIENT, False, "131052"),
    # text, template, variables
    "variables_do_not_fit": (YOU, True, "132000 132008 132012 132018"),
    "parameter_refused": (YOU, True, "100 131008 131009 135000 variable_invalid"),
    "variable_missing": (YOU, True, "variable_missing"),
    "text_too_long": (YOU, True, "132005 text_too_long"),
    "text_refused": (YOU, True, "sms_bad_text 21617 21602 smpp_0x01"),
    "message_type_unsupported": (YOU, False, "131051"),
    "template_missing": (YOU, True, "132001"),
    "template_paused": (YOU, True, "132015"),
    "template_disabled": (YOU, False, "132016"),
    "template_policy": (YOU, False, "132007"),
    "template_wrong_endpoint": (YOU, True, "131055 131061 131063 134100 134102"),
    "template_syncing": (PASSES, True, "134101"),
    "flow_blocked": (YOU, False, "132068"),
    "flow_throttled": (PASSES, True, "132069"),
    "media_not_fetched": (YOU, True, "131053"),
    "media_type": (YOU, True, "media_type media_empty"),
    "media_too_large": (YOU, True, "media_too_large"),
    "operator_rejected": (PROVIDER, True, "sms_rejected 30004 30007 smpp_rejectd smpp_0x65 smpp_0x66"),
    # the account
    "access_refused": (YOU, True, "0 190 http_401 sms_bad_token 20003 smpp_0x0d smpp_0x0e smpp_0x0f"),
    "permission_missing": (YOU, True, "3 10 200 131005 http_403"),
    "no_money": (YOU, True, "131042 http_402 sms_no_balance"),
    "account_blocked": (YOU, True, "368 131031 account_event"),
    "sender_limited": (YOU, True, "131048"),
    "category_limit": (PASSES, True, "131064"),
    "payment_terms": (YOU, True, "134011"),
    "number_not_ready": (
        YOU,
        True,
        "33 131037 131045 133000 133005 133006 133008 133009 133010 133015 133016",
    ),
    "sender_not_registered": (YOU, True, "sms_bad_sender 21606 21603 21660 smpp_0x0a smpp_0x48 smpp_0x49"),
    "wrong_address": (YOU, True, "http_3xx"),
    "address_forbidden": (YOU, True, "address_forbidden"),
    "settings_invalid": (YOU, True, "settings_invalid credentials_locked smpp_0x53"),
    "channel_off": (YOU, True, "channel_off"),
    "channel_deleted": (YOU, True, "channel_deleted"),
    # the line and the provider
    "too_fast": (PASSES, True, "4 613 80007 130429 http_429 sms_throttled 20429 smpp_0x14 smpp_0x58"),
    "too_often_to_person": (PASSES, True, "131056"),
    "provider_unreachable": (PASSES, True, "connect_failed dns smpp_0x05"),
    "tls_failed": (YOU, True, "tls"),
    "provider_fault": (PASSES, True, "1 2 131000 131016 131057 133004 2494100 smpp_0x04 smpp_0x08 smpp_0x45 smpp_0x64"),
    "no_answer": (PASSES, False, "timeout connection_lost http_408 http_5xx smpp_partly"),
    "answer_unreadable": (PROVIDER, False, "answer_unreadable answer_too_large"),
    "request_refused": (YOU, True, "http_4xx smpp_0x61 smpp_0x62"),
    # ourselves
    "worker_lost": (PASSES, False, "worker_lost"),
    "internal": (YOU, False, "internal"),
    "postponed_too_long": (YOU, True, "postponed_too_long"),
    "cancelled": (YOU, False, "cancelled"),
    # what the provider alone can explain: its own words are shown
    "refused": (PROVIDER, False, "sms_refused"),
    "unknown": (PROVIDER, False, ""),
}

CAUSES: dict[str, Cause] = {
    code: Cause(code, key, who, retry) for key, (who, retry, codes) in MEANINGS.items() for code in codes.split()
}

# Whom WhatsApp cannot reach because of this, an SMS may still reach.
BY_SMS = frozenset(
    (
        *("not_on_whatsapp", "marketing_cap", "marketing_experiment", "country_not_allowed", "needs_phone_number"),
        *("identity_changed", "window_closed", "too_often_to_person", "unknown"),
    )
)
# Numbers to which nothing should be sent any more.
TO_STOP_LIST = frozenset(("no_such_number", "subscriber_barred", "blocked_by_us"))
AGAIN, SMS, STOP = DEEDS = ("again", "sms", "stop")

# The person said stop to the vendor: the number belongs on our stop list as well.
# From what: all of it, or what advertises.
OPTS_OUT = {"131050": "marketing", "sms_opted_out": "all", "21610": "all"}

_HTTP = re.compile(r"http_(\d)\d\d")


def cause(code: str | None) -> Cause:
    """What is known about a stored code; a code that nobody has heard of is worth asking the provider about."""
    code = code or ""
    if code in CAUSES:
        return CAUSES[code]
    if found := _HTTP.fullmatch(code):
        general = CAUSES.get(f"http_{found[1]}xx")
        if general is not None:
            return general._replace(code=code)
    if len(code) == 3 and code.isdigit() and code.startswith("2"):  # 200-299: permissions of the Cloud API
        return CAUSES["200"]._replace(code=code)
    return Cause(code, "unknown", *MEANINGS["unknown"][:2])


def deeds(code: str | None, kind: str) -> list[str]:
    """What makes sense for all those whom this cause kept from getting it, on a channel of this kind: of DEEDS."""
    found = cause(code)
    sensible = {
        AGAIN: found.retry,
        SMS: kind == "waba" and found.key in BY_SMS,
        STOP: found.key in TO_STOP_LIST,
    }
    return [deed for deed in DEEDS if code and sensible[deed]]
