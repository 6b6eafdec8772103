"""Those whom one cause kept from getting it are sent an SMS, sent to again, or put on the stop list; nobody else is."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from tests import make
from worker import broadcasts, clock, files, optouts, recipients, rescue, tasks
from worker.models import Audit, Broadcast, Channel, Message, MessageTemplate, OptOut, RecipientFile, Run
from worker.problems import Invalid
from worker.settings import Settings

CAUSE = "131026"
COMPONENTS = [
    {"type": "HEADER", "format": "TEXT", "text": "Sale"},
    {"type": "BODY", "text": "Hello {{1}}, come to {{2}}"},
    {"type": "FOOTER", "text": "Reply STOP"},
]


@pytest.fixture
def row(database: Settings) -> Broadcast:
    """A finished WhatsApp broadcast with two files of different columns."""
    channel = make.channel(kind="waba", provider="sandbox_waba")
    MessageTemplate.create(
        channel=channel,
        name="sale",
        language="en",
        status="APPROVED",
        category="MARKETING",
        components=COMPONENTS,
        synced_at=1,
    )
    variables = {"body.1": {"column": "Name", "fallback": "friend"}, "body.2": {"value": "Perm"}}
    made = make.broadcast(
        state="finished",
        channel=channel,
        name="Sale",
        text=None,
        template_name="sale",
        template_language="en",
        variables=variables,
    )
    Run.update(started_at=clock.now()).where(Run.broadcast == made.id).execute()
    one = make.file(made, run=1, columns=["Телефон", "Name"], phone_column="Телефон", accepted=4)
    two = make.file(made, run=1, columns=["phone", "name", "City"], accepted=2)
    make.messages(one, "failed", cause=CAUSE, row='["8 900 111-22-33","Ann; \\"A\\""]', phone="+79001112233")
    make.messages(one, "undelivered", cause=CAUSE, row='["89001112244",""]', phone="+79001112244")
    make.messages(one, "failed", cause="132000", row='["89001112255","Bob"]')
    make.messages(one, "delivered", row='["89001112266","Eve"]')
    make.messages(two, "undelivered", cause=CAUSE, row='["+79001112277","Dan","Perm"]', phone="+79001112277")
    make.messages(two, "uncertain", cause="timeout", row='["+79001112288","Zoe","Omsk"]')
    return made


@pytest.fixture
def sms(row: Broadcast) -> Channel:
    return make.channel(name="SMS", price=2.5, currency="RUB")


def rows_of(settings: Settings, file: RecipientFile) -> list[list[str]]:
    return list(csv.reader(io.StringIO(files.read(settings.uploads / file.path).decode(), newline="")))


def test_the_offer_says_how_many_what_and_for_how_much(row: Broadcast, sms: Channel) -> None:
    found = rescue.offer(row, CAUSE)
    assert found.people == 3
    assert found.text == "Sale\nHello {{ Name | friend }}, come to Perm\nReply STOP"
    assert (found.parts, [channel.id for channel in found.channels]) == (1, [sms.id])
    assert found.cost(sms) == 7.5
    assert found.cost(make.channel(name="no price")) is None


def test_a_draft_has_their_rows_with_all_columns(row: Broadcast, sms: Channel, settings: Settings) -> None:
    made, files = rescue.by_sms(settings, row, CAUSE, sms.id, "ann")
    assert (made.name, made.state, made.channel_id) == ("Sale – SMS", "draft", sms.id)
    assert made.text == "Sale\nHello {{ Name | friend }}, come to Perm\nReply STOP"
    (file,) = files
    assert rows_of(settings, file) == [
        ["phone", "Телефон", "Name", "City"],
        ["+79001112233", "8 900 111-22-33", 'Ann; "A"', ""],
        ["+79001112244", "89001112244", "", ""],
        ["+79001112277", "", "Dan", "Perm"],
    ]
    tasks.configure(settings)
    tasks.run_read_file(file.id)
    checked = RecipientFile.get_by_id(file.id)
    assert (checked.state, checked.accepted, checked.phone_column) == ("ready", 3, "phone")
    assert broadcasts.problems(Broadcast.get_by_id(made.id)) == []
    assert Audit.get(Audit.action == "broadcast.by_sms").detail == {"of": row.id, "cause": CAUSE}


def test_the_second_press_makes_no_second_draft(row: Broadcast, sms: Channel, settings: Settings) -> None:
    first, _ = rescue.by_sms(settings, row, CAUSE, sms.id, "ann", "token")
    second, files = rescue.by_sms(settings, row, CAUSE, sms.id, "ann", "token")
    assert (first.id, files) == (second.id, [])
    assert RecipientFile.select().where(RecipientFile.broadcast == first.id).count() == 1


def test_a_long_list_comes_in_several_files(
    row: Broadcast, sms: Channel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "ROOM", recipients.MAX_BYTES - 100)
    _, files = rescue.by_sms(settings, row, CAUSE, sms.id, "ann")
    assert len(files) > 1
    assert sum(len(rows_of(settings, file)) - 1 for file in files) == 3
    assert {rows_of(settings, file)[0][0] for file in files} == {"phone"}
    assert [file.role for file in files] == ["main", *["appended"] * (len(files) - 1)]


def test_a_draft_that_cannot_be_made_leaves_nothing(
    row: Broadcast, sms: Channel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Broadcast.select().count()
    with pytest.raises(Invalid):
        rescue.by_sms(settings, row, "nobody has this", sms.id, "ann")
    monkeypatch.setattr(rescue, "ROOM", recipients.MAX_BYTES - 100)
    monkeypatch.setattr(recipients, "FILES_MAX", 1)
    with pytest.raises(recipients.FileRefused):
        rescue.by_sms(settings, row, CAUSE, sms.id, "ann")
    assert Broadcast.select().count() == before
    assert list(settings.uploads.iterdir()) == []


@pytest.mark.parametrize(
    ("components", "variables", "expected"),
    [
        ([{"type": "BODY", "text": "Plain"}], {}, "Plain"),
        ([{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Hi {{name}}"}], {"body.name": {"column": "n"}}, "Hi {{ n }}"),
        ([{"type": "BODY", "text": "Hi {{1}}"}], {"body.1": {"column": "a|b"}}, ""),
        ([{"type": "BODY", "text": "Hi {{1}}"}], {"body.1": {"value": "{{"}}, ""),
    ],
)  # fmt: skip
def test_the_text_of_a_template_as_an_sms(
    row: Broadcast, components: list[Any], variables: dict[str, Any], expected: str
) -> None:
    MessageTemplate.update(
        components=components, parameter_format="NAMED" if "{{name}}" in str(components) else "POSITIONAL"
    ).execute()
    header = {"header.media": {"value": "https://example.org/a.png"}} if "IMAGE" in str(components) else {}
    Broadcast.update(variables={**variables, **header}).where(Broadcast.id == row.id).execute()
    assert rescue.offer(Broadcast.get_by_id(row.id), CAUSE).text == expected


def test_whom_a_later_run_reached_needs_nothing_more(row: Broadcast, sms: Channel) -> None:
    restarted = broadcasts.restart(row, "undelivered", "ann", CAUSE)
    broadcasts.copy_run(row.id)
    assert rescue.number(restarted, CAUSE) == 0, "they are on their way"
    Message.update(status="delivered").where(Message.run == 2).execute()
    Message.update(status="failed", cause=CAUSE).where((Message.run == 2) & (Message.phone == "+79001112277")).execute()
    assert rescue.number(restarted, CAUSE) == 1


def test_a_restart_for_one_cause_goes_to_those_alone(row: Broadcast) -> None:
    assert broadcasts.restart_numbers(row, CAUSE) == {"everyone": 6, "new": 0, "failed": 1, "undelivered": 3}
    for who, cause in (("everyone", CAUSE), ("new", CAUSE), ("failed", "nobody has this")):
        with pytest.raises(Invalid):
            broadcasts.restart(row, who, "ann", cause)
    restarted = broadcasts.restart(row, "undelivered", "ann", CAUSE)
    assert Run.get(Run.number == 2).cause == CAUSE
    broadcasts.copy_run(row.id)
    broadcasts.copy_run(row.id)
    assert broadcasts.count(restarted, 2)["queued"] == 3
    found = {message.phone for message in Message.select().where(Message.run == 2)}
    assert found == {"+79001112233", "+79001112244", "+79001112277"}


def test_the_stop_list_takes_them_with_a_reason(row: Broadcast) -> None:
    optouts.record("+79001112233", "reply", "STOP")
    assert rescue.to_stop_list(row, CAUSE, "no such number", "ann") == 3
    found = {one.phone: (one.source, one.reason) for one in OptOut.select()}
    assert found["+79001112233"] == ("reply", "STOP"), "what was known first stays"
    assert found["+79001112244"] == ("person", "no such number") and len(found) == 3
    assert json.loads(json.dumps(Audit.get(Audit.action == "broadcast.stop_list").detail)) == {"cause": CAUSE, "n": 3}
