"""The position of accepted text while its document changes, and the part of it that is left."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

MAX_COMPARED: Final = 300
"""Characters of two texts that are compared one by one, after their common beginning and end; longer ones by lines."""


@dataclass
class DocumentSpan:
    """A place in a document: the characters from `start` to `end`."""

    start: int
    end: int
    grows: bool = False
    """Whether text inserted at `end` becomes part of the span."""


def difference(old: str, new: str) -> tuple[int, int, int]:
    """Return the part of `old` that `new` replaces, as start and end, and the end of what it is replaced by."""
    start = _common(old, new)
    end = _common(old[start:], new[start:], backwards=True)
    return start, len(old) - end, len(new) - end


def _common(one: str, other: str, *, backwards: bool = False) -> int:
    """Return the length of the common beginning (or end) of two texts, by bisection: slices compare fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if backwards:
            same = one[len(one) - middle : len(one) - low] == other[len(other) - middle : len(other) - low]
        else:
            same = one[low:middle] == other[low:middle]
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def follow(span: DocumentSpan, start: int, end: int, new_end: int) -> None:
    """Move a span through a change that replaced the characters `start` to `end` by text that ends at `new_end`."""
    by = new_end - end
    if span.start == span.end == start == end:
        span.end += by  # text that comes back to an empty place, as by an undo
    elif end < span.start or end == span.start < span.end:
        span.start, span.end = span.start + by, span.end + by
    elif start < span.end or (start == span.end and span.grows):
        span.start, span.end = min(span.start, start), max(span.end, end) + by


def similarity(one: str, other: str) -> float:
    """Return 1 - Levenshtein distance / length of the longer text; 1 for two empty texts."""
    longest = max(len(one), len(other))
    if not longest:
        return 1.0
    start, end, new_end = difference(one, other)
    return 1 - _distance(one[start:end], other[start:new_end]) / longest


def _distance(one: str, other: str) -> int:
    """Return the Levenshtein distance of two texts; of long ones an upper bound, by the lines that they share."""
    if not one or not other:
        return max(len(one), len(other))
    if max(len(one), len(other)) > MAX_COMPARED:
        shared = Counter(one.split("\n")) & Counter(other.split("\n"))
        return max(len(one), len(other)) - sum(len(line) * count for line, count in shared.items())
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        last, row[0] = row[0], number
        for place, letter in enumerate(other, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (char != letter))
    return row[-1]
