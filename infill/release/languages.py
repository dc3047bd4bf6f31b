"""The winner against the champion in each language: a model that gains on average may lose in one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infill.evaluate.statistics import Comparison, compare, holm

LEVEL: Final = 0.05
"""Probability at most of finding a loss in any language where there is none."""


@dataclass(frozen=True, kw_only=True)
class LanguageComparison:
    """The winner minus the champion on the holes of one language."""

    comparison: Comparison
    p: float
    """p-value of McNemar's test for a share, else of Wilcoxon's, corrected by Holm for the number of languages."""
    worse: bool
    """Whether the loss exceeds what is tolerated and chance does not explain it."""


def compare_languages(
    metric: str,
    languages: Mapping[str, str],
    winner: Mapping[str, float],
    champion: Mapping[str, float],
    *,
    minimum: int,
    tolerated: float,
    resamples: int,
    seed: int,
) -> dict[str, LanguageComparison]:
    """Return the comparison in each language with at least `minimum` holes (0: in none), by language.

    `languages` has the language of each hole, `winner` and `champion` its values of `metric`, all by the hole's id.
    A mean difference down to minus `tolerated` is not worse.
    """
    chosen = {
        language: compare(
            metric, [winner[hole] for hole in holes], [champion[hole] for hole in holes], resamples=resamples, seed=seed
        )
        for language, holes in _holes(languages).items()
        if 0 < minimum <= len(holes)
    }
    corrected = holm([each.wilcoxon if each.mcnemar is None else each.mcnemar for each in chosen.values()])
    return {
        language: LanguageComparison(comparison=comparison, p=p, worse=comparison.value < -tolerated and p < LEVEL)
        for (language, comparison), p in zip(chosen.items(), corrected, strict=True)
    }


def _holes(languages: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the ids of the holes of each language, both in alphabetical order."""
    holes: dict[str, list[str]] = {language: [] for language in sorted(set(languages.values()))}
    for hole in sorted(languages):
        holes[languages[hole]].append(hole)
    return holes


def sentences(metric: str, compared: Mapping[str, LanguageComparison], minimum: int) -> list[str]:
    """Return what the comparison says: a sentence for each language that lost, or one that none did."""
    if not minimum:
        return []
    if not compared:
        return [f"No language has {minimum} holes, so none was compared with the champion on its own."]
    losses = [_loss(metric, language, each, len(compared)) for language, each in compared.items() if each.worse]
    return losses or [f"No language lost more than chance explains ({', '.join(compared)})."]


def _loss(metric: str, language: str, each: LanguageComparison, number: int) -> str:
    difference = each.comparison
    return (
        f"In {language}, {metric} falls by {-difference.value:.4f} (95 % interval of the change {difference.low:+.4f}"
        f" to {difference.high:+.4f}) on {difference.holes} holes, which chance does not explain (p = {each.p:.2g},"
        f" corrected for {number} language{'s' * (number > 1)})."
    )
