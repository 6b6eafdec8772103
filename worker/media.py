"""Files for the headers of templates: handed over to the provider once, named by their id afterwards."""

from __future__ import annotations

import contextlib

from worker import audit, channels, clock, db
from worker.models import Channel, Media
from worker.settings import Settings

LIFE = 30 * clock.DAY  # how long the provider keeps a file
SHOWN = 50
PATIENCE = 90.0  # seconds for the provider to take a file
# How a file begins, and what it is then: names and declared types are the uploader's word only.
_STARTS = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"%PDF-", "application/pdf"))


def kind_of(data: bytes) -> str:
    """The media type by the content; "" for anything that a header cannot show."""
    for start, mime in _STARTS:
        if data.startswith(start):
            return mime
    if data[4:8] == b"ftyp":
        return "video/3gpp" if data[8:10] == b"3g" else "video/mp4"
    return ""


def upload(settings: Settings, channel: Channel, data: bytes, name: str, actor: str) -> Media:
    """Hand a file over for the headers of templates and keep its id. Raises SendError, VaultError."""
    provider = channels.provider_of(settings, channel)

    def hand_over() -> str:
        with contextlib.closing(provider):
            return provider.upload(data, kind_of(data), name)

    identity = channels.in_time(hand_over, PATIENCE)
    with db.write():
        row = Media.create(
            channel_id=channel.id, media_id=identity, name=name[:200], mime=kind_of(data), at=clock.now()
        )
        audit.record(actor, "channel.media", str(channel.id), name=name[:200])
    return row


def living(channel_id: int) -> list[Media]:
    """The files that the provider still keeps, newest first, at most SHOWN."""
    kept = (Media.channel_id == channel_id) & (Media.at > clock.now() - LIFE)
    return list(Media.select().where(kept).order_by(Media.id.desc()).limit(SHOWN))
