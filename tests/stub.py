"""A provider in a process of its own: it speaks the Cloud API's send call, and its log is the truth.

`python -m tests.stub --log FILE` prints the address it listens on. It decides when it has read a request,
whoever hangs up meanwhile: every message that it accepts stands in the log, synced, before anything is
answered, and every refusal as well. What goes wrong is set by POST /_control:

    {"rules": [{"fault": "accept_500", "share": 0.02}, {"fault": "refuse_429", "after": 100, "count": 1}],
     "delay": [0.02, 0.1], "callbacks": {"url": …, "secret": …, "statuses": ["sent", "delivered"], …},
     "report_all": true}

The first rule that fits a request decides; without one it is accepted. Faults by name:

    accepted, then no proper answer   accept_500 accept_hang accept_reset garbage html empty huge
    accepted and answered, but        slow (seconds) · close_after (seconds): the idle connection is closed
    not accepted                      refuse_401 refuse_429 (retry_after) refuse_500 refuse:CODE redirect
                                      hang reset · close_unread: gone before a byte of the request is read
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# fault → (status of the answer, body)
REFUSALS = {
    "refuse_500": (500, {"error": {"message": "unavailable"}}),
    "refuse_401": (401, {"error": {"code": 190, "message": "Error validating access token"}}),
    "refuse_429": (429, {"error": {"code": 130429, "message": "Rate limit hit"}}),
    "redirect": (302, {}),
}
HUGE = 50 * 1024 * 1024


class Reply(NamedTuple):
    """One answer; `close_after`: seconds until the connection that carried it is closed."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    close_after: float | None = None


class Rule:
    """One fault: for these numbers or this account, for a share of the requests, after so many, so many times."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.fault: str = given["fault"]
        self.given = given
        self.left = int(given.get("count", 10**12))
        self.numbers = set(given.get("numbers", ()))

    def fits(self, account: str, phone: str, seen: int, chance: random.Random) -> bool:
        if self.left <= 0 or seen < int(self.given.get("after", 0)):
            return False
        if account != self.given.get("account", account):
            return False
        if self.numbers and phone not in self.numbers:
            return False
        if chance.random() >= float(self.given.get("share", 1.0)):
            return False
        self.left -= 1
        return True


class Log:
    """One line for each accepted message; those that wait at the same time share one sync."""

    def __init__(self, path: Path, sync: bool) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._sync = sync
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._busy = False

    def note(self, kind: str, **facts: Any) -> None:
        """One more line, written with the next of those that are synced."""
        now = {"mono": round(time.monotonic(), 6), "at": round(time.time(), 6)}
        self._lines.append(json.dumps({"kind": kind, **now, **facts}).encode() + b"\n")

    async def accepted(self, **facts: Any) -> None:
        """A message is taken over; returns when that is on the disk."""
        self.note("accepted", **facts)
        if not self._sync:
            if len(self._lines) >= 500:
                self.flush()
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().create_task(self._run())
        await done

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        os.write(self._file, b"".join(lines))

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            self.flush()
            await asyncio.to_thread(os.fdatasync, self._file)
            for done in waiting:
                if not done.done():
                    done.set_result(None)
        self._busy = False


class Provider:
    """The state of the stub."""

    def __init__(self, log: Log, seed: int) -> None:
        self.log = log
        self.chance = random.Random(seed)
        self.listener: asyncio.Server | None = None
        self.delay = (0.0, 0.0)
        self.rules: list[Rule] = []
        self.callbacks: dict[str, Any] = {}
        self.seen = 0
        self.taken = 0
        self.waiting = 0  # answers that take their time
        self.accepted: list[tuple[str, str, str, str]] = []  # (account, id, token, phone)
        self.injected: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()  # reports
        self._lines: set[asyncio.Task[None]] = set()  # connections
        self._posts = asyncio.Semaphore(32)
        self.answers: Counter[str] = Counter()  # what was answered to callbacks: "200", "forged 403" …

    def control(self, given: dict[str, Any]) -> dict[str, Any]:
        if "rules" in given:
            self.rules = [Rule(rule) for rule in given["rules"]]
            self.seen = 0
        if "delay" in given:
            self.delay = tuple(given["delay"])
        if "callbacks" in given:
            self.callbacks = given["callbacks"]
        if given.get("deaf") and self.listener is not None:
            self.listener.close()  # whoever is connected stays so
        if given.get("report_all"):
            for one in self.accepted:
                self._report(*one)
        return {
            "taken": self.taken,
            "seen": self.seen,
            "injected": dict(self.injected),
            "waiting": self.waiting,
            "callbacks_open": len(self._tasks),
            "callback_answers": dict(self.answers),
        }

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to the task of a connection for as long as it runs."""
        self._lines.add(task)
        task.add_done_callback(self._lines.discard)

    def drops_connection(self) -> bool:
        """Whether this new connection is closed before anything is read from it."""
        for rule in self.rules:
            if rule.fault == "close_unread" and rule.fits("", "", self.seen, self.chance):
                self.injected[rule.fault] += 1
                return True
        return False

    async def send(self, account: str, body: bytes) -> Reply | None:
        """The answer to one send call of a sending account; None: the connection breaks without one."""
        given = json.loads(body)
        phone, token = given["to"], given.get("biz_opaque_callback_data", "")
        self.seen += 1
        sending = (rule for rule in self.rules if rule.fault != "close_unread")
        rule = next((r for r in sending if r.fits(account, phone, self.seen, self.chance)), None)
        fault = rule.fault if rule else ""
        if rule is not None:
            self.injected[fault] += 1
        facts = {"account": account, "phone": phone, "token": token, "fault": fault}
        answer = self._refusal(fault, rule)
        if answer is not None or fault in ("hang", "reset"):
            self.log.note("refused", **facts)
            self.log.flush()
            await self._take_time()
            if fault == "hang":
                await asyncio.sleep(3_600)
            return answer
        identity = f"wamid.{self.taken}.{token}"
        self.taken += 1
        self.accepted.append((account, identity, token, phone))
        early = bool(self.callbacks.get("before_answer"))
        reports = self._report(account, identity, token, phone) if early else None
        await self.log.accepted(**facts, id=identity, text=_said(given))
        if self.callbacks and not early:
            self._report(account, identity, token, phone)
        await self._take_time()
        if reports is not None:
            await reports  # all that will ever be reported was on its way before the answer
        return await self._answer(identity, fault, rule)

    async def _take_time(self) -> None:
        low, high = self.delay
        if high:
            self.waiting += 1
            await asyncio.sleep(self.chance.uniform(low, high))
            self.waiting -= 1

    def _refusal(self, fault: str, rule: Rule | None) -> Reply | None:
        if fault in REFUSALS:
            status, answer = REFUSALS[fault]
            extra = {"Retry-After": str(rule.given.get("retry_after", 1))} if fault == "refuse_429" and rule else {}
            extra |= {"Location": "http://127.0.0.1:9/elsewhere"} if fault == "redirect" else {}
            return Reply(status, json.dumps(answer).encode(), extra)
        if fault.startswith("refuse:"):
            code = int(fault.partition(":")[2])
            return Reply(400, json.dumps({"error": {"code": code, "message": f"refused with {code}"}}).encode())
        return None

    async def _answer(self, identity: str, fault: str, rule: Rule | None) -> Reply | None:
        good = json.dumps({"messaging_product": "whatsapp", "messages": [{"id": identity}]}).encode()
        if fault == "accept_500":
            return Reply(500, b'{"error": {"message": "internal"}}')
        if fault == "accept_hang":
            await asyncio.sleep(3_600)
        if fault in ("accept_hang", "accept_reset"):
            return None
        if fault == "slow" and rule is not None:
            await asyncio.sleep(float(rule.given.get("seconds", 1.5)))
        if fault == "huge":
            return Reply(200, b" " * HUGE)
        bodies = {"garbage": good[: len(good) // 2], "html": b"<html>ok</html>", "empty": b""}
        close = float(rule.given.get("seconds", 0.0)) if fault == "close_after" and rule is not None else None
        return Reply(200, bodies.get(fault, good), close_after=close)

    def _report(self, account: str, identity: str, token: str, phone: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._deliver(account, identity, token, phone))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _deliver(self, account: str, identity: str, token: str, phone: str) -> None:
        """The delivery reports of one message: each repeated, in disorder, late, forged, among strangers' if so wished."""
        plan = self.callbacks
        statuses = [s for s in plan.get("statuses", ("sent", "delivered")) for _ in range(plan.get("repeat", 1))]
        if plan.get("shuffle"):
            self.chance.shuffle(statuses)
        now = int(time.time())
        for status in statuses:
            low, high = plan.get("delay", (0.0, 0.05))
            await asyncio.sleep(self.chance.uniform(low, high))
            item = _status(identity, status, now + TIMES[status], phone, token)
            if plan.get("forged"):
                # What an attacker would like to have believed, under a signature of their own.
                forged = [_status(identity, "failed", now, phone, token)]
                await self._post(account, forged, "no secret of ours", once=True)
            strangers = [
                _status(f"wamid.stranger.{n}.{identity}", status, now, phone, "")
                for n in range(plan.get("strangers", 0))
            ]
            await self._post(account, [*strangers[::2], item, *strangers[1::2]], plan["secret"])

    async def _post(self, account: str, items: list[dict[str, Any]], secret: str, once: bool = False) -> None:
        value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": account}, "statuses": items}
        entry = [{"id": "2001", "changes": [{"field": "messages", "value": value}]}]
        body = json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()
        sign = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        for pause in (0.2, 0.5, 1, 2, 4, 8, 8, 8, 8, 8):  # until it is taken, as the vendor does for days
            async with self._posts:
                answer = await self._once(body, sign)
            self.answers[f"forged {answer}" if once else str(answer)] += 1
            if answer == 200 or (once and answer):
                return
            await asyncio.sleep(pause)

    async def _once(self, body: bytes, sign: str) -> int:
        parts = urlsplit(self.callbacks["url"])
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, parts.port), 5)
        except (OSError, TimeoutError):
            return 0
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"X-Hub-Signature-256: sha256={sign}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), 20)
            return int(line.split()[1])
        except (OSError, TimeoutError, IndexError, ValueError):
            return 0
        finally:
            writer.close()


TIMES = {"sent": 0, "delivered": 1, "read": 2, "failed": 1}  # seconds after the acceptance, by the provider's clock


def _said(given: Mapping[str, Any]) -> str:
    """What the person will read, as far as it differs from person to person."""
    if "text" in given:
        return str(given["text"]["body"])
    parts = [part for component in given["template"].get("components", ()) for part in component["parameters"]]
    return "|".join(str(part.get("text")) for part in parts)


def _status(identity: str, status: str, at: int, phone: str, token: str) -> dict[str, Any]:
    """One delivery report as it stands on the wire."""
    item: dict[str, Any] = {"id": identity, "status": status, "timestamp": str(at), "recipient_id": phone[1:]}
    if token:
        item["biz_opaque_callback_data"] = token
    if status == "failed":
        item["errors"] = [{"code": 131026, "title": "undeliverable"}]
    return item


class Connection(asyncio.Protocol):
    """HTTP/1.1, just enough of it and quick: one request after another on a kept-alive connection."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._have = b""
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self.provider.drops_connection():
            transport.abort()
            return
        self.provider.keep(asyncio.get_running_loop().create_task(self._run()))

    def connection_lost(self, _error: Exception | None) -> None:
        self._queue.put_nowait(("", b""))  # what was read before is still decided on

    def data_received(self, data: bytes) -> None:
        self._have += data
        while (end := self._have.find(b"\r\n\r\n")) >= 0:
            lines = self._have[:end].decode("latin-1").split("\r\n")
            pairs = (line.partition(":")[::2] for line in lines[1:])
            headers = {name.lower(): value.strip() for name, value in pairs}
            length = int(headers.get("content-length", "0"))
            if len(self._have) < end + 4 + length:
                return
            body = self._have[end + 4 : end + 4 + length]
            self._have = self._have[end + 4 + length :]
            self._queue.put_nowait((lines[0], body))

    async def _run(self) -> None:
        while True:
            line, body = await self._queue.get()
            if not line:
                return
            answer = await self._reply(line, body)
            if self._transport.is_closing():
                continue
            if answer is None:
                self._transport.abort()
                return
            more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            head = (
                f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(answer.body)}\r\n{more}\r\n"
            )
            self._transport.write(head.encode() + answer.body)
            if answer.close_after is not None:
                asyncio.get_running_loop().call_later(answer.close_after, self._transport.close)

    async def _reply(self, line: str, body: bytes) -> Reply | None:
        method, target, _version = line.split(" ", 2)
        if target == "/_control":
            return Reply(200, json.dumps(self.provider.control(json.loads(body or b"{}"))).encode())
        if method == "POST":
            return await self.provider.send(target.split("/")[-2], body)
        return Reply(200, json.dumps({"data": []}).encode())


async def serve(arguments: argparse.Namespace) -> None:
    log = Log(Path(arguments.log), not arguments.no_sync)
    provider = Provider(log, arguments.seed)
    context = None
    if arguments.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(provider), arguments.address, arguments.port, ssl=context, backlog=512
    )
    provider.listener = server
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = loop.create_task(_parent_gone(stop))
    await stop.wait()
    parent.cancel()
    log.flush()
    server.close()
    os._exit(0)


async def _parent_gone(stop: asyncio.Event) -> None:
    """A stub whose test died ends by itself."""
    first = os.getppid()
    while os.getppid() == first:
        await asyncio.sleep(1)
    stop.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sync", action="store_true")
    parser.add_argument("--certificate", default="")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
