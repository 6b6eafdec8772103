"""The command line: accounts, tokens, the doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests import make
from webapp.__main__ import main
from worker import channels, clock, db, locks, people, vault
from worker.models import Callback, Channel, User, Webhook
from worker.settings import Settings

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """One command on a fresh data folder."""
    monkeypatch.setattr("worker.logs.configure", lambda _settings: None)

    def go(*arguments: str, typed: str = "") -> Result:
        result = CliRunner().invoke(main, [*arguments, "--data", str(data)], input=typed)
        db.close()
        return result

    return go


def test_an_account_is_added_listed_and_given_a_new_password(run: Run, data: Path) -> None:
    added = run(
        "user",
        "add",
        "--email",
        "Anna@example.org",
        "--role",
        "admin",
        "--password-stdin",
        typed="seven quiet rivers\n",
    )
    assert added.exit_code == 0, added.output
    assert run("user", "list").output == "anna@example.org\tadmin\tactive\n"
    changed = run("user", "password", "--email", "anna@example.org", "--password-stdin", typed="another quiet river\n")
    assert changed.exit_code == 0, changed.output
    db.open_database(Settings(data=data))
    with db.connection():
        assert people.authenticate("anna@example.org", "another quiet river", "") is not None
        assert "another" not in User.get().password_hash


def test_a_lost_phone_is_helped_on_the_server(run: Run, data: Path) -> None:
    from worker import clock, second_step, totp

    run(
        "user",
        "add",
        "--email",
        "anna@example.org",
        "--role",
        "admin",
        "--password-stdin",
        typed="seven quiet rivers\n",
    )
    house = Settings(data=data)
    db.open_database(house)
    with db.connection():
        secret, sealed = second_step.offer(house, User.get())
        second_step.switch_on(house, User.get(), sealed, totp.code(secret, clock.now() // totp.STEP))
        assert second_step.is_on(User.get())
    db.close()
    assert run("user", "second-step-off", "--email", "nobody@example.org").exit_code == 1
    assert run("user", "second-step-off", "--email", "anna@example.org").exit_code == 0
    db.open_database(house)
    with db.connection():
        assert not second_step.is_on(User.get()) and second_step.codes_left(User.get()) == 0


@pytest.mark.parametrize(
    ("email", "password", "words"),
    [
        ("anna@example.org", "short", "at least 12 characters"),
        ("anna@example.org", "password1234", "among the first"),
        ("anna", "seven quiet rivers", "not an e-mail"),
    ],
)
def test_a_refusal_is_a_sentence(run: Run, email: str, password: str, words: str) -> None:
    result = run("user", "add", "--email", email, "--role", "viewer", "--password-stdin", typed=password + "\n")
    assert result.exit_code == 1
    assert words in result.output and "Traceback" not in result.output


def test_a_person_is_added_once(run: Run) -> None:
    arguments = ("user", "add", "--email", "anna@example.org", "--role", "viewer", "--password-stdin")
    run(*arguments, typed="seven quiet rivers\n")
    assert "already" in run(*arguments, typed="seven quiet rivers\n").output


def test_an_unknown_person_is_told(run: Run) -> None:
    result = run("user", "password", "--email", "nobody@example.org", "--password-stdin", typed="seven quiet rivers\n")
    assert result.exit_code == 1
    assert "There is no person" in result.output


def test_a_token_is_the_last_line_alone_and_works(run: Run, data: Path) -> None:
    made = run("token", "create", "nightly report", "--role", "viewer")
    token = made.output.splitlines()[-1]
    db.open_database(Settings(data=data))
    with db.connection():
        who = people.token_identity(token)
    assert who is not None and (who.name, who.role) == ("token nightly report", "viewer")
    listed = run("token", "list").output
    assert "nightly report" in listed and token not in listed and "everything" in listed
    assert run("token", "revoke", "nightly report").exit_code == 0
    assert run("token", "revoke", "nightly report").exit_code == 1
    assert run("token", "list").output == ""


def test_a_token_is_limited_on_the_command_line_too(run: Run, data: Path) -> None:
    made = run("token", "create", "numbers", "--role", "viewer", "--area", "metrics", "--days", "30")
    db.open_database(Settings(data=data))
    with db.connection():
        who = people.token_identity(made.output.splitlines()[-1])
        days = (people.tokens()[0].expires_at - clock.now()) / (24 * clock.HOUR)
    assert who is not None and who.areas == {"metrics"} and 29 < days <= 30
    wrong = run("token", "create", "x", "--area", "everything")
    assert wrong.exit_code == 1 and "The areas are" in wrong.output


def test_the_doctor_names_what_is_wrong(run: Run, data: Path) -> None:
    assert "there is no installation" in run("doctor").output
    run("migrate")
    told = run("doctor")
    assert told.exit_code == 1
    assert "ok    the database is sound" in told.output
    assert "WRONG a worker is running" in told.output
    data.chmod(0o755)
    assert f"WRONG data folder {data} is private" in run("doctor").output


def test_the_doctor_sees_what_stands_still(run: Run, data: Path) -> None:
    run("migrate")
    house = Settings(data=data)
    db.open_database(house)
    now = clock.now()
    with db.connection():
        make.channel(name="Locked", secrets=b"sealed by nobody")
        make.channel(name="Off", state="stopped", stop_reason="190")
        make.channel(name="Silent", opened_at=now)
        people.create_token("old", "viewer", actor="test", life=0)
        people.create_token("ending", "viewer", actor="test", life=24 * clock.HOUR)
        people.create_token("lasting", "viewer", actor="test")
        Callback.create(channel_id=1, body=b"", received_at=now - 2 * clock.MINUTE)
        facts = {"url": "https://example.org/", "events": [], "secret": b"", "created_by": "", "created_at": now}
        Webhook.create(**facts, state="stopped", stop_reason="http_500")
        Webhook.create(**facts, state="stopped", stop_reason="person")
        Webhook.create(**facts, failing_since=now)
    db.close()
    told = run("doctor").output
    for line in (
        "ok    Molva ",
        f"ok    file {data / 'molva.db'} is private",
        "WRONG channel 1 “Locked”: the secret key does not open its credentials",
        "note  channel 2 “Off” is out of use: 190",
        "note  channel 3 “Silent”: its provider has not responded since",
        "WRONG callbacks are applied as they come",
        "WRONG webhook 1 is switched off after failures: http_500",
        "note  webhook 2 is switched off",
        "note  webhook 3 has failed since",
        "note  token “old” ended",
        "note  token “ending” ends",
    ):
        assert line in told, told
    assert "lasting" not in told


def test_migrating_twice_changes_nothing(run: Run) -> None:
    assert "Applied: 0001_initial" in run("migrate").output
    assert "Nothing to do" in run("migrate").output


def test_a_backup_and_a_restore_say_what_they_did_or_why_not(run: Run, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip"
    nothing = run("backup", str(copy))
    assert nothing.exit_code == 1 and "no installation" in nothing.output and not copy.exists()
    run("migrate")
    assert run("backup", str(copy)).exit_code == 0
    again = run("backup", str(copy))
    assert again.exit_code == 1 and "--force" in again.output
    assert run("backup", str(copy), "--force").exit_code == 0
    restored = run("restore", str(copy))
    assert restored.exit_code == 0 and "What happened later is not in it" in restored.output
    wrong = run("restore", str(data / "molva.db"))
    assert wrong.exit_code == 1 and "Traceback" not in wrong.output


def test_the_help_names_every_command() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name in ("serve", "web", "worker", "sandbox", "migrate", "backup", "restore", "user", "token", "key", "doctor"):
        assert f"  {name} " in text


# ---- a new secret key


@pytest.fixture
def sealed(run: Run, data: Path) -> Settings:
    """An installation with a channel whose credentials are sealed with the key file."""
    run("migrate")
    house = Settings(data=data)
    db.open_database(house)
    with db.connection():
        make.channel(name="Ours", secrets=vault.seal(house, {"token": "secret"}))
    db.close()
    return house


def opened(house: Settings) -> dict[str, object]:
    """What the present key opens."""
    db.open_database(house)
    try:
        with db.connection():
            return vault.unseal(house, Channel.get().secrets)
    finally:
        db.close()


def test_a_new_key_seals_everything_and_the_old_one_opens_nothing(run: Run, sealed: Settings) -> None:
    before = vault.master_keys(sealed)
    done = run("key", "rotate")
    assert done.exit_code == 0, done.output
    assert "sealed with the new key: 1" in done.output and "signed out" in done.output
    assert len(vault.master_keys(sealed)) == 1 and vault.master_keys(sealed) != before
    assert opened(sealed) == {"token": "secret"}
    with pytest.raises(vault.VaultError):
        opened(Settings(data=sealed.data, secret_key=before[0].decode()))


@pytest.mark.parametrize("step", ["reseal", "drop_old_keys"])
def test_a_change_of_the_key_that_broke_off_is_finished_by_the_next_run(
    run: Run, sealed: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def cut(*_given: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as broken:
        broken.setattr(channels if step == "reseal" else vault, step, cut)
        assert isinstance(run("key", "rotate").exception, OSError)
    assert len(vault.master_keys(sealed)) == 2 and opened(sealed) == {"token": "secret"}
    newest = vault.master_keys(sealed)[0]
    assert run("key", "rotate").exit_code == 0
    assert vault.master_keys(sealed) == [newest] and opened(sealed) == {"token": "secret"}


def test_the_key_does_not_change_under_a_running_server(run: Run, sealed: Settings) -> None:
    before = vault.master_keys(sealed)
    running = locks.use(sealed)
    assert running is not None
    refused = run("key", "rotate")
    running.end()
    assert refused.exit_code == 1 and "Stop it first" in refused.output
    assert vault.master_keys(sealed) == before


def test_a_key_of_the_environment_is_changed_by_two_lines(
    run: Run, sealed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = vault.master_keys(sealed)[0].decode()
    monkeypatch.setenv("MOLVA_SECRET_KEY", old)
    told = run("key", "rotate")
    assert told.exit_code == 1 and "MOLVA_SECRET_KEY_FILE" in told.output and "new key" in told.output
    monkeypatch.setenv("MOLVA_SECRET_KEY", f"{'n' * 40}\n{old}")
    done = run("key", "rotate")
    assert done.exit_code == 0 and "leave only the first line" in done.output
    assert opened(Settings(data=sealed.data, secret_key="n" * 40)) == {"token": "secret"}


def test_credentials_that_no_key_opens_are_named(run: Run, sealed: Settings) -> None:
    db.open_database(sealed)
    with db.connection():
        make.channel(name="Foreign", secrets=b"sealed by nobody")
    db.close()
    assert "enter them anew: Foreign" in run("key", "rotate").output


def test_there_is_no_key_without_an_installation(run: Run, data: Path) -> None:
    assert "no installation" in run("key", "rotate").output
    assert not (data / vault.KEY_FILE).exists()
