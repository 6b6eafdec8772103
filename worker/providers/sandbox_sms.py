"""The SMS sandbox: a plain HTTP gateway as many vendors offer it, played by our own emulator.

    POST /sms/send, Authorization: Bearer TOKEN
    {"to": "+7…", "text": "…", "sender": "…", "ref": our token, "dlr_url": "…", "inbound_url": "…"}
    200 {"id": "…"}   or   4xx, 5xx {"error": {"code": "…", "message": "…"}}

Receipts {"id", "ref", "status", "time", "code"?} and replies {"id", "from", "to", "text", "time"} come by
POST as JSON; times are seconds since the epoch; X-Sandbox-Signature is "sha256=" and the HMAC-SHA256 of the
raw body under the channel's secret.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from typing import Any

from worker import clock
from worker.providers.adapter import Answer
from worker.providers.base import (
    Accepted,
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
from worker.providers.sandbox_waba import emulator

SIGNATURE = "x-sandbox-signature"
ERRORS: dict[str, Rule] = {
    "sms_bad_token": CHANNEL,
    "sms_no_balance": CHANNEL,
    "sms_bad_sender": BROADCAST,
    "sms_throttled": TOO_FAST,
    "sms_unknown_subscriber": PERSON,  # no such number
    "sms_absent": PERSON,  # switched off or out of reach for too long
    "sms_barred": PERSON,  # barred by the operator
    "sms_opted_out": PERSON,  # on the vendor's own stop list
    "sms_rejected": PERSON,  # the operator did not let it through
    "sms_bad_text": MESSAGE,
}
STATUSES = {
    "sent": "sent",
    "delivered": "delivered",
    "undelivered": "failed",
    "expired": "failed",
    "rejected": "failed",
}


class SandboxSms(Provider):
    key = "sandbox_sms"
    kind = "sms"
    label = "SMS sandbox"
    pace = 20.0
    supports = frozenset({"reports", "inbound"})
    fields = (
        Field("sender", default="Molva"),
        Field("token", kind="secret"),
        Field("secret", kind="secret"),
    )

    def __post_init__(self) -> None:
        self.http = HttpClient(allow_loopback=True)
        self._hidden = secret_forms("", [self._setting("token"), self._setting("secret")])

    def send(self, out: Outgoing) -> Accepted:
        body = {
            "to": out.phone,
            "text": out.text,
            "sender": self._setting("sender"),
            "ref": out.token,
            "dlr_url": self.addresses.status,
            "inbound_url": self.addresses.inbound,
        }
        answer = self._call("POST", "/sms/send", json.dumps(body, ensure_ascii=False).encode())
        found = _read(answer, self._hidden)
        identity = found.get("id")
        if not isinstance(identity, str) or not identity:
            raise unreadable(answer, self._hidden)
        return Accepted(identity)

    def check(self) -> list[Finding]:
        try:
            found = _read(self._call("GET", "/sms/account"), self._hidden)
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]
        return [Finding("ok", "account_found", str(found.get("name", "")))]

    def ping(self) -> None:
        _read(self._call("GET", "/sms/account"), self._hidden)

    def verify(self, callback: RawCallback) -> bool:
        secret = self._setting("secret")
        given = callback.headers.get(SIGNATURE, "").encode()
        return hmac.compare_digest(given, signature(secret, callback.body).encode()) and bool(secret)

    def parse(self, callback: RawCallback) -> Iterator[StatusUpdate | InboundMessage]:
        found = json_object(callback.body)
        item = None if found is None else _inbound(found) if callback.path == "inbound" else _receipt(found)
        return iter(() if item is None else (item,))

    def outcome(self, code: str) -> str:
        return ERRORS.get(code, UNKNOWN).beyond

    def close(self) -> None:
        self.http.close()

    def _setting(self, name: str) -> str:
        return str(self.settings.get(name) or "")

    def _call(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {self._setting('token')}", "Content-Type": "application/json"}
        return self.http.request(method, emulator(self.settings["data"]) + path, headers, body)


def signature(secret: str, body: bytes) -> str:
    """The value of X-Sandbox-Signature for these bytes."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _read(answer: Answer, secrets: Sequence[str]) -> dict[str, Any]:
    """The object of an answer that says yes. Raises SendError for any other, without these forms of our secrets."""
    found = json_object(answer.body)
    error = (found or {}).get("error")
    code = error.get("code") if isinstance(error, dict) else None
    retry_after = answer.headers.get("retry-after")
    if isinstance(error, dict) and isinstance(code, str):
        words = shown(str(error.get("message", "")), secrets)
        rule = ERRORS.get(code, UNKNOWN)
        by_status = classify_http(answer.status, retry_after, words)
        if rule is UNKNOWN and by_status is not None and not speaks_for_itself(answer.status):
            raise by_status
        raise rule.error(code, words, http_status=answer.status, retry_after=seconds(retry_after))
    refused = classify_http(answer.status, retry_after)
    if refused is not None:
        raise refused
    if found is None:
        raise unreadable(answer, secrets)
    return found


def _receipt(found: dict[str, Any]) -> StatusUpdate | None:
    status, identity = STATUSES.get(str(found.get("status"))), found.get("id")
    if status is None or not isinstance(identity, str):
        return None
    code = found.get("code")
    return StatusUpdate(
        status=status,
        at=_time(found.get("time")),
        provider_id=identity,
        token=str(found["ref"]) if found.get("ref") else None,
        code=(str(code) if code else f"sms_{found['status']}") if status == "failed" else None,
    )


def _inbound(found: dict[str, Any]) -> InboundMessage | None:
    identity, sender, text = found.get("id"), found.get("from"), found.get("text")
    if not isinstance(identity, str) or not isinstance(sender, str) or not isinstance(text, str):
        return None
    text = text[:65_536].replace("\x00", "").encode("utf-8", "replace").decode()
    return InboundMessage(provider_id=identity, phone=sender, at=_time(found.get("time")), text=text)


def _time(value: Any) -> int:
    """Milliseconds since the epoch; now when the vendor's seconds cannot be read."""
    usable = isinstance(value, int | float) and 0 < value < 4_102_444_800
    return int(value * clock.MS) if usable else clock.now()
