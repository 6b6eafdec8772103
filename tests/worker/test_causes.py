"""Every code that can be stored with a message means something, whoever said it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.waba import shared
from worker import causes
from worker.providers import PROVIDERS, meta_errors, smpp_errors, twilio
from worker.providers.connector_rules import DEFAULT_CAUSES, cause_line, lines, outcome_rule, status_line
from worker.providers.sandbox_sms import ERRORS as SANDBOX

WORKER = Path(causes.__file__).parent
# The codes of the Cloud API that its documentation names, as the reference material lists them.
CLOUD_API = (
    *(0, 1, 2, 3, 4, 10, 33, 100, 190, 200, 368, 613, 80007, 130403, 130429, 130472, 130497, 131000, 131005, 131008),
    *(131009, 131016, 131021, 131026, 131030, 131031, 131037, 131042, 131045, 131047, 131048, 131049, 131050, 131051),
    *(131052, 131053, 131055, 131056, 131057, 131061, 131062, 131063, 131064, 132000, 132001, 132005, 132007, 132008),
    *(132012, 132015, 132016, 132018, 132068, 132069, 133000, 133004, 133005, 133006, 133008, 133009, 133010, 133015),
    *(133016, 134011, 134100, 134101, 134102, 135000, 137000, 2494100),
)


def of_presets() -> Iterator[str]:
    """What the presets of the HTTP connector name."""
    for provider in PROVIDERS.values():
        defaults = {field.name: str(field.default or "") for field in provider.fields}
        for name in ("rules", "check_rules"):
            yield from (outcome_rule(line).cause for line in lines(defaults.get(name, "")))
        yield from (status_line(line).cause for line in lines(defaults.get("report_map", "")))
        yield from (cause_line(line).cause for line in lines(defaults.get("report_causes", "")))


def written_down() -> Iterator[str]:
    """The codes with which the code itself raises errors."""
    for path in sorted(WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                place = {"SendError": 1, "NotSent": 0, "Unclear": 0}.get(name)
                if place is not None and len(node.args) > place:
                    found = node.args[place]
                    if isinstance(found, ast.Constant) and isinstance(found.value, str):
                        yield found.value


CODES = {
    "cloud api": [str(code) for code in CLOUD_API],
    "our table of it": [*map(str, meta_errors.ERRORS), "201", "299"],
    "twilio": list(twilio.ERRORS),
    "smpp": [smpp_errors.cause(status) for status in smpp_errors.STATUSES],
    "smpp receipts": [f"smpp_{word.lower()}" for word, to in smpp_errors.RECEIPTS.items() if to == "failed"],
    "presets": sorted({*of_presets()} - {""}),
    "connector": list(DEFAULT_CAUSES.values()),
    "sandbox": list(SANDBOX),
    "http": [f"http_{status}" for status in (301, 400, 401, 402, 403, 404, 408, 422, 429, 500, 502, 503, 504)],
    "our own": sorted({*written_down()} - {""}),
}


@pytest.mark.parametrize("source", CODES)
def test_every_code_has_a_meaning(source: str) -> None:
    assert CODES[source], "nothing was found to look at"
    assert [code for code in CODES[source] if causes.cause(code).key == "unknown"] == []


def test_the_list_of_the_reference_is_the_one_that_is_kept_here() -> None:
    table = json.loads(shared("waba_error_codes.json").read_text(encoding="utf-8"))["codes"]
    assert sorted(row["code"] for row in table) == sorted(CLOUD_API)


def test_no_code_means_two_things() -> None:
    codes = [code for _who, _retry, listed in causes.MEANINGS.values() for code in listed.split()]
    assert len(codes) == len(set(codes))
    assert {who for who, *_ in causes.MEANINGS.values()} <= set(causes.WHO)


def test_a_code_that_nobody_knows_is_the_providers_to_explain() -> None:
    found = causes.cause("424242")
    assert (found.key, found.who, found.retry) == ("unknown", causes.PROVIDER, False)


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        ("131026", "waba", ["sms"]),  # not on WhatsApp
        ("131049", "waba", ["again", "sms"]),  # not now
        ("131049", "sms", ["again"]),
        ("131050", "waba", []),  # wants no advertising, by SMS neither
        ("opted_out", "waba", []),
        ("21211", "sms", ["stop"]),  # there is no such number
        ("132000", "waba", ["again"]),
        ("424242", "waba", ["sms"]),
        ("", "waba", []),
    ],
)
def test_what_makes_sense_depends_on_the_cause(code: str, kind: str, expected: list[str]) -> None:
    assert causes.deeds(code, kind) == expected


def test_what_the_deeds_speak_of_are_meanings() -> None:
    assert set(causes.MEANINGS) >= causes.BY_SMS | causes.TO_STOP_LIST
    by_sms = [causes.MEANINGS[key] for key in causes.BY_SMS]
    assert all(who != causes.YOU or not retry for who, retry, _ in by_sms), "what one can mend is mended first"
