"""Encoding, with a cache, of long texts that change little from one prompt to the next."""

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

from infill.prompt import Encode

_JOINT: Final = re.compile(r"[A-Za-z](?=[ \n])")
_PROBE: Final = (
    "class Probe:\n    def run(self, items: list[int]) -> None:\n\n\n        for item in items :\n"
    "            if not (item %  2 or  item):   # it's odd\n"
    "                print ( f'{item} of {len(items)}' )\n\treturn\n"
    "The end \n\n  of it; don't \r\n  stop  now\r\n"
)

Cut = Callable[[str], Iterator[str]]
Piece = Callable[[str], "array[int]"]

_REMEMBERED: Final = 32_768
"""Number of most recently used pieces that are cached per tokenizer: about 20 MB, the code of 2 MB of files."""
_TEXTS: Final = 1_024
"""Number of texts that are cached for a tokenizer that cannot work on pieces."""
_EVERY: Final = 4
"""A line is cut if its length is a multiple of this."""
_CUT: Final = 4_096
"""Number of most recently used texts whose pieces are remembered: about 10 MB."""


@dataclass(slots=True)
class CutText:
    """The pieces of a text."""

    pieces: tuple[str, ...]
    size: int | None = None
    """Number of their tokens; None if it was never counted."""


class Memo:
    """An `Encode` for the texts of one prompt, most of which earlier prompts had too.

    A text is cut after a letter that is followed by a blank or a line feed, at most once per line. Byte-level BPE never
    merges across such a place: its patterns end every word of letters there and look no further back. The end of a
    piece depends only on its own line, so a change of the text does not affect the other pieces. For a tokenizer
    without this property, whole texts are encoded. The returned lists are shared and must not be changed.
    """

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self._cut, self._piece = _remembering(encode)
        self._texts: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of `text`, as `encode(text)` gives them."""
        ids = self._texts.get(text)
        if ids is None:
            self._texts[text] = ids = []
            for each in self._cut(text):
                ids.extend(self._piece(each))
        return ids

    def count(self, text: str, most: float, *, again: bool = False) -> int:
        """Return the number of tokens of `text`; if that is above `most`, then any number above it.

        Pieces are counted from the end, as many as decide it. Those of a text that comes `again` are remembered.
        """
        ids = self._texts.get(text)
        if ids is not None:
            return len(ids)
        cut = _cut_again(self._cut, text, self._piece) if again else CutText(tuple(self._cut(text)))
        if cut.size is None:
            count = 0
            for each in reversed(cut.pieces):
                count += len(self._piece(each))
                if count > most:
                    return count
            cut.size = count
        return cut.size

    def ends(self, text: str) -> "Callable[[int], int]":
        """Return a function that gives the number of tokens of `text[start:]`."""
        return _EndSizes(text, self._piece, joints=self._cut is _pieces).size

    def beginnings(self, text: str) -> "Callable[[int], int]":
        """Return a function that gives the number of tokens of `text[:end]`."""
        return _BeginningSizes(text, self._piece, joints=self._cut is _pieces).size


class _EndSizes:
    """The sums of the tokens of a text's pieces from its end, as far as they were asked for."""

    def __init__(self, text: str, piece: Piece, *, joints: bool) -> None:
        self._text, self._piece = text, piece
        self._cuts, self._sizes = [-len(text)], [0]
        """Places of the cuts, the last first and negative, so that they ascend; tokens from each to the end."""
        self._line = len(text) if joints else 0
        """Start of the first line that was searched for a joint."""

    def size(self, start: int) -> int:
        while self._line > start:
            self._search(start)
        number = bisect_right(self._cuts, -start) - 1
        return self._sizes[number] + len(self._piece(self._text[start : -self._cuts[number]]))

    def _search(self, start: int) -> None:
        """Cut the line before the first that was searched, but not before `start`, where the text may be huge."""
        end, self._line = self._line, self._text.rfind("\n", 0, self._line - 1) + 1
        if len(self._cuts) > 1 and (end - self._line) % _EVERY:
            return
        joint = _JOINT.search(self._text, max(self._line, start), end)
        if joint is not None:
            size = self._sizes[-1] + len(self._piece(self._text[joint.end() : -self._cuts[-1]]))
            self._cuts.append(-joint.end())
            self._sizes.append(size)


class _BeginningSizes:
    """The sums of the tokens of a text's pieces from its beginning, as far as they were asked for."""

    def __init__(self, text: str, piece: Piece, *, joints: bool) -> None:
        self._text, self._piece = text, piece
        self._cuts, self._sizes = [0], [0]
        """Places of the cuts, and the tokens before each."""
        self._line = 0 if joints else len(text)
        """End of the last line that was searched for a joint."""

    def size(self, end: int) -> int:
        while self._line < end:
            self._search()
        number = bisect_right(self._cuts, end) - 1
        return self._sizes[number] + len(self._piece(self._text[self._cuts[number] : end]))

    def _search(self) -> None:
        begin, self._line = self._line, self._text.find("\n", self._line) + 1 or len(self._text)
        joint = _JOINT.search(self._text, begin, self._line) if (self._line - begin) % _EVERY == 0 else None
        if joint is not None:
            size = self._sizes[-1] + len(self._piece(self._text[self._cuts[-1] : joint.end()]))
            self._cuts.append(joint.end())
            self._sizes.append(size)


@lru_cache(maxsize=4)
def _remembering(encode: Encode) -> tuple[Cut, Piece]:
    """Return a function that cuts a text into pieces, and one that encodes pieces and remembers them."""
    cut, most = (_pieces, _REMEMBERED) if _can_be_cut(encode) else (_whole, _TEXTS)
    return cut, lru_cache(maxsize=most)(lambda text: array("i", encode(text)))


@lru_cache(maxsize=_CUT)
def _cut_again(cut: Cut, text: str, piece: Callable[[str], Any]) -> CutText:  # noqa: ARG001 (another tokenizer's sizes differ)
    """Return the pieces of a text, remembered with their number of tokens."""
    return CutText(tuple(cut(text)))


def _whole(text: str) -> Iterator[str]:
    yield text


def _pieces(text: str) -> Iterator[str]:
    """Yield pieces of about four lines: a line whose length is a multiple of four is cut at its first joint.

    The last line that has a joint is cut there whatever its length, since the user types after it.
    """
    last, joint = len(text), None
    while last and joint is None:
        end, last = last, text.rfind("\n", 0, last - 1) + 1
        joint = _JOINT.search(text, last, end)
    start = begin = 0
    while begin < last:
        end = text.find("\n", begin) + 1
        if (end - begin) % _EVERY == 0:
            place = _JOINT.search(text, begin, end)
            if place is not None:
                yield text[start : place.end()]
                start = place.end()
        begin = end
    if joint is not None:
        yield text[start : joint.end()]
        start = joint.end()
    if start < len(text):
        yield text[start:]


@lru_cache(maxsize=8)
def _can_be_cut(encode: Encode) -> bool:
    """Return whether `encode` treats joints as ends of words, tested on a text with many joints."""
    joints = [0, *(match.end() for match in _JOINT.finditer(_PROBE)), len(_PROBE)]
    pieces = [_PROBE[start:end] for start, end in pairwise(joints)]
    return [token for piece in pieces for token in encode(piece)] == encode(_PROBE)
