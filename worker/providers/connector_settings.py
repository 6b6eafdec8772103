"""The settings that describe a gateway to the HTTP connector, and how each is read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from worker.providers.base import Field
from worker.providers.connector_rules import (
    Condition,
    Faulty,
    IdRule,
    Template,
    cause_line,
    field_line,
    header_line,
    lines,
    outcome_rule,
    status_line,
)

# The settings that describe a gateway, with what holds when nothing is said. One row, one line of the form.
MAPPING = (
    Field("method", "choice", False, "POST", ("POST", "GET", "PUT"), "request"),
    Field("auth", "choice", False, "none", ("none", "basic", "bearer", "query"), "request"),
    Field("headers", "lines", False, group="request"),
    Field("body", "choice", False, "form", ("form", "json", "query"), "request"),
    Field("fields", "lines", False, "to = {to}\ntext = {text}\nfrom ?= {from}", group="request"),
    Field("split", "choice", False, "gateway", ("gateway", "pairs"), "request"),
    Field("rules", "lines", False, "status 2xx -> ok", group="outcome"),
    Field("id", "text", False, "own", group="outcome"),
    Field("code", "text", False, group="outcome"),
    Field("reason", "text", False, group="outcome"),
    Field("dlr_url", "text", False, "{status_url}?ref={ref}", group="report"),
    Field("report_from", "choice", False, "auto", ("auto", "query", "form", "json"), "report"),
    Field("report_rows", "text", False, group="report"),
    Field("report_if", "text", False, group="report"),
    Field("report_id", "text", False, "id", group="report"),
    Field("report_ref", "text", False, "query.ref", group="report"),
    Field("report_status", "text", False, "status", group="report"),
    Field("report_map", "lines", False, "delivered = delivered\nundelivered = failed", group="report"),
    Field("report_code", "text", False, group="report"),
    Field("report_causes", "lines", False, group="report"),
    Field("report_time", "text", False, group="report"),
    Field("reply_from", "choice", False, "auto", ("auto", "query", "form", "json"), "reply"),
    Field("reply_rows", "text", False, group="reply"),
    Field("reply_id", "text", False, "id", group="reply"),
    Field("reply_phone", "text", False, "from", group="reply"),
    Field("reply_text", "text", False, "text", group="reply"),
    Field("reply_hex", "text", False, group="reply"),
    Field("reply_hex_if", "text", False, "*", group="reply"),
    Field("reply_time", "text", False, group="reply"),
    Field("reply_part", "text", False, group="reply"),
    Field("check_url", "text", False, group="advanced"),
    Field("check_rules", "lines", False, group="advanced"),
    Field("answer_status", "integer", False, 200, group="advanced"),
    Field("answer", "text", False, group="advanced"),
    Field("concurrent", "integer", False, group="advanced"),
    Field("hmac_header", "text", False, group="advanced"),
    Field("hmac_algorithm", "choice", False, "sha256", ("sha256", "sha1", "sha512"), "advanced"),
    Field("hmac_encoding", "choice", False, "hex", ("hex", "base64"), "advanced"),
    Field("hash_path", "text", False, group="advanced"),
    Field("hash_recipe", "text", False, group="advanced"),
    Field("hash_algorithm", "choice", False, "md5", ("md5", "sha1", "sha256"), "advanced"),
    Field("callback_secret", "secret", False, group="advanced"),
    Field("callback_addresses", "lines", False, group="advanced"),
)
# The settings that are more than a word, and how each is read.
READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("url", "dlr_url", "hash_recipe", "check_url"), Template),
    **dict.fromkeys(("report_if", "reply_hex_if"), Condition),
    "id": IdRule,
    "headers": lambda text: [header_line(line) for line in lines(text)],
    "fields": lambda text: [field_line(line) for line in lines(text)],
    "rules": lambda text: [outcome_rule(line) for line in lines(text)],
    "check_rules": lambda text: [outcome_rule(line) for line in lines(text)],
    "report_map": lambda text: [status_line(line) for line in lines(text)],
    "report_causes": lambda text: [cause_line(line) for line in lines(text)],
    "callback_addresses": lambda text: [_network(line) for line in lines(text)],
}


def value_of(f: Field, settings: Mapping[str, Any]) -> str:
    """A setting as text: what was given, else the default; a lone - in the description of a gateway is nothing."""
    value = settings.get(f.name)
    text = str(f.default if value is None or value == "" else value)
    text = text.strip() if f.kind != "secret" else text
    return "" if f.group and text == "-" else text


def value_named(fields: Iterable[Field], name: str, settings: Mapping[str, Any]) -> str:
    """The same by its name; "" when there is no such setting."""
    return next((value_of(f, settings) for f in fields if f.name == name), "")


def read_setting(name: str, text: str) -> Any:
    """The setting as its reader makes it. Raises Faulty with the line that cannot be read."""
    if name == "report_if" and not text:
        return None
    try:
        return READERS[name](text)
    except Faulty:
        raise
    except (ValueError, RecursionError):
        raise Faulty(text) from None


def _network(line: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(line, strict=False)
    except ValueError:
        raise Faulty(line) from None
