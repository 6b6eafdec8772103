"""Any SMS gateway over HTTP, described by settings: what to ask, what the answer means, how reports look.

A preset is a file of such settings in the folder `presets`; each becomes a Provider of its own, and every part of
it stays open to change in the form of the channel. The lines of the settings are those of `connector_rules`.
A setting that is empty means the preset's own value; a lone - means nothing at all.

Names in templates: to (with the plus), to_digits, text, text_gsm (empty when the text needs UCS-2), text_hex (UTF-16BE
in hexadecimal, empty when it does not), from, ref (our token), coding (0 or 2), segments, udh, dlr_url, inbound_url,
and each setting of the account: base_url, username, password, token and the preset's own. A gateway that reports each
part of a long message alone is given {ref}/{segments}, so that the report of one part is not taken for the whole.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from worker import segments
from worker.providers.adapter import Answer
from worker.providers.base import (
    REFUSED,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    CallbackAddresses,
    Field,
    Finding,
    InboundMessage,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.connector_callbacks import load, moment, phone_of, rows_of, tree_of, wide
from worker.providers.connector_rules import (
    CauseLine,
    Condition,
    Facts,
    Faulty,
    FieldLine,
    IdRule,
    OutcomeRule,
    StatusLine,
    Template,
    every,
    first,
    nested,
)
from worker.providers.connector_settings import MAPPING, READERS, read_setting, value_named, value_of
from worker.providers.http import (
    HttpClient,
    classify_http,
    excerpt,
    seconds,
    secret_forms,
    shown,
    unreadable,
    without,
)

PRESETS = Path(__file__).parent / "presets"
ACCOUNT_CAUSES = ("sms_no_balance", "sms_bad_token")  # in a report: the others would fare no better
ANSWERS = (200, 201, 202, 204)
TEXT = 65_536  # characters of a reply
MINUTE = 60_000  # ms
REPORTED = "sms_undelivered"  # the cause of a failure that the gateway does not explain

_WHOLE = frozenset({"base_url", "status_url"})


# What a template may name, beside the fields of the account.
PLACES = frozenset(
    [
        *("base_url", "to", "to_digits", "text", "text_gsm", "text_hex", "from", "ref", "coding", "segments", "udh"),
        *("status_url", "inbound_url", "dlr_url", "username", "password", "token", "sender"),
    ]
)
NEEDED = (("to", "to_digits"), ("text", "text_gsm", "text_hex"))  # without these nobody would get anything
SECRET_HEADER = re.compile(r"auth|key|token|secret|password", re.I)


class HttpGateway(Provider):
    """A gateway as its settings describe it."""

    key = "http"
    kind = "sms"
    label = "HTTP gateway"
    supports = frozenset({"reports", "inbound"})
    callback_methods = frozenset({"GET", "POST"})
    fields = (
        Field("url"),
        Field("username", required=False),
        Field("password", "secret", False),
        Field("token", "secret", False),
        Field("sender", required=False),
        *MAPPING,
    )
    docs: ClassVar[str] = ""  # the name under which the vendor's documentation is found
    pasted: ClassVar[Mapping[str, str]] = {}  # templates of the callback addresses, with the gateway's placeholders

    def __post_init__(self) -> None:
        self.http = HttpClient(allowed_hosts=self.settings.get("allowed_private_hosts", ()))
        self._given = {f.name: value_of(f, self.settings) for f in self.fields}
        self._account = {f.name: self._given[f.name] for f in self.fields if not f.group}
        faulty = self._unreadable(self.settings)
        self._faulty = faulty[0] if faulty else None
        try:
            self._read = {name: read_setting(name, self._setting(name)) for name in READERS}
        except Faulty:
            self._read = {}
        secrets = [self._setting(f.name) for f in self.fields if f.secret]
        self._hidden = secret_forms(self._setting("username"), secrets)
        wanted = {"remote-addr"} if self._setting("callback_addresses") else set()
        header = self._setting("hmac_header").lower()
        self.callback_headers = frozenset(wanted | ({header} if header else set()))

    # --- settings ---------------------------------------------------------------------------------------

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        return cls._unreadable(settings) or cls._misplaced(settings)

    @classmethod
    def _unreadable(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        for f in cls.fields:
            text = value_of(f, settings)
            if f.required and not text:
                found.append((f.name, ""))
            elif (f.choices and text not in f.choices) or (f.kind == "integer" and not re.fullmatch(r"\d{0,6}", text)):
                found.append((f.name, text))
            elif f.name in READERS:
                try:
                    found_lines = read_setting(f.name, text)
                    if f.name == "fields" and value_named(cls.fields, "body", settings) == "json":
                        nested([(field.name, "") for field in found_lines])
                except Faulty as error:
                    found.append((f.name, str(error)))
        for name in ("base_url", "url"):
            text = value_named(cls.fields, name, settings)
            if text and not text.startswith(("https://", "http://", "{base_url}")):
                found.append((name, text))
        return found

    @classmethod
    def _misplaced(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Places that no value fills, a message without its text or recipient, a key that everybody can read."""
        read = {
            name: read_setting(name, value_named(cls.fields, name, settings)) for name in ("url", "headers", "fields")
        }
        templates = {
            "url": [read["url"]],
            "headers": [line.template for line in read["headers"]],
            "fields": [line.template for line in read["fields"]],
        }
        known = PLACES | {f.name for f in cls.fields if not f.group}
        found = [
            (name, f"{{{place}}}")
            for name, several in templates.items()
            for template in several
            for place in sorted(template.names - known)
        ]
        used = {place for several in templates.values() for template in several for place in template.names}
        found += [("fields", f"{{{names[0]}}}?") for names in NEEDED if not used & set(names)]
        found += [
            ("headers", f"{line.name}: …")
            for line in read["headers"]
            if SECRET_HEADER.search(line.name) and not line.template.names
        ]
        return found

    def _setting(self, name: str) -> str:
        return self._given.get(name, "")

    def _masked(self, text: str) -> str:
        return without(text, self._hidden)

    # --- sending ----------------------------------------------------------------------------------------

    def send(self, out: Outgoing) -> Accepted:
        self._usable()
        parts = self._parts(out)
        ids = self._hand_over(out, *parts[0])
        for text, udh in parts[1:]:
            try:
                self._hand_over(out, text, udh)
            except SendError as error:
                # The beginning is on its way: whatever this means, nobody may send the whole again by itself.
                raise SendError(UNCLEAR, error.cause, error.detail, http_status=error.http_status) from None
        return Accepted(ids[0], parts=ids if len(ids) > 1 else ())

    def _hand_over(self, out: Outgoing, text: str, udh: str) -> tuple[str, ...]:
        """Make one request; the ids in its answer, at least one. Raises SendError."""
        answer = self._request(*self._call(self._values(out, text, udh)))
        facts = _facts(answer)
        if not self._judge(answer, facts, self._read["rules"]):
            raise unreadable(answer, self._hidden)
        rule: IdRule = self._read["id"]
        ids = (out.token,) if rule.own else rule.each(facts)
        if not ids:
            raise unreadable(answer, self._hidden)
        return ids

    def _parts(self, out: Outgoing) -> list[tuple[str, str]]:
        """What is sent, each with its header: the whole text, or parts where the gateway would cut a character
        of two units in two."""
        if self._setting("split") != "pairs" or not _would_be_cut(out.text):
            return [(out.text, "")]
        parts = segments.split(out.text)
        # One reference for all parts; below 128, so that its byte is the same in every encoding.
        reference = hashlib.sha256(out.token.encode()).digest()[0] % 127 + 1
        return [
            (part, "".join(map(chr, (5, 0, 3, reference, len(parts), at)))) for at, part in enumerate(parts, start=1)
        ]

    def _values(self, out: Outgoing, text: str, udh: str = "") -> dict[str, str]:
        counted = segments.count(text)
        wide = counted.encoding == "UCS-2"
        values = {
            **self._account,
            "base_url": self._setting("base_url").rstrip("/"),
            "to": out.phone,
            "to_digits": out.phone.lstrip("+"),
            "text": text,
            "text_gsm": "" if wide else text,
            "text_hex": text.encode("utf-16-be", "replace").hex() if wide else "",
            "from": self._setting("sender"),
            "ref": out.token,
            "coding": "2" if wide else "0",
            "segments": str(counted.segments),
            "udh": udh,
            "status_url": self.addresses.status,
            "inbound_url": self.addresses.inbound if self.addresses.inbound.startswith("http") else "",
        }
        # As gateways do themselves, the report of a text that was cut is asked for with its first part.
        public = self.addresses.status.startswith("http") and udh[-1:] in ("", "\x01")
        values["dlr_url"] = self._read["dlr_url"].fill(values, _quoted, _WHOLE) if public else ""
        return values

    def _call(self, values: Mapping[str, str]) -> tuple[str, str, dict[str, str], bytes | None]:
        """Method, address, headers and body of the request for one message."""
        method, kind = self._setting("method"), self._setting("body")
        url = self._read["url"].fill(values, _quoted, _WHOLE)
        headers = self._headers(values)
        given: list[FieldLine] = self._read["fields"]
        kept = [line for line in given if not (line.optional and not line.template.fill(values))]
        query: list[tuple[str, str]] = self._in_query()
        body: bytes | None = None
        if kind == "json" and method != "GET":
            tree = nested([(line.name, line.template.value(values)) for line in kept])
            body = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            headers.setdefault("Content-Type", "application/json")
        elif kind == "form" and method != "GET":
            body = _encoded([(line.name, line.template.fill(values)) for line in kept]).encode()
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        else:
            query += [(line.name, line.template.fill(values)) for line in kept]
        return method, _with_query(url, query), headers, body

    def _headers(self, values: Mapping[str, str]) -> dict[str, str]:
        headers = {line.name: line.template.fill(values) for line in self._read["headers"]}
        if self._setting("auth") == "basic":
            pair = _pair(self._setting("username"), self._setting("password"))
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif self._setting("auth") == "bearer":
            headers["Authorization"] = f"Bearer {self._setting('token')}"
        return headers

    def _in_query(self) -> list[tuple[str, str]]:
        names = ("username", "password", "token") if self._setting("auth") == "query" else ()
        return [(name, self._setting(name)) for name in names if self._setting(name)]

    def _request(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        try:
            return self.http.request(method, url, headers, body)
        except SendError as error:
            error.detail = self._masked(error.detail)
            error.args = (self._masked(str(error)),)
            raise error from None

    def _usable(self) -> None:
        if self._faulty is not None:
            raise SendError(STOP_CHANNEL, "settings_invalid", self._masked(": ".join(filter(None, self._faulty))))

    def _judge(self, answer: Answer, facts: Facts, rules: list[OutcomeRule]) -> bool:
        """Whether the answer says yes; False when it is a 2xx that no rule knows. Raises SendError for any other:
        by the first rule that holds, else by its status."""
        retry_after = answer.headers.get("retry-after")
        words = " ".join(filter(None, (self._said(facts, "code"), self._said(facts, "reason"))))
        detail = shown(words, self._hidden) if words else excerpt(answer.body, self._hidden)
        for condition, rule, cause in rules:
            if condition.holds(facts):
                if rule is None:
                    return True
                raise rule.error(cause, detail, http_status=answer.status, retry_after=seconds(retry_after))
        by_status = classify_http(answer.status, retry_after, detail)
        if by_status is not None:
            raise by_status
        return False

    def _said(self, facts: Facts, name: str) -> str:
        """What stands at the first of the places that a setting names."""
        return next(filter(None, (first(facts.tree, path) for path in self._setting(name).split())), "")

    def dry_run(self, out: Outgoing) -> str:
        """The exact requests that this message would make, with secrets masked. Raises SendError for settings
        that cannot be used; sends nothing."""
        self._usable()
        requests = []
        for text, udh in self._parts(out):
            method, url, headers, body = self._call(self._values(out, text, udh))
            head = [f"{method} {url}", *(f"{name}: {value}" for name, value in headers.items())]
            requests.append("\n".join([*head, *(["", body.decode("utf-8", "replace")] if body else [])]))
        return self._masked("\n\n".join(requests))

    def most(self) -> int | None:
        given = self._setting("concurrent")
        return max(1, int(given)) if given.isdigit() else None

    def answerable(self) -> bool:
        return super().answerable() and not any(character.isalpha() for character in self._setting("sender"))

    # --- checking ---------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        try:
            if not self._ask():
                return [Finding("warning", "not_checkable")]
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]
        return [Finding("ok", "account_found", self._setting("username") or self.label)]

    def ping(self) -> None:
        self._ask()

    def _ask(self) -> bool:
        """The harmless call, where there is one. Raises SendError when its answer is not a good one."""
        self._usable()
        template: Template = self._read["check_url"]
        if not template.text:
            return False
        values = self._values(Outgoing("", ""), "")
        url = _with_query(template.fill(values, _quoted, _WHOLE), self._in_query())
        answer = self._request("GET", url, self._headers(values), None)
        self._judge(answer, _facts(answer), [*self._read["check_rules"], *self._read["rules"]])
        return True

    # --- callbacks --------------------------------------------------------------------------------------

    def verify(self, callback: RawCallback) -> bool:
        """The address that nobody can guess has been found already; here what the gateway adds to it."""
        if not self._read:
            return False  # nobody could read it: the gateway brings it again
        checks = (self._from_its_address, self._signed, self._hashed)
        return all(check(callback) for check in checks)

    def _from_its_address(self, callback: RawCallback) -> bool:
        networks = self._read["callback_addresses"]
        if not networks:
            return True
        try:
            caller = ipaddress.ip_address(callback.headers.get("remote-addr", ""))
        except ValueError:
            return False
        caller = getattr(caller, "ipv4_mapped", None) or caller
        return any(caller in network for network in networks)

    def _signed(self, callback: RawCallback) -> bool:
        header, secret = self._setting("hmac_header").lower(), self._setting("callback_secret")
        if not header:
            return True
        made = hmac.new(secret.encode(), callback.body, self._setting("hmac_algorithm")).digest()
        wanted = base64.b64encode(made).decode() if self._setting("hmac_encoding") == "base64" else made.hex()
        given = callback.headers.get(header, "").strip()
        given = given.removeprefix(f"{self._setting('hmac_algorithm')}=")
        return hmac.compare_digest(given.encode(), wanted.encode()) and bool(secret)

    def _hashed(self, callback: RawCallback) -> bool:
        path, secret = self._setting("hash_path"), self._setting("callback_secret")
        if not path:
            return True
        tree = tree_of(callback, "auto")
        given = first(tree, path)
        facts = {name: first(tree, name) for name in self._read["hash_recipe"].names}
        text = self._read["hash_recipe"].fill({**facts, "secret": secret})
        wanted = hashlib.new(self._setting("hash_algorithm"), text.encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(given.lower().encode(), wanted.encode()) and bool(secret)

    def outcome(self, code: str) -> str:
        return STOP_CHANNEL if code in ACCOUNT_CAUSES else REFUSED

    def reply_to(self, callback: RawCallback) -> tuple[int, bytes]:
        status = self._setting("answer_status")
        usable = status.isdigit() and int(status) in ANSWERS
        return int(status) if usable else 200, b"" if status == "204" else self._setting("answer").encode()

    def parse(self, callback: RawCallback) -> Iterator[StatusUpdate | InboundMessage]:
        if not self._read:
            self._usable()  # what was stored before a setting became unreadable stays marked with its error
        if callback.path != "inbound":
            found = False
            for row in rows_of(tree_of(callback, self._setting("report_from")), self._setting("report_rows"), callback):
                if self._status_of(row):
                    found = True
                    yield from self._report(row)
            if found:
                return
        for row in rows_of(tree_of(callback, self._setting("reply_from")), self._setting("reply_rows"), callback):
            yield from self._reply(row, callback.received_at)

    def _status_of(self, row: Mapping[str, Any]) -> str:
        """The gateway's words for the status: one value, or several where the setting names several places."""
        condition: Condition | None = self._read["report_if"]
        if condition is not None and not condition.holds(Facts(text=first(row, "text"), tree=row)):
            return ""
        return " ".join(first(row, path) for path in self._setting("report_status").split()).strip()

    def _report(self, row: Mapping[str, Any]) -> Iterator[StatusUpdate]:
        said = self._status_of(row)
        meaning: list[StatusLine] = self._read["report_map"]
        known = next((line for line in meaning if line.pattern.matches(said)), None)
        ref, parts = _reference(first(row, self._setting("report_ref")))
        identity = (ref if self._read["id"].own else first(row, self._setting("report_id"))[:200]) or None
        if known is None or known.status == "ignored" or not (ref or identity):
            return
        code, detail = None, None
        if known.status == "failed":
            number = first(row, self._setting("report_code"))[:100]
            table: list[CauseLine] = self._read["report_causes"]
            listed = next((line.cause for line in table if number and line.pattern.matches(number)), "")
            code = listed or known.cause or REPORTED
            detail = shown(f"{said} {number}".strip(), self._hidden)
        at = moment(first(row, self._setting("report_time")))
        if parts < 2 or not identity:
            yield StatusUpdate(known.status, at, identity, ref, code, detail)
            return
        # One part alone, known by its id once the answer is. Of the message it says only that it has left, which
        # is worth knowing where the answer was lost.
        yield StatusUpdate(known.status, at, identity, None, code, detail)
        if ref:
            yield StatusUpdate("sent", at, None, ref)

    def _reply(self, row: Mapping[str, Any], received_at: int) -> Iterator[InboundMessage]:
        phone = phone_of(first(row, self._setting("reply_phone")), str(self.settings.get("region") or "RU"))
        text = first(row, self._setting("reply_text"))
        coded = first(row, self._setting("reply_hex"))
        condition: Condition = self._read["reply_hex_if"]
        if coded and condition.holds(Facts(text=text, tree=row)):
            text = wide(coded) or text
        if not phone or not (text or every(row, self._setting("reply_text"))):
            return
        text = text[:TEXT].replace("\x00", "").encode("utf-8", "replace").decode()
        at = first(row, self._setting("reply_time"))
        identity = first(row, self._setting("reply_id"))[:200]
        part = self._part(row)
        if not identity:  # the same words at the same moment are a repeat, as far as anybody can tell
            when = at or received_at // MINUTE  # a gateway that was not answered asks again at once
            identity = "h" + hashlib.sha256(f"{phone}|{when}|{part}|{text}".encode("utf-8", "replace")).hexdigest()[:40]
        yield InboundMessage(identity, phone, moment(at), text=text, part=part)

    def _part(self, row: Mapping[str, Any]) -> tuple[str, int, int] | None:
        """Which part of a long reply this is, by the places of reference, number and total; None for a whole one."""
        places = self._setting("reply_part").split()
        found = [first(row, place) for place in places]
        if len(found) != 3 or not found[0] or not all(re.fullmatch(r"\d{1,3}", number) for number in found[1:]):
            return None
        number, total = int(found[1]), int(found[2])
        return (found[0][:50], number, total) if 1 <= number <= total and total > 1 else None

    def paste(self) -> CallbackAddresses:
        given = {
            "webhook_url": self.addresses.webhook,
            "status_url": self.addresses.status,
            "inbound_url": self.addresses.inbound,
        }
        values = {**given, **{f.name: self._setting(f.name) for f in self.fields if not f.group and not f.secret}}
        whole = frozenset(given)
        ready = {
            name: Template(self.pasted.get(name, f"{{{name}_url}}")).fill(values, _quoted, whole)
            for name in ("webhook", "status", "inbound")
        }
        return CallbackAddresses(**ready)

    def close(self) -> None:
        self.http.close()


# --- presets --------------------------------------------------------------------------------------------


def preset(found: Mapping[str, Any]) -> type[HttpGateway]:
    """A Provider class from the content of one preset file: key, label, docs, pace, supports, fields of the account
    and the settings of MAPPING that are the gateway's own. Raises ValueError for what the form would not know."""
    own = {name: "\n".join(value) if isinstance(value, list) else value for name, value in found["settings"].items()}
    known = {"url", *(f.name for f in MAPPING)}
    if strangers := set(own) - known:
        raise ValueError(f"{found['key']}: {', '.join(sorted(strangers))}")
    account = tuple(
        Field(
            f["name"], f.get("kind", "text"), f.get("required", True), f.get("default", ""), tuple(f.get("choices", ()))
        )
        for f in found["fields"]
    )
    url = Field("url", "text", False, own["url"], group="request")
    mapping = (Field(f.name, f.kind, f.required, own.get(f.name, f.default), f.choices, f.group) for f in MAPPING)
    data = {
        "key": found["key"],
        "label": found["label"],
        "docs": found.get("docs", ""),
        "pace": float(found.get("pace", 20)),
        "supports": frozenset(found.get("supports", ("reports", "inbound"))),
        "pasted": found.get("paste", {}),
        "fields": (*account, url, *mapping),
    }
    return type("Preset_" + found["key"], (HttpGateway,), data)


def presets(folder: Path = PRESETS) -> Iterable[type[HttpGateway]]:
    """A Provider class for each file of the folder, by name."""
    for path in sorted(folder.glob("*.json")):
        yield preset(json.loads(path.read_text(encoding="utf-8")))


# --- small parts ----------------------------------------------------------------------------------------


def _reference(text: str) -> tuple[str | None, int]:
    """Our token, and of how many parts the message is where the request said {ref}/{segments}."""
    found = re.fullmatch(r"(.+)/([0-9]{1,3})", text[:200])
    return (found[1], int(found[2])) if found else (text[:200] or None, 1)


def _pair(username: str, password: str) -> str:
    return f"{username}:{password}"


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _encoded(pairs: list[tuple[str, str]]) -> str:
    return urlencode(pairs, quote_via=quote, safe="", errors="replace")


def _with_query(url: str, pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{_encoded(pairs)}"


def _would_be_cut(text: str) -> bool:
    """Whether an equal cut every 67 units would go through a character of two units."""
    if segments.count(text).encoding != "UCS-2":
        return False
    units = text.encode("utf-16-be", "replace")
    borders = range(segments.UCS_PART * 2, len(units), segments.UCS_PART * 2)
    return len(units) > segments.UCS_ONE * 2 and any(units[at] & 0xFC == 0xDC for at in borders)


def _facts(answer: Answer) -> Facts:
    return Facts(answer.status, answer.body.decode("utf-8", "replace"), {"json": load(answer.body)})
