"""The secret key: generated, kept private, changed without a moment in which anything is unreadable."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from worker import vault
from worker.settings import Settings, SettingsError, checked


@pytest.fixture
def house(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


def key_file(house: Settings) -> Path:
    return house.data / vault.KEY_FILE


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_generated_once_for_nobody_else_to_read(house: Settings) -> None:
    first = vault.master_keys(house)
    assert vault.master_keys(house) == first and len(first[0]) >= 32
    assert mode(key_file(house)) == 0o600


def test_what_is_sealed_comes_back_and_only_with_its_key(house: Settings, tmp_path: Path) -> None:
    sealed = vault.seal(house, {"token": "secret"})
    assert b"secret" not in sealed and vault.unseal(house, sealed) == {"token": "secret"}
    assert vault.unseal(house, None) == {}
    with pytest.raises(vault.VaultError):
        vault.unseal(Settings(data=tmp_path, secret_key="x" * 40), sealed)


def test_a_new_key_comes_first_and_the_old_one_still_opens(house: Settings) -> None:
    old = vault.master_keys(house)
    sealed = vault.seal(house, {"token": "secret"})
    vault.add_key(house)
    both = vault.master_keys(house)
    assert len(both) == 2 and both[1:] == old and mode(key_file(house)) == 0o600
    assert vault.unseal(house, sealed) == {"token": "secret"}
    again = vault.seal(house, {"token": "secret"})
    vault.drop_old_keys(house)
    assert vault.master_keys(house) == both[:1] and mode(key_file(house)) == 0o600
    assert vault.unseal(house, again) == {"token": "secret"}
    with pytest.raises(vault.VaultError):
        vault.unseal(house, sealed)


def test_a_change_that_broke_off_goes_on_with_its_key(house: Settings) -> None:
    vault.add_key(house)
    both = vault.master_keys(house)
    vault.add_key(house)
    assert vault.master_keys(house) == both


def test_a_half_written_key_file_is_never_the_key_file(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = vault.master_keys(house)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", lambda *_given: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            vault.add_key(house)
    assert vault.master_keys(house) == before
    vault.add_key(house)  # what it left behind is in nobody's way
    assert vault.master_keys(house)[1:] == before


def test_the_environment_may_hold_the_new_and_the_old_key(tmp_path: Path) -> None:
    old = Settings(data=tmp_path, secret_key="o" * 40)
    sealed = vault.seal(old, {"token": "secret"})
    both = checked(Settings(data=tmp_path, secret_key=f"{'n' * 40}\n{'o' * 40}\n"))
    assert vault.unseal(both, sealed) == {"token": "secret"}
    assert vault.session_key(both) == vault.session_key(Settings(data=tmp_path, secret_key="n" * 40))
    with pytest.raises(SettingsError):
        checked(Settings(secret_key=f"{'n' * 40}\nshort"))


def test_a_key_file_without_a_usable_key_is_said(house: Settings) -> None:
    key_file(house).write_text("short\n")
    with pytest.raises(vault.VaultError, match="no usable key"):
        vault.master_keys(house)
