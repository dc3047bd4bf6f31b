"""Agreement of metrics with functional correctness, and of two judges with each other.

The first is the area under the ROC curve (AUC).

The AUC of a metric is the probability that a completion that passes its task's tests has a higher value than one that
fails, ties counting half (Mann and Whitney 1947): 0.5 says nothing about correctness, 1 decides it, and below 0.5 a
high value speaks against it. The second asks how often two judges order two completions of the same hole alike.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike


def auc(values: ArrayLike, passed: ArrayLike) -> float:
    """Return the AUC of `values` for the outcomes `passed`; NaN if all tasks passed or all failed."""
    truth = np.asarray(passed, dtype=bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def agreement(
    scores: Mapping[str, Sequence[float]], passed: Sequence[bool], *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return the AUC of each metric over the tasks (`value`, `low`, `high`), with the bootstrap's 95 % interval.

    Resamples in which all tasks passed or failed are left out. Without any other, all three are NaN.
    """
    rng, truth = np.random.default_rng(seed), np.asarray(passed, dtype=bool)
    draws = rng.integers(0, max(len(truth), 1), size=(resamples, len(truth)))
    result = {}
    for name, values in scores.items():
        array = np.asarray(values, dtype=np.float64)
        areas = [auc(array[rows], truth[rows]) for rows in draws]
        usable = [area for area in areas if not np.isnan(area)]
        low, high = np.quantile(usable, [0.025, 0.975]) if usable else (np.nan, np.nan)
        result[name] = {"value": auc(array, truth), "low": float(low), "high": float(high)}
    return result


def concordance(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], *, resamples: int, seed: int
) -> dict[str, float | None]:
    """Return how often two judges order two completions of one group alike, with the bootstrap's 95 % interval.

    A group has the scores of one hole's completions by each judge. A pair that one judge scores alike counts half; a
    pair that both score alike is left out. Resamples are of groups, since the pairs of one depend on each other. The
    result has `value`, `low`, `high` (None without pairs) and the number of `pairs`.
    """
    agree, number = np.array([_pairs(*group) for group in groups], dtype=np.float64).reshape(-1, 2).T
    if not number.sum():
        return {"value": None, "low": None, "high": None, "pairs": 0}
    draws = np.random.default_rng(seed).integers(0, len(number), size=(resamples, len(number)))
    totals = number[draws].sum(axis=1)
    shares = agree[draws].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    value = float(agree.sum() / number.sum())
    return {"value": value, "low": float(low), "high": float(high), "pairs": int(number.sum())}


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Return the number of pairs that are ordered alike, and the number of pairs."""
    agree, number = 0.0, 0
    for one, other in combinations(range(len(first)), 2):
        signs = np.sign(first[one] - first[other]), np.sign(second[one] - second[other])
        if any(signs):
            number += 1
            agree += 0.5 if 0 in signs else float(signs[0] == signs[1])
    return agree, number
