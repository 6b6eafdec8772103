"""The stop list: who is on it and since when, how a number gets on it and off it, and the proof of both.

Every change writes an OptOutEvent in the same transaction. The list says what holds now; the events, which are
only ever appended to, say why: the person's own words, the vendor's code, or what an operator wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker import audit, clock, db, hashes, installation, stopwords
from worker.models import OptOut
from worker.problems import Invalid, Problem
from worker.stopwords import Words

ALL, MARKETING = "all", "marketing"
SCOPES = (ALL, MARKETING)  # no broadcast at all, or none that advertises
# Who said it: the person in a reply, the provider, one of us, a list from elsewhere.
REPLY, PROVIDER, PERSON, IMPORT = "reply", "provider", "person", "import"
SOURCES = (REPLY, PROVIDER, PERSON, IMPORT)
ADD, REMOVE = "add", "remove"
REASON_MAX = 200
PAGE, PAGE_MAX = 50, 500
STORIES = 200  # events of one number that a page shows


class Entry(NamedTuple):
    """One number that shall be on the list."""

    phone: str
    scope: str = ALL
    reason: str = ""


# --- on the list and off it -------------------------------------------------------------------------

_ROW = "phone, scope, reason, source, channel_id, at"
_TEXTS = ", ".join(f"json_extract(value, '$[{n}]')" for n in range(4))
_VALUES = f"{_TEXTS}, CAST(json_extract(value, '$[4]') AS BIGINT), CAST(json_extract(value, '$[5]') AS BIGINT)"
# Changes and their proof, each in one statement for as many rows as there are.
_ADD = (
    f"INSERT INTO opt_out ({_ROW}) SELECT {_VALUES} FROM json_each(?) WHERE TRUE"  # noqa: S608
    f" ON CONFLICT (phone, scope) DO NOTHING RETURNING {_ROW}"
)
_PROVE = f"INSERT INTO opt_out_event ({_ROW}, action, actor) SELECT {_VALUES}, ?, ? FROM json_each(?)"  # noqa: S608


def put(
    entries: Iterable[Entry],
    source: str,
    *,
    channel_id: int | None = None,
    actor: str = "",
    at: int | None = None,
) -> int:
    """Put numbers (at most some thousands) on the list, inside the caller's transaction; how many were not on it.

    A known one stays as it is, with the reason that it has. `at`: when it was said, if not now.
    """
    at = clock.now() if at is None else at
    return keep([(*entry, source, channel_id, at) for entry in entries], actor)


def keep(rows: Sequence[Sequence[Any]], actor: str = "") -> int:
    """`put` for entries of several origins: phone, scope, reason, source, channel, time."""
    added = db.rows(_ADD, [_json(rows)])
    _prove(ADD, added, actor)
    return len(added)


def record(phone: str, source: str, reason: str = "", channel_id: int | None = None, scope: str = ALL) -> None:
    """Put one number on the list, inside the caller's transaction; a known one stays as it is."""
    put([Entry(phone, scope, reason)], source, channel_id=channel_id)


def _take_off(where: str, values: Sequence[Any], said: Sequence[Any], actor: str = "") -> int:
    """Delete entries, with the reason, source, channel and time of that as proof; how many there were."""
    gone = db.rows(f"DELETE FROM opt_out WHERE {where} RETURNING phone, scope", values)  # noqa: S608
    _prove(REMOVE, [(*row, *said) for row in gone], actor)
    return len(gone)


def _prove(action: str, changed: Sequence[Sequence[Any]], actor: str) -> None:
    if changed:
        db.execute(_PROVE, [action, actor, _json(changed)])


def _json(rows: Sequence[Sequence[Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def add(phone: str, reason: str, actor: str, scope: str = ALL) -> tuple[OptOut, bool]:
    """Put one number (E.164) on the list by hand: (its row, whether it is new). Raises Invalid."""
    checked(reason, scope)
    with db.write():
        new = put([Entry(phone, scope, reason.strip())], PERSON, actor=actor) > 0
        row = OptOut.get((OptOut.phone == phone) & (OptOut.scope == scope))
        if new:
            audit.record(actor, "optout.add", str(row.id))
    return row, new


def remove(row_id: int, reason: str, actor: str) -> bool:
    """Take a number off by hand; the proof stays. False when it was off already. Raises Invalid."""
    checked(reason)
    with db.write():
        gone = _take_off("id = ?", [row_id], [reason.strip(), PERSON, None, clock.now()], actor)
        if gone:
            audit.record(actor, "optout.remove", str(row_id))
    return gone > 0


def checked(reason: str, scope: str = ALL) -> None:
    """Raise Invalid for a reason or a scope that cannot be stored."""
    problems = {}
    if len(reason.strip()) > REASON_MAX:
        problems["reason"] = Problem("setting_too_long", {"max": REASON_MAX})
    elif not all(c.isprintable() or c in "\r\n\t" for c in reason):
        problems["reason"] = Problem("setting_invalid")
    if scope not in SCOPES:
        problems["scope"] = Problem("not_a_choice")
    if problems:
        raise Invalid(problems)


# --- what people say --------------------------------------------------------------------------------


def heed(phone: str, text: str, payload: str, channel_id: int, at: int) -> None:
    """Act on a person's message where the whole of it is a word for leaving or coming back; inside the caller's
    transaction. `payload`: what a button brings back beside its label. `at`: when it was said.

    Coming back takes away what the person's own earlier reply has done, never what an operator or the provider
    has, and never a stop that was said later: replies may arrive in any order.
    """
    words = stop_words()
    meanings = (words.meaning(text), words.meaning(payload))
    said = (text.strip() or payload)[:REASON_MAX]
    if stopwords.OUT in meanings:
        put([Entry(phone, ALL, said)], REPLY, channel_id=channel_id, at=at)
    elif stopwords.BACK in meanings and not _left_later(words, phone, at):
        own = "phone = ? AND scope = ? AND source = ? AND at <= ?"
        _take_off(own, [phone, ALL, REPLY, at], [said, REPLY, channel_id, at])


def _left_later(words: Words, phone: str, at: int) -> bool:
    """Whether a stop is known that was said after that moment; one that repeats another is no entry of its own."""
    later = db.rows("SELECT text FROM inbound WHERE phone = ? AND at > ? LIMIT 1000", [phone, at])
    return any(words.meaning(text or "") == stopwords.OUT for (text,) in later)


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
        record(phone, PROVIDER, "marketing_stopped", channel_id, MARKETING)
    else:
        own = "phone = ? AND scope = ? AND source = ?"
        _take_off(own, [phone, MARKETING, PROVIDER], ["marketing_resumed", PROVIDER, channel_id, at])


# --- who is on it -----------------------------------------------------------------------------------


def opted_out_among(phones: Iterable[str], scopes: Sequence[str] = (ALL,)) -> set[str]:
    """Which of these numbers (at most some thousands) want no message: none at all, or with SCOPES none of a
    broadcast that advertises."""
    sql = (
        "SELECT phone FROM opt_out WHERE phone IN (SELECT value FROM json_each(?))"
        " AND scope IN (SELECT value FROM json_each(?))"
    )
    given = list(phones)
    found = {phone for (phone,) in db.rows(sql, [json.dumps(given), json.dumps(list(scopes))])}
    return found | hashes.opted_out(given, scopes)


def count(scope: str = "") -> int:
    """How many entries the list has, of one scope or of both: a walk along an index, so not for what is asked often."""
    where, values = (" WHERE scope = ?", [scope]) if scope else ("", [])
    return int(db.value(f"SELECT COUNT(*) FROM opt_out{where}", values))  # noqa: S608


@dataclass(frozen=True)
class Filter:
    """What to list. `phone` is E.164 or its beginning."""

    phone: str = ""
    source: str = ""
    scope: str = ""


class Row(NamedTuple):
    """One entry as pages and exports show it; `at` in ms."""

    id: int
    phone: str
    scope: str
    reason: str
    source: str
    channel_id: int | None
    at: int


class Page(NamedTuple):
    items: list[Row]
    next: str | None


_COLUMNS = ", ".join(Row._fields)


def find(chosen: Filter, after: str = "", limit: int = PAGE) -> Page:
    """One page of the list and the cursor of the next, which is opaque to the caller: the latest first, or by number
    where a number is looked for.

    Every kind of entry is read through its own stretch of an index and the stretches are merged, so that a page
    costs the same whatever is chosen. Raises ValueError for a choice or a cursor that is not one of ours.
    """
    if chosen.source not in ("", *SOURCES) or chosen.scope not in ("", *SCOPES):
        raise ValueError("source" if chosen.scope in ("", *SCOPES) else "scope")
    limit = max(1, min(limit, PAGE_MAX))
    stretch = _by_phone(chosen.phone, after) if chosen.phone else _by_age(after)
    found: list[Row] = []
    for scope in [chosen.scope] if chosen.scope else SCOPES:
        where, values, order = stretch(scope)
        for source in [chosen.source] if chosen.source else SOURCES:
            sql = f"SELECT {_COLUMNS} FROM opt_out WHERE scope = ? AND source = ? AND {where} ORDER BY {order} LIMIT ?"  # noqa: S608
            found += [Row(*row) for row in db.rows(sql, [scope, source, *values, limit + 1])]
    found.sort(key=(lambda row: (row.phone, row.scope)) if chosen.phone else (lambda row: -row.id))
    if len(found) <= limit:
        return Page(found, None)
    last = found[limit - 1]
    return Page(found[:limit], f"{last.phone} {last.scope}" if chosen.phone else str(last.id))


def _by_age(after: str) -> Any:
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ValueError("after")
    return lambda _scope: ("id < ?", [int(after) if after else 2**62], "id DESC")


def _by_phone(phone: str, after: str) -> Any:
    end = phone[:-1] + chr(ord(phone[-1]) + 1)
    last, _space, last_scope = after.partition(" ")
    if after and last_scope not in SCOPES:
        raise ValueError("after")

    def stretch(scope: str) -> tuple[str, list[Any], str]:
        beyond = ">=" if scope > last_scope else ">"
        return f"phone >= ? AND phone < ? AND phone {beyond} ?", [phone, end, last], "phone"

    return stretch


def every(step: int = 2_000) -> Iterator[list[Row]]:
    """The whole list, the earliest first, `step` at a time."""
    last = 0
    sql = f"SELECT {_COLUMNS} FROM opt_out WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
    while batch := [Row(*row) for row in db.rows(sql, [last, step])]:
        yield batch
        last = batch[-1].id


class Event(NamedTuple):
    """One line of the history of a number; `at` in ms."""

    id: int
    at: int
    scope: str
    action: str
    source: str
    reason: str
    channel_id: int | None
    actor: str


_EVENT = ", ".join(Event._fields)


def history(phone: str) -> list[Event]:
    """What happened to a number, the latest first."""
    sql = f"SELECT {_EVENT} FROM opt_out_event WHERE phone = ? ORDER BY id DESC LIMIT ?"  # noqa: S608
    return [Event(*row) for row in db.rows(sql, [phone, STORIES])]


def by_id(row_id: int) -> Row | None:
    found = db.rows(f"SELECT {_COLUMNS} FROM opt_out WHERE id = ?", [row_id])  # noqa: S608
    return Row(*found[0]) if found else None


def of_phone(phone: str) -> list[Row]:
    """The entries of a number: none, one, or one for each scope."""
    sql = f"SELECT {_COLUMNS} FROM opt_out WHERE phone = ? ORDER BY scope"  # noqa: S608
    return [Row(*row) for row in db.rows(sql, [phone])]


# --- settings ---------------------------------------------------------------------------------------

WORDS = "optout_words"
WORD_MAX, WORDS_MAX = 50, 100


def stop_words() -> Words:
    """The words that count in this installation."""
    stored = installation.fact(WORDS)
    return Words(tuple(stored["extra"]), tuple(stored["on"])) if stored else stopwords.DEFAULT


def set_stop_words(extra: Iterable[str], on: Iterable[str], actor: str) -> Words:
    """Choose the words. Raises Invalid for one that cannot be used; nothing is stored then."""
    own = tuple(dict.fromkeys(word for word in (" ".join(given.split()) for given in extra) if word))
    problem = _fault(own)
    if problem is not None:
        raise Invalid({"extra": problem})
    chosen = Words(own, tuple(word for word in stopwords.OPTIONAL if word in set(on)))
    with db.write():
        value = {"extra": list(chosen.extra), "on": list(chosen.on)}
        installation.keep(WORDS, value)
        audit.record(actor, "optout.words", extra=value["extra"], on=value["on"])
    return chosen


def _fault(own: Sequence[str]) -> Problem | None:
    if len(own) > WORDS_MAX:
        return Problem("too_many_words", {"max": WORDS_MAX})
    for word in own:
        if len(word) > WORD_MAX:
            return Problem("setting_too_long", {"max": WORD_MAX})
        if not stopwords.folded(word):
            return Problem("word_without_letters", {"v": word})
        meaning = Words(on=stopwords.RETURNING_OPTIONAL).meaning(word)
        if meaning in (stopwords.BACK, stopwords.HELP):
            return Problem("word_means_other", {"v": word})
    return None
