"""Sizes, names and last characters of files by their numbers, which rule out most files without a loop in Python."""

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_END: Final = re.compile(r"[^/\\]*$")
_DOTS: Final = re.compile(r"(?:^|[/\\])\.{0,2}$")
_ODD: Final = 0
"""The name of a path that may be another spelling of any name, and the ending of a text that may have any."""
_MARKS: Final = bytes(range(0x21, 0x7F))
"""The characters that an ending consists of: copies of a file may differ in the others."""
_NO_MARKS: Final = bytes(set(range(256)) - set(_MARKS))
_LAST_BYTES: Final = 256
_LAST_MARKS: Final = 48
_FEW: Final = 64
"""Files with an ending that are compared one by one."""
_NONE: Final = -1
"""The size of a number without a file."""


def _name(path: str) -> int:
    """Return a number for the last part of a path, equal for equal names, and not that of odd paths."""
    match = _END.search(path)
    return hash(match[0] if match else "") or 1


def _ending(data: bytes) -> int:
    """Return a number for the last characters of a text, equal for copies of it, if both have enough of them."""
    marks = data.rstrip()[-_LAST_BYTES:].translate(None, _NO_MARKS)
    return (hash(marks[-_LAST_MARKS:]) or 1) if len(marks) >= _LAST_MARKS else _ODD


class Signatures:
    """Size, name and ending of each file."""

    def __init__(self) -> None:
        self._sizes = np.full(0, _NONE, np.int64)
        self._names = np.zeros(0, np.int64)
        self._endings = np.zeros(0, np.int64)
        self._last: tuple[int, list[tuple[int, int]]] | None = None
        """The ending of the last call of `alike`, and number and size of the files that it left; None since a change.

        Between two keystrokes neither the files change nor the end of the one at the caret."""

    @property
    def memory(self) -> int:
        """The bytes of the arrays."""
        return self._sizes.nbytes + self._names.nbytes + self._endings.nbytes

    def put(self, number: int, path: str, data: bytes) -> None:
        """Note the path and the text of a file."""
        if number >= len(self._sizes):
            more = max(64, number + 1 - len(self._sizes), len(self._sizes) // 4)
            self._sizes = np.append(self._sizes, np.full(more, _NONE, np.int64))
            self._names = np.append(self._names, np.zeros(more, np.int64))
            self._endings = np.append(self._endings, np.zeros(more, np.int64))
        self._last = None
        odd = "%" in path or not path.isascii() or _DOTS.search(path)
        self._sizes[number], self._names[number] = len(data), _ODD if odd else _name(path)
        self._endings[number] = _ending(data)

    def drop(self, number: int) -> None:
        """Forget a file."""
        self._last = None
        self._sizes[number] = _NONE

    def alike(self, data: bytes, sizes: range) -> list[int]:
        """Return the numbers of all files with a size in the range that may be copies of a text, and of some others."""
        ending = _ending(data)
        if self._last is None or self._last[0] != ending:
            alike = (self._sizes > _NONE) & ((self._endings == ending) | (self._endings == _ODD) | (ending == _ODD))
            same = np.flatnonzero(alike)
            if len(same) > _FEW:
                sized = (self._sizes[same] >= sizes.start) & (self._sizes[same] < sizes.stop)
                numbers: list[int] = same[sized].tolist()
                return numbers
            self._last = ending, [*zip(same.tolist(), self._sizes[same].tolist(), strict=True)]
        return [number for number, size in self._last[1] if size in sizes]

    def named(self, path: str) -> "NDArray[np.int64]":
        """Return the numbers of all files that may be named by `path`, a normalised one, and of some others."""
        return np.flatnonzero((self._sizes > _NONE) & ((self._names == _name(path)) | (self._names == _ODD)))
