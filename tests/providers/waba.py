"""What the tests of WhatsApp share: a channel's settings, an emulated Graph API, and the reference material."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.providers import stub
from tests.providers.stub import Request
from worker.providers.base import CallbackAddresses, RawCallback
from worker.providers.dialog360 import Dialog360
from worker.providers.meta import CloudApi
from worker.providers.meta_webhooks import signature
from worker.providers.whatsapp_cloud import WhatsAppCloud

PHONE_ID, WABA_ID, SECRET, VERIFY = "200100", "300100", "app secret", "verify me"
OURS = "https://molva.example/hooks/k3y"
OK = {"messaging_product": "whatsapp", "messages": [{"id": "wamid.TEST1", "message_status": "accepted"}]}


_made: list[CloudApi] = []


def beside(name: str) -> Path:
    """Where a file of the reference material would lie, beside the project."""
    folder = os.environ.get("MOLVA_SHARED") or Path(__file__).resolve().parents[2].with_name("shared")
    return Path(folder) / "data" / name


def shared(name: str) -> Path:
    """A file of the reference material; skips the test where there is none."""
    found = beside(name)
    if not found.exists():
        pytest.skip(f"the reference material is not here: {found}")
    return found


Check = Callable[[Any], list[str]]  # a body → what is wrong with it


@cache
def specification() -> Callable[[str], Check]:
    """The vendor's specification with the patch that makes it usable: name of a schema → its check.

    Skips the test where the reference material is not there.
    """
    source, patch = shared("whatsapp-openapi.yaml"), shared("whatsapp-openapi.patch.json")
    plain = yaml.load(source.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    patched = jsonpatch.apply_patch(json.loads(json.dumps(plain, default=str)), json.loads(patch.read_text()))
    resource = Resource.from_contents(patched, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:wa", resource)

    def check_of(name: str) -> Check:
        check = Draft202012Validator({"$ref": f"urn:wa#/components/schemas/{name}"}, registry=registry)
        return lambda body: [error.message for error in check.iter_errors(body)]

    return check_of


def cloud(url: str = "https://graph.example", **more: Any) -> WhatsAppCloud:
    """A channel whose base URL leads to a stub."""
    settings = {"phone_number_id": PHONE_ID, "waba_id": WABA_ID, "access_token": "EAA", "app_secret": SECRET}
    settings |= {"verify_token": VERIFY, "base_url": url, "api_version": "v25.0"}
    settings["allowed_private_hosts"] = ("127.0.0.1",)
    made = WhatsAppCloud({**settings, **more}, CallbackAddresses(OURS))
    _made.append(made)
    return made


def dialog(url: str = "https://waba.example", **more: Any) -> Dialog360:
    settings = {"api_key": "key", "base_url": url, "webhook_secret": "told you", "phone_number_id": ""}
    settings["allowed_private_hosts"] = ("127.0.0.1",)
    made = Dialog360({**settings, **more}, CallbackAddresses(OURS))
    _made.append(made)
    return made


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    """Closes the lines of every channel that a test made."""
    yield
    while _made:
        _made.pop().close()


def by_path(answers: Mapping[str, Any], otherwise: Any = None) -> stub.Behaviour:
    """Answers each request by the last part of its path; a pair is a status and a body."""

    def act(sock: socket.socket, request: Request) -> bool:
        name = request.path.partition("?")[0].rstrip("/").rpartition("/")[2]
        given = answers.get(name, otherwise)
        status, body = given if isinstance(given, tuple) else (200, given)
        return stub.answer(status, body if body is not None else {})(sock, request)

    return act


def error(code: int, words: str = "refused", status: int = 400, **more: Any) -> tuple[int, dict[str, Any]]:
    data = {"messaging_product": "whatsapp", "details": words}
    return status, {"error": {"message": f"(#{code}) {words}", "code": code, "error_data": data, **more}}


def callback(body: bytes, **headers: str) -> RawCallback:
    return RawCallback("POST", "", {}, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def signed(body: bytes, secret: str = SECRET) -> RawCallback:
    return callback(body, x_hub_signature_256=signature(secret, body))


# --- templates ---------------------------------------------------------------------------------------

BODY: dict[str, Any] = {"type": "BODY", "text": "Hi {{1}}"}


def header(shape: str, text: str = "") -> dict[str, Any]:
    return {"type": "HEADER", "format": shape} | ({"text": text} if text else {})


def buttons(*given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "BUTTONS", "buttons": list(given)}


QUICK = {"type": "QUICK_REPLY", "text": "More"}
STOP = {"type": "QUICK_REPLY", "text": "Stop"}
CALL = {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100000"}
LINK = {"type": "URL", "text": "Open", "url": "https://shop.example/{{1}}", "example": ["https://shop.example/a-1"]}
STATIC = {"type": "URL", "text": "Site", "url": "https://shop.example/"}
CODE = {"type": "COPY_CODE", "text": "Copy", "example": ["SAVE25"]}
OTP = {"type": "OTP", "otp_type": "COPY_CODE", "text": "Copy code"}
OTP_LINK = {
    "type": "URL",
    "text": "Copy code",
    "url": "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}",
}
