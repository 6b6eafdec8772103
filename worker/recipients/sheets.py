"""XLSX as rows of text, when the extra `xlsx` is installed."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterator
from typing import Any

from worker.recipients.decoding import MAX_CELL, FileRefused

UNPACKED_MAX = 200 * 1024 * 1024


def available() -> bool:
    """Whether this installation can read XLSX."""
    return importlib.util.find_spec("python_calamine") is not None


def is_xlsx(data: bytes) -> bool:
    """Whether these bytes are a workbook that can be read here; its unpacked size is capped first."""
    if not data.startswith(b"PK\x03\x04") or not available():
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            size = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError):
        return False
    if size > UNPACKED_MAX:
        raise FileRefused("file_too_large", size=size)
    return any(name.startswith("xl/") for name in names)


def records(data: bytes) -> Iterator[list[str]]:
    """The rows of the first sheet, every cell as text. Raises FileRefused for a broken workbook."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        sheet = CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0)
        rows = sheet.to_python(skip_empty_area=False)
    except (CalamineError, IndexError, ValueError):
        raise FileRefused("file_binary") from None
    for number, row in enumerate(rows, 1):
        cells = [_text(value) for value in row]
        if any(len(cell) > MAX_CELL for cell in cells):
            raise FileRefused("cell_too_large", n=number, c=1)
        yield cells


def _text(value: Any) -> str:
    # A number that a workbook holds as such has all its digits: 79001234567.0 is 79001234567.
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
