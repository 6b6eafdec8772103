"""The command line."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from worker import clock, logs
from worker import settings as settings_module
from worker.settings import Settings, SettingsError

T = TypeVar("T")


def _settings(data: str | None = None, host: str | None = None, port: int | None = None) -> Settings:
    try:
        return settings_module.from_env(os.environ).with_options(
            data=Path(data) if data else None, host=host, port=port
        )
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _open(settings: Settings) -> None:
    """The database of a command that needs the current schema; a new folder is set up on the way."""
    from worker import db, migrations

    db.open_database(settings)
    try:
        migrations.upgrade()
    except migrations.SchemaError as error:
        raise click.ClickException(str(error)) from error


DATA = click.option("--data", metavar="DIR", help="Data folder (default: MOLVA_DATA or ./data).")
HOST = click.option("--host", help="Address to listen on (default: 127.0.0.1).")
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: 8000).")


@click.group(invoke_without_command=True)
@DATA
@HOST
@PORT
@click.pass_context
def main(context: click.Context, /, data: str | None, host: str | None, port: int | None) -> None:
    """Molva: one message to many people over WhatsApp and SMS. Without a command: serve."""
    context.obj = {"data": data, "host": host, "port": port}
    if context.invoked_subcommand is None:
        context.invoke(serve)


def _merged(context: click.Context, /, **options: Any) -> Settings:
    """The settings of the environment, then of the group's options, then of the command's own."""
    names = ("data", "host", "port")
    given = {k: options.get(k) if options.get(k) is not None else context.obj.get(k) for k in names}
    settings = _settings(**given)
    logs.configure(settings)
    return settings


def _serve(settings: Settings, with_children: bool) -> None:
    from webapp import serve as server

    try:
        sys.exit(server.serve(settings, with_children))
    except server.ServeError as error:
        if settings.log == "json":
            server.log.error("%s", error)
            sys.exit(1)
        raise click.ClickException(str(error)) from error


@main.command()
@DATA
@HOST
@PORT
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """The web server with its worker and the sandbox: everything."""
    _serve(_merged(context, **options), True)


@main.command()
@DATA
@HOST
@PORT
@click.pass_context
def web(context: click.Context, /, **options: Any) -> None:
    """The web server alone."""
    _serve(_merged(context, **options), False)


@main.command()
@DATA
@click.option("--watch-stdin", is_flag=True, help="Leave when stdin ends.")
@click.pass_context
def worker(context: click.Context, /, watch_stdin: bool, **options: Any) -> None:
    """The worker alone."""
    from worker.__main__ import run

    sys.exit(run(_merged(context, **options), watch_stdin))


@main.command()
@DATA
@PORT
@click.option("--watch-stdin", is_flag=True, help="Leave when stdin ends.")
@click.option("--callbacks", help="Where its callbacks go (default: the web server of the settings).")
@click.pass_context
def sandbox(
    context: click.Context, /, watch_stdin: bool, callbacks: str | None, port: int | None, **options: Any
) -> None:
    """The emulator that the sandbox channels speak to."""
    from webapp.sandbox import run_sandbox
    from worker import channels

    settings = _merged(context, **options)
    _open(settings)
    channels.ensure_sandbox(settings)
    accounts = channels.sandbox_accounts(settings)
    base = callbacks or f"http://127.0.0.1:{settings.port}"
    sys.exit(run_sandbox(settings, accounts, base, port=port or 0, watch_stdin=watch_stdin))


@main.command()
@DATA
@click.pass_context
def migrate(context: click.Context, /, **options: Any) -> None:
    """Bring the database to this program's schema."""
    from worker import db, migrations

    db.open_database(_merged(context, **options))
    try:
        applied = migrations.upgrade()
    except migrations.SchemaError as error:
        raise click.ClickException(str(error)) from error
    click.echo("Applied: " + ", ".join(applied) if applied else "Nothing to do")


@main.command()
@DATA
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_context
def backup(context: click.Context, /, file: Path, force: bool, **options: Any) -> None:
    """Copy the installation into one file, while it is running or not."""
    from worker import backup as copies

    try:
        made = copies.backup(_merged(context, **options), file, overwrite=force)
    except copies.BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{file}: {made.size:,} bytes, as of {clock.iso(made.at)}")
    if made.with_key:
        click.echo("It holds the secret key: keep it where only you can read it")
    else:
        click.echo("The secret key is not in it (it comes from MOLVA_SECRET_KEY): keep that as well")
    if made.missing:
        click.echo(f"Files that were no longer there: {made.missing}")


@main.command()
@DATA
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def restore(context: click.Context, /, file: Path, **options: Any) -> None:
    """Put a backup in the place of the data. Molva must be stopped."""
    from worker import backup as copies

    try:
        done = copies.restore(_merged(context, **options), file)
    except copies.BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Restored from {file}, as of {clock.iso(done.at)}. What happened later is not in it")
    if done.applied:
        click.echo("Brought to this program's schema: " + ", ".join(done.applied))
    click.echo(f"Stopped broadcasts: {done.stopped}. Messages may have left after the backup; look before you resume")
    if done.uncertain:
        click.echo(f"Messages that were on their way, now uncertain: {done.uncertain}")
    if done.locked:
        click.echo("The present secret key does not open the credentials of: " + ", ".join(done.locked))
    if done.aside:
        click.echo(f"The database that was here before: {done.aside}")


@main.command("copy")
@DATA
@click.option("--from", "source", required=True, metavar="sqlite:PATH", help="The database file of the data folder.")
@click.option("--to", "target", required=True, metavar="postgresql://…", help="An empty database.")
@click.pass_context
def copy_(context: click.Context, /, source: str, target: str, **options: Any) -> None:
    """Move an installation from SQLite to PostgreSQL. Molva must be stopped; what was there stays."""
    from worker import copying

    if not source.startswith("sqlite:") or not target.startswith("postgresql://"):
        raise click.ClickException("molva copy goes --from sqlite:PATH --to postgresql://…")
    try:
        copying.copy(
            _merged(context, **options),
            Path(source.removeprefix("sqlite:")),
            target,
            lambda table, rows: click.echo(f"{table}: {rows:,}"),
        )
    except copying.CopyError as error:
        raise click.ClickException(str(error)) from error
    click.echo("Copied and counted. Start Molva with MOLVA_DATABASE_URL and the same secret key")


@main.command()
@DATA
@click.pass_context
def restored(context: click.Context, /, **options: Any) -> None:
    """After pg_restore: stop what would go on by itself. Molva must be stopped."""
    from worker import backup as copies

    try:
        done = copies.restored(_merged(context, **options))
    except copies.BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"As of {clock.iso(done.at)}. Stopped broadcasts: {done.stopped}. Look before you resume")
    click.echo(f"Messages that were on their way, now uncertain: {done.uncertain}")


@main.group()
def user() -> None:
    """People who may sign in."""


@user.command("add")
@DATA
@click.option("--email", required=True)
@click.option("--role", type=click.Choice(["admin", "sender", "viewer"]), required=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@click.pass_context
def user_add(context: click.Context, /, email: str, role: str, password_stdin: bool, **options: Any) -> None:
    """Create an account."""
    from worker import db, people

    _open(_merged(context, **options))
    password = _password(password_stdin)
    with db.connection():
        _told(lambda: people.add_user(email, password, role, actor="command line"))
    click.echo(f"Added {email} ({role})")


@user.command("password")
@DATA
@click.option("--email", required=True)
@click.option("--password-stdin", is_flag=True)
@click.pass_context
def user_password(context: click.Context, /, email: str, password_stdin: bool, **options: Any) -> None:
    """Set a new password and sign the person out everywhere."""
    from worker import db, people

    _open(_merged(context, **options))
    password = _password(password_stdin)
    with db.connection():
        _told(lambda: people.set_password(people.find_user(email), password, actor="command line"))
    click.echo(f"Password of {email} changed")


@user.command("list")
@DATA
@click.pass_context
def user_list(context: click.Context, /, **options: Any) -> None:
    """List the accounts."""
    from worker import db
    from worker.models import User

    _open(_merged(context, **options))
    with db.connection():
        for row in User.select().order_by(User.id):
            click.echo(f"{row.email}\t{row.role}\t{'active' if row.active else 'inactive'}")


@user.command("second-step-off")
@DATA
@click.option("--email", required=True)
@click.pass_context
def user_second_step_off(context: click.Context, /, email: str, **options: Any) -> None:
    """Ask a person for the password alone: for somebody who lost the phone and the recovery codes."""
    from worker import db, people, second_step

    _open(_merged(context, **options))
    with db.connection():
        _told(lambda: second_step.switch_off(people.find_user(email), "command line"))
    click.echo(f"{email} signs in with the password alone")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


# What people.py refuses, as sentences for the console.
REFUSALS = {
    "too_short": "The password needs at least 12 characters",
    "too_long": "The password may have at most 256 characters",
    "common": "This password is among the first that attackers try. Choose another",
    "email": "This is not an e-mail address",
    "exists": "There is already a person with this e-mail",
    "unknown": "There is no person with this e-mail",
    "role": "The role must be admin, sender or viewer",
    "area": "The areas are broadcasts, channels, inbox, optouts and metrics",
}


def _told(act: Callable[[], T]) -> T:
    """Run `act`; what people.py refuses becomes a sentence on the console."""
    from worker import people

    try:
        return act()
    except (people.PersonRefused, people.PasswordRefused) as refused:
        raise click.ClickException(REFUSALS[refused.code]) from refused


@main.group()
def token() -> None:
    """Keys for the API."""


@token.command("create")
@DATA
@click.argument("name")
@click.option("--role", type=click.Choice(["admin", "sender", "viewer"]), default="sender", show_default=True)
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@click.option("--area", "areas", multiple=True, help="Limit it to broadcasts, channels, inbox, optouts or metrics.")
@click.pass_context
def token_create(
    context: click.Context, /, name: str, role: str, days: int, areas: tuple[str, ...], **options: Any
) -> None:
    """Create a token and print it once, alone on the last line."""
    from worker import db, people

    _open(_merged(context, **options))
    life = days * clock.DAY
    with db.connection():
        click.echo(_told(lambda: people.create_token(name, role, actor="command line", life=life, areas=areas)))


@token.command("list")
@DATA
@click.pass_context
def token_list(context: click.Context, /, **options: Any) -> None:
    """List the tokens by their beginnings; the tokens themselves are stored nowhere."""
    from worker import db, people

    _open(_merged(context, **options))
    with db.connection():
        for row in people.tokens():
            ends = (clock.iso(row.expires_at) or "never")[:10]
            used = (clock.iso(row.last_used_at) or "never")[:10]
            areas = ",".join(row.areas or ["everything"])
            click.echo(f"{row.prefix}…\t{row.name}\t{row.role}\t{areas}\tends {ends}\tlast used {used}")


@token.command("revoke")
@DATA
@click.argument("name")
@click.pass_context
def token_revoke(context: click.Context, /, name: str, **options: Any) -> None:
    """End the tokens with this name or beginning."""
    from worker import db, people

    _open(_merged(context, **options))
    with db.connection():
        gone = people.revoke_token(name.rstrip("…"), actor="command line")
    if not gone:
        raise click.ClickException(f"There is no token with the name or beginning {name}")
    click.echo(f"Revoked: {gone}")


@main.group()
def key() -> None:
    """The secret key that everything is sealed with."""


@key.command("rotate")
@DATA
@click.pass_context
def key_rotate(context: click.Context, /, **options: Any) -> None:
    """Seal all credentials with a new secret key. Molva must be stopped; a run that broke off is finished."""
    from worker import channels, locks, vault, webhooks

    settings = _merged(context, **options)
    if not settings.database_url and not settings.database_path.exists():
        raise click.ClickException(f"There is no installation in {settings.data}")
    if settings.secret_key and len(vault.master_keys(settings)) == 1:
        raise click.ClickException(OWN_KEY)
    lock = locks.alone(settings)
    if lock is None:
        raise click.ClickException("Molva is running with this data folder. Stop it first, then change the key")
    try:
        _open(settings)
        if not settings.secret_key:
            vault.add_key(settings)
        done, locked = channels.reseal(settings)
        locked += webhooks.reseal(settings)
        if not settings.secret_key:
            vault.drop_old_keys(settings)
    except vault.VaultError as error:
        raise click.ClickException(str(error)) from error
    finally:
        lock.close()
    click.echo(f"Channels whose credentials are sealed with the new key: {done}")
    if locked:
        click.echo("No key opens the credentials of these, enter them anew: " + ", ".join(locked))
    if settings.secret_key:
        click.echo(
            "Now leave only the first line of MOLVA_SECRET_KEY and start Molva. Backups made before need the old"
        )
        click.echo("Backups made before need the old key: keep it as long as you keep them")
    else:
        click.echo("Backups made before hold the old key and can still be restored")
    click.echo("Everybody is signed out")


OWN_KEY = """The secret key comes from MOLVA_SECRET_KEY, so only you can change it:
 1. Stop Molva.
 2. Write two lines into a file that only Molva's user can read: the new key (32 characters or more), then the old one.
 3. Set MOLVA_SECRET_KEY_FILE to that file instead of MOLVA_SECRET_KEY, and run this command again.
 4. Remove the second line and start Molva."""


@main.command()
@DATA
@HOST
@PORT
@click.pass_context
def doctor(context: click.Context, /, **options: Any) -> None:
    """Say what is wrong with this installation; ends with 1 when something is."""
    findings = list(_findings(_merged(context, **options)))
    for level, text in findings:
        click.echo(f"{level:<6}{text}")
    sys.exit(any(level == "WRONG" for level, _text in findings))


def _findings(settings: Settings) -> Iterator[tuple[str, str]]:
    """(ok, note or WRONG; the sentence) for everything that can be looked at from outside."""
    from worker import db, delivery, installation, migrations, people, vault, watchdog
    from worker.providers import sandbox_address

    yield (
        "ok",
        f"Molva {settings_module.version()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
    )
    if not settings.database_url and not settings.database_path.exists():
        yield "WRONG", f"there is no installation in {settings.data}; molva creates it at its first start"
        return
    for path in (settings.data, settings.database_path, settings.data / vault.KEY_FILE):
        if path.exists():
            what = "data folder" if path == settings.data else "file"
            yield _line(path.stat().st_mode & 0o077 == 0, f"{what} {path} is private")
    db.open_database(settings)
    try:
        migrations.require_current()
        yield "ok", "the database has the program's schema"
    except migrations.SchemaError as error:
        yield "WRONG", str(error)
        return
    try:
        vault.master_keys(settings)
        yield "ok", "the secret key can be read"
    except (vault.VaultError, OSError) as error:
        yield "WRONG", str(error)
    if settings.database_url:
        yield _line(bool(settings.secret_key), "MOLVA_SECRET_KEY is set, the same on every host")
        yield _line(installation.has_the_key(settings), "the secret key is that of the other hosts")
        ahead = db.clock_ahead()
        yield _line(abs(ahead) < 2_000, f"the clock agrees with the database's ({ahead / 1000:+.1f} s)")
    with db.connection():
        yield _line(db.is_sound(), "the database is sound")
        yield _line(people.has_admin(), "there is an administrator (the server prints a code to make one)")
        yield _line(delivery.worker_alive(), "a worker is running (it starts with: molva)")
        yield _line(watchdog.free_space() >= watchdog.DISK_MIN, "the disk of the data folder has room")
        yield from _waiting_broadcasts()
        yield from _channel_findings(settings)
        yield from _outside_findings()
    yield _line(sandbox_address.read(settings.data) is not None, "the sandbox is running")
    yield from _address_findings(settings)


# Why a running broadcast does not move, as sentences for the console.
WAITS = {
    "disk": "the disk is full",
    "worker": "the worker is not running",
    "locked": "another program keeps the database locked",
    "channel": "its channel is out of use",
    "stuck": "nothing is being sent, and the cause is not known: look at the log",
    "provider_asked": "the provider asks to wait",
    "provider_slow": "the provider is slow to answer",
    "breaker": "the provider does not respond, probing each minute",
    "daily_limit": "the channel's daily limit is used up",
    "rate": "the next message leaves at its turn",
    "retry": "some messages are tried again later",
    "quiet_hours": "quiet hours",
    "file_checking": "a file is still being checked",
    "copying": "the recipients of the new run are being prepared",
}
NAMED = 100  # running broadcasts that are looked at


def _waiting_broadcasts() -> Iterator[tuple[str, str]]:
    """Every running broadcast that does not move, and why."""
    from worker import watchdog
    from worker.models import Broadcast

    running = (
        Broadcast.select().where((Broadcast.state == "running") & (Broadcast.kind == "list")).order_by(Broadcast.id)
    )
    for broadcast in running.limit(NAMED):
        why = watchdog.why(broadcast)
        if why is None:
            continue
        name = _printable(broadcast.name)
        until = f", until {clock.iso(why['until'])}" if why.get("until") else ""
        level = "WRONG" if why["code"] in watchdog.NEEDS_A_PERSON else "note"
        yield level, f"broadcast {broadcast.id} “{name}” waits: {WAITS.get(why['code'], why['code'])}{until}"


def _channel_findings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Channels that do not send, and whose credentials no key opens."""
    from worker import channels, vault
    from worker.models import Channel

    for channel in channels.living().order_by(Channel.id).limit(NAMED):
        name = f"channel {channel.id} “{_printable(channel.name)}”"
        try:
            vault.unseal(settings, channel.secrets)
        except vault.VaultError:
            yield "WRONG", f"{name}: the secret key does not open its credentials, enter them anew"
        if channel.state != "on":
            yield "note", f"{name} is out of use: {channel.stop_reason or 'switched off'}"
        elif channel.opened_at is not None:
            yield "note", f"{name}: its provider has not responded since {clock.iso(channel.opened_at)}"
        if channel.provider == "smpp" and importlib.util.find_spec("smpplib") is None:
            yield "WRONG", f"{name} needs the part for SMPP: pip install '.[smpp]'"


SOON = 14 * clock.DAY  # before a token ends
LATE = clock.MINUTE  # a callback is applied within a second


def _outside_findings() -> Iterator[tuple[str, str]]:
    """What other programs bring and take: callbacks, webhooks, tokens."""
    from worker import db, people, webhooks

    now = clock.now()
    oldest = db.value("SELECT received_at FROM callback WHERE processed_at IS NULL ORDER BY id LIMIT 1")
    yield _line(oldest is None or oldest > now - LATE, "callbacks are applied as they come")
    for hook in webhooks.all_of_them():
        if hook.state != "on" and hook.stop_reason not in (webhooks.PERSON, webhooks.RESTORED):
            yield "WRONG", f"webhook {hook.id} is switched off after failures: {hook.stop_reason}"
        elif hook.state != "on":
            yield "note", f"webhook {hook.id} is switched off"
        elif hook.failing_since:
            yield "note", f"webhook {hook.id} has failed since {clock.iso(hook.failing_since)}"
    for token in people.tokens():
        if token.expires_at is not None and token.expires_at < now + SOON:
            ends = "ended" if token.expires_at <= now else "ends"
            yield "note", f"token “{_printable(token.name)}” {ends} {(clock.iso(token.expires_at) or '')[:10]}"


def _printable(name: str) -> str:
    return "".join(c for c in name if c.isprintable())


def _line(good: bool, text: str) -> tuple[str, str]:
    return ("ok" if good else "WRONG"), text


def _address_findings(settings: Settings) -> Iterator[tuple[str, str]]:
    from worker import locks

    running = locks.hold(settings.data / "serve.lock")
    if running is None:
        yield "ok", "the server is running"
    else:
        running.close()
        free = _is_free(settings.host, settings.port)
        yield _line(free, f"port {settings.port} is free (choose another with --port)")
    if not settings.base_url:
        yield "note", "MOLVA_BASE_URL is not set: real providers cannot reach the callbacks"
    elif settings.base_url.startswith("http://"):
        yield "note", "MOLVA_BASE_URL is not https: most providers refuse such callback addresses"
    elif not settings.trusted_proxies:
        yield "note", "MOLVA_TRUSTED_PROXIES is 0: behind a proxy, cookies are not marked Secure"


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main(prog_name="molva")
