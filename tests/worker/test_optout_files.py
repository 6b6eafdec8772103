"""Lists for the stop list: read like recipient files, counted, and taken to the last good line."""

from __future__ import annotations

import io
import json

import pytest

from worker import db, optout_files, optouts
from worker.models import Audit, OptOut, OptOutEvent
from worker.problems import Invalid
from worker.recipients.decoding import FileRefused


def read(data: bytes | str, **more: str) -> optout_files.Result:
    content = data.encode() if isinstance(data, str) else data
    return optout_files.read(io.BytesIO(content), "RU", "anna", **more)


def held() -> list[tuple[str, str, str, str]]:
    return db.rows("SELECT phone, scope, source, reason FROM opt_out ORDER BY phone, scope")


def test_a_file_as_russian_excel_saves_it(database: object) -> None:
    with db.write():
        optouts.record("+79010000001", "reply", "STOP")
    rows = [
        "Имя;Телефон",
        "Анна;8 901 000-00-01",
        "Борис;89010000002",
        "Вера;12345",
        ";",
        "Глеб;",
        "Борис;+79010000002",
    ]
    result = read("\r\n".join(rows).encode("cp1251"), reason="из CRM")
    assert result == optout_files.Result(
        5,
        added=1,
        known=2,
        invalid=2,
        lines=[optout_files.Line(4, "12345", "phone_invalid"), optout_files.Line(6, "", "phone_missing")],
    )
    assert held() == [("+79010000001", "all", "reply", "STOP"), ("+79010000002", "all", "import", "из CRM")]
    detail = Audit.get(Audit.action == "optout.import").detail
    assert detail == {"rows": 5, "added": 1, "known": 2, "invalid": 2}


@pytest.mark.parametrize("data", ["+79010000001\n+79010000002", "\ufeff79010000001\n\n79010000002\n"])
def test_a_plain_list_of_numbers_needs_no_header(database: object, data: str) -> None:
    assert read(data)[:4] == (2, 2, 0, 0)
    assert read(data)[:4] == (2, 0, 2, 0), "the same once more changes nothing"
    assert OptOutEvent.select().count() == 2


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("phone,scope,reason", ("marketing only", "all broadcasts")),
        ("Телефон;Что не отправлять;Причина", ("Только рекламу", "все рассылки")),
    ],
)
def test_scope_and_reason_of_a_line_go_before_those_of_the_form(
    database: object, header: str, words: tuple[str, str]
) -> None:
    sign = ";" if ";" in header else ","
    lines = [sign.join(("+79010000001", words[0], "'=1+1")), sign.join(("+79010000002", words[1], ""))]
    read("\n".join([header, *lines, sign.join(("+79010000003", "", "own words"))]), reason="list", scope="marketing")
    assert held() == [
        ("+79010000001", "marketing", "import", "=1+1"),
        ("+79010000002", "all", "import", "list"),
        ("+79010000003", "marketing", "import", "own words"),
    ]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        *((b"", "file_empty"), (b"\x89PNG....", "file_binary"), (b"name;town\nAnna;Tula", "no_phone_column")),
        *((b"phone;mobile\n1;2", "phone_column_ambiguous"), (b'phone;x\n+79010000001;"open\n', "bad_quoting")),
        (b"phone\n+79010000001\n" + b"x" * (200 * 1024 + 1), "cell_too_large"),
        (b"9" * (10 * 1024 * 1024 + 1), "file_too_large"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_nothing_of_it_stays(
    database: object, data: bytes, code: str
) -> None:
    with pytest.raises(FileRefused) as refused:
        read(data)
    assert refused.value.code == code
    assert OptOut.select().count() == 0


def test_a_person_says_which_column_holds_the_number(database: object) -> None:
    assert read("phone;mobile\n12;+79010000001", phone_column="mobile").added == 1


def test_only_the_first_bad_lines_are_shown_and_all_are_counted(database: object) -> None:
    result = read("\n".join(["phone", *("bad" for _ in range(5_000)), "+79010000001"]))
    assert (result.rows, result.added, result.invalid, len(result.lines)) == (5_001, 1, 5_000, optout_files.SHOWN)


def test_numbers_that_were_pasted_are_read_apart(database: object) -> None:
    result = optout_files.paste(
        "89010000001, 8 (901) 000-00-02;\n\n+79010000001\nнет номера\n", "RU", "anna", reason="asked"
    )
    assert result == (4, 2, 1, 1, [(4, "нет номера", "phone_invalid")])
    assert held() == [(f"+7901000000{n}", "all", "person", "asked") for n in (1, 2)]
    assert [event.actor for event in OptOutEvent.select()] == ["anna", "anna"]


@pytest.mark.parametrize("text", ["", " \n ", "12345", "Анна"])
def test_without_a_number_there_is_nothing_to_add(database: object, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        optout_files.paste(text, "RU", "anna")
    assert set(refused.value.problems) == {"phones"}
    assert json.dumps(held()) == "[]"
