"""SMPP 3.4, the wire of operators and aggregators: one bind as a transceiver, receipts and replies over it.

What comes in over the line is stored as the PDU that it was, and read here later; an answer that came too late for
its message is stored as what it says.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from worker import clock
from worker.phone import Parser
from worker.providers import base, smpp_errors, smpp_session, smpp_text, smpp_wire
from worker.providers.base import (
    REFUSED,
    STOP_CHANNEL,
    Accepted,
    Field,
    Finding,
    InboundMessage,
    Outgoing,
    Provider,
    RawCallback,
    Receive,
    SendError,
    StatusUpdate,
)
from worker.providers.egress import Egress, Resolver
from worker.providers.rules import Rule
from worker.providers.smpp_line import ANSWERED, CLOSED, IDENTITY, RECEIVED_AT, Line
from worker.providers.smpp_session import Account, NotBound, Timing
from worker.providers.smpp_wire import Address, Delivered

PORT = 2775
WINDOW, WIDEST = 10, 50
TIMING = Timing()
REGION = "RU"  # of numbers without a country code, where the installation names none
EXTRA = "pip install 'molva[smpp]'"

NAME, INTERNATIONAL, SHORT = (5, 0), (1, 1), (3, 0)  # type of number, numbering plan
KIND, RECEIPT, PROGRESS, MESSAGE = 0x3C, 0x04, 0x20, 0x00  # esm_class
LONGEST_TEXT = 65_536
REFERENCES = 10_000  # recipients whose last reference is remembered

_LETTER = re.compile(r"[^\d+\s()-]")
_PHONE = re.compile(r"\+?\d{7,15}")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,24}")


NAME_MAX, ACCOUNT_MAX = 11, 15  # characters of an alphabetic sender, of a system_id (SMPP 3.4, 5.2.1)


class Smpp(Provider):
    key = "smpp"
    kind = "sms"
    label = "SMPP"
    pace = 20.0
    line = True
    supports = frozenset({"reports", "inbound"})
    fields = (
        Field("host"),
        Field("port", kind="integer", default=PORT),
        Field("tls", kind="boolean", required=False, default=False),
        Field("system_id"),
        Field("password", kind="secret"),
        Field("system_type", required=False),
        Field("sender", required=False),
        Field("window", kind="integer", default=WINDOW, group="advanced"),
        Field("long_messages", kind="choice", default="udh8", choices=smpp_text.FORMS, group="advanced"),
        Field("default_alphabet", kind="choice", default="gsm7", choices=smpp_text.ALPHABETS, group="advanced"),
        Field("enquire_link", kind="integer", default=int(TIMING.enquire), group="advanced"),
        Field("source_ton", required=False, group="advanced"),
        Field("source_npi", required=False, group="advanced"),
        Field("dest_ton", required=False, group="advanced"),
        Field("dest_npi", required=False, group="advanced"),
        Field("codes", kind="lines", required=False, group="advanced"),
    )

    def __post_init__(self) -> None:
        self.timing = TIMING._replace(enquire=float(self._number("enquire_link", int(TIMING.enquire), 1, 3600)))
        self._numbers = Parser(self._setting("region") or REGION)
        self._line: Line | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._resolver = Resolver(Egress(self.settings.get("allowed_private_hosts") or (), any_port=True))
        self._references: OrderedDict[str, int] = OrderedDict()

    # --- sending --------------------------------------------------------------------------------

    def send(self, out: Outgoing) -> Accepted:
        line = self._the_line()
        pdus = self._submits(out)
        try:
            ids = line.send(pdus, base.leaving, out.token)
        except NotBound as error:
            raise error.failure.error() from None
        return Accepted(ids[0] or None, parts=tuple(ids) if len(ids) > 1 else ())

    def open(self, receive: Receive) -> None:
        self._the_line().open(receive)

    def most(self) -> int | None:
        return self._window()

    def answerable(self) -> bool:
        return _LETTER.search(self._setting("sender")) is None

    def account(self) -> str:
        return f"{self._setting('system_id')}@{self._setting('host').lower()}:{self.settings.get('port')}"

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        host, name = str(settings.get("host") or "").strip(), str(settings.get("sender") or "").strip()
        found = [("host", "host_only")] if re.search(r"[/\s]", host) else []
        number = re.fullmatch(r"\+?[0-9]{1,20}", name)
        if name and not number and not (name.isascii() and name.isprintable() and len(name) <= NAME_MAX):
            found.append(("sender", "sender_long"))
        account = str(settings.get("system_id") or "")
        if not account.isascii() or len(account) > ACCOUNT_MAX:
            found.append(("system_id", account))
        try:
            smpp_errors.own(str(settings.get("codes") or ""))
        except ValueError as error:
            found.append(("codes", str(error).removeprefix("codes: ")))
        return found

    def check(self) -> list[Finding]:
        try:
            session = smpp_session.connect(self._account(), self._resolver, self.timing)
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]
        except NotBound as error:
            if error.status == smpp_errors.ALREADY_BOUND:  # by our own line, most likely: the account works
                return [Finding("ok", "account_found", self._setting("system_id"))]
            return [Finding("error", error.failure.cause, error.failure.detail)]
        session.bye(self.timing.goodbye)
        return [Finding("ok", "account_found", session.smsc or self._setting("system_id"))]

    def ping(self) -> None:
        try:
            self._the_line().ping()
        except NotBound as error:
            raise error.failure.error() from None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            line = self._line
        if line is not None:
            line.close()

    # --- what comes in --------------------------------------------------------------------------

    def verify(self, callback: RawCallback) -> bool:
        """Nothing for this channel comes over HTTP: what the line brings is stored without asking here."""
        return False

    def parse(self, callback: RawCallback) -> Iterator[StatusUpdate | InboundMessage]:
        marks = callback.headers
        at = int(marks[RECEIVED_AT]) if marks.get(RECEIVED_AT, "").isdigit() else clock.now()
        if callback.path == ANSWERED:
            facts = json.loads(callback.body)
            return iter((StatusUpdate("sent", at, facts["ids"][0] or None, facts["token"]),))
        found = smpp_wire.delivered(callback.body)
        kind = found.esm_class & KIND
        item: StatusUpdate | InboundMessage | None = None
        if kind in (RECEIPT, PROGRESS) or (kind == MESSAGE and found.receipted):
            item = self._receipt(found, at, kind == PROGRESS)
        elif kind == MESSAGE:
            item = self._reply(found, at, marks.get(IDENTITY) or sha256(callback.body).hexdigest()[:32])
        return iter(() if item is None else (item,))

    def _receipt(self, found: Delivered, at: int, progress: bool) -> StatusUpdate | None:
        words = smpp_text.decoded(found.text, found.coding, self._choice("default_alphabet")) or ""
        written = _word("id", words)
        identity = found.receipted or written
        state = smpp_errors.STATES.get(found.state or 0) or smpp_errors.state(_word("stat", words))
        status = smpp_errors.RECEIPTS.get(state)
        if not identity or status is None:
            return None
        if progress:
            status = "sent"
        failed = status == "failed"
        error = _word("err", words)
        return StatusUpdate(
            status=status,
            at=at,
            provider_id=identity,
            code=f"smpp_{state.lower()}" if failed else None,
            detail=f"err:{error}" if failed and error else None,
            also=spellings(identity, written),
            phone=phone(found.source, self._numbers),
        )

    def _reply(self, found: Delivered, at: int, identity: str) -> InboundMessage:
        octets, part, readable = found.text, None, True
        if found.esm_class & smpp_text.HAS_HEADER:
            header = smpp_text.header(octets)
            octets, part, readable = octets[header.size :], header.part, not header.own_alphabet
        elif found.sar is not None:
            reference, total, number = found.sar
            part = smpp_text.sar_part(reference, number, total)
        text = smpp_text.decoded(octets, found.coding, self._choice("default_alphabet")) if readable else None
        return InboundMessage(
            provider_id=identity,
            phone=phone(found.source, self._numbers),
            at=at,
            kind="text" if text is not None else "unsupported",
            text=(text or "")[:LONGEST_TEXT].replace("\x00", ""),
            part=part,
        )

    # --- settings -------------------------------------------------------------------------------

    def _the_line(self) -> Line:
        """The one line of this object, made when it is first needed. Raises SendError, always once it is closed."""
        with self._lock:
            if self._closed:
                raise CLOSED.error()
            if self._line is None:
                pace = self.settings.get("per_second")
                self._line = Line(
                    self._account(),
                    self._resolver,
                    window=self._window(),
                    per_second=float(pace) if pace else None,
                    meanings=self._meanings(),
                    timing=self.timing,
                )
            return self._line

    def _account(self) -> Account:
        """Where to bind. Raises SendError for settings that cannot work."""
        if not smpp_wire.installed():
            raise SendError(STOP_CHANNEL, "settings_invalid", EXTRA)
        host, port = self._setting("host").strip(), self._number("port", PORT, 1, 65_535)
        if not host:
            raise SendError(STOP_CHANNEL, "settings_invalid", "host")
        try:
            binding = smpp_wire.bind(
                self._setting("system_id"), self._setting("password"), self._setting("system_type")
            )
        except ValueError:
            raise SendError(STOP_CHANNEL, "settings_invalid", "system_id, password, system_type") from None
        return Account(host, port, _true(self.settings.get("tls")), binding)

    def _meanings(self) -> dict[int, Rule]:
        try:
            return smpp_errors.own(self._setting("codes"))
        except ValueError as error:
            raise SendError(STOP_CHANNEL, "settings_invalid", str(error)) from None

    def _submits(self, out: Outgoing) -> list[bytes]:
        """The submits of one message, in order. Raises SendError."""
        try:
            parts = smpp_text.parts(
                out.text,
                alphabet=self._choice("default_alphabet"),
                form=self._choice("long_messages"),
                reference=self._reference(out.phone),
            )
        except ValueError:
            raise SendError(REFUSED, "text_too_long", about_message=True) from None
        if not parts:
            raise SendError(REFUSED, "sms_bad_text", "empty", about_message=True)
        source = self._address("source", sender(self._setting("sender")))
        destination = self._address("dest", Address(*INTERNATIONAL, out.phone.lstrip("+")))
        try:
            return [smpp_wire.submit(source, destination, part) for part in parts]
        except ValueError:
            raise SendError(STOP_CHANNEL, "settings_invalid", "sender") from None

    def _address(self, which: str, usual: Address) -> Address:
        """The address with the type and plan that the channel wants instead of the usual ones."""
        return usual._replace(
            ton=self._number(f"{which}_ton", usual.ton, 0, 255), npi=self._number(f"{which}_npi", usual.npi, 0, 255)
        )

    def _reference(self, phone: str) -> int:
        """The next reference for one recipient: two long messages to one phone must not share it."""
        with self._lock:
            before = self._references.pop(phone, None)
            following = secrets.randbelow(0x10000) if before is None else (before + 1) & 0xFFFF
            self._references[phone] = following
            if len(self._references) > REFERENCES:
                self._references.popitem(last=False)
            return following

    def _window(self) -> int:
        return self._number("window", WINDOW, 1, WIDEST)

    def _setting(self, name: str) -> str:
        return str(self.settings.get(name) or "")

    def _choice(self, name: str) -> str:
        field = next(one for one in self.fields if one.name == name)
        found = self._setting(name)
        return found if found in field.choices else str(field.default)

    def _number(self, name: str, usual: int, least: int, most: int) -> int:
        found = str(self.settings.get(name, "")).strip()
        return min(max(int(found), least), most) if found.isdecimal() else usual


def sender(name: str) -> Address:
    """A sender with the type that it has by its looks: a name, an international number or a short code."""
    text = name.strip()
    if not text:
        return Address(0, 0, "")
    if _LETTER.search(text):
        return Address(*NAME, text)
    digits = "".join(c for c in text if c.isdigit())
    return Address(*(INTERNATIONAL if len(digits) >= 7 else SHORT), digits)


def phone(source: Address, numbers: Parser) -> str:
    """Who a deliver_sm is from: E.164 with the plus, or what stands there when it is no phone number.

    Only what calls itself international surely is; anything else may be written as people write at home.
    """
    text = source.text.strip()
    if source.ton == NAME[0] or not _PHONE.fullmatch(text):
        return text
    read = None if source.ton == INTERNATIONAL[0] else numbers.parse(text).e164
    return read or "+" + text.lstrip("+")


def spellings(*identities: str) -> tuple[str, ...]:
    """How else the id of a report may stand in the answer to the submit: with or without zeros in front, in
    capitals or not, and as a number in the other base. Without the first one itself."""
    found: dict[str, None] = dict.fromkeys(identities)
    for identity in identities:
        if not _HEXADECIMAL.fullmatch(identity):
            continue
        bare = identity.lstrip("0") or "0"
        forms = [bare, bare.lower(), bare.upper(), str(int(bare, 16))]
        if bare.isdecimal():
            forms += [f"{int(bare):x}", f"{int(bare):X}"]
        found |= dict.fromkeys(forms)
        found |= dict.fromkeys(form.zfill(width) for form in forms for width in (8, 10))
    return tuple(form for form in found if form and form != identities[0])


def _word(name: str, text: str) -> str:
    """The value of one field of a receipt's text, "" without it."""
    found = re.search(rf"(?:^|\s){name}:\s*(\S+)", text, re.IGNORECASE)
    return found[1] if found else ""


def _true(value: object) -> bool:
    return value is True or str(value).lower() in ("1", "true", "yes", "on")
