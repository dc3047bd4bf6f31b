"""Pairs of a better and a worse completion, made from judged candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import syntax
from infill.fim import is_sound
from infill.metrics import COMMENT
from infill.preferences.candidates import Candidate
from infill.preferences.judges import GOOD, Verdict
from infill.text import last_line, split_lines

LONG_LINES: Final = 4
"""A true middle with more lines also gives a shortened one (the paper shortens "large" ones, by an unknown measure)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    kind: str
    """`sample`: two samples; `truth`: the true middle over a sample; `short`: the shortened true middle over a sample
    that is too long; `history`: what a developer wrote over what the model writes; `stub`, `over`, `echo` and
    `wrong_name`: the true middle over a completion that is made up; `rated`: what people chose;
    others: `feedback.REASONS`."""
    chosen: str
    rejected: str
    rejected_finished: bool
    """Whether the rejected text ended with a stop token rather than at the limit of new tokens."""
    reason: str
    score_chosen: float
    score_rejected: float


def pairs(
    hole: Mapping[str, Any], candidates: Sequence[Candidate], verdicts: Sequence[Verdict], min_margin: float
) -> list[Pair]:
    """Return at most two pairs of a hole: the best over the worst, and the shortened true middle over the longest."""
    judged = sorted(zip(candidates, verdicts, strict=True), key=lambda one: (-one[1].score, one[0].text))
    possible = [_best_over_worst(hole["middle"], judged, min_margin), _short_over_long(hole, judged)]
    return [pair for pair in possible if pair is not None]


def _best_over_worst(middle: str, judged: Sequence[tuple[Candidate, Verdict]], min_margin: float) -> Pair | None:
    """Return the best sample, or the true middle if no sample is good, over the worst sample."""
    (best, praise), (worst, blame) = judged[0], judged[-1]
    if best.text == middle or (praise.score >= GOOD and not praise.defects):
        kind, chosen, score, reason = "sample", best.text, praise.score, "the better of two samples"
    else:
        kind, chosen, score, reason = "truth", middle, 1.0, "all samples are bad, so the true middle is chosen"
    if chosen == worst.text or score - blame.score < min_margin:
        return None
    return Pair(
        kind=kind,
        chosen=chosen,
        rejected=worst.text,
        rejected_finished=worst.finished,
        reason=f"{reason}; rejected: {', '.join(blame.defects) or 'farther from what the author wrote'}",
        score_chosen=score,
        score_rejected=blame.score,
    )


def written_over_sampled(
    hole: Mapping[str, Any], candidates: Sequence[Candidate], verdicts: Sequence[Verdict], min_margin: float
) -> list[Pair]:
    """Return the pair of what a developer wrote over the model's first completion, unless that is nearly as good."""
    candidate, verdict = candidates[0], verdicts[0]
    if candidate.text.strip() == hole["middle"].strip() or 1.0 - verdict.score < min_margin:
        return []
    rejected = ", ".join(verdict.defects) or "farther from what the author wrote"
    return [
        Pair(
            kind="history",
            chosen=hole["middle"],
            rejected=candidate.text,
            rejected_finished=candidate.finished,
            reason=f"a developer wrote it in a commit; rejected: {rejected}",
            score_chosen=1.0,
            score_rejected=verdict.score,
        )
    ]


def _short_over_long(hole: Mapping[str, Any], judged: Sequence[tuple[Candidate, Verdict]]) -> Pair | None:
    """Return the beginning of a long true middle over the longest sample that does not stop in time."""
    too_long = [
        (candidate, verdict)
        for candidate, verdict in judged
        if len(candidate.text) > len(hole["middle"]) and ("verbose" in verdict.defects or not candidate.finished)
    ]
    short = shorten(hole) if too_long else None
    if short is None:
        return None
    longest, blame = max(too_long, key=lambda one: (len(one[0].text), one[0].text))
    return Pair(
        kind="short",
        chosen=short,
        rejected=longest.text,
        rejected_finished=longest.finished,
        reason="the true middle is long, so its beginning up to a syntactic boundary is chosen; rejected: too long",
        score_chosen=1.0,
        score_rejected=blame.score,
    )


def shorten(hole: Mapping[str, Any]) -> str | None:
    """Return the longest beginning of a long true middle, at most half its lines, that ends a statement.

    The file still parses with it, and its last line is neither a comment nor the head of a block. None if the middle is
    not long, there is no such beginning, or the file does not parse.
    """
    lines = split_lines(hole["middle"], keepends=True)
    language = hole["language"]
    if len(lines) <= LONG_LINES or language not in syntax.LANGUAGES:
        return None
    if not is_sound(hole["prefix"] + hole["middle"] + hole["suffix"], language):
        return None
    for count in range(len(lines) // 2, 0, -1):
        text = "".join(lines[:count])
        # The final line break belongs to the suffix, as it did for the whole middle.
        text = text if hole["middle"].endswith(("\n", "\r")) else text.removesuffix("\n").removesuffix("\r")
        last = last_line(text.strip()).strip()
        # Grammars tolerate a head without a body; such an end would be a bad example.
        is_open = not last or last.endswith((":", "{", "(", "[", ",")) or COMMENT.fullmatch(last)
        if not is_open and is_sound(hole["prefix"] + text + hole["suffix"], language):
            return text
    return None


def echo(hole: Mapping[str, Any]) -> Pair:
    """Return the true middle over itself with the suffix's first lines, as a model that does not stop writes it."""
    following = "".join(split_lines(hole["suffix"], keepends=True)[:3])
    return Pair(
        kind="echo",
        chosen=hole["middle"],
        rejected=hole["middle"] + (following if following.strip() else "\n" + hole["middle"]),
        rejected_finished=True,
        reason="the samples are as good as the true middle; rejected: made up, it goes on into the suffix",
        score_chosen=1.0,
        score_rejected=0.0,
    )
