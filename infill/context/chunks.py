"""Overlapping line windows: the unit that is ranked, packed and shown."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Window(NamedTuple):
    """Lines `first` to `last` of a file, counted from 1, both included."""

    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How a file is cut into windows; our choice, the paper only says that they overlap."""

    lines: int = 40
    """Lines of a window."""
    step: int = 20
    """Lines between the starts of two neighbouring windows."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.lines:
            raise ValueError(f"a step of {self.step} lines does not make overlapping windows of {self.lines} lines")


def windows(line_count: int, chunking: Chunking) -> Iterator[Window]:
    """Windows that cover lines 1 to `line_count`; the last one ends with the file, no window lies within another."""
    first = 1
    while first <= line_count:
        last = min(first + chunking.lines - 1, line_count)
        yield Window(first, last)
        if last == line_count:
            return
        first += chunking.step
