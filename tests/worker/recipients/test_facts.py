"""What checking learns of the rows it accepts."""

from __future__ import annotations

import io
from typing import Any

import pytest

from worker import broadcasts, channels, db, optouts, quiet, recipients, rendering
from worker.models import Broadcast, RecipientFile
from worker.settings import Settings


@pytest.fixture
def broadcast(database: None, settings: Settings) -> Broadcast:
    channel = channels.ensure_sandbox(settings)[1]
    return broadcasts.create(
        settings, {"name": "Sale", "channel_id": channel.id, "text": "Hi", "rate_per_minute": 60}, "test"
    )


def facts(settings: Settings, broadcast: Broadcast, text: str, *lines: str) -> dict[str, Any]:
    file = recipients.receive(broadcast, io.BytesIO("\n".join(lines).encode()), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, rendering.sms_content(text), True, settings.uploads)
    found: dict[str, Any] = RecipientFile.get_by_id(file.id).facts
    return found


def test_the_longest_and_the_shortest_message_are_known_by_their_line(settings: Settings, broadcast: Broadcast) -> None:
    names = ("phone,name", "+79010000001,Ann", "+79010000002," + "я" * 80, "+79010000003,Al")
    found = facts(settings, broadcast, "Hi {{name}}", *names)
    assert found["rows"] == 3 and found["segments"] == {"1": 2, "2": 1}
    assert found["longest"] == {"line": 3, "chars": 83, "units": 83, "segments": 2, "encoding": "UCS-2"}
    assert found["shortest"] == {"line": 4, "chars": 5, "units": 5, "segments": 1, "encoding": "GSM-7"}


def test_rows_without_a_message_do_not_count(settings: Settings, broadcast: Broadcast) -> None:
    with db.write():
        optouts.record("+79010000002", "person")
    names = ("phone,name", "+79010000001,Ann", "+79010000002," + "x" * 300, "+79010000001," + "x" * 300, "123,Bob")
    found = facts(settings, broadcast, "Hi {{name}}", *names)
    assert found["rows"] == 1 and found["longest"]["line"] == 2


def test_a_text_that_is_the_same_for_all_counts_for_all(settings: Settings, broadcast: Broadcast) -> None:
    found = facts(settings, broadcast, "я" * 71, "+79010000001", "+79010000002", "+79010000003")
    assert found["segments"] == {"2": 3} and found["longest"]["line"] == 1 and "empty" not in found


def test_a_fixed_text_that_is_too_long_refuses_every_row_with_its_reason(
    settings: Settings, broadcast: Broadcast
) -> None:
    file = recipients.receive(broadcast, io.BytesIO(b"+79010000001\n"), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, rendering.sms_content("я" * 700), True, settings.uploads)
    checked = RecipientFile.get_by_id(file.id)
    assert (checked.state, checked.rejected) == ("refused", {"text_too_long": 1})


def test_empty_values_are_counted_and_the_first_is_known(settings: Settings, broadcast: Broadcast) -> None:
    names = ("phone,name,unused", "+79010000001,Ann,", "+79010000002, ,x", "+79010000003")
    found = facts(settings, broadcast, "Hi {{name|friend}}", *names)
    assert found["empty"] == {"rows": 2, "line": 3}


def test_a_few_foreign_characters_are_named_with_what_they_cost(settings: Settings, broadcast: Broadcast) -> None:
    text = "Your order “{{n}}” is ready. " + "Come and get it until nine. " * 3
    found = facts(settings, broadcast, text, "phone,n", "+79010000001,17", "+79010000002,18")
    # two parts of 67 instead of one of 160, for each
    assert found["foreign"] == {"rows": 2, "segments": 2, "line": 2, "chars": ["“", "”"]}


@pytest.mark.parametrize("text", ["Здравствуйте, ваш заказ готов, приходите. " * 3, "Short “text”", "Plain text"])
def test_no_hint_where_another_script_is_meant_or_nothing_is_saved(
    settings: Settings, broadcast: Broadcast, text: str
) -> None:
    assert "foreign" not in facts(settings, broadcast, text, "+79010000001")


def test_time_zones_are_counted_by_where_they_are_known_from(settings: Settings, broadcast: Broadcast) -> None:
    lines = ("phone,пояс", "+79010000001,UTC+7", "+79010000002,", "+375291234567,")
    found = facts(settings, broadcast, "Hi", *lines)
    assert found["zones"] == {
        quiet.COLUMN: {"UTC+7": 1},
        quiet.BROADCAST: {"": 1},
        quiet.NUMBER: {"Europe/Moscow": 1},
    }


def test_a_template_is_as_long_as_its_text(settings: Settings, broadcast: Broadcast) -> None:
    body = [{"type": "BODY", "text": "Hi {{1}}"}]
    content = rendering.waba_content("hi", "en", body, "POSITIONAL", {"body.1": {"column": "name"}})
    data = b"phone,name\n+79010000001,Ann\n+79010000002,Alexandra\n"
    file = recipients.receive(broadcast, io.BytesIO(data), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, content, False, settings.uploads)
    found = RecipientFile.get_by_id(file.id).facts
    assert found["longest"] == {"line": 3, "chars": 12, "units": 12, "segments": 0, "encoding": ""}
    assert "segments" not in found
