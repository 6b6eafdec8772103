"""Every act has exactly one line: who, what, of what, from where."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests import make
from tests.conftest import Clock
from tests.people import PASSWORD, Browser, signed_in
from worker import db
from worker.models import Audit, Channel, User

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """Time stands before anybody signs in."""


def since(number: int) -> list[tuple[str, str, str]]:
    """(who, what, of what) of the lines after that one."""
    found = Audit.select().where(Audit.id > number).order_by(Audit.id)
    return [(a.actor, a.action, a.subject) for a in found]


def last() -> int:
    return db.value("SELECT COALESCE(max(id), 0) FROM audit")


def test_sign_ins_good_and_bad(app: Flask, stranger: Browser, users: dict[str, User]) -> None:
    before = last()
    environ = {"environ_base": {"REMOTE_ADDR": "203.0.113.9"}}
    stranger.post("/login", {"email": "sender@example.org", "password": "wrong wrong wrong"}, **environ)
    stranger.post("/login", {"email": "nobody@example.org", "password": "wrong wrong wrong"}, **environ)
    stranger.post("/login", {"email": "sender@example.org", "password": PASSWORD}, **environ)
    stranger.forget_csrf()
    stranger.post("/logout")
    assert since(before) == [
        ("sender@example.org", "login.failed", ""),
        ("", "login.failed", ""),
        ("sender@example.org", "login", ""),
        ("sender@example.org", "logout", ""),
    ]
    assert [a.address for a in Audit.select().where(Audit.action << ["login.failed", "login"])] == ["203.0.113.9"] * 3
    assert "wrong wrong" not in str(db.rows("SELECT * FROM audit"))
    assert "nobody@" not in str(db.rows("SELECT * FROM audit"))  # it may be a password, typed into the wrong field


def test_a_broadcast_from_its_making_to_its_clearing(sender: Browser) -> None:
    channel, before, who = make.channel(), last(), "sender@example.org"
    form = {"name": "N", "channel_id": str(channel.id), "kind": "sms", "text": "Hi", "rate_per_minute": "60"}
    sender.post("/broadcasts/new", form)
    number = db.value("SELECT max(id) FROM broadcast")
    url = f"/broadcasts/{number}"
    sender.post(f"{url}/files", {"file": (io.BytesIO(b"phone\n+79010000001"), "a.csv")})
    file = db.value("SELECT max(id) FROM recipient_file")
    db.execute("UPDATE recipient_file SET state = 'ready', accepted = 1, run = 1 WHERE id = ?", [file])
    make.messages(make.file(db_broadcast(number)), "queued")
    for action in ("start", "stop", "resume", "clear"):
        sender.post(f"{url}/{action}")
    assert since(before) == [
        (who, "broadcast.create", str(number)),
        (who, "file.upload", str(file)),
        (who, "broadcast.start", str(number)),
        (who, "broadcast.stop", str(number)),
        (who, "broadcast.resume", str(number)),
        (who, "broadcast.clear", str(number)),
    ]
    db.execute("UPDATE broadcast SET state = 'finished' WHERE id = ?", [number])
    make.file(db_broadcast(number), accepted=1)
    sender.post(f"{url}/restart", {"who": "everyone"})
    assert since(before)[-1] == (who, "broadcast.restart", str(number))
    via = {a.via for a in Audit.select().where(Audit.actor == who, Audit.action != "login")}
    assert len(via) == 1 and via.pop().startswith("session ")


def db_broadcast(number: int) -> Any:
    from worker.models import Broadcast

    return Broadcast.get_by_id(number)


def test_a_look_at_a_full_number_is_one_line(sender: Browser) -> None:
    made = make.broadcast()
    message = make.messages(make.file(made), "sent")[0]
    before = last()
    page = sender.page(f"/broadcasts/{made.id}/report")
    assert message.phone not in page and "•••••" in page
    assert since(before) == []
    sender.get(f"/broadcasts/{made.id}/messages/{message.id}")
    assert since(before) == [("sender@example.org", "number.view", str(message.id))]


@pytest.mark.parametrize("role", ["viewer", "sender"])
def test_exports_are_one_line_each(app: Flask, users: dict[str, User], role: str) -> None:
    made = make.broadcast()
    make.messages(make.file(made), "sent")
    browser, before = signed_in(app, users[role]), 0
    before = last()
    assert browser.get(f"/broadcasts/{made.id}/report.csv").status_code == 200
    assert since(before) == [(f"{role}@example.org", "report.export", str(made.id))]


def test_an_api_token_is_named_by_its_beginning(app: Flask, users: dict[str, User]) -> None:
    token = make.token("sender", "nightly")
    made = make.broadcast(state="running")
    app.test_client().post(f"/api/v1/broadcasts/{made.id}/stop", headers={"Authorization": f"Bearer {token}"})
    found = Audit.select().order_by(Audit.id.desc()).get()
    assert (found.actor, found.action, found.via) == ("token nightly", "broadcast.stop", token[:12])


def test_where_one_came_from_does_not_stay_for_the_next(app: Flask, sender: Browser) -> None:
    from worker import audit

    sender.get("/settings")
    assert audit.origin.get() == audit.Origin()


def test_the_page_lists_finds_and_pages(admin: Browser) -> None:
    with db.write():
        db.many(
            "INSERT INTO audit (at, actor, action, subject, address, via) VALUES (?, ?, ?, ?, '10.0.0.1', '')",
            [(1_793_869_200_000 + n, f"robot{n % 2}", "broadcast.start", f"n{n}") for n in range(250)],
        )
    page = admin.page("/audit?actor=robot1&action=broadcast.")
    assert "n249<" in page and "n248<" not in page and "Рассылка запущена" in page and "10.0.0.1" in page
    following = page.split('class="pages"')[1].split('href="')[1].split('"')[0].replace("&amp;", "&")
    assert "n49<" in admin.page(following) and "n51<" not in admin.page(following)
    assert "n249<" not in admin.page("/audit?until=2026-11-04")
    assert "n249<" in admin.page("/audit?since=2026-11-05&until=2026-11-05")
    assert admin.get("/audit?since=nonsense&until=9999-12-31").status_code == 200
    assert admin.get("/audit?after=x").status_code == 404


def test_strange_names_stay_text(admin: Browser, stranger: Browser) -> None:
    with db.write():
        db.execute(
            "INSERT INTO audit (at, actor, action, subject, address, via)"
            " VALUES (0, '<script>alert(1)</script>', '=1+1', '@SUM(A1)', '', '')"
        )
    assert "<script>alert" not in admin.page("/audit")
    text = admin.get("/audit/audit.csv").data.decode("utf-8-sig")
    assert "'=1+1" in text and "'@SUM" in text


def test_the_export_holds_every_line_of_the_filter(admin: Browser) -> None:
    with db.write():
        db.many(
            "INSERT INTO audit (at, actor, action, subject, address, via) VALUES (?, 'robot', 'x', '', '', '')",
            [(n,) for n in range(2_500)],
        )
    text = admin.get("/audit/audit.csv?actor=robot").data.decode("utf-8-sig")
    assert text.count("\r\n") == 2_501
    assert Audit.select().order_by(Audit.id.desc()).get().action == "audit.export"


def test_every_action_has_words() -> None:
    """What the code records, found in the code itself."""
    from webapp import words

    source = "\n".join(p.read_text(encoding="utf-8") for f in ("worker", "webapp") for p in (ROOT / f).rglob("*.py"))
    named = set(re.findall(r"audit\.(?:record|note)\([^()]*(?:\([^()]*\)[^()]*)*?, \"([a-z_.]+)\"", source))
    named |= {f"broadcast.{action}" for action in ("schedule", "start", "stop", "resume", "clear", "restart")}
    named |= {"message.sent", "message.resend"}
    assert len(named) > 40
    assert named - set(words.AUDIT_ACTIONS) == set()
    assert {a for a in named if not any(a.startswith(g) for g in words.AUDIT_GROUPS)} <= {
        "confirm.failed", "audit.export", "data.restore"
    }  # fmt: skip


def test_the_page_says_what_was_done_in_words(admin: Browser) -> None:
    from worker import audit

    made = make.broadcast()
    channel = make.channel(name="Gone")
    Channel.update(state="deleted").where(Channel.id == channel.id).execute()
    audit.note("token nightly", "report.export", str(made.id), run=None, masked=False)
    audit.note("anna", "number.view", "+79000000010", of="stop list")
    audit.note("anna", "channel.edit", str(channel.id), fields=["per_day", "api_key"])
    audit.note("anna", "broadcast.stop_list", str(made.id), of=7, n=1200)
    audit.note("anna", "token.create", "nightly", role="viewer", areas=[])
    page = admin.page("/audit", headers={"Accept-Language": "en"})
    assert f'<a href="/broadcasts/{made.id}">broadcast no. {made.id}</a>' in page
    assert "token “nightly”" in page and "Phones: whole" in page and "Where: the stop list" in page
    assert f"<td>channel no. {channel.id}</td>" in page and "Changed: Messages per day, API key" in page
    assert "broadcast no. 7 · How many: 1,200" in page and "Role: viewer<" in page
    assert "null" not in page.split("<tbody>")[1] and "<code" not in page.split("<tbody>")[1]
    assert 'title="report.export"' in page
