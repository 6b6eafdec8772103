"""The small language of the HTTP connector: one line of text is one instruction, parsed once.

template    text with {name}; {name:int} is a number in a JSON body; {name|0=text|2=unicode} puts words for values
field       name = template            name ?= template (left out when the template comes out empty)
path        messages.0.status          names and positions; * stands for every child at that place
condition   status 200,202             status 2xx            text = 0: *
            json.error_code = 7,8      json.a.*.code has 0   json.error (is there)      joined by &
rule        condition -> class [cause] [flags]
            class: ok person later unclear stop_channel stop_broadcast; `*` as the condition always holds
            flags: slow (the whole channel waits), message (ten in a row stop the broadcast), free (uses up no try),
            down (feeds the circuit breaker), wait=SECONDS, budget=TRIES, then_stop (the tries used up: stop)
map         value = status [cause]     status: sent delivered read failed ignored

A value may be a wildcard pattern: * for anything, nothing else is special, so that matching takes time in
proportion to the text whatever a stranger writes in it. Regular expressions are not offered for that reason.
A range of numbers is written 200-299, a value with a comma, & or spaces at its ends in double quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from worker.providers.base import LATER, REFUSED, STOP_BROADCAST, STOP_CHANNEL, UNCLEAR
from worker.providers.rules import Rule

TEXT_CAP = 10_000  # characters of an answer or a value that a pattern looks at
PATTERN_CAP = 300
LINES_CAP = 200
DEEPEST = 20  # steps of a dotted name
CLASSES = {
    "ok": "ok",
    "person": REFUSED,
    "later": LATER,
    "unclear": UNCLEAR,
    "stop_channel": STOP_CHANNEL,
    "stop_broadcast": STOP_BROADCAST,
}
STATUSES = ("sent", "delivered", "read", "failed", "ignored")
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(?::(int))?((?:\|[^{}|=]*=[^{}|]*)*)\}")
_FIELD = re.compile(r"([^=?]+?)\s*(\?)?=\s?(.*)", re.S)
_CONDITION = re.compile(
    r"(status|(?:json|query|row|text)(?:\.[^\s=]+)?|[\w*.\[\]-]+)(?:\s*(=|\bhas\b)\s*(.*)|\s+(.+))?", re.S
)
_CAUSE = re.compile(r"[a-z0-9_]{1,60}")


class Faulty(ValueError):
    """A line that cannot be read; the line is its text."""


Values = Mapping[str, str]
Escape = Callable[[str], str]


class Template:
    """A text with places to fill. `names` are the values it uses."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str | tuple[str, bool, dict[str, str]]] = []
        at = 0
        for found in _PLACEHOLDER.finditer(text):
            words = dict(pair.split("=", 1) for pair in found[3].split("|")[1:])
            self._parts += [text[at : found.start()], (found[1], found[2] is not None, words)]
            at = found.end()
        self._parts = [part for part in [*self._parts, text[at:]] if part != ""]
        if any(isinstance(part, str) and re.search(r"\{[a-z]", part) for part in self._parts):
            raise Faulty(text)
        self.names = {part[0] for part in self._parts if isinstance(part, tuple)}

    def fill(self, values: Values, escape: Escape = str, whole: frozenset[str] = frozenset()) -> str:
        """The text with every place filled; what is filled in is never looked at again. `whole`: names of
        values that are addresses themselves and are not escaped."""
        return "".join(
            part
            if isinstance(part, str)
            else (str if part[0] in whole else escape)(_worded(values.get(part[0], ""), part[2]))
            for part in self._parts
        )

    def value(self, values: Values) -> Any:
        """The same as a JSON value: a number where {name:int} stands alone, a literal where the line holds one."""
        if len(self._parts) == 1 and isinstance(self._parts[0], tuple) and self._parts[0][1]:
            text = self.fill(values)
            return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
        if not self.names:
            try:
                literal = json.loads(self.text, parse_constant=_no_number)
            except (ValueError, RecursionError):
                return self.text
            return literal if not isinstance(literal, dict | list) else self.text
        return self.fill(values)


def _no_number(word: str) -> Any:
    raise ValueError(word)  # NaN and its like are words, not JSON


def _worded(value: str, words: Mapping[str, str]) -> str:
    return words.get(value, words.get("*", "")) if words else value


class FieldLine(NamedTuple):
    """One field of the request."""

    name: str
    template: Template
    optional: bool


def lines(text: str) -> list[str]:
    """The lines that say something; `#` begins a remark. A lone - stands for "nothing"."""
    found = [line.strip() for line in text.splitlines()]
    found = [line for line in found if line and line != "-" and not line.startswith("#")]
    if len(found) > LINES_CAP:
        raise Faulty(f"more than {LINES_CAP} lines")
    return found


def field_line(line: str) -> FieldLine:
    """Read `name = template`. Raises Faulty."""
    found = _FIELD.fullmatch(line)
    if found is None:
        raise Faulty(line)
    return FieldLine(found[1].strip(), _template_of(found[3], line), found[2] is not None)


def header_line(line: str) -> FieldLine:
    """Read `Name: template`. Raises Faulty."""
    name, colon, text = line.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name.strip()):
        raise Faulty(line)
    return FieldLine(name.strip(), _template_of(text.strip(), line), False)


def _template_of(text: str, line: str) -> Template:
    try:
        return Template(text)
    except Faulty:
        raise Faulty(line) from None


# --- values, patterns, paths --------------------------------------------------------------------------


class Pattern:
    """One value to compare with: as it stands, a range of numbers, or with * for anything."""

    def __init__(self, text: str) -> None:
        if len(text) > PATTERN_CAP:
            raise Faulty(text)
        quoted = len(text) >= 2 and text[0] == text[-1] == '"'
        self._text = text[1:-1] if quoted else text
        span = None if quoted else re.fullmatch(r"(\d{1,18})-(\d{1,18})", text)
        self._range = (int(span[1]), int(span[2])) if span else None
        self._pieces = self._text.split("*")

    def matches(self, value: str) -> bool:
        """Whether `value`, cut to TEXT_CAP, is what the pattern describes; linear in its length for each *."""
        value = value[:TEXT_CAP]
        if self._range is not None:
            return value.isascii() and value.isdigit() and self._range[0] <= int(value[:18]) <= self._range[1]
        first, *rest = self._pieces
        if not rest:
            return value == first
        last = rest.pop()
        if len(value) < len(first) + len(last) or not value.startswith(first) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for piece in rest:
            found = value.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def split_outside_quotes(text: str, separator: str) -> list[str]:
    """`text` cut at `separator`, but not between double quotes; ends stripped."""
    pieces, piece, quoted = [], "", False
    for character in text:
        quoted ^= character == '"'
        if character == separator and not quoted:
            pieces.append(piece.strip())
            piece = ""
        else:
            piece += character
    return [*pieces, piece.strip()]


def plain(value: Any) -> str:
    """A value of an answer as text. A lone control character stands for its number (Jasmin's raw bytes)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(ord(value)) if len(value) == 1 and ord(value) < 32 else value
    return "" if value is None or isinstance(value, dict | list) else str(value)


def every(found: Any, path: str) -> list[Any]:
    """All values at `path`; none when it leads nowhere."""
    here = [found]
    for step in path.split(".") if path else ():
        below: list[Any] = []
        for item in here:
            if step == "*":
                below += list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
            elif isinstance(item, dict) and step in item:
                below.append(item[step])
            elif isinstance(item, list) and step.isascii() and step.isdigit() and int(step[:6]) < len(item):
                below.append(item[int(step[:6])])
        here = below[:1000]
    return here


def first(found: Any, path: str) -> str:
    """The first value at `path` that says something, as text; "" when there is none."""
    return next((text for text in map(plain, every(found, path)) if text), "") if path else ""


# --- conditions and rules -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What a condition may look at. `tree` holds json, query and row."""

    status: int = 0
    text: str = ""
    tree: Any = None


class _Test(NamedTuple):
    subject: str  # status, text, or a path
    how: str  # all, some, there
    patterns: tuple[Pattern, ...]

    def holds(self, facts: Facts) -> bool:
        if self.subject == "status":
            values = [str(facts.status)]
        elif self.subject == "text":
            values = [facts.text.strip()]
        else:
            found = [value for value in every(facts.tree, self.subject) if value is not None]
            if self.how == "there":
                return bool(found)
            values = [plain(value) for value in found]
        hits = [any(pattern.matches(value) for pattern in self.patterns) for value in values]
        return any(hits) if self.how == "some" else bool(hits) and all(hits)


class Condition:
    """Tests that must all hold."""

    def __init__(self, text: str) -> None:
        self._tests = [] if text.strip() == "*" else [_test(piece) for piece in split_outside_quotes(text, "&")]

    def holds(self, facts: Facts) -> bool:
        return all(test.holds(facts) for test in self._tests)


def _test(text: str) -> _Test:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise Faulty(text)
    subject, operator, values, bare = found.groups()
    if subject == "status":
        given = bare or values or ""
        if not given:
            raise Faulty(text)
        return _Test(subject, "all", tuple(_status(value, text) for value in given.split(",")))
    if bare is not None or (subject == "text" and operator is None):
        raise Faulty(text)
    if operator is None:
        return _Test(subject, "there", ())
    patterns = tuple(Pattern(value) for value in split_outside_quotes(values, ","))
    return _Test(subject, "some" if operator == "has" else "all", patterns)


def _status(value: str, line: str) -> Pattern:
    value = value.strip()
    if re.fullmatch(r"[1-5]xx", value):
        return Pattern(f"{value[0]}00-{value[0]}99")
    if not re.fullmatch(r"\d{3}(-\d{3})?", value):
        raise Faulty(line)
    return Pattern(value)


class OutcomeRule(NamedTuple):
    """What an answer that fulfils the condition means; `rule` is None for acceptance."""

    condition: Condition
    rule: Rule | None
    cause: str


DEFAULT_CAUSES = {
    REFUSED: "sms_refused",
    LATER: "sms_throttled",
    UNCLEAR: "answer_unreadable",
    STOP_CHANNEL: "sms_bad_token",
    STOP_BROADCAST: "sms_bad_text",
}


def outcome_rule(line: str) -> OutcomeRule:
    """Read `condition -> class [cause] [flags]`. Raises Faulty."""
    left, arrow, right = line.rpartition("->")
    words = right.split()
    if not arrow or not words or words[0] not in CLASSES:
        raise Faulty(line)
    try:
        condition = Condition(left.strip())
    except Faulty:
        raise Faulty(line) from None
    outcome = CLASSES[words[0]]
    cause = ""
    given: dict[str, Any] = {}
    for word in words[1:]:
        name, equals, number = word.partition("=")
        if equals:
            if name not in ("wait", "budget") or not re.fullmatch(r"\d{1,6}", number):
                raise Faulty(line)
            given[name] = float(number) if name == "wait" else int(number)
        elif word in _FLAGS:
            given.update(_FLAGS[word])
        elif _CAUSE.fullmatch(word) and not cause:
            cause = word
        else:
            raise Faulty(line)
    if outcome == "ok":
        return OutcomeRule(condition, None, "")
    return OutcomeRule(condition, Rule(outcome, **given), cause or DEFAULT_CAUSES[outcome])


_FLAGS: dict[str, dict[str, Any]] = {
    "slow": {"slow_channel": True},
    "message": {"about_message": True},
    "free": {"counts": False},
    "down": {"breaker": True},
    "then_stop": {"then": STOP_BROADCAST},
}


class StatusLine(NamedTuple):
    """What the gateway's word for a status means."""

    pattern: Pattern
    status: str
    cause: str


def status_line(line: str) -> StatusLine:
    """Read `value = status [cause]`. Raises Faulty."""
    left, equals, right = line.rpartition("=")
    words = right.split()
    if not equals or not left.strip() or not words or words[0] not in STATUSES or len(words) > 2:
        raise Faulty(line)
    if len(words) == 2 and not _CAUSE.fullmatch(words[1]):
        raise Faulty(line)
    return StatusLine(Pattern(left.strip()), words[0], words[1] if len(words) == 2 else "")


class CauseLine(NamedTuple):
    """What the gateway's code for a failure means."""

    pattern: Pattern
    cause: str


def cause_line(line: str) -> CauseLine:
    """Read `value = cause`. Raises Faulty."""
    left, equals, right = line.rpartition("=")
    if not equals or not left.strip() or not _CAUSE.fullmatch(right.strip()):
        raise Faulty(line)
    return CauseLine(Pattern(left.strip()), right.strip())


class IdRule:
    """Where the gateway's id of an accepted message is: `own`, `json.PATH`, or `text BEFORE{id}AFTER`.

    A path with * names the ids of all parts, where the gateway numbers and reports each of them alone.
    """

    def __init__(self, text: str) -> None:
        self.own = text == "own"
        self._path = text if text.startswith("json.") else ""
        self._ends: tuple[str, str] | None = None
        if text.startswith("text "):
            before, found, after = text[5:].strip().partition("{id}")
            if not found or "{id}" in after or len(text) > PATTERN_CAP:
                raise Faulty(text)
            self._ends = (before, after)
        if not (self.own or self._path or self._ends):
            raise Faulty(text)

    def each(self, facts: Facts) -> tuple[str, ...]:
        """The ids of all parts in an answer, in order; the one id of a message that is whole; none when it has none."""
        if not self._path:
            return tuple(filter(None, [self.of(facts)]))
        return tuple(dict.fromkeys(text[:200] for text in map(plain, every(facts.tree, self._path)) if text))

    def of(self, facts: Facts) -> str:
        """The id in an answer; "" when it has none."""
        if self._ends is None:
            return first(facts.tree, self._path)[:200]
        before, after = self._ends
        _, found, rest = facts.text[:TEXT_CAP].partition(before) if before else ("", "x", facts.text[:TEXT_CAP])
        if not found:
            return ""
        if not after:
            return rest.strip().split("\n", 1)[0].strip()[:200]
        identity, closed, _ = rest.partition(after)
        return identity.strip()[:200] if closed else ""


# --- bodies ---------------------------------------------------------------------------------------------


def nested(pairs: Iterator[tuple[str, Any]] | list[tuple[str, Any]]) -> Any:
    """Dotted names as a tree: {"a.0.b": 1} is {"a": [{"b": 1}]}; a step of digits makes a list."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        here = tree
        *way, last = name.split(".")
        if len(way) > DEEPEST:
            raise Faulty(name)
        for step in way:
            below = here.setdefault(step, {})
            if not isinstance(below, dict):
                raise Faulty(name)
            here = below
        here[last] = value
    return _listed(tree)


def _listed(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.isascii() and key.isdigit() for key in tree):
        return [_listed(tree[key]) for key in sorted(tree, key=int)]
    return {key: _listed(value) for key, value in tree.items()}
