"""Judges, which score completions: here the rules, which use the true middle; `llm` has a language model as judge.

A judge maps a hole and its candidates to one verdict each, or to None if its answer is unusable; then the hole is
skipped.
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
    """What is wrong with the completion, in words that can follow "rejected: "."""


Judge = Callable[[Mapping[str, Any], Sequence[Candidate]], list[Verdict] | None]
"""A function from a row of `examples.SCHEMA` and its candidates to verdicts in the same order."""

FACTORS: Final[Mapping[str, float]] = {
    "empty": 0.0,
    "stub": 0.2,
    "does not parse": 0.4,
    "repeats itself": 0.5,
    "repeats the suffix": 0.5,
    "does not stop": 0.6,
    "verbose": 0.7,
}
"""Factor of the score for each defect. The paper names stubs and verbosity; the values are ours."""

STUB: Final = re.compile(
    r"(pass|\.\.\.|return|return (None|null|nil|undefined|false|true|0|\"\"|'')"
    r"|raise NotImplementedError(\(.*\))?|throw new \w*(NotImplemented|UnsupportedOperation|Error)\w*\(.*\)"
    r"|TODO\(.*\)|(todo|unimplemented)!\(.*\)|panic\(.*not implemented.*\)|[{}]*);?"
)
"""A placeholder line, which does no work, in the languages with a grammar."""
COMMENT: Final = re.compile(r"(//|/\*|\*/|(#|\*)(\s|$)).*")
"""A comment line; `#include`, `#[derive]` and `*pointer = 0` are not comments."""
OPEN_TASK: Final = re.compile(r"\b(TODO|FIXME|XXX)\b")


def rules(hole: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Verdict]:
    """Return verdicts by rule: the mean of edit similarity and KK, multiplied by a factor for each defect."""
    return [_by_rules(hole, candidate) for candidate in candidates]


def _by_rules(hole: Mapping[str, Any], candidate: Candidate) -> Verdict:
    text, middle = candidate.text, hole["middle"]
    checks = {
        "empty": not text.strip(),
        "stub": is_stub(text) and not is_stub(middle),
        "does not parse": not fits(hole, text),
        "repeats itself": repetitions(text) > max(2, repetitions(middle)),
        "repeats the suffix": metrics.suffix_echo(text, middle, hole["suffix"]) > 0,
        "does not stop": not candidate.finished,
        "verbose": is_verbose(text, middle),
    }
    defects = tuple(name for name, is_there in checks.items() if is_there)
    score = (metrics.edit_similarity(text, middle) + metrics.kk(text, middle)) / 2
    for name in defects:
        score *= FACTORS[name]
    return Verdict(score=score, defects=defects)


def is_stub(text: str) -> bool:
    """Return whether the code is a stub: only placeholder lines and comments, or a comment with an open task."""
    if OPEN_TASK.search(text):
        return True
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    return bool(lines) and all(STUB.fullmatch(line) or COMMENT.fullmatch(line) for line in lines)


def fits(hole: Mapping[str, Any], text: str) -> bool:
    """Return whether the file parses with `text` in the hole; also true if it does not parse with the true middle."""
    if hole["language"] not in syntax.LANGUAGES:
        return True
    before, after = hole["prefix"], hole["suffix"]
    return is_sound(before + text + after, hole["language"]) or not is_sound(
        before + hole["middle"] + after, hole["language"]
    )


def repetitions(text: str) -> int:
    """Return the length of the longest run of equal lines, without blank lines."""
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    longest = run = 0
    before = ""
    for line in lines:
        run = run + 1 if line == before else 1
        longest, before = max(longest, run), line
    return longest


def is_verbose(text: str, middle: str) -> bool:
    """Return whether `text` has more than twice the characters of the true middle plus a line's worth (40)."""
    return len(text.strip()) > 2 * len(middle.strip()) + 40
