"""The environment: read once, typed, loud."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.settings import Settings, SettingsError, from_env


def test_without_variables_the_defaults_hold() -> None:
    settings = from_env({"PATH": "/bin", "HOME": "/root"})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.language) == ("127.0.0.1", 8000, "ru")
    assert (settings.region, settings.timezone) == ("RU", "Europe/Moscow")
    assert (settings.concurrency, settings.senders, settings.trusted_proxies) == (128, 1, 0)
    assert settings.database_path == Path("data/molva.db")


def test_every_variable_is_read() -> None:
    settings = from_env(
        {
            "MOLVA_DATA": "/srv/molva",
            "MOLVA_HOST": "0.0.0.0",
            "MOLVA_PORT": "9000",
            "MOLVA_BASE_URL": "https://molva.example.org",
            "MOLVA_SECRET_KEY": "k" * 32,
            "MOLVA_REGION": "KZ",
            "MOLVA_TIMEZONE": "Asia/Almaty",
            "MOLVA_LANGUAGE": "en",
            "MOLVA_CONCURRENCY": "64",
            "MOLVA_SENDERS": "2",
            "MOLVA_ALLOWED_PRIVATE_HOSTS": "modem.lan, 10.0.0.7 ,",
            "MOLVA_TRUSTED_PROXIES": "1",
            "MOLVA_LOG": "json",
        }
    )
    assert settings.data == Path("/srv/molva")
    assert settings.allowed_private_hosts == ("modem.lan", "10.0.0.7")
    assert (settings.port, settings.senders, settings.log) == (9000, 2, "json")


def test_an_unknown_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match=r"MOLVA_PROT is not a setting.*MOLVA_PORT"):
        from_env({"MOLVA_PROT": "8000"})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORT", "eighty", "whole number"),
        ("PORT", "70000", "from 0 to 65535"),
        ("CONCURRENCY", "0", "from 1 to 1024"),
        ("SENDERS", "17", "from 1 to 16"),
        ("LANGUAGE", "de", "ru, en"),
        ("LOG", "xml", "text or json"),
        ("REGION", "Russia", "two capital letters"),
        ("REGION", "ru", "two capital letters"),
        ("TIMEZONE", "Mars/Olympus", "Europe/Moscow"),
        ("TIMEZONE", "../../etc/passwd", "Europe/Moscow"),
        ("DATABASE_URL", "mysql://x", "postgresql://"),
        ("QUEUE_URL", "amqp://x", "redis://"),
        ("BASE_URL", "molva.example.org", "https://"),
        ("SECRET_KEY", "changeme", "at least 32"),
    ],
)
def test_nonsense_is_refused_by_name(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as error:
        from_env({f"MOLVA_{variable}": value})
    assert f"MOLVA_{variable}" in str(error.value)
    assert words in str(error.value)


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("k" * 40 + "\n", encoding="utf-8")
    assert from_env({"MOLVA_SECRET_KEY_FILE": str(secret)}).secret_key == "k" * 40


def test_a_missing_secret_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MOLVA_SECRET_KEY_FILE: cannot read"):
        from_env({"MOLVA_SECRET_KEY_FILE": str(tmp_path / "nothing")})


def test_secrets_do_not_show_in_a_printed_settings_value() -> None:
    assert "k" * 32 not in repr(Settings(secret_key="k" * 32))


def test_options_of_the_command_line_win_and_are_checked() -> None:
    settings = Settings(port=9000).with_options(port=None, host="::1")
    assert (settings.port, settings.host) == (9000, "::1")
    with pytest.raises(SettingsError):
        settings.with_options(port=99999)
