"""Recipient files: every row becomes a message or a reason, and the numbers add up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from worker import broadcasts, channels, clock, db, recipients, rendering
from worker.models import Broadcast, RecipientFile
from worker.settings import Settings

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "csv_samples"


@pytest.fixture
def broadcast(database: None, settings: Settings) -> Broadcast:
    channel = channels.ensure_sandbox(settings)[1]
    return broadcasts.create(
        settings, {"name": "Sale", "channel_id": channel.id, "text": "Hi", "rate_per_minute": 60}, "test"
    )


def check(settings: Settings, broadcast: Broadcast, data: bytes, text: str = "", **options: str) -> RecipientFile:
    file = recipients.receive(broadcast, io.BytesIO(data), "list.csv", settings.uploads, options, "test")
    recipients.check(file.id, None, rendering.sms_content(text) if text else None, True, settings.uploads)
    found: RecipientFile = RecipientFile.get_by_id(file.id)
    if found.code is None:
        assert found.accepted + sum(found.rejected.values()) == found.rows
    return found


def phones(file: RecipientFile) -> list[str]:
    return [row[0] for row in db.rows("SELECT phone FROM message WHERE file_id = ? ORDER BY line", [file.id])]


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        ("телефон;имя\r\n89000000001;Иван\r\n+7 900 000-00-02;Пётр\r\n".encode("cp1251"), 2),
        ("\ufeffphone,name\n+79000000001,Ann".encode(), 1),
        ("phone\tname\n+79000000001\tAnn\n".encode("utf-16"), 1),
        (b"sep=|\nname|phone\nAnn|+79000000001\n", 1),
        (b"+79000000001\n+79000000002\n", 2),
        (b'phone,note\r+79000000001,"a\nb"\r', 1),
    ],
)
def test_files_as_people_save_them(settings: Settings, broadcast: Broadcast, data: bytes, numbers: int) -> None:
    file = check(settings, broadcast, data)
    assert (file.state, file.accepted) == ("ready", numbers)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\n \n", "file_empty"),
        (b"\x89PNG\r\n\x1a\n", "file_binary"),
        (b"phone\n+7900\x000", "file_binary"),
        ("phone\nПривет\n".encode() + "Привет".encode("cp1251"), "encoding_unknown"),
        (b"name,city\nAnn,Perm\n", "no_phone_column"),
        (b"phone,mobile\n+79000000001,+79000000002", "phone_column_ambiguous"),
        (b"phone,name,name\n+79000000001,a,b", "repeated_column"),
        (b"phone\nabc\n", "no_valid_rows"),
        (b'phone,name\n+79000000001,"Ann\n+79000000002,Bob\n', "bad_quoting"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_leaves_nothing(
    settings: Settings, broadcast: Broadcast, data: bytes, code: str
) -> None:
    file = check(settings, broadcast, data)
    assert (file.state, file.code) == ("refused", code)
    assert phones(file) == []
    assert broadcasts.count(broadcast, None)["total"] == 0


def test_every_bad_row_keeps_its_line_and_its_reason(settings: Settings, broadcast: Broadcast) -> None:
    data = "phone;name\n+79000000001;A\n;B\n123;C\n89000000001;D\n\n"
    data += "+74951234567;E\n+79000000002;\n7,9E+10;F\n+79000000003;x;y\n"
    file = check(settings, broadcast, data.encode(), "Hi {{name}}")
    found = {(row.line, row.code) for row in recipients.errors(file.id)}
    assert found == {
        (3, "phone_missing"),
        (4, "phone_invalid"),
        (5, "duplicate"),
        (7, "phone_not_mobile"),
        (8, "variable_missing"),
        (9, "phone_scientific"),
        (10, "too_many_columns"),
    }
    assert file.rejected["blank_row"] == 1
    assert phones(file) == ["+79000000001"]


def test_a_number_occurs_once_across_files(settings: Settings, broadcast: Broadcast) -> None:
    check(settings, broadcast, b"phone\n+79000000001\n+79000000002\n")
    second = check(settings, broadcast, b"phone\n89000000002\n+79000000003\n")
    assert phones(second) == ["+79000000003"]
    assert recipients.errors(second.id)[0].other == {"line": 3, "file": "list.csv"}
    assert broadcasts.count(broadcast, 1)["queued"] == 3


def test_over_ten_megabytes_is_refused_before_and_while_reading(settings: Settings, broadcast: Broadcast) -> None:
    big = io.BytesIO(b"7" * (recipients.MAX_BYTES + 1))
    for declared in (recipients.MAX_BYTES + 1, None):
        with pytest.raises(recipients.FileRefused) as refused:
            recipients.receive(broadcast, big, "big.csv", settings.uploads, {}, "test", declared)
        assert refused.value.code == "file_too_large"
    assert list(settings.uploads.iterdir()) == []
    assert RecipientFile.select().count() == 0


def test_a_check_that_begins_again_makes_no_row_twice(settings: Settings, broadcast: Broadcast) -> None:
    file = check(settings, broadcast, b"phone\n+79000000001\n+79000000002\n")
    assert recipients.recheck(file, {"encoding": "utf-8"})
    recipients.check(file.id, None, None, True, settings.uploads)
    assert phones(file) == ["+79000000001", "+79000000002"]
    assert broadcasts.count(broadcast, 1)["queued"] == 2


def test_keep_leaves_the_queue_and_remove_empties_it(settings: Settings, broadcast: Broadcast) -> None:
    first = check(settings, broadcast, b"phone\n+79000000001\n")
    second = check(settings, broadcast, b"phone\n+79000000002\n")
    broadcasts.start(settings, Broadcast.get_by_id(broadcast.id), "test")
    assert recipients.remove(first, "keep", "test")
    assert recipients.remove(second, "remove", "test")
    assert not recipients.remove(second, "remove", "test")
    numbers = broadcasts.count(broadcast, 1)
    assert (numbers["queued"], numbers["cancelled"], numbers["total"]) == (1, 1, 2)


def test_a_number_on_the_stop_list_is_left_out(settings: Settings, broadcast: Broadcast) -> None:
    with db.write():
        db.execute(
            "INSERT INTO opt_out (phone, scope, reason, source, at) VALUES ('+79000000001', 'all', '', 'person', ?)",
            [clock.now()],
        )
    file = check(settings, broadcast, b"phone\n+79000000001\n+79000000002\n")
    assert file.rejected == {"opted_out": 1}


@pytest.mark.parametrize("name", ["../../etc/x.csv", "..\\x.csv", "a\x00b.csv", "", ".", "отчёт.csv", "a" * 400])
def test_a_file_name_is_only_ever_shown(settings: Settings, broadcast: Broadcast, name: str) -> None:
    file = recipients.receive(broadcast, io.BytesIO(b"phone\n+79000000001"), name, settings.uploads, {}, "test")
    assert (settings.uploads / file.path).parent == settings.uploads
    assert "/" not in file.name and "\x00" not in file.name and file.name


def cases() -> list[Any]:
    manifest = SAMPLES / "manifest.json"
    return json.loads(manifest.read_text(encoding="utf-8"))["cases"] if manifest.exists() else []


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_the_shared_samples(settings: Settings, broadcast: Broadcast, case: dict[str, Any]) -> None:
    data, expect = (SAMPLES / case["file"]).read_bytes(), case["expect"]
    try:
        file = check(settings, broadcast, data, case["template"] or "")
        state, code = file.state, file.code
    except recipients.FileRefused as refused:
        state, code = "refused", refused.code
    if expect["file"] == "reject":
        assert (state, code) == ("refused", expect["reason"])
    else:
        assert (file.accepted, file.rejected, file.rows) == (expect["accepted"], expect["rejected"], expect["rows"])
        assert phones(file) == expect["phones"]
