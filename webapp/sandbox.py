"""The sandbox emulator: a foreign server that happens to ship with us.

It speaks the Cloud API's wire (send, templates, signed webhooks) and a plain SMS wire (send, receipts,
replies) over real HTTP on this machine, and sends nothing to anybody. Its log, `sandbox.log` in the data
folder, has one line per accepted message, synced before the answer leaves: the truth that tests compare with.
A restart reads the log and goes on with what was still to be reported, as a real provider would.

Special numbers are in MAGIC; every other number is delivered and read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import heapq
import hmac
import json
import os
import random
import re
import secrets
import signal
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from webapp.sandbox_numbers import MAGIC, Special
from worker.providers import sandbox_address
from worker.settings import Settings

_MAGIC = {special.phone: special for special in MAGIC}
_FILES = "files"  # where the emulator keeps what people attached

BODY_MAX = 20 * 1024 * 1024  # an uploaded file of a header
HEAD_MAX = 64 * 1024
BATCH = 100
POSTMEN = 4  # callbacks of one account on their way at once, as real providers have it
RETRIES = 12
SLOW = 8.0
RETRY_AFTER = 3


@dataclass
class Delays:
    """Seconds: the answer to a send, and after acceptance sent, delivered, read, failed and a reply."""

    answer: tuple[float, float] = (0.06, 0.12)
    sent: tuple[float, float] = (0.2, 0.8)
    delivered: tuple[float, float] = (1.0, 3.0)
    read: tuple[float, float] = (3.0, 9.0)
    failed: tuple[float, float] = (1.0, 3.0)
    reply: tuple[float, float] = (4.0, 8.0)


@dataclass
class Account:
    """One channel as the emulator knows it."""

    provider: str
    key: str
    settings: Mapping[str, Any]

    @property
    def waba(self) -> bool:
        return self.provider == "sandbox_waba"

    @property
    def token(self) -> str:
        return str(self.settings["access_token" if self.waba else "token"])


@dataclass(order=True)
class Event:
    """One callback that will be made."""

    due: float
    number: int
    account: Account = field(compare=False)
    status: str = field(compare=False)
    facts: dict[str, Any] = field(compare=False)


def _body(name: str, language: str, category: str, text: str, *more: dict[str, Any], **extra: Any) -> dict[str, Any]:
    components = [c for c in more if c["type"] == "HEADER"]
    components.append({"type": "BODY", "text": text})
    components += [c for c in more if c["type"] != "HEADER"]
    return {
        "id": str(int(hashlib.sha256(f"{name}{language}".encode()).hexdigest()[:12], 16)),
        "name": name,
        "language": language,
        "category": category,
        "status": "APPROVED",
        "parameter_format": "POSITIONAL",
        "components": components,
        **extra,
    }


CODES = ("COPY_CODE", "OTP")  # buttons that take a code
TEMPLATES = [
    _body(
        "welcome",
        "ru",
        "MARKETING",
        "Здравствуйте, {{1}}! Рады, что вы с нами.",
        {"type": "FOOTER", "text": "Чтобы отписаться, ответьте СТОП"},
    ),
    _body(
        "welcome",
        "en",
        "MARKETING",
        "Hello {{1}}, good to have you with us.",
        {"type": "FOOTER", "text": "Reply STOP to opt out"},
    ),
    _body("order_ready", "ru", "UTILITY", "{{name}}, заказ {{order}} готов к выдаче.", parameter_format="NAMED"),
    _body("order_ready", "en", "UTILITY", "{{name}}, your order {{order}} is ready.", parameter_format="NAMED"),
    _body(
        "sale",
        "ru",
        "MARKETING",
        "Скидка {{1}} до {{2}}.",
        {"type": "HEADER", "format": "TEXT", "text": "Для вас, {{1}}"},
    ),
    _body(
        "coupon",
        "ru",
        "MARKETING",
        "Ваш купон ждёт, {{1}}.",
        {"type": "HEADER", "format": "IMAGE"},
        {
            "type": "BUTTONS",
            "buttons": [
                {"type": "URL", "text": "Открыть", "url": "https://shop.example/c/{{1}}"},
                {"type": "COPY_CODE", "text": "Скопировать код"},
            ],
        },
    ),
    _body(
        "price_list",
        "ru",
        "MARKETING",
        "{{name}}, новые цены во вложении.",
        {"type": "HEADER", "format": "DOCUMENT"},
        {
            "type": "BUTTONS",
            "buttons": [
                {"type": "QUICK_REPLY", "text": "Подробнее"},
                {"type": "QUICK_REPLY", "text": "Отписаться"},
            ],
        },
        parameter_format="NAMED",
    ),
    _body("shop_moved", "ru", "UTILITY", "Мы переехали, {{1}}.", {"type": "HEADER", "format": "LOCATION"}),
    _body(
        "login_code",
        "ru",
        "AUTHENTICATION",
        "{{1}} — ваш код подтверждения.",
        {
            "type": "BUTTONS",
            "buttons": [{"type": "OTP", "otp_type": "COPY_CODE", "text": "Скопировать код"}],
        },
    ),
    _body("notice", "ru", "UTILITY", "Завтра мы работаем до 18:00."),
    _body("old_sale", "ru", "MARKETING", "Распродажа, {{1}}!", status="PAUSED"),
    _body("refused", "ru", "MARKETING", "Срочно, {{1}}!!!", status="REJECTED"),
]


class Log:
    """Append-only JSON lines; `append` returns once its line is on the disk, many lines sharing one sync."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab")
        self._lines: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._busy = False

    async def append(self, **facts: Any) -> None:
        self.note(**facts)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().create_task(self._flush())
        await waiter

    def note(self, **facts: Any) -> None:
        """A line that may wait for the next sync."""
        now = {"at": round(time.time(), 6), "mono": round(time.monotonic(), 6)}
        self._lines.append(json.dumps({**now, **facts}, ensure_ascii=False).encode() + b"\n")

    async def _flush(self) -> None:
        while self._waiters:
            lines, waiters = self._lines, self._waiters
            self._lines, self._waiters = [], []
            await asyncio.to_thread(self._write, b"".join(lines))
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self._busy = False

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._write(b"".join(self._lines))
        self._file.close()


class Emulator:
    """Both wires on one port."""

    def __init__(
        self, accounts: Sequence[Mapping[str, Any]], log_path: Path, callback_base: str, delays: Delays | None = None
    ) -> None:
        self.accounts = [Account(a["provider"], a["key"], a["settings"]) for a in accounts]
        self.delays = delays or Delays()
        self.callback_base = callback_base.rstrip("/")
        self._events: list[Event] = []
        self._number = 0
        self._throttled: set[str] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._outbox: dict[str, deque[Event]] = {a.key: deque() for a in self.accounts}
        self._replay(log_path)
        self.log = Log(log_path)

    # --- what has still to be reported ----------------------------------------------------------

    def _replay(self, path: Path) -> None:
        if not path.exists():
            return
        open_: dict[str, dict[str, Any]] = {}
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    facts = json.loads(line)
                except ValueError:
                    continue  # cut off by a crash: its answer never left
                if facts.get("kind") == "accepted":
                    facts["plan"] = list(facts["plan"])
                    open_[facts["provider_id"]] = facts
                elif facts.get("kind") == "event" and facts["provider_id"] in open_:
                    plan = open_[facts["provider_id"]]["plan"]
                    if facts["status"] in plan:
                        plan.remove(facts["status"])
                    if not plan:
                        del open_[facts["provider_id"]]
        by_key = {a.key: a for a in self.accounts}
        for facts in open_.values():
            account = by_key.get(facts["channel"])
            if account is not None:
                self._schedule(account, facts)

    def _schedule(self, account: Account, facts: dict[str, Any]) -> None:
        now = time.monotonic()
        for status in facts["plan"]:
            name = status.partition(":")[0]
            wait = random.uniform(*getattr(self.delays, name))  # noqa: S311
            self._number += 1
            heapq.heappush(self._events, Event(now + wait, self._number, account, status, facts))

    # --- HTTP -----------------------------------------------------------------------------------

    async def serve(self, port: int = 0) -> asyncio.Server:
        """Listen on 127.0.0.1 and begin to make callbacks."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, limit=HEAD_MAX)
        self._tasks = [asyncio.create_task(self._clockwork())]
        self._tasks += [asyncio.create_task(self._deliver(a)) for a in self.accounts for _ in range(POSTMEN)]
        return server

    async def close(self) -> None:
        for task in (*self._tasks, *self._connections):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._connections, return_exceptions=True)
        self.log.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, headers = _parse_head(head)
                length = int(headers.get("content-length", "0") or 0)
                if length > BODY_MAX:
                    break
                body = await reader.readexactly(length) if length else b""
                answer = await self._answer(method, target, headers, body)
                if answer is None:  # accepted, and then silence
                    await asyncio.sleep(3600)
                    break
                status, payload, extra = answer
                writer.write(_response(status, payload, extra))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass
        except asyncio.CancelledError:
            pass  # the emulator closes: whoever waits for an answer gets none
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()

    async def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Any, dict[str, str]] | None:
        parts = urlsplit(target)
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        account = next((a for a in self.accounts if hmac.compare_digest(a.token.encode(), bearer.encode())), None)
        path = parts.path.strip("/").split("/")
        if account is None:
            if path[0] == "sms":
                return 401, {"error": {"code": "sms_bad_token", "message": "unknown token"}}, {}
            return 401, _graph_error(190, "Error validating access token"), {}
        if path == ["_control"]:
            return self._control(method, body)
        if path[0] == "sms":
            if method == "POST" and path[1:] == ["send"]:
                return await self._send_sms(account, body)
            return 200, {"name": "Sandbox"}, {}
        return await self._graph(account, method, path[1:], f"http://{headers.get('host', '')}/{path[0]}", body)

    def _control(self, method: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Delays, for tests and demonstrations: {"delivered": [0, 0.1], …}."""
        if method == "POST":
            for name, value in json.loads(body).items():
                if hasattr(self.delays, name):
                    setattr(self.delays, name, (float(value[0]), float(value[1])))
        return 200, vars(self.delays), {}

    # --- the Cloud API --------------------------------------------------------------------------

    async def _graph(
        self, account: Account, method: str, path: list[str], base: str, body: bytes
    ) -> tuple[int, Any, dict[str, str]] | None:
        settings = account.settings
        if path[:1] == [settings["phone_number_id"]] and method == "POST":
            if path[1:] in (["messages"], ["marketing_messages"]):
                return await self._send_waba(account, body)
            if path[1:] == ["media"]:
                return 200, {"id": str(10**14 + secrets.randbelow(10**14))}, {}
        if path == [settings["waba_id"], "message_templates"]:
            return 200, {"data": TEMPLATES, "paging": {"cursors": {}}}, {}
        if path == [settings["waba_id"], "subscribed_apps"]:
            return 200, {"data": [{"whatsapp_business_api_data": {"id": "1", "name": "Molva"}}]}, {}
        if path == [settings["waba_id"], "phone_numbers"]:
            return 200, {"data": [{"id": settings["phone_number_id"]}]}, {}
        if path in ([settings["phone_number_id"]], [settings["waba_id"]]):
            return (
                200,
                {
                    "id": path[0],
                    "display_phone_number": "+7 900 000-00-00",
                    "verified_name": "Sandbox",
                    "name": "Sandbox",
                    "status": "CONNECTED",
                    "platform_type": "CLOUD_API",
                    "quality_rating": "GREEN",
                    "account_review_status": "APPROVED",
                    "whatsapp_business_manager_messaging_limit": "TIER_UNLIMITED",
                },
                {},
            )
        if len(path) == 1 and path[0].startswith(_PICTURE):
            url = f"{base}/{_FILES}/{path[0]}"
            return 200, {"id": path[0], "url": url, "mime_type": "image/png", "file_size": len(_picture(path[0]))}, {}
        if len(path) == 2 and path[0] == _FILES and path[1].startswith(_PICTURE):
            return 200, _picture(path[1]), {}
        return 404, _graph_error(100, "Unsupported request"), {}

    async def _send_waba(self, account: Account, body: bytes) -> tuple[int, Any, dict[str, str]] | None:
        try:
            message = json.loads(body)
            phone = str(message["to"])
            if message["type"] == "text":
                return await self._take_waba(account, message, phone, str(message["text"]["body"]))
            template = message["template"]
            name, language = template["name"], template["language"]["code"]
        except (ValueError, KeyError, TypeError):
            return 400, _graph_error(100, "Invalid parameter"), {}
        found = next((t for t in TEMPLATES if (t["name"], t["language"]) == (name, language)), None)
        if found is None or found["status"] == "REJECTED":
            return 404, _graph_error(132001, "Template name does not exist in the translation"), {}
        if found["status"] == "PAUSED":
            return 400, _graph_error(132015, "Template is paused"), {}
        if _wanted(found) != _given(template.get("components", [])):
            return 400, _graph_error(132000, "Number of parameters does not match"), {}
        if phone in _MAGIC and _MAGIC[phone].key == "paused":
            return 400, _graph_error(132015, "Template is paused"), {}
        text = json.dumps(template, ensure_ascii=False, sort_keys=True)
        return await self._take_waba(account, message, phone, text)

    async def _take_waba(
        self, account: Account, message: Mapping[str, Any], phone: str, text: str
    ) -> tuple[int, Any, dict[str, str]] | None:
        special = _MAGIC.get(phone)
        token = str(message.get("biz_opaque_callback_data", ""))
        if self._throttles(special, token, phone):
            return 429, _graph_error(130429, "Rate limit hit"), {"Retry-After": str(RETRY_AFTER)}
        identity = "wamid." + base64.b64encode(secrets.token_bytes(24)).decode().rstrip("=")
        ok = {
            "messaging_product": "whatsapp",
            "contacts": [{"input": phone, "wa_id": phone.lstrip("+")}],
            "messages": [{"id": identity, "message_status": "accepted"}],
        }
        return await self._accept(account, phone, token, identity, text, special, ok)

    # --- the SMS wire ---------------------------------------------------------------------------

    async def _send_sms(self, account: Account, body: bytes) -> tuple[int, Any, dict[str, str]] | None:
        try:
            message = json.loads(body)
            phone, text, token = str(message["to"]), str(message["text"]), str(message.get("ref", ""))
        except (ValueError, KeyError, TypeError):
            return 400, {"error": {"code": "sms_bad_text", "message": "unreadable request"}}, {}
        special = _MAGIC.get(phone)
        if special is not None and special.key in ("not_on_whatsapp", "marketing_cap", "paused"):
            return 400, {"error": {"code": special.sms, "message": special.text}}, {}
        if self._throttles(special, token, phone):
            error = {"error": {"code": "sms_throttled", "message": "too fast"}}
            return 429, error, {"Retry-After": str(RETRY_AFTER)}
        identity = secrets.token_hex(12)
        return await self._accept(account, phone, token, identity, text, special, {"id": identity})

    # --- both -----------------------------------------------------------------------------------

    def _throttles(self, special: Special | None, token: str, phone: str) -> bool:
        """The throttled number is refused once, its next try is taken."""
        if special is None or special.key != "throttled":
            return False
        mark = token.partition(".")[0] or phone
        if mark in self._throttled:
            self._throttled.discard(mark)
            return False
        self._throttled.add(mark)
        return True

    async def _accept(
        self, account: Account, phone: str, token: str, identity: str, text: str, special: Special | None, ok: Any
    ) -> tuple[int, Any, dict[str, str]] | None:
        key = special.key if special else ""
        facts = {
            "kind": "accepted",
            "channel": account.key,
            "provider": account.provider,
            "phone": phone,
            "token": token,
            "provider_id": identity,
            "text": text,
            "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
            "plan": _plan(account, key, special),
            "decision": key or "deliver",
        }
        await self.log.append(**facts)
        facts.pop("text")
        self._schedule(account, facts)
        await asyncio.sleep(SLOW if key == "slow" else random.uniform(*self.delays.answer))  # noqa: S311
        if key == "timeout":
            return None
        if key == "error_500":
            return 500, {"message": "internal error"}, {}
        return 200, ok, {}

    # --- callbacks ------------------------------------------------------------------------------

    async def _clockwork(self) -> None:
        while True:
            now = time.monotonic()
            while self._events and self._events[0].due <= now:
                event = heapq.heappop(self._events)
                self._outbox[event.account.key].append(event)
            await asyncio.sleep(0.05)

    async def _deliver(self, account: Account) -> None:
        outbox = self._outbox[account.key]
        wait = 0.5
        while True:
            if not outbox:
                await asyncio.sleep(0.05)
                continue
            batch = [outbox.popleft() for _ in range(min(len(outbox), BATCH if account.waba else 1))]
            path, body, headers = _waba_callback(account, batch) if account.waba else _sms_callback(account, batch[0])
            try:
                status = await asyncio.wait_for(_post(self.callback_base, path, headers, body), 20)
            except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
                status = 0
            if status == 200:
                wait = 0.5
                for event in batch:
                    self.log.note(kind="event", provider_id=event.facts["provider_id"], status=event.status)
            else:
                outbox.extendleft(reversed(batch))
                await asyncio.sleep(wait)
                wait = min(wait * 2, 10.0)


def _plan(account: Account, key: str, special: Special | None) -> list[str]:
    """The callbacks that follow an acceptance."""
    if key in ("not_on_whatsapp", "marketing_cap", "fails_later", "sms_only") and special is not None:
        code = special.waba if account.waba else special.sms
        if code:
            return [f"failed:{code}"]
    plan = ["sent", "delivered"]
    if account.waba and key != "never_read":
        plan.append("read")
    if key == "reply":
        plan.append("reply:Спасибо, подскажите, пожалуйста, часы работы?")
    if key == "stop":
        plan.append("reply:STOP")
    if key == "picture":
        plan.append("reply:Вот, посмотрите")
    return plan


def _wanted(template: Mapping[str, Any]) -> dict[str, int]:
    """How many parameters each part of a template takes."""
    wanted: dict[str, int] = {}
    for component in template["components"]:
        kind = component["type"]
        if kind == "BUTTONS":
            wanted["button"] = sum("{{" in b.get("url", "") or b["type"] in CODES for b in component["buttons"])
        elif kind in ("HEADER", "BODY"):
            variables = set(re.findall(r"\{\{(\w+)\}\}", component.get("text", "")))
            wanted[kind.lower()] = len(variables) or int(component.get("format", "TEXT") != "TEXT")
    return {part: n for part, n in wanted.items() if n}


def _given(components: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    given: dict[str, int] = {}
    for component in components:
        if component.get("sub_type") == "quick_reply":
            continue  # may have a parameter and needs none
        part = str(component.get("type", "")).lower()
        given[part] = given.get(part, 0) + len(component.get("parameters", []))
    return {part: n for part, n in given.items() if n}


def _graph_error(code: int, message: str) -> dict[str, Any]:
    return {
        "error": {
            "message": f"(#{code}) {message}",
            "type": "OAuthException",
            "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": message},
            "fbtrace_id": secrets.token_hex(6),
        }
    }


def _waba_callback(account: Account, batch: Sequence[Event]) -> tuple[str, bytes, dict[str, str]]:
    statuses, messages, contacts = [], [], []
    now = str(int(time.time()))
    for event in batch:
        status, _, argument = event.status.partition(":")
        phone = event.facts["phone"].lstrip("+")
        if status == "reply":
            contacts.append({"profile": {"name": "Sandbox"}, "wa_id": phone})
            messages.append(_reply(event, phone, now, argument))
            continue
        item: dict[str, Any] = {
            "id": event.facts["provider_id"],
            "status": status,
            "timestamp": now,
            "recipient_id": phone,
            "biz_opaque_callback_data": event.facts["token"],
        }
        if status == "failed":
            item["errors"] = [
                {"code": int(argument), "title": "Message undeliverable", "message": "Message undeliverable"}
            ]
        statuses.append(item)
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "79000000000", "phone_number_id": account.settings["phone_number_id"]},
    }
    value.update({k: v for k, v in (("contacts", contacts), ("messages", messages), ("statuses", statuses)) if v})
    entry = {"id": account.settings["waba_id"], "changes": [{"field": "messages", "value": value}]}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
    return f"/hooks/{account.key}", body, {"X-Hub-Signature-256": _signature(account.settings["app_secret"], body)}


def _reply(event: Event, phone: str, now: str, text: str) -> dict[str, Any]:
    """What a person answers: words, or a picture with words below it."""
    mark = hashlib.sha256(event.facts["provider_id"].encode()).hexdigest()[:32]
    said: dict[str, Any] = {"type": "text", "text": {"body": text}}
    if event.facts["decision"] == "picture":
        picture = {"id": _PICTURE + str(int(mark[:12], 16)), "mime_type": "image/png", "caption": text}
        said = {"type": "image", "image": picture}
    context = {"id": event.facts["provider_id"]}
    return {"from": phone, "id": f"wamid.{mark}", "timestamp": now, "context": context, **said}


_PICTURE = "9000"  # how the ids of pictures begin
_SIDE = 240


def _picture(media_id: str) -> bytes:
    """A PNG of two colours, another one for each id."""
    mark = hashlib.sha256(media_id.encode()).digest()
    rows = b"".join(
        b"\0" + b"".join(mark[:3] if (x - 120) ** 2 + (y - 120) ** 2 < 90**2 else mark[3:6] for x in range(_SIDE))
        for y in range(_SIDE)
    )
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _sms_callback(account: Account, event: Event) -> tuple[str, bytes, dict[str, str]]:
    status, _, argument = event.status.partition(":")
    facts: dict[str, Any] = {"id": event.facts["provider_id"], "time": int(time.time())}
    if status == "reply":
        facts["id"] = hashlib.sha256(event.facts["provider_id"].encode()).hexdigest()[:24]
        facts.update({"from": event.facts["phone"], "to": str(account.settings.get("sender", "")), "text": argument})
    else:
        facts.update(ref=event.facts["token"], status="undelivered" if status == "failed" else status)
        if argument:
            facts["code"] = argument
    body = json.dumps(facts, ensure_ascii=False).encode()
    path = f"/hooks/{account.key}/{'inbound' if status == 'reply' else 'status'}"
    return path, body, {"X-Sandbox-Signature": _signature(account.settings["secret"], body)}


def _signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def _post(base: str, path: str, headers: Mapping[str, str], body: bytes) -> int:
    """POST once on a connection of its own; the status of the answer."""
    parts = urlsplit(base)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        lines = [
            f"POST {parts.path}{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        return int((await reader.readline()).split()[1])
    except IndexError:
        return 0
    finally:
        writer.close()


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return method, target, headers


_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
}


def _response(status: int, payload: Any, extra: Mapping[str, str]) -> bytes:
    file = isinstance(payload, bytes)
    body = payload if file else json.dumps(payload, ensure_ascii=False).encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {'image/png' if file else 'application/json'}",
        f"Content-Length: {len(body)}",
        *(f"{k}: {v}" for k, v in extra.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def run_sandbox(
    settings: Settings,
    accounts: Sequence[Mapping[str, Any]],
    callback_base: str,
    *,
    port: int = 0,
    watch_stdin: bool = False,
    ready: Callable[[str], None] | None = None,
) -> int:
    """Run until SIGTERM, SIGINT or (with `watch_stdin`) the end of stdin; the exit code."""
    return asyncio.run(_run(settings, accounts, callback_base, port, watch_stdin, ready))


async def _run(
    settings: Settings,
    accounts: Sequence[Mapping[str, Any]],
    callback_base: str,
    port: int,
    watch_stdin: bool,
    ready: Callable[[str], None] | None,
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Under `serve` a signal to the whole group must not end it before the workers have their answers.
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if watch_stdin else stopping.set)
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if watch_stdin else stopping.set)
    if watch_stdin:
        loop.add_reader(0, stopping.set)  # the end of stdin: serve closed it, or died
    emulator = Emulator(accounts, settings.data / "sandbox.log", callback_base)
    server = await emulator.serve(port)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sandbox_address.publish(settings.data, url)
    if ready is not None:
        ready(url)
    await stopping.wait()
    server.close()
    await emulator.close()
    sandbox_address.withdraw(settings.data, url)
    return 0
