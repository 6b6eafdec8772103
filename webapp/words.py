"""Codes of the worker → words, icons and tones. Every sentence about a code is made here, once per request language.

`_l` marks a text for the catalogues without translating it yet; it becomes words when it is shown.
"""

from __future__ import annotations

from typing import NamedTuple

from flask_babel import LazyString
from flask_babel import lazy_gettext as _l


class Word(NamedTuple):
    """One state as people see it: label, icon of icons.svg, and tone (quiet, info, good, warn, bad)."""

    label: LazyString | str
    icon: str
    tone: str
    hint: LazyString | None = None


class Deed(NamedTuple):
    """What can be done for all with one cause: the button that asks, and the one that does."""

    label: LazyString
    act: LazyString


class MenuItem(NamedTuple):
    label: LazyString | str
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

# The pages around the settings; shown as MENU is.
SETTINGS_MENU = (
    MenuItem(_l("My settings"), "/settings", "settings"),
    MenuItem(_l("People"), "/people", "user", "admin"),
    MenuItem(_l("Audit log"), "/audit", "report", "admin"),
    MenuItem(_l("Privacy"), "/privacy", "eye", "admin"),
    MenuItem("API", "/tokens", "settings", "admin"),
    MenuItem(_l("Webhooks"), "/webhooks", "broadcast", "admin"),
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
    "HTTP gateway": _l("HTTP gateway"),
}

INBOX_VIEWS: dict[str, LazyString] = {
    "open": _l("Open"),
    "new": _l("New"),
    "mine": _l("Mine"),
    "closed": _l("Closed"),
    "all": _l("All conversations"),
}

# What a person sent when it has no words of its own.
INBOUND_KINDS: dict[str, LazyString] = {
    "text": _l("Empty message"),
    "image": _l("Picture"),
    "audio": _l("Audio message"),
    "video": _l("Video"),
    "document": _l("Document"),
    "sticker": _l("Sticker"),
    "location": _l("Place on the map"),
    "contacts": _l("Contact card"),
    "order": _l("Order"),
    "button": _l("Pressed button"),
    "interactive": _l("Filled-in form"),
    "reaction": _l("Reaction taken back"),
    "unsupported": _l("A message of a kind that cannot be shown here"),
}

KINDS: dict[str, str] = {"waba": "WABA", "sms": "SMS"}

# What stands in the head of a template that is no text.
MEDIA: dict[str, LazyString] = {
    "IMAGE": _l("Picture"),
    "VIDEO": _l("Video"),
    "DOCUMENT": _l("Document"),
    "GIF": _l("Moving picture (GIF)"),
    "LOCATION": _l("Place on the map"),
}
# Buttons of a template that WhatsApp itself labels.
BUTTONS: dict[str, LazyString] = {
    "OTP": _l("Copy the code"),
    "COPY_CODE": _l("Copy the code"),
}

# What a template is for, as WhatsApp sorts it.
CATEGORIES: dict[str, LazyString] = {
    "MARKETING": _l("marketing"),
    "UTILITY": _l("utility"),
    "AUTHENTICATION": _l("authentication"),
}

# What the provider says of a template.
TEMPLATE_STATES: dict[str, Word] = {
    "APPROVED": Word(_l("Approved"), "check", "good"),
    "PENDING": Word(_l("Under review"), "clock", "info"),
    "IN_APPEAL": Word(_l("Under appeal"), "clock", "info"),
    "FLAGGED": Word(_l("Flagged for quality"), "alert", "warn"),
    "PAUSED": Word(_l("Paused for quality"), "stop", "warn"),
    "LIMIT_EXCEEDED": Word(_l("Limit exceeded"), "alert", "warn"),
    "LOCKED": Word(_l("Locked"), "stop", "bad"),
    "DISABLED": Word(_l("Disabled for quality"), "cross", "bad"),
    "REJECTED": Word(_l("Not approved"), "cross", "bad"),
    "ARCHIVED": Word(_l("Archived"), "cross", "quiet"),
    "PENDING_DELETION": Word(_l("Being deleted"), "cross", "quiet"),
    "DELETED": Word(_l("Deleted"), "cross", "quiet"),
}


def template_state(status: str) -> Word:
    """What the provider says of a template; a word that is new to us stays as it came."""
    return TEMPLATE_STATES.get(status) or Word(status, "question", "quiet")


CHANNEL_STATES: dict[str, Word] = {
    "on": Word(_l("In use"), "check", "good"),
    "stopped": Word(_l("Out of use"), "stop", "bad"),
    "deleted": Word(_l("Deleted"), "cross", "quiet"),
}

# What a person chooses between who adds a channel: one sentence for each Provider.
PROVIDER_HINTS: dict[str, LazyString] = {
    "sandbox_waba": _l("Sends no real messages: for trying things out"),
    "sandbox_sms": _l("Sends no real messages: for trying things out"),
    "whatsapp_cloud": _l("Straight to Meta, without a go-between: needs an app with a permanent access token"),
    "360dialog": _l("Through a partner of Meta: one API key is enough"),
    "smpp": _l("A lasting connection to an operator or an aggregator by SMPP 3.4"),
    "twilio": _l("Account SID and auth token, delivery reports and replies"),
    "smsc_ru": _l("User name and password, delivery reports and replies"),
    "sms_aero": _l("E-mail and API key"),
    "exolve": _l("API key and a number or a sender name"),
    "sms_ru": _l("One API key"),
    "kannel": _l("A gateway of your own: its sendsms address, name and password"),
    "jasmin": _l("A gateway of your own: its HTTP API, name and password"),
    "vonage": _l("API key and secret of the SMS API"),
    "infobip": _l("Your own base address and API key"),
    "http": _l("Any other gateway that takes an HTTP request: you describe the request and the answer"),
}

SETTING_GROUPS: dict[str, LazyString] = {
    "request": _l("The request"),
    "outcome": _l("How the answer is read"),
    "report": _l("Delivery reports"),
    "reply": _l("Replies"),
    "advanced": _l("For special cases"),
}

# Settings of the Providers by name: label, and a hint where the label does not say it all.
SETTINGS: dict[str, tuple[LazyString, LazyString | None]] = {
    "phone_number_id": (
        _l("Phone number ID"),
        _l("Shown by the provider beside the number. It is not the number itself"),
    ),
    "waba_id": (_l("WhatsApp Business Account ID"), _l("Stands beside the phone number ID")),
    "access_token": (_l("Access token"), _l("Of a system user, so that it does not expire")),
    "app_secret": (_l("App secret"), _l("Proves that callbacks come from Meta: App settings, Basic")),
    "app_secret_previous": (_l("Former app secret"), _l("For the time in which the provider changes it over")),
    "verify_token": (_l("Verify token"), _l("The provider repeats it when you enter the callback address there")),
    "webhook_secret": (_l("Callback secret"), _l("Proves that callbacks come from the provider")),
    "secret": (_l("Callback secret"), _l("Proves that callbacks come from the provider")),
    "base_url": (_l("Address of the API"), None),
    "api_version": (_l("API version"), None),
    "marketing_endpoint": (
        _l("Send marketing templates through the Marketing Messages API"),
        _l("For accounts that have accepted the terms of the Marketing Messages API"),
    ),
    "api_key": (_l("API key"), None),
    "host": (_l("Server"), _l("Name or address, without http")),
    "port": (_l("Port"), None),
    "tls": (_l("Encrypted connection (TLS)"), None),
    "system_id": (_l("Login (system_id)"), None),
    "password": (_l("Password"), None),
    "system_type": (_l("System type (system_type)"), _l("Only where the operator names one")),
    "sender": (_l("Sender"), _l("A number or a registered name. Nobody can reply to a name")),
    "window": (_l("Messages on their way at once"), _l("As many as the operator allows to be unanswered")),
    "long_messages": (_l("Long messages"), None),
    "default_alphabet": (_l("The operator’s default alphabet"), None),
    "account_sid": (_l("Account SID"), None),
    "auth_token": (_l("Auth token"), None),
    "from": (_l("Sender"), _l("A number or a registered name. Nobody can reply to a name")),
    "messaging_service_sid": (_l("Messaging Service SID"), _l("Instead of a sender")),
    "url": (_l("Address of the request"), None),
    "method": (_l("Method"), None),
    "username": (_l("User name"), None),
    "login": (_l("User name"), None),
    "email": (_l("E-mail"), None),
    "token": (_l("Token or API key"), None),
    "webhook_url": (_l("Address for callbacks"), None),
    "smsc": (_l("SMSC of Kannel"), _l("Only where several are set up")),
    # SMPP
    "enquire_link": (_l("Seconds between signs of life (enquire_link)"), None),
    "source_ton": (_l("Type of the sender’s number (source TON)"), _l("Empty: found from the sender")),
    "source_npi": (_l("Numbering plan of the sender (source NPI)"), _l("Empty: found from the sender")),
    "dest_ton": (_l("Type of the recipient’s number (dest TON)"), None),
    "dest_npi": (_l("Numbering plan of the recipient (dest NPI)"), None),
    "codes": (_l("Meanings of the operator’s own codes"), _l("One a line")),
    # the HTTP connector: the request
    "auth": (_l("How the request is authorised"), None),
    "headers": (_l("Headers"), _l("One a line, as “Name: value”. {token} and other settings may be used")),
    "body": (_l("Form of the request"), None),
    "fields": (
        _l("Fields of the request"),
        _l("One a line: name = {to}, {text}, {from}, {ref}. With ?= it is left out when empty"),
    ),
    "split": (_l("Who splits a long text"), None),
    # the answer
    "rules": (
        _l("What the answer means"),
        _l("One a line, the first that fits: condition -> ok, person, later, unclear, stop_channel or stop_broadcast"),
    ),
    "id": (_l("Where the id of the message stands"), _l("Such as json.id; “own” takes our own one")),
    "code": (_l("Where the error code stands"), _l("Such as json.error_code")),
    "reason": (_l("Where the words of an error stand"), _l("Such as json.error.message")),
    # reports
    "dlr_url": (_l("Address for reports, as told to the gateway"), None),
    "report_from": (_l("How reports come"), None),
    "report_rows": (_l("Where the list of reports stands"), _l("Only when several come at once, such as results.*")),
    "report_if": (_l("Only those are reports that fulfil"), None),
    "report_id": (_l("Where the id of the message stands"), None),
    "report_ref": (_l("Where our own id stands"), None),
    "report_status": (_l("Where the status stands"), None),
    "report_map": (_l("What the statuses mean"), _l("One a line: value = sent, delivered, read, failed or ignored")),
    "report_code": (_l("Where the error code stands"), None),
    "report_causes": (_l("What the error codes mean"), _l("One a line: value = cause")),
    "report_time": (_l("Where the time stands"), None),
    # replies
    "reply_from": (_l("How replies come"), None),
    "reply_rows": (_l("Where the list of replies stands"), _l("Only when several come at once, such as results.*")),
    "reply_id": (_l("Where the id of the reply stands"), None),
    "reply_phone": (_l("Where the person’s number stands"), None),
    "reply_text": (_l("Where the text stands"), None),
    "reply_hex": (_l("Where the text stands in hexadecimal"), None),
    "reply_hex_if": (_l("The hexadecimal text is taken if"), None),
    "reply_time": (_l("Where the time stands"), None),
    "reply_part": (_l("Where the parts of a long reply are numbered"), None),
    # the rest of it
    "check_url": (_l("Address that “Check connection” asks"), None),
    "check_rules": (_l("What that answer means"), None),
    "answer_status": (_l("Status with which callbacks are answered"), None),
    "answer": (_l("Text with which callbacks are answered"), None),
    "concurrent": (_l("Requests at once, at most"), None),
    "hmac_header": (_l("Header with the signature (HMAC) of a callback"), None),
    "hmac_algorithm": (_l("Algorithm of the signature"), None),
    "hmac_encoding": (_l("How the signature is written"), None),
    "hash_path": (_l("Where the checksum of a callback stands"), None),
    "hash_recipe": (_l("Of what the checksum is made"), None),
    "hash_algorithm": (_l("Algorithm of the checksum"), None),
    "callback_secret": (_l("Key of the signature of callbacks"), _l("As the gateway shows it")),
    "callback_addresses": (_l("Addresses that callbacks may come from"), _l("One a line. Empty: from everywhere")),
}

# Values of choices that are not words of their own.
SETTING_CHOICES: dict[str, LazyString] = {
    "": _l("as usual"),
    "none": _l("not at all"),
    "basic": _l("user name and password (Basic)"),
    "bearer": _l("token (Bearer)"),
    "query": _l("parameters of the address"),
    "form": _l("form fields"),
    "auto": _l("as they come"),
    "gateway": _l("the gateway"),
    "pairs": _l("Molva, in parts with a UDH"),
    "udh8": _l("in parts, UDH with 8 bits (usual)"),
    "udh16": _l("in parts, UDH with 16 bits"),
    "sar": _l("in parts, SAR parameters"),
    "payload": _l("whole, message_payload"),
}


def setting_label(name: str) -> LazyString | str:
    """The name of a setting; one that has no words of its own is made readable."""
    return SETTINGS[name][0] if name in SETTINGS else name.replace("_", " ").capitalize()


def setting_hint(name: str) -> str:
    """What helps to fill a setting in; often nothing."""
    return str((SETTINGS[name][1] if name in SETTINGS else None) or "")


def choice_label(value: str) -> LazyString | str:
    """One value of a choice, in words where it has some."""
    return SETTING_CHOICES.get(value, value)


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

# The parts of the API that a token can be limited to.
AREAS: dict[str, LazyString] = {
    "broadcasts": _l("Broadcasts, files and reports"),
    "channels": _l("Channels and templates"),
    "inbox": _l("Inbox"),
    "optouts": _l("Stop list"),
    "metrics": _l("Metrics"),
}
WEBHOOK_EVENTS: dict[str, LazyString] = {
    "broadcast.finished": _l("A broadcast is finished"),
    "broadcast.stopped": _l("A broadcast was stopped"),
    "message.status": _l("Messages got another status"),
    "message.inbound": _l("People have written"),
    "test": _l("Test"),
}
WEBHOOK_FAILURES: dict[str, LazyString] = {
    "person": _l("Switched off by a person"),
    "restored": _l("Switched off because the data came back from a backup"),
    "dns": _l("The name has no address"),
    "connect_failed": _l("Nobody answers at this address"),
    "tls": _l("Its certificate cannot be trusted"),
    "timeout": _l("It did not answer within 10 seconds"),
    "connection_lost": _l("The connection broke"),
    "answer_too_large": _l("The answer is too large"),
    "answer_unreadable": _l("The answer is not HTTP"),
    "address_forbidden": _l("The address is not a public one"),
    "settings_invalid": _l("The address cannot be used"),
    "credentials_locked": _l("The secret cannot be read with the present key"),
    "http_410": _l("It answered 410: the address is gone for good"),
}
# Switched on, but its address does not answer.
WEBHOOK_FAILING = Word(_l("Not responding"), "alert", "warn")
EXPIRED = Word(_l("Expired"), "clock", "warn")

PERSON_STATES: dict[str, Word] = {
    "on": Word(_l("may sign in"), "check", "good"),
    "off": Word(_l("shut out"), "cross", "quiet"),
}

ROLE_HINTS: dict[str, LazyString] = {
    "admin": _l("Everything: channels, people, settings"),
    "sender": _l("Broadcasts, replies and the stop list"),
    "viewer": _l("Reports with hidden numbers"),
}

# The audit log: actions by their beginning, for choosing; and each of them in words.
AUDIT_GROUPS: dict[str, LazyString] = {
    "log": _l("Signing in and out"),
    "broadcast.": _l("Broadcasts"),
    "file.": _l("Files"),
    "report.": _l("Exports"),
    "number.": _l("Looks at a full number"),
    "message.": _l("Messages"),
    "channel.": _l("Channels"),
    "user.": _l("People"),
    "second_step.": _l("Second step"),
    "optout.": _l("Stop list"),
    "conversation.": _l("Inbox"),
    "quick_answer.": _l("Quick answers"),
    "token.": _l("API tokens"),
    "webhook.": _l("Webhooks"),
    "settings.": _l("Settings"),
    "privacy.": _l("Privacy"),
}
AUDIT_ACTIONS: dict[str, LazyString] = {
    "login": _l("Signed in"),
    "login.failed": _l("Wrong password"),
    "login.end": _l("A browser was signed out"),
    "login.end_all": _l("All browsers were signed out"),
    "logout": _l("Signed out"),
    "confirm.failed": _l("Wrong password at a confirmation"),
    "second_step.on": _l("Second step switched on"),
    "second_step.off": _l("Second step switched off"),
    "second_step.codes": _l("New recovery codes"),
    "second_step.failed": _l("Wrong code"),
    "second_step.recovery": _l("Signed in with a recovery code"),
    "user.add": _l("Person added"),
    "user.invite": _l("Person invited"),
    "user.uninvite": _l("Invitation withdrawn"),
    "user.join": _l("Invitation accepted"),
    "user.password": _l("Password changed"),
    "user.role": _l("Role changed"),
    "user.off": _l("Person shut out"),
    "user.on": _l("Person let in again"),
    "token.create": _l("API token made"),
    "token.revoke": _l("API token revoked"),
    "settings.approval": _l("Rule of four eyes changed"),
    "settings.retention": _l("Timers changed"),
    "broadcast.create": _l("Broadcast created"),
    "broadcast.update": _l("Broadcast changed"),
    "broadcast.approve": _l("Broadcast approved"),
    "broadcast.schedule": _l("Broadcast scheduled"),
    "broadcast.start": _l("Broadcast started"),
    "broadcast.stop": _l("Broadcast stopped"),
    "broadcast.resume": _l("Broadcast resumed"),
    "broadcast.clear": _l("Broadcast cleared"),
    "broadcast.undo": _l("Clear taken back"),
    "broadcast.restart": _l("Broadcast restarted"),
    "broadcast.delete": _l("Broadcast deleted"),
    "broadcast.test": _l("Test sent"),
    "broadcast.by_sms": _l("SMS drafted for those not reached"),
    "broadcast.stop_list": _l("People of a report put on the stop list"),
    "conversation.answer": _l("Answer sent"),
    "conversation.assign": _l("Conversation assigned"),
    "conversation.close": _l("Conversation closed"),
    "conversation.open": _l("Conversation opened again"),
    "quick_answer.save": _l("Quick answer saved"),
    "quick_answer.delete": _l("Quick answer deleted"),
    "optout.add": _l("Numbers put on the stop list"),
    "optout.remove": _l("Number taken off the stop list"),
    "optout.export": _l("Stop list downloaded"),
    "optout.words": _l("Stop words changed"),
    "optout.confirmation": _l("Confirmation of the stop list changed"),
    "file.upload": _l("File uploaded"),
    "file.check": _l("File read another way"),
    "file.remove": _l("File deleted"),
    "file.restore": _l("Deletion of a file taken back"),
    "file.errors": _l("Rejected rows downloaded"),
    "report.export": _l("Report downloaded"),
    "audit.export": _l("Audit log downloaded"),
    "number.view": _l("Full number looked at"),
    "message.sent": _l("Message counted as sent"),
    "message.resend": _l("Message sent again"),
    "channel.create": _l("Channel added"),
    "channel.edit": _l("Channel changed"),
    "channel.delete": _l("Channel deleted"),
    "channel.on": _l("Channel switched on"),
    "channel.off": _l("Channel switched off"),
    "channel.register": _l("Callbacks registered at the provider"),
    "channel.media": _l("File handed to the provider"),
    "webhook.add": _l("Webhook added"),
    "webhook.change": _l("Webhook changed"),
    "webhook.delete": _l("Webhook deleted"),
    "privacy.find": _l("Person searched for"),
    "privacy.export": _l("Data of a person downloaded"),
    "privacy.erase": _l("Person erased"),
    "data.restore": _l("Data restored from a backup"),
}


# What each table keeps, for the page that says so.
STORED: dict[str, LazyString] = {
    "message": _l("Messages: number, row of the file, status, times, the provider’s id"),
    "recipient_file": _l("Uploaded files: name, columns, first rows; the file itself on the disk"),
    "stored_file": _l("Uploaded and attached files, where several hosts share a database"),
    "rejected_row": _l("Rows of files that got no message, and why"),
    "attempt": _l("Tries that did not simply succeed, with the provider’s words"),
    "delivery_report": _l("Delivery reports of the providers"),
    "part": _l("Parts of long messages"),
    "callback": _l("Callbacks of the providers as they came"),
    "inbound": _l("Replies: number, name, text"),
    "inbound_part": _l("Parts of long replies that wait for the others"),
    "conversation": _l("Conversations: number, name, last text"),
    "attachment": _l("Files that people sent; the file itself on the disk"),
    "direct": _l("Single messages: answers, tests, confirmations"),
    "opt_out": _l("The stop list"),
    "opt_out_event": _l("Proof of the stop list: who, when, by what words"),
    "marketing_choice": _l("What people said at the provider about marketing"),
    "broadcast": _l("Broadcasts: name, text, settings"),
    "audit": _l("The audit log; no whole numbers"),
    "user_account": _l("People who sign in: e-mail, hash of the password, sealed second step, own test numbers"),
    "login_session": _l("Who is signed in: address, browser, time"),
    "login_attempt": _l("Wrong passwords, for the delay"),
    "recovery_code": _l("Recovery codes, as hashes"),
    "invitation": _l("Invitations: e-mail, role, hash of the link"),
    "api_token": _l("API tokens, as hashes"),
    "channel": _l("Channels: settings, sealed credentials"),
    "message_template": _l("Approved templates of the providers"),
    "media": _l("Files for templates that the provider keeps"),
    "quick_answer": _l("Texts that operators send often"),
    "run": _l("Runs of the broadcasts"),
    "counter": _l("Totals by status"),
    "departure": _l("How many messages left in each minute"),
    "snapshot": _l("Counted facts of reports"),
    "overlap": _l("How many of a queue got other broadcasts lately, counted for the sheet before the start"),
    "removal": _l("What was removed: how many of what, never whose"),
    "repeat_answer": _l("Answers of the API for calls that are repeated, for a day"),
    "webhook": _l("Webhooks: address, sealed secret, the event at which they stand"),
    "webhook_delivery": _l("Log of the webhooks, for a week; no contents"),
    "event": _l("What happened to broadcasts, for the webhooks, for a week"),
    "latency": _l("How fast the providers answered, as numbers"),
    "setting": _l("Settings of the installation"),
    "worker": _l("Processes that send"),
    "files": _l("Uploaded files that hold the number"),
}
TIMERS: dict[str, tuple[LazyString, LazyString]] = {
    "texts": (
        _l("Texts and rows of broadcasts"),
        _l("After the last message of a broadcast. It cannot be sent again then."),
    ),
    "files": (_l("Uploaded files"), _l("After the check; their messages stay. Files of drafts are kept.")),
    "callbacks": (_l("Raw callbacks"), _l("After they were applied.")),
    "numbers": (
        _l("Numbers of broadcasts"),
        _l("After the last message a hash stands in their place; texts and rows go with them."),
    ),
    "inbox": (_l("Conversations"), _l("After the last word in them, with files and answers.")),
    "audit": (_l("Audit log"), _l("At least 366: the database itself keeps a year.")),
}
REMOVED: dict[str, LazyString] = {
    "rows": _l("rows"),
    "texts": _l("texts"),
    "rejected_rows": _l("rejected rows"),
    "numbers": _l("numbers made unreadable"),
    "files": _l("uploaded files"),
    "replies": _l("replies"),
    "answers": _l("answers"),
    "conversations": _l("conversations"),
    "attachments": _l("files that people sent"),
    "audit_lines": _l("lines of the audit log"),
    "messages": _l("messages made anonymous"),
    "cancelled": _l("messages taken out of the queue"),
    "callbacks": _l("raw callbacks"),
    "repeat_answers": _l("kept answers of the API"),
    "stop_list_kept_as_hash": _l("entries of the stop list kept as a hash"),
    "test_phones": _l("own test numbers"),
    "emulator_lines": _l("places in the log of the sandbox"),
}


# Of what kind the subject of a line is.
AUDIT_SUBJECTS: dict[str, LazyString] = {
    "broadcast": _l("broadcast no. %(n)s"),
    "channel": _l("channel no. %(n)s"),
    "conversation": _l("conversation no. %(n)s"),
    "file": _l("file no. %(n)s"),
    "message": _l("message no. %(n)s"),
    "optout": _l("entry no. %(n)s"),
    "quick_answer": _l("quick answer no. %(n)s"),
    "session": _l("sign-in no. %(n)s"),
}
# Who acts without being a person.
AUDIT_ACTORS: dict[str, LazyString] = {
    "schedule": _l("the schedule"),
    "setup": _l("the first start"),
    "command line": _l("the command line"),
}
# Names of the facts beside a line.
AUDIT_FACTS: dict[str, LazyString] = {
    "above": _l("More recipients than"),
    "added": _l("Added to the list"),
    "areas": _l("Parts of the API"),
    "at": _l("Copy of"),
    "before": _l("Role before"),
    "cause": _l("Cause"),
    "delimiter": _l("Delimiter"),
    "done": _l("Done"),
    "encoding": _l("Encoding"),
    "extra": _l("Own words"),
    "fields": _l("Changed"),
    "how": _l("Recipients"),
    "invalid": _l("With an error"),
    "invited_by": _l("Invited by"),
    "known": _l("There already"),
    "late_ms": _l("Late by"),
    "left": _l("Recovery codes left"),
    "masked": _l("Phones"),
    "n": _l("How many"),
    "name": _l("Name"),
    "of": _l("Where"),
    "on": _l("Switched on"),
    "phone_column": _l("Phone column"),
    "provider": _l("Provider"),
    "role": _l("Role"),
    "rows": _l("Rows in the file"),
    "stopped": _l("Broadcasts stopped"),
    "title": _l("Title"),
    "to": _l("To whom"),
    "uncertain": _l("Uncertain"),
}
AUDIT_HOW: dict[str, LazyString] = {"keep": _l("stayed in the queue"), "remove": _l("taken out of the queue")}
AUDIT_PLACES: dict[str, LazyString] = {"stop list": _l("the stop list"), "conversation": _l("a conversation")}
# What was changed: columns of broadcasts, channels and webhooks; settings of a Provider have their names above.
AUDIT_FIELDS: dict[str, LazyString] = {
    "canary": _l("Canary"),
    "channel": _l("Channel"),
    "cooldown_days": _l("Skip people who got a broadcast within (days)"),
    "currency": _l("Currency"),
    "events": _l("Events"),
    **dict.fromkeys(("failing_since", "next_at", "stop_reason", "tries"), _l("State")),
    "ignore_duplicates": _l("Ignore duplicates"),
    "name": _l("Name"),
    "on_file_delete": _l("When a file is deleted"),
    "per_day": _l("Messages per day"),
    "per_second": _l("Messages per second"),
    "price": _l("Price of one message"),
    "quiet_from": _l("Quiet hours"),
    "quiet_to": _l("Quiet hours"),
    "rate_per_minute": _l("Messages per minute"),
    "region": _l("Country of numbers without a code"),
    "send_at": _l("Start time"),
    "state": _l("State"),
    "template_language": _l("Approved template"),
    "template_name": _l("Approved template"),
    "text": _l("Message text"),
    "timezone": _l("Time zone"),
    "url": _l("Address"),
    "variables": _l("Template variables"),
}


def audit_action(action: str) -> LazyString | str:
    """An action of the audit log in words; one that has none as it is stored."""
    return AUDIT_ACTIONS.get(action, action)


LANGUAGES: dict[str, str] = {"ru": "Русский", "en": "English"}

SHORTCUTS: dict[str, LazyString] = {"on": _l("on"), "off": _l("off")}

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

# By the deeds of worker.causes.
DEEDS: dict[str, Deed] = {
    "again": Deed(_l("Send again to these"), _l("Send again to these")),
    "sms": Deed(_l("Send by SMS"), _l("Make the draft")),
    "stop": Deed(_l("Add to the stop list"), _l("Add to the stop list")),
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
    "credentials_locked": _l("The stored credentials cannot be read with the present secret key: enter them anew"),
    "webhook_registered": _l("The provider now sends its callbacks to this Molva"),
    "no_base_url": _l("MOLVA_BASE_URL is not set on the server, so there is no address that could be registered"),
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
# How a finding looks: icon, tone, and the word for those who see neither.
FINDING_LEVELS: dict[str, Word] = {
    "ok": Word(_l("Fine"), "check", "good"),
    "warning": Word(_l("Please note"), "alert", "warn"),
    "error": Word(_l("Wrong"), "cross", "bad"),
}

# Heads of downloaded tables, as people read them; programs get the names on the left.
COLUMNS: dict[str, LazyString] = {
    "phone": _l("Phone"),
    "status": _l("Status"),
    "cause_code": _l("Cause code"),
    "cause": _l("Cause"),
    "provider_id": _l("Id at the provider"),
    "run": _l("Run"),
    "file": _l("File"),
    "line": _l("Row"),
    "sent_at": _l("Sent at"),
    "delivered_at": _l("Delivered at"),
    "read_at": _l("Read at"),
    "undelivered_at": _l("Undelivered at"),
    "code": _l("Code"),
    "reason": _l("Reason"),
    "column": _l("Column"),
    "value": _l("Value"),
    "row": _l("The row as it was"),
    "time": _l("Time"),
    "who": _l("Who"),
    "action": _l("Action"),
    "subject": _l("Subject"),
    "detail": _l("Details"),
    "address": _l("Address"),
    "via": _l("By way of"),
}

# The stop list: what is not sent to a number, and who said so.
OPTOUT_SCOPES: dict[str, LazyString] = {"all": _l("All broadcasts"), "marketing": _l("Marketing only")}
OPTOUT_SOURCES: dict[str, LazyString] = {
    "reply": _l("The person’s reply"),
    "provider": _l("The provider"),
    "person": _l("By hand"),
    "import": _l("From a file"),
}
OPTOUT_ACTIONS: dict[str, Word] = {
    "add": Word(_l("Put on the stop list"), "stop-list", "warn"),
    "remove": Word(_l("Taken off the stop list"), "check", "good"),
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
    "picture": _l("the person replies with a picture"),
    "sms_only": _l("not on WhatsApp, but an SMS arrives"),
}
SPECIAL_SMS: dict[str, LazyString] = {
    "not_on_whatsapp": _l("no such number"),
    "marketing_cap": _l("refused by the operator"),
    "never_read": _l("delivered"),
    "paused": _l("the sender name is refused: the channel stops"),
    "picture": _l("the person replies"),
    "sms_only": _l("delivered"),
}

# What happened and what to do, by the key of worker.causes; words only, who and retry stand there.
CAUSES: dict[str, tuple[LazyString, LazyString]] = {
    "not_on_whatsapp": (_l("The number is not on WhatsApp or cannot receive this"), _l("Send an SMS")),
    "no_such_number": (_l("No such number"), _l("Correct the number in the file")),
    "no_route": (_l("The provider has no way to this number"), _l("Use another channel, or ask the provider")),
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
    "quiet_hours": (_l("It is night where the person lives"), _l("Wait: it leaves when the quiet hours end")),
    "cooldown": (
        _l("The person got another broadcast a short time ago"),
        _l("Send again in some days, or lower the number of days in the broadcast"),
    ),
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
    "channel_off": (_l("A person switched the channel off"), _l("Switch it on when it may send again")),
    "channel_deleted": (_l("The channel has been deleted"), _l("Clear the broadcast and choose another channel")),
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
    "refused": (_l("The provider refused the message: “%(text)s”"), _l("Ask the provider")),
    "unknown": (_l("An answer we do not know: “%(text)s”"), _l("Ask the provider")),
}
