"""Confidence intervals and paired comparisons. All intervals are for 95 % confidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same holes: the mean of first minus second with its 95 % interval, and tests of no difference.

    The p-values are two-sided and not corrected for multiple comparisons.
    """

    value: float
    low: float
    high: float
    holes: int
    wilcoxon: float
    """p-value of the signed-rank test, which asks whether gains and losses balance and knows no outliers."""
    mcnemar: float | None = None
    """p-value of McNemar's exact test, for a share; None for other metrics."""


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

    Raises ValueError when the two have different numbers of values, none, or one that is not finite.
    """
    difference = _paired(a, b)
    if not len(difference):
        raise ValueError("a paired comparison needs at least one value")
    low, high = bootstrap(difference, resamples=resamples, seed=seed)
    return float(difference.mean()), low, high


def quantile_interval(
    samples: Sequence[ArrayLike], share: float, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return the quantile `share` of all samples together, with its interval: (value, low, high).

    The bootstrap draws whole samples, since the values of one sample depend on each other. Its upper end is at most the
    largest value, so far quantiles of few values have an interval that is too short.
    """
    low, high = np.quantile(_resampled_quantiles(samples, share, resamples, seed), [0.025, 0.975])
    return float(np.quantile(np.concatenate([*map(np.atleast_1d, samples)]), share)), float(low), float(high)


def paired_quantile(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], share: float, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return the quantile of `a` minus that of `b`, whose samples are pairs, with the paired bootstrap's interval.

    Raises ValueError when the two have different numbers of samples.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs equal numbers of samples, got {len(a)} and {len(b)}")
    difference = _resampled_quantiles(a, share, resamples, seed) - _resampled_quantiles(b, share, resamples, seed)
    first, second = (np.quantile(np.concatenate([*map(np.atleast_1d, each)]), share) for each in (a, b))
    low, high = np.quantile(difference, [0.025, 0.975])
    return float(first - second), float(low), float(high)


def _resampled_quantiles(samples: Sequence[ArrayLike], share: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the quantile of each resample; those of equal seeds and numbers of samples draw the same samples."""
    rng, arrays = np.random.default_rng(seed), [np.atleast_1d(np.asarray(each, np.float64)) for each in samples]
    drawn = rng.integers(0, len(arrays), (resamples, len(arrays)))
    return np.array([np.quantile(np.concatenate([arrays[place] for place in row]), share) for row in drawn])


def compare(metric: str, a: ArrayLike, b: ArrayLike, *, resamples: int, seed: int) -> Comparison:
    """Return the comparison of two models by `metric`, with the values `a` and `b` of the same holes in the same order.

    Raises ValueError when the two have different numbers of values, none, or one that is not finite.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    value, low, high = paired_interval(first, second, resamples=resamples, seed=seed)
    return Comparison(
        value=value,
        low=low,
        high=high,
        holes=len(first),
        wilcoxon=wilcoxon(first, second),
        mcnemar=mcnemar(first, second) if metric in SHARES else None,
    )


def p_values(comparison: Comparison) -> str:
    """Return the p-values of the comparison's tests, with the tests' names."""
    tests = {"Wilcoxon": comparison.wilcoxon, "McNemar": comparison.mcnemar}
    return ", ".join(
        f"{name} p < 0.001" if p < 0.001 else f"{name} p = {p:.3f}" for name, p in tests.items() if p is not None
    )


def wilcoxon(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value of the signed-rank test of paired values (Wilcoxon 1945); 1 if no pair differs.

    Equal pairs are left out. The p-value is exact for up to 50 pairs without ties and for up to 13 with them, otherwise
    it is that of the normal approximation.
    """
    from scipy import stats

    # Rounding error must neither separate equal differences nor make a difference out of none.
    difference = np.round(_paired(a, b), 12)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    return min(1.0, float(stats.wilcoxon(difference, method="auto").pvalue))


def mcnemar(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided exact p-value of two shares, from the holes on which they disagree (McNemar 1947).

    1 if they disagree on none.
    """
    from scipy import stats

    difference = _paired(a, b)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _paired(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return a - b. Raises ValueError when the numbers of values differ, or a value is not finite."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a paired comparison needs equal numbers of values, got {len(first)} and {len(second)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a paired comparison needs finite values")
    return first - second


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979).

    Rejecting those below 0.05 rejects a true hypothesis with at most 5 % probability, however the tests depend.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def detectable(holes: int, disagree: float = DISAGREE) -> float:
    """Return the smallest difference of two shares on the same holes that McNemar's test finds with 80 % power.

    `disagree` is the share of holes on which the two models differ (Connor 1987, with the variance under no
    difference). A difference cannot be larger than that share, so a larger result supposes that they differ on as many
    holes as the difference says, all in favour of one model. At most 1.
    """
    power = Z + Z_POWER
    usual = power * math.sqrt(disagree / max(holes, 1))
    return min(1.0, usual if usual <= disagree else power**2 / max(holes, 1))


def holes_needed(difference: float, disagree: float = DISAGREE) -> int:
    """Return the number of holes on which `detectable` is at most `difference`.

    Raises ValueError unless `difference` is above 0 and at most 1.
    """
    if not 0 < difference <= 1:
        raise ValueError(f"a difference of two shares must be above 0 and at most 1, got {difference}")
    return math.ceil(max(disagree, difference) * ((Z + Z_POWER) / difference) ** 2)
