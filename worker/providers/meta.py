"""The wire of the WhatsApp Cloud API: sending, templates, the check of a connection, webhooks.

Shared by every Provider that speaks it. A subclass says where the API is and how a call identifies
itself; the rest is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from worker.providers import meta_webhooks
from worker.providers.adapter import Answer
from worker.providers.base import (
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
    HttpClient,
    classify_http,
    json_object,
    mask_digits,
    seconds,
    speaks_for_itself,
    unreadable,
)
from worker.providers.meta_errors import meaning
from worker.providers.rules import UNKNOWN

VERSION = "v25.0"
HELD = frozenset({"held_for_quality_assessment", "paused"})
TEMPLATE_FIELDS = "id,name,language,status,category,parameter_format,components"
NUMBER_FIELDS = (
    "id,display_phone_number,verified_name,name_status,status,quality_rating,platform_type,account_mode,"
    "health_status,webhook_configuration,whatsapp_business_manager_messaging_limit"
)
PAGE = 100
MOST_PAGES = 100
_NAMED_VARIABLE = re.compile(r"\{\{\s*[^\d\s{}][^{}]*\}\}")


class CloudApi(Provider):
    """A Provider that speaks this wire. Settings: phone_number_id, waba_id, app_secret, verify_token."""

    kind = "waba"
    supports = frozenset({"templates", "reports", "inbound", "read"})

    def __post_init__(self) -> None:
        self.http = self.client()

    def client(self) -> HttpClient:
        """The HTTP client of this Provider."""
        return HttpClient(allowed_hosts=self.settings.get("allowed_private_hosts", ()))

    def base(self) -> str:
        """The address that paths are appended to, version included. Raises SendError when there is none."""
        raise NotImplementedError

    def credentials(self) -> dict[str, str]:
        """The header that identifies us."""
        return {"Authorization": f"Bearer {self._setting('access_token')}"}

    def send(self, out: Outgoing) -> Accepted:
        answer = self.http.request(
            "POST",
            f"{self.base()}/{self._path_part('phone_number_id')}/messages",
            {**self.credentials(), "Content-Type": "application/json"},
            json.dumps(request_body(out), ensure_ascii=False, separators=(",", ":")).encode(),
        )
        return accepted(answer)

    def templates(self) -> list[TemplateData]:
        found: list[TemplateData] = []
        query = {"fields": TEMPLATE_FIELDS, "limit": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = self._get(f"{self._path_part('waba_id')}/message_templates", query)
            found.extend(_templates(page))
            after = _next_cursor(page)
            if after is None or after == query.get("after"):
                break
            query["after"] = after
        return found

    def check(self) -> list[Finding]:
        """Number, account, subscription and templates, each asked for by a call that changes nothing."""
        try:
            return list(self._findings())
        except SendError as error:
            return [Finding("error", error.cause, error.detail)]

    def ping(self) -> None:
        self._get(self._path_part("phone_number_id"), {"fields": "id"})

    def handshake(self, callback: RawCallback) -> str | None:
        return meta_webhooks.challenge(callback, self._setting("verify_token"))

    def verify(self, callback: RawCallback) -> bool:
        # The second secret is the former one, for the time in which the vendor changes over.
        return meta_webhooks.signed(callback, (self._setting("app_secret"), self._setting("app_secret_previous")))

    def parse(self, callback: RawCallback) -> Iterable[StatusUpdate | InboundMessage]:
        return meta_webhooks.parse(callback.body, self._setting("phone_number_id"))

    def notices(self, callback: RawCallback) -> Iterable[Notice]:
        return meta_webhooks.notices(callback.body)

    def outcome(self, code: str) -> str:
        return meaning(int(code) if code.isdigit() else -1)[1].beyond

    def close(self) -> None:
        self.http.close()

    def _setting(self, name: str) -> str:
        return str(self.settings.get(name) or "")

    def _path_part(self, name: str) -> str:
        return quote(self._setting(name), safe="")

    def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One object by GET. Raises SendError."""
        answer = self.http.request("GET", f"{self.base()}/{path}?{urlencode(query)}", self.credentials())
        found = json_object(answer.body)
        if found is None or "error" in found or not 200 <= answer.status < 300:
            raise refusal(answer, found)
        return found

    def _findings(self) -> Iterator[Finding]:
        number = self._get(self._path_part("phone_number_id"), {"fields": NUMBER_FIELDS})
        shown = " · ".join(str(number[k]) for k in ("display_phone_number", "verified_name") if number.get(k))
        yield Finding("ok", "number_found", shown)
        if number.get("status") not in (None, "CONNECTED"):
            yield Finding("error", "number_not_connected", str(number["status"]))
        if number.get("quality_rating") in ("RED", "YELLOW"):
            yield Finding("warning", "number_quality", str(number["quality_rating"]))
        if number.get("account_mode") == "SANDBOX":
            yield Finding("warning", "number_for_tests")
        yield from _health(number)
        yield from self._webhook(number)
        waba = self._path_part("waba_id")
        members = self._get(f"{waba}/phone_numbers", {"fields": "id", "limit": str(PAGE)})
        if all(str(item.get("id")) != self._setting("phone_number_id") for item in _items(members)):
            yield Finding("error", "number_not_in_account")
        if not list(_items(self._get(f"{waba}/subscribed_apps", {}))):
            yield Finding("error", "webhook_not_subscribed")
        approved = self._get(f"{waba}/message_templates", {"fields": "name", "limit": "1", "status": "APPROVED"})
        if not list(_items(approved)):
            yield Finding("warning", "no_templates")

    def _webhook(self, number: Mapping[str, Any]) -> Iterator[Finding]:
        """Compare the address that the vendor really calls, the most particular one, with ours."""
        configured = number.get("webhook_configuration")
        ours = self.addresses.webhook
        if not isinstance(configured, dict) or not ours.startswith("http"):
            return
        scopes = ("phone_number", "whatsapp_business_account", "application")
        theirs = next((str(configured[scope]) for scope in scopes if configured.get(scope)), "")
        if theirs and theirs != ours:
            yield Finding("warning", "webhook_elsewhere", theirs)


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


def accepted(answer: Answer) -> Accepted:
    """Read the answer to a send call. Raises SendError unless it holds the id of an accepted message."""
    found = json_object(answer.body)
    if found is None or "error" in found or not 200 <= answer.status < 300:
        raise refusal(answer, found)
    messages = found.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    identity = first.get("id") if isinstance(first, dict) else None
    if not isinstance(identity, str) or not identity:
        raise unreadable(answer)
    return Accepted(identity, held=isinstance(first, dict) and first.get("message_status") in HELD)


def refusal(answer: Answer, found: Mapping[str, Any] | None) -> SendError:
    """What an answer without acceptance means: by its code, else by its status."""
    retry_after = answer.headers.get("retry-after")
    code, subcode, words = meta_webhooks.error_facts((found or {}).get("error"))
    by_status = classify_http(answer.status, retry_after, mask_digits(words))
    if code is None:
        return by_status or unreadable(answer)
    code, rule = meaning(code, subcode)
    if rule is UNKNOWN and by_status is not None and not speaks_for_itself(answer.status):
        return by_status
    return rule.error(str(code), mask_digits(words), http_status=answer.status, retry_after=seconds(retry_after))


def _health(number: Mapping[str, Any]) -> Iterator[Finding]:
    health = number.get("health_status")
    for entity in _items({"data": health.get("entities")} if isinstance(health, dict) else {}):
        state = entity.get("can_send_message")
        if state in ("LIMITED", "BLOCKED"):
            level = "error" if state == "BLOCKED" else "warning"
            words = [
                str(error.get(key, ""))
                for error in _items({"data": entity.get("errors")})
                for key in ("error_description", "possible_solution")
            ]
            yield Finding(level, "health", " ".join([str(entity.get("entity_type", "")), *words]).strip())


def _items(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    data = page.get("data")
    return (item for item in data if isinstance(item, dict)) if isinstance(data, list) else iter(())


def _templates(page: Mapping[str, Any]) -> Iterator[TemplateData]:
    for item in _items(page):
        name, language = item.get("name"), item.get("language")
        if not isinstance(name, str) or not isinstance(language, str):
            continue
        components = item.get("components")
        components = [c for c in components if isinstance(c, dict)] if isinstance(components, list) else []
        yield TemplateData(
            name=name,
            language=language,
            status=str(item.get("status", "")).upper(),
            category=str(item.get("category", "")).upper(),
            components=components,
            parameter_format=_parameter_format(item, components),
        )


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
