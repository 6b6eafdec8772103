"""Any recipient's message can be looked at, and sent to one's own phone as a test."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests import make, people
from worker import broadcasts, channels, db, direct, optouts, preview, recipients
from worker.models import Audit, Broadcast, Channel, Direct, Message, MessageTemplate, RecipientFile, User
from worker.problems import Invalid, Problem
from worker.settings import Settings

PEOPLE = "phone,name\n+79010000001,Ann\n123,Bad\n+79010000002,\n+79010000003,Alexandra\n"
MORE = "phone,name\n+79010000004,Bob\n"


@pytest.fixture
def sms(settings: Settings, database: Settings) -> Channel:
    return channels.ensure_sandbox(settings)[1]


@pytest.fixture
def row(settings: Settings, sms: Channel) -> Broadcast:
    values = {"name": "Sale", "channel_id": sms.id, "rate_per_minute": 60, "text": "Hi {{ name | friend }}"}
    made = broadcasts.create(settings, values, "test")
    for data in (PEOPLE, MORE):
        file = recipients.receive(made, io.BytesIO(data.encode()), "a.csv", settings.uploads, {}, "test")
        recipients.check(file.id, None, broadcasts.content(made), True, settings.uploads)
    return Broadcast.get_by_id(made.id)


@pytest.fixture
def files(row: Broadcast) -> list[int]:
    return [file.id for file in RecipientFile.select().order_by(RecipientFile.id)]


def code(row: Broadcast, *which: str, **place: Any) -> str:
    with pytest.raises(preview.Missing) as missing:
        preview.find(row, *which, **place)
    return missing.value.problem.code


@pytest.mark.parametrize(
    ("which", "line", "text"),
    [("first", 2, "Hi Ann"), ("longest", 5, "Hi Alexandra"), ("shortest", 2, "Hi Ann"), ("empty", 4, "Hi friend")],
)
def test_the_rows_that_matter_are_found(row: Broadcast, files: list[int], which: str, line: int, text: str) -> None:
    found = preview.find(row, which)
    assert (found.line, found.text, found.file.id) == (line, text, files[0])
    assert found.parts == [text] and found.counted is not None and found.counted.segments == 1


def test_next_steps_through_all_files_and_ends(row: Broadcast, files: list[int]) -> None:
    seen, at = [], {"after": 0, "file": files[0]}
    for _row in range(4):
        found = preview.find(row, "next", **at)
        seen.append((found.file.id, found.line))
        at = {"after": found.line, "file": found.file.id}
    assert seen == [(files[0], 2), (files[0], 4), (files[0], 5), (files[1], 2)]
    assert code(row, "next", **at) == "row_last"


def test_a_row_is_found_by_its_line_with_its_cells(row: Broadcast, files: list[int]) -> None:
    found = preview.find(row, line=5)
    assert (found.phone, found.cells) == ("+79010000003", [("phone", "+79010000003"), ("name", "Alexandra")])
    assert preview.find(row, line=2, file=files[1]).text == "Hi Bob"
    assert code(row, line=3) == "row_missing"  # refused
    assert code(row, line=2**70) == "row_missing"
    assert code(row, line=5, file=files[1]) == "row_missing"
    assert {preview.find(row, "random").text for _ in range(60)} == {"Hi Ann", "Hi friend", "Hi Alexandra", "Hi Bob"}


def test_what_cannot_be_shown_says_why(row: Broadcast) -> None:
    assert code(row, "foreign") == "nothing_foreign"
    RecipientFile.update(facts=None).execute()
    assert code(row, "longest") == "length_unknown"
    Broadcast.update(text=None).execute()
    assert code(Broadcast.get_by_id(row.id)) == "not_written"
    assert code(make.broadcast()) == "no_recipients"


def test_only_few_foreign_characters_are_worth_a_hint(row: Broadcast) -> None:
    for text, foreign in (("Your parcel “A” waits", ["“", "”"]), ("Здравствуйте", []), ("Plain", [])):
        Broadcast.update(text=text).execute()
        assert preview.find(Broadcast.get_by_id(row.id)).foreign == foreign


def test_a_long_sms_is_shown_in_its_parts(row: Broadcast) -> None:
    Broadcast.update(text="Hi {{name|friend}} " + "я" * 70).execute()
    found = preview.find(Broadcast.get_by_id(row.id))
    assert [len(part) for part in found.parts] == [67, 10] and "".join(found.parts) == found.text


@pytest.fixture
def template(settings: Settings, sms: Channel) -> Broadcast:
    components = [
        {"type": "HEADER", "format": "DOCUMENT"},
        {"type": "BODY", "text": "Hi {{1}}, see {{2}}"},
        {"type": "FOOTER", "text": "Bye"},
        {
            "type": "BUTTONS",
            "buttons": [
                {"type": "URL", "text": "Open", "url": "https://example.org/{{1}}"},
                {"type": "QUICK_REPLY", "text": "Stop"},
            ],
        },
    ]
    waba = channels.ensure_sandbox(settings)[0]
    facts = {"status": "APPROVED", "category": "MARKETING", "synced_at": 1}
    MessageTemplate.create(channel=waba, name="hi", language="ru", components=components, **facts)
    variables = {
        "header.media": {"value": "https://example.org/price.pdf"},
        "body.1": {"column": "name", "fallback": "friend"},
        "body.2": {"value": "this"},
        "button.0": {"column": "name", "fallback": "all"},
    }
    values = {"name": "Sale", "channel_id": waba.id, "rate_per_minute": 60, "variables": variables}
    made = broadcasts.create(settings, values | {"template": {"name": "hi", "language": "ru"}}, "test")
    file = recipients.receive(made, io.BytesIO(PEOPLE.encode()), "a.csv", settings.uploads, {}, "test")
    recipients.check(file.id, None, broadcasts.content(made), False, settings.uploads)
    return Broadcast.get_by_id(made.id)


def test_a_template_is_shown_as_its_phone_shows_it(template: Broadcast) -> None:
    found = preview.find(template)
    assert found.counted is None and found.parts == []
    assert found.components == [
        {"type": "HEADER", "format": "DOCUMENT", "media": {"media": "https://example.org/price.pdf"}},
        {"type": "BODY", "text": "Hi Ann, see this"},
        {"type": "FOOTER", "text": "Bye"},
        {
            "type": "BUTTONS",
            "buttons": [
                {"type": "URL", "text": "Open", "url": "https://example.org/Ann"},
                {"type": "QUICK_REPLY", "text": "Stop"},
            ],
        },
    ]
    assert preview.as_written(template)[1] == {"type": "BODY", "text": "Hi {{1}}, see {{2}}"}


# --- tests to one's own phone


def send(settings: Settings, row: Broadcast, number: str = "8 901 555-44-33", **more: Any) -> Direct:
    return preview.send_test(settings, row, number, "anna", **more)


def refused(settings: Settings, row: Broadcast, number: str = "+79015554433", **more: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as invalid:
        send(settings, row, number, **more)
    assert not Direct.select().exists()
    return {name: problem.code for name, problem in invalid.value.problems.items()}


def test_a_test_carries_the_data_of_its_row_and_is_no_part_of_the_broadcast(settings: Settings, row: Broadcast) -> None:
    before = broadcasts.count(row, None)
    made = send(settings, row, line=5)
    (sent,) = direct.tests_of(row.id)
    assert (sent.id, sent.phone, sent.text, sent.status) == (made.id, "+79015554433", "Hi Alexandra", "queued")
    assert (sent.kind, sent.made_by) == (direct.TEST, "anna")
    assert broadcasts.count(row, None) == before
    assert Message.get_by_id(sent.message_id).broadcast_id != row.id
    assert Audit.select().where(Audit.action == "broadcast.test").count() == 1


def test_a_template_goes_as_a_template(settings: Settings, template: Broadcast) -> None:
    made = send(settings, template)
    cells = db.value("SELECT row FROM message WHERE id = ?", [made.message_id])
    assert '"name":"hi"' in cells and "Ann" in cells


def test_the_same_form_sent_twice_is_one_test(settings: Settings, row: Broadcast) -> None:
    assert send(settings, row, form_token="a").id == send(settings, row, form_token="a").id
    assert len(direct.tests_of(row.id)) == 1


def test_a_form_that_was_corrected_is_another_test(settings: Settings, row: Broadcast) -> None:
    numbers = ["+79010000001", "+79010000002"]
    for number in numbers:  # the browser's Back brings the very same form
        send(settings, row, number, form_token="a")
    assert sorted(test.phone for test in direct.tests_of(row.id)) == numbers


@pytest.mark.parametrize("line", [-(10**30), -1, 10**30])
def test_no_row_has_a_number_of_any_size(row: Broadcast, line: int) -> None:
    with pytest.raises(preview.Missing) as found:
        preview.find(row, line=line)
    assert found.value.absent


def test_a_text_of_too_many_parts_is_refused_by_its_parts(settings: Settings, row: Broadcast) -> None:
    Broadcast.update(text="я" * 700).where(Broadcast.id == row.id).execute()
    with pytest.raises(Invalid) as refused:
        send(settings, Broadcast.get_by_id(row.id))
    assert refused.value.problems["message"] == Problem("too_many_segments", {"m": 11, "max": 10})


def test_own_numbers_are_remembered_latest_first(settings: Settings, row: Broadcast) -> None:
    user = people.person("sender")
    for n in (*range(12), 5):
        send(settings, row, f"+7901000{n:04d}", user_id=user.id)
    known = User.get_by_id(user.id).test_phones
    assert known[0] == "+79010000005" and len(known) == len(set(known)) == preview.REMEMBERED
    assert known[1] == "+79010000011"


def test_numbers_that_get_nothing_are_refused(settings: Settings, row: Broadcast, template: Broadcast) -> None:
    assert refused(settings, row, "") == {"phone": "phone_missing"}
    assert refused(settings, row, "12") == {"phone": "phone_invalid"}
    assert refused(settings, row, "+74951234567") == {"phone": "phone_not_mobile"}
    with db.write():
        optouts.record("+79015554433", "provider", scope=optouts.MARKETING)
    assert refused(settings, template) == {"phone": "phone_opted_out"}  # it advertises
    with db.write():
        optouts.record("+79015554433", "reply", "STOP")
    assert refused(settings, row) == {"phone": "phone_opted_out"}


def test_a_test_needs_a_channel_in_use_a_message_and_its_row(settings: Settings, row: Broadcast) -> None:
    assert refused(settings, row, line=3) == {"line": "row_missing"}
    Channel.update(state="stopped").execute()
    assert refused(settings, Broadcast.get_by_id(row.id)) == {"channel": "channel_off"}
    Channel.update(state="on").execute()
    Broadcast.update(text="").execute()
    assert refused(settings, Broadcast.get_by_id(row.id)) == {"message": "not_written"}
    assert refused(settings, make.broadcast(channel=None)) == {"channel": "channel_required"}


def test_a_message_that_is_the_same_for_all_needs_no_row(settings: Settings, sms: Channel) -> None:
    send(settings, make.broadcast(channel=sms, text="Hello"))
    assert [sent.text for sent in direct.by_ids([1])] == ["Hello"]
    with pytest.raises(Invalid):
        send(settings, make.broadcast(channel=sms, text="Hello {{name}}"))


def test_a_draft_that_is_deleted_leaves_no_tests_to_the_next_one(settings: Settings, sms: Channel) -> None:
    row = make.broadcast(channel=sms, text="Hello")
    send(settings, row)
    broadcasts.delete(row, "anna")
    again = make.broadcast(channel=sms, text="Other", id=row.id)
    assert direct.tests_of(again.id) == []
