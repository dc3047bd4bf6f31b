"""Agreement of raters with each other and with the judge, and what they prefer.

Krippendorff's alpha for nominal values (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability) is 1 for perfect
agreement and 0 for that of chance; unlike Cohen's kappa it takes any number of raters and missing ratings.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np

from infill.artifacts.rating import EQUAL, EVALUATIONS, FIRST, SECOND, SKIP
from infill.evaluate.statistics import wilson

RESAMPLES: Final = 1_000
Units = Sequence[Sequence[str]]
"""The values that each item got; the order of raters does not matter."""


def alpha(units: Units) -> float:
    """Return Krippendorff's alpha for nominal values; NaN if no item has two values or all values are equal."""
    coincidences: Counter[tuple[str, str]] = Counter()
    for values in units:
        if len(values) > 1:
            counts = Counter(values)
            for one, other in ((one, other) for one in counts for other in counts):
                pairs = counts[one] * (counts[other] - (one == other))
                coincidences[one, other] += pairs / (len(values) - 1)  # type: ignore[assignment]  # a weight
    totals: Counter[str] = Counter()
    for (one, _), weight in coincidences.items():
        totals[one] += weight
    n = totals.total()
    expected = n * n - sum(weight * weight for weight in totals.values())
    if n < 2 or expected <= 0:
        return math.nan
    observed = n - sum(weight for (one, other), weight in coincidences.items() if one == other)
    return float(1 - (n - 1) * observed / expected)


def alpha_interval(units: Units, seed: int = 0) -> dict[str, float | None]:
    """Return alpha (`value`, `low`, `high`) with the bootstrap's 95 % interval over items; None where it is unknown."""
    usable = [values for values in units if len(values) > 1]
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, max(len(usable), 1), size=(RESAMPLES if usable else 0, len(usable)))
    values = [value for rows in draws if not math.isnan(value := alpha([usable[row] for row in rows]))]
    low, high = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
    return _known(alpha(units), float(low), float(high))


def summary(items: Sequence[Mapping[str, Any]], ratings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what raters chose of a rating set, and how far they agree with each other and with the judge."""
    judged = {item["id"]: item["judged"] for item in items}
    origins = {item["id"]: item["origin"] for item in items}
    by_item: dict[str, dict[str, str]] = defaultdict(dict)
    for rating in ratings:
        if rating["choice"] != SKIP and rating["item"] in judged:
            by_item[rating["item"]][rating["rater"]] = rating["choice"]
    units = [list(choices.values()) for choices in by_item.values()]
    majorities = {name: majority(list(choices.values())) for name, choices in by_item.items()}
    against = [[choice, judged[name]] for name, choice in majorities.items() if choice]
    shown = [rating for rating in ratings if rating["choice"] in (FIRST, SECOND)]
    return {
        "items": len(items),
        "rated": len(by_item),
        "skipped": sum(rating["choice"] == SKIP for rating in ratings),
        "raters": dict(sorted(Counter(rating["rater"] for rating in ratings).items())),
        "choices": {name: sum(unit.count(name) for unit in units) for name in (FIRST, SECOND, EQUAL)},
        "first_preferred": _share(
            [
                choice == FIRST
                for name, choice in majorities.items()
                if choice in (FIRST, SECOND) and origins[name] == EVALUATIONS
            ]
        ),
        "left_preferred": _share([rating["choice"] == rating["left"] for rating in shown]),
        "between_raters": {"alpha": alpha_interval(units), **_pairwise(by_item)},
        "with_judge": {"alpha": alpha_interval(against), "agree": _share([one == other for one, other in against])},
    }


def majority(choices: Sequence[str]) -> str:
    """Return the choice of more than half of the raters; empty without one."""
    choice, votes = Counter(choices).most_common(1)[0]
    return choice if 2 * votes > len(choices) else ""


def _pairwise(by_item: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the share of items on which two raters agree, over all pairs of raters."""
    pairs = [one == other for choices in by_item.values() for one, other in combinations(choices.values(), 2)]
    return {"agree": _share(pairs)}


def _share(values: Sequence[bool]) -> dict[str, float | None]:
    """Return a share with its 95 % interval (None without values), and the number of values."""
    low, high = wilson(sum(values), len(values))
    return {**_known(sum(values) / len(values) if values else math.nan, low, high), "n": len(values)}


def _known(value: float, low: float, high: float) -> dict[str, float | None]:
    """Return an interval in which None, which JSON has, stands for NaN, which it lacks."""
    return {name: None if math.isnan(each) else each for name, each in (("value", value), ("low", low), ("high", high))}
