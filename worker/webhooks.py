"""Webhooks: other people's programs are told what happens here, in order, at least once.

Nothing is written for them where messages are sent or reports applied. Four tables that only grow (what providers
reported, failed tries, replies, the few other events) are read by the last id that was told of each. What is being
told is fixed in the webhook's row before it leaves, so that a repeat after a crash has the same event id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from worker import audit, broadcasts, channel_settings, clock, db, events, vault
from worker.models import Broadcast, Webhook, WebhookDelivery
from worker.problems import Invalid, Problem
from worker.providers.adapter import Timeouts
from worker.providers.base import SendError
from worker.providers.egress import Egress
from worker.providers.http import HttpClient
from worker.settings import Settings

log = logging.getLogger("molva.webhooks")

STATUS, INBOUND, TEST = "message.status", "message.inbound", "test"
EVENTS = (events.FINISHED, events.STOPPED, STATUS, INBOUND)
TABLES = ("event", "attempt", "delivery_report", "inbound")
MOST = 20  # webhooks
URL_MAX = 1_000
BATCH = 1_000  # rows that one event speaks of at the most
# Seconds after which a row is told. By then every row with a lower id is committed, and what came within them goes
# together.
SETTLED = 2.0
TIMEOUTS = Timeouts(connect=5.0, read=10.0, total=10.0, start=10.0, idle=30.0)
LEASE = 60 * clock.SECOND
BACKOFF = (5, 15, 60, 300, 900, 1800, 3600)  # seconds
GIVE_UP = clock.DAY  # of failures without one success
LIFE = 7 * clock.DAY  # older facts are not told, older lines of the log not kept
LOG_MAX = 1_000  # lines of the log of one webhook
PERSON, RESTORED, LOCKED, GONE = "person", "restored", "credentials_locked", 410


class Pending(NamedTuple):
    """An event on its way, and the rows that it speaks of: those of `table` after `above`, up to `upto`."""

    id: str
    event: str
    table: str
    above: int
    upto: int
    at: int


class Outcome(NamedTuple):
    """What became of one try. `cause`: why it failed, None when it was taken."""

    http_status: int | None
    cause: str | None
    took: int = 0


# --- what people set up -----------------------------------------------------------------------------


def all_of_them() -> list[Webhook]:
    return list(Webhook.select().order_by(Webhook.id).limit(MOST))


def add(settings: Settings, given: Mapping[str, Any], actor: str) -> tuple[Webhook, str]:
    """Make a webhook; it is told what happens from now on. With its secret, for the only time. Raises Invalid."""
    columns = _cleaned(settings, {"url": None, "events": None, **given})
    secret = "whsec_" + secrets.token_urlsafe(32)
    with db.write():
        if Webhook.select().count() >= MOST:
            raise Invalid({"url": Problem("too_many", {"max": MOST})})
        made = Webhook.create(
            **columns,
            secret=vault.seal(settings, {"secret": secret}),
            positions=heads(),
            created_by=actor,
            created_at=clock.now(),
        )
        audit.record(actor, "webhook.add", host_of(made.url))
    return made, secret


def change(settings: Settings, row: Webhook, given: Mapping[str, Any], actor: str) -> Webhook:
    """Change address or events, or switch it (`state`: on, stopped). It goes on where it stopped. Raises Invalid."""
    columns = _cleaned(settings, given)
    state = given.get("state")
    if state not in (None, "on", "stopped"):
        raise Invalid({"state": Problem("not_a_choice")})
    if state == "on":
        columns |= {"state": "on", "stop_reason": None, "tries": 0, "failing_since": None, "next_at": 0}
    elif state == "stopped":
        columns |= {"state": "stopped", "stop_reason": PERSON}
    with db.write():
        if columns:
            Webhook.update(columns).where(Webhook.id == row.id).execute()
            audit.record(actor, "webhook.change", host_of(row.url), fields=sorted(columns))
    return Webhook.get_by_id(row.id)


def remove(row: Webhook, actor: str) -> None:
    """Forget a webhook with its log."""
    with db.write():
        Webhook.delete().where(Webhook.id == row.id).execute()
        WebhookDelivery.delete().where(WebhookDelivery.webhook_id == row.id).execute()
        audit.record(actor, "webhook.delete", host_of(row.url))


def _cleaned(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for the given address and events. Raises Invalid with every problem."""
    columns: dict[str, Any] = {}
    problems: dict[str, Problem] = {}
    if "url" in given:
        url = given["url"].strip() if isinstance(given["url"], str) else ""
        columns["url"] = url
        found = _url_problem(settings, url)
        if found is not None:
            problems["url"] = found
    if "events" in given:
        wanted = given["events"]
        if not isinstance(wanted, list) or not wanted or not all(one in EVENTS for one in wanted):
            problems["events"] = Problem("not_a_choice")
        else:
            columns["events"] = [one for one in EVENTS if one in wanted]
    if problems:
        raise Invalid(problems)
    return columns


def host_of(url: str) -> str:
    """What may be shown of an address: the rest of it may hold a key."""
    return urlsplit(url).hostname or ""


def _url_problem(settings: Settings, url: str) -> Problem | None:
    if not url or len(url) > URL_MAX or not url.isprintable():
        return Problem("url_invalid")
    found = channel_settings.url_problem(url)
    if found is not None:
        return found
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme != "https" and not Egress(settings.allowed_private_hosts).lists(host, port):
        return Problem("url_insecure")
    return channel_settings.reach_problem(settings, host, port)


# --- what there is to tell --------------------------------------------------------------------------


def heads() -> dict[str, int]:
    """The last id of every table that is read."""
    return {table: int(db.value(f"SELECT MAX(id) FROM {table}") or 0) for table in TABLES}  # noqa: S608


class _Rows(NamedTuple):
    """A look at one table: how far it went, and the kind and subjects of what is to be told."""

    upto: int
    event: str
    subjects: list[int]


def _look(table: str, above: int, upto: int, events_: Iterable[str]) -> _Rows:
    """The next thing that a table has to tell somebody who wants these events; no subjects: nothing so far."""
    found = db.rows(_NEXT[table], [above, upto, BATCH])
    if not found:
        return _Rows(upto, "", [])
    since = clock.now() - LIFE
    rows = [(id_, _KIND.get(kind, kind), subject if at >= since else None) for id_, kind, subject, at in found]
    # An event speaks of one kind of thing, and one broadcast at a time.
    first = next((row for row in rows if row[2] is not None and row[1] in events_), None)
    if first is None:
        return _Rows(rows[-1][0], "", [])
    if first[1] in events.OF_ACTION.values():
        return _Rows(first[0], first[1], [first[0]])
    together = []
    for row in rows:
        if row[1] in events.OF_ACTION.values() and row[1] in events_ and row[2] is not None:
            break
        together.append(row)
    subjects = [subject for _id, kind, subject in together if subject is not None and kind == first[1]]
    return _Rows(together[-1][0], first[1], list(dict.fromkeys(subjects)))


_KIND = {events.MESSAGE: STATUS}
_NEXT = {
    "event": "SELECT id, kind, subject_id, at FROM event WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
    "attempt": (
        "SELECT id, 'message.status', CASE WHEN outcome IN ('rejected', 'lost') THEN message_id END, at FROM attempt"
        " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    ),
    "delivery_report": (
        "SELECT id, 'message.status', CASE WHEN effect = 'moved' THEN message_id END, received_at FROM delivery_report"
        " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    ),
    "inbound": (
        "SELECT id, 'message.inbound', id, received_at FROM inbound WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    ),
}


def _next(row: Webhook, known: Mapping[str, int]) -> tuple[dict[str, int], Pending | None]:
    """How far a webhook has got once what it does not want is passed over, and the next event for it."""
    positions = {table: int(row.positions.get(table, 0)) for table in TABLES}
    ends = heads()
    for table in TABLES:
        # Where the last rows were deleted, ids are given out again.
        positions[table] = min(positions[table], ends[table])
        while positions[table] < known[table]:
            above = positions[table]
            found = _look(table, above, known[table], row.events)
            if found.subjects:
                id_ = "evt_" + secrets.token_hex(12)
                return positions, Pending(id_, found.event, table, above, found.upto, clock.now())
            positions[table] = found.upto
    return positions, None


def body_of(pending: Pending) -> tuple[bytes, int]:
    """The text of an event, and of how many things it speaks; none when they are gone by now."""
    if pending.event == TEST:
        return _body(pending, {}), 1
    found = _look(pending.table, pending.above, pending.upto, [pending.event])
    if pending.event == INBOUND:
        items = _inbound(found.subjects)
    elif pending.event == STATUS:
        items = _messages(found.subjects)
    else:
        items = _broadcasts(found.subjects)
        return _body(pending, {"broadcast": items[0] if items else None}), len(items)
    return _body(pending, {"messages": items}), len(items)


def _body(pending: Pending, data: Mapping[str, Any]) -> bytes:
    facts = {"id": pending.id, "type": pending.event, "at": clock.iso(pending.at), "data": data}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def _marks(values: list[int]) -> str:
    return ",".join("?" * len(values))


def _messages(ids: list[int]) -> list[dict[str, Any]]:
    """The messages as they are now."""
    names = ("id", "broadcast_id", "run", "file_id", "line", "phone", "status", "cause", "provider_id")
    times = ("sent_at", "delivered_at", "read_at", "undelivered_at")
    columns = ", ".join(f"m.{name}" for name in (*names, *times))
    rows = db.rows(
        f"SELECT {columns}, b.kind FROM message m JOIN broadcast b ON b.id = m.broadcast_id"  # noqa: S608
        f" WHERE m.id IN ({_marks(ids)}) ORDER BY m.id",
        ids,
    )
    items = []
    for *values, kind in rows:
        item = dict(zip((*names, *times), values, strict=True))
        item |= {name: clock.iso(item[name]) for name in times}
        # Answers and tests belong to no list that anybody knows of.
        items.append(item if kind == "list" else {**item, "broadcast_id": None, "file_id": None, "line": None})
    return items


def _inbound(ids: list[int]) -> list[dict[str, Any]]:
    names = ["id", "channel_id", "conversation_id", "phone", "name", "kind", "text", "provider_id", "broadcast_id"]
    names.append("message_id")
    rows = db.rows(
        f"SELECT {', '.join(names)}, at FROM inbound WHERE id IN ({_marks(ids)}) ORDER BY id",  # noqa: S608
        ids,
    )
    return [{**dict(zip(names, values, strict=True)), "at": clock.iso(at)} for *values, at in rows]


def _broadcasts(ids: list[int]) -> list[dict[str, Any]]:
    """The one broadcast of an event, with the numbers of that run as they are now."""
    rows = db.rows(
        "SELECT b.id, b.name, e.run, e.reason, e.at FROM event e JOIN broadcast b ON b.id = e.subject_id"  # noqa: S608
        f" WHERE e.id IN ({_marks(ids)})",
        ids,
    )
    return [
        {
            "id": id_,
            "name": name,
            "run": run,
            "stop_reason": reason,
            "at": clock.iso(at),
            "counters": broadcasts.count(Broadcast(id=id_), run),
        }
        for id_, name, run, reason, at in rows
    ]


# --- telling it -------------------------------------------------------------------------------------


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What the receiver compares: HMAC-SHA256 over `timestamp.body`, in hex."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def client_of(settings: Settings) -> HttpClient:
    """Connections to public addresses, or those that the server's configuration names."""
    return HttpClient(allowed_hosts=settings.allowed_private_hosts, timeouts=TIMEOUTS)


def _post(settings: Settings, client: HttpClient, row: Webhook, pending: Pending, body: bytes) -> Outcome:
    began = clock.monotonic()
    status, cause = None, None
    timestamp = str(clock.now() // clock.SECOND)
    try:
        secret = vault.unseal(settings, row.secret)["secret"]
        headers = {
            "Content-Type": "application/json",
            "Molva-Event": pending.id,
            "Molva-Timestamp": timestamp,
            "Molva-Signature": "v1=" + signature(secret, timestamp, body),
        }
        status = client.request("POST", row.url, headers, body).status
        cause = None if 200 <= status < 300 else f"http_{status}"
    except SendError as error:
        cause = error.cause
    except vault.VaultError:
        cause = LOCKED
    return Outcome(status, cause, round((clock.monotonic() - began) * 1000))


def test(settings: Settings, row: Webhook) -> Outcome:
    """Send an event that means nothing, at once; its result stands in the log and changes nothing else."""
    pending = Pending("evt_" + secrets.token_hex(12), TEST, "", 0, 0, clock.now())
    client = client_of(settings)
    try:
        outcome = _post(settings, client, row, pending, body_of(pending)[0])
    finally:
        client.close()
    with db.write():
        _note(row.id, pending, 1, outcome)
    return outcome


def _note(webhook_id: int, pending: Pending, items: int, outcome: Outcome) -> None:
    db.execute(
        "INSERT INTO webhook_delivery (webhook_id, event_id, event, items, at, took, http_status, cause)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [webhook_id, pending.id, pending.event, items, clock.now(), outcome.took, outcome.http_status, outcome.cause],
    )


def deliver(settings: Settings, client: HttpClient, webhook_id: int, known: Mapping[str, int]) -> bool:
    """Tell one webhook one thing; whether there may be more at once. `known`: how far the tables may be read."""
    row = Webhook.get_or_none(Webhook.id == webhook_id)
    now = clock.now()
    if row is None or row.state != "on" or max(row.busy_until, row.next_at) > now:
        return False
    positions, pending = row.positions, Pending(**row.pending) if row.pending else None
    if pending is None:
        positions, pending = _next(row, known)
        if pending is None and positions == row.positions:
            return False
    if not _claim(row, positions, pending, now):
        return False
    if pending is None:
        return False
    body, items = body_of(pending)
    outcome = _post(settings, client, row, pending, body) if items else Outcome(None, None)
    with db.write():
        if items:
            _note(row.id, pending, items, outcome)
        if outcome.cause is None:
            _taken(row.id, {**positions, pending.table: pending.upto})
        else:
            _failed(row, outcome)
    return outcome.cause is None


def _claim(row: Webhook, positions: Mapping[str, int], pending: Pending | None, now: int) -> bool:
    """Keep others from telling the same; False when somebody has been here since `row` was read."""
    busy = now + LEASE if pending else 0
    same = (Webhook.id == row.id) & (Webhook.state == "on") & (Webhook.busy_until == row.busy_until)
    same &= (Webhook.positions == row.positions) & (Webhook.next_at == row.next_at)
    with db.write():
        changed = (
            Webhook.update(positions=positions, pending=pending._asdict() if pending else None, busy_until=busy)
            .where(same)
            .execute()
        )
    return bool(changed == 1)


def _taken(webhook_id: int, positions: Mapping[str, int]) -> None:
    fresh = {"positions": positions, "pending": None, "tries": 0, "failing_since": None, "next_at": 0}
    Webhook.update(**fresh, busy_until=0, last_at=clock.now()).where(Webhook.id == webhook_id).execute()


def _failed(row: Webhook, outcome: Outcome) -> None:
    """Try again later; after a day of failures, or when the address is gone for good, a person has to look."""
    now = clock.now()
    since = row.failing_since or now
    columns: dict[str, Any] = {
        "tries": row.tries + 1,
        "failing_since": since,
        "next_at": now + BACKOFF[min(row.tries, len(BACKOFF) - 1)] * clock.SECOND,
        "busy_until": 0,
    }
    Webhook.update(columns).where(Webhook.id == row.id).execute()
    if outcome.http_status == GONE or now - since >= GIVE_UP:
        log.error("webhook %d is switched off after failures: %s", row.id, outcome.cause)
        stop = {"state": "stopped", "stop_reason": outcome.cause}
        Webhook.update(stop).where((Webhook.id == row.id) & (Webhook.state == "on")).execute()


class Courier:
    """Tells the webhooks from one worker process: each in a thread of its own, so that none waits for another."""

    def __init__(self, settings: Settings, is_over: Callable[[], bool]) -> None:
        self._settings = settings
        self._is_over = is_over
        self._client = client_of(settings)
        self._seen: deque[tuple[float, dict[str, int]]] = deque()
        self._threads: dict[int, threading.Thread] = {}

    def step(self) -> None:
        """Begin to tell whoever is to be told something. Called every second."""
        due = db.rows("SELECT id, pending, positions FROM webhook WHERE state = 'on' AND next_at <= ?", [clock.now()])
        if not due:
            self._seen.clear()
            return
        known = self._settled()
        for id_, pending, positions in due:
            busy = id_ in self._threads and self._threads[id_].is_alive()
            if known is None or busy or not (pending or self._is_behind(json.loads(positions), known)):
                continue
            thread = threading.Thread(target=self._tell, args=(id_, known), name=f"webhook-{id_}", daemon=True)
            self._threads[id_] = thread
            thread.start()

    def close(self) -> None:
        self._client.close()

    def _settled(self) -> dict[str, int] | None:
        """How far the tables had grown SETTLED seconds ago; None before anybody knows."""
        now = clock.monotonic()
        self._seen.append((now, heads()))
        while len(self._seen) > 1 and self._seen[1][0] <= now - SETTLED:
            self._seen.popleft()
        at, known = self._seen[0]
        return known if at <= now - SETTLED else None

    def _is_behind(self, positions: Mapping[str, int], known: Mapping[str, int]) -> bool:
        """Whether there is something to read, or a position that no row has any more."""
        ends = self._seen[-1][1]
        return any(positions.get(t, 0) < known[t] or positions.get(t, 0) > ends[t] for t in TABLES)

    def _tell(self, webhook_id: int, known: Mapping[str, int]) -> None:
        try:
            with db.connection():
                while not self._is_over() and deliver(self._settings, self._client, webhook_id, known):
                    pass
        except Exception as error:
            log.error("webhook %d: %s", webhook_id, type(error).__name__, exc_info=db.trouble(error) is None)


# --- the log ----------------------------------------------------------------------------------------


def deliveries(webhook_id: int, before: int | None = None, limit: int = 50) -> list[WebhookDelivery]:
    """The latest tries with ids below `before`, latest first."""
    which = (WebhookDelivery.webhook_id == webhook_id) & (WebhookDelivery.id < (before or 2**62))
    return list(WebhookDelivery.select().where(which).order_by(WebhookDelivery.id.desc()).limit(limit))


def forget() -> None:
    """Delete what is older than a week, and what is too much of the log."""
    if not db.value("SELECT 1 FROM event UNION ALL SELECT 1 FROM webhook_delivery LIMIT 1"):
        return
    since = clock.now() - LIFE
    with db.write():
        # The newest row stays: its id must not be given to another one.
        db.execute("DELETE FROM event WHERE at < ? AND id < (SELECT MAX(id) FROM event)", [since])
        db.execute("DELETE FROM webhook_delivery WHERE at < ?", [since])
        for (webhook_id,) in db.rows("SELECT id FROM webhook"):
            oldest = db.value(
                "SELECT MIN(id) FROM (SELECT id FROM webhook_delivery WHERE webhook_id = ? ORDER BY id DESC LIMIT ?) l",
                [webhook_id, LOG_MAX],
            )
            if oldest is not None:
                db.execute("DELETE FROM webhook_delivery WHERE webhook_id = ? AND id < ?", [webhook_id, oldest])


def stop_all(reason: str) -> int:
    """Switch every webhook off, inside the caller's transaction; how many."""
    changed = Webhook.update(state="stopped", stop_reason=reason).where(Webhook.state == "on").execute()
    return int(changed)


def reseal(settings: Settings) -> list[str]:
    """Seal every secret with the newest key, in one transaction; the hosts of those that no key opens."""
    locked = []
    with db.connection(), db.write():
        for row in all_of_them():
            try:
                fresh = vault.sealed_anew(settings, row.secret)
            except vault.VaultError:
                locked.append(host_of(row.url))
                continue
            Webhook.update(secret=fresh).where(Webhook.id == row.id).execute()
    return locked
