"""Judges, which score completions: here the rules, which use the true middle; `llm` has a language model as judge.

A judge maps a hole and its candidates to one verdict each, or to None if its answer is unusable; then the hole is
skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import metrics
from infill.preferences.candidates import Candidate
from infill.text import split_lines

GOOD: Final = 0.5
"""Minimum score of a sample that may be chosen; it must also have no defect."""
RULES: Final = "rules"
"""Name of the judge by rules."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    score: float
    """0 (useless) to 1 (as good as what the author wrote)."""
    defects: tuple[str, ...] = ()
    """The completion's fault, in words that can follow "rejected: "."""
    judge: str = RULES
    """The judge: RULES, or the URL of a language model."""
    scores: tuple[float, ...] = ()
    """The scores in each order of the candidates in which a language model judged them; `score` is their mean."""


Judge = Callable[[Mapping[str, Any], Sequence[Candidate]], list[Verdict] | None]
"""A function from a row of `examples.SCHEMA` and its candidates to verdicts in the same order."""

FACTORS: Final[Mapping[str, float]] = {
    "empty": 0.0,
    "stub": 0.2,
    "does not parse": 0.4,
    "repeats itself": 0.5,
    "repeats the suffix": 0.5,
    "unfinished": 0.6,
    "does not stop": 0.6,
    "verbose": 0.7,
}
"""Factor of the score for each defect. The paper names stubs and verbosity; the values are ours."""


def rules(hole: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Verdict]:
    """Return verdicts by rule: the mean of edit similarity and KK, multiplied by a factor for each defect."""
    return [_by_rules(hole, candidate) for candidate in candidates]


def _by_rules(hole: Mapping[str, Any], candidate: Candidate) -> Verdict:
    text, middle = candidate.text, hole["middle"]
    checks = {
        "empty": not text.strip(),
        "stub": metrics.stub(text, middle) > 0,
        "does not parse": not metrics.parses(text, middle, hole["prefix"], hole["suffix"], hole["language"]),
        "repeats itself": repetitions(text) > max(2, repetitions(middle)),
        "repeats the suffix": metrics.suffix_echo(text, middle, hole["suffix"]) > 0,
        "unfinished": candidate.finished
        and metrics.unfinished(text, middle, hole["prefix"], hole["suffix"], hole["language"]) > 0,
        "does not stop": not candidate.finished,
        "verbose": metrics.verbose(text, middle) > 0,
    }
    defects = tuple(name for name, is_there in checks.items() if is_there)
    score = (metrics.edit_similarity(text, middle) + metrics.kk(text, middle)) / 2
    for name in defects:
        score *= FACTORS[name]
    return Verdict(score=score, defects=defects)


def repetitions(text: str) -> int:
    """Return the length of the longest run of equal lines, without blank lines."""
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    longest = run = 0
    before = ""
    for line in lines:
        run = run + 1 if line == before else 1
        longest, before = max(longest, run), line
    return longest
