"""The pages of channels: setting them up, whether they work, and their templates."""

from __future__ import annotations

import dataclasses
import re

import pytest
from flask import Flask

from tests import make
from tests.fictional import Fictional, given, typed
from tests.people import Browser, signed_in
from webapp import words
from webapp.sandbox_numbers import MAGIC
from worker import channels, clock
from worker.models import Broadcast, Channel, MessageTemplate, User
from worker.providers import PROVIDERS
from worker.providers.base import Finding, SendError
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


def test_a_check_says_what_it_found_in_place_or_as_a_page(sender: Browser, sandbox: dict[str, Channel]) -> None:
    number = sandbox["waba"].id
    answer = sender.post(f"/channels/{number}/check", htmx=True, headers=ENGLISH)
    assert answer.status_code == 200 and "<html" not in answer.text
    plain = sender.post(f"/channels/{number}/check", headers=ENGLISH)
    assert plain.status_code == 200 and "<html" in plain.text
    for text in (answer.text, plain.text):
        assert "The provider is unreachable" in text  # nothing listens in a test
        assert "Wait: " not in text  # nobody repeats it


def test_templates_of_a_provider_that_does_not_answer_are_said_and_cured(
    sender: Browser, sandbox: dict[str, Channel]
) -> None:
    answer = sender.post(f"/channels/{sandbox['waba'].id}/templates", htmx=True, headers=ENGLISH)
    assert answer.status_code == 200
    assert "The provider is unreachable" in sender.page(f"/channels/{sandbox['waba'].id}", headers=ENGLISH)


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


# ---- a new one


KEY = "good-key-0123456789"


@pytest.fixture(autouse=True)
def fictional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "fictional", Fictional)


@pytest.fixture
def ours(settings: Settings, database: Settings) -> Channel:
    return channels.add(settings, given(), "anna")


def made() -> Channel:
    """The only channel of the fictional provider."""
    found: Channel = Channel.get(Channel.provider == "fictional")
    return found


def test_a_provider_is_chosen_among_those_that_exist(admin: Browser, sandbox: dict[str, Channel]) -> None:
    page = admin.page("/channels/new", headers=ENGLISH)
    assert page.index("WhatsApp Cloud API") < page.index("Fictional gateway")
    assert "Straight to Meta" in page and "SMS sandbox" not in page  # there is one already
    assert admin.get("/channels/new?provider=nobody").status_code == 404
    assert admin.get("/channels/new?provider=sandbox_sms").status_code == 404


def test_the_form_is_drawn_from_the_fields_of_the_provider(admin: Browser) -> None:
    page = admin.page("/channels/new?provider=fictional", headers=ENGLISH)
    for field in Fictional.fields:
        assert f'name="setting-{field.name}"' in page
    assert len(re.findall(r"<details class=\"fold\">", page)) == 4  # request, outcome, report, advanced
    assert ">API key<" in page and ">Knob<" in page  # words where there are some, else the readable name
    assert page.count('type="password"') == 3 and 'name="per_second"' in page
    part = admin.partial("/channels/new/fields?provider=fictional")
    assert "<html" not in part.text and 'id="setting-api_key"' in part.text


def test_every_setting_of_every_provider_has_words_of_its_own() -> None:
    for key in PROVIDERS.keys() - {"fictional"}:
        assert {f.name for f in PROVIDERS[key].fields} <= words.SETTINGS.keys(), key
        assert key in words.PROVIDER_HINTS


def test_a_channel_is_made_by_the_form(admin: Browser, settings: Settings) -> None:
    answer = admin.post("/channels/new", typed(per_day="1 000", price="4,5", currency="rub", sender="Molva"))
    channel = made()
    assert (answer.status_code, answer.location) == (303, f"/channels/{channel.id}")
    assert (channel.name, channel.per_second, channel.per_day, channel.price) == ("Ours", 5.0, 1000, 4.5)
    assert channel.settings["sender"] == "Molva" and channel.settings["flash"] is False
    assert channels.all_settings(settings, channel)["api_key"] == KEY


def test_a_problem_stands_beside_its_field_and_what_was_typed_stays(admin: Browser) -> None:
    wrong = typed(base_url="http://10.1.2.3", recipe="nonsense", name="", sender="Typed")
    answer = admin.post("/channels/new", wrong, headers=ENGLISH)
    assert answer.status_code == 422 and not Channel.select().where(Channel.provider == "fictional").exists()
    assert "Enter a name" in answer.text and 'value="Typed"' in answer.text
    assert KEY not in answer.text  # a secret is typed again
    again = admin.post("/channels/new", {**wrong, "name": "Ours"}, headers=ENGLISH).text
    assert "10.1.2.3 is not a public address" in again and "MOLVA_ALLOWED_PRIVATE_HOSTS" in again
    third = admin.post("/channels/new", typed(recipe="nonsense"), headers=ENGLISH).text
    assert "This line cannot be read: “nonsense”" in third
    assert '<details class="fold" open>' in third  # the fold that has the problem


# ---- changed


def test_a_secret_is_shown_by_its_end_and_kept_while_it_is_empty(
    admin: Browser, ours: Channel, settings: Settings
) -> None:
    page = admin.page(f"/channels/{ours.id}/edit", headers=ENGLISH)
    assert "ends with …6789" in page and KEY not in page
    assert admin.post(f"/channels/{ours.id}/edit", typed(api_key="", name="New name")).status_code == 303
    changed = Channel.get_by_id(ours.id)
    assert changed.name == "New name" and channels.all_settings(settings, changed)["api_key"] == KEY
    admin.post(f"/channels/{ours.id}/edit", typed(api_key="good-other-key-1"))
    assert channels.all_settings(settings, Channel.get_by_id(ours.id))["api_key"] == "good-other-key-1"


def test_an_optional_secret_can_be_taken_away(admin: Browser, ours: Channel, settings: Settings) -> None:
    admin.post(f"/channels/{ours.id}/edit", typed(spare_key="a spare one for later"))
    assert 'name="forget-spare_key"' in admin.page(f"/channels/{ours.id}/edit")
    admin.post(f"/channels/{ours.id}/edit", {**typed(), "forget-spare_key": "y"})
    assert channels.all_settings(settings, Channel.get_by_id(ours.id))["spare_key"] == ""


def test_the_sandbox_keeps_its_settings(admin: Browser, sandbox: dict[str, Channel], settings: Settings) -> None:
    number = sandbox["sms"].id
    before = channels.all_settings(settings, sandbox["sms"])
    assert "setting-" not in admin.page(f"/channels/{number}/edit")
    assert admin.post(f"/channels/{number}/edit", {"name": "Trial", "per_second": "7"}).status_code == 303
    changed = Channel.get_by_id(number)
    assert (changed.name, changed.per_second) == ("Trial", 7.0)
    assert channels.all_settings(settings, changed) == before


def test_credentials_under_another_key_are_said_and_not_lost(admin: Browser, database: Settings) -> None:
    channel = make.channel(provider="fictional", secrets=b"sealed by nobody")
    assert "cannot be read with the present secret key" in admin.page(f"/channels/{channel.id}", headers=ENGLISH)
    assert admin.page("/channels") and admin.page(f"/channels/{channel.id}/edit")
    assert admin.post(f"/channels/{channel.id}/edit", typed()).status_code == 422
    assert bytes(Channel.get_by_id(channel.id).secrets) == b"sealed by nobody"


# ---- what an administrator copies


def test_addresses_and_our_own_keys_are_for_administrators_to_copy(
    admin: Browser, sender: Browser, ours: Channel, settings: Settings
) -> None:
    page = admin.page(f"/channels/{ours.id}", headers=ENGLISH)
    secret = channels.generated(settings, ours)["webhook_secret"]
    assert f'data-copy="/hooks/{ours.key}/status"' in page and f'data-copy="{secret}"' in page
    assert "MOLVA_BASE_URL" in page and KEY not in page
    seen = sender.page(f"/channels/{ours.id}", headers=ENGLISH)
    assert ours.key not in seen and secret not in seen


def test_a_request_is_shown_without_its_secrets(admin: Browser, sender: Browser, ours: Channel) -> None:
    page = admin.page(f"/channels/{ours.id}")
    assert "X-Key: •••" in page and "to=+79001234567" in page and KEY not in page
    assert "X-Key" not in sender.page(f"/channels/{ours.id}")


def test_whether_people_can_reply_is_told(admin: Browser, ours: Channel, settings: Settings) -> None:
    assert "impossible" not in admin.page("/channels", headers=ENGLISH)
    channels.change(settings, ours, {"settings": {"sender": "Molva"}}, "anna")
    assert "impossible" in admin.page("/channels", headers=ENGLISH)
    assert "the sender is a name" in admin.page(f"/channels/{ours.id}", headers=ENGLISH)


def test_a_channel_in_trouble_says_since_when_and_what_it_waits_for(sender: Browser, ours: Channel) -> None:
    now = clock.now()
    Channel.update(opened_at=now - 60_000, per_day=100).where(Channel.id == ours.id).execute()
    page = sender.page(f"/channels/{ours.id}/health", headers=ENGLISH)
    assert "<html" not in page and "has not responded since" in page and "0 of 100" in page
    assert sender.post(f"/channels/{ours.id}/on").status_code == 303
    Channel.update(slow_until=now + 60_000).where(Channel.id == ours.id).execute()
    assert "asks to wait until" in sender.page(f"/channels/{ours.id}/health", headers=ENGLISH)


def test_the_callback_address_is_registered_at_the_provider(
    app: Flask, users: dict[str, User], ours: Channel, settings: Settings
) -> None:
    admin = signed_in(app, users["admin"])
    assert "MOLVA_BASE_URL" in admin.post(f"/channels/{ours.id}/register", htmx=True).text
    house = app.extensions["molva"]
    house.settings = dataclasses.replace(settings, base_url="http://localhost")
    assert f"/channels/{ours.id}/register" in admin.page(f"/channels/{ours.id}")
    answer = admin.post(f"/channels/{ours.id}/register", htmx=True, headers=ENGLISH)
    assert "now sends its callbacks" in answer.text
    assert Fictional.registered[-1] == f"http://localhost/hooks/{ours.key}/status"


def test_every_finding_has_its_level_in_words(sender: Browser, ours: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Finding("ok", "account_found", "<b>Anna</b>"), Finding("error", "http_401")]
    monkeypatch.setattr(Fictional, "findings", found)
    text = sender.post(f"/channels/{ours.id}/check", htmx=True, headers=ENGLISH).text
    assert 'aria-label="Fine"' in text and 'aria-label="Wrong"' in text
    assert "&lt;b&gt;Anna" in text and "The access key is refused" in text


# ---- switched off, deleted


def test_what_an_administrator_switched_off_only_one_switches_on(
    admin: Browser, sender: Browser, ours: Channel
) -> None:
    assert "No broadcast is running through it" in admin.partial(f"/channels/{ours.id}/off", headers=ENGLISH).text
    assert admin.post(f"/channels/{ours.id}/off").status_code == 303
    page = sender.page(f"/channels/{ours.id}", headers=ENGLISH)
    assert "Switched off: admin@example.org" in page and f"/channels/{ours.id}/on" not in page
    assert sender.post(f"/channels/{ours.id}/on").status_code == 403
    assert admin.post(f"/channels/{ours.id}/on").status_code == 303
    assert Channel.get_by_id(ours.id).state == "on"


def test_deleting_asks_first_and_is_refused_while_a_broadcast_needs_it(admin: Browser, ours: Channel) -> None:
    draft = make.broadcast(channel=ours, name="Sale")
    url = f"/channels/{ours.id}/delete"
    assert "cannot be deleted yet" in admin.partial(url, headers=ENGLISH).text
    admin.post(url, headers=ENGLISH)
    assert "needs this channel: “Sale”" in admin.page(f"/channels/{ours.id}", headers=ENGLISH)
    Broadcast.update(state="finished").where(Broadcast.id == draft.id).execute()
    assert admin.post(url).location == "/channels"
    assert admin.get(f"/channels/{ours.id}").status_code == 404
    assert ours.name not in admin.page("/channels").split("<table")[-1]
    assert ours.name in admin.page(f"/broadcasts/{draft.id}")  # its report still names it


def test_callbacks_of_a_deleted_channel_have_no_address(admin: Browser, ours: Channel) -> None:
    make.broadcast(channel=ours, state="finished")
    admin.post(f"/channels/{ours.id}/delete")
    assert admin.client.post(f"/hooks/{ours.key}/status", data=b"{}").status_code == 404


@pytest.mark.parametrize("path", ["new", "new/fields", "{id}/edit", "{id}/delete", "{id}/off"])
def test_only_administrators_set_channels_up(sender: Browser, ours: Channel, path: str) -> None:
    url = f"/channels/{path.format(id=ours.id)}"
    assert sender.get(url).status_code == 403
    if path != "new/fields":
        assert sender.post(url, typed()).status_code == 403
    assert "/channels/new" not in sender.page("/channels")


def test_a_channel_in_use_says_so_before_it_is_deleted(admin: Browser, database: Settings) -> None:
    channel = make.channel()
    row = make.broadcast(channel=channel, state="running", name="Autumn sale")
    question = admin.partial(f"/channels/{channel.id}/delete", headers=ENGLISH).text
    assert "Autumn sale" in question and "<form" not in question
    row.delete_instance(recursive=True)
    assert "<form" in admin.partial(f"/channels/{channel.id}/delete", headers=ENGLISH).text


def test_a_check_that_tried_nothing_does_not_say_that_it_works(
    sender: Browser, database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = make.channel()
    found = [Finding("warning", "not_checkable")]
    monkeypatch.setattr(channels, "check", lambda settings, row: found)
    text = sender.post(f"/channels/{channel.id}/check", htmx=True, headers=ENGLISH).text
    assert "was not tried" in text and "The connection works" not in text
    found.append(Finding("ok", "account_found", "Ann"))
    assert "The connection works" in sender.post(f"/channels/{channel.id}/check", htmx=True, headers=ENGLISH).text


def test_the_sandbox_keeps_its_name_for_every_language(admin: Browser, sandbox: dict[str, Channel]) -> None:
    waba = sandbox["waba"]
    url = f"/channels/{waba.id}/edit"
    assert 'value="Песочница WABA"' in admin.page(url)
    admin.post(url, typed(name="Песочница WABA", per_day="10"))
    assert (Channel.get_by_id(waba.id).name, Channel.get_by_id(waba.id).per_day) == (waba.name, 10)


def test_templates_have_their_state_in_words(sender: Browser) -> None:
    channel = make.channel(kind="waba", provider="sandbox_waba")
    for status in ("APPROVED", "NEW_TO_US"):
        MessageTemplate.create(
            channel=channel, name=status, language="ru", status=status, category="UTILITY", components=[], synced_at=0
        )
    page = sender.page(f"/channels/{channel.id}", headers=ENGLISH)
    assert "</svg>Approved</span>" in page and "</svg>NEW_TO_US</span>" in page and "<td>utility</td>" in page
