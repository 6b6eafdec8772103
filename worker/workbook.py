"""A table as an XLSX workbook, a piece at a time: any number of rows in the memory of one batch.

Texts are written as texts, so that no cell can become a formula. What a spreadsheet cannot hold is left out (control
characters) or cut (cells over 32,767 characters). Rows beyond a sheet's end go on in the next sheet under the same
header.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

ROWS_MAX = 1_048_576  # of a sheet, its header among them
CELL_MAX = 32_767
SHEET_MAX = 1_900 * 1024 * 1024  # bytes of one sheet before packing: below what needs the large form of ZIP
BATCH = 2_000
MIME = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_BEGIN = (
    f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2"'
    ' state="frozen"/></sheetView></sheetViews><sheetData>'
).encode()
_END = b"</sheetData></worksheet>"
_OPEN, _CLOSE = b'<c t="inlineStr"><is><t xml:space="preserve">', b"</t></is></c>"

# A batch is joined by control characters, which no cell may hold, and then turned into XML as a whole: that is done
# at the speed of the machine, where cell by cell would be at Python's.
_CELL, _ROW, _NUMBER, _NUMBER_END = "\x1f", "\x1e", "\x1d", "\x1c"
_UNWRITABLE = bytes({*range(0x20), 0x7F} - {*b"\t\n\r", *b"\x1f\x1e\x1d\x1c"})
_ESCAPES = (
    (b"&", b"&amp;"),
    (b"<", b"&lt;"),
    (b">", b"&gt;"),
    (b"\r", b"&#13;"),
    (b"\xef\xbf\xbe", b""),
    (b"\xef\xbf\xbf", b""),
)
_SHAPES = (
    (_CELL.encode(), _CLOSE + _OPEN),
    (_ROW.encode(), _CLOSE + b"</row><row>" + _OPEN),
    (_OPEN + _NUMBER.encode(), b"<c><v>"),
    (_NUMBER_END.encode() + _CLOSE, b"</v></c>"),
    (_OPEN + _CLOSE, b"<c/>"),
)
_MARKS = (_CELL, _ROW, _NUMBER, _NUMBER_END)
_OWN = str.maketrans(dict.fromkeys(_MARKS))


class _Pipe(io.RawIOBase):
    """What zipfile writes, until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        found = b"".join(self._pieces)
        self._pieces.clear()
        return found


class Number(str):
    """A whole number, written as one."""

    def __new__(cls, value: int) -> Number:
        return super().__new__(cls, f"{_NUMBER}{value}{_NUMBER_END}")


def pieces(
    header: Sequence[str], batches: Iterable[Iterable[Sequence[str]]], numbers: int = 0, rows_max: int = ROWS_MAX
) -> Iterator[bytes]:
    """The workbook of these rows under `header`, in pieces. `numbers`: how many cells of each row are Number."""
    pipe = _Pipe()
    rows = chain.from_iterable(batches)
    batch = list(islice(rows, min(BATCH, rows_max - 1)))
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        sheets = 0
        while batch or not sheets:
            sheets += 1
            room, size = rows_max - 1, 0
            with archive.open(f"xl/worksheets/sheet{sheets}.xml", "w") as sheet:
                sheet.write(_BEGIN + _as_xml([header], 0))
                while batch and room and size < SHEET_MAX:
                    xml = _as_xml(batch, numbers)
                    sheet.write(xml)
                    yield pipe.take()
                    size += len(xml)
                    room -= len(batch)
                    batch = list(islice(rows, min(BATCH, room or rows_max - 1)))
                sheet.write(_END)
        for name, text in _frame(sheets):
            archive.writestr(name, _XML + text)
    yield pipe.take()


def _as_xml(rows: Sequence[Sequence[str]], numbers: int) -> bytes:
    joined = [_CELL.join(row) for row in rows]
    text = _ROW.join(joined)
    marks = (sum(map(len, rows)) - len(rows), len(rows) - 1, numbers * len(rows), numbers * len(rows))
    if tuple(map(text.count, _MARKS)) != marks or len(max(joined, key=len)) > CELL_MAX:
        text = _ROW.join(_CELL.join(map(_cleaned, row)) for row in rows)
    xml = text.encode("utf-8", "replace").translate(None, _UNWRITABLE)
    for sign, written in _ESCAPES:
        xml = xml.replace(sign, written)
    xml = _OPEN + xml + _CLOSE
    for sign, written in _SHAPES:
        xml = xml.replace(sign, written)
    return b"<row>" + xml + b"</row>"


def _cleaned(cell: str) -> str:
    return cell if isinstance(cell, Number) else cell.translate(_OWN)[:CELL_MAX]


def _frame(sheets: int) -> Iterator[tuple[str, str]]:
    """The parts that make a workbook of so many sheets."""
    each = [(n, f"rId{n}", f"worksheets/sheet{n}.xml") for n in range(1, sheets + 1)]
    relations = f'<Relationships xmlns="{_PACKAGE}/relationships">'
    sheet_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"
    yield (
        "xl/workbook.xml",
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        + "".join(f'<sheet name="{n}" sheetId="{n}" r:id="{relation}"/>' for n, relation, _ in each)
        + "</sheets></workbook>",
    )
    yield (
        "xl/_rels/workbook.xml.rels",
        relations
        + "".join(f'<Relationship Id="{r}" Type="{_OFFICE}/worksheet" Target="{path}"/>' for _, r, path in each)
        + "</Relationships>",
    )
    yield (
        "_rels/.rels",
        f'{relations}<Relationship Id="r" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    )
    yield (
        "[Content_Types].xml",
        f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml"'
        ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
        + "".join(f'<Override PartName="/xl/{path}" ContentType="{sheet_type}"/>' for *_, path in each)
        + "</Types>",
    )
