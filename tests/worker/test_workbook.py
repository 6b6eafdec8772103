"""A workbook that a spreadsheet opens, with texts as texts, in bounded memory."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from itertools import repeat

from hypothesis import given
from hypothesis import strategies as st
from python_calamine import CalamineWorkbook

from worker.workbook import BATCH, CELL_MAX, Number, pieces


def sheets(data: bytes) -> list[list[list[object]]]:
    """The rows of every sheet, as another program reads them."""
    book = CalamineWorkbook.from_filelike(io.BytesIO(data))
    return [book.get_sheet_by_name(name).to_python() for name in book.sheet_names]


def written(header: list[str], rows: list[list[str]], **more: int) -> bytes:
    return b"".join(pieces(header, [rows], **more))


def test_texts_stay_texts_and_numbers_are_numbers() -> None:
    rows = [["=1+1", Number(2), "+79001234567"], [" a & <b> ", Number(3), ""], ["строка\nвторая", Number(-4), "007"]]
    (found,) = sheets(written(["=head", "n", "phone"], rows, numbers=1))
    assert found == [
        ["=head", "n", "phone"],
        ["=1+1", 2.0, "+79001234567"],
        [" a & <b> ", 3.0, ""],
        ["строка\nвторая", -4.0, "007"],
    ]
    archive = zipfile.ZipFile(io.BytesIO(written(["a"], [["=1+1"]])))
    assert b"<f>" not in archive.read("xl/worksheets/sheet1.xml")
    assert archive.testzip() is None


def test_an_empty_table_is_a_workbook_too() -> None:
    assert sheets(written(["phone", "status"], [])) == [[["phone", "status"]]]


def test_rows_go_on_in_the_next_sheet() -> None:
    rows = [[str(n), Number(n)] for n in range(7)]
    found = sheets(written(["name", "n"], rows, numbers=1, rows_max=4))
    assert [[row[1] for row in sheet] for sheet in found] == [["n", 0, 1, 2], ["n", 3, 4, 5], ["n", 6]]
    full = sheets(written(["name", "n"], rows[:6], numbers=1, rows_max=4))
    assert [len(sheet) for sheet in full] == [4, 4]


def test_what_a_spreadsheet_cannot_hold_does_no_harm() -> None:
    rows = [
        ["a\x00b\x1fc\x1ed\x1de\x1cf\x0b", Number(1)],
        ["x" * (CELL_MAX + 9), Number(2)],
        ["\ud800\ufffe", Number(3)],
    ]
    (found,) = sheets(written(["text", "n"], rows, numbers=1))
    assert [row[1] for row in found[1:]] == [1, 2, 3]
    assert found[1][0] == "abcdef"
    assert found[2][0] == "x" * CELL_MAX


@given(st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), max_size=20))
def test_any_text_comes_back_or_is_cleaned(rows: list[list[str]]) -> None:
    (found,) = sheets(written(["a", "b"], [[*row, Number(n)] for n, row in enumerate(rows)], numbers=1))
    assert [row[-1] for row in found[1:]] == list(range(len(rows)))


def test_memory_does_not_grow_with_the_rows() -> None:
    def batches(number: int) -> Iterator[list[list[str]]]:
        return repeat([[f"+7900{n:07d}", "delivered"] for n in range(BATCH)], number)

    def peak(number: int) -> int:
        tracemalloc.start()
        for _ in pieces(["phone", "status"], batches(number)):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < 1.5 * peak(4)
