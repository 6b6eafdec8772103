"""A text as a QR code (ISO/IEC 18004), drawn by the page itself."""

from __future__ import annotations

from typing import NamedTuple

QUIET = 4  # modules of nothing around the code, without which readers do not find it


class Code(NamedTuple):
    """What an <svg> needs: `box` for its viewBox, `path` with a square for each dark module."""

    box: str
    path: str


def code(text: str) -> Code:
    """The QR code of a text, with 15 % of it to spare for a dirty screen (level M)."""
    import segno  # one page of one person needs it: no reason to hold it in memory from the start

    modules = segno.make(text, error="m", micro=False).matrix
    side = len(modules) + 2 * QUIET
    path = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(modules) for x, dark in enumerate(row) if dark)
    return Code(f"{-QUIET} {-QUIET} {side} {side}", path)
