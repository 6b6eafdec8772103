"""Text → E.164, or the reason why not. The answer is always that of the phonenumbers metadata."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple

import phonenumbers
from phonenumbers import PhoneNumberType

# Marks that phones and contact lists put around a number without meaning anything by them.
_INVISIBLE = dict.fromkeys(
    [0x00AD, 0x061C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
)
_SCIENTIFIC = re.compile(r"^[+-]?\d(?:[.,]\d+)?[eEеЕ]\+?\d{1,2}$")
_EXCEL_TEXT = re.compile(r'^="?([^"]*)"?$')
_ALLOWED = re.compile(r"^\+?[\d\s().\-‐-―−/~]+$")
_TWO_NUMBERS = re.compile(r"[,;|/]|\d\s+\+\d|\d\s{2,}\d{5,}")
_MOBILE = (
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.PERSONAL_NUMBER,
    PhoneNumberType.PAGER,
    PhoneNumberType.UNKNOWN,
)


class Phone(NamedTuple):
    """`e164` or a reason: phone_missing, phone_invalid, phone_scientific, phone_not_mobile.

    `repaired` says that the number is not simply the typed digits: a prefix or a mark was changed.
    """

    e164: str | None
    reason: str | None
    repaired: bool = False


MISSING = Phone(None, "phone_missing")
INVALID = Phone(None, "phone_invalid")


def parse(raw: str, region: str, mobile_only: bool = False) -> Phone:
    """Read one number as a person wrote it; `region` decides what a number without a plus means."""
    text, marked = _strip(raw)
    if not text:
        return MISSING
    if _SCIENTIFIC.match(text):
        return Phone(None, "phone_scientific")
    if not _ALLOWED.match(text) or _TWO_NUMBERS.search(text):
        return INVALID
    number = _number(text, region)
    if number is None:
        return INVALID
    if mobile_only and phonenumbers.number_type(number) not in _MOBILE:
        return Phone(None, "phone_not_mobile")
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    digits = re.sub(r"\D", "", text)
    return Phone(e164, None, marked or digits != e164[1:])


def _strip(raw: str) -> tuple[str, bool]:
    """The number without wrapping: invisible marks, Excel's text forms, tel:, a trailing .0."""
    text = unicodedata.normalize("NFKC", raw.translate(_INVISIBLE)).strip()
    before = text
    excel = _EXCEL_TEXT.match(text) if text.startswith("=") else None
    if excel:
        text = excel.group(1)
    text = text.lstrip("'").strip()
    if text[:4].lower() == "tel:":
        text = text[4:].strip()
    if re.fullmatch(r"\+?\d{7,15}\.0+", text):
        text = text.split(".")[0]
    text = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in text)
    return text, text != before


def _number(text: str, region: str) -> phonenumbers.PhoneNumber | None:
    """A valid number: as written, else with the plus that a table programme took away."""
    candidates: list[tuple[str, str | None]] = [(text, region)]
    digits = re.sub(r"\D", "", text)
    if not text.startswith("+"):
        if digits.startswith("00"):
            candidates.append(("+" + digits[2:], None))
        elif len(digits) >= 11:
            candidates.append(("+" + digits, None))
    for candidate, home in candidates:
        try:
            number = phonenumbers.parse(candidate, home)
        except phonenumbers.NumberParseException:
            continue
        if number.extension is None and phonenumbers.is_valid_number(number):
            return number
    return None


# A home number as people group its digits: 8 (900) 000-00-00.
_GROUPED = re.compile(r"(?:(?:\+7|[78])[ -]?)?\(?9\d\d\)?[ -]?\d{3}[ -]?\d\d[ -]?\d\d", re.ASCII)
_UNGROUP = dict.fromkeys(map(ord, " -()"))


class Parser:
    """`parse` for many numbers of one region, by a short way for mobile numbers of Russia, where lists are long.

    Whoever writes home numbers with +7, 7, 8 or nothing in front means the same; which digits may follow is
    the library's own pattern, so the answer is the library's too. Everything else goes the long way.
    """

    def __init__(self, region: str, mobile_only: bool = False) -> None:
        self.region = region
        self.mobile_only = mobile_only
        self._quick: re.Pattern[str] | None = None
        if region in ("RU", "KZ"):
            russia: Any = phonenumbers.PhoneMetadata.metadata_for_region("RU")
            self._quick = re.compile(rf"(\+?7|8?)(?=9)({russia.mobile.national_number_pattern})", re.ASCII)

    def parse(self, raw: str) -> Phone:
        """The same answer as the function `parse`, quicker for the common case."""
        if self._quick is not None:
            found = self._quick.fullmatch(raw)
            if found is None and _GROUPED.fullmatch(raw):
                found = self._quick.fullmatch(raw.translate(_UNGROUP))
            if found is not None:
                prefix, national = found.groups()
                return Phone("+7" + national, None, prefix[-1:] != "7")
        return parse(raw, self.region, self.mobile_only)
