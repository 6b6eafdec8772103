"""The command line: accounts, tokens, the doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from webapp.__main__ import main
from worker import db, people
from worker.models import User
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
    assert "nightly report" in listed and token not in listed
    assert run("token", "revoke", "nightly report").exit_code == 0
    assert run("token", "revoke", "nightly report").exit_code == 1
    assert run("token", "list").output == ""


def test_the_doctor_names_what_is_wrong(run: Run, data: Path) -> None:
    assert "there is no installation" in run("doctor").output
    run("migrate")
    told = run("doctor")
    assert told.exit_code == 1
    assert "ok    the database is sound" in told.output
    assert "WRONG a worker is running" in told.output
    data.chmod(0o755)
    assert f"WRONG data folder {data} is private" in run("doctor").output


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
    for name in ("serve", "web", "worker", "sandbox", "migrate", "backup", "restore", "user", "token", "doctor"):
        assert f"  {name} " in text
