"""Channels: configured sending accounts, their Provider objects, their templates, their pauses."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from typing import Any

from worker import clock, db, vault
from worker.models import Channel, MessageTemplate
from worker.providers import PROVIDERS
from worker.providers.base import CallbackAddresses, Provider
from worker.settings import Settings

SANDBOX = ("sandbox_waba", "sandbox_sms")


def addresses(settings: Settings, channel: Channel) -> CallbackAddresses:
    """The addresses to paste at the provider; relative when MOLVA_BASE_URL is not set."""
    base = f"{settings.base_url.rstrip('/')}/hooks/{channel.key}"
    return CallbackAddresses(base, f"{base}/status", f"{base}/inbound")


def all_settings(settings: Settings, channel: Channel) -> dict[str, Any]:
    """Every setting of the channel, secrets included: for its Provider only, never for a page."""
    return {**channel.settings, **vault.unseal(settings, channel.secrets)}


def provider_of(settings: Settings, channel: Channel) -> Provider:
    """A Provider object for this channel. The data folder tells the sandbox where its emulator listens."""
    house = {
        "data": str(settings.data),
        "allowed_private_hosts": settings.allowed_private_hosts,
        "per_second": channel.per_second,
    }
    given = {**all_settings(settings, channel), **house}
    return PROVIDERS[channel.provider](given, addresses(settings, channel))


class Providers:
    """The Provider objects of one process, kept while their channel's settings stay the same."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[int, tuple[tuple[Any, ...], Provider]] = {}
        self._lock = threading.Lock()

    def get(self, channel: Channel) -> Provider:
        mark = (channel.provider, str(channel.settings), bytes(channel.secrets or b""), channel.per_second)
        with self._lock:
            kept = self._made.get(channel.id)
            if kept is None or kept[0] != mark:
                if kept is not None:
                    kept[1].close()
                kept = (mark, provider_of(self._settings, channel))
                self._made[channel.id] = kept
            return kept[1]


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
            for c in Channel.select().where(Channel.provider.in_(SANDBOX))
        ]


def sync_templates(settings: Settings, channel_id: int) -> int:
    """Fetch the account's templates and replace the stored ones; the number found. Raises SendError."""
    with db.connection():
        channel = Channel.get_by_id(channel_id)
        found = provider_of(settings, channel).templates()
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
    """Take the channel out of use, inside the caller's transaction, until a person switches it on."""
    Channel.update(state="stopped", stop_reason=cause, stop_detail={"text": detail}, stopped_at=clock.now()).where(
        Channel.id == channel_id
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


def switch_on(channel_id: int) -> None:
    """Put a stopped channel back into use; its broadcasts stay stopped until a person resumes them."""
    with db.write():
        trust(channel_id)


# A channel in use about which nothing bad is known.
TRUSTED: dict[str, Any] = {
    **{"state": "on", "stop_reason": None, "stop_detail": None, "stopped_at": None, "slow_until": 0},
    **{"recent": "", "opened_at": None, "probe_at": 0},
}


def renew(channel_id: int | None) -> None:
    """An open circuit breaker gets its full time for a broadcast that begins; inside the caller's transaction."""
    Channel.update(opened_at=clock.now()).where((Channel.id == channel_id) & Channel.opened_at.is_null(False)).execute()


def trust(channel_id: int) -> None:
    """A person decided to go on with this channel; inside the caller's transaction."""
    troubled = (Channel.state != "on") | Channel.opened_at.is_null(False)
    Channel.update(**TRUSTED).where((Channel.id == channel_id) & troubled).execute()
