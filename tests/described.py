"""Every answer of the API in every test is held to its description in /api/v1/openapi.json."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from flask import Response, request
from jsonschema import Draft202012Validator

from webapp.api import openapi


@cache
def answers() -> dict[tuple[str, str], Any]:
    """Method and route → the described answers by status; the schemas closed, so that nothing is left out."""
    document = openapi.build()
    schemas = {name: closed(schema) for name, schema in document["components"]["schemas"].items()}
    found = {}
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            for answer in said["responses"].values():
                for content in answer.get("content", {}).values():
                    content["validator"] = Draft202012Validator(
                        {**closed(content["schema"]), "components": {"schemas": schemas}}
                    )
            found[path.replace("{", "<").replace("}", ">"), method.upper()] = said["responses"]
    return found


def closed(schema: Any) -> Any:
    """The same schema, taking no property that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    more = {"additionalProperties": False} if "properties" in schema else {}
    return {**more, **{name: closed(one) for name, one in schema.items()}}


def check(response: Response) -> Response:
    """For `after_request` of the application under test."""
    rule = request.url_rule
    if response.status_code == 500:
        return response  # a fault is described nowhere; whoever provokes one looks at it
    if rule is None or not rule.endpoint.startswith("api.") or request.method not in rule.methods:
        return response
    if request.method == "OPTIONS":
        return response
    path = re.sub(r"<(?:[^<>]*:)?(\w+)>", r"<\1>", rule.rule)
    said = answers()[path, "GET" if request.method == "HEAD" else request.method]
    where = f"{request.method} {rule.rule} → {response.status_code}"
    assert str(response.status_code) in said, f"{where} is not in webapp/api/openapi.py"
    content = said[str(response.status_code)].get("content", {})
    assert (response.mimetype in content) if content else not response.data, f"{where}: {response.mimetype}"
    if response.mimetype == "application/json":
        wrong = [
            f"{list(e.path)}: {e.message}" for e in content[response.mimetype]["validator"].iter_errors(response.json)
        ]
        assert not wrong, f"{where} is not as webapp/api/schemas.py says: {wrong}"
    return response
