"""What many people look at is drawn once, and never shows what a person has already changed."""

from __future__ import annotations

from html import unescape

import pytest
from flask import Flask, request

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import broadcasts, clock, counters, db, people
from worker.models import Broadcast, LoginSession, User
from worker.settings import Settings


def test_numbers_are_a_second_old_at_most_and_a_stop_is_seen_at_once(viewer: Browser, frozen: Clock) -> None:
    make.worker()
    row = make.broadcast(state="running")
    file = make.file(row)
    make.messages(file, "sent", "queued", "queued")
    url = f"/broadcasts/{row.id}/live"
    first = viewer.partial(url).text
    with db.write():
        counters.add({(row.id, row.run, file.id, "queued"): -1, (row.id, row.run, file.id, "sent"): 1})
    assert viewer.partial(url).text == first
    frozen.tick(seconds=1)
    second = viewer.partial(url).text
    assert second != first
    broadcasts.stop(Broadcast.get_by_id(row.id), "somebody")
    assert "somebody" in viewer.partial(url).text


def test_buttons_are_drawn_for_whom_they_are(viewer: Browser, sender: Browser, frozen: Clock) -> None:
    row = make.broadcast(state="running")
    make.messages(make.file(row), "queued")
    url = f"/broadcasts/{row.id}/live"
    assert "<form" in sender.partial(url).text
    assert "<form" not in viewer.partial(url).text


def test_what_stands_still_is_drawn_anew(viewer: Browser, frozen: Clock) -> None:
    row = make.broadcast(state="stopped", stop_reason="person", stop_detail={"by": "Ann"})
    file = make.file(row)
    make.messages(file, "uncertain")
    url = f"/broadcasts/{row.id}/live"
    first = viewer.partial(url).text
    with db.write():
        counters.add({(row.id, row.run, file.id, "uncertain"): -1, (row.id, row.run, file.id, "sent"): 1})
    assert viewer.partial(url).text != first


# ---- polls that are answered before Flask


@pytest.fixture
def poll(frozen: Clock, database: Settings) -> str:
    """The address of a running broadcast's live part."""
    row = make.broadcast(state="running")
    make.messages(make.file(row), "sent", "queued")
    return f"/broadcasts/{row.id}/live"


@pytest.fixture
def drawn(app: Flask) -> list[str]:
    """The paths that Flask was asked for."""
    asked: list[str] = []
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: asked.append(request.path))
    return asked


def test_flask_is_asked_once_while_nothing_changes(poll: str, viewer: Browser, frozen: Clock, drawn: list[str]) -> None:
    first = viewer.partial(poll)
    again = [viewer.partial(poll) for _ in range(3)]
    assert drawn == [poll]
    assert {(answer.status_code, answer.text) for answer in again} == {(200, first.text)}
    assert all(dict(answer.headers) == dict(first.headers) for answer in again)


def test_a_poll_with_the_mark_of_what_is_shown_gets_no_body(poll: str, viewer: Browser, drawn: list[str]) -> None:
    text = viewer.partial(poll).text
    mark = unescape(text.split("mark=")[1].split('"')[0])
    answer = viewer.partial(f"{poll}?mark={mark}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert drawn == [poll]


@pytest.mark.parametrize("what", ["signed out", "deactivated", "promoted", "other language", "session too old"])
def test_whoever_changes_is_looked_at_anew(
    poll: str, viewer: Browser, frozen: Clock, users: dict[str, User], drawn: list[str], what: str
) -> None:
    first = viewer.partial(poll).text
    match what:
        case "signed out":
            LoginSession.delete().execute()
        case "deactivated":
            User.update(active=False).where(User.id == users["viewer"].id).execute()
        case "promoted":
            User.update(role="sender").where(User.id == users["viewer"].id).execute()
        case "other language":
            User.update(language="en").where(User.id == users["viewer"].id).execute()
        case "session too old":
            LoginSession.update(last_at=clock.now() - people.SESSION_IDLE - 1).execute()
    answer = viewer.partial(poll)
    assert drawn == [poll, poll]
    assert answer.text != first
    assert answer.status_code == (200 if what in ("promoted", "other language") else 401)


def test_a_browser_that_says_something_else_is_looked_at_anew(poll: str, viewer: Browser, drawn: list[str]) -> None:
    viewer.partial(poll)
    assert viewer.partial(poll, headers={"Host": "elsewhere.example"}).status_code == 400
    forged = viewer.client.application.test_client(use_cookies=False)
    assert forged.get(poll, headers={"HX-Request": "true", "Cookie": "molva=forged"}).status_code == 401
    viewer.client.get(poll)
    viewer.partial("/broadcasts/99/live")
    assert len(drawn) == 5


def test_two_people_see_their_own_buttons(poll: str, viewer: Browser, sender: Browser, drawn: list[str]) -> None:
    for _ in range(3):
        assert "<form" not in viewer.partial(poll).text
        assert "<form" in sender.partial(poll).text
    assert len(drawn) <= 3, "the sender's first answer gave it its token"
