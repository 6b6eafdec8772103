"""`{{ column | fallback }}` → text, or template parameters; reasons when it cannot be.

One pass, linear time: a value is never looked at again, so what a cell contains stays text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker import segments

_VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")
_POSITIONAL = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")
_FORBIDDEN = re.compile(r"[\n\r\t]| {5}")
_ZERO_WIDTH = dict.fromkeys([0x00AD, 0xFEFF, *range(0x200B, 0x2010), 0x2060])
BODY_MAX, HEADER_MAX, CODE_MAX = 1024, 60, 15
MEDIA = ("IMAGE", "VIDEO", "DOCUMENT")
UNSUPPORTED_PARTS = ("CAROUSEL", "LIMITED_TIME_OFFER")
UNSUPPORTED_BUTTONS = ("FLOW", "CATALOG", "MPM", "ORDER_DETAILS", "SPM")


class TextError(ValueError):
    """A message text that cannot be used: code (text_empty, text_bad_variable, text_unclosed) and detail."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} {detail}".strip())
        self.code = code
        self.detail = {"v": detail}


class RowError(ValueError):
    """A row that cannot be rendered: code, the column to blame, and facts for the sentence."""

    def __init__(self, code: str, column: str | None = None, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code} {column or ''}".strip())
        self.code = code
        self.column = column
        self.detail = dict(detail or {})


class MissingColumns(ValueError):
    """Columns that the message needs and the file lacks."""

    def __init__(self, columns: list[str]) -> None:
        super().__init__(", ".join(columns))
        self.columns = columns


def column_key(name: str) -> str:
    """A column name as it is compared: without case, spaces, hyphens, underscores, zero-width marks."""
    folded = unicodedata.normalize("NFC", name.translate(_ZERO_WIDTH)).casefold().replace("ё", "е")
    return re.sub(r"[\s_\-‐-―]+", "", folded)


# --- pieces -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """Where one value comes from: a column with an optional fallback, or fixed text."""

    column: str = ""
    fallback: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A message text as literal pieces and values, in order."""

    pieces: tuple[str | Value, ...]

    @property
    def variables(self) -> list[str]:
        """Column names in the order of their first use, each once."""
        return _columns(p for p in self.pieces if isinstance(p, Value))


def _columns(values: Any) -> list[str]:
    seen: dict[str, str] = {}
    for value in values:
        if value.column:
            seen.setdefault(column_key(value.column), value.column)
    return list(seen.values())


def parse_text(text: str) -> ParsedText:
    """Split a message text at its variables. Raises TextError."""
    if not text.strip():
        raise TextError("text_empty")
    pieces: list[str | Value] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        pieces.append(text[at : found.start()])
        name, bar, fallback = found.group(1).partition("|")
        if not column_key(name):
            raise TextError("text_bad_variable", found.group(0))
        pieces.append(Value(" ".join(name.split()), fallback.strip() if bar else ""))
        at = found.end()
    pieces.append(text[at:])
    literal = "".join(p for p in pieces if isinstance(p, str))
    if "{{" in literal or "}}" in literal:
        raise TextError("text_unclosed", "{{" if "{{" in literal else "}}")
    return ParsedText(tuple(p for p in pieces if p != ""))


# --- templates --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in a template that wants a value. `kind`: text, image, video, document, suffix, code."""

    id: str
    part: str  # header, body, button
    kind: str
    example: str = ""
    name: str = ""


def _names(text: str) -> list[str]:
    found = dict.fromkeys(m.group(1) for m in _POSITIONAL.finditer(text or ""))
    return sorted(found, key=lambda n: (0, int(n), "") if n.isdigit() else (1, 0, n)) if found else []


def slots(components: Sequence[Mapping[str, Any]], parameter_format: str = "POSITIONAL") -> list[Slot]:
    """The values a template wants: `header.NAME`, `header.media`, `body.NAME`, `button.INDEX`."""
    found: list[Slot] = []
    for component in components:
        kind = component.get("type")
        if kind == "HEADER":
            if component.get("format", "TEXT") == "TEXT":
                found += [Slot(f"header.{n}", "header", "text", name=n) for n in _names(component.get("text", ""))]
            elif component.get("format") in MEDIA:
                found.append(Slot("header.media", "header", str(component["format"]).lower()))
        elif kind == "BODY":
            names = _names(component.get("text", ""))
            if not names and component.get("add_security_recommendation") is not None:
                names = ["1"]
            examples = _examples(component)
            found += [Slot(f"body.{n}", "body", "text", examples.get(n, ""), n) for n in names]
        elif kind == "BUTTONS":
            for index, button in enumerate(component.get("buttons", [])):
                if button.get("type") == "URL" and "{{" in button.get("url", ""):
                    found.append(Slot(f"button.{index}", "button", "suffix", name=button.get("text", "")))
                elif button.get("type") == "COPY_CODE":
                    found.append(Slot(f"button.{index}", "button", "code", name=button.get("text", "")))
    return found


def _examples(component: Mapping[str, Any]) -> dict[str, str]:
    example = component.get("example") or {}
    named = {e.get("param_name", ""): str(e.get("example", "")) for e in example.get("body_text_named_params", [])}
    rows = example.get("body_text") or [[]]
    return {**{str(i): str(v) for i, v in enumerate(rows[0], 1)}, **named}


def unsupported(components: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parts of a template that this version cannot send."""
    found = [str(c.get("type")) for c in components if c.get("type") in UNSUPPORTED_PARTS]
    for component in components:
        if component.get("type") == "HEADER" and component.get("format", "TEXT") not in ("TEXT", *MEDIA):
            found.append(f"HEADER {component.get('format')}")
        for button in component.get("buttons", []) if component.get("type") == "BUTTONS" else []:
            if button.get("type") in UNSUPPORTED_BUTTONS:
                found.append(f"BUTTON {button.get('type')}")
    return found


# --- content ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rendered:
    """One message for one row: `text` for SMS and for a preview; `template` as the Cloud API takes it."""

    text: str
    template: dict[str, Any] | None = None


Getter = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Renderer:
    """A message bound to the columns of one file."""

    function: Callable[[Sequence[str]], Rendered]

    def render(self, cells: Sequence[str]) -> Rendered:
        """The message for one row. Raises RowError."""
        return self.function(cells)


@dataclass(frozen=True)
class Content:
    """The whole message of a broadcast, before it meets a row."""

    columns: list[str] = field(default_factory=list)
    pieces: tuple[str | Value, ...] = ()
    template: tuple[str, str] | None = None
    components: Sequence[Mapping[str, Any]] = ()
    named: bool = False
    values: Mapping[str, Value] = field(default_factory=dict)

    def bind(self, columns: Sequence[str]) -> Renderer:
        """Tie the message to a file's columns. Raises MissingColumns."""
        places = {column_key(name): at for at, name in reversed(list(enumerate(columns)))}
        missing = [name for name in self.columns if column_key(name) not in places]
        if missing:
            raise MissingColumns(missing)
        if self.template is None:
            return Renderer(_sms(self.pieces, places))
        return Renderer(_waba(self, places))


def sms_content(text: str) -> Content:
    """An SMS. Raises TextError."""
    parsed = parse_text(text)
    return Content(parsed.variables, parsed.pieces)


def waba_content(
    name: str,
    language: str,
    components: Sequence[Mapping[str, Any]],
    parameter_format: str,
    variables: Mapping[str, Mapping[str, str]],
) -> Content:
    """A template with a binding for each slot."""
    values = {
        slot: Value(b.get("column", ""), b.get("fallback", ""), b.get("value", "")) for slot, b in variables.items()
    }
    named = parameter_format == "NAMED"
    return Content(_columns(values.values()), (), (name, language), components, named, values)


def _getter(value: Value, places: Mapping[str, int]) -> Getter:
    if not value.column:
        return lambda cells: value.text
    at = places[column_key(value.column)]

    def get(cells: Sequence[str]) -> str:
        text = cells[at].strip() if at < len(cells) else ""
        if not text:
            if not value.fallback:
                raise RowError("variable_missing", value.column)
            return value.fallback
        return text

    return get


def _sms(pieces: tuple[str | Value, ...], places: Mapping[str, int]) -> Callable[[Sequence[str]], Rendered]:
    parts = [p if isinstance(p, str) else _getter(p, places) for p in pieces]
    if len(parts) == 1 and isinstance(parts[0], str):
        fixed = Rendered(parts[0])
        _check_length(parts[0])
        return lambda cells: fixed

    def render(cells: Sequence[str]) -> Rendered:
        text = "".join(p if isinstance(p, str) else p(cells) for p in parts)
        _check_length(text)
        return Rendered(text)

    return render


def _check_length(text: str) -> None:
    if len(text) > segments.UCS_ONE:
        n = segments.count(text).segments
        if n > segments.MAX_SEGMENTS:
            raise RowError("text_too_long", None, {"m": n, "max": segments.MAX_SEGMENTS})


def _waba(content: Content, places: Mapping[str, int]) -> Callable[[Sequence[str]], Rendered]:
    getters = {slot: (_getter(value, places), value.column) for slot, value in content.values.items()}
    wanted = slots(content.components, "NAMED" if content.named else "POSITIONAL")
    bodies = {c.get("type"): c for c in content.components}

    def render(cells: Sequence[str]) -> Rendered:
        values: dict[str, str] = {}
        for slot in wanted:
            get, column = getters[slot.id]
            values[slot.id] = _parameter(get(cells), slot, column)
        header = _fill(bodies.get("HEADER", {}).get("text", ""), "header", values, HEADER_MAX)
        body = _fill(bodies.get("BODY", {}).get("text", ""), "body", values, BODY_MAX)
        name, language = content.template or ("", "")
        template = {"name": name, "language": language, "components": _components(content, wanted, values, bodies)}
        return Rendered("\n".join(t for t in (header, body, bodies.get("FOOTER", {}).get("text", "")) if t), template)

    return render


def _parameter(text: str, slot: Slot, column: str) -> str:
    if _FORBIDDEN.search(text):
        raise RowError("variable_invalid", column or slot.id)
    if slot.kind == "code" and len(text) > 20:
        raise RowError("text_too_long", column or slot.id, {"m": len(text), "max": 20})
    return text


def _fill(text: str, part: str, values: Mapping[str, str], limit: int) -> str:
    filled = _POSITIONAL.sub(lambda m: values.get(f"{part}.{m.group(1)}", m.group(0)), text)
    if len(filled) > limit:
        raise RowError("text_too_long", None, {"m": len(filled), "max": limit})
    return filled


def _components(
    content: Content, wanted: list[Slot], values: Mapping[str, str], bodies: Mapping[Any, Any]
) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    header = [s for s in wanted if s.part == "header"]
    if header and header[0].id == "header.media":
        kind = header[0].kind
        made.append({"type": "header", "parameters": [{"type": kind, kind: {"link": values["header.media"]}}]})
    elif header:
        made.append({"type": "header", "parameters": [_text(s, values, content.named) for s in header]})
    body = [s for s in wanted if s.part == "body"]
    if body:
        made.append({"type": "body", "parameters": [_text(s, values, content.named) for s in body]})
    for slot in (s for s in wanted if s.part == "button"):
        index = slot.id.partition(".")[2]
        if slot.kind == "code":
            parameter, sub_type = {"type": "coupon_code", "coupon_code": values[slot.id]}, "copy_code"
        else:
            parameter, sub_type = {"type": "text", "text": values[slot.id]}, "url"
        made.append({"type": "button", "sub_type": sub_type, "index": index, "parameters": [parameter]})
    if any(b.get("type") == "OTP" for b in bodies.get("BUTTONS", {}).get("buttons", [])) and "body.1" in values:
        code = {"type": "text", "text": values["body.1"]}
        made.append({"type": "button", "sub_type": "url", "index": "0", "parameters": [code]})
    return made


def _text(slot: Slot, values: Mapping[str, str], named: bool) -> dict[str, str]:
    parameter = {"type": "text", "text": values[slot.id]}
    if named:
        parameter["parameter_name"] = slot.name
    return parameter
