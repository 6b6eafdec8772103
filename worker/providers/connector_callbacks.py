"""What a callback holds, whichever way a gateway writes it. Made for the text of strangers: bounded in every way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from worker import clock, phone
from worker.providers.base import RawCallback
from worker.providers.connector_rules import Faulty, every, nested

ROWS = 1_000  # of one callback
PAIRS = 5_000  # names and values of one form
_DIGITS = re.compile(r"\+?[0-9\s().-]{7,25}")


def load(body: bytes) -> Any:
    """The JSON in `body`, whatever it is; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def tree_of(callback: RawCallback, source: str) -> Any:
    """What a callback says: its query, its form or its JSON; `auto` takes whatever there is."""
    if source == "query" or (source == "auto" and not callback.body.strip()):
        return dict(callback.query)
    if source == "json" or (source == "auto" and callback.body.lstrip()[:1] in (b"{", b"[")):
        return load(callback.body)
    try:
        pairs = parse_qsl(callback.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=PAIRS)
    except ValueError:
        return None
    try:
        return nested([(re.sub(r"\[([^\[\]]*)\]", r".\1", name), value) for name, value in pairs])
    except Faulty:
        return dict(pairs)


def rows_of(tree: Any, path: str, callback: RawCallback) -> Iterator[dict[str, Any]]:
    """The items of one callback, each with the query of the address beside it; `json.id` and `form.id` mean `id`."""
    for row in (every(tree, path) if path else [tree])[:ROWS]:
        if isinstance(row, str):
            row = row.splitlines()
        if isinstance(row, list):
            row = {str(at): value for at, value in enumerate(row[:ROWS])}
        own = row if isinstance(row, dict) else {}
        yield {"json": own, "form": own, **own, "query": dict(callback.query)}


def phone_of(text: str, region: str) -> str:
    """A phone with its plus; a short number or a name as it is.

    Gateways leave the plus out. Only what is no number of any country with a plus before it is read as one of
    `region`, such as 8 916 123-45-67 in Russia.
    """
    text = text.strip()[:100]
    digits = re.sub(r"[^0-9]", "", text)
    if not _DIGITS.fullmatch(text) or not 7 <= len(digits) <= 15:
        return text
    whole = f"+{digits}"
    if text.startswith("+") or phone.parse(whole, region).e164:
        return whole
    return phone.parse(digits, region).e164 or whole


def wide(coded: str) -> str:
    """Text from UTF-16BE in hexadecimal; "" when it is not that."""
    try:
        return bytes.fromhex(coded).decode("utf-16-be", "replace")
    except ValueError:
        return ""


def moment(text: str) -> int:
    """Milliseconds since the epoch; 0 when the gateway does not say or leaves the zone out."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{9,14}(\.[0-9]+)?", text):
        number = float(text)
        number = number if number > 1e11 else number * clock.MS
        return int(number) if 0 < number < 4_102_444_800_000 else 0
    try:
        found = datetime.fromisoformat(text)
        return int(found.timestamp() * clock.MS) if found.tzinfo is not None else 0
    except (ValueError, OverflowError):
        return 0
