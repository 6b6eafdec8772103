"""Behind a real nginx with TLS, set up by the very lines of the README."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import tls
from tests.gateways.kannel import free_ports, listens
from tests.journeys.conftest import Caller
from tests.people import PASSWORD
from tests.product import Product, wait
from tests.readme import block
from worker import channels, db
from worker.models import Callback, LoginSession

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
EMAIL = "anna@example.org"


@dataclass
class Front:
    """What people reach: nginx at `url`, Molva behind it."""

    product: Product
    url: str
    plain: str
    certificate: Path

    def browser(self) -> requests.Session:
        return self.trusting(requests.Session())

    def trusting(self, session: requests.Session) -> requests.Session:
        """Let a session trust our certificate, whatever the environment says."""
        session.trust_env, session.verify = False, str(self.certificate)
        return session


def configuration(folder: Path, certificate: Path, secure: int, plain: int, behind: str) -> str:
    """The README's lines with our ports and certificate, and what a server of one's own needs around them."""
    servers = block("nginx")
    for said, ours in (
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        ("https://$host$request_uri", f"https://$host:{secure}$request_uri"),
        ("http://127.0.0.1:8000", behind),
    ):
        assert servers.count(said) == 1, said
        servers = servers.replace(said, ours)
    servers = re.sub(r"/etc/letsencrypt/live/\S+\.pem", str(certificate), servers)
    servers = servers.replace("molva.example.org", "127.0.0.1")
    temporary = "".join(
        f"{name}_temp_path {folder / name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    log = f"log_format ours '$request_id $status'; access_log {folder / 'access.log'} ours;"
    return (
        f"{user} daemon off; pid {folder / 'nginx.pid'}; error_log {folder / 'error.log'}; events {{}}"
        f" http {{ {temporary} {log}\n{servers} }}"
    )


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if NGINX is None:
        if os.environ.get("MOLVA_TEST_REQUIRE") == "1":
            pytest.fail("needs nginx: apt-get install nginx")
        pytest.skip("needs nginx: apt-get install nginx")
    folder = tmp_path_factory.mktemp("nginx")
    secure, plain = free_ports(2)
    certificate = tls.certificate(folder)
    url = f"https://127.0.0.1:{secure}"
    product = Product(folder / "data", MOLVA_BASE_URL=url, MOLVA_TRUSTED_PROXIES="1")
    product.start()
    # What the server prints is its public address now; it listens where it did before.
    behind = product.url
    config = folder / "nginx.conf"
    config.write_text(configuration(folder, certificate, secure, plain, behind))
    server = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait(lambda: listens(secure), 10)
        yield Front(product, url, f"http://127.0.0.1:{plain}", certificate)
    finally:
        server.terminate()
        server.wait(10)
        assert product.stop() == 0


def csrf(page: str) -> str:
    return page.split('"X-CSRFToken": "')[1].split('"')[0]


@pytest.fixture(scope="module")
def anna(front: Front) -> requests.Session:
    """The first administrator, made through the pages with the printed code, signed in."""
    browser = front.browser()
    browser.headers["X-Forwarded-For"] = "203.0.113.9"  # what a stranger would claim
    page = browser.get(f"{front.url}/setup", timeout=10).text
    form = {"code": front.product.code, "email": EMAIL, "password": PASSWORD, "again": PASSWORD}
    made = browser.post(
        f"{front.url}/setup",
        data={**form, "csrf_token": csrf(page)},
        headers={"Origin": front.url},
        allow_redirects=False,
        timeout=20,
    )
    assert made.status_code == 303, made.text
    return browser


@pytest.fixture(scope="module")
def caller(front: Front) -> Caller:
    made = Caller(front.product)
    front.trusting(made.session)
    front.product.url = front.url  # everything goes through nginx from here on
    return made


def test_plain_http_leads_to_https(front: Front) -> None:
    answer = requests.get(f"{front.plain}/login?next=/x", allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{front.url}/login?next=/x")


def test_signing_in_leaves_a_cookie_for_https_alone(front: Front, anna: requests.Session) -> None:
    browser = front.browser()
    page = browser.get(f"{front.url}/login", timeout=10)
    answer = browser.post(
        f"{front.url}/login",
        data={"email": EMAIL, "password": PASSWORD, "csrf_token": csrf(page.text)},
        headers={"Origin": front.url},
        allow_redirects=False,
        timeout=20,
    )
    cookie = answer.headers["Set-Cookie"]
    assert answer.status_code == 303 and answer.headers["Location"].startswith(("/", front.url))
    assert cookie.startswith("__Host-molva=") and {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(
        cookie.split("; ")
    )
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert browser.get(f"{front.url}/settings", timeout=10).status_code == 200


def test_a_change_from_another_site_is_refused(front: Front, anna: requests.Session) -> None:
    page = anna.get(f"{front.url}/settings", timeout=10).text
    form = {"theme": "dark", "csrf_token": csrf(page)}
    for origin, status in (("https://evil.example", 403), (front.url, 303)):
        answer = anna.post(
            f"{front.url}/theme", data=form, headers={"Origin": origin}, allow_redirects=False, timeout=10
        )
        assert answer.status_code == status, origin


def test_the_address_is_the_one_that_nginx_saw(front: Front, anna: requests.Session) -> None:
    anna.get(f"{front.url}/settings", timeout=10)
    db.open_database(front.product.settings)
    with db.connection():
        assert {row.address for row in LoginSession.select()} == {"127.0.0.1"}
    db.close()


def test_a_foreign_host_name_is_refused(front: Front) -> None:
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example"}):
        answer = front.browser().get(f"{front.url}/login", headers=headers, timeout=10)
        assert answer.status_code == (400 if "Host" in headers else 200)
        assert "evil.example" not in answer.text


def test_both_logs_speak_of_the_same_request(front: Front) -> None:
    number = front.browser().get(f"{front.url}/login", timeout=10).headers["X-Request-ID"]
    log = front.product.settings.data.with_name("access.log")
    wait(lambda: number in log.read_text(), 5)


def test_a_file_of_ten_megabytes_gets_through_and_a_larger_one_is_told_why(front: Front, caller: Caller) -> None:
    number = caller.draft("sandbox_sms", text="Hi")
    size = 10 * 1024 * 1024
    lines = b"phone,note\n" + b"".join(b"+7901%07d,%s\n" % (n, b"x" * 980) for n in range(10_500))
    file = caller.upload(number, lines[:size].rsplit(b"\n", 1)[0] + b"\n")
    assert (file["state"], file["accepted"] > 10_000) == ("ready", True)
    refused = caller.call(
        "POST", f"/broadcasts/{number}/files", 413, files={"file": ("a.csv", lines + b"\n" * 300_000)}
    )
    assert refused["error"]["code"] == "file_too_large"


def test_the_live_part_polls_over_one_connection(front: Front, anna: requests.Session, caller: Caller) -> None:
    number = caller.draft("sandbox_sms", text="Hi", rate_per_minute=60)
    caller.upload(number, b"".join(b"+7901%07d\n" % n for n in range(30)))
    caller.press(number, "start")
    url = f"{front.url}/broadcasts/{number}/live"
    headers = {"HX-Request": "true", "HX-Current-URL": f"{front.url}/broadcasts/{number}"}
    seen = []
    for _ in range(5):
        answer = anna.get(url, headers=headers, timeout=10)
        seen.append(answer.status_code)
        assert answer.headers["Cache-Control"] == "no-store" and "<html" not in answer.text
        time.sleep(0.3)
    assert set(seen) <= {200, 204} and 200 in seen
    caller.press(number, "stop")


@pytest.mark.parametrize(("sign", "status"), [(True, 200), (False, 403)])
def test_callbacks_are_checked_over_the_bytes_that_the_provider_sent(front: Front, sign: bool, status: int) -> None:
    settings = front.product.settings
    db.open_database(settings)
    account: dict[str, Any] = next(a for a in channels.sandbox_accounts(settings) if a["provider"] == "sandbox_waba")
    body = json.dumps({"object": "whatsapp_business_account", "entry": [], "spaces": "  é  "}, indent=3).encode()
    secret = account["settings"]["app_secret"] if sign else "another"
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    answer = front.browser().post(
        f"{front.url}/hooks/{account['key']}",
        data=body,
        headers={"X-Hub-Signature-256": f"sha256={signature}", "Content-Type": "application/json"},
        timeout=10,
    )
    assert answer.status_code == status
    with db.connection():
        kept = [bytes(row.body) for row in Callback.select()]
    db.close()
    assert (body in kept) is True if sign else kept.count(body) <= 1
