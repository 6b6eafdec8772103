"""One person, planted everywhere, is found everywhere and then nowhere."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest

from tests import make
from tests.conftest import Clock
from worker import broadcasts, db, files, hashes, optouts, privacy, retention, tasks
from worker.models import (
    TABLES,
    Attachment,
    Attempt,
    Callback,
    Conversation,
    DeliveryReport,
    Direct,
    Inbound,
    InboundPart,
    MarketingChoice,
    Message,
    OptOut,
    OptOutEvent,
    Part,
    RecipientFile,
    RejectedRow,
    Removal,
    RepeatAnswer,
    User,
)
from worker.settings import Settings

PHONE, FIGURES, WORD = "+79995554711", "9995554711", "canary-lapis-lazuli"
OTHER = "+79000000002"


def xlsx() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f"<si><t>8 (999) 555-47-11</t></si><si><t>{WORD}</t></si>")
    return memory.getvalue()


FILES = {
    "a" * 32: f"phone,name\n{PHONE},{WORD}\n".encode(),
    "b" * 32: f"телефон;имя\r\n8 (999) 555-47-11;{WORD}\r\n".encode("cp1251"),
    "c" * 32: f"phone\n{FIGURES}\n{WORD}".encode("utf-16"),
    "d" * 32: xlsx(),
    "e" * 32: b"phone\n+79995554712\n",  # somebody else
}


@pytest.fixture
def planted(database: Settings, clock: Clock) -> Message:
    """The person in every table and every kind of file; somebody else beside them."""
    tasks.configure(database)
    now = clock.now()
    made = make.broadcast(channel=make.channel(), state="stopped")
    file = make.file(made, sample=[[PHONE, WORD]], repairs={"count": 1, "examples": [["8999 5554711", PHONE]]})
    message, waits, other = make.messages(file, "sent", "queued", "sent", row=f'["{PHONE}","{WORD}"]')
    for one in (message, waits):
        Message.update(phone=PHONE, cause_text=f"no {PHONE} {WORD}", provider_id="w").where(
            Message.id == one.id
        ).execute()
    Message.update(phone=OTHER, row='["+79000000002","Boris"]').where(Message.id == other.id).execute()
    RepeatAnswer.create(call="c", said="s", status=201, body=f'{{"phone": "{PHONE}", "text": "{WORD}"}}', at=now)
    for name, data in FILES.items():
        make.file(made, path=name, run=1)
        (database.uploads / name).write_bytes(data)
        files.keep(database.uploads / name)
    Attempt.create(message_id=message.id, token="t", at=now, outcome="lost", detail=f"to {PHONE} {WORD}")
    DeliveryReport.create(
        channel_id=1, message_id=message.id, provider_id=FIGURES, status="sent", at=now, received_at=now,
        detail=f"{PHONE} {WORD}", dedupe="1", also=[FIGURES],
    )  # fmt: skip
    Part.create(channel_id=1, provider_id=f"7{FIGURES}", message_id=message.id)
    RejectedRow.create(file_id=file.id, line=3, code="duplicate", value=PHONE, original=f"8(999)555-47-11;{WORD}")
    RejectedRow.create(file_id=file.id, line=4, code="duplicate", value=OTHER, original=OTHER)
    Callback.create(channel_id=1, query=f"from=7{FIGURES}&text={WORD}", body=b"", received_at=now, processed_at=now)
    Callback.create(channel_id=1, body=f'{{"from":"7{FIGURES}","t":"{WORD}"}}'.encode(), received_at=now)
    conversation = Conversation.create(
        channel_id=1, phone=PHONE, name=WORD, last_text=WORD, last_in_at=now, last_at=now, created_at=now
    )
    inbound = Inbound.create(
        channel_id=1, provider_id=f"in {PHONE}", phone=PHONE, name=WORD, kind="text", text=WORD, at=now,
        received_at=now, conversation_id=conversation.id, broadcast_id=made.id,
    )  # fmt: skip
    InboundPart.create(
        channel_id=1, provider_id="p", phone=PHONE, reference="1", n=1, total=2, text=WORD, at=now, received_at=now
    )
    folder = database.media
    folder.mkdir(exist_ok=True)
    (folder / "picture").write_text(WORD)
    Attachment.create(
        inbound_id=inbound.id, channel_id=1, media_id=FIGURES, mime="x", name=WORD, path="picture", at=now
    )
    answer = make.messages(
        make.file(make.broadcast(kind="direct", state="running")), "sent", row=f'["{PHONE}","{WORD}"]'
    )[0]
    Message.update(phone=PHONE).where(Message.id == answer.id).execute()
    Direct.create(
        channel_id=1, message_id=answer.id, kind="answer", phone=PHONE, made_by="x", at=now,
        conversation_id=conversation.id,
    )  # fmt: skip
    OptOut.create(phone=PHONE, source="reply", reason=WORD, at=now)
    OptOut.create(phone=OTHER, source="reply", at=now)
    OptOutEvent.create(phone=PHONE, scope="all", action="add", source="reply", reason=WORD, actor="", at=now)
    MarketingChoice.create(phone=PHONE, choice="stop", at=now)
    User.create(email="a@example.org", password_hash="x", role="sender", created_at=0, test_phones=[PHONE, OTHER])
    (database.data / "sandbox.log").write_text(f'{{"phone": "{PHONE}"}}\n{{"phone": "{OTHER}"}}\n')
    return message


def everything(settings: Settings) -> bytes:
    """All bytes of the data folder."""
    db.close()
    found = b"\n".join(path.read_bytes() for path in sorted(settings.data.rglob("*")) if path.is_file())
    db.database.connect(reuse_if_open=True)
    return found + found.replace(b"\0", b"")


def test_the_plant_is_everywhere(planted: Message, database: Settings) -> None:
    tables = {str(m._meta.table_name) for m in TABLES}
    holding = {t for t in tables if FIGURES in str(db.rows(f"SELECT * FROM {t}")).replace("-", "")}
    personal = {one.table for one in privacy.STORED if one.personal}
    if db.is_shared():
        assert personal <= holding
        return
    assert personal - holding == {"stored_file"}  # the folder has them here
    assert everything(database).count(FIGURES.encode()) > 20


def test_a_search_finds_the_person_in_every_table(planted: Message, database: Settings) -> None:
    found = privacy.find(database, PHONE)
    personal = {one.table for one in privacy.STORED if one.personal}
    assert set(found) == (personal - {"recipient_file", "stored_file"}) | {"files"}
    assert len(found["files"]) == 4 and len(found["message"]) == 3 and len(found["callback"]) == 2
    assert OTHER not in str(found)


def test_an_erased_person_is_nowhere(planted: Message, database: Settings) -> None:
    before = broadcasts.count(planted_broadcast(planted), None)
    report = privacy.erase(database, PHONE, "admin@example.org")
    assert retention.vacuum()
    rest = everything(database)
    assert rest.count(FIGURES.encode()) == 0
    assert privacy.pattern(PHONE).search(rest) is None
    assert WORD.encode() not in rest
    assert privacy.find(database, PHONE) == {}
    assert report == {
        "messages": 3, "cancelled": 1, "replies": 1, "answers": 1, "conversations": 1, "attachments": 1,
        "stop_list_kept_as_hash": 2, "rejected_rows": 1, "callbacks": 2, "files": 4, "test_phones": 1,
        "emulator_lines": 1, "repeat_answers": 1,
    }  # fmt: skip
    after = broadcasts.count(planted_broadcast(planted), None)
    assert after["total"] == before["total"]
    assert (after["queued"], after["cancelled"]) == (before["queued"] - 1, before["cancelled"] + 1)


def planted_broadcast(message: Message) -> Any:
    from worker.models import Broadcast

    return Broadcast.get_by_id(message.broadcast_id)


def test_other_people_stay(planted: Message, database: Settings) -> None:
    privacy.erase(database, PHONE, "admin")
    assert [m.row for m in Message.select().where(Message.phone == OTHER)] == ['["+79000000002","Boris"]']
    assert RejectedRow.select().count() == 1 and OptOut.select().where(OptOut.phone == OTHER).exists()
    assert files.find(database.uploads / ("e" * 32)) and not files.find(database.uploads / ("a" * 32))
    assert OTHER in (database.data / "sandbox.log").read_text()
    assert RecipientFile.select().where(RecipientFile.path == "e" * 32).exists()


def test_the_stop_list_still_knows_them(planted: Message, database: Settings) -> None:
    privacy.erase(database, PHONE, "admin")
    assert optouts.opted_out_among([PHONE, "+79000000003"]) == {PHONE}
    # They come back, say stop again, and are erased again.
    OptOut.create(phone=PHONE, source="reply", at=1)
    privacy.erase(database, PHONE, "admin")
    assert OptOut.select().where(OptOut.phone == hashes.of(database, [PHONE])[0]).count() == 1


def test_nothing_leaves_for_them_any_more(planted: Message, database: Settings) -> None:
    privacy.erase(database, PHONE, "admin")
    hidden = hashes.of(database, [PHONE])[0]
    Message.update(status="uncertain").where(Message.id == planted.id).execute()
    from worker import delivery

    assert not delivery.resolve(planted.id, "resend", "anna")
    row = planted_broadcast(planted)
    row.state = "finished"
    row.save()
    RecipientFile.update(accepted=3).where(RecipientFile.id == planted.file_id).execute()
    broadcasts.restart(row, "everyone", "anna")
    broadcasts.copy_run(row.id)
    queued = [m.phone for m in Message.select().where(Message.status == "queued")]
    assert OTHER in queued and hidden not in queued


def test_the_report_and_the_log_say_how_many_never_whose(planted: Message, database: Settings) -> None:
    privacy.erase(database, PHONE, "admin@example.org")
    kept = Removal.get()
    assert (kept.kind, kept.actor) == ("person", "admin@example.org")
    stored = str(db.rows("SELECT * FROM removal")) + str(db.rows("SELECT * FROM audit"))
    assert FIGURES not in stored and "+7999•••••11" in stored


def test_erasing_a_stranger_removes_nothing(planted: Message, database: Settings) -> None:
    assert privacy.erase(database, "+79991112233", "admin") == {}
    assert Message.select().where(Message.phone == PHONE).count() == 3


def test_every_table_says_what_it_stores() -> None:
    from webapp import words

    tables = {str(model._meta.table_name) for model in TABLES}
    named = [one.table for one in privacy.STORED]
    assert sorted(named) == sorted(tables)
    assert set(words.STORED) == tables | {"files"}
    assert {one.timer for one in privacy.STORED} - {""} == set(retention.TIMERS) == set(words.TIMERS)


@pytest.mark.parametrize(
    "written",
    [
        "+79995554711",
        "89995554711",
        "8 (999) 555-47-11",
        "8-999-555-47-11",
        "999\u00a0555 47 11",
        "tel:+7.999.555.4711",
    ],
)
def test_however_the_number_is_written(written: str) -> None:
    assert privacy.pattern(PHONE).search(f"a,{written},b".encode())


@pytest.mark.parametrize("written", ["+79995554712", "999555,4711", "9995554\n711", "99955547 and 11"])
def test_what_is_not_that_number(written: str) -> None:
    assert not privacy.pattern(PHONE).search(written.encode())
