"""What many people look at is drawn once, and never shows what a person has already changed."""

from __future__ import annotations

from tests import make
from tests.conftest import Clock
from tests.people import Browser
from worker import broadcasts, counters, db
from worker.models import Broadcast


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
