"""Files for the headers of templates: uploaded once at the provider, named by their id for as long as it keeps them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import Clock
from tests.people import Browser
from worker import channels, db, media
from worker.models import Audit, Channel, Media
from worker.providers.base import LATER, SendError
from worker.providers.meta import CloudApi
from worker.settings import Settings

JPEG, PNG, PDF = b"\xff\xd8\xff\xe0 picture", b"\x89PNG\r\n\x1a\n picture", b"%PDF-1.7 words"
MP4, GP = b"\0\0\0\x18ftypmp42 film", b"\0\0\0\x18ftyp3gp5 film"
ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def waba(database: Settings, settings: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[0]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bytes, str, str]]]:
    found: list[tuple[bytes, str, str]] = []

    def upload(_provider: CloudApi, data: bytes, mime: str, name: str) -> str:
        found.append((data, mime, name))
        return f"90{len(found)}"

    monkeypatch.setattr(CloudApi, "upload", upload)
    yield found


def send(browser: Browser, channel: Channel, data: bytes, name: str = "sale.jpg") -> Any:
    given = {"file": (io.BytesIO(data), name)}
    return browser.post(f"/channels/{channel.id}/media", given, content_type="multipart/form-data", headers=ENGLISH)


@pytest.mark.parametrize(
    ("data", "mime"),
    [(JPEG, "image/jpeg"), (PNG, "image/png"), (PDF, "application/pdf"), (MP4, "video/mp4"), (GP, "video/3gpp")],
)
def test_the_content_says_what_a_file_is(data: bytes, mime: str) -> None:
    assert media.kind_of(data) == mime
    assert media.kind_of(b"<html>" + data) == ""


def test_an_uploaded_file_is_listed_with_its_id_while_the_provider_keeps_it(
    sender: Browser, waba: Channel, taken: list[tuple[bytes, str, str]], frozen: Clock
) -> None:
    assert send(sender, waba, JPEG, "Летняя распродажа.jpg").status_code == 303
    assert taken == [(JPEG, "image/jpeg", "Летняя распродажа.jpg")]
    page = sender.page(f"/channels/{waba.id}", headers=ENGLISH)
    assert 'data-copy="901"' in page and "Летняя распродажа.jpg" in page
    assert [row.action for row in Audit.select() if row.action == "channel.media"] == ["channel.media"]
    frozen.tick(days=31)
    Media.update(at=frozen.ms - media.LIFE - 1).execute()
    assert media.living(waba.id) == []


def test_what_no_header_can_show_is_refused_in_words(sender: Browser, waba: Channel) -> None:
    assert send(sender, waba, b"MZ program", "sale.jpg").status_code == 303
    page = sender.page(f"/channels/{waba.id}", headers=ENGLISH)
    assert "notice" in page or "toast" in page
    assert not Media.select().exists()


def test_a_provider_that_is_away_loses_nothing(sender: Browser, waba: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> str:
        raise SendError(LATER, "connect_failed")

    monkeypatch.setattr(CloudApi, "upload", away)
    send(sender, waba, JPEG)
    assert "The provider is unreachable" in sender.page(f"/channels/{waba.id}", headers=ENGLISH)
    assert not Media.select().exists()


def test_only_channels_with_headers_take_files(
    sender: Browser, viewer: Browser, settings: Settings, waba: Channel
) -> None:
    with db.connection():
        sms = channels.ensure_sandbox(settings)[1]
    assert send(sender, sms, JPEG).status_code == 404
    assert send(viewer, waba, JPEG).status_code == 403
    assert "media-file" not in sender.page(f"/channels/{sms.id}")


def test_a_program_uploads_as_well(
    client: FlaskClient, api: dict[str, Any], waba: Channel, taken: list[tuple[bytes, str, str]]
) -> None:
    url, sender = f"/api/v1/channels/{waba.id}/media", api["sender"]
    answer = client.post(url, data={"file": (io.BytesIO(PNG), "a.png")}, headers=sender)
    assert answer.status_code == 201
    made = answer.json or {}
    assert (made["id"], made["mime"]) == ("901", "image/png")
    assert made["expires_at"] == Media.get().at + media.LIFE
    assert client.post(url, headers=sender).status_code == 422
