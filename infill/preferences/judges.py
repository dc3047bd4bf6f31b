"""Who says how good a completion is: here the rules, which know the true middle; `llm` has a language model as judge.

A judge maps a hole and its candidates to one verdict each, or to None when its answer is of no use: that costs the
hole.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import metrics, syntax
from infill.fim import is_sound
from infill.preferences.candidates import Candidate
from infill.text import split_lines


@dataclass(frozen=True, kw_only=True)
class Verdict:
    score: float
    """0 (useless) to 1 (as good as what the author wrote)."""
    defects: tuple[str, ...] = ()
    """What is wrong with it, in words that follow "rejected: "."""


Judge = Callable[[Mapping[str, Any], Sequence[Candidate]], list[Verdict] | None]
"""(row of `examples.SCHEMA`, candidates) -> verdicts in the same order."""

FACTORS: Final[Mapping[str, float]] = {
    "empty": 0.0,
    "stub": 0.2,
    "does not parse": 0.4,
    "repeats itself": 0.5,
    "repeats the suffix": 0.5,
    "does not stop": 0.6,
    "verbose": 0.7,
}
"""Defect -> what is left of the score. The paper names stubs and verbosity; the values are ours."""

STUB: Final = re.compile(
    r"(pass|\.\.\.|return|return (None|null|nil|undefined|false|true|0|\"\"|'')"
    r"|raise NotImplementedError(\(.*\))?|throw new \w*(NotImplemented|UnsupportedOperation|Error)\w*\(.*\)"
    r"|TODO\(.*\)|(todo|unimplemented)!\(.*\)|panic\(.*not implemented.*\)|[{}]*);?"
)
"""A line that fills a place without doing its work, in the languages with a grammar."""
COMMENT: Final = re.compile(r"(//|/\*|\*/|(#|\*)(\s|$)).*")
"""A line of comment. `#include`, `#[derive]` and `*pointer = 0` are none."""
OPEN_TASK: Final = re.compile(r"\b(TODO|FIXME|XXX)\b")


def rules(hole: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Verdict]:
    """Closeness to the true middle (mean of edit similarity and KK), reduced by a factor for each defect."""
    return [_by_rules(hole, candidate) for candidate in candidates]


def _by_rules(hole: Mapping[str, Any], candidate: Candidate) -> Verdict:
    text, middle = candidate.text, hole["middle"]
    found = {
        "empty": not text.strip(),
        "stub": is_stub(text) and not is_stub(middle),
        "does not parse": not fits(hole, text),
        "repeats itself": repetitions(text) > max(2, repetitions(middle)),
        "repeats the suffix": metrics.suffix_echo(text, middle, hole["suffix"]) > 0,
        "does not stop": not candidate.finished,
        "verbose": is_verbose(text, middle),
    }
    defects = tuple(name for name, is_there in found.items() if is_there)
    score = (metrics.edit_similarity(text, middle) + metrics.kk(text, middle)) / 2
    for name in defects:
        score *= FACTORS[name]
    return Verdict(score=score, defects=defects)


def is_stub(text: str) -> bool:
    """Whether the code does nothing: only placeholder lines and comments, or a comment that leaves the work open."""
    if OPEN_TASK.search(text):
        return True
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    return bool(lines) and all(STUB.fullmatch(line) or COMMENT.fullmatch(line) for line in lines)


def fits(hole: Mapping[str, Any], text: str) -> bool:
    """Whether the file parses with `text` in the hole; True where it does not parse with the true middle either."""
    if hole["language"] not in syntax.LANGUAGES:
        return True
    before, after = hole["prefix"], hole["suffix"]
    return is_sound(before + text + after, hole["language"]) or not is_sound(
        before + hole["middle"] + after, hole["language"]
    )


def repetitions(text: str) -> int:
    """The longest run of equal lines, blank ones left out."""
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    longest = run = 0
    before = ""
    for line in lines:
        run = run + 1 if line == before else 1
        longest, before = max(longest, run), line
    return longest


def is_verbose(text: str, middle: str) -> bool:
    """More than twice the characters of the true middle and at least a line's worth (40) more."""
    return len(text.strip()) > 2 * len(middle.strip()) + 40
