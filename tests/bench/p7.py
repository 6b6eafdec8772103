"""P7: phone numbers of the home country, and the same answer as the library for whatever people write."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable

import phonenumbers

from tests.bench.common import Result, middle
from worker.phone import Parser

FORMS = ("+7{}", "7{}", "8{}", "{}")
SIGNS = ("", "", "", " ", "-", "  ", ".", "/", "(", ")", "\u00a0")


def home(rng: random.Random, n: int) -> list[str]:
    """Mobile numbers as files have them, digits only."""
    return [rng.choice(FORMS).format(f"9{rng.randrange(10**9):09d}") for _ in range(n)]


def messy(rng: random.Random, n: int) -> list[str]:
    """Any digits of any length in any country, cut up by signs, some with letters."""
    found = []
    for _ in range(n):
        national = rng.choice(
            (f"9{rng.randrange(10**9):09d}", f"930{rng.randrange(10**7):07d}", str(rng.randrange(10**11)))
        )
        start = rng.choice(("+7", "7", "8", "", "+8", "+", "00", "+44", "+1", "tel:+7"))
        cuts = [national[:3], national[3:6], national[6:8], national[8:]]
        text = start + rng.choice(SIGNS) + "".join(part + rng.choice(SIGNS) for part in cuts)
        found.append(text if rng.random() > 0.02 else text + rng.choice("xOо#"))
    return found


def library(raw: str, region: str = "RU") -> str | None:
    """What phonenumbers alone says; a lost plus is put back where the number is long enough to be foreign."""
    digits = re.sub(r"\D", "", raw)
    tries: list[tuple[str, str | None]] = [(raw, region)]
    if "+" not in raw and digits.startswith("00"):
        tries.append(("+" + digits[2:], None))
    elif "+" not in raw and len(digits) >= 11:
        tries.append(("+" + digits, None))
    for text, home_region in tries:
        try:
            number = phonenumbers.parse(text, home_region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number) and number.extension is None:
            return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return None


def microseconds(work: Callable[[str], object], numbers: Iterable[str]) -> float:
    """Time of one call in the mean."""
    given = list(numbers)
    began = time.perf_counter()
    for raw in given:
        work(raw)
    return (time.perf_counter() - began) / len(given) * 1e6


def run(big: bool) -> list[Result]:
    rng, n = random.Random(7), 1_000_000 if big else 200_000
    plain, dirty = home(rng, n), messy(rng, n // 4)
    parser = Parser("RU")
    other = sum(parser.parse(raw).e164 != library(raw) for raw in plain[: n // 2])
    # What is certainly not one number is refused here, where the library would guess.
    answers = [(parser.parse(raw).e164, library(raw)) for raw in dirty]
    other += sum(ours not in (theirs, None) for ours, theirs in answers)
    stricter = sum(ours is None and theirs is not None for ours, theirs in answers)
    took = middle(lambda: microseconds(Parser("RU").parse, plain))
    floor = middle(lambda: microseconds(library, plain[:10_000]))
    note = f"{len(plain) // 2 + len(dirty):,} compared, {other} different, {stricter} refused that the library guesses"
    return [
        Result(
            "P7 a home number",
            f"{took:.2f} µs",
            f"{floor:.1f} µs (library)",
            f"{took / floor:.2f}",
            "≤ 3 µs, identical",
            took <= 3 and other == 0,
            note,
        )
    ]
