"""The stop list, and the words by which people put themselves on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from worker import clock, db, hashes

# END, ОТМЕНА and НЕТ are left out on purpose: people say them in everyday answers.
WORDS = frozenset(
    [
        *("stop", "stopall", "unsubscribe", "cancel", "quit", "optout", "remove", "arret", "td"),
        *("стоп", "стопрассылка", "отписка", "отписаться", "отпишите", "отказ", "нетрассылке", "тоқта"),
    ]
)
# Latin letters that look like Cyrillic ones: CTOП is a stop word whichever keyboard was on.
_LOOKALIKE = str.maketrans("aceopxytkmhb", "асеорхуткмнв")
_FOLDED = frozenset(word.translate(_LOOKALIKE) for word in WORDS)


def is_stop_word(text: str) -> bool:
    """Whether the whole message is one stop word, whatever the case, punctuation or keyboard."""
    word = re.sub(r"[\W_]+", "", text.casefold().replace("ё", "е"))
    return word in WORDS or word.translate(_LOOKALIKE) in _FOLDED


ALL, MARKETING = "all", "marketing"


def record(phone: str, source: str, reason: str = "", channel_id: int | None = None, scope: str = ALL) -> None:
    """Put a number on the stop list, inside the caller's transaction; a known one stays as it is.

    `scope`: ALL, or MARKETING for one that only does not want to be advertised to.
    """
    db.execute(
        "INSERT INTO opt_out (phone, scope, reason, source, channel_id, at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (phone, scope) DO NOTHING",
        [phone, scope, reason, source, channel_id, clock.now()],
    )


def choose_marketing(phone: str, choice: str, at: int, channel_id: int) -> None:
    """What the person said at the provider about marketing, `stop` or `resume`, at a time (ms); inside the caller's
    transaction. The latest word counts, in whatever order they come.

    A stop of one's own stays: only the person, or an operator with a reason, lifts that.
    """
    newest = db.execute(
        "INSERT INTO marketing_choice (phone, choice, at) VALUES (?, ?, ?) ON CONFLICT (phone) DO UPDATE"
        " SET choice = excluded.choice, at = excluded.at WHERE excluded.at >= marketing_choice.at RETURNING id",
        [phone, choice, at],
    ).fetchone()
    if newest is None:
        return
    if choice == "stop":
        record(phone, "provider", "marketing_stopped", channel_id, MARKETING)
    else:
        db.execute("DELETE FROM opt_out WHERE phone = ? AND scope = ? AND source = 'provider'", [phone, MARKETING])


def opted_out_among(phones: Iterable[str]) -> set[str]:
    """Which of these numbers (at most some thousands) want no message at all."""
    listed = list(phones)
    sql = "SELECT phone FROM opt_out WHERE scope = ? AND phone IN (SELECT value FROM json_each(?))"
    return {phone for (phone,) in db.rows(sql, [ALL, json.dumps(listed)])} | hashes.opted_out(listed, (ALL,))
