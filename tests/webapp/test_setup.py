"""The first run: a code on the console, one administrator, and then never again."""

from __future__ import annotations

import threading

import pytest
from flask import Flask

from tests import people as persons
from tests.conftest import Clock
from tests.people import PASSWORD, Browser
from worker import db, people
from worker.models import Setting, User


@pytest.fixture
def fresh(app: Flask) -> Browser:
    """A browser in front of an installation without accounts."""
    return Browser(app)


@pytest.fixture
def code(database: object) -> str:
    made = people.new_setup_code()
    assert made is not None
    return made


def fields(code: str, **changed: str) -> dict[str, str]:
    return {"code": code, "email": "Anna@Example.org", "password": PASSWORD, "again": PASSWORD, **changed}


@pytest.mark.parametrize("path", ["/", "/login", "/broadcasts", "/settings", "/channels"])
def test_every_page_leads_to_setup_while_there_is_no_administrator(fresh: Browser, path: str) -> None:
    answer = fresh.get(path)
    assert answer.status_code in (302, 404)  # 404: a page that this version does not have
    if answer.status_code == 302:
        assert answer.headers["Location"] == "/setup"


def test_a_person_who_is_no_administrator_does_not_end_the_setup(fresh: Browser) -> None:
    persons.person("viewer")
    assert fresh.get("/login").headers["Location"] == "/setup"


def test_the_code_makes_the_first_administrator_and_signs_in(fresh: Browser, code: str) -> None:
    answer = fresh.post("/setup", fields(code.lower().replace("-", " ")))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    user = User.get()
    assert (user.email, user.role) == ("anna@example.org", "admin")
    assert fresh.get("/settings").status_code == 200


def test_after_setup_it_is_gone_and_the_code_is_dead(fresh: Browser, code: str, app: Flask) -> None:
    fresh.post("/setup", fields(code))
    other = Browser(app)
    assert other.get("/setup").status_code == 404
    assert other.post("/setup", fields(code, email="eve@example.org")).status_code == 404
    assert User.select().count() == 1
    assert people.new_setup_code() is None


def test_a_wrong_code_is_refused(fresh: Browser, code: str) -> None:
    answer = fresh.post("/setup", fields("AAAA-BBBB-CCCC-DDDD"))
    assert answer.status_code == 403
    assert "Код неверный или устарел" in answer.text
    assert User.select().count() == 0


def test_a_code_is_good_for_an_hour(fresh: Browser, clock: Clock) -> None:
    code = people.new_setup_code() or ""
    clock.tick(hours=1, seconds=1)
    assert fresh.post("/setup", fields(code)).status_code == 403


def test_a_new_code_voids_the_one_before(fresh: Browser, code: str) -> None:
    people.new_setup_code()
    assert fresh.post("/setup", fields(code)).status_code == 403


def test_only_the_hash_of_the_code_is_stored(code: str) -> None:
    stored = str(Setting.get(Setting.name == "setup_code").value)
    assert code not in stored and code.replace("-", "") not in stored


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"password": "short", "again": "short"}, "Не меньше 12 символов"),
        ({"password": "password1234", "again": "password1234"}, "подбирают одним из первых"),
        ({"password": "я" * 257, "again": "я" * 257}, "Не больше 256 символов"),
        ({"again": "something else"}, "Пароли не совпадают"),
        ({"email": "anna"}, "Это не адрес электронной почты"),
        ({"email": ""}, "Заполните это поле"),
    ],
)
def test_values_that_cannot_be_used_come_back_with_a_reason(
    fresh: Browser, code: str, changed: dict[str, str], words: str
) -> None:
    answer = fresh.post("/setup", fields(code, **changed))
    assert answer.status_code == 422
    assert words in answer.text
    assert User.select().count() == 0


def test_of_two_at_once_one_becomes_the_administrator(code: str) -> None:
    start = threading.Barrier(4)
    refused: list[str] = []

    def try_it(n: int) -> None:
        start.wait()
        try:
            with db.connection():
                people.first_admin(code, f"person{n}@example.org", PASSWORD)
        except people.SetupRefused as refusal:
            refused.append(refusal.code)

    threads = [threading.Thread(target=try_it, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert User.select().count() == 1
    assert len(refused) == 3
