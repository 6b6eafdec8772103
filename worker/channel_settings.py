"""What may be stored as a channel: values of the form and the API, checked against the fields of its Provider.

Secrets are write-only: an empty one keeps what is stored, None takes it away. Keys that we choose ourselves
for a vendor to repeat to us (OURS) are made up when they are left empty.
"""

from __future__ import annotations

import ipaddress
import math
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from worker.problems import Invalid, Problem
from worker.providers import PROVIDERS, egress
from worker.providers.base import Field, Provider
from worker.settings import Settings

# Beside the Provider's own fields every channel has these.
OWN = ("name", "per_second", "per_day", "price", "currency")
FIELDS = frozenset({*OWN, "settings"})
OURS = frozenset({"verify_token", "webhook_secret", "secret"})
GENERATED = "_generated"  # among the sealed values: which of OURS we made up and may show to be copied

NAME_MAX = 100
TEXT_MAX, LINES_MAX = 4_000, 40_000
INTEGER_MAX = 2**31 - 1
PER_SECOND_MAX, PER_DAY_MAX, PRICE_MAX = 1_000.0, 100_000_000, 1_000_000.0
OPEN = ("{", "-")  # a template that begins with another setting, or the connector's word for nothing
RESOLVE = 2.0  # seconds that a name may take; a silent name server keeps nobody from saving


OWN_FAULTS = frozenset({"not_an_id", "host_only", "sender_long"})  # faults of a Provider that have a sentence


@dataclass
class Cleaned:
    """A channel's values, ready to be stored: its columns, its open settings, its secret ones."""

    columns: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    hidden: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """What a channel that is being changed holds now."""

    plain: Mapping[str, Any]
    hidden: Mapping[str, Any]


def clean(house: Settings, provider: type[Provider], given: Mapping[str, Any], stored: Stored | None = None) -> Cleaned:
    """The values of a new channel, or the changes of one that is `stored`. Raises Invalid with every problem.

    `given` has the names of OWN and `settings`; whatever is missing keeps its value, or gets its default.
    """
    work = _Cleaner(house, provider, given, stored)
    work.run()
    if work.problems:
        raise Invalid(work.problems)
    return work.cleaned


class _Cleaner:
    """Checks one set of values, collecting a Problem per field."""

    def __init__(
        self, house: Settings, provider: type[Provider], given: Mapping[str, Any], stored: Stored | None
    ) -> None:
        self.house = house
        self.provider = provider
        self.given = given
        self.stored = stored
        self.problems: dict[str, Problem] = {}
        self.cleaned = Cleaned()

    def run(self) -> None:
        for name in OWN:
            if name in self.given or self.stored is None:
                getattr(self, "_" + name)(self.given.get(name))
        self._settings(self.given.get("settings", {}))

    def _bad(self, name: str, code: str, /, **facts: Any) -> None:
        self.problems.setdefault(name, Problem(code, facts))

    # --- what every channel has

    def _name(self, value: Any) -> None:
        name = " ".join(value.split()) if isinstance(value, str) else ""
        if not name:
            self._bad("name", "name_required")
        elif len(name) > NAME_MAX:
            self._bad("name", "name_too_long", max=NAME_MAX)
        elif not all(c.isprintable() for c in name):
            self._bad("name", "name_invalid")
        self.cleaned.columns["name"] = name

    def _per_second(self, value: Any) -> None:
        if value is None and "per_second" not in self.given:
            value = self.provider.pace
        self._number("per_second", value, 0.01, PER_SECOND_MAX)

    def _per_day(self, value: Any) -> None:
        self._number("per_day", value, 1, PER_DAY_MAX, whole=True)

    def _price(self, value: Any) -> None:
        self._number("price", value, 0, PRICE_MAX)

    def _number(self, name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
        found = None if value in (None, "") else _number(value)
        if value not in (None, "") and found is None:
            self._bad(name, "not_a_number")
        elif found is not None and not low <= found <= high:
            self._bad(name, "number_range", min=low, max=int(high))
        elif found is not None and whole and found != int(found):
            self._bad(name, "not_whole")
        self.cleaned.columns[name] = int(found) if whole and found is not None else found

    def _currency(self, value: Any) -> None:
        code = value.strip().upper() if isinstance(value, str) else value
        if code and not (isinstance(code, str) and len(code) == 3 and code.isascii() and code.isalpha()):
            self._bad("currency", "currency_invalid")
        self.cleaned.columns["currency"] = code or None

    # --- what its Provider wants

    def _settings(self, given: Any) -> None:
        if not isinstance(given, Mapping):
            self._bad("settings", "not_an_object")
            return
        known = {f.name for f in self.provider.fields}
        for name in given:
            if name not in known:
                self._bad(str(name)[:100], "setting_unknown")
        stored = self.stored or Stored({}, {})
        made = set(stored.hidden.get(GENERATED, ()))
        for one in self.provider.fields:
            if one.secret:
                self._secret(one, given, stored.hidden, made)
            elif one.name in given:
                self.cleaned.plain[one.name] = self._value(one, given[one.name])
            else:
                self.cleaned.plain[one.name] = stored.plain.get(one.name, one.default)
                self._require(one, self.cleaned.plain[one.name])
        if made:
            self.cleaned.hidden[GENERATED] = sorted(made)
        if not self.problems:
            self._addresses(stored)
            self._faults()

    def _secret(self, one: Field, given: Mapping[str, Any], stored: Mapping[str, Any], made: set[str]) -> None:
        value = self._value(one, given[one.name], False) if given.get(one.name) is not None else ""
        if value or (one.name in given and given[one.name] is None):
            made.discard(one.name)
        else:
            value = stored.get(one.name) or one.default or ""
        if not value and one.name in OURS and (one.required or self.stored is None):
            value = secrets.token_urlsafe(24)
            made.add(one.name)
        self.cleaned.hidden[one.name] = value
        self._require(one, value)

    def _require(self, one: Field, value: Any) -> None:
        if one.required and value in (None, "") and one.kind != "boolean":
            self._bad(one.name, "setting_required")

    def _value(self, one: Field, value: Any, required: bool = True) -> Any:
        """The value of one field in its kind; a Problem is noted when it has another."""
        found = getattr(self, "_as_" + one.kind)(one, value)
        if required:
            self._require(one, found)
        return found

    def _as_text(self, one: Field, value: Any) -> str:
        text = "" if value is None else value
        if isinstance(text, int | float) and not isinstance(text, bool):
            text = str(text)  # an id that somebody wrote as a number
        if not isinstance(text, str):
            self._bad(one.name, "not_a_text")
            return ""
        text = text.strip()
        if len(text) > TEXT_MAX:
            self._bad(one.name, "setting_too_long", max=TEXT_MAX)
        elif any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
            self._bad(one.name, "setting_invalid")
        elif text and _is_url(one):
            self._url(one.name, text)
        return text

    _as_secret = _as_text

    def _as_lines(self, one: Field, value: Any) -> str:
        if isinstance(value, list) and all(isinstance(line, str) for line in value):
            value = "\n".join(value)
        if value is not None and not isinstance(value, str):
            self._bad(one.name, "not_a_text")
            return ""
        text = (value or "").replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        if len(text) > LINES_MAX:
            self._bad(one.name, "setting_too_long", max=LINES_MAX)
        elif any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
            self._bad(one.name, "setting_invalid")
        return text

    def _as_integer(self, one: Field, value: Any) -> int | str:
        if value in (None, ""):
            return ""
        found = _number(value)
        if found is None or found != int(found):
            self._bad(one.name, "not_a_number" if found is None else "not_whole")
            return ""
        top = 65_535 if one.name == "port" or one.name.endswith("_port") else INTEGER_MAX
        if not 0 <= found <= top:
            self._bad(one.name, "number_range", min=0, max=top)
        return int(found)

    def _as_boolean(self, one: Field, value: Any) -> bool:
        if not isinstance(value, bool):
            self._bad(one.name, "not_a_boolean")
        return value is True

    def _as_choice(self, one: Field, value: Any) -> str:
        if value in (None, "") and not one.required:
            return ""
        if value not in one.choices:
            self._bad(one.name, "not_a_choice")
            return ""
        return str(value)

    # --- where it leads

    def _url(self, name: str, text: str) -> None:
        found = None if text.startswith(OPEN) else url_problem(text)
        if found is not None:
            self.problems.setdefault(name, found)

    def _addresses(self, stored: Stored) -> None:
        """Refuse destinations that the server would not connect to. They are checked again at every connection."""
        plain = self.cleaned.plain
        for one in self.provider.fields:
            value = plain.get(one.name)
            if one.secret or not value or value == stored.plain.get(one.name):
                continue
            if _is_url(one) and not str(value).startswith(OPEN):
                parts = urlsplit(str(value))
                port = parts.port or (443 if parts.scheme == "https" else 80)
                self._reach(one.name, parts.hostname or "", port, any_port=False)
            elif one.name == "host":
                self._reach(one.name, str(value), int(plain.get("port") or 0), any_port=True)

    def _reach(self, name: str, host: str, port: int, any_port: bool) -> None:
        found = reach_problem(self.house, host, port, any_port)
        if found is not None:
            self.problems.setdefault(name, found)

    def _faults(self) -> None:
        """What the Provider itself finds wrong with all of them together."""
        everything = {**self.cleaned.plain, **{k: v for k, v in self.cleaned.hidden.items() if k != GENERATED}}
        for name, text in self.provider.faults(everything):
            if re.fullmatch(r"\{\w+\}", text):
                self._bad(name, "place_unknown", text=text)
            elif re.fullmatch(r"\{\w+\}\?", text):
                self._bad(name, "place_missing", text=text.rstrip("?"))
            elif name == "headers" and text.endswith(": …"):
                self._bad(name, "key_in_header", text=text)
            elif text in OWN_FAULTS:
                self._bad(name, text)
            else:
                self._bad(name, "fault", text=text)


def url_problem(text: str) -> Problem | None:
    """What is wrong with an address that requests shall go to, as far as it can be read from it."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        named = usable and not set(parts.netloc) & set(" \\{}<>\"'")
    except ValueError:
        named = False
    if not named:
        return Problem("url_invalid")
    return Problem("url_password") if "@" in parts.netloc else None


def reach_problem(house: Settings, host: str, port: int, any_port: bool = False) -> Problem | None:
    """Why this server would not connect there. A name that is not known yet is none: it is looked at again then."""
    rule = egress.Egress(house.allowed_private_hosts)
    anywhere = egress.Resolver(egress.Egress(("0.0.0.0/0", "::/0")), egress.system_lookup)
    try:
        targets = anywhere.targets(host, port, RESOLVE)
    except egress.NoAddress:
        return None
    addresses = [ipaddress.ip_address(t.address[0].partition("%")[0]) for t in targets]
    try:
        rule.check(host, port, addresses)
    except egress.Forbidden:
        if not all(map(egress.is_public, addresses)):
            return Problem("address_private", {"host": host})
        if not any_port:
            return Problem("address_port", {"port": port, "host": host})
    return None


def _is_url(one: Field) -> bool:
    """Whether requests go there; what is told to the vendor (report, reply) is not a destination of ours."""
    return (one.name == "url" or one.name.endswith("_url")) and one.group not in ("report", "reply")


def _number(value: Any) -> float | None:
    """A number as JSON has it, or as people type it: "1 000", "0,5"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = "".join(c for c in value if not c.isspace()).replace(",", ".")
        if not text or len(text) > 20 or not set(text) <= set("0123456789.-"):
            return None
        try:
            value = float(text)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        return None
    return float(value)


def provider_of(key: Any, kind: Any = None) -> type[Provider]:
    """The registered Provider of that key. Raises Invalid when there is none, or it is of another kind."""
    found = PROVIDERS.get(key) if isinstance(key, str) else None
    if found is None:
        raise Invalid({"provider": Problem("provider_unknown")})
    if kind not in (None, found.kind):
        raise Invalid({"kind": Problem("kind_differs", {"kind": found.kind.upper()})})
    return found
