"""What every answer carries, errors included; CSRF on every change; host names; readable errors."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from flask import Flask

from tests.people import PASSWORD, Browser, signed_in
from webapp import auth
from worker import logs
from worker.models import LoginSession, User
from worker.settings import Settings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ROOT = Path(__file__).parents[2]


def crash() -> str:
    raise ZeroDivisionError("the recipe of the sauce")


@pytest.fixture
def faulty(app: Flask) -> Flask:
    """The application as it runs for people: a fault becomes a page."""
    app.testing = False
    app.add_url_rule("/crash", "crash", auth.public(crash), methods=["GET", "POST"])
    app.add_url_rule("/api/v1/crash", "api_crash", auth.public(crash))
    return app


@pytest.mark.parametrize(
    "path",
    [
        "/login",
        "/settings",
        "/no-such-page",
        "/static/app.css",
        "/static/nothing.css",
        "/healthz",
        "/crash",
        "/api/v1/nothing",
        "/logout",
        "/favicon.ico",
        "/hooks/nobody",
    ],
)
def test_every_answer_is_guarded(faulty: Flask, stranger: Browser, path: str) -> None:
    answer = stranger.get(path)
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in answer.headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in answer.headers


def test_every_answer_has_the_number_of_its_request(
    faulty: Flask, stranger: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    caplog.handler.addFilter(lambda record: seen.append(logs.request_id.get()) or True)
    numbers = [stranger.get(path).headers["X-Request-ID"] for path in ("/login", "/crash", "/api/v1/nothing")]
    assert len(set(numbers)) == 3 and numbers[1] in seen
    assert logs.request_id.get() == ""
    foreign = stranger.get("/login", headers={"X-Request-ID": "chosen-by-a-stranger"})
    assert foreign.headers["X-Request-ID"] != "chosen-by-a-stranger"


@pytest.mark.parametrize(("given", "kept"), [("4bf92f3577b34da6", True), ("a b", False), ("x" * 65, False)])
def test_a_trusted_proxy_brings_its_own_number(database: Settings, given: str, kept: bool) -> None:
    from dataclasses import replace

    from webapp import create_app

    app = create_app(replace(database, trusted_proxies=1))
    answer = app.test_client().get("/healthz", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept


def test_https_is_remembered_where_it_is_spoken(stranger: Browser) -> None:
    answer = stranger.client.get("/login", base_url="https://localhost")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize("path", ["/login", "/settings", "/no-such-page", "/"])
def test_pages_are_never_kept_and_differ_by_cookie_and_by_htmx(sender: Browser, path: str) -> None:
    answer = sender.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert {"Cookie", "HX-Request"} <= set(answer.vary)


def test_pages_hold_no_inline_script_style_or_handler(admin: Browser, stranger: Browser) -> None:
    for text in (admin.page("/settings"), stranger.page("/login"), admin.get("/nope").text):
        assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on|javascript:|js:", text)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_templates_never_switch_escaping_off() -> None:
    for path in (ROOT / "templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|\bMarkup\b|\sstyle=|hx-on|\son[a-z]+=|\bjs:", text), path
    for path in (ROOT / "webapp").rglob("*.py"):
        assert not re.search(r"\bMarkup\(|render_template_string", path.read_text(encoding="utf-8")), path


# ---- CSRF


def unsafe_routes(app: Flask) -> list[tuple[str, str]]:
    found = []
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(("/api/", "/hooks/")):
            continue  # a bearer token, a signature: nothing that a foreign page could send along
        path = re.sub(r"<any\((\w+)[^>]*>", r"\1", rule.rule)
        path = re.sub(r"<(?:[^:>]+:)?[^>]+>", "1", path)
        found += [(method, path) for method in (rule.methods or set()) & set(auth.UNSAFE)]
    return sorted(found)


@pytest.mark.parametrize("token", ["", "nonsense"])
def test_no_change_without_the_right_csrf_token(app: Flask, admin: Browser, token: str) -> None:
    assert unsafe_routes(app)
    before = LoginSession.select().count()
    for method, path in unsafe_routes(app):
        if path == "/setup":
            continue  # gone once there is an administrator
        for sent in ({"data": {"csrf_token": token}}, {"headers": {"X-CSRFToken": token}}):
            answer = admin.client.open(path, method=method, **sent)
            assert answer.status_code == 400, f"{method} {path}"
    assert LoginSession.select().count() == before


def test_the_token_of_another_login_does_not_fit(app: Flask, users: dict[str, User]) -> None:
    mine, theirs = signed_in(app, users["sender"]), signed_in(app, users["viewer"])
    answer = mine.client.post("/logout", headers={"X-CSRFToken": theirs.csrf()})
    assert answer.status_code == 400
    assert "Форма устарела" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_change_from_another_site_is_refused_even_with_the_token(sender: Browser, headers: dict[str, str]) -> None:
    assert sender.post("/theme", {"theme": "dark"}, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}])
def test_a_change_from_our_own_page_is_made(sender: Browser, headers: dict[str, str]) -> None:
    assert sender.post("/theme", {"theme": "dark"}, headers=headers).status_code == 303


# ---- host names


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7"])
def test_known_hosts_are_served(stranger: Browser, host: str) -> None:
    assert stranger.client.get("/login", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "a@b", "localhost.evil"]
)
def test_unknown_hosts_are_refused(stranger: Browser, host: str) -> None:
    assert stranger.client.get("/login", headers={"Host": host}).status_code == 400


def test_the_public_address_is_a_known_host(database: Settings, users: dict[str, User]) -> None:
    from dataclasses import replace

    from webapp import create_app

    app = create_app(replace(database, base_url="https://molva.example.org"))
    assert app.test_client().get("/login", headers={"Host": "molva.example.org"}).status_code == 200


# ---- errors that people can read


def test_a_fault_is_logged_under_the_number_that_the_page_shows(
    faulty: Flask, stranger: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="molva.web"):
        answer = stranger.get("/crash")
    assert answer.status_code == 500
    found = re.search(r"мы её записали: №\s([0-9a-f]{8})", answer.text)
    assert found is not None and found[1] in caplog.text
    assert "sauce" not in answer.text and "Traceback" not in answer.text


def test_errors_speak_the_language_of_the_browser(faulty: Flask, stranger: Browser) -> None:
    english = {"Accept-Language": "en-GB,en;q=0.9"}
    assert "Page not found" in stranger.get("/nope", headers=english).text
    assert "Server error, recorded as no." in stranger.get("/crash", headers=english).text


@pytest.mark.parametrize(
    ("came_from", "back"),
    [
        ("http://localhost/channels?page=2", 'href="/channels?page=2"'),
        ("http://localhost/nope", ""),
        ("http://localhost//evil.example", ""),
        ("https://evil.example/channels", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_an_error_leads_back_to_the_page_of_ours_that_led_to_it(sender: Browser, came_from: str, back: str) -> None:
    page = sender.get("/nope", headers={"Referer": came_from}).text
    assert back in page and ("Назад" in page) is bool(back)
    assert "evil.example" not in page


def test_a_fault_offers_to_try_again_and_a_stranger_to_sign_in(
    faulty: Flask, sender: Browser, stranger: Browser
) -> None:
    assert 'href=""' in sender.get("/crash").text
    lost = stranger.get("/nope").text
    assert "Войти" in lost and "рассыл" not in lost.lower()


def test_htmx_gets_a_toast_instead_of_a_page(faulty: Flask, stranger: Browser) -> None:
    answer = stranger.partial("/crash")
    assert answer.status_code == 500
    assert '"level": "error"' in answer.headers["HX-Trigger"]
    assert answer.headers["HX-Trigger"].isascii()
    assert "<html" not in answer.text


@pytest.mark.parametrize(("path", "status", "code"), [("/nothing", 404, "not_found"), ("/crash", 500, "server_error")])
def test_the_api_gets_json(faulty: Flask, stranger: Browser, path: str, status: int, code: str) -> None:
    answer = stranger.get(f"/api/v1{path}")
    assert answer.status_code == status
    assert answer.json is not None
    assert answer.json["error"]["code"] == code
    assert "sauce" not in answer.text


def test_a_wrong_method_is_refused_and_told_the_right_ones(sender: Browser) -> None:
    answer = sender.get("/logout")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_a_body_that_is_too_large_gets_a_readable_answer(sender: Browser) -> None:
    body = {"file": (b"x" * 13 * 1024 * 1024).decode()}
    page = sender.post("/theme", body)
    assert page.status_code == 413
    assert "Файл больше 10\u00a0МБ" in page.text
    fragment = sender.post("/theme", body, htmx=True)
    assert fragment.headers["HX-Retarget"] == "find [data-upload-error]"
    assert "<html" not in fragment.text


def test_a_form_of_too_many_parts_is_refused(sender: Browser) -> None:
    parts = {f"field{n}": "x" for n in range(1100)}
    answer = sender.post("/theme", parts, content_type="multipart/form-data")
    assert answer.status_code == 413


# ---- language and theme


def test_the_language_follows_the_browser_then_the_choice(sender: Browser) -> None:
    assert '<html lang="ru"' in sender.page("/settings")
    assert '<html lang="en"' in sender.page("/settings", headers={"Accept-Language": "en"})
    assert '<html lang="ru"' in sender.page("/settings", headers={"Accept-Language": "de"})
    answer = sender.post("/language", {"language": "en", "next": "/settings?x=1"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/settings?x=1")
    assert '<html lang="en"' in sender.page("/settings", headers={"Accept-Language": "ru"})


def test_the_language_stays_with_the_account(app: Flask, sender: Browser, users: dict[str, User]) -> None:
    sender.post("/language", {"language": "en"})
    assert '<html lang="en"' in signed_in(app, users["sender"]).page("/settings")


def test_shortcuts_are_on_until_a_person_switches_them_off(viewer: Browser) -> None:
    assert 'data-shortcuts="on"' in viewer.page("/settings")
    viewer.post("/shortcuts", {"shortcuts": "nonsense"})
    assert 'data-shortcuts="on"' in viewer.page("/settings")
    viewer.post("/shortcuts", {"shortcuts": "off"})
    assert 'data-shortcuts="off"' in viewer.page("/settings")


def test_the_theme_is_kept_in_a_cookie(stranger: Browser) -> None:
    assert "data-theme" not in stranger.page("/login").split(">")[1]
    answer = stranger.post("/theme", {"theme": "dark", "next": "//evil.example"})
    assert answer.headers["Location"] == "/"
    assert 'data-theme="dark"' in stranger.page("/login")


@pytest.mark.parametrize(("path", "field"), [("/language", "language"), ("/theme", "theme")])
def test_a_choice_that_does_not_exist_changes_nothing(stranger: Browser, path: str, field: str) -> None:
    answer = stranger.post(path, {field: "<script>"})
    assert answer.status_code == 303
    assert "molva_" not in str(answer.headers.getlist("Set-Cookie"))


def test_what_a_stranger_typed_is_shown_as_text(stranger: Browser) -> None:
    answer = stranger.post("/login", {"email": '"><script>alert(1)</script>', "password": PASSWORD})
    assert "<script>alert" not in answer.text
