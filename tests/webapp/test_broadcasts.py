"""The pages of a broadcast, in a browser without JavaScript."""

from __future__ import annotations

import io
from typing import Any

import pytest

from worker import broadcasts, channels, recipients
from worker.models import Broadcast, RecipientFile
from worker.settings import Settings


@pytest.fixture
def draft(settings: Settings, database: None) -> Broadcast:
    sms = channels.ensure_sandbox(settings)[1]
    row = broadcasts.create(
        settings, {"name": "Sale", "channel_id": sms.id, "text": "Hi {{name}}", "rate_per_minute": 60}, "test"
    )
    data = b"phone,name\n+79010000001,<b>A</b>\n123,B\n"
    file = recipients.receive(row, io.BytesIO(data), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(row), True, settings.uploads)
    return Broadcast.get_by_id(row.id)


def test_an_empty_list_offers_the_sandbox(sender: Any, settings: Settings) -> None:
    channels.ensure_sandbox(settings)
    page = sender.get("/broadcasts")
    assert page.status_code == 200
    assert "/broadcasts/try" in page.text
    assert sender.get("/broadcasts/trial.csv").status_code == 200


def test_the_form_the_page_and_the_report_open(sender: Any, draft: Broadcast) -> None:
    for path in ("new", f"{draft.id}", f"{draft.id}/edit", f"{draft.id}/report", f"{draft.id}/progress", "new?kind=waba"):
        page = sender.get(f"/broadcasts/{path}")
        assert page.status_code == 200, path
        assert "<b>A</b>" not in page.text


def test_a_wrong_form_comes_back_with_what_was_typed(sender: Any, settings: Settings, database: None) -> None:
    channels.ensure_sandbox(settings)
    page = sender.post("/broadcasts/new", data={"name": "Kept words", "kind": "sms", "rate_per_minute": "0", "text": "x"})
    assert page.status_code == 422
    assert "Kept words" in page.text and 'id="rate_per_minute-error"' in page.text
    assert Broadcast.select().count() == 0


def test_start_stop_resume_clear_by_their_buttons(sender: Any, draft: Broadcast) -> None:
    for action, state in (("start", "running"), ("stop", "stopped"), ("resume", "running"), ("clear", "draft")):
        assert sender.post(f"/broadcasts/{draft.id}/{action}").status_code == 303
        assert Broadcast.get_by_id(draft.id).state == state
    assert sender.post(f"/broadcasts/{draft.id}/stop").status_code == 303  # pressed too late: the same page
    assert Broadcast.get_by_id(draft.id).state == "draft"


def test_a_file_is_uploaded_and_deleted(sender: Any, draft: Broadcast) -> None:
    data = {"file": (io.BytesIO(b"phone,name\n+79010000009,Z\n"), "b.csv")}
    assert sender.post(f"/broadcasts/{draft.id}/files", data=data).status_code == 303
    file = RecipientFile.select().order_by(RecipientFile.id.desc()).first()
    assert sender.post(f"/broadcasts/{draft.id}/files/{file.id}/delete", data={"how": "remove"}).status_code == 303
    assert RecipientFile.get_by_id(file.id).removed_how == "remove"


def test_a_viewer_may_look_and_not_touch(viewer: Any, draft: Broadcast) -> None:
    assert viewer.get(f"/broadcasts/{draft.id}").status_code == 200
    assert viewer.post(f"/broadcasts/{draft.id}/start").status_code == 403
    assert viewer.get("/broadcasts/999").status_code == 404
