"""Whatever is sent, good values or bad ones: no fault, and no answer that is not described. By schemathesis."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import make
from webapp.api.openapi import OPERATIONS
from worker import channels, clock, db, delivery, optouts, vault, webhooks
from worker.models import MessageTemplate, Webhook
from worker.providers.base import InboundMessage
from worker.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import checks
    from schemathesis.generation import GenerationMode

EXAMPLES = 12
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
# The same examples in every run, and none kept from the one before.
RUN = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
World = dict[str, list[int]]


@pytest.fixture
def world(app: Flask, settings: Settings) -> World:
    """Something behind every noun of a path, and its ids."""
    app.testing = False  # a fault becomes a 500, as it does for people
    waba, sms = channels.ensure_sandbox(settings)
    MessageTemplate.create(
        channel=waba,
        name="hello",
        language="ru",
        status="APPROVED",
        category="UTILITY",
        components=[{"type": "BODY", "text": "Hi {{1}}", "example": {"body_text": [["Ann"]]}}],
        synced_at=clock.now(),
    )
    made = [
        make.broadcast(state=state, channel=sms, text="Hi") for state in ("draft", "running", "stopped", "finished")
    ]
    files = [make.file(broadcast, accepted=3, path="0" * 32) for broadcast in made]
    messages = [m for f in files for m in make.messages(f, "queued", "uncertain", "delivered", row='["+79010000001"]')]
    webhook = Webhook.create(  # an address that is never asked: it is not a public one
        url="https://127.0.0.1/",
        events=list(webhooks.EVENTS),
        secret=vault.seal(settings, {"secret": "whsec"}),
        created_by="test",
        created_at=clock.now(),
    )
    talks = []
    with db.write():
        for n in (1, 2):
            item = InboundMessage(f"in.{n}", f"+7901000000{n}", clock.now(), text="Да")
            delivery.receive_inbound(sms.id, item, clock.now())
            talks.append(db.value("SELECT MAX(id) FROM conversation"))
            optouts.add(f"+7901000001{n}", "", "test")
    return {
        "conversations": talks,
        "optouts": [row[0] for row in db.rows("SELECT id FROM opt_out")],
        "webhooks": [webhook.id],
        "broadcasts": [row.id for row in made],
        "channels": [waba.id, sms.id],
        "messages": [row.id for row in messages],
        "file_id": [row.id for row in files],
    }


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_no_call_ends_in_a_fault_or_in_an_answer_that_is_not_described(
    app: Flask, api: dict[str, dict[str, str]], world: World, name: str
) -> None:
    operation = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app).find_operation_by_id(name)
    takes_something = [*operation.path_parameters, *operation.query, *operation.body]
    for mode in [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if takes_something else [GenerationMode.POSITIVE]:
        play(operation, mode, world, api["admin"])


def play(operation: Any, mode: GenerationMode, world: World, headers: dict[str, str]) -> None:
    """Calls with values that the description allows, or with ones that it forbids."""
    noun = operation.path.split("/")[3]

    @RUN
    @given(case=operation.as_strategy(generation_mode=mode), picks=st.tuples(*[st.integers(0, 19)] * 2))
    def call(case: Any, picks: tuple[int, int]) -> None:
        for (key, known), pick in zip((("number", noun), ("file_id", "file_id")), picks, strict=True):
            if pick < 18 and key in case.path_parameters and known in world:
                case.path_parameters[key] = world[known][pick % len(world[known])]
        with db.database.atomic() as changes:  # every example finds the same world
            response = case.call(headers=headers)
            changes.rollback()
        # 502 is what the provider did; the description says where that can be.
        case.validate_response(response, checks=CHECKS[1:] if response.status_code == 502 else CHECKS)

    call()
