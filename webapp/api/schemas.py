"""The shapes that the API takes and gives, as JSON Schema: `webapp.shapes` from outside. A test holds them together."""

from __future__ import annotations

from typing import Any

from worker import canary, optouts, preflight
from worker.broadcasts import COOLDOWN_MAX, RATE_MAX, RATE_MIN, WHO
from worker.states import BROADCAST_BUTTONS, BROADCAST_STATES, MESSAGE_STATUSES
from worker.webhooks import EVENTS, TEST

Schema = dict[str, Any]
TIME: Schema = {"type": "string", "format": "date-time"}
LARGEST = 2**53  # the largest number that every reader of JSON keeps exact


def of(kind: Any) -> Schema:
    """The schema of a short form: "string", "integer?" (or null), "time", "@Name" (a named one), [kind] (a list),
    (…) (one of these words), or a schema as it is."""
    if isinstance(kind, dict):
        return kind
    if isinstance(kind, list):
        return {"type": "array", "items": of(kind[0])}
    if isinstance(kind, tuple):
        return {"type": "string", "enum": list(kind)}
    name = kind.removesuffix("?")
    if name.startswith("@"):
        found: Schema = {"$ref": f"#/components/schemas/{name[1:]}"}
        return {"anyOf": [found, {"type": "null"}]} if kind.endswith("?") else found
    found = dict(TIME) if name == "time" else {"type": name}
    return {**found, "type": [found["type"], "null"]} if kind.endswith("?") else found


def given(**fields: Any) -> Schema:
    """An object of an answer: every field is always there."""
    return {"type": "object", "properties": {n: of(k) for n, k in fields.items()}, "required": list(fields)}


def taken(*required: str, **fields: Any) -> Schema:
    """An object of a body: only the `required` fields must be there, and there are no others."""
    found = {"type": "object", "properties": {n: of(k) for n, k in fields.items()}, "additionalProperties": False}
    return {**found, "required": list(required)} if required else found


def of_values(kind: Any) -> Schema:
    """An object whose names are free."""
    return {"type": "object", "additionalProperties": of(kind)}


def listed(kind: Any) -> Schema:
    """One page of a list. `next` goes into `after=` of the next call; null: that was the last page."""
    return given(items=[kind], next="string?")


ANYTHING: Schema = {}
ID: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST}
PHONE: Schema = {"type": "string", "description": "E.164"}
KINDS = ("waba", "sms")
RATE: Schema = {"type": "integer", "minimum": RATE_MIN, "maximum": RATE_MAX}
NUMBER_OR_NOTHING: Schema = {"type": ["number", "null"], "minimum": 0}
LEVELS = (preflight.BLOCK, preflight.WARN, preflight.OK, preflight.INFO)
COUNTERS = given(total="integer", **dict.fromkeys(MESSAGE_STATUSES, "integer"))
TEMPLATE_NAME = given(name="string", language="string")

HOUR: Schema = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"}
BINDING = taken(column="string", value="string", fallback="string")
BROADCAST_FIELDS: dict[str, Any] = {
    "name": "string",
    "channel_id": ID,
    "text": "string?",
    "template": {**TEMPLATE_NAME, "type": ["object", "null"]},
    "variables": of_values(BINDING),
    "region": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "ignore_duplicates": "boolean",
    "on_file_delete": ("keep", "remove"),
    "rate_per_minute": RATE,
    "send_at": {
        "type": ["string", "integer", "null"],
        "description": "ISO 8601 (without an offset: in `timezone`) or ms since the epoch",
    },
    "timezone": "string",
    "quiet_hours": {
        **taken("from", "to", **{"from": HOUR, "to": HOUR}),
        "type": ["object", "null"],
        "description": "Held, not dropped, by the clock of the recipient",
    },
    "cooldown_days": {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": COOLDOWN_MAX,
        "description": "Skip whom any broadcast was sent to within so many days",
    },
}
CHANNEL_FIELDS: dict[str, Any] = {
    "kind": KINDS,
    "provider": "string",
    "name": "string",
    "settings": {"type": "object", "description": "By the names of the provider's fields; an empty secret stays"},
    "per_second": NUMBER_OR_NOTHING,
    "per_day": {"type": ["integer", "null"], "minimum": 1},
    "price": NUMBER_OR_NOTHING,
    "currency": {"type": ["string", "null"], "pattern": "^[A-Z]{3}$"},
}
WEBHOOK_FIELDS: dict[str, Any] = {
    "url": {"type": "string", "description": "https, on a public address"},
    "events": {"type": "array", "items": of(EVENTS), "minItems": 1},
}
WEBHOOK: dict[str, Any] = {
    "id": "integer",
    "url": "string",
    "events": [EVENTS],
    "state": ("on", "stopped"),
    "stop_reason": "string?",
    "stop_text": "string?",
    "failing_since": "time?",
    "next_at": "time?",
    "last_at": "time?",
    "created_at": "time",
}
OUTCOME: dict[str, Any] = {
    "ok": "boolean",
    "http_status": "integer?",
    "cause": "string?",
    "message": "string?",
    "took": {"type": "integer", "description": "ms"},
}
CONVERSATION: dict[str, Any] = {
    "id": "integer",
    "channel_id": "integer",
    "phone": PHONE,
    "name": "string?",
    "unread": "integer",
    "state": ("open", "closed"),
    "assignee": "string?",
    "broadcast_id": "integer?",
    "window_until": "time?",
    "last_at": "time",
    "last_text": "string",
}
FILE: dict[str, Any] = {
    "id": "integer",
    "role": ("main", "appended"),
    "name": "string",
    "size": "integer",
    "state": ("checking", "ready", "refused"),
    "rows": "integer",
    "accepted": "integer",
    "rejected": of_values("integer"),
    "encoding": "string?",
    "delimiter": "string?",
    "phone_column": "string?",
    "columns": ["string"],
    "unused": ["string"],
    "repairs": "object",
    "sample": [["string"]],
    "code": "string?",
    "message": "string?",
    "progress": "number",
    "removed_at": "time?",
    "created_at": "time",
}
ROW_ERROR = given(line="integer", column="string?", code="string", value="string?", message="string")

SCHEMAS: dict[str, Schema] = {
    "Error": given(
        error={
            **given(code="string", message="string"),
            "properties": {
                "code": of("string"),
                "message": {"type": "string", "description": "In the language of Accept-Language"},
                "fields": of_values("string"),
                "allowed": {"type": "array", "items": of("string"), "description": "The actions that are possible"},
            },
        }
    ),
    "Cause": given(code="string", text="string", who="string", advice="string"),
    "Provider": given(
        key="string",
        kind=KINDS,
        label="string",
        about="string",
        supports=["string"],
        pace="number?",
        fields=[
            given(
                name="string",
                kind=("text", "secret", "integer", "boolean", "choice", "lines"),
                required="boolean",
                default=ANYTHING,
                choices=["string"],
                group="string",
                secret="boolean",  # noqa: S106
                label="string",
                hint="string",
            )
        ],
    ),
    "Channel": {
        **given(
            id="integer",
            kind=KINDS,
            provider="string",
            name="string",
            state=("on", "stopped"),
            stop="@Cause?",
            settings="object",
            secrets=["string"],
            per_second="number?",
            per_day="integer?",
            price="number?",
            currency="string?",
            webhook_url="string?",
            not_responding_since="time?",
            slow_until="time?",
            last_sent_at="time?",
            last_callback_at="time?",
            sent_last_24h="integer",
            vendor_limit="integer?",
            quality="string?",
            templates_synced_at="time?",
            created_at="time",
        ),
    },
    "Findings": given(
        ok="boolean",
        findings=[given(level=("ok", "warning", "error"), code="string", detail="string", message="string")],
    ),
    "Media": given(id="string", name="string", mime="string", expires_at="integer"),
    "Template": given(
        id="integer",
        name="string",
        language="string",
        status="string",
        category="string",
        parameter_format="string",
        components=["object"],
        slots=[given(id="string", part="string", kind="string", example="string?", required="boolean")],
        unsupported=["string"],
    ),
    "Segments": given(encoding=("GSM-7", "UCS-2"), units="integer", segments="integer", offending=["string"]),
    "Phone": given(input="string", e164="string?", reason="string?"),
    "FileInfo": given(**FILE),
    "File": given(**FILE, errors=[ROW_ERROR]),
    "Broadcast": given(
        id="integer",
        name="string",
        state=BROADCAST_STATES,
        stop_reason="string?",
        stop="@Cause?",
        stop_text="string?",
        waiting="string?",
        waiting_text="string?",
        waiting_advice="string?",
        waiting_until="time?",
        run="integer",
        channel_id="integer?",
        text="string?",
        template={**TEMPLATE_NAME, "type": ["object", "null"]},
        variables="object",
        region="string",
        ignore_duplicates="boolean",
        on_file_delete=("keep", "remove"),
        rate_per_minute="integer",
        speed="integer",
        quiet_hours={**given(**{"from": HOUR, "to": HOUR}), "type": ["object", "null"]},
        cooldown_days="integer?",
        canary="integer?",
        send_at="time?",
        late_text="string?",
        timezone="string",
        eta="time?",
        counters=COUNTERS,
        files=["@FileInfo"],
        approval={**given(needed="boolean", by="string?", at="time?"), "type": ["object", "null"]},
        completed="boolean",
        allowed_actions=[BROADCAST_BUTTONS],
        created_at="time",
        last_sent_at="time?",
    ),
    "Message": given(
        id="integer",
        phone=PHONE,
        status=MESSAGE_STATUSES,
        cause="@Cause?",
        provider_id="string?",
        line="integer",
        file_id="integer",
        run="integer",
        sent_at="time?",
        delivered_at="time?",
        read_at="time?",
        undelivered_at="time?",
    ),
    "Preflight": given(
        ok="boolean",
        items=[
            {
                **given(code="string", level=LEVELS, text="string"),
                "properties": {
                    **given(code="string", level=LEVELS, text="string")["properties"],
                    "fix": {"type": "string", "description": "The page where it is cured"},
                },
            }
        ],
        numbers={"type": "object", "description": "What the sheet is made of; null where it is still being counted"},
        cost="number?",
        currency="string?",
        eta="time?",
        counting="boolean",
    ),
    "Preview": given(
        phone=PHONE,
        text="string",
        components={"type": ["array", "null"], "items": {"type": "object"}},
        encoding="string?",
        units="integer?",
        segments="integer?",
        parts={"type": ["array", "null"], "items": {"type": "string"}},
        row=of_values("string"),
        line="integer",
        file="integer",
    ),
    "Test": given(
        id="integer",
        phone=PHONE,
        text="string",
        status=MESSAGE_STATUSES,
        cause="@Cause?",
        waiting="@Cause?",
        provider_id="string?",
        made_by="string",
        at="time",
        sent_at="time?",
        delivered_at="time?",
        read_at="time?",
    ),
    "OptOut": given(
        id="integer", phone=PHONE, scope=optouts.SCOPES, reason="string", source=optouts.SOURCES, at="time"
    ),
    "Report": given(
        id="integer",
        name="string",
        run={"anyOf": [{"type": "integer"}, {"const": "all"}]},
        counters=COUNTERS,
        rates=[given(name="string", n="integer", of="integer", share="number")],
        cost="number?",
        currency="string?",
        files=[given(id="integer", name="string", counters=COUNTERS)],
        causes=[given(status=MESSAGE_STATUSES, n="integer", cause="@Cause?")],
        counting="boolean",
        as_of="time?",
        replied="integer?",
        time_to_delivery={
            **given(
                delivered="integer",
                median="number?",
                p95="number?",
                classes=[given(below="number?", n="integer")],
            ),
            "type": ["object", "null"],
        },
        timeline={
            **given(begin="time", step="integer", later="object"),
            "type": ["object", "null"],
            "additionalProperties": {"type": "array", "items": {"type": "integer"}},
        },
    ),
    "Conversation": given(**CONVERSATION),
    "WholeConversation": given(**CONVERSATION, messages=["@Entry"], earlier="string?"),
    "Entry": given(
        id="integer",
        direction=("in", "out"),
        kind="string",
        text="string?",
        provider_id="string?",
        status="string?",
        cause="@Cause?",
        broadcast_id="integer?",
        made_by="string?",
        at="time",
        attachments=[
            given(id="integer", name="string", mime="string", size="integer", state="string", cause="string?")
        ],
    ),
    "Webhook": given(**WEBHOOK),
    "NewWebhook": given(**WEBHOOK, secret={"type": "string", "description": "Shown this once; signs what is sent"}),
    "Outcome": given(**OUTCOME),
    "Delivery": given(id="integer", event_id="string", event=(*EVENTS, TEST), items="integer", at="time", **OUTCOME),
    # What is sent along.
    "NewChannel": taken("provider", "name", **CHANNEL_FIELDS),
    "ChannelChange": taken(**CHANNEL_FIELDS, state=("on", "stopped")),
    "NewBroadcast": taken("name", "channel_id", "rate_per_minute", **BROADCAST_FIELDS),
    "BroadcastChange": taken(**BROADCAST_FIELDS),
    "Action": {
        **taken(
            who=WHO, cause="string", canary={"type": "integer", "minimum": 1, "maximum": canary.MAX}, pick=canary.PICKS
        ),
        "description": "who and cause: of restart; canary and pick: of start",
    },
    "Answer": {
        **taken(text="string", template=TEMPLATE_NAME, variables="object", confirm_optout="boolean"),
        "description": "text, or template with the values of its slots",
    },
    "NewTest": taken("phone", phone="string", line="integer?", file="integer?"),
    "NewOptOut": taken(
        "phone", phone="string", reason={"type": "string", "maxLength": optouts.REASON_MAX}, scope=optouts.SCOPES
    ),
    "WebhookFields": taken("url", "events", **WEBHOOK_FIELDS),
    "WebhookChange": taken(**WEBHOOK_FIELDS, state=("on", "stopped")),
}
# SMS providers have an address for each kind of callback.
SCHEMAS["Channel"]["properties"].update(status_url=of("string?"), inbound_url=of("string?"))
