"""Variables are replaced once; what a cell holds stays text."""

from __future__ import annotations

import time

import pytest

from worker import rendering
from worker.rendering import MissingColumns, RowError, TextError


def render(text: str, columns: list[str], cells: list[str]) -> str:
    return rendering.sms_content(text).bind(columns).render(cells).text


def test_names_meet_without_case_spaces_and_dashes() -> None:
    assert render("Привет, {{Имя клиента}}!", ["телефон", "имя_Клиента"], ["+7", "Анна"]) == "Привет, Анна!"


def test_a_value_is_never_expanded_again() -> None:
    for value in ("{{7*7}}", "{{ name }}", "${x}", "%(x)s", "{0.__class__}", "{% raw %}"):
        assert render("Hi {{name}}", ["name"], [value]) == f"Hi {value}"


def test_an_empty_value_takes_the_fallback_or_refuses_the_row() -> None:
    assert render("Hi {{ name | friend }}", ["name"], [" "]) == "Hi friend"
    with pytest.raises(RowError) as refused:
        render("Hi {{name}}", ["name"], [""])
    assert (refused.value.code, refused.value.column) == ("variable_missing", "name")
    with pytest.raises(RowError):
        render("{{a}}{{b}}", ["a", "b"], ["x"])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(MissingColumns) as missing:
        rendering.sms_content("{{name}} {{discount}}").bind(["phone", "name"])
    assert missing.value.columns == ["discount"]


@pytest.mark.parametrize("text", ["", "  ", "{{", "a }}", "{{ name", "{{}}", "{{ | x }}", "{{{{a}}}}"])
def test_a_text_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        rendering.parse_text(text)


def test_it_takes_linear_time() -> None:
    began = time.monotonic()
    with pytest.raises(TextError):
        rendering.parse_text("{{" * 50_000)
    assert time.monotonic() - began < 5


def test_more_than_ten_parts_are_refused() -> None:
    with pytest.raises(RowError) as refused:
        render("{{a}}", ["a"], ["я" * 671])
    assert refused.value.code == "text_too_long"


COMPONENTS = [
    {"type": "HEADER", "format": "IMAGE"},
    {"type": "BODY", "text": "Hi {{2}}, {{1}} {{10}}"},
    {
        "type": "BUTTONS",
        "buttons": [
            {"type": "QUICK_REPLY", "text": "ok"},
            {"type": "URL", "text": "go", "url": "https://x.example/{{1}}"},
            {"type": "COPY_CODE", "text": "copy"},
        ],
    },
]


def test_a_template_lists_its_slots_in_order() -> None:
    found = [slot.id for slot in rendering.slots(COMPONENTS)]
    assert found == ["header.media", "body.1", "body.2", "body.10", "button.1", "button.2"]


def test_a_template_is_filled_as_the_cloud_api_takes_it() -> None:
    variables = {
        "header.media": {"value": "https://x.example/a.png"},
        "body.1": {"column": "a"},
        "body.2": {"value": "two"},
        "body.10": {"column": "b", "fallback": "ten"},
        "button.1": {"column": "a"},
        "button.2": {"value": "SAVE25"},
    }
    content = rendering.waba_content("t", "ru", COMPONENTS, "POSITIONAL", variables)
    made = content.bind(["a", "b"]).render(["one", ""])
    assert made.template is not None
    header, body, url, code = made.template["components"]
    assert header["parameters"][0]["image"] == {"link": "https://x.example/a.png"}
    assert [p["text"] for p in body["parameters"]] == ["one", "two", "ten"]
    assert (url["sub_type"], url["index"]) == ("url", "1")
    assert code["parameters"] == [{"type": "coupon_code", "coupon_code": "SAVE25"}]
    assert made.text == "Hi two, one ten"


@pytest.mark.parametrize("value", ["a\nb", "a\tb", "a     b"])
def test_whatsapp_refuses_breaks_tabs_and_five_spaces(value: str) -> None:
    content = rendering.waba_content(
        "t", "ru", [{"type": "BODY", "text": "{{1}}"}], "POSITIONAL", {"body.1": {"column": "a"}}
    )
    with pytest.raises(RowError) as refused:
        content.bind(["a"]).render([value])
    assert refused.value.code == "variable_invalid"
