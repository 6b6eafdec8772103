"""`{{ column | fallback }}` → text, or template parameters; reasons when it cannot be.

One pass, linear time: a value is never looked at again, so what a cell contains stays text.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from worker import segments, stopwords

_VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")
_POSITIONAL = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")
_FORBIDDEN = re.compile(r"[\n\r\t]| {5}")
_ZERO_WIDTH = dict.fromkeys([0x00AD, 0xFEFF, *range(0x200B, 0x2010), 0x2060])
BODY_MAX, HEADER_MAX = 1024, 60
# The longest value of a slot, by its kind, in characters; the code of an authentication template stands in its body.
LONGEST = {"code": 20, "otp": 15, "suffix": 2000, "filename": 240, "place": 1000}
MEDIA = ("IMAGE", "VIDEO", "DOCUMENT", "GIF")
SUPPORTED_PARTS = ("HEADER", "BODY", "FOOTER", "BUTTONS")
SUPPORTED_BUTTONS = ("URL", "QUICK_REPLY", "PHONE_NUMBER", "COPY_CODE", "OTP", "VOICE_CALL")
STOP_PAYLOAD = "STOP"  # what a quick-reply button that says "stop" brings back, whatever its label is
_STOP_LABELS = frozenset({"stop promotions", "stop marketing"})  # beside the stop words
_LINK = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE)
_OTP_LINK = re.compile(r"https?://(www\.)?whatsapp\.com/otp/", re.IGNORECASE)


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
    """One place in a template that wants a value.

    `kind`: text, otp (the code of an authentication template), image, video, document or gif (a link or the id of
    an uploaded file), filename (of a document), latitude, longitude, place (name or address of a location),
    suffix (of a button's link), code (to be copied). `required`: whether the message cannot go without it.
    """

    id: str
    part: str  # header, body, button
    kind: str
    example: str = ""
    name: str = ""
    required: bool = True


def _names(text: str) -> list[str]:
    found = dict.fromkeys(m.group(1) for m in _POSITIONAL.finditer(text or ""))
    return sorted(found, key=lambda n: (0, int(n), "") if n.isdigit() else (1, 0, n)) if found else []


def slots(components: Sequence[Mapping[str, Any]], parameter_format: str = "POSITIONAL") -> list[Slot]:
    """The values a template wants: `header.NAME`, `header.media`, `body.NAME`, `button.INDEX`."""
    found: list[Slot] = []
    codes = any(_is_otp(button) for button in _buttons(components))
    for component in components:
        kind = component.get("type")
        if kind == "HEADER":
            found += _header_slots(component)
        elif kind == "BODY":
            names = _names(component.get("text", ""))
            if not names and (codes or component.get("add_security_recommendation") is not None):
                names = ["1"]
            examples = _examples(component, "body")
            body = "otp" if codes else "text"
            found += [
                Slot(f"body.{n}", "body", body if n == names[0] else "text", examples.get(n, ""), n) for n in names
            ]
    for index, button in enumerate(_buttons(components)):
        example = button.get("example")
        shown = str(example[0] if isinstance(example, list) and example else example or "")
        label = str(button.get("text", ""))
        if button.get("type") == "URL" and "{{" in button.get("url", "") and not _is_otp(button):
            found.append(Slot(f"button.{index}", "button", "suffix", _suffix(shown, button["url"]), label))
        elif button.get("type") == "COPY_CODE":
            found.append(Slot(f"button.{index}", "button", "code", shown, label))
    return found


def _header_slots(component: Mapping[str, Any]) -> list[Slot]:
    shape = component.get("format", "TEXT")
    if shape == "TEXT":
        examples = _examples(component, "header")
        names = _names(component.get("text", ""))
        return [Slot(f"header.{n}", "header", "text", examples.get(n, ""), n) for n in names]
    if shape == "LOCATION":
        return [
            Slot("header.latitude", "header", "latitude"),
            Slot("header.longitude", "header", "longitude"),
            Slot("header.name", "header", "place", name="name", required=False),
            Slot("header.address", "header", "place", name="address", required=False),
        ]
    if shape not in MEDIA:
        return []
    media = Slot("header.media", "header", str(shape).lower())
    return [media, Slot("header.filename", "header", "filename", required=False)] if shape == "DOCUMENT" else [media]


def _buttons(components: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All buttons of a template in their order, by which the wire counts them."""
    return [b for c in components if c.get("type") == "BUTTONS" for b in c.get("buttons", [])]


def _is_otp(button: Mapping[str, Any]) -> bool:
    """Whether the button takes the code of an authentication template; lists show some of them as a link."""
    return button.get("type") == "OTP" or bool(
        button.get("type") == "URL" and _OTP_LINK.match(str(button.get("url", "")))
    )


def _examples(component: Mapping[str, Any], part: str) -> dict[str, str]:
    example = component.get("example") or {}
    named = {
        str(e.get("param_name", "")): str(e.get("example", "")) for e in example.get(f"{part}_text_named_params") or []
    }
    rows = example.get(f"{part}_text") or [[]]
    row = rows[0] if isinstance(rows[0], list) else rows
    return {**{str(i): str(v) for i, v in enumerate(row, 1)}, **named}


def _suffix(example: str, url: str) -> str:
    """What the example of a button's link puts in the place of its variable."""
    fixed = url.partition("{{")[0]
    return example[len(fixed) :] if fixed and example.startswith(fixed) else example


def unsupported(components: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parts of a template that this version cannot send, by the vendor's names."""
    found = [str(c.get("type")) for c in components if c.get("type") not in SUPPORTED_PARTS]
    for component in components:
        if component.get("type") == "HEADER" and component.get("format", "TEXT") not in ("TEXT", "LOCATION", *MEDIA):
            found.append(f"HEADER {component.get('format')}")
    found += [f"BUTTON {b.get('type')}" for b in _buttons(components) if b.get("type") not in SUPPORTED_BUTTONS]
    return list(dict.fromkeys(found))


# --- content ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rendered:
    """One message for one row: `text` for SMS and for a preview; `template` as the Cloud API takes it, and its
    category."""

    text: str
    template: dict[str, Any] | None = None


Getter = Callable[[Sequence[str]], str]
Values = Callable[[Sequence[str]], dict[str, str]]


def _no_values(_cells: Sequence[str]) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Renderer:
    """A message bound to the columns of one file.

    `values`: the values of a template's slots for one row; raises RowError. `fixed`: the message where it is the
    same for everybody.
    """

    function: Callable[[Sequence[str]], Rendered]
    values: Values = _no_values
    fixed: Rendered | None = None

    def render(self, cells: Sequence[str]) -> Rendered:
        """The message for one row. Raises RowError."""
        return self.fixed or self.function(cells)


@dataclass(frozen=True)
class Content:
    """The whole message of a broadcast, before it meets a row."""

    columns: list[str] = field(default_factory=list)
    pieces: tuple[str | Value, ...] = ()
    template: tuple[str, str] | None = None
    components: Sequence[Mapping[str, Any]] = ()
    named: bool = False
    values: Mapping[str, Value] = field(default_factory=dict)
    category: str = ""
    ready: bool = False  # every row holds its own message already

    def bind(self, columns: Sequence[str]) -> Renderer:
        """Tie the message to a file's columns. Raises MissingColumns."""
        places = {column_key(name): at for at, name in reversed(list(enumerate(columns)))}
        missing = [name for name in self.columns if column_key(name) not in places]
        if missing:
            raise MissingColumns(missing)
        if self.ready:
            return Renderer(lambda cells: Rendered(cells[0], cells[1]))  # type: ignore[arg-type]
        renderer = Renderer(_sms(self.pieces, places)) if self.template is None else _waba(self, places)
        if not self.columns:
            with contextlib.suppress(RowError):  # then every row says why
                return replace(renderer, fixed=renderer.function(()))
        return renderer

    def places(self, columns: Sequence[str]) -> list[int]:
        """Where the values of the message stand among a file's columns. An empty one among them was replaced by its
        fallback or left out, for otherwise the row has no message."""
        wanted = {column_key(name) for name in self.columns}
        return [at for at, name in enumerate(columns) if column_key(name) in wanted]


def ready_made() -> Content:
    """Messages that were rendered when they were queued: a row is its text and its template or None."""
    return Content(ready=True)


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
    category: str = "",
) -> Content:
    """A template with a binding for each slot. `category`: the vendor's latest, such as MARKETING."""
    values = {
        slot: Value(b.get("column", ""), b.get("fallback", ""), b.get("value", "")) for slot, b in variables.items()
    }
    named = parameter_format == "NAMED"
    return Content(_columns(values.values()), (), (name, language), components, named, values, category)


def as_text(content: Content) -> str:
    """The message as the text of an SMS with the same values; "" where it cannot be written so."""
    if content.template is None:
        return ""
    written = {slot: _written(value) for slot, value in content.values.items()}
    texts = {c.get("type"): str(c.get("text") or "") for c in content.components}
    lines = [
        _POSITIONAL.sub(partial(_value_of, f"{part.lower()}.", written), texts[part])
        for part in ("HEADER", "BODY", "FOOTER")
        if texts.get(part)
    ]
    text = "\n".join(lines)
    known = {column_key(name) for name in content.columns}
    try:
        return text if {column_key(name) for name in parse_text(text).variables} <= known else ""
    except TextError:
        return ""


def _value_of(part: str, written: Mapping[str, str], found: re.Match[str]) -> str:
    return written.get(part + found.group(1), "")


def _written(value: Value) -> str:
    """A value as it is written in the text of an SMS."""
    if not value.column:
        return value.text
    return f"{{{{ {value.column}{f' | {value.fallback}' if value.fallback else ''} }}}}"


def _getter(value: Value, places: Mapping[str, int], required: bool = True) -> Getter:
    if not value.column:
        return lambda cells: value.text
    at = places[column_key(value.column)]

    def get(cells: Sequence[str]) -> str:
        text = cells[at].strip() if at < len(cells) else ""
        if not text:
            if not value.fallback and required:
                raise RowError("variable_missing", value.column)
            return value.fallback
        return text

    return get


def _sms(pieces: tuple[str | Value, ...], places: Mapping[str, int]) -> Callable[[Sequence[str]], Rendered]:
    parts = [p if isinstance(p, str) else _getter(p, places) for p in pieces]

    def render(cells: Sequence[str]) -> Rendered:
        text = "".join(p if isinstance(p, str) else p(cells) for p in parts)
        _check_length(text)
        return Rendered(text)

    return render


def _check_length(text: str) -> None:
    if len(text) > segments.UCS_ONE:
        n = segments.measure(text).segments
        if n > segments.MAX_SEGMENTS:
            raise RowError("text_too_long", None, {"m": n, "max": segments.MAX_SEGMENTS})


def _waba(content: Content, places: Mapping[str, int]) -> Renderer:
    wanted = slots(content.components, "NAMED" if content.named else "POSITIONAL")
    getters = [
        (slot, content.values[slot.id].column, _getter(content.values[slot.id], places, slot.required))
        for slot in wanted
        if slot.required or slot.id in content.values
    ]
    texts = {c.get("type"): str(c.get("text") or "") for c in content.components}
    header_text, body_text, footer = (texts.get(part, "") for part in ("HEADER", "BODY", "FOOTER"))
    fill = _filler(content, wanted)
    name, language = content.template or ("", "")

    def values_of(cells: Sequence[str]) -> dict[str, str]:
        return {slot.id: _parameter(get(cells), slot, column) for slot, column, get in getters}

    def render(cells: Sequence[str]) -> Rendered:
        values = values_of(cells)
        header = _fill(header_text, "header", values, HEADER_MAX)
        body = _fill(body_text, "body", values, BODY_MAX)
        template = {"name": name, "language": language, "category": content.category, "components": fill(values)}
        return Rendered("\n".join(t for t in (header, body, footer) if t), template)

    return Renderer(render, values_of)


def shown(components: Sequence[Mapping[str, Any]], values: Mapping[str, str]) -> list[dict[str, Any]]:
    """The parts of a template as a phone shows them; a place whose slot has no value stays as it is written.

    A header that is no text has `media`: what stands in its place. A button with a link has the whole of it.
    """
    found: list[dict[str, Any]] = []
    for component in components:
        kind = str(component.get("type"))
        if kind == "BUTTONS":
            filled = [_shown_button(f"button.{at}", b, values) for at, b in enumerate(component.get("buttons", []))]
            found.append({"type": kind, "buttons": filled})
        elif kind == "HEADER" and component.get("format", "TEXT") != "TEXT":
            place = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("header.")}
            found.append({"type": kind, "format": component["format"], "media": place})
        else:
            text = _filled(str(component.get("text") or ""), kind.lower(), values)
            if kind == "BODY" and not text and "body.1" in values:
                text = values["body.1"]  # of an authentication template: WhatsApp itself writes the words around it
            found.append({"type": kind, "text": text, **({"format": "TEXT"} if kind == "HEADER" else {})})
    return found


def _shown_button(slot: str, button: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    shown = {"type": str(button.get("type")), "text": str(button.get("text", ""))}
    if "url" in button and not _is_otp(button):
        ending = values.get(slot)
        shown["url"] = _POSITIONAL.sub(lambda m: m.group(0) if ending is None else ending, str(button["url"]))
    if button.get("type") == "COPY_CODE" and slot in values:
        shown["code"] = values[slot]
    return shown


def _parameter(text: str, slot: Slot, column: str) -> str:
    """The value of a slot as the wire takes it. Raises RowError; `why` says what is wrong with an invalid one."""
    if _FORBIDDEN.search(text):
        raise RowError("variable_invalid", column or slot.id)
    text = text.strip()
    if not text:
        if slot.required:
            raise RowError("variable_missing", column or slot.id)
        return text
    longest = LONGEST.get(slot.kind)
    if longest is not None and len(text) > longest:
        raise RowError("text_too_long", column or slot.id, {"m": len(text), "max": longest})
    check = _CHECKS.get(slot.kind)
    if check is None:
        return text
    why, text = check(text)
    if why:
        raise RowError("variable_invalid", column or slot.id, {"why": why})
    return text


def fixed_problem(slot: Slot, text: str) -> RowError | None:
    """Why this text, the same for everybody, cannot be the value of a slot; None when it can."""
    try:
        _parameter(text, slot, "")
    except RowError as error:
        return error
    return None


def _media(text: str) -> tuple[str, str]:
    return "" if (text.isascii() and text.isdigit()) or _LINK.fullmatch(text) else "not_media", text


def _unbroken(text: str) -> tuple[str, str]:
    return "link_spaces" if any(c.isspace() for c in text) else "", text


def _degrees(most: int) -> Callable[[str], tuple[str, str]]:
    def check(text: str) -> tuple[str, str]:
        text = text.replace(",", ".")
        try:
            fits = abs(float(text)) <= most
        except ValueError:
            fits = False
        return "" if fits else "not_degrees", text

    return check


# kind of slot → ("" or why it cannot be sent, the value as it is sent)
_CHECKS: dict[str, Callable[[str], tuple[str, str]]] = {
    **{kind.lower(): _media for kind in MEDIA},
    "suffix": _unbroken,
    "latitude": _degrees(90),
    "longitude": _degrees(180),
}


def _filled(text: str, part: str, values: Mapping[str, str]) -> str:
    if "{{" not in text:
        return text
    return _POSITIONAL.sub(lambda m: values.get(f"{part}.{m.group(1)}", m.group(0)), text)


def _fill(text: str, part: str, values: Mapping[str, str], limit: int) -> str:
    text = _filled(text, part, values)
    if len(text) > limit:
        raise RowError("text_too_long", None, {"m": len(text), "max": limit})
    return text


Fill = Callable[[Mapping[str, str]], dict[str, Any]]


def _filler(content: Content, wanted: Sequence[Slot]) -> Callable[[Mapping[str, str]], list[dict[str, Any]]]:
    """Values of the slots → components as the Cloud API takes them; what has no variable is left out."""
    parts: list[Fill] = []
    header = [slot for slot in wanted if slot.part == "header"]
    if header:
        parts.append(_header(header, content.named))
    body = [slot for slot in wanted if slot.part == "body"]
    if body:
        parts.append(lambda values: {"type": "body", "parameters": [_text(s, values, content.named) for s in body]})
    for index, button in enumerate(_buttons(content.components)):
        if (part := _button(str(index), button, wanted)) is not None:
            parts.append(part)
    return lambda values: [part(values) for part in parts]


def _header(wanted: Sequence[Slot], named: bool) -> Fill:
    kind = wanted[0].kind
    if kind == "text":
        return lambda values: {"type": "header", "parameters": [_text(s, values, named) for s in wanted]}
    if kind == "latitude":
        names = [slot.id.partition(".")[2] for slot in wanted]

        def location(values: Mapping[str, str]) -> dict[str, Any]:
            place = {name: values[f"header.{name}"] for name in names if values.get(f"header.{name}")}
            return {"type": "header", "parameters": [{"type": "location", "location": place}]}

        return location

    def media(values: Mapping[str, str]) -> dict[str, Any]:
        where = values["header.media"]
        file = {"id" if where.isdigit() else "link": where}
        if kind == "document" and (name := values.get("header.filename") or _file_name(where)):
            file["filename"] = name
        return {"type": "header", "parameters": [{"type": kind, kind: file}]}

    return media


def _file_name(link: str) -> str:
    """The name that a link gives its file; "" where it gives none."""
    last = unquote(urlsplit(link).path).rpartition("/")[2]
    return last if "." in last and not _FORBIDDEN.search(last) else ""


def _button(index: str, button: Mapping[str, Any], wanted: Sequence[Slot]) -> Fill | None:
    """The part that fills one button; None for a button that takes nothing."""
    slot_id, kind = f"button.{index}", button.get("type")
    if _is_otp(button):
        code = next((slot.id for slot in wanted if slot.kind == "otp"), "")
        return lambda values: _button_part("url", index, {"type": "text", "text": values[code]})
    if kind == "QUICK_REPLY":
        label = str(button.get("text", ""))
        if stopwords.is_stop_word(label) or " ".join(label.casefold().split()) in _STOP_LABELS:
            return lambda values: _button_part("quick_reply", index, {"type": "payload", "payload": STOP_PAYLOAD})
        return None
    if kind == "COPY_CODE":
        return lambda values: _button_part("copy_code", index, {"type": "coupon_code", "coupon_code": values[slot_id]})
    if any(slot.id == slot_id for slot in wanted):
        return lambda values: _button_part("url", index, {"type": "text", "text": values[slot_id]})
    return None


def _button_part(sub_type: str, index: str, parameter: dict[str, str]) -> dict[str, Any]:
    return {"type": "button", "sub_type": sub_type, "index": index, "parameters": [parameter]}


def _text(slot: Slot, values: Mapping[str, str], named: bool) -> dict[str, str]:
    parameter = {"type": "text", "text": values[slot.id]}
    if named:
        parameter["parameter_name"] = slot.name
    return parameter
