"""The wire of the WhatsApp Cloud API: sending, files, templates, webhooks; the check of a connection is in meta_check.

Shared by every Provider that speaks it. A subclass says where the API is and how a call identifies
itself; the rest is the same.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from worker.providers import meta_check, meta_notices, meta_webhooks
from worker.providers.adapter import BODY_CAP, Answer, Timeouts
from worker.providers.base import (
    FILE_MAX,
    REFUSED,
    Accepted,
    Finding,
    InboundMessage,
    Notice,
    Outgoing,
    Provider,
    RawCallback,
    SendError,
    StatusUpdate,
    TemplateData,
)
from worker.providers.http import (
    LONGEST_WAIT,
    HttpClient,
    classify_http,
    json_object,
    seconds,
    secret_forms,
    shown,
    speaks_for_itself,
    unreadable,
    without,
)
from worker.providers.meta_errors import meaning
from worker.providers.rules import UNKNOWN

VERSION = "v25.0"
HELD = frozenset({"held_for_quality_assessment", "paused"})
TEMPLATE_FIELDS = "id,name,language,status,category,parameter_format,components"
LIMIT_FIELD = "whatsapp_business_manager_messaging_limit"
MARKETING = "MARKETING"
SECRETS = ("access_token", "app_secret", "app_secret_previous", "verify_token", "api_key", "webhook_secret")
PAGE = 100
MOST_PAGES = 100
MB = 1024 * 1024
# What the header of a template may show, by type; the largest size in bytes.
MEDIA_SIZES = {
    "image/jpeg": 5 * MB,
    "image/png": 5 * MB,
    "video/mp4": 16 * MB,
    "video/3gpp": 16 * MB,
    "application/pdf": 100 * MB,
}
UPLOAD = Timeouts(read=120.0, total=600.0)
FETCH = Timeouts(total=120.0)
# Where the vendor keeps files; the access token goes there and to the channel's own address, nowhere else.
FILE_HOSTS = (".fbsbx.com", ".facebook.com", ".fbcdn.net", ".whatsapp.net")
_NAMED_VARIABLE = re.compile(r"\{\{\s*[^\d\s{}][^{}]*\}\}")


class CloudApi(Provider):
    """A Provider that speaks this wire.

    Settings: phone_number_id, waba_id, access_token, app_secret, verify_token; marketing_endpoint where it has one.
    """

    kind = "waba"
    supports = frozenset({"templates", "reports", "inbound", "read", "media"})

    def __post_init__(self) -> None:
        self.http = self.client()
        self._hidden = secret_forms("", map(self.setting, SECRETS))

    def client(self, timeouts: Timeouts | None = None, cap: int = BODY_CAP) -> HttpClient:
        """An HTTP client of this Provider."""
        return HttpClient(allowed_hosts=self.settings.get("allowed_private_hosts", ()), timeouts=timeouts, cap=cap)

    def base(self) -> str:
        """The address that paths are appended to, version included. Raises SendError when there is none."""
        raise NotImplementedError

    def sender(self) -> str:
        """The path of the sending number, with its slash."""
        return f"{self.path_part('phone_number_id')}/"

    def credentials(self) -> dict[str, str]:
        """The header that identifies us."""
        return {"Authorization": f"Bearer {self.setting('access_token')}"}

    @classmethod
    def faults(cls, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
        names = {f.name for f in cls.fields} & {"phone_number_id", "waba_id"}
        # The number itself in place of its id is the usual mistake.
        return [(name, "not_an_id") for name in sorted(names) if re.search(r"[\s+()]", str(settings.get(name) or ""))]

    def account(self) -> str:
        return self.setting("waba_id")

    def endpoint(self, out: Outgoing) -> str:
        """Which of the two send calls takes a message: the marketing endpoint takes marketing templates only."""
        chosen = str(self.settings.get("marketing_endpoint") or "").lower() in ("true", "1", "on", "yes")
        marketing = out.template is not None and out.template.get("category") == MARKETING
        return "marketing_messages" if chosen and marketing else "messages"

    def send(self, out: Outgoing) -> Accepted:
        endpoint = self.endpoint(out)
        body = request_body(out)
        if endpoint == "marketing_messages":
            body["product_policy"] = "CLOUD_API_FALLBACK"
        answer = self.http.request(
            "POST",
            f"{self.base()}/{self.sender()}{endpoint}",
            {**self.credentials(), "Content-Type": "application/json"},
            json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        )
        return accepted(answer, self._hidden)

    def upload(self, data: bytes, mime: str, filename: str) -> str:
        """Hand a file over for the header of templates; its id, by which messages show it. Raises SendError.

        The vendor keeps a file for 30 days.
        """
        most = MEDIA_SIZES.get(mime)
        if most is None:
            raise SendError(REFUSED, "media_type", mime, about_message=True)
        if not 0 < len(data) <= most:
            cause = "media_too_large" if data else "media_empty"
            raise SendError(REFUSED, cause, f"{most // MB} MB", about_message=True)
        boundary = secrets.token_hex(16)
        client = self.client(UPLOAD)
        try:
            answer = client.request(
                "POST",
                f"{self.base()}/{self.sender()}media",
                {**self.credentials(), "Content-Type": f"multipart/form-data; boundary={boundary}"},
                multipart(boundary, {"messaging_product": "whatsapp", "type": mime}, data, mime, filename),
            )
        finally:
            client.close()
        identity = understood(answer, self._hidden).get("id")
        if not isinstance(identity, str | int) or not str(identity):
            raise unreadable(answer, self._hidden)
        return str(identity)

    def fetch(self, media_id: str) -> bytes:
        """The vendor names an address that lives for minutes; the file lies behind the same key."""
        facts = self.get(quote(media_id, safe=""), {})
        size = meta_webhooks.number_of(facts.get("file_size"))
        if size is not None and size > FILE_MAX:
            raise SendError(REFUSED, "media_too_large", f"{FILE_MAX // MB} MB")
        client = self.client(FETCH, FILE_MAX)
        try:
            answer = client.request("GET", self.file_address(str(facts.get("url") or "")), self.credentials())
        finally:
            client.close()
        if not 200 <= answer.status < 300:
            raise refusal(answer, json_object(answer.body), self._hidden)
        return answer.body

    def file_address(self, url: str) -> str:
        """Where to ask for a file that lies at `url`. Raises SendError for a place that our key must not go to."""
        there, ours = urlsplit(url), urlsplit(self.base())
        at_vendor = there.scheme == "https" and f".{there.hostname or ''}".endswith(FILE_HOSTS)
        if not at_vendor and (there.scheme, there.netloc) != (ours.scheme, ours.netloc):
            raise SendError(REFUSED, "address_forbidden", there.hostname or "")
        return url

    def templates(self) -> list[TemplateData]:
        found: list[TemplateData] = []
        query = {"fields": TEMPLATE_FIELDS, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = self.get(f"{self.path_part('waba_id')}/message_templates", query)
            found.extend(template for item in items(page.get("data")) if (template := read_template(item)) is not None)
            after = _next_cursor(page)
            if after is None or after == query.get("after"):
                break
            query["after"] = after
        return found

    def limit(self) -> int | None:
        """How many people the account may begin to write to within 24 hours; -1: any number, None: not known.

        Raises SendError.
        """
        try:
            found = self.get(self.path_part("phone_number_id"), {"fields": LIMIT_FIELD}).get(LIMIT_FIELD)
        except SendError as error:
            if error.cause != "100":
                raise
            return None  # this version does not know the field
        return meta_webhooks.daily_limit(found)

    def check(self) -> list[Finding]:
        """Number, account, subscription and templates, each asked for by a call that changes nothing."""
        return list(meta_check.findings(self))

    def ping(self) -> None:
        self.get(self.path_part("phone_number_id"), {"fields": "id"})

    def handshake(self, callback: RawCallback) -> str | None:
        return meta_webhooks.challenge(callback, self.setting("verify_token"))

    def verify(self, callback: RawCallback) -> bool:
        # The second secret is the former one, for the time in which the vendor changes over.
        return meta_webhooks.signed(callback, (self.setting("app_secret"), self.setting("app_secret_previous")))

    def parse(self, callback: RawCallback) -> Iterable[StatusUpdate | InboundMessage]:
        return meta_webhooks.parse(callback.body, self.setting("phone_number_id"))

    def concerns(self, callback: RawCallback) -> bool:
        number = self.setting("phone_number_id").encode()
        return bool(number) and b'"' + number + b'"' in callback.body

    def notices(self, callback: RawCallback) -> Iterable[Notice]:
        return meta_notices.notices(callback.body, self.account(), self.setting("phone_number_id"))

    def outcome(self, code: str) -> str:
        return meaning(int(code) if code.isdigit() else -1)[1].beyond

    def close(self) -> None:
        self.http.close()

    def setting(self, name: str) -> str:
        """A setting as text; "" when it is missing."""
        return str(self.settings.get(name) or "")

    def path_part(self, name: str) -> str:
        """A setting as a part of a path."""
        return quote(self.setting(name), safe="")

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One object by GET. Raises SendError."""
        address = f"{self.base()}/{path}"
        answer = self.http.request("GET", f"{address}?{urlencode(query)}" if query else address, self.credentials())
        return understood(answer, self._hidden)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a POST of JSON. Raises SendError."""
        headers = {**self.credentials(), "Content-Type": "application/json"}
        answer = self.http.request("POST", f"{self.base()}/{path}", headers, json.dumps(body).encode())
        return understood(answer, self._hidden)


def request_body(out: Outgoing) -> dict[str, Any]:
    """The body of a send call: a template message, or free text when there is no template."""
    body: dict[str, Any] = {"messaging_product": "whatsapp", "recipient_type": "individual"}
    # Without the plus the vendor may put the sender's country in front. People without a number have an id.
    body["to" if out.phone.startswith("+") else "recipient"] = out.phone
    if out.token:
        body["biz_opaque_callback_data"] = out.token
    if out.template is None:
        return body | {"type": "text", "text": {"preview_url": False, "body": out.text}}
    template = out.template
    language = {"policy": "deterministic", "code": template["language"]}
    filled = {"name": template["name"], "language": language}
    if components := template.get("components"):
        filled["components"] = components
    return body | {"type": "template", "template": filled}


def multipart(boundary: str, values: Mapping[str, str], data: bytes, mime: str, filename: str) -> bytes:
    """A form with one file, as its body."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in values.items()
    ]
    name = "".join(c for c in filename if c.isprintable() and c not in '"\\') or "file"
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n')
    parts.append(f"Content-Type: {mime}\r\n\r\n")
    return "".join(parts).encode() + data + f"\r\n--{boundary}--\r\n".encode()


def understood(answer: Answer, hidden: Sequence[str] = ()) -> dict[str, Any]:
    """The object that an answer of success holds. Raises SendError, without the forms of our secrets in `hidden`."""
    found = json_object(answer.body)
    if found is None or "error" in found or not 200 <= answer.status < 300:
        raise refusal(answer, found, hidden)
    return found


def accepted(answer: Answer, hidden: Sequence[str] = ()) -> Accepted:
    """Read the answer to a send call. Raises SendError unless it holds the id of an accepted message."""
    messages = understood(answer, hidden).get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    identity = first.get("id") if isinstance(first, dict) else None
    if not isinstance(identity, str) or not identity:
        raise unreadable(answer, hidden)
    return Accepted(identity, held=isinstance(first, dict) and first.get("message_status") in HELD)


def refusal(answer: Answer, found: Mapping[str, Any] | None, hidden: Sequence[str] = ()) -> SendError:
    """What an answer without acceptance means: by its code, else by its status.

    A reseller's own faults stand in `meta` instead, in words.
    """
    retry_after = answer.headers.get("retry-after")
    code, subcode, words = meta_webhooks.error_facts(_covered((found or {}).get("error"), hidden))
    meta = (found or {}).get("meta")
    if code is None and isinstance(meta, dict):
        given = (meta.get(key) for key in ("developer_message", "developerMessage"))
        words = next((str(text) for text in given if text), "")
    words = shown(words, hidden)
    by_status = classify_http(answer.status, retry_after, words)
    if code is None:
        return by_status or unreadable(answer, hidden)
    code, rule = meaning(code, subcode)
    if rule is UNKNOWN and by_status is not None and not speaks_for_itself(answer.status):
        return by_status
    wait = seconds(retry_after)
    if wait is None and rule.slow_channel:
        wait = _free_again(answer.headers.get("x-business-use-case-usage"))
    return rule.error(str(code), words, http_status=answer.status, retry_after=wait)


def _covered(error: Any, hidden: Sequence[str], deep: int = 2) -> Any:
    """An error object without our secrets, as long as its words are whole."""
    if isinstance(error, dict) and deep:
        return {name: _covered(value, hidden, deep - 1) for name, value in error.items()}
    return without(error, hidden) if isinstance(error, str) else error


def _free_again(usage: str | None) -> float | None:
    """Seconds until the account's calls are free again, as the vendor estimates it; None when it does not."""
    accounts = (json_object((usage or "").encode()) or {}).values()
    minutes = (item.get("estimated_time_to_regain_access") for account in accounts for item in items(account))
    longest = max((m for m in minutes if isinstance(m, int)), default=0)
    return min(longest * 60.0, LONGEST_WAIT) if longest > 0 else None


def items(data: Any) -> Iterator[dict[str, Any]]:
    """The objects in a list, as far as it is one."""
    return (item for item in data if isinstance(item, dict)) if isinstance(data, list) else iter(())


def read_template(item: Mapping[str, Any]) -> TemplateData | None:
    """One template of a list; its names of states and kinds in capitals, however they were written."""
    name, language = item.get("name"), item.get("language")
    if isinstance(language, dict):
        language = language.get("code")
    if not isinstance(name, str) or not isinstance(language, str):
        return None
    components = [_component(component) for component in items(item.get("components"))]
    return TemplateData(
        name=name,
        language=language,
        status=str(item.get("status", "")).upper(),
        category=str(item.get("category", "")).upper(),
        components=components,
        parameter_format=_parameter_format(item, components),
    )


def _component(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {**given, "type": str(given.get("type", "")).upper()}
    if found.get("format"):
        found["format"] = str(found["format"]).upper()
    if "buttons" in found:
        found["buttons"] = [{**b, "type": str(b.get("type", "")).upper()} for b in items(found["buttons"])]
    return found


def _parameter_format(item: Mapping[str, Any], components: list[dict[str, Any]]) -> str:
    """As stated; old templates do not state it and are told by the names of their variables."""
    if stated := item.get("parameter_format"):
        return str(stated).upper()
    texts = (component.get("text") for component in components)
    named = any(isinstance(text, str) and _NAMED_VARIABLE.search(text) for text in texts)
    return "NAMED" if named else "POSITIONAL"


def _next_cursor(page: Mapping[str, Any]) -> str | None:
    """The cursor of the next page. Its address is never followed: it could lead elsewhere with our key."""
    paging = page.get("paging")
    if not isinstance(paging, dict) or not paging.get("next"):
        return None
    cursors = paging.get("cursors")
    after = cursors.get("after") if isinstance(cursors, dict) else None
    if not after:
        after = parse_qs(urlsplit(str(paging["next"])).query).get("after", [None])[0]
    return str(after) if after else None
