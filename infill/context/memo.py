"""Encoding, with a cache, of long texts that change little from one prompt to the next."""

import re
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

from infill.prompt import Encode

_JOINT: Final = re.compile(r"[A-Za-z](?=[ \n])")
_PROBE: Final = (
    "class Probe:\n    def run(self, items: list[int]) -> None:\n\n\n        for item in items :\n"
    "            if not (item %  2 or  item):   # it's odd\n"
    "                print ( f'{item} of {len(items)}' )\n\treturn\n"
    "The end \n\n  of it; don't \r\n  stop  now\r\n"
)

Cut = Callable[[str], Iterator[str]]

_REMEMBERED: Final = 32_768
"""Number of most recently used pieces that are cached per tokenizer: about 20 MB, the code of 2 MB of files."""
_TEXTS: Final = 1_024
"""Number of texts that are cached for a tokenizer that cannot work on pieces."""
_CUT: Final = 4_096
"""Number of most recently used texts whose pieces are remembered: about 10 MB."""


class Memo:
    """An `Encode` for the texts of one prompt, most of which earlier prompts had too.

    A text is cut after a letter that is followed by a blank or a line feed, at most once per line. Byte-level BPE never
    merges across such a place: its patterns end every word of letters there and look no further back. The end of a
    piece depends only on its own line, so a change of the text does not affect the other pieces. For a tokenizer
    without this property, whole texts are encoded. The returned lists are shared and must not be changed.
    """

    def __init__(self, encode: Encode) -> None:
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
        ids, count = self._texts.get(text), 0
        if ids is not None:
            return len(ids)
        for each in reversed(_cut_again(self._cut, text) if again else [*self._cut(text)]):
            count += len(self._piece(each))
            if count > most:
                break
        return count


@lru_cache(maxsize=4)
def _remembering(encode: Encode) -> "tuple[Cut, Callable[[str], array[int]]]":
    """Return a function that cuts a text into pieces, and one that encodes pieces and remembers them."""
    cut, most = (_pieces, _REMEMBERED) if _can_be_cut(encode) else (_whole, _TEXTS)
    return cut, lru_cache(maxsize=most)(lambda text: array("i", encode(text)))


@lru_cache(maxsize=_CUT)
def _cut_again(cut: Cut, text: str) -> tuple[str, ...]:
    """Return the pieces of a text, remembered."""
    return tuple(cut(text))


def _whole(text: str) -> Iterator[str]:
    yield text


def _pieces(text: str) -> Iterator[str]:
    """Yield pieces of about four lines: a line whose length is a multiple of four is cut at its first joint.

    What follows the last such line is cut again at the first joint of its last line, where the user types.
    """
    start = begin = last = 0
    while begin < len(text):
        last, end = begin, text.find("\n", begin) + 1 or len(text)
        if (end - begin) % 4 == 0:
            joint = _JOINT.search(text, begin, end)
            if joint is not None:
                yield text[start : joint.end()]
                start = joint.end()
        begin = end
    joint = _JOINT.search(text, max(start, last))
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
