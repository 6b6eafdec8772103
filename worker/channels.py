"""Channels: configured sending accounts, their Provider objects, their templates, their pauses.

A channel that messages went out by is never quite forgotten: reports speak of it. When it is deleted it is
hidden instead (state DELETED): its secrets are wiped, it is offered nowhere, its callback addresses are gone.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import peewee

from worker import audit, channel_settings, clock, db, hashes, vault
from worker.channel_settings import GENERATED
from worker.models import Broadcast, Callback, Channel, Conversation, DeliveryReport, Inbound, MessageTemplate, User
from worker.problems import Invalid, Problem
from worker.providers import PROVIDERS
from worker.providers.base import CallbackAddresses, Finding, Provider, SendError
from worker.settings import Settings

log = logging.getLogger("molva.channels")

T = TypeVar("T")

SANDBOX = ("sandbox_waba", "sandbox_sms")
DELETED = "deleted"
OFF = "channel_off"  # the cause of a channel that a person switched off
GONE = "channel_deleted"
USING = ("draft", "scheduled", "running", "stopped")  # broadcasts that still need their channel
PATIENCE = 25.0  # seconds for a call that a person waits for


def addresses(settings: Settings, channel: Channel) -> CallbackAddresses:
    """The addresses to paste at the provider; relative when MOLVA_BASE_URL is not set."""
    base = f"{settings.base_url.rstrip('/')}/hooks/{channel.key}"
    return CallbackAddresses(base, f"{base}/status", f"{base}/inbound")


def all_settings(settings: Settings, channel: Channel) -> dict[str, Any]:
    """Every setting of the channel, secrets included: for its Provider only, never for a page."""
    hidden = vault.unseal(settings, channel.secrets)
    hidden.pop(GENERATED, None)
    return {**channel.settings, **hidden}


def provider_of(settings: Settings, channel: Channel) -> Provider:
    """A Provider object for this channel. The data folder tells the sandbox where its emulator listens."""
    house = {
        "data": str(settings.data),
        "allowed_private_hosts": settings.allowed_private_hosts,
        "per_second": channel.per_second,
        "region": settings.region,
    }
    given = {**all_settings(settings, channel), **house}
    return PROVIDERS[channel.provider](given, addresses(settings, channel))


class Providers:
    """The Provider objects of one process, kept while their channel's settings stay the same."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[int, tuple[tuple[Any, ...], Provider]] = {}
        self._lock = threading.Lock()
        self.locked: dict[int, float] = {}  # channels that could not be opened, until when they are left alone

    def get(self, channel: Channel) -> Provider:
        """The Provider of a channel by its present settings. Raises what making one raises."""
        with self._lock:
            kept = self._made.get(channel.id)
            if kept is None or kept[0] != _mark(channel):
                # Looked up anew: whoever read the row before it was changed must not bring the old settings back.
                with db.connection():
                    channel = Channel.get_or_none(Channel.id == channel.id) or channel
                if kept is not None and kept[0] == _mark(channel):
                    return kept[1]
                made = (_mark(channel), provider_of(self._settings, channel))
                self._made[channel.id] = made
                if kept is not None:
                    # Letting go of a line takes its time, and nobody must wait for it.
                    threading.Thread(target=kept[1].close, name="close provider", daemon=True).start()
                return made[1]
            return kept[1]

    def holds(self, channel_id: int, provider: Provider) -> bool:
        """Whether this object is still the one by the channel's present settings, as far as anybody has looked."""
        kept = self._made.get(channel_id)
        return kept is not None and kept[1] is provider


def _mark(channel: Channel) -> tuple[Any, ...]:
    """What a Provider is made of."""
    return (channel.provider, str(channel.settings), bytes(channel.secrets or b""), channel.per_second)


def create(settings: Settings, provider: str, name: str, values: Mapping[str, Any], **pace: Any) -> Channel:
    """Store a channel of a registered Provider; secret fields are sealed."""
    fields = PROVIDERS[provider].fields
    plain = {f.name: values.get(f.name, f.default) for f in fields if not f.secret}
    hidden = {f.name: values.get(f.name, f.default) for f in fields if f.secret}
    with db.write():
        return Channel.create(
            key=secrets.token_urlsafe(24),
            kind=PROVIDERS[provider].kind,
            provider=provider,
            name=name,
            settings=plain,
            secrets=vault.seal(settings, hidden),
            created_at=clock.now(),
            **pace,
        )


class InUse(RuntimeError):
    """The channel cannot be deleted: `first` are (id, name) of the latest of the `number` broadcasts that need it."""

    def __init__(self, number: int, first: list[tuple[int, str]]) -> None:
        super().__init__(f"{number} broadcasts need the channel")
        self.number = number
        self.first = first
        self.names = [name for _id, name in first]


def living() -> peewee.ModelSelect[Channel]:
    """The channels that are not deleted."""
    return Channel.select().where(Channel.state != DELETED)


def add(settings: Settings, given: Mapping[str, Any], actor: str) -> Channel:
    """A new channel of what a person or a program gave: `provider`, `kind`?, the names of
    channel_settings.OWN, and `settings`. Raises Invalid."""
    provider = channel_settings.provider_of(given.get("provider"), given.get("kind"))
    if provider.key in SANDBOX:
        return _sandbox_again(provider.key, actor)
    cleaned = channel_settings.clean(settings, provider, given)
    with db.write():
        channel = Channel.create(
            key=secrets.token_urlsafe(24),
            kind=provider.kind,
            provider=provider.key,
            settings=cleaned.plain,
            secrets=vault.seal(settings, cleaned.hidden),
            created_at=clock.now(),
            **cleaned.columns,
        )
        _note_account(settings, channel.id)
        audit.record(actor, "channel.create", str(channel.id), name=channel.name, provider=provider.key)
    return Channel.get_by_id(channel.id)


def _note_account(settings: Settings, channel_id: int) -> None:
    """Keep with the channel what channels of one account at the vendor have in common."""
    with contextlib.closing(provider_of(settings, Channel.get_by_id(channel_id))) as provider:
        Channel.update(account=provider.account()).where(Channel.id == channel_id).execute()


def _sandbox_again(provider: str, actor: str) -> Channel:
    """The emulator knows one channel of each kind: a deleted one comes back, another is not made."""
    with db.write():
        hidden = Channel.get_or_none((Channel.provider == provider) & (Channel.state == DELETED))
        if hidden is None:
            raise Invalid({"provider": Problem("sandbox_exists")})
        Channel.update(**TRUSTED).where(Channel.id == hidden.id).execute()
        audit.record(actor, "channel.create", str(hidden.id), name=hidden.name, provider=provider)
    return Channel.get_by_id(hidden.id)


def change(settings: Settings, channel: Channel, given: Mapping[str, Any], actor: str) -> Channel:
    """Change what is given and keep the rest; running broadcasts go on with the new values. Raises Invalid."""
    if channel.provider in SANDBOX and given.get("settings"):
        raise Invalid({"settings": Problem("sandbox_fixed")})  # the emulator knows them from its start
    hidden = vault.unseal(settings, channel.secrets)
    stored = channel_settings.Stored(channel.settings, hidden)
    cleaned = channel_settings.clean(settings, PROVIDERS[channel.provider], given, stored)
    columns = {name: value for name, value in cleaned.columns.items() if getattr(channel, name) != value}
    plain = [name for name, value in cleaned.plain.items() if channel.settings.get(name) != value]
    secret = [name for name, value in cleaned.hidden.items() if name != GENERATED and hidden.get(name) != value]
    changed = sorted([*columns, *plain, *secret])
    if plain:
        columns["settings"] = cleaned.plain
    if hidden != cleaned.hidden:
        columns["secrets"] = vault.seal(settings, cleaned.hidden)
    if not columns:
        return channel
    with db.write():
        Channel.update(**columns).where((Channel.id == channel.id) & (Channel.state != DELETED)).execute()
        _note_account(settings, channel.id)
        audit.record(actor, "channel.edit", str(channel.id), fields=changed)
    return Channel.get_by_id(channel.id)


def use_of(channel: Channel) -> InUse | None:
    """Which broadcasts need a channel; None when none does."""
    using = Broadcast.select().where(
        (Broadcast.channel == channel.id) & Broadcast.state.in_(USING) & (Broadcast.kind == "list")
    )
    if number := using.count():
        return InUse(number, [(row.id, row.name) for row in using.order_by(Broadcast.id.desc()).limit(3)])
    return None


def delete(channel: Channel, actor: str) -> None:
    """Forget a channel; one that reports speak of is hidden instead. Raises InUse while a broadcast needs it."""
    with db.write():
        if (using := use_of(channel)) is not None:
            raise using
        MessageTemplate.delete().where(MessageTemplate.channel == channel.id).execute()
        if _is_spoken_of(channel):
            gone = {"state": DELETED, "stop_reason": GONE, "stopped_at": clock.now(), "opened_at": None}
            if channel.provider not in SANDBOX:  # the sandbox may come back, and its secrets open nothing
                gone["secrets"] = None
            Channel.update(**gone).where(Channel.id == channel.id).execute()
        else:
            Channel.delete().where(Channel.id == channel.id).execute()
        audit.record(actor, "channel.delete", str(channel.id), name=channel.name)


def _is_spoken_of(channel: Channel) -> bool:
    """Whether a row of another table would lose its channel."""
    if channel.provider in SANDBOX or Broadcast.select().where(Broadcast.channel == channel.id).exists():
        return True
    return any(
        table.select().where(table.channel_id == channel.id).limit(1).exists()
        for table in (Inbound, DeliveryReport, Callback, Conversation)
    )


def generated(settings: Settings, channel: Channel) -> dict[str, str]:
    """The keys that we made up for the vendor to repeat to us; an administrator may copy these, and no others."""
    if channel.provider in SANDBOX:
        return {}
    hidden = vault.unseal(settings, channel.secrets)
    shown = {*hidden.get(GENERATED, ()), "verify_token"}
    names = [f.name for f in PROVIDERS[channel.provider].fields if f.name in shown]
    return {name: hidden[name] for name in names if hidden.get(name)}


LAST = 4  # characters of a stored secret that are shown
SHORTEST = 12  # of a shorter one they would give too much away


def endings(settings: Settings, channel: Channel) -> dict[str, str]:
    """The stored secrets by name, each as its last characters; "" for one that is too short for that."""
    hidden = vault.unseal(settings, channel.secrets)
    found = {f.name: str(hidden.get(f.name) or "") for f in PROVIDERS[channel.provider].fields if f.secret}
    return {name: value[-LAST:] if len(value) >= SHORTEST else "" for name, value in found.items() if value}


def in_time(call: Callable[[], T], patience: float = PATIENCE) -> T:
    """What `call` returns or raises, or SendError when it takes too long; it is then left behind."""
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=ask, name="ask provider", daemon=True).start()
    try:
        found, error = answers.get(timeout=patience)
    except queue.Empty:
        raise SendError("unclear", "timeout") from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]


def pasted(settings: Settings, channel: Channel) -> CallbackAddresses:
    """The addresses as they are pasted at the provider, with its own placeholders where it has some."""
    plain = addresses(settings, channel)
    try:
        provider = provider_of(settings, channel)
    except (vault.VaultError, SendError, ValueError, TypeError):
        return plain
    with contextlib.closing(provider):
        return provider.paste()


def answerable(settings: Settings, channel: Channel) -> bool | None:
    """Whether people can reply to it; None when its credentials cannot be read or its settings not be used."""
    try:
        with contextlib.closing(provider_of(settings, channel)) as provider:
            return provider.answerable()
    except (vault.VaultError, SendError, ValueError, TypeError):
        return None


def check(settings: Settings, channel: Channel) -> list[Finding]:
    """What a harmless call to the provider finds; everything that can go wrong with it is a finding as well."""
    return _asked(settings, channel, lambda provider: provider.check())


def register(settings: Settings, channel: Channel, actor: str) -> list[Finding]:
    """Have the provider bring its callbacks to our address, for one that supports it."""
    if not settings.base_url:
        return [Finding("error", "no_base_url")]

    def ask(provider: Provider) -> list[Finding]:
        provider.register()
        return [Finding("ok", "webhook_registered")]

    found = _asked(settings, channel, ask)
    with db.write():
        audit.record(actor, "channel.register", str(channel.id), done=all(f.level == "ok" for f in found))
    return found


def _asked(settings: Settings, channel: Channel, call: Callable[[Provider], list[Finding]]) -> list[Finding]:
    try:
        provider = provider_of(settings, channel)
    except vault.VaultError:
        return [Finding("error", "credentials_locked")]
    except SendError as error:
        return [Finding("error", error.cause, error.detail)]

    def ask() -> list[Finding]:
        with contextlib.closing(provider):
            return call(provider)

    try:
        return in_time(ask)
    except SendError as error:
        return [Finding("error", error.cause, error.detail)]
    except Exception:
        log.exception("channel %d: the provider cannot be asked", channel.id)
        return [Finding("error", "internal")]


def reseal(settings: Settings) -> tuple[int, list[str]]:
    """Seal all credentials with the newest key, in one transaction; how many, and the channels that no key opens."""
    done, locked = 0, []
    with db.connection(), db.write():
        for channel in Channel.select().where(Channel.secrets.is_null(False)):
            try:
                fresh = vault.sealed_anew(settings, channel.secrets)
            except vault.VaultError:
                locked.append(channel.name)
                continue
            Channel.update(secrets=fresh).where(Channel.id == channel.id).execute()
            done += 1
        locked += _reseal_others(settings)
    return done, locked


def _reseal_others(settings: Settings) -> list[str]:
    """The second steps of people, and the key of the number hashes; those people whose secret no key opens."""
    locked = []
    for user in User.select().where(User.totp.is_null(False)):
        try:
            fresh = vault.sealed_anew(settings, user.totp)
        except vault.VaultError:
            locked.append(user.email)
            continue
        User.update(totp=fresh).where(User.id == user.id).execute()
    with contextlib.suppress(vault.VaultError):  # numbers are then hashed with a key that nobody can read
        hashes.reseal(settings)
    return locked


def ensure_sandbox(settings: Settings) -> list[Channel]:
    """The two sandbox channels, made at the first run with credentials of their own."""
    with db.connection():
        made = []
        for provider in SANDBOX:
            channel = Channel.get_or_none(Channel.provider == provider)
            if channel is None:
                values = {
                    f.name: secrets.token_urlsafe(24) if f.secret else f.default or _digits()
                    for f in PROVIDERS[provider].fields
                }
                channel = create(settings, provider, PROVIDERS[provider].label, values)
            made.append(channel)
        return made


def _digits() -> str:
    return str(10**14 + secrets.randbelow(10**14))


def sandbox_accounts(settings: Settings) -> list[dict[str, Any]]:
    """What the emulator must know of the channels that use it: provider, callback key, settings."""
    with db.connection():
        return [
            {"provider": c.provider, "key": c.key, "settings": all_settings(settings, c)}
            for c in Channel.select().where(Channel.provider.in_(SANDBOX))  # also deleted ones: they may come back
        ]


def sync_templates(settings: Settings, channel_id: int) -> int:
    """Fetch the account's templates and replace the stored ones; the number found. Raises SendError.

    The vendor's daily limit is asked for on the way; without an answer what is known of it stays.
    """
    with db.connection():
        provider = provider_of(settings, Channel.get_by_id(channel_id))
    try:
        found = provider.templates()
        with contextlib.suppress(SendError):
            if (limit := provider.limit()) is not None:
                with db.write():
                    Channel.update(vendor_limit=None if limit < 0 else limit).where(
                        Channel.id.in_(of_account(channel_id))
                    ).execute()
    finally:
        provider.close()
    now = clock.now()
    with db.write():
        kept = []
        for template in found:
            row = {
                "status": template.status,
                "category": template.category,
                "parameter_format": template.parameter_format,
                "components": template.components,
                "synced_at": now,
            }
            key = {"channel": channel_id, "name": template.name, "language": template.language}
            known = MessageTemplate.get_or_none(
                (MessageTemplate.channel == channel_id)
                & (MessageTemplate.name == template.name)
                & (MessageTemplate.language == template.language)
            )
            if known is None:
                kept.append(MessageTemplate.create(**key, **row).id)
            else:
                MessageTemplate.update(**row).where(MessageTemplate.id == known.id).execute()
                kept.append(known.id)
        MessageTemplate.delete().where(
            (MessageTemplate.channel == channel_id) & MessageTemplate.id.not_in(kept)
        ).execute()
        Channel.update(templates_synced_at=now).where(Channel.id == channel_id).execute()
    return len(found)


def template(channel_id: int, name: str, language: str) -> MessageTemplate | None:
    return MessageTemplate.get_or_none(
        (MessageTemplate.channel == channel_id)
        & (MessageTemplate.name == name)
        & (MessageTemplate.language == language)
    )


def stop(channel_id: int, cause: str, detail: str = "") -> None:
    """Take the channel out of use, inside the caller's transaction, until a person switches it on.

    One that is deleted stays so, and what a person switched off stays in that person's name.
    """
    kept = (Channel.state == DELETED) | ((Channel.state == "stopped") & (Channel.stop_reason == OFF))
    Channel.update(state="stopped", stop_reason=cause, stop_detail={"text": detail}, stopped_at=clock.now()).where(
        (Channel.id == channel_id) & ~kept
    ).execute()


def of_account(channel_id: int) -> list[int]:
    """This channel and all others of the same account at the vendor."""
    return [
        row[0]
        for row in db.rows(
            "SELECT c.id FROM channel c JOIN channel me ON me.id = ?"
            " WHERE c.id = me.id OR (c.account <> '' AND c.account = me.account AND c.provider = me.provider)",
            [channel_id],
        )
    ]


def switch_on(channel_id: int, actor: str) -> None:
    """Put a stopped channel back into use; its broadcasts stay stopped until a person resumes them."""
    with db.write():
        troubled = (Channel.state == "stopped") | Channel.opened_at.is_null(False)
        known = (Channel.id == channel_id) & (Channel.state != DELETED)
        if Channel.update(**TRUSTED).where(known & troubled).execute():
            audit.record(actor, "channel.on", str(channel_id))


def switch_off(channel_id: int, actor: str) -> None:
    """Take the channel out of use until a person switches it on; the worker stops its running broadcasts."""
    with db.write():
        detail = {"text": "", "by": actor}
        off = {"state": "stopped", "stop_reason": OFF, "stop_detail": detail, "stopped_at": clock.now()}
        if Channel.update(**off).where((Channel.id == channel_id) & (Channel.state == "on")).execute():
            audit.record(actor, "channel.off", str(channel_id))


# A channel in use about which nothing bad is known.
TRUSTED: dict[str, Any] = {
    **{"state": "on", "stop_reason": None, "stop_detail": None, "stopped_at": None, "slow_until": 0},
    **{"recent": "", "opened_at": None, "probe_at": 0},
}


def renew(channel_id: int | None) -> None:
    """An open circuit breaker gets its full time for a broadcast that begins; inside the caller's transaction."""
    Channel.update(opened_at=clock.now()).where((Channel.id == channel_id) & Channel.opened_at.is_null(False)).execute()


def trust(channel_id: int) -> None:
    """A person decided to go on with a broadcast of this channel; inside the caller's transaction.

    What a person switched off stays off.
    """
    troubled = ((Channel.state == "stopped") & (Channel.stop_reason != OFF)) | Channel.opened_at.is_null(False)
    Channel.update(**TRUSTED).where((Channel.id == channel_id) & troubled).execute()
