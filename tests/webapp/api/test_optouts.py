"""The stop list through the API."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from worker import db, optouts
from worker.models import OptOut

Headers = dict[str, dict[str, str]]
URL = "/api/v1/optouts"


def test_a_number_is_added_once_and_has_its_shape(client: FlaskClient, api: Headers) -> None:
    given = {"phone": "8 901 000-00-01", "reason": "asked by phone"}
    answer = client.post(URL, json=given, headers=api["sender"])
    assert answer.status_code == 201
    made = answer.json
    assert set(made) == {"id", "phone", "reason", "source", "at", "scope"}
    assert (made["phone"], made["reason"], made["source"], made["scope"]) == (
        "+79010000001",
        "asked by phone",
        "person",
        "all",
    )
    again = client.post(URL, json={**given, "reason": "another"}, headers=api["sender"])
    assert (again.status_code, again.json) == (200, made)
    other = client.post(URL, json={"phone": "+79010000001", "scope": "marketing"}, headers=api["sender"])
    assert (other.status_code, other.json["scope"], other.json["reason"]) == (201, "marketing", "")
    listed = client.get(URL, headers=api["sender"]).json
    assert listed == {"items": [other.json, made], "next": None}


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({}, "phone_missing", "phone"),
        ({"phone": "12345"}, "phone_invalid", "phone"),
        ({"phone": "7,9E+10"}, "phone_scientific", "phone"),
        ({"phone": 79010000001}, "not_a_text", "phone"),
        ({"phone": "+79010000001", "scope": "some"}, "not_a_choice", "scope"),
        ({"phone": "+79010000001", "reason": "x" * 201}, "setting_too_long", "reason"),
        ({"phone": "+79010000001", "source": "reply"}, "unknown_field", "source"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(
    client: FlaskClient, api: Headers, given: dict[str, Any], code: str, field: str
) -> None:
    answer = client.post(URL, json=given, headers=api["sender"])
    assert (answer.status_code, answer.json["error"]["code"]) == (422, code)
    assert answer.json["error"]["fields"][field] and answer.json["error"]["message"]
    assert OptOut.select().count() == 0


def test_the_list_comes_in_pages_and_by_choice(client: FlaskClient, api: Headers) -> None:
    with db.write():
        optouts.put([optouts.Entry(f"+7901{n:07d}") for n in range(7)], "reply")
        optouts.put([optouts.Entry("+79020000000", "marketing")], "provider")
    seen, query = [], "limit=3"
    while query:
        page = client.get(f"{URL}?{query}", headers=api["sender"]).json
        seen += [item["phone"] for item in page["items"]]
        query = f"limit=3&after={page['next']}" if page["next"] else ""
    assert len(seen) == len(set(seen)) == 8
    for query, n in (
        ("source=reply", 7),
        ("scope=marketing", 1),
        ("phone=%2B79010000003", 1),
        ("phone=89010000003", 1),
    ):
        assert len(client.get(f"{URL}?{query}", headers=api["sender"]).json["items"]) == n, query
    for wrong in ("source=x", "scope=x", "after=x", "limit=x"):
        assert client.get(f"{URL}?{wrong}", headers=api["sender"]).status_code == 422, wrong


def test_an_administrator_takes_a_number_off_and_the_proof_stays(client: FlaskClient, api: Headers) -> None:
    made = client.post(URL, json={"phone": "+79010000001"}, headers=api["sender"]).json
    one = f"{URL}/{made['id']}"
    assert client.delete(one, headers=api["sender"]).status_code == 403
    assert client.delete(f"{one}?reason=by+mistake", headers=api["admin"]).status_code == 204
    assert client.delete(one, headers=api["admin"]).status_code == 404
    assert [(event.action, event.reason) for event in optouts.history("+79010000001")] == [
        ("remove", "by mistake"),
        ("add", ""),
    ]


def test_the_list_goes_out_as_csv_to_administrators(client: FlaskClient, api: Headers) -> None:
    client.post(URL, json={"phone": "+79010000001"}, headers=api["sender"])
    assert client.get(f"{URL}.csv", headers=api["sender"]).status_code == 403
    answer = client.get(f"{URL}.csv", headers={**api["admin"], "Accept-Language": "en"})
    assert answer.data.decode("utf-8-sig").splitlines()[1].startswith('"+79010000001","All broadcasts"')


def test_viewers_see_none_of_it(client: FlaskClient, api: Headers) -> None:
    assert client.get(URL, headers=api["viewer"]).status_code == 403
    assert client.post(URL, json={"phone": "+79010000001"}, headers=api["viewer"]).status_code == 403
