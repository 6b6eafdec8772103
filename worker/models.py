"""Tables and columns, no rules. Times are milliseconds since the epoch (UTC) unless a name says otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    FloatField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)

from worker.db import database
from worker.states import sql_list


class JSONField(TextField):
    """A JSON value kept as text; NULL stays None."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class Table(Model):
    if TYPE_CHECKING:
        id: Any  # every table but those with a primary key of their own

    class Meta:
        database = database
        legacy_table_names = False


class Setting(Table):
    """One fact about this installation: a name and a JSON value."""

    name = CharField(primary_key=True)
    value = JSONField(null=True)


class User(Table):
    email = CharField(unique=True)
    password_hash = CharField()
    role = CharField()  # admin, sender, viewer
    language = CharField(null=True)
    active = BooleanField(default=True)
    created_at = BigIntegerField()
    test_phones = JSONField(null=True)  # one's own numbers, E.164, the latest first
    totp = BlobField(null=True)  # the sealed secret of the second step of signing in; None: there is none
    totp_step = BigIntegerField(null=True)  # the last half minute whose code was used

    class Meta:
        table_name = "user_account"  # "user" is a reserved word in PostgreSQL


class LoginSession(Table):
    """One signed-in browser; the cookie carries a token whose SHA-256 is the key."""

    token_hash = CharField(unique=True)
    user = ForeignKeyField(User, on_delete="CASCADE")
    created_at = BigIntegerField()
    last_at = BigIntegerField()
    address = CharField(default="")
    agent = CharField(default="")
    confirmed_at = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # when the person last proved to be there


class RecoveryCode(Table):
    """One of the codes that open the door once when the phone is lost."""

    user = ForeignKeyField(User, on_delete="CASCADE")
    code_hash = CharField()


class Invitation(Table):
    """A person who may come in by a link that works once; the table keeps only its hash."""

    token_hash = CharField(unique=True)
    email = CharField(unique=True)
    role = CharField()
    made_by = CharField()
    created_at = BigIntegerField()
    expires_at = BigIntegerField()


class LoginAttempt(Table):
    """Failed sign-ins per account and per address, so that the delay survives a restart."""

    key = CharField(primary_key=True)
    failures = IntegerField(default=0)
    until = BigIntegerField(default=0)
    last_at = BigIntegerField(default=0)


class ApiToken(Table):
    name = CharField()
    prefix = CharField()
    token_hash = CharField(unique=True)
    role = CharField()
    created_at = BigIntegerField()
    expires_at = BigIntegerField(null=True)
    last_used_at = BigIntegerField(null=True)
    areas = JSONField(null=True)  # the parts of the API that it reaches; None: all that its role allows
    user_id = IntegerField(null=True)  # who made it; None: the command line


class Audit(Table):
    """Who did what, from where; only ever appended to, which the database itself holds."""

    at = BigIntegerField(index=True)
    actor = CharField()
    action = CharField()
    subject = CharField(default="")
    detail = JSONField(null=True)
    address = CharField(default="", constraints=[SQL("DEFAULT ''")])
    via = CharField(default="", constraints=[SQL("DEFAULT ''")])  # the login session or the API token

    class Meta:
        indexes = ((("actor", "at"), False), (("action", "at"), False), (("actor", "action", "at"), False))


class Worker(Table):
    """One worker process; `owner` of messages and files points here."""

    pid = IntegerField()
    host = CharField()
    started_at = BigIntegerField()
    heartbeat_at = BigIntegerField()


class Channel(Table):
    key = CharField(unique=True)  # unguessable, the last part of the callback address
    kind = CharField()  # waba, sms
    provider = CharField()
    name = CharField()
    settings = JSONField(default=dict)
    secrets = BlobField(null=True)  # encrypted JSON
    per_second = FloatField(null=True)
    per_day = IntegerField(null=True)
    price = FloatField(null=True)
    currency = CharField(null=True)
    state = CharField(default="on")  # on, stopped
    stop_reason = CharField(null=True)  # a cause code
    stop_detail = JSONField(null=True)
    stopped_at = BigIntegerField(null=True)
    next_slot = BigIntegerField(default=0)  # microseconds
    slow_until = BigIntegerField(default=0)
    templates_synced_at = BigIntegerField(null=True)
    created_at = BigIntegerField()
    recent = CharField(default="")  # the last results, as worker.breaker keeps them
    opened_at = BigIntegerField(null=True)  # since when the circuit breaker is open
    probe_at = BigIntegerField(default=0)
    account = CharField(default="", index=True)  # what channels of one account at the vendor have in common
    vendor_limit = IntegerField(null=True)  # messages a day that the vendor allows, as it last said
    quality = CharField(null=True)  # what the vendor last said about the sender


class MessageTemplate(Table):
    channel = ForeignKeyField(Channel, on_delete="CASCADE", backref="templates")
    name = CharField()
    language = CharField()
    status = CharField()
    category = CharField()
    parameter_format = CharField(default="POSITIONAL")
    components = JSONField()
    synced_at = BigIntegerField()
    quality = CharField(null=True)  # what the vendor last said about it

    class Meta:
        indexes = ((("channel", "name", "language"), True),)


class Media(Table):
    """A file that the provider keeps for the headers of templates."""

    channel_id = IntegerField(index=True)
    media_id = CharField()
    name = CharField()
    mime = CharField()
    at = BigIntegerField()


class Broadcast(Table):
    if TYPE_CHECKING:
        channel_id: int | None

    name = CharField(index=True)
    state = CharField(default="draft", index=True)
    stop_reason = CharField(null=True)  # person, missed, a cause code, restored …
    stop_detail = JSONField(null=True)
    stopped_at = BigIntegerField(null=True)
    channel = ForeignKeyField(Channel, null=True, on_delete="RESTRICT", backref="broadcasts")
    text = TextField(null=True)
    template_name = CharField(null=True)
    template_language = CharField(null=True)
    variables = JSONField(default=dict)  # slot → {"column"| "value", "fallback"?}
    text_version = IntegerField(default=1)
    region = CharField()
    ignore_duplicates = BooleanField(default=True)
    on_file_delete = CharField(default="keep")
    rate_per_minute = IntegerField()
    send_at = BigIntegerField(null=True)  # None: now
    timezone = CharField()
    run = IntegerField(default=1)  # the current run
    epoch = IntegerField(default=0)  # rises at every start, stop, resume, clear, restart
    next_slot = BigIntegerField(default=0)  # microseconds
    waiting = JSONField(null=True)  # {"code", "until"?} why it waits, kept by the sender
    last_sent_at = BigIntegerField(null=True)
    speed = IntegerField(default=0)  # messages in the last minute, as of last_sent_at
    created_by = CharField(default="")
    created_at = BigIntegerField()
    updated_at = BigIntegerField()
    form_token = CharField(null=True, unique=True)  # a form sent twice makes one broadcast
    kind = CharField(default="list")  # list; direct: the one of a channel that carries its single messages
    quiet_from = IntegerField(null=True)  # minutes after the recipient's midnight; None: no quiet hours
    quiet_to = IntegerField(null=True)
    cooldown_days = IntegerField(null=True)  # skip whom any broadcast was sent to within so many days
    canary = IntegerField(null=True)  # how many of the run leave before it stops by itself
    changed_by = CharField(default="", constraints=[SQL("DEFAULT ''")])  # who last changed the content or the files
    approved_by = CharField(null=True)  # the second person, where the team wants one
    approved_at = BigIntegerField(null=True)
    approved_run = IntegerField(null=True)  # the run that they approved
    texts_gone_at = BigIntegerField(null=True)  # when the timer removed its texts and rows
    numbers_gone_at = BigIntegerField(null=True)  # when the timer made its numbers unreadable


Broadcast.add_index(Broadcast.index(Broadcast.kind, Broadcast.id, name="broadcast_kind"))


class Run(Table):
    """One pass over the recipients; `who` is the choice made at a restart."""

    broadcast = ForeignKeyField(Broadcast, on_delete="CASCADE", backref="runs")
    number = IntegerField()
    who = CharField(default="everyone")
    started_at = BigIntegerField(null=True)
    finished_at = BigIntegerField(null=True)
    copied = BooleanField(default=True)  # False while a restart still makes its rows
    cause = CharField(null=True)  # a restart for those alone who did not get it because of this

    class Meta:
        indexes = ((("broadcast", "number"), True),)


class RecipientFile(Table):
    if TYPE_CHECKING:
        broadcast_id: int

    broadcast = ForeignKeyField(Broadcast, on_delete="CASCADE", backref="files")
    role = CharField()  # main, appended
    name = CharField()
    path = CharField(default="")  # random name under uploads/, never the user's
    size = IntegerField()
    sha256 = CharField(index=True)
    state = CharField(default="checking")  # checking, ready, refused
    removed_at = BigIntegerField(null=True)
    removed_how = CharField(null=True)  # keep, remove, clear
    run = IntegerField(default=1)  # the run that its rows were made for; 0: for the next restart
    # what the user chose (None: detect) and what was found
    options = JSONField(default=dict)  # encoding, delimiter, phone_column as chosen
    encoding = CharField(null=True)
    delimiter = CharField(null=True)
    phone_column = CharField(null=True)
    columns = JSONField(default=list)
    unused = JSONField(default=list)
    sample = JSONField(default=list)  # the first decoded rows
    repairs = JSONField(default=dict)  # {"count": n, "examples": [[before, after], …]}
    code = CharField(null=True)  # why it was refused
    detail = JSONField(null=True)  # the facts for that sentence
    rows = IntegerField(default=0)
    accepted = IntegerField(default=0)
    rejected = JSONField(default=dict)  # reason code → number of rows
    done = IntegerField(default=0)  # bytes read so far, for the progress bar
    owner = IntegerField(null=True)
    created_at = BigIntegerField()
    checked_at = BigIntegerField(null=True)
    facts = JSONField(null=True)  # what checking learned of the accepted rows, for the pre-flight sheet


class RejectedRow(Table):
    """One row of a file that got no message, and why. `line` counts as Excel does: the header is 1."""

    id = BigAutoField()
    file_id = IntegerField()
    line = IntegerField()
    code = CharField()
    column = CharField(null=True)
    value = TextField(null=True)  # the offending cell, shortened
    original = TextField(null=True)  # the original row, as CSV
    other = JSONField(null=True)  # the row that a duplicate repeats: {"line", "file"?}

    class Meta:
        indexes = ((("file_id", "id"), False),)


class Message(Table):
    """One outbound unit to one recipient in one run. The table is the queue."""

    id = BigAutoField()
    broadcast_id = IntegerField()
    run = IntegerField()
    file_id = IntegerField()
    line = IntegerField()
    phone = CharField()
    row = TextField(null=True)  # the original cells as a JSON list, in the order of the file's columns
    status = CharField(default="queued")
    not_before = BigIntegerField(default=0)  # 0: not taken up yet; below: chosen for a canary
    token = CharField(null=True)  # "<id>.<random>", echoed by the provider
    owner = IntegerField(null=True)
    lease_until = BigIntegerField(null=True)
    tries = IntegerField(default=0)  # postponements that count against the budget
    postponed_at = BigIntegerField(null=True)  # the first one
    provider_id = CharField(null=True)
    cause = CharField(null=True)
    cause_text = TextField(null=True)  # the vendor's own words
    text_version = IntegerField(null=True)
    sending_at = BigIntegerField(null=True)
    sent_at = BigIntegerField(null=True)
    delivered_at = BigIntegerField(null=True)
    read_at = BigIntegerField(null=True)
    undelivered_at = BigIntegerField(null=True)

    class Meta:
        indexes = ((("file_id", "run", "line"), True),)


# What people filter by and what is few; the many (queued, sent, delivered, read) need no index.
PROBLEMS = ("held", "undelivered", "failed", "uncertain", "skipped", "cancelled")
# SQLite takes the partial index of the problems only for these very words; one status of them is not enough.
PROBLEM = "status IN (" + ", ".join(f"'{status}'" for status in sorted(PROBLEMS)) + ")"

Message.add_index(
    Message.index(Message.file_id, Message.run, Message.not_before, Message.id, name="message_queue").where(
        SQL("status = 'queued'")
    )
)
Message.add_index(
    Message.index(Message.owner, Message.lease_until, name="message_sending").where(SQL("status = 'sending'"))
)
Message.add_index(
    Message.index(  # the cause comes last: groups and filters by it need no look at the rows
        *(Message.broadcast_id, Message.run, Message.status, Message.file_id, Message.line, Message.cause),
        name="message_problem",
    ).where(SQL(f"status IN {sql_list(PROBLEMS)}"))
)
Message.add_index(Message.index(Message.phone, Message.id, name="message_phone").where(SQL("status <> 'queued'")))
Message.add_index(Message.index(Message.provider_id, name="message_provider").where(SQL("provider_id IS NOT NULL")))


class Counter(Table):
    """How many messages of one file stand in one status in one run; changed with the rows, never counted."""

    broadcast_id = IntegerField()
    run = IntegerField()
    file_id = IntegerField()
    status = CharField()
    n = IntegerField()

    class Meta:
        primary_key = False
        indexes = ((("broadcast_id", "run", "file_id", "status"), True),)


class Departure(Table):
    """How many messages left on a channel in one minute: for its daily limit."""

    channel_id = IntegerField()
    minute = IntegerField()  # since the epoch
    n = IntegerField()

    class Meta:
        primary_key = False
        indexes = ((("channel_id", "minute"), True),)


class Attempt(Table):
    """What happened at one try that did not simply succeed; only ever appended to."""

    id = BigAutoField()
    message_id = BigIntegerField(index=True)
    token = CharField()
    at = BigIntegerField()
    outcome = CharField()  # postponed, rejected, lost, refused
    http_status = IntegerField(null=True)
    code = CharField(null=True)
    detail = TextField(null=True)


class DeliveryReport(Table):
    """What the provider said later about one message; only ever appended to."""

    id = BigAutoField()
    channel_id = IntegerField()
    message_id = BigIntegerField(null=True)  # None: not known yet, joined for 72 hours
    provider_id = CharField(null=True)
    token = CharField(null=True)
    status = CharField()  # sent, delivered, read, failed, held
    at = BigIntegerField()  # the provider's time
    received_at = BigIntegerField()
    code = CharField(null=True)
    detail = TextField(null=True)
    effect = CharField(null=True)  # moved, kept, conflict
    dedupe = CharField()  # the same report again changes nothing
    also = JSONField(null=True)  # other spellings of provider_id

    class Meta:
        indexes = ((("channel_id", "dedupe"), True), (("message_id",), False))


DeliveryReport.add_index(
    DeliveryReport.index(DeliveryReport.provider_id, name="delivery_report_orphan").where(SQL("message_id IS NULL"))
)


class Part(Table):
    """One part of a long message, where the provider numbers and reports each of them alone."""

    channel_id = IntegerField()
    provider_id = CharField()
    message_id = BigIntegerField(index=True)
    status = CharField(default="sent")  # sent, delivered, failed

    class Meta:
        indexes = ((("channel_id", "provider_id"), True),)


class Callback(Table):
    """One raw callback, stored before it is answered and applied by the worker."""

    id = BigAutoField()
    channel_id = IntegerField()
    path = CharField(default="")  # "", status, inbound
    query = TextField(default="")
    headers = JSONField(null=True)
    body = BlobField()
    received_at = BigIntegerField()
    processed_at = BigIntegerField(null=True)
    error = TextField(null=True)


Callback.add_index(Callback.index(Callback.id, name="callback_waiting").where(SQL("processed_at IS NULL")))


class Inbound(Table):
    """One message from a person."""

    id = BigAutoField()
    channel_id = IntegerField()
    provider_id = CharField()
    phone = CharField(index=True)
    name = CharField(null=True)
    kind = CharField()
    text = TextField(null=True)
    context = CharField(null=True)  # provider id of the message it quotes
    message_id = BigIntegerField(null=True, index=True)  # the broadcast message it answers
    broadcast_id = IntegerField(null=True)
    at = BigIntegerField()
    received_at = BigIntegerField()
    conversation_id = IntegerField(null=True)

    class Meta:
        indexes = (
            (("channel_id", "provider_id"), True),
            (("conversation_id", "at", "id"), False),
        )


Inbound.add_index(Inbound.index(Inbound.broadcast_id, Inbound.phone, name="inbound_broadcast_id"))


class InboundPart(Table):
    """One part of a long reply, which waits for the others."""

    channel_id = IntegerField()
    provider_id = CharField()
    phone = CharField()
    reference = CharField()  # what the parts of one reply have in common
    n = IntegerField()
    total = IntegerField()
    text = TextField()
    at = BigIntegerField()
    received_at = BigIntegerField()
    joined = BooleanField(default=False)  # kept for a while, so that a repeat is known as one

    class Meta:
        indexes = ((("channel_id", "provider_id"), True),)


class OptOut(Table):
    """A number that must not get broadcasts: none at all (scope all), or none that advertise (marketing)."""

    phone = CharField()
    scope = CharField(default="all")
    reason = TextField(default="")
    source = CharField()  # reply, provider, person, import
    channel_id = IntegerField(null=True)
    at = BigIntegerField()

    class Meta:
        # the claim and the search; the list; the search among some of them
        indexes = (
            (("phone", "scope"), True),
            (("scope", "source", "id"), False),
            (("scope", "source", "phone"), False),
        )


class MarketingChoice(Table):
    """What a person last said at the provider about marketing."""

    phone = CharField(unique=True)
    choice = CharField()  # stop, resume
    at = BigIntegerField()


class OptOutEvent(Table):
    """The proof of the stop list: who was put on it or taken off, when, by what words; only ever appended to."""

    phone = CharField()
    scope = CharField()
    action = CharField()  # add, remove
    source = CharField()  # reply, provider, person, import
    reason = TextField()  # the person's own words, the vendor's code, or what an operator wrote
    channel_id = IntegerField(null=True)
    actor = CharField()  # who did it, "" where nobody of us did
    at = BigIntegerField()

    class Meta:
        indexes = ((("phone", "id"), False),)


class Direct(Table):
    """A single message outside of any list: an answer, a test, a confirmation. Its Message carries it."""

    channel_id = IntegerField()
    message_id = BigIntegerField(null=True, unique=True)
    kind = CharField()  # answer, test, confirmation
    phone = CharField(index=True)
    conversation_id = IntegerField(null=True)
    about_id = IntegerField(null=True)  # the broadcast that a test is of
    made_by = CharField()
    at = BigIntegerField()
    form_token = CharField(null=True, unique=True)  # a form sent twice makes one message

    class Meta:
        indexes = ((("conversation_id", "id"), False), (("about_id", "id"), False))


class Conversation(Table):
    """The chat with one person on one channel; it exists from that person's first message on."""

    channel_id = IntegerField()
    phone = CharField(index=True)
    name = CharField(null=True)
    state = CharField(default="open")  # open, closed
    assignee_id = IntegerField(null=True)  # a user
    unread = IntegerField(default=0)
    broadcast_id = IntegerField(null=True, index=True)  # the latest one that was answered
    message_id = BigIntegerField(null=True)
    last_in_at = BigIntegerField()
    last_at = BigIntegerField()
    last_text = TextField(default="")
    last_direction = CharField(default="in")  # in, out
    created_at = BigIntegerField()
    closed_at = BigIntegerField(null=True)

    class Meta:
        indexes = ((("channel_id", "phone"), True), (("state", "last_at", "id"), False), (("last_at", "id"), False))


Conversation.add_index(Conversation.index(Conversation.last_at, name="conversation_unread").where(SQL("unread > 0")))


class Attachment(Table):
    """A file that came with a person's message; it lies under a random name in the data folder."""

    inbound_id = IntegerField(index=True)
    channel_id = IntegerField()
    media_id = CharField()  # the vendor's
    mime = CharField()
    name = CharField()
    size = IntegerField(default=0)
    path = CharField(default="")
    state = CharField(default="waiting")  # waiting, ready, failed
    cause = CharField(null=True)
    tries = IntegerField(default=0)
    next_at = BigIntegerField(default=0)
    at = BigIntegerField()


Attachment.add_index(Attachment.index(Attachment.next_at, name="attachment_waiting").where(SQL("state = 'waiting'")))


class QuickAnswer(Table):
    """A text that operators send often."""

    title = CharField()
    text = TextField()


class Overlap(Table):
    """What was counted of the queue of one broadcast, as worker.overlap reads it."""

    broadcast_id = IntegerField(primary_key=True)
    mark = CharField()  # of all that the numbers depend on
    body = JSONField()
    done = BooleanField(default=False)
    at = BigIntegerField()  # when it was last worked on


class Snapshot(Table):
    """The counted facts of a report that no counter keeps; run 0: of all runs."""

    broadcast_id = IntegerField()
    run = IntegerField()
    made_at = BigIntegerField()
    took = IntegerField()  # ms
    body = JSONField()

    class Meta:
        primary_key = CompositeKey("broadcast_id", "run")


class RepeatAnswer(Table):
    """What a call was answered that may be sent again with the same key."""

    call = CharField(primary_key=True)  # a hash of who called what with which key
    said = CharField()  # a hash of the body
    status = IntegerField()
    body = TextField()
    at = BigIntegerField(index=True)


class Webhook(Table):
    """An address of somebody else's program that is told what happens here."""

    url = CharField()
    events = JSONField()
    secret = BlobField()  # sealed; signs what is sent
    state = CharField(default="on")  # on, stopped
    stop_reason = CharField(null=True)  # a cause code, person, restored
    positions = JSONField(default=dict)  # table → the last id of it that was told
    pending = JSONField(null=True)  # the event on its way, the same at every try
    tries = IntegerField(default=0)
    failing_since = BigIntegerField(null=True)
    next_at = BigIntegerField(default=0)
    busy_until = BigIntegerField(default=0)  # some worker process is sending to it
    last_at = BigIntegerField(null=True)  # the last success
    created_by = CharField()
    created_at = BigIntegerField()


class WebhookDelivery(Table):
    """One try to tell a webhook something."""

    webhook_id = IntegerField()
    event_id = CharField()
    event = CharField()
    items = IntegerField()
    at = BigIntegerField()
    took = IntegerField()  # ms
    http_status = IntegerField(null=True)
    cause = CharField(null=True)  # why it failed; None: taken

    class Meta:
        indexes = ((("webhook_id", "id"), False),)


class Event(Table):
    """What happened to a broadcast, or to a message apart from its reports and tries; for webhooks, kept a week."""

    kind = CharField()  # broadcast.finished, broadcast.stopped, message
    subject_id = BigIntegerField()
    run = IntegerField()
    reason = CharField(null=True)
    at = BigIntegerField()


class Latency(Table):
    """How many messages of a channel had their answer within so many milliseconds, since ever; upto 0: later."""

    channel_id = IntegerField()
    upto = IntegerField()
    n = IntegerField()
    ms = BigIntegerField()  # all of these times together

    class Meta:
        primary_key = False
        indexes = ((("channel_id", "upto"), True),)


class StoredFile(Table):
    """The bytes of a file that all hosts of an installation may read; see worker.files."""

    name = CharField(primary_key=True)  # uploads/… or media/…
    body = BlobField()

    class Meta:
        table_name = "stored_file"


class Removal(Table):
    """What a timer or an erasure removed: how many of what, never whose."""

    at = BigIntegerField()
    kind = CharField()  # timer, person
    actor = CharField()
    body = JSONField()


TABLES: tuple[type[Table], ...] = (
    Setting,
    User,
    LoginSession,
    RecoveryCode,
    Invitation,
    LoginAttempt,
    ApiToken,
    Audit,
    Worker,
    Channel,
    MessageTemplate,
    Media,
    Broadcast,
    Run,
    RecipientFile,
    RejectedRow,
    Message,
    Counter,
    Departure,
    Attempt,
    DeliveryReport,
    Part,
    Callback,
    Inbound,
    InboundPart,
    OptOut,
    MarketingChoice,
    OptOutEvent,
    Direct,
    Conversation,
    Attachment,
    QuickAnswer,
    Overlap,
    Snapshot,
    RepeatAnswer,
    Webhook,
    WebhookDelivery,
    Event,
    Latency,
    StoredFile,
    Removal,
)
