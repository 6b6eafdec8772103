"""The description of the API is true: every route is in it, and each description is of a route."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from webapp import auth
from webapp.api.openapi import OPERATIONS
from worker.settings import Settings


@pytest.fixture
def document(client: FlaskClient) -> Any:
    answer = client.get("/api/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json


def test_every_route_is_described_and_every_description_is_of_a_route(app: Flask) -> None:
    routes = {
        rule.endpoint.removeprefix("api.") for rule in app.url_map.iter_rules() if rule.endpoint.startswith("api.")
    }
    assert routes - set(OPERATIONS) == set(), "say in webapp/api/openapi.py what these do"
    assert set(OPERATIONS) - routes == set(), "there are no such routes"


def test_the_description_is_whole(document: Any) -> None:
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert f"#/components/schemas/{name}" in json.dumps(document), f"nothing uses {name}"
    names = [said["operationId"] for methods in document["paths"].values() for said in methods.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    used = {part.split('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert used == set(document["components"]["schemas"])


def test_every_method_and_parameter_of_a_path_is_named(app: Flask, document: Any) -> None:
    for path, methods in document["paths"].items():
        named = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        for said in methods.values():
            assert {one["name"] for one in said["parameters"] if one["in"] == "path"} == named


def test_the_roles_are_those_of_the_routes(app: Flask, document: Any) -> None:
    for methods in document["paths"].values():
        for said in methods.values():
            with app.app_context():
                role = auth.declared(f"api.{said['operationId']}")
            assert (role == "public") == (said.get("security") == []), said["operationId"]
            assert role == "public" or f"role {role}" in said["description"]


def test_the_description_tells_nothing_of_the_installation(document: Any, settings: Settings) -> None:
    text = json.dumps(document)
    for secret in (str(settings.data), settings.secret_key, "localhost", "127.0.0.1"):
        assert secret not in text
