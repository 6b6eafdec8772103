"""Recipient files on the pages: what the check found, another way of reading, removal."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.people import Browser
from worker import broadcasts, channels, recipients
from worker.models import Broadcast, RecipientFile
from worker.settings import Settings

LIST = "телефон;имя\r\n89010000001;Анна\r\n+79010000002;\r\n123;Пётр\r\n\r\n89010000001;Анна\r\n".encode("cp1251")


@pytest.fixture
def draft(settings: Settings, database: Settings) -> Broadcast:
    sms = channels.ensure_sandbox(settings)[1]
    values = {"name": "Sale", "channel_id": sms.id, "text": "{{ имя }}, привет", "rate_per_minute": 60}
    return broadcasts.create(settings, values, "test")


def upload(who: Browser, row: Broadcast, data: bytes, **options: bool) -> RecipientFile | None:
    """Drop a file and let the worker check it."""
    known = {file.id for file in RecipientFile.select()}
    form = {"file": (io.BytesIO(data), "список.csv")}
    who.post(f"/broadcasts/{row.id}/files", form, content_type="multipart/form-data", **options)
    file = RecipientFile.select().where(RecipientFile.id.not_in(known)).first()
    if file is not None:
        check(row, file)
    return RecipientFile.get_by_id(file.id) if file is not None else None


def check(row: Broadcast, file: RecipientFile) -> None:
    from worker import tasks

    settings = tasks._Process.settings
    assert settings is not None
    recipients.check(file.id, None, broadcasts.content(row), True, settings.uploads)


def test_every_bad_row_is_named_and_the_numbers_add_up(sender: Browser, draft: Broadcast) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None and file.state == "ready"
    page = sender.page(f"/broadcasts/{draft.id}/files/{file.id}", headers={"Accept-Language": "ru"})
    assert "Строк: 5. Принято: 1, дублей: 1, с ошибкой: 2, в стоп-листе:\u00a00, пустых:\u00a01" in page
    for sentence in ("Строка 3: пусто в столбце «имя»", "Строка 4:", "Строка 6: дубль"):
        assert sentence in page, sentence
    assert "cp1251" in page and "89010000001 → +79010000001" in page
    table = sender.get(f"/broadcasts/{draft.id}/files/{file.id}/errors.csv").data.decode("utf-8-sig")
    assert len(table.splitlines()) == 1 + 3  # blank rows are counted, not listed


def test_a_file_is_checked_in_the_background_and_polls_until_then(sender: Browser, draft: Broadcast) -> None:
    form = {"file": (io.BytesIO(LIST), "a.csv")}
    answer = sender.post(f"/broadcasts/{draft.id}/files", form, htmx=True, content_type="multipart/form-data")
    assert "every 1s" in answer.text
    file = RecipientFile.get()
    assert "every 1s" in sender.partial(f"/broadcasts/{draft.id}/files/{file.id}").text
    check(draft, file)
    ready = sender.partial(f"/broadcasts/{draft.id}/files/{file.id}")
    assert "every 1s" not in ready.text and "numbers-changed" in ready.headers["HX-Trigger"]


def test_another_encoding_is_tried_on_request(sender: Browser, draft: Broadcast) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None
    url = f"/broadcasts/{draft.id}/files/{file.id}/check"
    assert "cp1251" in sender.page(url)
    assert sender.post(url, {"encoding": "utf-8", "delimiter": "tab", "phone_column": ""}).status_code == 303
    assert RecipientFile.get_by_id(file.id).options == {"encoding": "utf-8", "delimiter": "\t"}
    assert sender.post(url, {"encoding": "klingon"}, htmx=True).status_code == 422


def test_a_refused_file_says_why_and_leaves_nothing_behind(
    sender: Browser, draft: Broadcast, settings: Settings
) -> None:
    answer = sender.post(
        f"/broadcasts/{draft.id}/files",
        {"file": (io.BytesIO(b""), "empty.csv")},
        htmx=True,
        content_type="multipart/form-data",
    )
    assert answer.status_code == 422 and "data-upload-error" in answer.text
    assert RecipientFile.select().count() == 0 and not list(settings.uploads.iterdir())
    file = upload(sender, draft, "город;имя\nМосква;Анна\n".encode())
    assert file is not None and (file.state, file.code) == ("refused", "no_phone_column")
    assert "Не найден столбец с телефоном" in sender.page(f"/broadcasts/{draft.id}", headers={"Accept-Language": "ru"})


def multipart(size: int) -> dict[str, Any]:
    """A body with one file of `size` bytes, as a browser sends it."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.csv"\r\n\r\n'
    return {"data": head + b"1" * size + b"\r\n--x--\r\n", "content_type": "multipart/form-data; boundary=x"}


def test_a_file_over_the_limit_is_refused_beside_its_field(sender: Browser, draft: Broadcast) -> None:
    url = f"/broadcasts/{draft.id}/files"
    big = sender.post(url, htmx=True, **multipart(10 * 1024 * 1024 + 1))
    assert big.status_code == 422 and "10" in big.text
    huge = sender.post(url, htmx=True, **multipart(13 * 1024 * 1024))
    assert huge.status_code == 413 and huge.headers["HX-Retarget"] == "find [data-upload-error]"
    assert RecipientFile.select().count() == 0


@pytest.mark.parametrize(("how", "queued"), [("keep", 1), ("remove", 0)])
def test_deleting_a_file_does_what_it_said(sender: Browser, draft: Broadcast, how: str, queued: int) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None
    url = f"/broadcasts/{draft.id}/files/{file.id}/delete"
    question = sender.page(url, headers={"Accept-Language": "ru"})
    assert "Останутся в очереди: 1" in question and "Из очереди будет убрано: 1" in question
    answer = sender.post(url, {"how": how}, htmx=True)
    assert f'id="file-{file.id}"' not in answer.text and f"/files/{file.id}/undo" in answer.text
    assert broadcasts.count(draft, 1)["queued"] == queued
    assert sender.post(url, {"how": how}, htmx=True).status_code == 200  # pressed twice
    assert sender.post(url, {"how": "shred"}, htmx=True).status_code == 422


def test_a_deletion_is_taken_back_while_that_is_offered(sender: Browser, draft: Broadcast) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None
    url = f"/broadcasts/{draft.id}/files/{file.id}"
    sender.post(f"{url}/delete", {"how": "remove"})
    assert f"{url}/undo" in sender.page(f"/broadcasts/{draft.id}")
    answer = sender.post(f"{url}/undo", htmx=True)
    assert f"{url}/undo" not in answer.text and f'id="file-{file.id}"' in answer.text and "every 1s" in answer.text
    check(draft, file)
    assert broadcasts.count(draft, 1)["queued"] == 1
    late = sender.post(f"{url}/undo", htmx=True)  # pressed twice
    assert late.status_code == 200 and json.loads(late.headers["HX-Trigger"])["toast"]["level"] == "info"
    assert sender.post(f"{url}/undo").status_code == 303


def test_what_stays_in_the_queue_after_a_deletion_is_said(sender: Browser, draft: Broadcast) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None
    sender.post(f"/broadcasts/{draft.id}/files/{file.id}/delete", {"how": "keep"})
    page = sender.page(f"/broadcasts/{draft.id}", headers={"Accept-Language": "en"})
    assert "its recipients stay in the queue: 1" in page


def test_the_same_content_again_is_said_and_allowed(sender: Browser, draft: Broadcast) -> None:
    upload(sender, draft, LIST)
    second = upload(sender, draft, LIST)
    assert second is not None and second.role == "appended"
    page = sender.page(f"/broadcasts/{draft.id}/files/{second.id}", headers={"Accept-Language": "en"})
    assert "same content" in page


def test_a_viewer_sees_no_numbers_of_people(sender: Browser, viewer: Browser, draft: Broadcast) -> None:
    file = upload(sender, draft, LIST)
    assert file is not None
    page = viewer.page(f"/broadcasts/{draft.id}/files/{file.id}")
    assert "89010000001" not in page and "/delete" not in page
    assert viewer.post(f"/broadcasts/{draft.id}/files/{file.id}/delete", {"how": "keep"}).status_code == 403


def test_a_file_of_another_broadcast_is_not_found(sender: Browser, draft: Broadcast, settings: Settings) -> None:
    file = upload(sender, draft, LIST)
    other = broadcasts.create(settings, {"name": "Other"}, "test", complete=False)
    assert file is not None
    for path in ("", "/check", "/delete", "/errors.csv"):
        assert sender.get(f"/broadcasts/{other.id}/files/{file.id}{path}").status_code == 404
