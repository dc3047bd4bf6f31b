"""Confidence intervals and paired comparisons. All intervals are for 95 % confidence."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infill.metrics import SHARES

Z: Final = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
Z_POWER: Final = 0.8416212335729143
"""The 80 % quantile of the normal distribution."""
DISAGREE: Final = 0.1
"""Assumed share of holes that only one of two models completes; SFT and DPO models of one base differ on fewer."""
BLOCK: Final = 4_000_000
"""Number of indices that a bootstrap draws at once: 32 MB."""


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the interval of a proportion (Wilson 1927); (0, 1) without observations."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: ArrayLike, *, resamples: int, seed: int) -> tuple[float, float]:
    """Return the percentile interval of the mean over `resamples` resamples; (nan, nan) without values."""
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        return math.nan, math.nan
    means = _resampled_means(sample, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _resampled_means(sample: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, BLOCK // len(sample))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        means[start : start + rows] = sample[rng.integers(0, len(sample), size=(rows, len(sample)))].mean(axis=1)
    return means


def interval(metric: str, values: Sequence[float], *, resamples: int, seed: int) -> dict[str, float]:
    """Return `value` (the mean), `low` and `high`: Wilson's interval for a share, else the bootstrap's."""
    value = float(np.mean(values)) if len(values) else math.nan
    if metric in SHARES:
        low, high = wilson(round(sum(values)), len(values))
    else:
        low, high = bootstrap(values, resamples=resamples, seed=seed)
    return {"value": value, "low": low, "high": high}


def paired_interval(a: ArrayLike, b: ArrayLike, *, resamples: int, seed: int) -> tuple[float, float, float]:
    """Return the mean of a - b over the same holes with its bootstrap interval: (difference, low, high).

    Raises ValueError when the two have different numbers of values, or none.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"a paired comparison needs equal numbers of values, got {len(first)} and {len(second)}")
    difference = first - second
    low, high = bootstrap(difference, resamples=resamples, seed=seed)
    return float(difference.mean()), low, high


def mcnemar(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided exact p-value of two shares, from the holes on which they disagree (McNemar 1947)."""
    pairs = list(zip(a, b, strict=True))
    only_a, only_b = (sum(x > y for x, y in pairs), sum(x < y for x, y in pairs))
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def detectable(holes: int, disagree: float = DISAGREE) -> float:
    """Return the smallest difference of two shares on the same holes that McNemar's test finds with 80 % power.

    `disagree` is the share of holes on which the two models differ (Connor 1987, with the variance under no
    difference). At most 1.
    """
    return min(1.0, (Z + Z_POWER) * math.sqrt(disagree / max(holes, 1)))


def holes_needed(difference: float, disagree: float = DISAGREE) -> int:
    """Return the number of holes on which `detectable` is at most `difference`."""
    return math.ceil(disagree * ((Z + Z_POWER) / difference) ** 2)
