"""Channels: made, changed, deleted, switched off, asked; and their credentials under a new key."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests import make
from tests.fictional import Fictional, given
from worker import broadcasts, channel_health, channels, clock, db, vault
from worker.models import Audit, Broadcast, Callback, Channel, Conversation, Departure, MessageTemplate
from worker.problems import Invalid
from worker.providers import PROVIDERS
from worker.providers.base import Finding, SendError
from worker.settings import Settings


@pytest.fixture(autouse=True)
def fictional(database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "fictional", Fictional)


@pytest.fixture
def channel(settings: Settings) -> Channel:
    return channels.add(settings, given(), "anna")


def audit() -> list[tuple[str, str, object]]:
    return [(row.actor, row.action, row.detail) for row in Audit.select().order_by(Audit.id)]


# ---- made and changed


def test_a_channel_is_stored_with_its_secrets_sealed(settings: Settings, channel: Channel) -> None:
    assert (channel.kind, channel.provider, channel.state, channel.per_second) == ("sms", "fictional", "on", 5.0)
    assert b"good-key" not in bytes(channel.secrets) and "api_key" not in channel.settings
    assert channels.all_settings(settings, channel)["api_key"] == "good-key-0123456789"
    assert not any(name.startswith("_") for name in channels.all_settings(settings, channel))
    assert audit() == [("anna", "channel.create", {"name": "Ours", "provider": "fictional"})]


def test_the_audit_log_has_the_names_of_what_changed_and_no_values(settings: Settings, channel: Channel) -> None:
    changes = {"name": "New", "settings": {"api_key": "good-new-key-000", "sender": "Molva"}}
    changed = channels.change(settings, channel, changes, "boris")
    assert audit()[-1] == ("boris", "channel.edit", {"fields": ["api_key", "name", "sender"]})
    assert channels.all_settings(settings, changed)["api_key"] == "good-new-key-000"
    assert changed.key == channel.key and changed.settings["base_url"] == channel.settings["base_url"]


def test_channels_of_one_account_know_each_other(settings: Settings) -> None:
    values = {"access_token": "x" * 20, "app_secret": "y" * 20, "waba_id": "5", "base_url": "https://93.184.216.34"}
    made = [
        channels.add(
            settings, {"provider": "whatsapp_cloud", "name": n, "settings": {**values, "phone_number_id": n}}, "anna"
        )
        for n in ("1", "2")
    ]
    assert channels.of_account(made[0].id) == [one.id for one in made]
    channels.change(settings, made[1], {"settings": {"waba_id": "6"}}, "anna")
    assert channels.of_account(made[0].id) == [made[0].id]


def test_nothing_changed_is_nothing_done(settings: Settings, channel: Channel) -> None:
    same = channels.change(settings, channel, {"name": "Ours", "settings": {"api_key": ""}}, "boris")
    assert bytes(same.secrets) == bytes(channel.secrets) and len(audit()) == 1


def test_a_running_worker_notices_new_settings(settings: Settings, channel: Channel) -> None:
    kept = channels.Providers(settings)
    before = kept.get(channel)
    assert kept.get(Channel.get_by_id(channel.id)) is before
    changed = channels.change(settings, channel, {"settings": {"api_key": "good-new-key-000"}}, "boris")
    assert kept.get(changed).settings["api_key"] == "good-new-key-000"


def test_only_what_we_made_up_may_be_copied(settings: Settings, channel: Channel) -> None:
    shown = channels.generated(settings, channel)
    assert list(shown) == ["webhook_secret"] and len(shown["webhook_secret"]) >= 32
    own = channels.change(settings, channel, {"settings": {"webhook_secret": "from the vendor"}}, "anna")
    assert channels.generated(settings, own) == {}
    assert channels.endings(settings, own) == {"api_key": "6789", "webhook_secret": "ndor"}


def test_of_a_short_secret_nothing_is_shown(settings: Settings, channel: Channel) -> None:
    short = channels.change(settings, channel, {"settings": {"api_key": "good12"}}, "anna")
    assert channels.endings(settings, short)["api_key"] == ""


# ---- deleted


@pytest.mark.parametrize("state", ["draft", "scheduled", "running", "stopped"])
def test_a_channel_that_a_broadcast_needs_is_not_deleted(channel: Channel, state: str) -> None:
    make.broadcast(channel=channel, state=state, name="Sale")
    with pytest.raises(channels.InUse) as refused:
        channels.delete(channel, "anna")
    assert (refused.value.number, refused.value.names) == (1, ["Sale"])
    assert Channel.get_by_id(channel.id).state == "on"


def test_a_channel_that_nothing_speaks_of_is_gone(channel: Channel) -> None:
    MessageTemplate.create(
        channel=channel, name="a", language="ru", status="APPROVED", category="UTILITY", components=[], synced_at=0
    )
    channels.delete(channel, "anna")
    assert Channel.get_or_none(Channel.id == channel.id) is None
    assert audit()[-1] == ("anna", "channel.delete", {"name": "Ours"})


def test_a_channel_that_a_conversation_speaks_of_is_hidden(channel: Channel) -> None:
    facts = {"state": "open", "last_in_at": 1, "last_at": 1, "last_text": "", "last_direction": "in", "created_at": 1}
    Conversation.create(channel_id=channel.id, phone="+79010000001", unread=0, **facts)
    channels.delete(channel, "anna")
    assert Channel.get_by_id(channel.id).state == "deleted"


def test_a_channel_with_reports_is_hidden_and_its_secrets_are_wiped(settings: Settings, channel: Channel) -> None:
    done = make.broadcast(channel=channel, state="finished")
    channels.delete(channel, "anna")
    hidden = Channel.get_by_id(channel.id)
    assert (hidden.state, hidden.secrets) == ("deleted", None)
    assert list(channels.living()) == []
    with pytest.raises(Invalid, match="channel_deleted"):
        broadcasts.restart(Broadcast.get_by_id(done.id), "everyone", "anna")
    draft = make.broadcast(channel=hidden)
    assert next(p.code for p in broadcasts.problems(draft)) == "channel_deleted"
    with pytest.raises(Invalid, match="channel_unknown"):
        broadcasts.create(settings, {"name": "x", "channel_id": channel.id, "text": "x", "rate_per_minute": 60}, "a")
    channels.switch_on(channel.id, "anna")
    with db.write():
        channels.trust(channel.id)
        channels.stop(channel.id, "190")
    assert Channel.get_by_id(channel.id).state == "deleted"


def test_a_deleted_sandbox_comes_back_as_it_was(settings: Settings) -> None:
    sms = channels.ensure_sandbox(settings)[1]
    with pytest.raises(Invalid, match="sandbox_exists"):
        channels.add(settings, {"provider": "sandbox_sms", "name": "Second"}, "anna")
    channels.delete(sms, "anna")
    assert [c.id for c in channels.ensure_sandbox(settings)][1] == sms.id and sms.id not in {
        c.id for c in channels.living()
    }
    back = channels.add(settings, {"provider": "sandbox_sms"}, "anna")
    assert (back.id, back.state, bytes(back.secrets)) == (sms.id, "on", bytes(sms.secrets))
    with pytest.raises(Invalid, match="sandbox_fixed"):
        channels.change(settings, back, {"settings": {"token": "mine"}}, "anna")


# ---- switched off and on


def test_what_a_person_switched_off_no_resume_switches_on(channel: Channel) -> None:
    channels.switch_off(channel.id, "anna")
    off = Channel.get_by_id(channel.id)
    assert (off.state, off.stop_reason, off.stop_detail["by"]) == ("stopped", "channel_off", "anna")
    with db.write():
        channels.trust(channel.id)
    assert Channel.get_by_id(channel.id).state == "stopped"
    channels.switch_on(channel.id, "boris")
    assert Channel.get_by_id(channel.id).state == "on"
    assert [(actor, action) for actor, action, _detail in audit()[1:]] == [
        ("anna", "channel.off"),
        ("boris", "channel.on"),
    ]


def test_switching_twice_is_one_deed(channel: Channel) -> None:
    for _again in range(2):
        channels.switch_off(channel.id, "anna")
    for _again in range(2):
        channels.switch_on(channel.id, "anna")
    assert [action for _actor, action, _detail in audit()] == ["channel.create", "channel.off", "channel.on"]


# ---- asked


@pytest.fixture
def fault() -> Iterator[None]:
    kept = Fictional.findings
    yield
    Fictional.findings = kept


@pytest.mark.parametrize(
    ("error", "code"),
    [(SendError("stop_channel", "http_401", "no"), "http_401"), (ZeroDivisionError("the recipe"), "internal")],
)
def test_whatever_goes_wrong_with_a_check_is_a_finding(
    settings: Settings, channel: Channel, fault: None, error: Exception, code: str
) -> None:
    Fictional.findings = error
    assert [(f.level, f.code) for f in channels.check(settings, channel)] == [("error", code)]


def test_a_check_under_the_wrong_key_says_so(settings: Settings, channel: Channel) -> None:
    other = Settings(data=settings.data, secret_key="another key that did not seal anything here")
    assert channels.check(other, channel) == [Finding("error", "credentials_locked")]


def test_a_call_that_takes_too_long_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(SendError, match="timeout"):
        channels.in_time(never.wait, 0.01)
    never.set()


def test_callbacks_are_registered_where_the_server_knows_its_address(settings: Settings, channel: Channel) -> None:
    assert [f.code for f in channels.register(settings, channel, "anna")] == ["no_base_url"]
    public = Settings(data=settings.data, secret_key=settings.secret_key, base_url="https://molva.example.org")
    assert channels.register(public, channel, "anna") == [Finding("ok", "webhook_registered")]
    assert Fictional.registered[-1] == f"https://molva.example.org/hooks/{channel.key}/status"
    bad = channels.change(settings, channel, {"settings": {"api_key": "bad-key-00000000"}}, "anna")
    assert [f.code for f in channels.register(public, bad, "anna")] == ["http_401"]
    assert [detail for _actor, action, detail in audit() if action == "channel.register"] == [
        {"done": True},
        {"done": False},
    ]


# ---- health


def test_the_health_is_that_of_this_channel(channel: Channel, clock_now: int) -> None:
    other = make.channel()
    now = clock.now()
    for one, n in ((channel, 5), (other, 70)):
        Departure.insert(channel_id=one.id, minute=now // clock.MINUTE, n=n).execute()
        Departure.insert(channel_id=one.id, minute=now // clock.MINUTE - 2_000, n=1_000).execute()
    make.broadcast(channel=channel, last_sent_at=now - 5)
    Callback.create(channel_id=channel.id, body=b"", received_at=now - 7)
    Callback.create(channel_id=other.id, body=b"", received_at=now)
    Channel.update(slow_until=now + 60_000, opened_at=now - 90).where(Channel.id == channel.id).execute()
    found = channel_health.of(Channel.get_by_id(channel.id))
    assert found == (now - 90, now + 60_000, now - 7, now - 5, 5)
    assert not found.hopeless


# ---- a new key


def test_credentials_are_sealed_again_with_the_newest_key(settings: Settings, channel: Channel) -> None:
    old = settings.secret_key
    make.channel(name="Foreign", secrets=b"sealed by nobody")
    both = Settings(data=settings.data, secret_key=f"{'n' * 40}\n{old}")
    assert channels.reseal(both) == (1, ["Foreign"])
    new = Settings(data=settings.data, secret_key="n" * 40)
    assert channels.all_settings(new, Channel.get_by_id(channel.id))["api_key"] == "good-key-0123456789"
    with pytest.raises(vault.VaultError):
        channels.all_settings(settings, Channel.get_by_id(channel.id))


def test_a_sealing_that_breaks_off_changes_nothing(
    settings: Settings, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = channels.add(settings, given(), "anna")
    seal, left = vault.seal, [1]

    def broken(house: Settings, value: dict[str, object]) -> bytes:
        if not left:
            raise OSError("power cut")
        left.pop()
        return seal(house, value)

    monkeypatch.setattr(vault, "seal", broken)
    both = Settings(data=settings.data, secret_key=f"{'n' * 40}\n{settings.secret_key}")
    with pytest.raises(OSError, match="power cut"):
        channels.reseal(both)
    for one in (channel, second):
        assert channels.all_settings(settings, Channel.get_by_id(one.id))["api_key"] == "good-key-0123456789"


def test_a_thread_without_a_connection_gets_its_provider(settings: Settings, channel: Channel) -> None:
    """As the short path of callbacks asks for it."""
    found: list[object] = []
    providers = channels.Providers(settings)
    thread = threading.Thread(target=lambda: found.append(providers.get(channel)))
    thread.start()
    thread.join(10)
    assert found == [providers.get(channel)]
