"""The special numbers of the sandbox: apart from its server, so that pages can tell of them without that."""

from __future__ import annotations

from typing import NamedTuple


class Special(NamedTuple):
    """What one number does: `key` names it, `waba` and `sms` are the codes used on each wire."""

    phone: str
    key: str
    text: str
    waba: str = ""
    sms: str = ""


MAGIC = (
    Special(
        "+79000001001",
        "not_on_whatsapp",
        "not on WhatsApp; unknown subscriber for SMS",
        "131026",
        "sms_unknown_subscriber",
    ),
    Special(
        "+79000001002", "marketing_cap", "marketing limit; rejected by the operator for SMS", "131049", "sms_rejected"
    ),
    Special("+79000001003", "never_read", "delivered, never read"),
    Special("+79000001004", "fails_later", "accepted, then fails", "131026", "sms_absent"),
    Special("+79000001005", "slow", "the answer takes 8 seconds"),
    Special("+79000001006", "timeout", "accepted, but no answer ever comes"),
    Special("+79000001007", "error_500", "accepted, but the answer is an error 500"),
    Special("+79000001008", "throttled", "429 with Retry-After once, then accepted", "130429", "sms_throttled"),
    Special("+79000001009", "reply", "the person replies"),
    Special("+79000001010", "stop", "the person replies STOP"),
    Special(
        "+79000001011", "paused", "the template is paused; the text is refused for SMS", "132015", "sms_bad_sender"
    ),
    Special("+79000001012", "picture", "the person replies with a picture; for SMS with words"),
    Special("+79000001013", "sms_only", "not on WhatsApp; an SMS arrives", "131026"),
)
