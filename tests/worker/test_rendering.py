"""Variables are replaced once; what a cell holds stays text."""

from __future__ import annotations

import time
from typing import Any

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


# --- every part of a template -----------------------------------------------------------------------

BODY = {"type": "BODY", "text": "Hi {{1}}"}


def fixed(text: str) -> dict[str, str]:
    return {"value": text}


def components(
    parts: list[dict[str, Any]], parameter_format: str = "POSITIONAL", **values: str
) -> list[dict[str, Any]]:
    """The wire components of a template whose slots have these values; `header__media` is header.media."""
    variables = {slot.replace("__", "."): fixed(value) for slot, value in values.items()}
    content = rendering.waba_content("t", "en", parts, parameter_format, variables, "MARKETING")
    template = content.bind([]).render([]).template
    assert template is not None
    assert (template["name"], template["language"], template["category"]) == ("t", "en", "MARKETING")
    found: list[dict[str, Any]] = template["components"]
    return found


def parameters(
    parts: list[dict[str, Any]], parameter_format: str = "POSITIONAL", **values: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = components(parts, parameter_format, **values)[0]["parameters"]
    return found


def refusal(parts: list[dict[str, Any]], **values: str) -> tuple[str, str | None, dict[str, Any]]:
    with pytest.raises(RowError) as refused:
        components(parts, **values)
    return refused.value.code, refused.value.column, refused.value.detail


def test_named_parameters_say_their_names() -> None:
    parts = [
        {"type": "HEADER", "format": "TEXT", "text": "For {{who}}"},
        {"type": "BODY", "text": "{{order}} of {{who}}"},
    ]
    head, body = components(parts, "NAMED", header__who="Ann", body__who="Ann", body__order="A1")
    assert head == {"type": "header", "parameters": [{"type": "text", "text": "Ann", "parameter_name": "who"}]}
    assert [(p["parameter_name"], p["text"]) for p in body["parameters"]] == [("order", "A1"), ("who", "Ann")]


def test_a_repeated_variable_is_one_parameter_and_ten_comes_after_nine() -> None:
    text = " ".join(f"{{{{{n}}}}}" for n in (10, 1, 1, *range(2, 10)))
    values = {f"body__{n}": f"v{n}" for n in range(1, 11)}
    found = parameters([{"type": "BODY", "text": text}], **values)
    assert [p["text"] for p in found] == [f"v{n}" for n in range(1, 11)]


@pytest.mark.parametrize("kind", ["image", "video", "gif"])
def test_a_media_header_takes_a_link_or_the_id_of_a_file(kind: str) -> None:
    parts = [{"type": "HEADER", "format": kind.upper()}]
    assert parameters(parts, header__media="https://x.example/a.png") == [
        {"type": kind, kind: {"link": "https://x.example/a.png"}}
    ]
    assert parameters(parts, header__media="4490709327384033") == [{"type": kind, kind: {"id": "4490709327384033"}}]


@pytest.mark.parametrize("value", ["picture.png", "ftp://x.example/a", "https://", "https://x.example/a b.png", "٣٤"])
def test_what_is_neither_a_link_nor_an_id_is_refused(value: str) -> None:
    found = refusal([{"type": "HEADER", "format": "IMAGE"}], header__media=value)
    assert found == ("variable_invalid", "header.media", {"why": "not_media"})


def test_a_document_has_a_name() -> None:
    parts = [{"type": "HEADER", "format": "DOCUMENT"}]
    link = "https://x.example/files/Price%20list.pdf?v=2"
    assert parameters(parts, header__media=link)[0]["document"] == {"link": link, "filename": "Price list.pdf"}
    named = parameters(parts, header__media="4490709327384033", header__filename="Prices.pdf")
    assert named == [{"type": "document", "document": {"id": "4490709327384033", "filename": "Prices.pdf"}}]
    assert parameters(parts, header__media="https://x.example/f")[0]["document"] == {"link": "https://x.example/f"}


def test_a_location_header_takes_coordinates_and_perhaps_a_name() -> None:
    parts = [{"type": "HEADER", "format": "LOCATION"}]
    found = parameters(parts, header__latitude="55,7558", header__longitude="37.6173", header__name="Shop")
    assert found == [{"type": "location", "location": {"latitude": "55.7558", "longitude": "37.6173", "name": "Shop"}}]
    optional = [slot.id for slot in rendering.slots(parts) if not slot.required]
    assert optional == ["header.name", "header.address"]
    for value in ("north", "91", "nan"):
        found_ = refusal(parts, header__latitude=value, header__longitude="1")
        assert found_ == ("variable_invalid", "header.latitude", {"why": "not_degrees"})


def test_an_empty_cell_of_an_optional_slot_is_left_out() -> None:
    parts = [{"type": "HEADER", "format": "LOCATION"}]
    values = {"header.latitude": fixed("1"), "header.longitude": fixed("2"), "header.name": {"column": "place"}}
    content = rendering.waba_content("t", "en", parts, "POSITIONAL", values)
    made = content.bind(["place"])
    for cell, location in (("", {}), ("Shop", {"name": "Shop"})):
        template = made.render([cell]).template
        assert template is not None
        sent = template["components"][0]["parameters"][0]["location"]
        assert sent == {"latitude": "1", "longitude": "2", **location}


def test_buttons_are_counted_all_and_filled_where_they_take_something() -> None:
    given = [
        {"type": "QUICK_REPLY", "text": "More"},
        {"type": "PHONE_NUMBER", "text": "Call", "phone_number": "+15550100000"},
        {"type": "URL", "text": "Site", "url": "https://x.example/"},
        {"type": "URL", "text": "Open", "url": "https://x.example/{{1}}", "example": ["https://x.example/a1"]},
        {"type": "COPY_CODE", "text": "Copy", "example": ["SAVE25"]},
    ]
    parts = [{"type": "BUTTONS", "buttons": given}]
    assert [(s.id, s.kind, s.example) for s in rendering.slots(parts)] == [
        ("button.3", "suffix", "a1"),
        ("button.4", "code", "SAVE25"),
    ]
    assert components(parts, button__3="b?c=1", button__4="SAVE30") == [
        {"type": "button", "sub_type": "url", "index": "3", "parameters": [{"type": "text", "text": "b?c=1"}]},
        {
            "type": "button",
            "sub_type": "copy_code",
            "index": "4",
            "parameters": [{"type": "coupon_code", "coupon_code": "SAVE30"}],
        },
    ]


@pytest.mark.parametrize("label", ["Stop", "ОТПИСАТЬСЯ", "Stop promotions"])
def test_a_button_that_says_stop_brings_our_own_word_back(label: str) -> None:
    parts = [{"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": label}]}]
    assert components(parts) == [
        {
            "type": "button",
            "sub_type": "quick_reply",
            "index": "0",
            "parameters": [{"type": "payload", "payload": rendering.STOP_PAYLOAD}],
        }
    ]


@pytest.mark.parametrize(
    "button",
    [
        {"type": "OTP", "otp_type": "COPY_CODE", "text": "Copy code"},
        {"type": "URL", "text": "Copy code", "url": "https://www.whatsapp.com/otp/code/?code=otp{{1}}"},
    ],
)
@pytest.mark.parametrize("text", ["{{1}} is your code.", "Your code"])
def test_the_code_of_an_authentication_template_goes_twice(button: dict[str, str], text: str) -> None:
    body = {"type": "BODY", "text": text, "add_security_recommendation": True}
    parts = [body, {"type": "BUTTONS", "buttons": [button]}]
    assert [slot.id for slot in rendering.slots(parts)] == ["body.1"]
    assert components(parts, body__1="123456") == [
        {"type": "body", "parameters": [{"type": "text", "text": "123456"}]},
        {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "123456"}]},
    ]
    assert refusal(parts, body__1="1" * 16) == ("text_too_long", "body.1", {"m": 16, "max": 15})


def test_examples_are_shown_for_every_kind_of_slot() -> None:
    parts = [
        {"type": "HEADER", "format": "TEXT", "text": "For {{who}}", "example": {
            "header_text_named_params": [{"param_name": "who", "example": "Ann"}]}},
        {"type": "BODY", "text": "{{a}}", "example": {"body_text_named_params": [{"param_name": "a", "example": "1"}]}},
    ]  # fmt: skip
    assert [s.example for s in rendering.slots(parts, "NAMED")] == ["Ann", "1"]
    parts = [{"type": "HEADER", "format": "TEXT", "text": "For {{1}}", "example": {"header_text": ["Ann"]}}]
    assert [s.example for s in rendering.slots(parts)] == ["Ann"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"type": "CAROUSEL"}, "CAROUSEL"),
        ({"type": "LIMITED_TIME_OFFER"}, "LIMITED_TIME_OFFER"),
        ({"type": "CALL_PERMISSION_REQUEST"}, "CALL_PERMISSION_REQUEST"),
        ({"type": "HEADER", "format": "PRODUCT"}, "HEADER PRODUCT"),
        *(
            ({"type": "BUTTONS", "buttons": [{"type": kind}]}, f"BUTTON {kind}")
            for kind in ("FLOW", "CATALOG", "MPM", "SPM", "ORDER_DETAILS", "SOMETHING_NEW")
        ),
    ],
)
def test_what_cannot_be_sent_is_named(part: dict[str, Any], name: str) -> None:
    assert rendering.unsupported([BODY, part]) == [name]


def test_everything_else_can_be_sent() -> None:
    every = [{"type": kind} for kind in rendering.SUPPORTED_BUTTONS]
    for shape in ("TEXT", "LOCATION", *rendering.MEDIA):
        parts = [{"type": "HEADER", "format": shape}, BODY, {"type": "FOOTER"}, {"type": "BUTTONS", "buttons": every}]
        assert rendering.unsupported(parts) == []


def test_values_are_checked_row_by_row_before_anything_is_sent() -> None:
    link = [{"type": "BUTTONS", "buttons": [{"type": "URL", "text": "Open", "url": "https://x.example/{{1}}"}]}]
    copy = [{"type": "BUTTONS", "buttons": [{"type": "COPY_CODE", "text": "Copy"}]}]
    head = [{"type": "HEADER", "format": "TEXT", "text": "For {{1}}"}]
    assert refusal([BODY], body__1="   ") == ("variable_missing", "body.1", {})
    assert refusal([BODY], body__1="x" * 1022) == ("text_too_long", None, {"m": 1025, "max": 1024})
    assert components([BODY], body__1="x" * 1021 + "   ")
    assert refusal(head, header__1="x" * 57) == ("text_too_long", None, {"m": 61, "max": 60})
    assert refusal(link, button__0="a b") == ("variable_invalid", "button.0", {"why": "link_spaces"})
    assert refusal(copy, button__0="C" * 21) == ("text_too_long", "button.0", {"m": 21, "max": 20})
    assert refusal([BODY], body__1="a\nb")[0] == "variable_invalid"
    assert components([BODY], body__1="a    b")


def test_a_template_without_variables_has_no_components() -> None:
    assert components([{"type": "BODY", "text": "Hi"}, {"type": "FOOTER", "text": "Bye"}]) == []
