"""The stop list: who gets no broadcast."""

from __future__ import annotations

from flask import Response, abort, jsonify, request
from flask_babel import gettext as _

from webapp import exports, lookup, shapes
from webapp.api import base
from webapp.api.base import ApiError, api
from webapp.auth import me, role
from worker import optouts, phone
from worker.problems import Invalid, Problem


@api.get("/optouts")
@role("sender")
def optout_list() -> Response:
    given = request.args
    chosen = optouts.Filter(lookup.phone_wanted(), given.get("source", ""), given.get("scope", ""))
    try:
        page = optouts.find(chosen, given.get("after", ""), base.number("limit", optouts.PAGE) or 1)
    except ValueError as error:
        raise ApiError(422, "bad_parameter", _("This value cannot be used"), fields={str(error): ""}) from None
    return jsonify({"items": [shapes.optout(row) for row in page.items], "next": page.next})


@api.post("/optouts")
@role("sender")
def optout_add() -> tuple[Response, int]:
    given = base.known(base.body(), frozenset({"phone", "reason", "scope"}))
    texts = {"phone": "", "reason": "", "scope": optouts.ALL, **given}
    wrong = {name: Problem("not_a_text") for name, value in texts.items() if not isinstance(value, str)}
    if wrong:
        raise Invalid(wrong)
    found = phone.parse(texts["phone"][:1000], lookup.settings().region)
    if found.e164 is None:
        raise Invalid({"phone": Problem(found.reason or "phone_invalid", {"v": texts["phone"][:50]})})
    row, new = optouts.add(found.e164, texts["reason"], me().name, texts["scope"])
    return jsonify(shapes.optout(row)), 201 if new else 200


@api.delete("/optouts/<int:number>")
@role("admin")
def optout_remove(number: int) -> tuple[str, int]:
    """`?reason=` says why; the proof stays."""
    if not optouts.remove(min(number, lookup.ID_MAX), request.args.get("reason", ""), me().name):
        abort(404)
    return "", 204


@api.get("/optouts.csv")
@role("admin")
def optout_export() -> Response:
    return exports.optouts_csv(lookup.settings(), lookup.language(), me().name)
