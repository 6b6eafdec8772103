"""The marks of a WhatsApp text as a phone shows them: *bold*, _italic_, ~struck~, ```fixed```, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# A mark stands at the edge of a word and holds something that neither begins nor ends with a space.
_EDGES = r"(?<![\w{0}]){0}(?=[^\s{0}])(?P<{1}>[^{0}\n]*?[^\s{0}]){0}(?![\w{0}])"
_FIXED = r"```(?=\S)(?P<fixed>[^\n]+?)(?<=\S)```"
_MARK = re.compile(
    "|".join((_FIXED, *(_EDGES.format(*of) for of in ((r"\*", "bold"), ("_", "italic"), ("~", "struck")))))
)


class Piece(NamedTuple):
    """A run of text, and its marks: bold, italic, struck, fixed."""

    text: str
    marks: tuple[str, ...]


def chat(text: str, marks: tuple[str, ...] = ()) -> Iterator[Piece]:
    """The text in pieces, without the signs that mark them."""
    at = 0
    for found in _MARK.finditer(text):
        name = str(found.lastgroup)
        if found.start() > at:
            yield Piece(text[at : found.start()], marks)
        if name == "fixed":
            yield Piece(found[name], (*marks, name))
        else:
            yield from chat(found[name], (*marks, name))
        at = found.end()
    if at < len(text):
        yield Piece(text[at:], marks)
