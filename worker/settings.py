"""The environment, read once into one frozen value. Loud on nonsense; secrets also from a file."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path

PREFIX = "MOLVA_"
LANGUAGES = ("ru", "en")


def version() -> str:
    """The version of this Molva; 0 where it runs without being installed."""
    try:
        return metadata.version("molva")
    except metadata.PackageNotFoundError:
        return "0"


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the variable and what would be right."""


@dataclass(frozen=True)
class Settings:
    """Everything a server operator can set, named as in the environment without the prefix.

    `data` is the folder that holds everything; `concurrency` is the most requests in flight per
    worker process; `senders` is the number of worker processes.
    """

    data: Path = Path("data")
    database_url: str = ""
    queue_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    base_url: str = ""
    secret_key: str = field(default="", repr=False)
    region: str = "RU"
    timezone: str = "Europe/Moscow"
    language: str = "ru"
    concurrency: int = 128
    senders: int = 1
    allowed_private_hosts: tuple[str, ...] = ()
    trusted_proxies: int = 0
    log: str = "text"

    @property
    def database_path(self) -> Path:
        return self.data / "molva.db"

    @property
    def queue_path(self) -> Path:
        return self.data / "queue.db"

    @property
    def uploads(self) -> Path:
        return self.data / "uploads"

    @property
    def media(self) -> Path:
        """What people attached to their messages."""
        return self.data / "media"

    def with_options(self, **options: object) -> Settings:
        """A copy with the command line's options; None means not given."""
        given = {name: value for name, value in options.items() if value is not None}
        return checked(replace(self, **given))  # type: ignore[arg-type]


def from_env(environ: Mapping[str, str]) -> Settings:
    """Read MOLVA_* variables.

    Raises SettingsError for an unknown variable, a value of the wrong kind, or a secret file that
    cannot be read.
    """
    known = {f.name for f in fields(Settings)}
    values: dict[str, object] = {}
    for variable, raw in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name.startswith("test_"):
            continue  # MOLVA_TEST_… belong to the test suite
        if name not in known and name.endswith("_file") and name.removesuffix("_file") in known:
            name = name.removesuffix("_file")
            try:
                raw = Path(raw).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingsError(f"{variable}: cannot read the file: {error.strerror}") from error
        elif name not in known:
            raise SettingsError(
                f"{variable} is not a setting of Molva. Known: " + ", ".join(sorted(PREFIX + n.upper() for n in known))
            )
        values[name] = _typed(variable, name, raw)
    return checked(replace(Settings(), **values))  # type: ignore[arg-type]


def _typed(variable: str, name: str, raw: str) -> object:
    if name in ("port", "concurrency", "senders", "trusted_proxies"):
        try:
            return int(raw)
        except ValueError:
            raise SettingsError(f"{variable} must be a whole number, not {raw!r}") from None
    if name == "data":
        return Path(raw)
    if name == "allowed_private_hosts":
        return tuple(host.strip() for host in raw.split(",") if host.strip())
    return raw


def checked(settings: Settings) -> Settings:
    """Return the settings if every value is usable, else raise SettingsError."""
    ranges = {"port": (0, 65535), "concurrency": (1, 1024), "senders": (1, 16), "trusted_proxies": (0, 10)}
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise SettingsError(f"{PREFIX}{name.upper()} must be from {low} to {high}, not {value}")
    if settings.language not in LANGUAGES:
        raise SettingsError(f"MOLVA_LANGUAGE must be one of {', '.join(LANGUAGES)}")
    if settings.log not in ("text", "json"):
        raise SettingsError("MOLVA_LOG must be text or json")
    if len(settings.region) != 2 or not settings.region.isalpha() or not settings.region.isupper():
        raise SettingsError("MOLVA_REGION must be a country code of two capital letters, such as RU")
    try:
        zoneinfo.ZoneInfo(settings.timezone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError, OSError):
        raise SettingsError(
            f"MOLVA_TIMEZONE: no time zone {settings.timezone!r}; use a name such as Europe/Moscow"
        ) from None
    for name, schemes in (("database_url", ("postgresql://",)), ("queue_url", ("redis://", "rediss://"))):
        value = getattr(settings, name)
        if value and not value.startswith(schemes):
            raise SettingsError(f"{PREFIX}{name.upper()} must begin with {schemes[0]}")
    if settings.base_url and not settings.base_url.startswith(("http://", "https://")):
        raise SettingsError("MOLVA_BASE_URL must begin with https:// (or http://)")
    keys = [line for line in settings.secret_key.splitlines() if line.strip()]  # several while the key is changed
    if settings.secret_key and (not keys or min(map(len, keys)) < 32):
        raise SettingsError("MOLVA_SECRET_KEY must have at least 32 characters")
    return settings
