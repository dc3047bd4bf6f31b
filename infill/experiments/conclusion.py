"""The statistics of an experiment, and the paragraph that follows from them: nothing in it is decided elsewhere.

A cell is better or worse than the baseline only if the paired 95 % interval of the difference excludes 0 and the
paired test rejects "no difference" after Holm's correction for the number of cells. Everything else is undecided.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infill.evaluate.statistics import Comparison, compare, holm, interval, paired_quantile, quantile_interval
from infill.experiments.experiment import CELL, HOLE, Experiment, Measure, Row

BETTER: Final = "better"
WORSE: Final = "worse"
UNDECIDED: Final = "undecided"
LEVEL: Final = 0.05
RESAMPLES: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A cell minus the baseline in one measure."""

    comparison: Comparison
    p: float
    """p-value of McNemar's test for a share, else of Wilcoxon's, after Holm's correction for the cells."""
    verdict: str
    """BETTER, WORSE or UNDECIDED."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The figures of one measure: a mean with its interval for each cell, and its difference from the baseline."""

    measure: Measure
    means: Mapping[str, Mapping[str, float]]
    """`value`, `low`, `high` and, of a mean, the 90 % quantile, `p90`, by cell."""
    differences: Mapping[str, Difference]
    """By cell, without the baseline; empty for a measure that is not compared."""


def findings(experiment: Experiment, rows: Sequence[Row], *, seed: int = 0) -> list[Finding]:
    """Return the figures of each measure. `rows` has the rows of all cells, each with its CELL.

    Raises ValueError unless all cells have the same holes in the same order.
    """
    by_cell = {cell: [row for row in rows if row[CELL] == cell] for cell in experiment.cells}
    if len({tuple(row[HOLE] for row in each) for each in by_cell.values()}) != 1:
        raise ValueError(f"the cells of {experiment.name} have rows of different holes, so they cannot be compared")
    return [_finding(measure, by_cell, seed) for measure in experiment.measures]


Samples = Sequence[NDArray[np.float64]]
"""The values of a measure in a cell: an array for each hole."""


def _finding(measure: Measure, by_cell: Mapping[str, Sequence[Row]], seed: int) -> Finding:
    column = measure.column or measure.name
    samples = {cell: [np.atleast_1d(np.float64(row[column])) for row in rows] for cell, rows in by_cell.items()}
    means = {cell: _mean(measure, each, seed) for cell, each in samples.items()}
    compared = measure.higher_is_better is not None
    return Finding(measure=measure, means=means, differences=_differences(measure, samples, seed) if compared else {})


def _mean(measure: Measure, samples: Samples, seed: int) -> dict[str, float]:
    """Return a cell's figure with its interval."""
    if measure.quantile is not None:
        figure = quantile_interval(samples, measure.quantile, resamples=RESAMPLES, seed=seed)
        return dict(zip(("value", "low", "high"), figure, strict=True))
    each = _by_hole(samples)
    return {
        **interval(measure.name, each, resamples=RESAMPLES, seed=seed),
        "p90": float(np.quantile(each, 0.9)),
    }


def _by_hole(samples: Samples) -> list[float]:
    return [float(each.mean()) for each in samples]


def _differences(measure: Measure, samples: Mapping[str, Samples], seed: int) -> dict[str, Difference]:
    baseline, *others = samples
    comparisons = {cell: _comparison(measure, samples[cell], samples[baseline], seed) for cell in others}
    corrected = holm([each.wilcoxon if each.mcnemar is None else each.mcnemar for each in comparisons.values()])
    return {
        cell: Difference(
            comparison=each, p=p, verdict=verdict(each, p, higher_is_better=bool(measure.higher_is_better))
        )
        for (cell, each), p in zip(comparisons.items(), corrected, strict=True)
    }


def _comparison(measure: Measure, a: Samples, b: Samples, seed: int) -> Comparison:
    """Return the comparison of two cells; the test of a quantile is that of the holes' means."""
    comparison = compare(measure.name, _by_hole(a), _by_hole(b), resamples=RESAMPLES, seed=seed)
    if measure.quantile is None:
        return comparison
    value, low, high = paired_quantile(a, b, measure.quantile, resamples=RESAMPLES, seed=seed)
    return replace(comparison, value=value, low=low, high=high)


def verdict(comparison: Comparison, p: float, *, higher_is_better: bool) -> str:
    """Return BETTER or WORSE if interval and corrected p-value both exclude chance, else UNDECIDED."""
    if p >= LEVEL or comparison.low <= 0 <= comparison.high:
        return UNDECIDED
    return BETTER if (comparison.value > 0) == higher_is_better else WORSE


def conclusion(experiment: Experiment, results: Sequence[Finding]) -> str:
    """Return the paragraph that answers the question, from the verdicts alone."""
    holes = next(each.comparison.holes for finding in results for each in finding.differences.values())
    head = f"On {holes} {experiment.places}, compared with {experiment.baseline}: "
    compared = [finding for finding in results if finding.differences]
    decided = [
        finding for finding in compared if {each.verdict for each in finding.differences.values()} != {UNDECIDED}
    ]
    open_ones = [finding.measure.label for finding in compared if finding not in decided]
    sentences = [_sentence(finding) for finding in decided]
    if open_ones:
        sentences.append(f"There is no difference beyond chance in {_listed(open_ones)}.")
    return head + " ".join(sentences) + _caution(experiment, results)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _sentence(finding: Finding) -> str:
    parts = [*_parts(finding)]
    label = finding.measure.label
    return f"{label[0].upper()}{label[1:]} {'; '.join(parts)}."


def _parts(finding: Finding) -> Iterator[str]:
    for wanted in (BETTER, WORSE):
        cells = {cell: each for cell, each in finding.differences.items() if each.verdict == wanted}
        if cells:
            texts = (f"{cell} ({difference_text(finding.measure, each)})" for cell, each in cells.items())
            yield f"is {wanted} with {' and '.join(texts)}"
    undecided = [cell for cell, each in finding.differences.items() if each.verdict == UNDECIDED]
    if undecided:
        yield f"shows no difference beyond chance with {_listed(undecided)}"


def _caution(experiment: Experiment, results: Sequence[Finding]) -> str:
    undecided = any(each.verdict == UNDECIDED for finding in results for each in finding.differences.values())
    return f" A difference that is not beyond chance on these {experiment.places} may still exist." if undecided else ""


def number_text(value: float, measure: Measure) -> str:
    """Return a value of a measure with a sensible number of digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or measure.unit == "tokens" else f"{value:.3f}"


def difference_text(measure: Measure, difference: Difference) -> str:
    """Return a difference with its interval and corrected p-value, for a table or a sentence."""
    each = difference.comparison
    value, low, high = (number_text(number, measure) for number in (each.value, each.low, each.high))
    sign = "+" if each.value > 0 else ""
    p = "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3f}"
    return f"{sign}{value} [{low}, {high}], {p}"
