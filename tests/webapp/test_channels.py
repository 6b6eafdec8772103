"""The pages of channels: whether they work, and their templates."""

from __future__ import annotations

import pytest

from tests import make
from tests.people import Browser
from webapp.sandbox import MAGIC
from worker import channels, clock
from worker.models import Channel
from worker.providers.base import SendError
from worker.settings import Settings

ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def sandbox(settings: Settings, database: Settings) -> dict[str, Channel]:
    return {channel.kind: channel for channel in channels.ensure_sandbox(settings)}


def test_the_list_names_every_channel_and_its_state(sender: Browser, sandbox: dict[str, Channel]) -> None:
    make.channel(name="Broken", state="stopped", stop_reason="190", stopped_at=clock.now())
    page = sender.page("/channels", headers=ENGLISH)
    assert all(channel.name in page for channel in sandbox.values())
    assert "Out of use" in page and "The access key is refused" in page


def test_a_sandbox_channel_explains_its_special_numbers(sender: Browser, sandbox: dict[str, Channel]) -> None:
    for channel in sandbox.values():
        page = sender.page(f"/channels/{channel.id}", headers=ENGLISH).replace("\u00a0", " ")
        for special in MAGIC:
            assert f"{special.phone[-4:-2]}-{special.phone[-2:]}" in page


def test_secrets_do_not_come_back(admin: Browser, sandbox: dict[str, Channel], settings: Settings) -> None:
    for channel in sandbox.values():
        page = admin.page(f"/channels/{channel.id}")
        secrets = channels.vault.unseal(settings, channel.secrets)
        assert secrets and not any(value in page for value in secrets.values())


def test_a_stopped_channel_is_switched_on_by_a_person(sender: Browser, database: Settings) -> None:
    channel = make.channel(state="stopped", stop_reason="190", stopped_at=clock.now())
    assert f"/channels/{channel.id}/on" in sender.page(f"/channels/{channel.id}")
    assert sender.post(f"/channels/{channel.id}/on").status_code == 303
    assert Channel.get_by_id(channel.id).state == "on"


@pytest.mark.parametrize("deed", ["check", "templates"])
def test_a_provider_that_does_not_answer_is_said_and_cured(
    sender: Browser, sandbox: dict[str, Channel], deed: str
) -> None:
    answer = sender.post(f"/channels/{sandbox['waba'].id}/{deed}", htmx=True, headers=ENGLISH)
    assert answer.status_code == 200
    page = sender.page(f"/channels/{sandbox['waba'].id}", headers=ENGLISH)
    assert "The provider is unreachable" in page  # nothing listens in a test


def test_sms_channels_have_no_templates(sender: Browser, sandbox: dict[str, Channel]) -> None:
    assert sender.post(f"/channels/{sandbox['sms'].id}/templates", headers=ENGLISH).status_code == 303
    assert "no templates" in sender.page(f"/channels/{sandbox['sms'].id}", headers=ENGLISH)


def test_what_is_found_is_told(sender: Browser, sandbox: dict[str, Channel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "sync_templates", lambda settings, channel_id: 3)
    sender.post(f"/channels/{sandbox['waba'].id}/templates", headers=ENGLISH)
    assert "3 templates found" in sender.page(f"/channels/{sandbox['waba'].id}", headers=ENGLISH)

    def refused(settings: Settings, channel_id: int) -> int:
        raise SendError("stop_channel", "190", detail="expired")

    monkeypatch.setattr(channels, "sync_templates", refused)
    sender.post(f"/channels/{sandbox['waba'].id}/templates", headers=ENGLISH)
    assert "The access key is refused" in sender.page(f"/channels/{sandbox['waba'].id}", headers=ENGLISH)


def test_viewers_have_no_business_with_channels(viewer: Browser, sandbox: dict[str, Channel]) -> None:
    assert viewer.get("/channels").status_code == 403
    assert "/channels" not in viewer.page("/broadcasts")
