"""Every kind of send body, as it really leaves, held against the vendor's own specification, read in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.providers import stub
from tests.providers.stub import Stub
from tests.providers.waba import (
    BODY,
    CALL,
    CODE,
    LINK,
    OK,
    OTP,
    OTP_LINK,
    QUICK,
    STATIC,
    STOP,
    Check,
    buttons,
    close_all,  # noqa: F401  (a fixture)
    cloud,
    header,
    specification,
)
from worker import rendering
from worker.providers.base import Outgoing

PHONE, PERSON_ID = "+15550100001", "US.13491208655302741918"
NAMED = {"type": "BODY", "text": "{{first_name}}, order {{order}} and {{order}}"}
TEN = {"type": "BODY", "text": " ".join(f"{{{{{n}}}}}" for n in range(1, 11))}
# name → (components, how variables are named, slot → value)
TEMPLATES: dict[str, tuple[list[dict[str, Any]], str, dict[str, str]]] = {
    "without variables": ([{"type": "BODY", "text": "Hi"}], "POSITIONAL", {}),
    "positional": ([TEN], "POSITIONAL", {f"body.{n}": f"v{n}" for n in range(1, 11)}),
    "named": ([NAMED], "NAMED", {"body.first_name": "Ann", "body.order": "A-1"}),
    "header text": ([header("TEXT", "For {{1}}"), BODY], "POSITIONAL", {"header.1": "Ann", "body.1": "Ann"}),
    "header text, named": (
        [header("TEXT", "For {{who}}"), NAMED],
        "NAMED",
        {"header.who": "Ann", "body.first_name": "Ann", "body.order": "A-1"},
    ),
    "image by link": (
        [header("IMAGE"), BODY],
        "POSITIONAL",
        {"header.media": "https://x.example/a.png", "body.1": "A"},
    ),
    "image by id": ([header("IMAGE"), BODY], "POSITIONAL", {"header.media": "4490709327384033", "body.1": "A"}),
    "video": ([header("VIDEO")], "POSITIONAL", {"header.media": "https://x.example/a.mp4"}),
    "gif": ([header("GIF")], "POSITIONAL", {"header.media": "https://x.example/a.mp4"}),
    "document": ([header("DOCUMENT")], "POSITIONAL", {"header.media": "https://x.example/a.pdf"}),
    "document with a name": (
        [header("DOCUMENT")],
        "POSITIONAL",
        {"header.media": "4490709327384033", "header.filename": "Prices.pdf"},
    ),
    "location": (
        [header("LOCATION")],
        "POSITIONAL",
        {"header.latitude": "55.75", "header.longitude": "37.61", "header.name": "Shop", "header.address": "Street 1"},
    ),
    "link ending": ([BODY, buttons(QUICK, STATIC, CALL, LINK)], "POSITIONAL", {"body.1": "A", "button.3": "a?b=1"}),
    "copied code": ([BODY, buttons(CODE)], "POSITIONAL", {"body.1": "A", "button.0": "SAVE25"}),
    "stop button": ([BODY, buttons(QUICK, STOP)], "POSITIONAL", {"body.1": "A"}),
    "authentication": ([{"type": "BODY", "text": "{{1}}"}, buttons(OTP)], "POSITIONAL", {"body.1": "123456"}),
    "authentication, as a link": ([{"type": "BODY", "text": ""}, buttons(OTP_LINK)], "POSITIONAL", {"body.1": "1"}),
    "all of it": (
        [header("IMAGE"), NAMED, {"type": "FOOTER", "text": "Bye"}, buttons(LINK, CODE, STOP)],
        "NAMED",
        {
            "header.media": "https://x.example/a.png",
            "body.first_name": "Анна",
            "body.order": "А-1",
            "button.0": "a-1",
            "button.1": "SAVE25",
        },
    ),
}


@pytest.fixture(scope="module")
def check() -> Callable[[str], Check]:
    return specification()


def filled(name: str, category: str = "UTILITY") -> dict[str, Any]:
    parts, parameter_format, values = TEMPLATES[name]
    assert rendering.unsupported(parts) == []
    variables = {slot: {"value": value} for slot, value in values.items()}
    content = rendering.waba_content("hello", "en_US", parts, parameter_format, variables, category)
    template = content.bind([]).render([]).template
    assert template is not None
    return template


def sent(out: Outgoing, **settings: Any) -> tuple[str, dict[str, Any]]:
    """Where a message went, and its body as it arrived."""
    with Stub(stub.answer(200, OK)) as server:
        cloud(server.url, **settings).send(out)
        request = server.requests[0]
    return request.path.rpartition("/")[2], request.json


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("person", [PHONE, PERSON_ID])
def test_what_leaves_is_what_the_vendor_specifies(check: Callable[[str], Check], name: str, person: str) -> None:
    _path, body = sent(Outgoing(person, "token.1", template=filled(name)))
    assert check("Message")(body) == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_marketing_leaves_as_its_endpoint_specifies(check: Callable[[str], Check], name: str) -> None:
    path, body = sent(Outgoing(PHONE, "token.1", template=filled(name, "MARKETING")), marketing_endpoint=True)
    assert path == "marketing_messages"
    assert check("MarketingMessageRequestPayload")(body) == []


def test_free_text_leaves_as_specified(check: Callable[[str], Check]) -> None:
    assert check("Message")(sent(Outgoing(PHONE, "token.1", text="Привет"))[1]) == []


def test_the_specification_does_refuse_what_is_wrong(check: Callable[[str], Check]) -> None:
    _path, body = sent(Outgoing(PHONE, "token.1", template=filled("copied code")))
    body["template"]["components"][1]["parameters"] = [{"type": "coupon_code", "coupon_code": "C" * 21}]
    assert check("Message")(body) != []
    _path, body = sent(Outgoing(PHONE, "token.1", template=filled("named")))
    body["template"]["components"][0]["parameters"][0]["type"] = "txt"
    assert check("Message")(body) != []
