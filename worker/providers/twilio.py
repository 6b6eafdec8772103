"""Twilio's Messages API: form requests under the account, callbacks signed over the public address.

Source: twilio.com/docs/messaging/api. Creating a message takes no key against repeats; our token rides in the
query of StatusCallback, which the signature covers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from worker.providers.adapter import Answer, Timeouts
from worker.providers.base import (
    FILE_MAX,
    STOP_CHANNEL,
    UNCLEAR,
    Accepted,
    Attached,
    Field,
    Finding,
    InboundMessage,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
    StatusUpdate,
)
from worker.providers.http import (
    HttpClient,
    classify_http,
    json_object,
    seconds,
    secret_forms,
    shown,
    speaks_for_itself,
    unreadable,
)
from worker.providers.rules import BROADCAST, CHANNEL, MESSAGE, PERSON, TOO_FAST, UNKNOWN, Rule

SIGNATURE = "x-twilio-signature"
# Codes of answers and of reports alike. Anything else is a refusal of the message.
ERRORS: dict[str, Rule] = {
    "20003": CHANNEL,  # the credentials
    "20429": TOO_FAST,
    "21211": PERSON,  # not a number
    "21612": PERSON,  # no route from this sender to this person
    "21614": PERSON,  # not a mobile
    "21610": PERSON,  # said STOP to this sender
    "21602": MESSAGE,  # no text
    "21617": MESSAGE,  # more than 1,600 characters
    "21603": BROADCAST,  # no sender
    "21606": BROADCAST,  # the sender cannot send
    "21660": BROADCAST,  # the sender belongs to another account
    "30003": PERSON,  # unreachable
    "30004": PERSON,  # barred
    "30005": PERSON,  # unknown
    "30006": PERSON,  # fixed line
    "30007": MESSAGE,  # filtered by the operator
    "30008": PERSON,
}
STATUSES = {
    "accepted": "sent",
    "scheduled": "sent",
    "queued": "sent",
    "sending": "sent",
    "sent": "sent",
    "partially_delivered": "sent",
    "delivered": "delivered",
    "read": "read",
    "undelivered": "failed",
    "failed": "failed",
    "canceled": "failed",
}
TEXT = 65_536
FILES_MAX = 10  # of one message
FETCH = Timeouts(total=120.0)
_FILE = re.compile(r"https?://[^/]+/2010-04-01/Accounts/[A-Za-z0-9]+/(Messages/[A-Za-z0-9]+/Media/[A-Za-z0-9]+)")


class Twilio(Provider):
    key = "twilio"
    kind = "sms"
    label = "Twilio"
    pace = 1.0  # what a long number may send; a Messaging Service or a short code sends more
    supports = frozenset({"reports", "inbound"})
    callback_headers = frozenset({SIGNATURE})
    fields = (
        Field("account_sid"),
        Field("auth_token", kind="secret"),
        Field("from", required=False),
        Field("messaging_service_sid", required=False),
        Field("base_url", default="https://api.twilio.com"),
    )

    def __post_init__(self) -> None:
        self.http = HttpClient(allowed_hosts=self.settings.get("allowed_private_hosts", ()))
        self._hidden = secret_forms(self._setting("account_sid"), [self._setting("auth_token")])

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = [(f.name, "") for f in cls.fields if f.required and not (settings.get(f.name) or f.default)]
        if not settings.get("from") and not settings.get("messaging_service_sid"):
            found.append(("from", ""))
        base = str(settings.get("base_url") or "https://")
        return found if base.startswith(("https://", "http://")) else [*found, ("base_url", base)]

    def send(self, out: Outgoing) -> Accepted:
        form = {"To": out.phone, "Body": out.text}
        service = self._setting("messaging_service_sid")
        form |= {"MessagingServiceSid": service} if service else {"From": self._setting("from")}
        if self.addresses.status.startswith("http"):
            form["StatusCallback"] = f"{self.addresses.status}?ref={quote(out.token, safe='')}"
        found = self._object(self._call("POST", "Messages.json", urlencode(form, errors="replace").encode()))
        identity = found.get("sid")
        if not isinstance(identity, str) or not identity:
            raise SendError(UNCLEAR, "answer_unreadable")
        return Accepted(identity)

    def answerable(self) -> bool:
        """A Messaging Service chooses among numbers; only a name of letters cannot be answered."""
        return bool(self._setting("messaging_service_sid")) or not any(c.isalpha() for c in self._setting("from"))

    def account(self) -> str:
        return self._setting("account_sid")

    def check(self) -> list[Finding]:
        try:
            found = self._object(self._call("GET", "Balance.json"))
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]
        facts = (str(found[name]) for name in ("account_sid", "balance", "currency") if found.get(name))
        return [Finding("ok", "account_found", " · ".join(facts))]

    def ping(self) -> None:
        self._object(self._call("GET", "Balance.json"))

    def verify(self, callback: RawCallback) -> bool:
        # The address as we gave it out: what a proxy made of it says nothing about what Twilio signed.
        token = self._setting("auth_token")
        addresses = {"": self.addresses.webhook, "status": self.addresses.status, "inbound": self.addresses.inbound}
        url = addresses.get(callback.path, "")
        if callback.query:
            url += "?" + urlencode(dict(callback.query), quote_via=quote, safe="")
        given = callback.headers.get(SIGNATURE, "").encode()
        return hmac.compare_digest(given, signature(token, url, _form(callback)).encode()) and bool(token)

    def parse(self, callback: RawCallback) -> Iterator[StatusUpdate | InboundMessage]:
        form = dict(_form(callback))
        identity = form.get("MessageSid") or form.get("SmsSid") or ""
        status = STATUSES.get(form.get("MessageStatus", "").lower())
        if not identity:
            return
        if status is not None:
            code = form.get("ErrorCode") or None
            failed = status == "failed"
            yield StatusUpdate(
                status,
                0,
                identity,
                callback.query.get("ref") or None,
                (code or "sms_undelivered") if failed else None,
                shown(form.get("ErrorMessage", ""), self._hidden) if failed else None,
            )
        elif form.get("MessageStatus", "received") in ("received", "receiving") and form.get("From"):
            text = form.get("Body", "")[:TEXT].replace("\x00", "").encode("utf-8", "replace").decode()
            attached = tuple(_attached(form))
            kind = attached[0].mime.partition("/")[0] if attached else "text"
            kind = kind if kind in ("text", "image", "audio", "video") else "document"
            yield InboundMessage(identity, form["From"], 0, kind, text, attached=attached)

    def fetch(self, media_id: str) -> bytes:
        """Twilio hands a file out itself or says, for a moment, where it lies; our key stays with Twilio."""
        client = HttpClient(allowed_hosts=self.settings.get("allowed_private_hosts", ()), timeouts=FETCH, cap=FILE_MAX)
        try:
            answer = self._call("GET", media_id, client=client)
            if answer.status in (301, 302, 307, 308):
                answer = client.request("GET", answer.headers.get("location", ""))
        finally:
            client.close()
        if not 200 <= answer.status < 300:
            self._object(answer)
        return answer.body

    def outcome(self, code: str) -> str:
        return ERRORS.get(code, UNKNOWN).beyond

    def close(self) -> None:
        self.http.close()

    def _setting(self, name: str) -> str:
        return str(self.settings.get(name) or "").strip()

    def _call(self, method: str, path: str, body: bytes | None = None, client: HttpClient | None = None) -> Answer:
        base = self._setting("base_url").rstrip("/") or "https://api.twilio.com"
        if not base.startswith(("https://", "http://")):
            raise SendError(STOP_CHANNEL, "settings_invalid", "base_url")
        account = self._setting("account_sid")
        pair = base64.b64encode(f"{account}:{self._setting('auth_token')}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = f"{base}/2010-04-01/Accounts/{quote(account, safe='')}/{path}"
        return (client or self.http).request(method, url, headers, body)

    def _object(self, answer: Answer) -> dict[str, Any]:
        """The object of an answer that says yes. Raises SendError for any other: the code decides, then the status."""
        found = json_object(answer.body)
        retry_after = answer.headers.get("retry-after")
        code = str((found or {}).get("code") or "")
        words = shown(str((found or {}).get("message") or ""), self._hidden)
        by_status = classify_http(answer.status, retry_after, words)
        if by_status is not None and re.fullmatch(r"\d{5}", code):
            rule = ERRORS.get(code, UNKNOWN)
            if rule is not UNKNOWN or speaks_for_itself(answer.status):
                raise rule.error(code, words, http_status=answer.status, retry_after=seconds(retry_after))
        if by_status is not None:
            raise by_status
        if found is None:
            raise unreadable(answer, self._hidden)
        return found


def _attached(form: Mapping[str, str]) -> Iterator[Attached]:
    """The files of a message, each by the end of its path: whatever host a callback names, ours is asked."""
    for n in range(FILES_MAX):
        found = _FILE.fullmatch(form.get(f"MediaUrl{n}", ""))
        if found is not None:
            yield Attached(found[1], form.get(f"MediaContentType{n}", "")[:100])


def signature(token: str, url: str, form: list[tuple[str, str]]) -> str:
    """The value of X-Twilio-Signature for a callback to `url`: names and values in order of the names."""
    said = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), said.encode(), hashlib.sha1).digest()).decode()


def _form(callback: RawCallback) -> list[tuple[str, str]]:
    return parse_qsl(callback.body.decode("utf-8", "replace"), keep_blank_values=True)
