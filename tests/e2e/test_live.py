"""What a person has in hand stays there while pages renew themselves; nothing jumps; a lost server is said and found again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.house import House
from worker import clock, db
from worker.models import Broadcast

SHIFTS = """() => { window.shifts = 0; new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({ type: "layout-shift" }); }"""


@pytest.fixture
def page(chromium: Any, house: House) -> Iterator[Any]:
    """A signed-in page in English; it may not complain."""
    context = chromium.new_context(locale="en", viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    context.add_cookies([house.cookie("admin")])
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield opened
    context.close()
    lost = ("ERR_CONNECTION", "htmx:sendError", "Failed to load resource", "htmx:timeout", "htmx:afterRequest")
    assert [text for text in complaints if not any(word in text for word in lost)] == []


@pytest.fixture
def goes_on(page: Any, house: House) -> Callable[[], None]:
    """goes_on(): one more message has left, and the page shows it."""
    number = house.numbers["running"]

    def step() -> None:
        with db.write():
            db.execute("UPDATE counter SET n = n - 1 WHERE broadcast_id = ? AND status = 'queued'", [number])
            db.execute("UPDATE counter SET n = n + 1 WHERE broadcast_id = ? AND status = 'delivered'", [number])
            Broadcast.update(last_sent_at=clock.now(), speed=Broadcast.speed + 1).where(
                Broadcast.id == number
            ).execute()
        delivered = db.value("SELECT n FROM counter WHERE broadcast_id = ? AND status = 'delivered'", [number])
        page.wait_for_selector(f"#live .balance a[href$='status=delivered#messages'] >> text={delivered}")

    return step


def test_a_button_keeps_the_focus_over_polls(page: Any, house: House, goes_on: Callable[[], None]) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['running']}")
    page.focus("#do-clear")
    button = page.query_selector("#do-clear")
    for _poll in range(2):
        goes_on()
        # The very same button: a press that began before the poll ends on it.
        assert button.evaluate("(button) => button === document.activeElement")


def test_an_open_question_and_what_is_typed_beside_it_stay(
    page: Any, house: House, goes_on: Callable[[], None]
) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['running']}")
    page.fill("#rate_per_minute", "12")
    page.click("#do-clear")
    page.wait_for_selector("dialog[open] .button-danger")
    page.focus("dialog[open] .button-danger")
    goes_on()
    assert page.is_visible("dialog[open] .button-danger")
    assert page.evaluate("document.activeElement.matches('dialog .button-danger')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "do-clear"
    assert page.input_value("#rate_per_minute") == "12"


def test_unfolded_lists_stay_unfolded(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['files']}")
    folded = f"#file-{house.numbers['checked']} details"
    page.click(f"{folded} summary >> nth=0")
    page.check("#append")
    with page.expect_response(lambda answer: answer.url.endswith("/files")):
        page.evaluate("htmx.trigger(document.body, 'files-changed')")
    page.wait_for_selector(".htmx-request", state="detached")
    assert page.is_visible(f"{folded} >> nth=0 >> li >> nth=0")
    assert page.is_checked("#append")


def test_nothing_jumps_while_numbers_change(page: Any, house: House, goes_on: Callable[[], None]) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['running']}")
    page.evaluate(SHIFTS)
    for _poll in range(3):
        goes_on()
    assert page.evaluate("window.shifts") < 0.01


def test_a_press_leaves_the_focus_where_it_was_pressed(page: Any, house: House) -> None:
    number = house.numbers["running"]
    page.goto(f"{house.url}/broadcasts/{number}")
    page.focus("#do-stop")
    page.keyboard.press("Enter")
    page.wait_for_selector("#do-resume")
    assert page.evaluate("document.activeElement.id") == "live"
    Broadcast.update(state="running", stop_reason=None).where(Broadcast.id == number).execute()


def slowed(page: Any, path: str) -> list[Any]:
    """Hold back the answers of `path` until they are let go."""
    held: list[Any] = []
    page.route(f"**{path}", lambda route: held.append(route))
    return held


def test_what_is_typed_while_fields_are_swapped_is_not_lost(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/new")
    page.check("input[name=kind][value=sms]")
    page.wait_for_selector("#text")
    held = slowed(page, "/broadcasts/form")
    page.fill("#text", "Hello")
    page.select_option("#channel_sms", index=1)  # asks for the fields of this channel
    page.focus("#text")
    page.keyboard.press("End")
    page.keyboard.type(", {{ name }}")
    assert len(held) == 1
    with page.expect_response("**/broadcasts/form"):
        held[0].continue_()
    page.wait_for_selector(".htmx-request", state="detached")
    assert page.input_value("#text") == "Hello, {{ name }}"
    page.keyboard.type("!")
    assert page.input_value("#text") == "Hello, {{ name }}!"


def test_a_lost_server_is_said_and_found_again(page: Any, house: House, goes_on: Callable[[], None]) -> None:
    page.goto(f"{house.url}/broadcasts/{house.numbers['running']}")
    assert page.inner_text("#stale") == ""
    house.close()
    try:
        page.wait_for_selector("#stale >> text=Connection lost, retrying…")
        page.click("#do-stop")
        page.wait_for_selector("#alerts >> text=No answer from the server")
    finally:
        house.open()
    page.wait_for_selector("#stale:empty", state="attached")
    goes_on()
    assert page.is_visible("#do-stop")  # the press that met no server changed nothing


def test_the_title_says_how_far_it_is(page: Any, house: House, goes_on: Callable[[], None]) -> None:
    number = house.numbers["running"]
    page.goto(f"{house.url}/broadcasts/{number}")
    before = page.title()
    assert before.endswith("Скидки выходного дня · Molva") and "% · " in before
    goes_on()
    assert page.title() != before and "% · " in page.title()
    page.click("#do-stop")
    page.wait_for_selector("#do-resume")
    assert page.title() == "Скидки выходного дня · Molva"
    Broadcast.update(state="running", stop_reason=None).where(Broadcast.id == number).execute()


def test_a_filter_has_an_address_and_back_leads_to_it(page: Any, house: House) -> None:
    page.goto(f"{house.url}/settings")
    page.click(".menu a[href='/broadcasts']")
    page.wait_for_url("**/broadcasts")
    with page.expect_response("**/broadcasts/list?*"):
        page.locator("#name").press_sequentially("выходного", delay=5)
    page.wait_for_url("**/broadcasts?name=*")
    page.wait_for_selector("#list tbody tr:only-child")
    page.click("#list tbody a")
    page.wait_for_url(f"**/broadcasts/{house.numbers['running']}")
    page.go_back()
    page.wait_for_url("**/broadcasts?name=*")
    page.wait_for_selector("#list tbody tr:only-child")
    assert page.input_value("#name") == "выходного"
    page.go_back()
    page.wait_for_url("**/settings")


def test_keys_lead_to_what_they_name(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts")
    page.keyboard.press("?")
    page.wait_for_selector("dialog#keys[open]")
    listed = page.inner_text("#keys dl").split("\n")
    assert {"1", "Broadcasts", "n", "New broadcast", "/", "Broadcast name"} <= set(listed)
    page.keyboard.press("n")  # under an open dialog nothing is reached
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog#keys:not([open])", state="attached")
    page.keyboard.press("/")
    page.wait_for_selector("#name:focus")
    page.keyboard.type("n?1")
    assert page.input_value("#name") == "n?1"
    assert not page.is_visible("dialog#keys")
    page.evaluate("document.activeElement.blur()")
    # The same key of a Russian layout.
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'т', code: 'KeyN', bubbles: true }))"
    )
    page.wait_for_url("**/broadcasts/new")


def test_keys_can_be_switched_off(page: Any, house: House) -> None:
    page.goto(f"{house.url}/settings")
    page.click("#shortcuts button[value=off]")
    page.wait_for_selector("#shortcuts button[value=off][aria-pressed=true]")
    for key in ("?", "1"):
        page.keyboard.press(key)
    assert not page.is_visible("dialog#keys")
    assert page.url.endswith("/settings#shortcuts")
    page.click(".account > summary")
    page.click(".popup [data-dialog=keys]")  # to be read all the same
    assert page.is_visible("dialog#keys")


def test_a_form_saves_itself_and_keeps_its_words_in_another_language(page: Any, house: House) -> None:
    page.goto(f"{house.url}/broadcasts/new")
    page.check("input[name=kind][value=sms]")
    page.wait_for_selector("#text")
    page.fill("#text", "Hello")
    page.fill("#name", "Kept by itself")
    page.press("#name", "Tab")
    page.wait_for_selector("#saved >> text=/Saved \\d+:\\d+/")
    page.wait_for_url("**/edit")
    page.fill("#name", "Typed last")
    page.click(".account > summary")
    page.click(".popup [data-language-switch] button[value=ru]")
    page.wait_for_selector("html[lang=ru]")
    assert page.url.endswith("/edit")
    assert (page.input_value("#name"), page.input_value("#text")) == ("Typed last", "Hello")
    page.click(".account > summary")
    page.click(".popup [data-language-switch] button[value=en]")
    page.wait_for_selector("html[lang=en]")
    db.execute("UPDATE user_account SET language = NULL")
