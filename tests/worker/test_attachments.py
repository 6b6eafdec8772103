"""Files that people send: fetched once, tried again patiently, kept as what they are and under names of our own."""

from __future__ import annotations

import shutil
import stat
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Clock
from worker import attachments, channels, clock, db, delivery, files
from worker.models import Attachment, Channel
from worker.providers import base
from worker.providers.sandbox_waba import SandboxWaba
from worker.settings import Settings

PNG = b"\x89PNG\r\n\x1a\n rest"
Answers = list[bytes | BaseException]


@pytest.fixture
def waba(database: Settings, settings: Settings, frozen: Clock) -> Channel:
    return channels.ensure_sandbox(settings)[0]


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What the vendor answers, one after another."""
    answers: Answers = []

    def fetch(_provider: SandboxWaba, media_id: str) -> bytes:
        found = answers.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(SandboxWaba, "fetch", fetch)
    return answers


@pytest.fixture
def look(settings: Settings) -> Callable[[], bool]:
    """One turn of the worker."""
    providers = channels.Providers(settings)
    return lambda: attachments.fetch_due(settings, providers)


def sent(channel: Channel, mime: str = "image/png", name: str = "", key: str = "in-1") -> Attachment:
    attached = (base.Attached("900", mime, name),)
    item = base.InboundMessage(key, "+79010000001", clock.now(), "image", attached=attached)
    with db.write():
        delivery.receive_inbound(channel.id, item, clock.now())
    return Attachment.get()


def fresh() -> Attachment:
    return Attachment.get()


def later(cause: str = "timeout", outcome: str = base.UNCLEAR) -> base.SendError:
    return base.SendError(outcome, cause)


def test_a_file_is_kept_for_this_account_alone_under_a_name_of_our_own(
    settings: Settings, waba: Channel, vendor: Answers, look: Callable[[], bool]
) -> None:
    sent(waba, name="../../etc/passwd")
    vendor.append(PNG)
    assert look() and not look()
    row = fresh()
    assert (row.state, row.mime, row.size, row.name) == ("ready", "image/png", len(PNG), "../../etc/passwd")
    assert files.read(settings.media / row.path) == PNG
    path = attachments.file_of(settings, row)
    if not isinstance(path, Path):
        return  # a shared database has it
    assert path.parent == settings.data / "media" and len(path.name) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_repeated_callback_brings_no_second_file(waba: Channel, vendor: Answers) -> None:
    sent(waba)
    sent(waba)
    assert Attachment.select().count() == 1


@pytest.mark.parametrize(
    ("data", "said", "mime"),
    [
        (b"\xff\xd8\xff\xe0 jpeg", "application/pdf", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", "image/webp"),
        (b"GIF89a", "", "image/gif"),
        (b"<svg onload=alert(1)>", "image/svg+xml", "application/octet-stream"),
        (b"<html>", "image/png", "application/octet-stream"),
        (b"%PDF-1.7", "application/pdf", "application/pdf"),
        (b"", "", "application/octet-stream"),
    ],
)
def test_a_picture_is_what_begins_like_one(
    waba: Channel, vendor: Answers, look: Callable[[], bool], data: bytes, said: str, mime: str
) -> None:
    sent(waba, said)
    vendor.append(data)
    look()
    assert fresh().mime == mime


def test_it_is_tried_again_with_growing_pauses_and_then_a_person_decides(
    waba: Channel, vendor: Answers, look: Callable[[], bool], frozen: Clock
) -> None:
    sent(waba)
    for pause in attachments.PAUSES:
        vendor.append(later())
        assert look() and not look()
        frozen.tick(pause - 1)
        assert not look()
        frozen.tick(1)
    vendor.append(later())
    assert look()
    assert (fresh().state, fresh().cause) == ("failed", "timeout")
    assert not look()
    assert attachments.again(fresh()) and not attachments.again(fresh())
    vendor.append(PNG)
    assert look()
    assert fresh().state == "ready"


@pytest.mark.parametrize(
    "error",
    [
        later("131052", base.REFUSED),
        later("190", base.STOP_CHANNEL),
        later("answer_too_large"),
        NotImplementedError(),
    ],
)
def test_what_another_try_cannot_mend_fails_at_once(
    waba: Channel, vendor: Answers, look: Callable[[], bool], error: Exception
) -> None:
    sent(waba)
    vendor.append(error)
    look()
    assert fresh().state == "failed" and fresh().cause


def test_a_try_that_dies_is_taken_up_by_another(
    waba: Channel, vendor: Answers, look: Callable[[], bool], frozen: Clock
) -> None:
    sent(waba)
    vendor += [KeyboardInterrupt(), PNG]
    with pytest.raises(KeyboardInterrupt):
        look()
    assert not look()
    frozen.tick(attachments.LEASE)
    assert look() and fresh().state == "ready"


def test_a_full_disk_makes_it_wait_and_uses_up_no_try(
    waba: Channel, vendor: Answers, look: Callable[[], bool], frozen: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(waba)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _path: usage(1, 1, attachments.ROOM - 1))
        for _again in range(20):
            assert look()
            frozen.tick(attachments.FULL_PAUSE)
    vendor.append(PNG)
    assert look() and (fresh().state, fresh().tries) == ("ready", 0)


def test_a_deleted_channel_brings_nothing_more(waba: Channel, vendor: Answers, look: Callable[[], bool]) -> None:
    sent(waba)
    Channel.update(state="deleted").where(Channel.id == waba.id).execute()
    look()
    assert (fresh().state, fresh().cause) == ("failed", "channel_deleted")


def test_what_is_not_here_is_not_handed_out(settings: Settings, waba: Channel) -> None:
    row = sent(waba)
    assert attachments.file_of(settings, row) is None
    facts: dict[str, Any] = {"state": "ready", "path": "gone"}
    Attachment.update(**facts).execute()
    assert attachments.file_of(settings, fresh()) is None
