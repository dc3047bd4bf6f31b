"""Fill-in-the-middle splits: random spans for pre-training, syntactic holes for fine-tuning.

A hole is a pair of character offsets, so prefix + middle + suffix is the file by construction, whatever its line ends.

The Mellum paper (arXiv 2510.05788) cuts where people work: its middles are complete segments of at most 700 characters,
whose start and end are each one of four kinds of boundary. The paper's probabilities are not public; those of
`SplitConfig` are ours. A hole is drawn in four steps: the kinds of its two boundaries, a point in the text, a syntactic
unit around the point, and boundaries of those kinds in the unit. If both kinds are "block", the hole is the whole unit,
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
"""The start or end of a syntactic unit: a statement, a function, the body of a block, arguments, an aligned span."""
LINE_START: Final = "line_start"
"""As a start, the first character of a line's code; as an end, the break before the next line, or the next line's
first character if the caret is in front of a line."""
LINE_MIDDLE: Final = "line_middle"
"""A place between two tokens of a line, before or after the space between them."""
TOKEN_MIDDLE: Final = "token_middle"
"""A place between two characters of a word, of which half is typed."""
KINDS: Final = (BLOCK, LINE_START, LINE_MIDDLE, TOKEN_MIDDLE)

RANDOM: Final = "random"
"""Any place where a caret can be: the kind of both boundaries, and the unit, of a hole that no syntax has a part in."""

ALIGNED: Final = "aligned"
LINE: Final = "line"
UNITS: Final = ("statement", "function", "block", "arguments", ALIGNED, LINE)
"""The unit that a hole is, or that contains its end if the end's kind is not "block"."""
_BRACKETED: Final = ("block", "arguments")

_ATTEMPTS: Final = 8
"""Points that are tried for one hole."""
_FAILURES: Final = 8
"""Holes that fail in a row before the text is given up: it is broken, or has no more holes."""
_REACH: Final = 64
"""Maximum number of blanks before a token that are skipped."""
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
    """Probability that a caret at a line start is before the indentation, as in an editor that does not indent."""
    before_line: float = 0.2
    """Probability that a hole of whole lines includes its last line break: its caret is in front of a line."""
    random_share: float = 0.0
    """Share of the holes between two random characters instead, as in the FIM of arXiv 2207.14255, for comparison."""
    max_middle_chars: int = 700
    """Maximum length of a middle (Mellum: 700 characters)."""
    max_file_chars: int = 5_000_000
    """A longer file gets no holes: its tree would take about 70 bytes of memory per character."""

    def __post_init__(self) -> None:
        _check_kinds("start", self.start)
        _check_kinds("end", self.end)
        for name in ("aligned_share", "before_indent", "before_line", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"split.{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.max_middle_chars < 1:
            raise ValueError(f"split.max_middle_chars must be at least 1, got {self.max_middle_chars}")


def _check_kinds(name: str, weights: Sequence[tuple[str, float]]) -> None:
    if any(kind not in KINDS or not 0 <= weight < float("inf") for kind, weight in weights):
        raise ValueError(f"split.{name} must list probabilities of the kinds {', '.join(KINDS)}")
    if not any(weight for _, weight in weights):
        raise ValueError(f"split.{name} needs at least one probability above 0")


@dataclass(frozen=True)
class Hole:
    start: int
    """Offset of the first character of the middle."""
    end: int
    """Offset after the last character of the middle."""
    kind_start: str
    """Boundary kind of the start, one of KINDS or RANDOM."""
    kind_end: str
    """Boundary kind of the end, one of KINDS or RANDOM."""
    unit: str
    """The unit that the hole is, or is in: one of UNITS or RANDOM."""


def random_span(text: str, *, seed: int, epoch: int, document: str) -> tuple[int, int]:
    """Return start and end of the middle when `text` is cut into three parts at two uniformly drawn offsets.

    A middle of only whitespace is drawn again; after 32 attempts the middle is the whole text. Deterministic in the
    text and (seed, epoch, document).
    """
    rng = _generator(seed, epoch, document)
    for _ in range(32):
        start, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        if not _is_blank(text[start:end]):
            return start, end
    return 0, len(text)


def is_sound(text: str, language: str) -> bool:
    """Return whether `text` parses without errors. Raises InputError for a language without a grammar."""
    return syntax.ParsedSource(text, language).sound


def syntactic_holes(
    text: str, language: str, config: SplitConfig, *, seed: int, epoch: int, document: str, n: int
) -> list[Hole]:
    """Return at most `n` distinct holes in the order in which they were drawn; fewer if the text has no more.

    No hole is only whitespace, none is where the text does not parse, and each starts and ends where a caret can be.
    Deterministic in the text, the configuration and (seed, epoch, document); a larger `n` only adds holes. Raises
    InputError for a language without a grammar.
    """
    if len(text) > config.max_file_chars or _is_blank(text):
        return []
    splitter = _Splitter(syntax.ParsedSource(text, language), config, _generator(seed, epoch, document))
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
    """A source of random holes in one text."""

    def __init__(self, source: syntax.ParsedSource, config: SplitConfig, rng: random.Random) -> None:
        self.source, self.text, self.config = source, source.text, config
        self.random = rng.random
        self.starts, self.ends = _cumulated(config.start), _cumulated(config.end)

    def draw(self, taken: Container[tuple[int, int]]) -> Hole | None:
        """Return a hole whose offsets are not in `taken`, or None after several attempts.

        The kinds are drawn once and the point at each attempt, so kinds that rarely fit are not drawn less often.
        """
        is_random = bool(self.config.random_share) and self.random() < self.config.random_share
        kind_start, kind_end = (RANDOM,) * 2 if is_random else (self._kind(*self.starts), self._kind(*self.ends))
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
        """Return the offset of a random character of text[start:end] that is not whitespace; None if none is drawn."""
        for _ in range(_ATTEMPTS):
            point = start + int(self.random() * (end - start))
            if not self.text[point].isspace():
                return point
        return None

    def _fits(self, start: int, end: int) -> bool:
        """Return whether [start, end) is short enough, not blank, between two caret positions, and soundly parsed."""
        return (
            0 < end - start <= self.config.max_middle_chars
            and not _is_blank(self.text[start:end])
            and is_caret(self.text, start)
            and is_caret(self.text, end)
            and self.source.is_sound(start, end)
        )

    def _span(self, kind_start: str, kind_end: str, point: int) -> tuple[int, int, str] | None:
        """Return start, end and unit of a hole of those kinds near `point`, unchecked; None if there is none."""
        if kind_start == RANDOM:
            length = 1 + int(self.random() * self.config.max_middle_chars)
            return point, min(point + length, len(self.text)), RANDOM
        if kind_start == BLOCK:
            is_aligned = kind_end == BLOCK and self.random() < self.config.aligned_share
            span = self._aligned(point) if is_aligned else self._unit(point)
        else:
            caret = self._caret(kind_start, point)
            span = None if caret is None else self._rest(caret, kind_end)
        if span is None or kind_end == BLOCK:
            return span
        start, limit, unit = span
        near = self._point(start, limit)
        end = None if near is None else self._end(kind_end, start, near)
        return None if end is None else (start, end, unit)

    def _aligned(self, point: int) -> tuple[int, int, str] | None:
        """Return a random span that starts at `point`, snapped to sibling nodes; short spans are more likely."""
        longest = self.config.max_middle_chars
        length = 1 + int(longest * self.random() * self.random())
        span = self.source.snap(point, min(point + length, len(self.text)), longest)
        return None if span is None else (*self.source.stripped(*span), ALIGNED)

    def _unit(self, point: int, caret: int | None = None) -> tuple[int, int, str] | None:
        """Return start, end and role of a random unit that contains `point` and is short enough.

        A `caret` starts the hole: the unit's length is counted from it.
        """
        units = self.source.units(point, caret, self.config.max_middle_chars + len("{}"))
        if not units:
            return None
        start, end, role = units[int(self.random() * len(units))]
        strip = self.source.interior if role in _BRACKETED else self.source.stripped
        start, end = strip(start, end)
        return (start, end, role) if caret is None or start <= point < end else None

    def _rest(self, caret: int, kind_end: str) -> tuple[int, int, str] | None:
        """Return `caret`, and end and role of a unit that contains the code after it, or of the rest of its line."""
        unit = self._unit(_after_blanks(self.text, caret), caret)
        if unit is not None:
            return caret, *unit[1:]
        limit = caret + self.config.max_middle_chars
        line_break = _BREAK.search(self.text, caret, limit)
        line_end = line_break.start() if line_break else min(limit, len(self.text))
        return None if kind_end == BLOCK or line_end == caret else (caret, line_end, LINE)

    def _caret(self, kind: str, point: int) -> int | None:
        """Return a start of that kind near `point`: at its line, before its token, or inside its token."""
        if kind != LINE_START:
            return self._in_line(kind, point)
        line = _line(self.text, point, self.config.max_middle_chars)
        if line is None or self.random() < self.config.before_indent:
            return line
        return _after_blanks(self.text, line)

    def _end(self, kind: str, start: int, point: int) -> int | None:
        """Return an end of that kind near `point` for a hole that begins at `start`; None if there is none."""
        if kind != LINE_START:
            return self._in_line(kind, point)
        longest = self.config.max_middle_chars
        line = _line(self.text, start, longest)
        line_break = _BREAK.search(self.text, point, start + longest + 1)
        if line_break is None:
            return start + len(self.text[start:].rstrip()) if start + longest >= len(self.text) else None
        if line is not None and not self.text[line:start].strip() and self.random() < self.config.before_line:
            return line_break.end() if start == line else _after_blanks(self.text, line_break.end())
        return start + len(self.text[start : line_break.start()].rstrip())

    def _in_line(self, kind: str, point: int) -> int | None:
        """Return a caret inside the word at `point` (TOKEN_MIDDLE), or between its token and the one before.

        None if there is no such place.
        """
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
    """Return the keys, and the cumulated weights."""
    return [key for key, _ in weights], list(accumulate(weight for _, weight in weights))


def _line(text: str, offset: int, reach: int) -> int | None:
    """Return the start of the line that contains `offset`; None if it is more than `reach` characters away."""
    first = max(0, offset - reach)
    line = max(text.rfind("\n", first, offset), text.rfind("\r", first, offset)) + 1
    return line if line or not first else None


def _after_blanks(text: str, offset: int) -> int:
    """Return the offset of the first character from `offset` on that is neither a space nor a tab."""
    blanks = _BLANKS.match(text, offset)
    return blanks.end() if blanks else offset


def is_caret(text: str, offset: int) -> bool:
    """Return whether a caret can be at `offset`: not inside a line break, a composed character or a joined emoji."""
    if offset == len(text):
        return True
    after, before = text[offset], text[offset - 1 : offset]
    if after < "\u0300":
        return not (before == "\r" and after == "\n")
    skin_tone = "\U0001f3fb" <= after <= "\U0001f3ff"
    return not skin_tone and before != "\u200d" and unicodedata.category(after) not in {"Mn", "Mc", "Me", "Cf"}
