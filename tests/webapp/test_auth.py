"""Who comes in, who stays in, and what a route must declare."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import PASSWORD, Browser, password_hash, signed_in
from webapp import auth
from webapp.auth import local_path
from worker import db, people
from worker.models import LoginAttempt, LoginSession, User
from worker.people import ROLES


def sign_in(browser: Browser, email: str = "sender@example.org", password: str = PASSWORD, **more: Any) -> Any:
    browser.forget_csrf()
    answer = browser.post("/login", {"email": email, "password": password}, **more)
    browser.forget_csrf()
    return answer


# ---- signing in


def test_the_right_password_opens(stranger: Browser) -> None:
    answer = sign_in(stranger, " Sender@Example.ORG ")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert stranger.get("/settings").status_code == 200


def test_every_wrong_gets_the_same_answer(stranger: Browser, users: dict[str, User]) -> None:
    User.update(active=False).where(User.id == users["viewer"].id).execute()
    tries = [
        ("sender@example.org", "wrong wrong wrong"),
        ("nobody@example.org", PASSWORD),
        ("viewer@example.org", PASSWORD),
        ("not an address", PASSWORD),
    ]
    answers = [sign_in(stranger, *one) for one in tries]
    assert {answer.status_code for answer in answers} == {403}
    assert all("Неверная почта или пароль" in answer.text for answer in answers)


def test_an_unknown_account_costs_the_time_of_a_known_one(database: object, monkeypatch: pytest.MonkeyPatch) -> None:
    User.create(email="known@example.org", password_hash=password_hash(), role="viewer", created_at=0)
    monkeypatch.setattr(people, "require_patience", lambda *_keys: None)
    people.authenticate("warm@example.org", "up", "")

    def timed(email: str) -> float:
        began = time.perf_counter()
        assert people.authenticate(email, "wrong wrong wrong", "") is None
        return time.perf_counter() - began

    known, unknown = [], []
    for _ in range(15):
        known.append(timed("known@example.org"))
        unknown.append(timed("nobody@example.org"))
    assert 0.6 < statistics.median(unknown) / statistics.median(known) < 1.6


def test_a_foreign_next_is_never_followed(stranger: Browser) -> None:
    answer = stranger.post("/login?next=//evil.example", {"email": "sender@example.org", "password": PASSWORD})
    assert answer.headers["Location"] == "/"


def test_a_local_next_is_followed(stranger: Browser) -> None:
    assert stranger.get("/settings?x=1").headers["Location"] == "/login?next=/settings?x%3D1"
    answer = stranger.post("/login?next=/settings%3Fx%3D1", {"email": "sender@example.org", "password": PASSWORD})
    assert answer.headers["Location"] == "/settings?x=1"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "https:evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        "evil.example",
        "./x",
        "../x",
        "",
        " ",
        " /x",
        "\t/x",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r\nSet-Cookie: a=b",
        "/x\x00",
        "/x\x7f",
        "/%2fevil.example",
        "/%2Fevil.example",
        "/%5cevil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "/%0d%0aSet-Cookie:x",
        "/%252fevil.example",
        "/%255cevil.example",
        "/%00",
        "%2f%2fevil.example",
        "/x//evil.example",
        "//",
        "///",
        "/\u2028".replace("\u2028", "\x1f"),
        "?next=//x",
        "#x",
        "/" + "x" * 3000,
    ],
)
def test_next_refuses(target: str) -> None:
    assert local_path(target) is None


@pytest.mark.parametrize(
    "target", ["/", "/broadcasts", "/broadcasts/7?tab=errors", "/optouts?q=%2B7900", "/x?u=http://a"]
)
def test_next_follows(target: str) -> None:
    assert local_path(target) == target


# ---- guessing


def test_guessing_is_slowed_down_and_answered_with_a_time(stranger: Browser, clock: Clock) -> None:
    statuses = [sign_in(stranger, password="wrong wrong wrong").status_code for _ in range(20)]
    assert statuses[:5] == [403] * 5
    assert 429 in statuses
    refused = sign_in(stranger)
    assert refused.status_code == 429
    assert "Слишком много попыток, подождите" in refused.text
    assert 0 < int(refused.headers["Retry-After"]) <= 120


def test_the_owner_gets_in_soon_whatever_others_try(app: Flask, stranger: Browser, clock: Clock) -> None:
    for _ in range(200):
        sign_in(stranger, password="wrong wrong wrong")
        clock.tick(seconds=1)
    clock.tick(minutes=15)
    owner = Browser(app)
    assert sign_in(owner, environ_base={"REMOTE_ADDR": "203.0.113.5"}).status_code == 303


def test_an_address_that_tries_many_accounts_has_to_wait(stranger: Browser, clock: Clock) -> None:
    statuses = [sign_in(stranger, f"guess{n}@example.org").status_code for n in range(30)]
    assert statuses[-1] == 429
    assert sign_in(stranger).status_code == 429


def test_a_success_forgets_the_failures_of_the_account(stranger: Browser, clock: Clock) -> None:
    for _ in range(4):
        sign_in(stranger, password="wrong wrong wrong")
    assert sign_in(stranger).status_code == 303
    keys = [row.key for row in LoginAttempt.select()]
    assert not any(key.startswith("account:") for key in keys)


def test_the_table_of_attempts_holds_no_addresses_of_people(stranger: Browser) -> None:
    sign_in(stranger, "typed-password-by-mistake")
    assert not any("typed" in row.key for row in LoginAttempt.select())


# ---- passwords


def test_passwords_are_argon2id_with_the_agreed_cost(users: dict[str, User]) -> None:
    assert users["admin"].password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_hash_with_another_cost_is_renewed_at_sign_in(stranger: Browser, users: dict[str, User]) -> None:
    import argon2

    old = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    User.update(password_hash=old).where(User.id == users["sender"].id).execute()
    assert sign_in(stranger).status_code == 303
    assert User.get_by_id(users["sender"].id).password_hash.startswith("$argon2id$v=19$m=19456")


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "Password1234!",
        "qwertyuiop123",
        "aaaaaaaaaaaa",
        "abcabcabcabc",
        "123456789012",
        "1q2w3e4r5t6y",
        "пароль123456",
        "йцукенгшщзхъ",
        "me@example.org",
        "!!!!!!!!!!!!!",
    ],
)
def test_a_password_from_the_first_guesses_is_refused(password: str) -> None:
    with pytest.raises(people.PasswordRefused, match="common"):
        people.check_password(password, "me@example.org")


@pytest.mark.parametrize(
    "password", [PASSWORD, "correct battery horse", "x7!kd92mzqpw", "длинная фраза из слов", "p" * 1 + "q7" * 63 + "z"]
)
def test_other_passwords_are_fine(password: str) -> None:
    people.check_password(password, "me@example.org")


# ---- login sessions end on the server


def still_in(browser: Browser) -> bool:
    return browser.get("/settings").status_code == 200


def test_logout_ends_the_session_on_the_server(app: Flask, sender: Browser) -> None:
    stolen = Browser(app)
    stolen.client._cookies.update(sender.client._cookies)
    assert still_in(stolen)
    sender.post("/logout")
    assert not still_in(stolen)
    assert LoginSession.select().count() == 0


def test_a_new_password_signs_out_every_other_browser(app: Flask, users: dict[str, User]) -> None:
    here, there = signed_in(app, users["sender"]), signed_in(app, users["sender"])
    answer = here.post(
        "/settings/password", {"current": PASSWORD, "password": "another quiet river", "again": "another quiet river"}
    )
    assert answer.status_code == 303
    assert still_in(here)
    assert not still_in(there)


def test_the_present_password_is_asked_for(sender: Browser) -> None:
    new = {"password": "another quiet river", "again": "another quiet river"}
    answer = sender.post("/settings/password", {"current": "guess guess guess", **new})
    assert answer.status_code == 422
    assert "Текущий пароль неверен" in answer.text


def test_a_deactivated_person_is_out_at_once(sender: Browser, users: dict[str, User]) -> None:
    User.update(active=False).where(User.id == users["sender"].id).execute()
    assert not still_in(sender)


def test_sessions_end_after_12_idle_hours(clock: Clock, sender: Browser) -> None:
    clock.tick(hours=11, minutes=59)
    assert still_in(sender)
    clock.tick(hours=12, minutes=1)
    assert not still_in(sender)


def test_sessions_end_after_30_days_however_busy(clock: Clock, sender: Browser) -> None:
    for _ in range(30 * 3 - 1):
        clock.tick(hours=8)
        assert still_in(sender)
    clock.tick(hours=8, seconds=1)
    assert not still_in(sender)


def test_sign_out_everywhere_else(app: Flask, users: dict[str, User]) -> None:
    here, there = signed_in(app, users["viewer"]), signed_in(app, users["viewer"])
    assert "Где выполнен вход" in here.page("/settings")
    here.post("/settings/sessions/end")
    assert still_in(here)
    assert not still_in(there)


def test_signing_in_begins_a_new_session_and_a_new_csrf_token(stranger: Browser) -> None:
    before = stranger.csrf()
    sign_in(stranger)
    assert stranger.client.post("/logout", headers={"X-CSRFToken": before}).status_code == 400


def test_the_table_keeps_only_hashes_of_tokens(app: Flask, users: dict[str, User]) -> None:
    token = people.begin_session(users["viewer"], "", "")
    assert token not in db.value("SELECT token_hash FROM login_session")


def test_an_ended_session_moves_the_whole_window_never_a_panel(sender: Browser) -> None:
    LoginSession.delete().execute()
    answer = sender.partial("/settings", headers={"HX-Current-URL": "http://localhost/broadcasts?page=2"})
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login?next=/broadcasts?page%3D2"
    assert "Сеанс завершён, войдите снова" in sender.page("/login")


# ---- cookies


def test_the_cookie_is_closed_to_scripts_and_other_sites(stranger: Browser) -> None:
    cookie = sign_in(stranger).headers["Set-Cookie"]
    assert cookie.startswith("molva=")
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie
    assert "Secure" not in cookie


def test_under_https_the_cookie_is_secure_and_bound_to_the_host(stranger: Browser) -> None:
    cookie = stranger.client.get("/login", base_url="https://localhost").headers["Set-Cookie"]
    assert cookie.startswith("__Host-molva=")
    assert "Secure" in cookie and "Domain" not in cookie


def test_forwarded_headers_of_a_stranger_are_ignored(stranger: Browser) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "evil.example"}
    assert "Secure" not in stranger.get("/login", headers=headers).headers["Set-Cookie"]


# ---- roles


def routes(app: Flask) -> list[tuple[str, str]]:
    return sorted((rule.rule, rule.endpoint) for rule in app.url_map.iter_rules())


def test_every_route_declares_who_may_call_it(app: Flask) -> None:
    with app.app_context():
        undeclared = [rule for rule, endpoint in routes(app) if auth.declared(endpoint) is None]
    assert undeclared == []


# Everything that anybody may call; a new line here wants a reason.
PUBLIC = {
    "/static/<path:name>",  # styles and scripts of the login page
    "/favicon.ico",
    "/setup",  # guarded by the one-time code
    "/language",  # one's own cookie
    "/theme",
    "/healthz",  # no data in it
    "/offline",  # nor in what a browser keeps for when the server is away
    "/offline.js",
    "/api/v1/openapi.json",  # a description of the API, without data
}
GUESTS = {
    "/login",
    "/login/code",  # after the right password
    "/logout",
    "/invitation/<token>",  # whoever holds the link
}


def test_only_the_listed_routes_are_public(app: Flask) -> None:
    with app.app_context():
        roles = {rule: auth.declared(endpoint) for rule, endpoint in routes(app)}
    public = {rule for rule, role in roles.items() if role == "public"}
    assert public <= PUBLIC
    assert {rule for rule, role in roles.items() if role == "guest"} <= GUESTS


def test_a_route_without_a_declaration_is_refused(app: Flask, users: dict[str, User]) -> None:
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    assert signed_in(app, users["admin"]).get("/forgotten").status_code == 403


@pytest.mark.parametrize("needed", ROLES)
@pytest.mark.parametrize("has", ROLES)
def test_a_role_may_what_the_ones_below_it_may(app: Flask, users: dict[str, User], needed: str, has: str) -> None:
    app.add_url_rule("/needs", "needs", auth.role(needed)(lambda: "fine"))
    answer = signed_in(app, users[has]).get("/needs")
    if ROLES.index(has) >= ROLES.index(needed):
        assert answer.text == "fine"
    else:
        assert answer.status_code == 403
        assert "Для этого нужна роль" in answer.text


def test_strangers_reach_no_page(app: Flask, stranger: Browser) -> None:
    with app.app_context():
        closed = [rule for rule, endpoint in routes(app) if auth.declared(endpoint) in ROLES]
    for rule in closed:
        if "<" not in rule and not rule.startswith(("/api/", "/metrics")):  # machines come with a token
            answer = stranger.get(rule)
            assert answer.status_code in (302, 405), rule
            if answer.status_code == 302:
                assert answer.headers["Location"].startswith("/login"), rule


def test_a_cookie_does_not_open_the_api_and_a_token_does_not_open_pages(app: Flask, admin: Browser) -> None:
    app.add_url_rule("/api/v1/needs", "api_needs", auth.role("viewer")(lambda: auth.me().name))
    bearer = {"Authorization": f"Bearer {make.token('admin', 'robot')}"}
    assert admin.get("/api/v1/needs").status_code == 401
    assert app.test_client().get("/api/v1/needs", headers=bearer).text == "token robot"
    assert app.test_client().get("/settings", headers=bearer).status_code == 302


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic bW9sdmE6", "bearer molva_x"])
def test_a_wrong_token_gets_401_in_json(app: Flask, users: dict[str, User], header: str) -> None:
    app.add_url_rule("/api/v1/needs", "api_needs", auth.role("viewer")(lambda: "fine"))
    answer = app.test_client().get("/api/v1/needs", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json is not None
    assert answer.json["error"]["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_tokens_expire_and_can_be_revoked(database: object, clock: Clock) -> None:
    token = people.create_token("nightly", "viewer", actor="test")
    assert people.token_identity(token) is not None
    assert token not in db.value("SELECT token_hash || prefix FROM api_token")
    clock.tick(days=366)
    assert people.token_identity(token) is None
    other = people.create_token("other", "viewer", actor="test")
    assert people.revoke_token("other", actor="test") == 1
    assert people.token_identity(other) is None
