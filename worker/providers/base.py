"""What every Provider looks like: data on top, a few methods below.

No Flask type and no database type goes in or out. A Provider that cannot hand a message over raises
SendError, which already says what the failure means; the sender never reads a vendor's code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from worker import clock

REFUSED = "refused"  # for this recipient: the message failed
LATER = "later"  # surely not sent: back to the queue, tried again
UNCLEAR = "unclear"  # the request left and nobody can know: uncertain, never sent again by itself
STOP_BROADCAST = "stop_broadcast"  # template or text refused: row back to the queue, broadcast stops
STOP_CHANNEL = "stop_channel"  # account refused: row back to the queue, the channel's broadcasts stop
OUTCOMES = (REFUSED, LATER, UNCLEAR, STOP_BROADCAST, STOP_CHANNEL)
FILE_MAX = 25 * 1024 * 1024  # bytes of a file that a person attached


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of a channel, from which the settings form is drawn.

    `kind` is text, secret, integer, boolean, choice (with `choices`) or lines (text of several lines).
    `group`: the heading under which the form keeps it folded: request, outcome, report, reply or advanced;
    "" for what everybody fills in.
    """

    name: str
    kind: str = "text"
    required: bool = True
    default: Any = ""
    choices: tuple[str, ...] = ()
    group: str = ""

    @property
    def secret(self) -> bool:
        return self.kind == "secret"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message, ready for the wire. `phone` is E.164 with the plus; `token` goes where it is echoed.

    SMS has `text`; WABA has `template`: {"name", "language", "components": [...]}, the components
    exactly as the Cloud API takes them.
    """

    phone: str
    token: str
    text: str = ""
    template: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the message over. `held`: accepted, but kept back by the provider's pacing.

    `parts`: the ids of all parts of a long message, in order, where the provider numbers and reports each of
    them alone; `provider_id` is then the first of them. Empty for everything else.
    """

    provider_id: str | None
    held: bool = False
    parts: tuple[str, ...] = ()


def clean(text: str) -> str:
    """Text that every database takes: an emoji that a vendor cut in two becomes a question mark."""
    return (
        text if text.isascii() and "\x00" not in text else text.replace("\x00", "").encode("utf-8", "replace").decode()
    )


class SendError(Exception):
    """A message that was not plainly accepted.

    outcome: one of OUTCOMES.
    cause: our code of worker.causes, such as "131026", "timeout" or "http_500".
    detail: the vendor's own words, shortened, without personal data.
    retry_after: seconds to wait before the next try (LATER only), None for the usual back-off.
    slow_channel: the whole channel waits for retry_after, not only this message.
    counts: whether this try uses up the message's budget of tries (connection faults do not).
    about_message: the refusal speaks of the message, not of the person (the ten-in-a-row rule).
    breaker: whether it speaks of a line or a provider in trouble, and so feeds the circuit breaker; what is
        UNCLEAR always does.
    budget: how often this very cause is tried again for one message (LATER only); None: the usual budget.
    then: what the failure means once `budget` is used up (REFUSED or STOP_BROADCAST).
    """

    def __init__(
        self,
        outcome: str,
        cause: str,
        detail: str = "",
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        slow_channel: bool = False,
        counts: bool = True,
        about_message: bool = False,
        breaker: bool = False,
        budget: int | None = None,
        then: str = REFUSED,
    ) -> None:
        super().__init__(f"{outcome}: {cause} {detail}".strip())
        self.outcome = outcome
        self.cause = clean(cause)
        self.detail = clean(detail[:500])
        self.http_status = http_status
        self.retry_after = retry_after
        self.slow_channel = slow_channel
        self.counts = counts
        self.about_message = about_message
        self.breaker = breaker or outcome == UNCLEAR
        self.budget = budget
        self.then = then


class _Moment(threading.local):
    at: float | None = None


_left = _Moment()


def leaving(at: float | None = None) -> None:
    """Note that a request of this thread begins to leave now, or left `at` when another thread wrote it.

    Transports call it; the throttle counts by it.
    """
    _left.at = clock.monotonic() if at is None else at


def left_at() -> float | None:
    """When this thread's last request began to leave, on the monotonic clock; forgets it."""
    found, _left.at = _left.at, None
    return found


@dataclass(frozen=True, slots=True)
class RawCallback:
    """One request to /hooks/…, as it came. `path`: "", "status" or "inbound"; header names are lower case.

    `received_at`: ms; when it was stored, 0 while it is only being verified.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    received_at: int = 0


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What the provider says about one message. `status`: sent, delivered, read, failed or held.

    `at` is the provider's time in milliseconds since the epoch; 0 when it gives none: when the report came counts.
    `also`: other spellings of `provider_id`, for vendors whose reports write an id differently from their answers;
    they count when nobody has the id itself, and only for a message to `phone`, as another message may well be
    called so. `phone`: E.164 with the plus, or the vendor's own id of a person, where the report names one.
    """

    status: str
    at: int
    provider_id: str | None = None
    token: str | None = None
    code: str | None = None
    detail: str | None = None
    also: tuple[str, ...] = ()
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that came with a person's message, by the vendor's id; type and name are the sender's word only."""

    media_id: str
    mime: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A message from a person. `kind`: text, image, audio, video, document, sticker, location, contacts,
    button, interactive, order, reaction, unsupported. `context`: provider id of the message it quotes.

    `phone` is E.164 with the plus, or the vendor's own id of a person who hides the number.
    `at`: milliseconds since the epoch; 0 when the provider gives no time: when it came counts.
    `payload`: what we wrote into the button that was pressed. `code`: why the vendor could not bring all of it.
    `part`: (reference, number from 1, total) of one part of a long SMS; all parts of one have the same phone,
    reference and total, and come in any order.
    `attached`: the files that came with it, to be had by `Provider.fetch`.
    """

    provider_id: str
    phone: str
    at: int
    kind: str = "text"
    text: str = ""
    name: str | None = None
    context: str | None = None
    payload: str | None = None
    part: tuple[str, int, int] | None = None
    code: str | None = None
    attached: tuple[Attached, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """What a callback says about the account rather than about one message.

    subject "template": `status` of the template `name` in `language`. subject "category": `status` is its new
    category. subject "marketing": `status` is stop or resume, said by the person `phone`. subject "account":
    `status` is the vendor's word. subject "limit": `status` is how many people the account may begin to write
    to within 24 hours, -1 for any number. subject "number": `status` is news about the number's quality.
    subject "quality": `status` is the new quality of the template `name`.
    `outcome`: STOP_BROADCAST or STOP_CHANNEL where sending must end, else "".
    """

    subject: str
    status: str
    outcome: str = ""
    name: str = ""
    language: str = ""
    phone: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class TemplateData:
    """A message template as the provider lists it; `components` as on the Cloud API's wire."""

    name: str
    language: str
    status: str
    category: str
    components: list[dict[str, Any]]
    parameter_format: str = "POSITIONAL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of "Check connection": `level` is ok, warning or error; `code` has words in the catalogues."""

    level: str
    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallbackAddresses:
    """Where this channel's callbacks are received; empty strings when no public address is configured."""

    webhook: str = ""
    status: str = ""
    inbound: str = ""


# Stores what came in over a line, all of it durably in one go; False: nothing is stored.
Receive = Callable[[Sequence[RawCallback]], bool]


@dataclass
class Provider:
    """One vendor's wire. Subclasses fill the data and the methods; instances are shared by sender threads.

    `settings` are the channel's own, and beside them what the house adds: data (the data folder),
    allowed_private_hosts, region (the country of numbers written as at home), per_second (of the channel; None: no
    pace of its own).
    """

    key: ClassVar[str]
    kind: ClassVar[str]  # waba, sms
    label: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]] = ()
    supports: ClassVar[frozenset[str]] = frozenset()  # templates, reports, inbound, read, media, register
    pace: ClassVar[float] = 20.0  # default messages per second
    line: ClassVar[bool] = False  # receives over a connection of its own, which one process at a time may keep
    callback_methods: ClassVar[frozenset[str]] = frozenset({"POST"})  # others are asked of `handshake`
    callback_headers: frozenset[str] = field(default=frozenset(), init=False)  # what `verify` reads, lower case

    settings: Mapping[str, Any]
    addresses: CallbackAddresses = field(default_factory=CallbackAddresses)

    def __post_init__(self) -> None:
        """Make what the wire needs, such as an HTTP client. Opens no connection."""

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with settings that a form would store: the name of the field and the line that cannot be
        read, "" when something is missing, or a code that has a sentence of its own. Does not speak of reaching
        the vendor."""
        return []

    def send(self, out: Outgoing) -> Accepted:
        """Hand one message over. Raises SendError; returns only when the vendor took it."""
        raise NotImplementedError

    def dry_run(self, out: Outgoing) -> str:
        """What would be sent for this message, for a person to read, with secrets masked; "" where it would show
        nothing new. Sends nothing. Raises SendError for settings that cannot be used."""
        return ""

    def open(self, receive: Receive) -> None:
        """Keep the line connected from now until `close`, for a Provider with `line`: what comes in over it goes
        to `receive` before it is acknowledged. Returns at once; connecting again after a loss is the Provider's
        business."""

    def most(self) -> int | None:
        """How many messages may be on their way to the vendor at once; None: as many as there are connections."""
        return None

    def answerable(self) -> bool:
        """Whether people can reply to this sender: nobody can write to an alphabetic name."""
        return "inbound" in self.supports

    def account(self) -> str:
        """What channels of one account at the vendor have in common, such as the WABA id; "" when unknown. A stop
        of the account and its daily limit concern all of them."""
        return ""

    def limit(self) -> int | None:
        """How many messages the vendor lets the account begin with in 24 hours, by a harmless call; -1: any number,
        None: it does not say. Raises SendError."""
        return None

    def check(self) -> list[Finding]:
        """A harmless call that shows whether the settings work."""
        raise NotImplementedError

    def ping(self) -> None:
        """A harmless call that shows whether the vendor answers, asked before a message is risked on a line that
        was in trouble. Raises SendError; does nothing where the vendor offers no such call."""

    def paste(self) -> CallbackAddresses:
        """The addresses as a person pastes them at the vendor, with the vendor's own placeholders in them."""
        return self.addresses

    def handshake(self, callback: RawCallback) -> str | None:
        """The body that answers a verification request (GET), or None when it is not one of ours."""
        return None

    def verify(self, callback: RawCallback) -> bool:
        """Whether the callback is genuine; over the raw bytes, in constant time."""
        raise NotImplementedError

    def reply_to(self, callback: RawCallback) -> tuple[int, bytes]:
        """Status and body that tell the vendor that a callback has been stored."""
        return 200, b""

    def parse(self, callback: RawCallback) -> Iterable[StatusUpdate | InboundMessage]:
        """The facts in one callback. Unknown parts are passed over, a bad item never loses its neighbours."""
        raise NotImplementedError

    def concerns(self, callback: RawCallback) -> bool:
        """Whether a callback that came to another channel of the same account speaks of this one, for vendors that
        know one address for an account."""
        return False

    def notices(self, callback: RawCallback) -> Iterable[Notice]:
        """What one callback says about templates, people's marketing choice and the account."""
        return ()

    def outcome(self, code: str) -> str:
        """What a failure code of a delivery report means beyond its message: REFUSED (nothing more),
        STOP_BROADCAST or STOP_CHANNEL."""
        return REFUSED

    def templates(self) -> list[TemplateData]:
        """All message templates of the account (WABA). Raises SendError."""
        return []

    def register(self) -> None:
        """Tell the vendor to bring callbacks to our address, for a Provider that `supports` "register". A person
        asks for it; it changes the account. Raises SendError."""
        raise NotImplementedError

    def upload(self, data: bytes, mime: str, filename: str) -> str:
        """Hand a file over for the header of templates, where "media" is supported; its id. Raises SendError."""
        raise NotImplementedError

    def fetch(self, media_id: str) -> bytes:
        """A file that a person attached, of at most FILE_MAX bytes. Raises SendError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of connections."""
