"""Conclusions follow the numbers: what the interval does not show is never called better or worse."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.experiments.conclusion import BETTER, UNDECIDED, WORSE, conclusion, findings
from infill.experiments.experiment import CELL, HOLE, Experiment, Measure
from infill.experiments.experiment_report import page, record

QUALITY = Measure(name="kk", label="KK")
RIGHT = Measure(name="exact_match", label="exact match")
TIME = Measure(name="ms", label="time", unit="ms", higher_is_better=False)
SIZE = Measure(name="size", label="size", unit="tokens", higher_is_better=None)


def experiment(*measures: Measure, cells: Sequence[str] = ("0", "1,024")) -> Experiment:
    return Experiment(
        name="tried",
        question="Does it help?",
        factor="tokens",
        cells=cells,
        baseline="0 tokens",
        measures=measures,
        holes=[],
        measure=lambda *_: {},
    )


def rows_of(values: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows from the values of each measure in each cell."""
    return [
        {CELL: cell, HOLE: str(hole), **{name: each[hole] for name, each in measured.items()}}
        for cell, measured in values.items()
        for hole in range(len(next(iter(measured.values()))))
    ]


@given(
    st.lists(st.tuples(*[st.floats(-1, 1).map(lambda x: round(x, 2))] * 3), min_size=1, max_size=25),
    st.sampled_from([QUALITY, TIME]),
)
def test_a_difference_is_beyond_chance_only_with_an_interval_on_one_side(
    values: list[tuple[float, float, float]], measure: Measure
) -> None:
    tried = experiment(measure, cells=("0", "a", "b"))
    columns = [{measure.name: [row[place] for row in values]} for place in range(3)]
    (finding,) = results = findings(tried, rows_of(dict(zip(tried.cells, columns, strict=True))))
    text = conclusion(tried, results)
    for difference in finding.differences.values():
        comparison = difference.comparison
        if comparison.low <= 0 <= comparison.high or difference.p >= 0.05:
            assert difference.verdict == UNDECIDED
        else:
            higher = comparison.value > 0
            assert difference.verdict == (BETTER if higher == measure.higher_is_better else WORSE)
        assert difference.p >= comparison.wilcoxon
    verdicts = {each.verdict for each in finding.differences.values()}
    assert {word for word in (BETTER, WORSE) if f"is {word}" in text} == verdicts - {UNDECIDED}
    assert ("no difference beyond chance" in text) == (UNDECIDED in verdicts)


def test_a_clear_gain_that_costs_time_is_said_with_its_figures() -> None:
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, 40)
    values = {
        "0": {"kk": 0.3 + noise, "ms": 100 + noise, "size": np.zeros(40), "exact_match": np.zeros(40)},
        "1,024": {"kk": 0.5 - noise, "ms": 900 + noise, "size": np.full(40, 1_000), "exact_match": np.zeros(40)},
    }
    tried = experiment(QUALITY, TIME, SIZE, RIGHT)
    results = findings(tried, rows_of(values))
    text = conclusion(tried, results)
    assert text.startswith("On 40 holes, compared with 0 tokens: KK is better with 1,024 (+0.19")
    assert "Time is worse with 1,024 (+800 [800, 800], p < 0.001)." in text
    assert "There is no difference beyond chance in exact match." in text
    assert "Size" not in text
    report = page(tried, results)
    assert text in report
    assert report.count("**") == 4  # two differences
    assert "| 1,024 | 0.49" in report
    assert record(tried, results)["measures"]["ms"]["differences"]["1,024"]["verdict"] == WORSE


def test_what_is_undecided_is_said_in_one_sentence() -> None:
    equal = {"kk": np.zeros(9), "ms": np.ones(9), "exact_match": np.zeros(9)}
    tried = experiment(QUALITY, TIME, RIGHT)
    text = conclusion(tried, findings(tried, rows_of({"0": equal, "1,024": equal})))
    assert text.startswith(
        "On 9 holes, compared with 0 tokens: There is no difference beyond chance in KK, time and exact"
    )


def test_one_hole_decides_nothing() -> None:
    tried = experiment(QUALITY)
    (finding,) = findings(tried, rows_of({"0": {"kk": [0.0]}, "1,024": {"kk": [1.0]}}))
    assert finding.differences["1,024"].comparison.low == 1
    assert finding.differences["1,024"].verdict == UNDECIDED


def test_cells_with_different_holes_are_not_compared() -> None:
    rows = rows_of({"0": {"kk": [0.0, 1.0]}, "1,024": {"kk": [1.0, 0.0]}})
    with pytest.raises(ValueError, match="different holes"):
        findings(experiment(QUALITY), [*rows[:2], *rows[:1:-1]])


def test_a_quantile_is_that_of_all_values_together_with_an_interval_over_holes() -> None:
    late = Measure(name="p90", label="p90", unit="ms", higher_is_better=False, column="ms", quantile=0.9)
    draw = np.random.default_rng(0)
    values = {"0": draw.uniform(0, 10, (30, 5)), "1,024": draw.uniform(50, 60, (30, 5))}
    tried = experiment(late)
    results = findings(tried, rows_of({cell: {"ms": [*map(list, each)]} for cell, each in values.items()}))
    (finding,) = results
    for cell, each in values.items():
        mean = finding.means[cell]
        assert mean["value"] == np.quantile(each, 0.9)
        assert mean["low"] < mean["value"] < mean["high"] <= each.max()
    difference = finding.differences["1,024"]
    assert difference.comparison.value == pytest.approx(
        np.quantile(values["1,024"], 0.9) - np.quantile(values["0"], 0.9)
    )
    assert difference.verdict == WORSE
    assert "P90 is worse with 1,024 (+" in conclusion(tried, results)
    assert ", p90 " not in page(tried, results)
