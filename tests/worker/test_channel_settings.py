"""What may be stored as a channel: every kind of field, secrets that are kept, addresses that are refused."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest

from tests.fictional import Fictional, given
from worker import channel_settings
from worker.channel_settings import GENERATED, Cleaned, Stored, clean
from worker.problems import Invalid
from worker.providers import egress
from worker.settings import Settings


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A name server that knows a few names, and no others."""
    known = {"gateway.example": "93.184.216.34", "office.example": "192.168.1.20"}

    def lookup(host: str, port: int) -> list[tuple[int, str]]:
        if host not in known:
            raise OSError("no such name")
        return [(socket.AF_INET, known[host])]

    monkeypatch.setattr(egress, "system_lookup", lookup)
    return known


def cleaned(house: Settings, stored: Stored | None = None, /, **changes: Any) -> Cleaned:
    return clean(house, Fictional, given(base_url="https://gateway.example", **changes), stored)


def problem(house: Settings, field: str, /, **changes: Any) -> str:
    """The code of the problem of this field; nothing else may be wrong."""
    with pytest.raises(Invalid) as refused:
        clean(house, Fictional, given(**{"base_url": "https://gateway.example", **changes}))
    assert list(refused.value.problems) == [field]
    return refused.value.problems[field].code


def test_what_is_not_given_gets_its_default(settings: Settings) -> None:
    found = cleaned(settings)
    assert found.columns == {"name": "Ours", "per_second": 5.0, "per_day": None, "price": None, "currency": None}
    assert found.plain["split_by"] == "sar" and found.plain["flash"] is False
    assert found.hidden["api_key"] == "good-key-0123456789" and "api_key" not in found.plain


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("api_key", "", "setting_required"),
        ("api_key", 17.5j, "not_a_text"),
        ("api_key", "two\nlines", "setting_invalid"),
        ("sender", "x" * 5_000, "setting_too_long"),
        ("sender", ["a"], "not_a_text"),
        ("port", "many", "not_a_number"),
        ("port", 1.5, "not_whole"),
        ("port", 70_000, "number_range"),
        ("port", True, "not_a_number"),
        ("flash", "yes", "not_a_boolean"),
        ("split_by", "axe", "not_a_choice"),
        ("recipe", "no sign of equality", "fault"),
        ("recipe", 5, "not_a_text"),
        ("colour", "red", "setting_unknown"),
        ("base_url", "ftp://gateway.example", "url_invalid"),
        ("base_url", "gateway.example", "url_invalid"),
        ("base_url", "https://", "url_invalid"),
        ("base_url", "https://gate way.example", "url_invalid"),
        ("base_url", "https://gateway.example:port", "url_invalid"),
        ("base_url", "https://anna:secret@gateway.example", "url_password"),
        ("base_url", "https://office.example", "address_private"),
        ("base_url", "http://127.0.0.1", "address_private"),
        ("base_url", "http://[::ffff:10.0.0.1]/", "address_private"),
        ("base_url", "http://169.254.169.254/latest", "address_private"),
        ("base_url", "https://gateway.example:25", "address_port"),
        ("url", "http://10.0.0.1/{to}", "address_private"),
    ],
)
def test_a_wrong_value_is_named(settings: Settings, field: str, value: Any, code: str) -> None:
    assert problem(settings, field, **{field: value}) == code


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("name", " ", "name_required"),
        ("name", "x" * 101, "name_too_long"),
        ("name", "a\x07", "name_invalid"),
        ("per_second", 0, "number_range"),
        ("per_second", "fast", "not_a_number"),
        ("per_second", float("nan"), "not_a_number"),
        ("per_day", 1.5, "not_whole"),
        ("per_day", 0, "number_range"),
        ("price", -1, "number_range"),
        ("currency", "roubles", "currency_invalid"),
        ("settings", [], "not_an_object"),
    ],
)
def test_what_every_channel_has_is_checked_too(settings: Settings, field: str, value: Any, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        clean(settings, Fictional, {**given(base_url="https://gateway.example"), field: value})
    assert refused.value.problems[field].code == code


def test_numbers_are_read_as_people_type_them(settings: Settings) -> None:
    values = {"per_second": "0,5", "per_day": "10 000", "price": "4,50", "currency": "rub"}
    found = clean(settings, Fictional, {**given(base_url="https://gateway.example", port="2 775"), **values})
    assert (found.columns["per_second"], found.columns["per_day"], found.columns["price"]) == (0.5, 10_000, 4.5)
    assert (found.columns["currency"], found.plain["port"]) == ("RUB", 2775)


def test_a_private_destination_needs_the_servers_word(settings: Settings) -> None:
    house = dataclasses.replace(settings, allowed_private_hosts=("office.example", "10.0.0.0/8:8080"))
    for url in ("http://office.example:9000", "http://10.1.2.3:8080"):
        assert clean(house, Fictional, given(base_url=url)).plain["base_url"] == url
    assert problem(house, "base_url", base_url="http://10.1.2.3:8081") == "address_private"


def test_a_name_that_nobody_knows_yet_is_no_problem(settings: Settings) -> None:
    assert clean(settings, Fictional, given(base_url="https://soon.example")).plain["base_url"]


def test_an_address_that_is_told_to_the_vendor_is_no_destination(settings: Settings) -> None:
    assert cleaned(settings, dlr_url="http://127.0.0.1/{status_url}").plain["dlr_url"]


def test_an_empty_secret_keeps_what_is_stored_and_none_takes_it_away(settings: Settings) -> None:
    stored = Stored(
        {"base_url": "https://gateway.example"}, {"api_key": "old", "spare_key": "spare", "webhook_secret": "mine"}
    )
    kept = clean(settings, Fictional, {"settings": {"api_key": "", "sender": "Molva"}}, stored)
    assert kept.hidden == {"api_key": "old", "spare_key": "spare", "webhook_secret": "mine"}
    assert kept.columns == {} and kept.plain["sender"] == "Molva"
    gone = clean(settings, Fictional, {"settings": {"spare_key": None, "api_key": "new"}}, stored)
    assert (gone.hidden["spare_key"], gone.hidden["api_key"]) == ("", "new")
    with pytest.raises(Invalid):
        clean(settings, Fictional, {"settings": {"api_key": None}}, stored)


def test_a_key_of_ours_is_made_up_once_and_known_as_such(settings: Settings) -> None:
    made = cleaned(settings).hidden
    assert len(made["webhook_secret"]) >= 32 and made[GENERATED] == ["webhook_secret"]
    stored = Stored({"base_url": "https://gateway.example"}, made)
    assert clean(settings, Fictional, {"settings": {}}, stored).hidden == made
    own = clean(settings, Fictional, {"settings": {"webhook_secret": "the vendor's"}}, stored).hidden
    assert own["webhook_secret"] == "the vendor's" and GENERATED not in own


def test_an_unchanged_address_is_not_asked_for_again(settings: Settings, names: dict[str, str]) -> None:
    stored = Stored({"base_url": "https://office.example"}, {"api_key": "x", "webhook_secret": ""})
    assert clean(settings, Fictional, {"name": "New name"}, stored).columns == {"name": "New name"}


def test_an_unknown_provider_or_another_kind_is_refused() -> None:
    for key, kind, field in (("nobody", None, "provider"), (["x"], None, "provider"), ("sandbox_sms", "waba", "kind")):
        with pytest.raises(Invalid) as refused:
            channel_settings.provider_of(key, kind)
        assert list(refused.value.problems) == [field]
