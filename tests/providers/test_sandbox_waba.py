"""The sandbox plays the Cloud API: it takes what we make of its templates."""

from __future__ import annotations

from typing import Any

import pytest

from webapp import sandbox
from worker import rendering
from worker.providers.meta import read_template

VALUES = {"image": "https://x.example/a.png", "document": "https://x.example/a.pdf", "latitude": "1", "longitude": "2"}


@pytest.mark.parametrize("given", sandbox.TEMPLATES, ids=lambda given: f"{given['name']} {given['language']}")
def test_every_template_of_the_sandbox_is_filled_as_it_wants_it(given: dict[str, Any]) -> None:
    template = read_template(given)
    assert template is not None
    assert rendering.unsupported(template.components) == []
    slots = rendering.slots(template.components, template.parameter_format)
    variables = {slot.id: {"value": VALUES.get(slot.kind, "A1")} for slot in slots}
    content = rendering.waba_content("t", "ru", template.components, template.parameter_format, variables)
    made = content.bind([]).render([]).template
    assert made is not None
    assert sandbox._given(made["components"]) == sandbox._wanted(given)


def test_every_kind_of_header_and_button_can_be_tried_in_the_sandbox() -> None:
    parts = [part for given in sandbox.TEMPLATES for part in given["components"]]
    assert {part.get("format") for part in parts if part["type"] == "HEADER"} >= {
        "TEXT",
        "IMAGE",
        "DOCUMENT",
        "LOCATION",
    }
    kinds = {button["type"] for part in parts for button in part.get("buttons", ())}
    assert kinds == {"URL", "COPY_CODE", "QUICK_REPLY", "OTP"}


def test_one_special_number_is_reached_by_sms_alone() -> None:
    only = next(special for special in sandbox.MAGIC if special.key == "sms_only")
    plans = {
        kind: sandbox._plan(sandbox.Account(f"sandbox_{kind}", "key", {}), only.key, only) for kind in ("waba", "sms")
    }
    assert plans == {"waba": ["failed:131026"], "sms": ["sent", "delivered"]}
