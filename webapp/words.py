"""Codes of the worker → words, icons and tones. Every sentence about a code is made here, once per request language.

`_l` marks a text for the catalogues without translating it yet; it becomes words when it is shown.
"""

from __future__ import annotations

from typing import NamedTuple

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l


class Word(NamedTuple):
    """One state as people see it: label, icon of icons.svg, and tone (quiet, info, good, warn, bad)."""

    label: LazyString
    icon: str
    tone: str
    hint: LazyString | None = None


class MenuItem(NamedTuple):
    label: LazyString
    path: str
    icon: str
    role: str = "viewer"


# Shown when the page exists and the person may see it.
MENU = (
    MenuItem(_l("Broadcasts"), "/broadcasts", "broadcast"),
    MenuItem(_l("Inbox"), "/inbox", "inbox", "sender"),
    MenuItem(_l("Reports"), "/reports", "report"),
    MenuItem(_l("Channels"), "/channels", "channel", "sender"),
    MenuItem(_l("Stop list"), "/optouts", "stop-list", "sender"),
    MenuItem(_l("Settings"), "/settings", "settings"),
)

BROADCAST_STATES: dict[str, Word] = {
    "draft": Word(_l("Draft"), "draft", "quiet"),
    "scheduled": Word(_l("Scheduled"), "clock", "info"),
    "running": Word(_l("Running"), "play", "accent"),
    "stopped": Word(_l("Stopped"), "stop", "warn"),
    "finished": Word(_l("Completed"), "check", "good"),
    # the two other faces of "finished"
    "awaiting": Word(_l("Awaiting delivery reports"), "clock", "info"),
    "uncertain": Word(_l("Completed with uncertain messages"), "question", "warn"),
}

# Names that the product gave, as the reader would say them; a name that a person gave stays as it is.
PROVIDERS: dict[str, LazyString] = {
    "WABA sandbox": _l("WABA sandbox"),
    "SMS sandbox": _l("SMS sandbox"),
}

CHANNEL_STATES: dict[str, Word] = {
    "on": Word(_l("In use"), "check", "good"),
    "stopped": Word(_l("Out of use"), "stop", "bad"),
}

MESSAGE_STATUSES: dict[str, Word] = {
    "queued": Word(_l("Queued"), "queue", "quiet"),
    "sending": Word(_l("Sending"), "play", "accent"),
    "sent": Word(_l("Sent"), "check", "info"),
    "held": Word(_l("Held by the provider"), "clock", "warn"),
    "delivered": Word(_l("Delivered"), "check-double", "good"),
    "read": Word(_l("Read"), "eye", "good"),
    "undelivered": Word(_l("Undelivered"), "cross", "bad"),
    "failed": Word(_l("Failed"), "alert", "bad"),
    "uncertain": Word(
        _l("Uncertain"),
        "question",
        "warn",
        _l("The request left, no answer came. Most likely it was sent. It is never repeated by itself"),
    ),
    "skipped": Word(_l("Skipped"), "skip", "quiet"),
    "cancelled": Word(_l("Cancelled"), "cross", "quiet"),
}

ROLES: dict[str, LazyString] = {
    "admin": _l("admin"),
    "sender": _l("sender"),
    "viewer": _l("viewer"),
}

LANGUAGES: dict[str, str] = {"ru": "Русский", "en": "English"}

THEMES: dict[str, LazyString] = {
    "light": _l("light"),
    "dark": _l("dark"),
    "system": _l("as the system"),
}

WHO: dict[str, LazyString] = {
    "you": _l("you"),
    "provider": _l("the provider"),
    "recipient": _l("the recipient"),
    "passes": _l("it passes"),
}

# What one try to hand a message over came to, as the attempt table keeps it.
OUTCOMES: dict[str, LazyString] = {
    "postponed": _l("Not sent, back in the queue"),
    "rejected": _l("Refused by the provider"),
    "lost": _l("The request left, no clear answer came"),
    "late": _l("An answer came after a newer try had begun"),
}

# Results of "Check connection"; a failed call has the words of its cause.
FINDINGS: dict[str, LazyString] = {
    "number_found": _l("Number: %(text)s"),
    "number_not_connected": _l("The number is not connected: %(text)s"),
    "number_quality": _l("The quality of the number is low: %(text)s"),
    "number_for_tests": _l("This is a test number: it sends only to numbers on its list"),
    "number_not_in_account": _l("The number does not belong to this WABA"),
    "health": _l("The provider says: %(text)s"),
    "webhook_not_subscribed": _l("The account sends no callbacks: subscribe the app at the provider"),
    "webhook_elsewhere": _l("Callbacks go to another address: %(text)s"),
    "no_templates": _l("The account has no approved template"),
    "account_found": _l("Account: %(text)s"),
    "number_not_cloud": _l("The number is not on the Cloud API: %(text)s"),
    "number_name_not_approved": _l("The display name is not approved: %(text)s"),
    "number_in_app": _l("The number is also used in the WhatsApp Business app: 20 messages per second at most"),
    "daily_limit": _l("People to begin with in 24 hours: up to %(text)s"),
    "daily_limit_none": _l("People to begin with in 24 hours: any number"),
    "webhook_missing": _l("No callback address is set at the provider. Ours: %(text)s"),
    "account_not_approved": _l("The provider has not approved the account: %(text)s"),
    "account_not_verified": _l("The business is not verified, which keeps the daily limit low: %(text)s"),
    "account_not_active": _l("State of the account: %(text)s"),
    "marketing_elsewhere": _l(
        "The account refuses marketing on the ordinary way: switch on the marketing endpoint in the settings"
    ),
    "marketing_not_ready": _l("Accept the terms of the marketing endpoint at the provider first: %(text)s"),
    "key_accepted": _l("The provider accepts the key"),
    "webhook_secret_missing": _l("No callback is believed until the channel has a callback secret"),
    "not_checkable": _l("This gateway offers no call that shows whether it works: a test message will show it"),
}

# What the special numbers of the sandbox do; the second table where an SMS differs.
SPECIAL: dict[str, LazyString] = {
    "not_on_whatsapp": _l("not on WhatsApp"),
    "marketing_cap": _l("refused: the marketing limit of this person"),
    "never_read": _l("delivered, never read"),
    "fails_later": _l("accepted, but does not arrive"),
    "slow": _l("the answer takes 8 seconds"),
    "timeout": _l("accepted, but no answer ever comes"),
    "error_500": _l("accepted, but the answer is an error"),
    "throttled": _l("asks to wait once, then accepts"),
    "reply": _l("the person replies"),
    "stop": _l("the person replies STOP"),
    "paused": _l("the template is paused: the broadcast stops"),
}
SPECIAL_SMS: dict[str, LazyString] = {
    "not_on_whatsapp": _l("no such number"),
    "marketing_cap": _l("refused by the operator"),
    "never_read": _l("delivered"),
    "paused": _l("the sender name is refused: the channel stops"),
}

# What happened and what to do, by the key of worker.causes; words only, who and retry stand there.
CAUSES: dict[str, tuple[LazyString, LazyString]] = {
    "not_on_whatsapp": (_l("The number is not on WhatsApp or cannot receive this"), _l("Send an SMS")),
    "no_such_number": (_l("No such number"), _l("Correct the number in the file")),
    "phone_unreachable": (_l("The phone was off or out of reach for too long"), _l("Send again later")),
    "subscriber_barred": (_l("The subscriber is barred by the operator"), _l("Use another number of this person")),
    "undelivered": (_l("The operator could not deliver the message"), _l("Send again later")),
    "marketing_cap": (_l("WhatsApp limits marketing to this person"), _l("Try again after a day at the earliest")),
    "marketing_experiment": (
        _l("WhatsApp holds marketing back from this person in an experiment"),
        _l("Send an SMS"),
    ),
    "marketing_stopped": (
        _l("The person has opted out of marketing"),
        _l("Nothing to do: the number is on the stop list"),
    ),
    "opted_out": (_l("The number is on the stop list"), _l("Nothing to do")),
    "window_closed": (_l("The reply window is closed"), _l("Send a template")),
    "blocked_by_us": (_l("Your own account has blocked this person"), _l("Lift the block at the provider")),
    "recipient_is_sender": (_l("The recipient is the sending number itself"), _l("Take the number out of the file")),
    "country_not_allowed": (
        _l("The account may not send to this country"),
        _l("Send an SMS, or take these numbers out"),
    ),
    "not_on_test_list": (
        _l("A test number sends only to numbers that are on its list"),
        _l("Add the recipient to the list at the provider"),
    ),
    "needs_phone_number": (
        _l("This message needs a phone number, and the person hides theirs"),
        _l("Ask for the number"),
    ),
    "identity_changed": (_l("The person has registered on WhatsApp anew"), _l("Send again")),
    "inbound_media_lost": (_l("A file from this person could not be fetched"), _l("Ask them to send it again")),
    "variables_do_not_fit": (_l("The variables do not fit the template"), _l("Check their number and format")),
    "parameter_refused": (
        _l("The provider does not take a value of this message"),
        _l("Check the values in the file"),
    ),
    "variable_missing": (_l("A value is missing in the file"), _l("Fill it in, or set a fallback")),
    "text_too_long": (_l("The text is too long with this person's values"), _l("Shorten the text or the value")),
    "text_refused": (_l("The provider does not take this text"), _l("Change the text")),
    "message_type_unsupported": (
        _l("The provider does not support this kind of message"),
        _l("Choose another template"),
    ),
    "template_missing": (
        _l("The template does not exist or is not approved in this language"),
        _l("Refresh the templates or choose another one"),
    ),
    "template_paused": (
        _l("The template is paused for quality"),
        _l("Wait until it is released, or choose another one"),
    ),
    "template_disabled": (_l("The template is disabled for quality"), _l("Choose another template")),
    "template_policy": (
        _l("The template breaks the rules of WhatsApp"),
        _l("Change its text and have it approved anew"),
    ),
    "template_wrong_endpoint": (
        _l("This template must be sent in another way"),
        _l("Switch the marketing endpoint in the channel settings"),
    ),
    "template_syncing": (_l("The template is new and not ready everywhere yet"), _l("Wait: repeated automatically")),
    "flow_blocked": (_l("The form in the template is blocked"), _l("Repair the form at the provider")),
    "flow_throttled": (_l("The form in the template is limited for now"), _l("Wait: repeated automatically")),
    "media_not_fetched": (_l("WhatsApp could not fetch the file of the header"), _l("Check the file or its address")),
    "media_type": (
        _l("The header takes a JPEG or PNG picture, an MP4 or 3GP video or a PDF that is not empty"),
        _l("Convert the file and upload it again"),
    ),
    "media_too_large": (
        _l("The file is too large: up to 5 MB for a picture, 16 MB for a video, 100 MB for a PDF"),
        _l("Make the file smaller and upload it again"),
    ),
    "operator_rejected": (_l("The operator did not let the message through"), _l("Check the text and the contract")),
    "access_refused": (_l("The access key is refused"), _l("Renew it in the channel settings")),
    "permission_missing": (_l("The access key lacks a permission"), _l("Grant it at the provider and resume")),
    "no_money": (_l("The provider account is out of money"), _l("Top it up")),
    "account_blocked": (_l("The account is blocked by the provider"), _l("Clear it up with the provider")),
    "sender_limited": (_l("The sender is limited because of complaints"), _l("Decide whether to go on")),
    "category_limit": (
        _l("The account is limited for templates in a wrong category"),
        _l("Wait: the limit ends by itself"),
    ),
    "payment_terms": (_l("The payment terms are not accepted"), _l("Accept them at the provider")),
    "number_not_ready": (_l("The sending number is not ready"), _l("Check its registration at the provider")),
    "sender_not_registered": (_l("The sender name is not registered"), _l("Arrange it with the provider")),
    "wrong_address": (
        _l("The address of the channel leads elsewhere"),
        _l("Correct the address in the channel settings"),
    ),
    "address_forbidden": (
        _l("The address of the channel is not a public one"),
        _l("Correct it, or have the server allow it"),
    ),
    "settings_invalid": (_l("The channel settings cannot be used"), _l("Correct them")),
    "too_fast": (_l("Too fast for the provider"), _l("Wait: slowed down automatically")),
    "too_often_to_person": (
        _l("Too many messages to this person in a short time"),
        _l("Wait: repeated automatically"),
    ),
    "provider_unreachable": (_l("The provider is unreachable"), _l("Wait: retried automatically")),
    "tls_failed": (
        _l("The secure connection to the provider failed"),
        _l("Check the address of the channel and its certificate"),
    ),
    "provider_fault": (_l("The provider has a fault or is under maintenance"), _l("Wait: retried automatically")),
    "no_answer": (
        _l("The request left, no clear answer came. Most likely the message was sent"),
        _l("Wait for a delivery report, or decide"),
    ),
    "answer_unreadable": (
        _l("The provider's answer cannot be read. The message may have been sent"),
        _l("Check the address of the channel, or ask the provider"),
    ),
    "request_refused": (_l("The provider refused the request"), _l("Check the channel settings and the text")),
    "worker_lost": (
        _l("The server stopped while the message was leaving. Most likely it was sent"),
        _l("Wait for a delivery report, or decide"),
    ),
    "internal": (_l("An error in this program. The message may have been sent"), _l("Look into the server's log")),
    "postponed_too_long": (
        _l("The message could not be handed over within 24 hours"),
        _l("Check the connection and send again"),
    ),
    "cancelled": (_l("The message was taken out of the queue"), _l("Nothing to do")),
    "unknown": (_l("An answer we do not know: “%(text)s”"), _l("Ask the provider")),
}
