"""Agreement of metrics with functional correctness: the area under the ROC curve (AUC).

The AUC of a metric is the probability that a completion that passes its task's tests has a higher value than one that
fails, ties counting half (Mann and Whitney 1947): 0.5 says nothing about correctness, 1 decides it, and below 0.5 a
high value speaks against it.
"""

from collections.abc import Mapping, Sequence

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
