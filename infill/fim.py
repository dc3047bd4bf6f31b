"""Fill-in-the-middle splits: random spans for pre-training, syntactic holes for fine-tuning.

A hole is a pair of character offsets, so prefix + middle + suffix is the file by construction, whatever its line ends.

The Mellum paper (arXiv 2510.05788) cuts where a person works: its middles are complete segments of at most 700
characters, whose start and end are drawn among four kinds of boundary. Its probabilities are not public; those of
`SplitConfig` are ours. A hole is drawn in four steps: the kinds of its two boundaries, a point in the text, a syntactic
unit round the point, and the boundaries of those kinds in the unit. Where both are "block" the hole is the whole unit,
or a random span snapped to the nearest run of sibling nodes.
"""

import random
import re
import unicodedata
from bisect import bisect
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from infill import syntax

BLOCK: Final = "block"
"""Where a syntactic unit starts or ends: a statement, a function, the body of a block, arguments, an aligned span."""
LINE_START: Final = "line_start"
"""As a start, the first character of a line's code; as an end, the break before the next line, or the next line's
first character where the caret stands in front of that line."""
LINE_MIDDLE: Final = "line_middle"
"""Between two tokens of a line, before or after the space there."""
TOKEN_MIDDLE: Final = "token_middle"
"""Between two characters of a word: the person has typed half of it."""
KINDS: Final = (BLOCK, LINE_START, LINE_MIDDLE, TOKEN_MIDDLE)

ALIGNED: Final = "aligned"
LINE: Final = "line"
UNITS: Final = ("statement", "function", "block", "arguments", ALIGNED, LINE)
"""What a hole is, or what its end was sought in when that is not of kind "block"."""
_BRACKETED: Final = ("block", "arguments")

_ATTEMPTS: Final = 8
"""Points that are tried for one hole."""
_FAILURES: Final = 8
"""Holes that are given up one after another before the text is: it is broken, or has no more to give."""
_REACH: Final = 64
"""Blanks before a token that are looked through."""
_BREAK: Final = re.compile(r"\r\n|\r|\n")
_BLANKS: Final = re.compile(r"[ \t]*")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    start: tuple[tuple[str, float], ...] = (
        (BLOCK, 0.4),
        (LINE_START, 0.2),
        (LINE_MIDDLE, 0.2),
        (TOKEN_MIDDLE, 0.2),
    )
    """Boundary kinds of a hole's start, with their probabilities."""
    end: tuple[tuple[str, float], ...] = (
        (BLOCK, 0.6),
        (LINE_START, 0.25),
        (LINE_MIDDLE, 0.1),
        (TOKEN_MIDDLE, 0.05),
    )
    """Boundary kinds of a hole's end, with their probabilities, drawn independently of the start's."""
    aligned_share: float = 0.5
    """Share of aligned spans among the holes with two "block" boundaries; the others are complete units."""
    before_indent: float = 0.1
    """Probability that a caret at a line start stands before the indentation, as in an editor that does not indent."""
    before_line: float = 0.2
    """Probability that a hole of whole lines takes its last line break too: its caret stands in front of a line."""
    max_middle_chars: int = 700
    """The longest middle (Mellum: 700 characters)."""
    max_file_chars: int = 5_000_000
    """A longer file has no holes: its tree would take about 70 bytes of memory a character."""

    def __post_init__(self) -> None:
        _check_kinds("start", self.start)
        _check_kinds("end", self.end)
        for name in ("aligned_share", "before_indent", "before_line"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"split.{name} must lie between 0 and 1")
        if self.max_middle_chars < 1:
            raise ValueError("split.max_middle_chars must be at least 1")


def _check_kinds(name: str, weights: Sequence[tuple[str, float]]) -> None:
    if any(kind not in KINDS or not 0 <= weight < float("inf") for kind, weight in weights):
        raise ValueError(f"split.{name} must give probabilities to kinds among {', '.join(KINDS)}")
    if not any(weight for _, weight in weights):
        raise ValueError(f"split.{name} needs a probability above 0")


@dataclass(frozen=True)
class Hole:
    start: int
    """Offset of the first character of the middle."""
    end: int
    """Offset behind its last character."""
    kind_start: str
    """Boundary kind of the start, one of KINDS."""
    kind_end: str
    """Boundary kind of the end, one of KINDS."""
    unit: str
    """What the hole is, or lies in: one of UNITS."""


def random_span(text: str, *, seed: int, epoch: int, document: str) -> tuple[int, int]:
    """Start and end of the middle when `text` is cut into three parts at two characters, each drawn uniformly.

    The middle is never only whitespace: where chance finds nothing else, and in a text that is, it is the whole text.
    Deterministic in the text and (seed, epoch, document).
    """
    rng = _generator(seed, epoch, document)
    for _ in range(32):
        start, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        if not _is_blank(text[start:end]):
            return start, end
    return 0, len(text)


def is_sound(text: str, language: str) -> bool:
    """Whether `text` parses without errors. Raises InputError where there is no grammar for the language."""
    return syntax.Source(text, language).sound


def syntactic_holes(
    text: str, language: str, config: SplitConfig, *, seed: int, epoch: int, document: str, n: int
) -> list[Hole]:
    """At most `n` distinct holes in the order in which they were drawn; fewer where the text has no more to give.

    No hole is only whitespace, none lies where the text does not parse, and each starts and ends where a caret can
    stand. Deterministic in the text, the configuration and (seed, epoch, document); a greater `n` only adds holes.
    Raises InputError where there is no grammar for the language.
    """
    if len(text) > config.max_file_chars or _is_blank(text):
        return []
    splitter = _Splitter(syntax.Source(text, language), config, _generator(seed, epoch, document))
    holes: dict[tuple[int, int], Hole] = {}
    failures = 0
    while len(holes) < n and failures < _FAILURES:
        hole = splitter.draw(holes)
        if hole is None:
            failures += 1
        else:
            holes[hole.start, hole.end], failures = hole, 0
    return list(holes.values())


def _generator(seed: int, epoch: int, document: str) -> random.Random:
    return random.Random(f"{seed}/{epoch}/{document}")


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


class _Splitter:
    """Draws holes in one text."""

    def __init__(self, source: syntax.Source, config: SplitConfig, rng: random.Random) -> None:
        self.source, self.text, self.config = source, source.text, config
        self.random = rng.random
        self.starts, self.ends = _cumulated(config.start), _cumulated(config.end)

    def draw(self, taken: Container[tuple[int, int]]) -> Hole | None:
        """A hole whose ends are not in `taken`, or None after some attempts.

        The kinds are drawn once and the point anew at each attempt, so kinds that seldom fit are not drawn less often.
        """
        kind_start, kind_end = self._kind(*self.starts), self._kind(*self.ends)
        for _ in range(_ATTEMPTS):
            point = self._point(0, len(self.text))
            span = None if point is None else self._span(kind_start, kind_end, point)
            if span is not None and span[:2] not in taken and self._fits(*span[:2]):
                start, end, unit = span
                return Hole(start, end, kind_start, kind_end, unit)
        return None

    def _kind(self, kinds: Sequence[str], bounds: Sequence[float]) -> str:
        return kinds[bisect(bounds, self.random() * bounds[-1], hi=len(bounds) - 1)]

    def _point(self, start: int, end: int) -> int | None:
        """A uniformly drawn character of text[start:end] that is no whitespace; None if it was one at each attempt."""
        for _ in range(_ATTEMPTS):
            point = start + int(self.random() * (end - start))
            if not self.text[point].isspace():
                return point
        return None

    def _fits(self, start: int, end: int) -> bool:
        """Whether [start, end) is short enough, not blank, between two places for a caret, and soundly parsed."""
        return (
            0 < end - start <= self.config.max_middle_chars
            and not _is_blank(self.text[start:end])
            and is_caret(self.text, start)
            and is_caret(self.text, end)
            and self.source.is_sound(start, end)
        )

    def _span(self, kind_start: str, kind_end: str, point: int) -> tuple[int, int, str] | None:
        """Start, end and unit of a hole of those kinds near `point`, unchecked; None where there is none."""
        if kind_start == BLOCK:
            is_aligned = kind_end == BLOCK and self.random() < self.config.aligned_share
            found = self._aligned(point) if is_aligned else self._unit(point)
        else:
            caret = self._caret(kind_start, point)
            found = None if caret is None else self._rest(caret, kind_end)
        if found is None or kind_end == BLOCK:
            return found
        start, limit, unit = found
        near = self._point(start, limit)
        end = None if near is None else self._end(kind_end, start, near)
        return None if end is None else (start, end, unit)

    def _aligned(self, point: int) -> tuple[int, int, str] | None:
        """A random span from `point` on, snapped to sibling nodes; short spans are drawn more often than long ones."""
        longest = self.config.max_middle_chars
        length = 1 + int(longest * self.random() * self.random())
        span = self.source.snap(point, min(point + length, len(self.text)), longest)
        return None if span is None else (*self.source.stripped(*span), ALIGNED)

    def _unit(self, point: int, caret: int | None = None) -> tuple[int, int, str] | None:
        """Start, end and role of one of the units that hold `point` and, counted from `caret` if given, are short."""
        units = self.source.units(point, caret, self.config.max_middle_chars + len("{}"))
        if not units:
            return None
        start, end, role = units[int(self.random() * len(units))]
        strip = self.source.interior if role in _BRACKETED else self.source.stripped
        start, end = strip(start, end)
        return (start, end, role) if caret is None or start <= point < end else None

    def _rest(self, caret: int, kind_end: str) -> tuple[int, int, str] | None:
        """`caret`, and the end and the role of a unit that holds the code behind it, or else of its line."""
        unit = self._unit(_after_blanks(self.text, caret), caret)
        if unit is not None:
            return caret, *unit[1:]
        limit = caret + self.config.max_middle_chars
        found = _BREAK.search(self.text, caret, limit)
        line_end = found.start() if found else min(limit, len(self.text))
        return None if kind_end == BLOCK or line_end == caret else (caret, line_end, LINE)

    def _caret(self, kind: str, point: int) -> int | None:
        """A start of that kind at `point`: of its line, before its token, or inside its token."""
        if kind != LINE_START:
            return self._in_line(kind, point)
        line = _line(self.text, point, self.config.max_middle_chars)
        if line is None or self.random() < self.config.before_indent:
            return line
        return _after_blanks(self.text, line)

    def _end(self, kind: str, start: int, point: int) -> int | None:
        """An end of that kind at `point` of a hole from `start` on."""
        if kind != LINE_START:
            return self._in_line(kind, point)
        longest = self.config.max_middle_chars
        line = _line(self.text, start, longest)
        found = _BREAK.search(self.text, point, start + longest + 1)
        if found is None:
            return start + len(self.text[start:].rstrip()) if start + longest >= len(self.text) else None
        if line is not None and not self.text[line:start].strip() and self.random() < self.config.before_line:
            return found.end() if start == line else _after_blanks(self.text, found.end())
        return start + len(self.text[start : found.start()].rstrip())

    def _in_line(self, kind: str, point: int) -> int | None:
        """A caret inside the word at `point` (TOKEN_MIDDLE), or between the token there and the one before it."""
        text, is_word = self.text, syntax.is_word
        if kind == TOKEN_MIDDLE:
            cut = point if point and is_word(text[point - 1]) else point + 1
            return cut if is_word(text[point]) and cut < len(text) and is_word(text[cut]) else None
        start, _ = self.source.token(point)
        gap = start
        while gap > max(0, start - _REACH) and text[gap - 1] in " \t":
            gap -= 1
        if gap == 0 or text[gap - 1] in "\r\n":
            return None
        return gap if self.random() < 0.5 else start


def _cumulated(weights: Sequence[tuple[str, float]]) -> tuple[list[str], list[float]]:
    """The keys, and the sums of their weights up to each."""
    return [key for key, _ in weights], list(accumulate(weight for _, weight in weights))


def _line(text: str, offset: int, reach: int) -> int | None:
    """The first character of the line that `offset` is in; None where it is more than `reach` characters away."""
    first = max(0, offset - reach)
    line = max(text.rfind("\n", first, offset), text.rfind("\r", first, offset)) + 1
    return line if line or not first else None


def _after_blanks(text: str, offset: int) -> int:
    """The first character at or behind `offset` that is neither a space nor a tab."""
    found = _BLANKS.match(text, offset)
    return found.end() if found else offset


def is_caret(text: str, offset: int) -> bool:
    """Whether an editor can put its caret there: not inside a line break, a composed character or a joined emoji."""
    if offset == len(text):
        return True
    after, before = text[offset], text[offset - 1 : offset]
    if after < "\u0300":
        return not (before == "\r" and after == "\n")
    skin_tone = "\U0001f3fb" <= after <= "\U0001f3ff"
    return not skin_tone and before != "\u200d" and unicodedata.category(after) not in {"Mn", "Mc", "Me", "Cf"}
