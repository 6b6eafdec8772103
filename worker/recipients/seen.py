"""Which numbers a run already has, and where each of them stands first."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

_BITS = 6  # numbers of one block are told apart by looking at them, at most 64
_REST = (1 << _BITS) - 1
# A dict that grows is in memory twice for that moment, so there are several, each of which grows by itself.
_PARTS = 17


class Place(NamedTuple):
    """A row of a file; `file` is None for the one that is being read."""

    file: int | None
    line: int


class Seen:
    """Numbers in the order in which they were met, a million of them in the memory of a set: 75 bytes each.

    What a number maps to is its block, one object for all numbers of the block; a line of its own for each would
    be a third more.
    """

    def __init__(self) -> None:
        self._parts: tuple[dict[int, int], ...] = tuple({} for _ in range(_PARTS))  # number → its block
        self._block = 0
        self._numbers = array("Q")
        self._lines = array("I")
        self._starts: list[int] = []  # where the numbers of a file begin
        self._files: list[int | None] = []

    def begin(self, file: int | None) -> None:
        """What is added from here on stands in that file."""
        self._starts.append(len(self._numbers))
        self._files.append(file)

    def __contains__(self, number: int) -> bool:
        return number in self._parts[number % _PARTS]

    def add(self, number: int, line: int) -> bool:
        """Note where a number stands; False when it stands somewhere already."""
        part = self._parts[number % _PARTS]
        if number in part:
            return False
        numbers = self._numbers
        if not len(numbers) & _REST:
            self._block = len(numbers) >> _BITS
        part[number] = self._block
        numbers.append(number)
        self._lines.append(line)
        return True

    def extend(self, of_file: int, rows: Iterable[tuple[int, int]]) -> None:
        """Note where the numbers of another file stand: (number, line)."""
        self.begin(of_file)
        for number, line in rows:
            self.add(number, line)

    def first(self, number: int) -> Place:
        """Where a number stands first. Raises KeyError when it is not in it."""
        begin = self._parts[number % _PARTS][number] << _BITS
        at = self._numbers.index(number, begin, begin + _REST + 1)
        return Place(self._files[bisect_right(self._starts, at) - 1], self._lines[at])
