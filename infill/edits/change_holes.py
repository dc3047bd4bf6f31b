"""Holes in the lines that a commit added: all of them, one line, the rest of a line, or a syntactic unit."""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from infill import syntax
from infill.edits.changes import CommitChange
from infill.fim import BLOCK, LINE, LINE_MIDDLE, LINE_START, Hole, is_caret

HUNK: Final = "hunk"
"""All lines that were added in one place, two or more."""
REST: Final = "rest_of_line"
"""The part of a line after a token."""
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    HUNK: (LINE_START, LINE_START),
    LINE: (LINE_START, LINE_START),
    REST: (LINE_MIDDLE, LINE_START),
    "arguments": (BLOCK, BLOCK),
    "block": (BLOCK, BLOCK),
    "statement": (BLOCK, BLOCK),
    "function": (BLOCK, BLOCK),
}
"""Unit of a hole -> the kinds of its start and its end."""
MAX_CHARS: Final = 700
"""Maximum length of a middle, as in Mellum and in `fim.SplitConfig`."""
_MIN_WORD_CHARS: Final = 4
_MAX_POINTS: Final = 64
_BRACKETED: Final = ("block", "arguments")
_OPENED: Final = re.compile(r"[({]\s*(?=\S)")
_CODE_LINE: Final = re.compile(r"\S[^\r\n]*")


def holes(change: CommitChange, seed: int) -> list[Hole]:
    """Return at most one hole of each unit, deterministic in the change and `seed`."""
    rng = random.Random(f"{seed}/{change.commit}/{change.path}/{len(change.before)}")
    source = syntax.ParsedSource(change.text, change.language)
    options: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for unit, start, end in _spans(source, len(change.before), len(change.before) + len(change.added)):
        if _fits(source, start, end) and (start, end) not in options[unit]:
            options[unit].append((start, end))
    return [Hole(*rng.choice(spans), *KINDS[unit], unit) for unit, spans in sorted(options.items()) if spans]


def _spans(source: syntax.ParsedSource, first: int, last: int) -> Iterator[tuple[str, int, int]]:
    """Yield unit, start and end of the spans in the added text, [first, last), unchecked."""
    lines = [source.stripped(*match.span()) for match in _CODE_LINE.finditer(source.text, first, last)]
    if len(lines) > 1:
        yield HUNK, lines[0][0], lines[-1][1]
    for start, end in lines[:_MAX_POINTS]:
        yield LINE, start, end
        yield from ((REST, cut, end) for cut in _token_ends(source, start, end))
    brackets = [match.end() for match in _OPENED.finditer(source.text, first, last)]
    for point in [*(start for start, _ in lines[:_MAX_POINTS]), *brackets[:_MAX_POINTS]]:
        for start, end, unit in source.units(point, None, MAX_CHARS + len("{}")):
            if unit in KINDS and start >= first and end <= last:
                yield unit, *(source.interior if unit in _BRACKETED else source.stripped)(start, end)


def _token_ends(source: syntax.ParsedSource, start: int, end: int) -> Iterator[int]:
    """Yield the places after the tokens of a line, without the last."""
    place = start
    while place < end:
        if source.text[place].isspace():
            place += 1
            continue
        place = max(source.token(place)[1], place + 1)
        if place < end:
            yield place


def _fits(source: syntax.ParsedSource, start: int, end: int) -> bool:
    """Return whether a middle is short enough, has words, is between two carets, and is where the file parses."""
    text = source.text
    return (
        0 < end - start <= MAX_CHARS
        and sum(map(str.isalnum, text[start:end])) >= _MIN_WORD_CHARS
        and is_caret(text, start)
        and is_caret(text, end)
        and source.is_sound(start, end)
    )
