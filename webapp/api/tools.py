"""Counting text and reading phone numbers, as the product itself does."""

from __future__ import annotations

from flask import Response, jsonify
from flask_babel import gettext as _
from phonenumbers import SUPPORTED_REGIONS

from webapp import lookup
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import role
from worker import broadcasts, phone, segments

PHONES_MAX = 10_000
TEXT_MAX = 20_000


@api.post("/sms/segments")
@role("viewer")
def sms_segments() -> Response:
    text = base.known(base.body(), frozenset({"text"})).get("text")
    if not isinstance(text, str) or len(text) > TEXT_MAX:
        raise ApiError(422, "text_required", _("Enter the message text"), fields={"text": _("Enter the message text")})
    found = segments.count(text)
    return jsonify(found._asdict())


@api.post("/phones/parse")
@role("viewer")
def phones_parse() -> Response:
    given = base.known(base.body(), frozenset({"phones", "region"}))
    phones, region = given.get("phones"), given.get("region") or lookup.settings().region
    if not isinstance(phones, list) or len(phones) > PHONES_MAX or not all(isinstance(p, str) for p in phones):
        raise ApiError(422, "phones_invalid", _("This value cannot be used"), fields={"phones": "list"})
    if not isinstance(region, str) or region not in SUPPORTED_REGIONS:
        raise broadcasts.Invalid({"region": broadcasts.Problem("region_unknown")})
    found = [(p, phone.parse(p[:1000], region)) for p in phones]
    return jsonify([{"input": p, "e164": f.e164, "reason": f.reason} for p, f in found])
