"""The JSON shapes of the API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from webapp import auth, figures, filters, sentences, sheet, words
from worker import (
    broadcasts,
    channel_health,
    channels,
    clock,
    direct,
    inbox,
    optouts,
    recipients,
    rendering,
    reports,
    statistics,
    talk,
    watchdog,
    webhooks,
)
from worker.models import (
    Attachment,
    Broadcast,
    Channel,
    Conversation,
    MessageTemplate,
    OptOut,
    RecipientFile,
    User,
    Webhook,
    WebhookDelivery,
)
from worker.preflight import Sheet
from worker.preview import Preview
from worker.providers import PROVIDERS
from worker.providers.base import CallbackAddresses, Finding
from worker.settings import Settings
from worker.states import allowed

SHOWN_ERRORS = 50
_ADDRESS = re.compile(r"\s*(https?://)(?:[^/?#]*@)?([^/?#]*)", re.IGNORECASE)


def channel(settings: Settings, row: Channel, whole: bool = True) -> dict[str, Any]:
    """`whole`: with the callback addresses, which whoever knows them could write to, and with every setting."""
    where = channels.pasted(settings, row) if whole else CallbackAddresses()
    health = channel_health.of(row)
    return {
        "id": row.id,
        "kind": row.kind,
        "provider": row.provider,
        "name": row.name,
        "state": row.state,
        "stop": sentences.channel_stop(row.stop_reason, row.stop_detail),
        "settings": row.settings if whole else _plain_settings(row),
        "secrets": [f.name for f in PROVIDERS[row.provider].fields if f.secret],
        "per_second": row.per_second,
        "per_day": row.per_day,
        "price": row.price,
        "currency": row.currency,
        "webhook_url": where.webhook or None,
        **({"status_url": where.status or None, "inbound_url": where.inbound or None} if row.kind == "sms" else {}),
        "not_responding_since": clock.iso(health.open_since),
        "slow_until": clock.iso(health.slow_until),
        "last_sent_at": clock.iso(health.sent_at),
        "last_callback_at": clock.iso(health.callback_at),
        "sent_last_24h": health.day,
        "vendor_limit": row.vendor_limit,
        "quality": row.quality,
        "templates_synced_at": clock.iso(row.templates_synced_at),
        "created_at": clock.iso(row.created_at),
    }


def _plain_settings(row: Channel) -> dict[str, Any]:
    """The settings that everybody fills in. In the others (headers, fields, the rest of an address) a key may have
    been pasted that is no secret by its name."""
    open_ = {f.name for f in PROVIDERS[row.provider].fields if not (f.group or f.secret or f.kind == "lines")}
    return {name: _host(value) for name, value in row.settings.items() if name in open_}


def _host(value: Any) -> Any:
    """An address as far as its host; any other value as it is."""
    found = _ADDRESS.match(value) if isinstance(value, str) else None
    return found[1] + found[2] if found else value


def findings(found: Sequence[Finding]) -> dict[str, Any]:
    """What a check of the connection found; `ok` unless one of it is an error."""
    items = [{**asdict(f), "message": sentences.finding(f.code, f.detail)} for f in found]
    return {"ok": all(f.level != "error" for f in found), "findings": items}


def provider(key: str) -> dict[str, Any]:
    found = PROVIDERS[key]
    return {
        "key": key,
        "kind": found.kind,
        "label": found.label,
        "about": str(words.PROVIDER_HINTS.get(key, "")),
        "supports": sorted(found.supports),
        "pace": found.pace,
        "fields": [
            {
                **{"name": f.name, "kind": f.kind, "required": f.required, "default": f.default},
                **{"choices": list(f.choices), "group": f.group, "secret": f.secret},
                **{"label": str(words.setting_label(f.name)), "hint": words.setting_hint(f.name)},
            }
            for f in found.fields
        ],
    }


def template(row: MessageTemplate) -> dict[str, Any]:
    slots = rendering.slots(row.components, row.parameter_format)
    return {
        "id": row.id,
        "name": row.name,
        "language": row.language,
        "status": row.status,
        "category": row.category,
        "parameter_format": row.parameter_format,
        "components": row.components,
        "slots": [
            {"id": s.id, "part": s.part, "kind": s.kind, "example": s.example, "required": s.required} for s in slots
        ],
        "unsupported": rendering.unsupported(row.components),
    }


def file(row: RecipientFile, errors: bool = True) -> dict[str, Any]:
    whole = auth.me().can("sender")  # rows of the file may hold numbers in any form
    shape: dict[str, Any] = {
        "id": row.id,
        "role": row.role,
        "name": row.name,
        "size": row.size,
        "state": row.state,
        "rows": row.rows,
        "accepted": row.accepted,
        "rejected": row.rejected,
        "encoding": row.encoding,
        "delimiter": row.delimiter,
        "phone_column": row.phone_column,
        "columns": row.columns,
        "unused": row.unused,
        "repairs": row.repairs if whole else {},
        "sample": row.sample if whole else [],
        "code": row.code,
        "message": sentences.file_code(row.code, row.detail) if row.code else None,
        "progress": round(min(1.0, row.done / row.size), 3) if row.size else 1.0,
        "removed_at": clock.iso(row.removed_at),
        "created_at": clock.iso(row.created_at),
    }
    if errors:
        shape["errors"] = [
            {
                "line": e.line,
                "column": e.column,
                "code": e.code,
                "value": e.value if whole else None,
                "message": sentences.row_reason(e.code, e.line, e.value if whole else "•••", e.column, e.other),
            }
            for e in recipients.errors(row.id, 0, SHOWN_ERRORS)
        ]
    return shape


def broadcast(row: Broadcast, run: int | None = -1) -> dict[str, Any]:
    """`run`: -1 the current one, None all of them, else its number."""
    number = row.run if run == -1 else run
    numbers = broadcasts.count(row, number)
    begun = reports.run_of(row, row.run)
    detail = row.stop_detail or {}
    why = watchdog.why(row)
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "stop_reason": row.stop_reason,
        "stop": sentences.cause(detail.get("cause"), detail.get("text")),
        "stop_text": sentences.stop_reason(row.stop_reason, row.stop_detail) or None,
        "waiting": why["code"] if why else None,
        "waiting_text": sentences.waiting(why) or None,
        "waiting_advice": sentences.waiting_advice(why) or None,
        "waiting_until": clock.iso(why.get("until")) if why else None,
        "run": row.run,
        "channel_id": row.channel_id,
        "text": row.text,
        "template": {"name": row.template_name, "language": row.template_language} if row.template_name else None,
        "variables": row.variables,
        "region": row.region,
        "ignore_duplicates": row.ignore_duplicates,
        "on_file_delete": row.on_file_delete,
        "rate_per_minute": row.rate_per_minute,
        "speed": row.speed,
        "quiet_hours": broadcasts.quiet_hours(row),
        "cooldown_days": row.cooldown_days,
        "canary": row.canary,
        "send_at": clock.iso(row.send_at),
        "late_text": sentences.late_start(row.send_at, begun.started_at if begun else None) or None,
        "timezone": row.timezone,
        "eta": clock.iso(broadcasts.eta(row, numbers)),
        "counters": numbers,
        "files": [file(f, False) for f in broadcasts.live_files(row)],
        "approval": _approval(row),
        "completed": broadcasts.is_completed(row, numbers, begun.finished_at if begun else None),
        "allowed_actions": allowed(row.state),
        "created_at": clock.iso(row.created_at),
        "last_sent_at": clock.iso(row.last_sent_at),
    }


def _approval(row: Broadcast) -> dict[str, Any] | None:
    """None while the team wants no second person."""
    found = broadcasts.approval(row)
    return found and {"needed": found.waits, "by": row.approved_by, "at": clock.iso(row.approved_at)}


def phone(number: str) -> str:
    """A number as whoever asks may see it."""
    return number if auth.me().can("sender") else filters.masked(number)


def message(row: reports.Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "phone": phone(row.phone),
        "status": row.status,
        "cause": sentences.cause(row.cause, row.cause_text),
        "provider_id": row.provider_id if auth.me().can("sender") else None,  # that of WhatsApp holds the number
        "line": row.line,
        "file_id": row.file_id,
        "run": row.run,
        "sent_at": clock.iso(row.sent_at),
        "delivered_at": clock.iso(row.delivered_at),
        "read_at": clock.iso(row.read_at),
        "undelivered_at": clock.iso(row.undelivered_at),
    }


def webhook(row: Webhook) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events,
        "state": row.state,
        "stop_reason": row.stop_reason,
        "stop_text": sentences.webhook_failure(row.stop_reason) or None,
        "failing_since": clock.iso(row.failing_since),
        "next_at": clock.iso(row.next_at or None),
        "last_at": clock.iso(row.last_at),
        "created_at": clock.iso(row.created_at),
    }


def outcome(found: webhooks.Outcome) -> dict[str, Any]:
    """What became of one try to tell a webhook something."""
    return {
        "ok": found.cause is None,
        "http_status": found.http_status,
        "cause": found.cause,
        "message": sentences.webhook_failure(found.cause) or None,
        "took": found.took,
    }


def webhook_delivery(row: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "event_id": row.event_id,
        "event": row.event,
        "items": row.items,
        "at": clock.iso(row.at),
        **outcome(webhooks.Outcome(row.http_status, row.cause, row.took)),
    }


def report(row: Broadcast, run: int | None, facts: statistics.Facts | None, due: bool) -> dict[str, Any]:
    """The numbers of a report. What is counted from the rows may be older: `as_of` says when; `counting`: whether it
    is being counted anew. Null while nothing has been counted yet."""
    numbers = broadcasts.count(row, run)
    price = reports.cost(row, numbers)
    return {
        "id": row.id,
        "name": row.name,
        "run": run or "all",
        "counters": numbers,
        "rates": [
            {"name": rate.key, "n": rate.part, "of": rate.whole, "share": round(rate.part / rate.whole, 6)}
            for rate in figures.rates(row, numbers, facts.replied if facts else None)
            if rate.whole
        ],
        "cost": price,
        "currency": row.channel.currency if row.channel and price is not None else None,
        "files": [{"id": one.id, "name": one.name, "counters": of} for one, of in reports.by_file(row, run)],
        "causes": [
            {"status": status, "n": n, "cause": sentences.cause(code)}
            for status, code, n in (facts.causes if facts else [])
        ],
        "counting": due,
        **statistics.as_json(facts),
    }


def preflight(row: Broadcast, found: Sheet) -> dict[str, Any]:
    lines = [sheet.line(row, item) for item in found.items]
    return {
        "ok": found.ok,
        "items": [
            {"code": one.code, "level": one.level, "text": one.text, **({"fix": one.url} if one.url else {})}
            for one in lines
        ],
        "numbers": found.numbers | {"received_at": clock.iso(found.numbers["received_at"])},
        "cost": found.cost,
        "currency": found.currency,
        "eta": clock.iso(found.eta),
        "counting": found.counting,
    }


def preview(found: Preview) -> dict[str, Any]:
    counted = found.counted
    return {
        "phone": found.phone,
        "text": found.text,
        "components": found.components or None,
        "encoding": counted.encoding if counted else None,
        "units": counted.units if counted else None,
        "segments": counted.segments if counted else None,
        "parts": found.parts or None,
        "row": dict(found.cells),
        "line": found.line,
        "file": found.file.id,
    }


def test(row: direct.Sent) -> dict[str, Any]:
    return {
        "id": row.id,
        "phone": row.phone,
        "text": row.text,
        "status": row.status,
        "cause": sentences.cause(row.cause, row.cause_text),
        "waiting": sentences.cause(row.waiting),
        "provider_id": row.provider_id,
        "made_by": row.made_by,
        "at": clock.iso(row.at),
        "sent_at": clock.iso(row.sent_at),
        "delivered_at": clock.iso(row.delivered_at),
        "read_at": clock.iso(row.read_at),
    }


def optout(row: optouts.Row | OptOut) -> dict[str, Any]:
    return {
        "id": row.id,
        "phone": row.phone,
        "scope": row.scope,
        "reason": row.reason,
        "source": row.source,
        "at": clock.iso(row.at),
    }


def conversations(rows: Sequence[Conversation]) -> list[dict[str, Any]]:
    """A page of conversations; channels and operators are looked up once."""
    known = {c.id: c for c in Channel.select().where(Channel.id.in_({row.channel_id for row in rows}))}
    people = {row.assignee_id for row in rows if row.assignee_id}
    named = {u.id: u.email for u in User.select().where(User.id.in_(people))} if people else {}
    return [_conversation(row, known[row.channel_id], named.get(row.assignee_id)) for row in rows]


def _conversation(row: Conversation, channel: Channel, assignee: str | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "channel_id": row.channel_id,
        "phone": row.phone,
        "name": row.name,
        "unread": row.unread,
        "state": row.state,
        "assignee": assignee,
        "broadcast_id": row.broadcast_id,
        "window_until": clock.iso(inbox.window_until(row, channel)),
        "last_at": clock.iso(row.last_at),
        "last_text": row.last_text,
    }


def whole_conversation(row: Conversation, page: talk.Page) -> dict[str, Any]:
    """One conversation with a page of its messages; `earlier` is the cursor of those before."""
    messages = [entry(one) for one in page.items]
    return {**conversations([row])[0], "messages": messages, "earlier": page.earlier}


def entry(one: talk.Entry) -> dict[str, Any]:
    return {
        "id": one.id,
        "direction": one.direction,
        "kind": one.kind,
        "text": one.text,
        "provider_id": one.provider_id,
        "status": one.status,
        "cause": sentences.cause(one.cause, one.cause_text),
        "broadcast_id": one.broadcast_id,
        "made_by": one.made_by or None,
        "at": clock.iso(one.at),
        "attachments": [_attachment(file) for file in one.files],
    }


def _attachment(row: Attachment) -> dict[str, Any]:
    why = sentences.finding(row.cause or "", "") if row.state == "failed" else None
    return {"id": row.id, "name": row.name, "mime": row.mime, "size": row.size, "state": row.state, "cause": why}
