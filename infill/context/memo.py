"""Encode a long text that changes little from one time to the next."""

import re
from collections.abc import Iterator
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


_REMEMBERED: Final = 8_192
"""Pieces and chunks, the latest used, of all prompts with the same tokenizer: some 10 MB."""


class Memo:
    """An `Encode` for the texts of one prompt, most of which the prompts before had too.

    A text is cut behind letters that a blank or a line feed follows, at most once a line. Byte-level BPE never merges
    across such a place: the patterns that cut a text into words end every word of letters there and look no further
    back. Where each piece ends depends on its own line only, so a change of the text leaves the other pieces as they
    are. A tokenizer that does not obey encodes whole texts. The lists that come back are shared: not to be changed.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = _remembering(encode)
        self._cuts = _can_be_cut(encode)
        self._texts: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """What `encode(text)` gives."""
        found = self._texts.get(text)
        if found is None:
            pieces = _pieces(text) if self._cuts else (text,)
            self._texts[text] = found = [token for piece in pieces for token in self._encode(piece)]
        return found

    def chunk(self, text: str) -> list[int]:
        """The same for a text that comes again as a whole or not at all."""
        self._texts[text] = found = self._encode(text)
        return found


@lru_cache(maxsize=4)
def _remembering(encode: Encode) -> Encode:
    return lru_cache(maxsize=_REMEMBERED)(encode)


def _pieces(text: str) -> Iterator[str]:
    """Pieces of about four lines: a line whose length is a multiple of four is cut at its first joint."""
    start = begin = 0
    while begin < len(text):
        end = text.find("\n", begin) + 1 or len(text)
        if (end - begin) % 4 == 0:
            joint = _JOINT.search(text, begin, end)
            if joint is not None:
                yield text[start : joint.end()]
                start = joint.end()
        begin = end
    if start < len(text):
        yield text[start:]


@lru_cache(maxsize=8)
def _can_be_cut(encode: Encode) -> bool:
    """Whether `encode` treats a joint as the end of a word, tried on a text of many joints."""
    joints = [0, *(match.end() for match in _JOINT.finditer(_PROBE)), len(_PROBE)]
    pieces = [_PROBE[start:end] for start, end in pairwise(joints)]
    return [token for piece in pieces for token in encode(piece)] == encode(_PROBE)
