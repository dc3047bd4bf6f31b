"""The report of an experiment: question, conclusion, tables with intervals, figure; the same as values in a record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from infill.artifacts.experiment import FIGURE_FILES
from infill.experiments.conclusion import UNDECIDED, Finding, conclusion, difference_text, number_text
from infill.experiments.experiment import Experiment, Measure
from infill.report import charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS: Final = 3
"""Panels of the figure in one row."""
_LABEL_CHARS: Final = 28
"""Most characters of the cells' names that have room below a panel."""
_COLOUR: Final = charts.COLOURS["sft"]


def page(experiment: Experiment, results: Sequence[Finding], others: Sequence[Finding] = ()) -> str:
    """Return the report in Markdown; `others` are the findings against the experiment's second cell."""
    return "\n".join(_lines(experiment, results, others)) + "\n"


def _lines(experiment: Experiment, results: Sequence[Finding], others: Sequence[Finding]) -> Iterator[str]:
    yield from (f"# {experiment.name}", "", experiment.question, "", conclusion(experiment, results), "")
    if others:
        yield from (conclusion(experiment.against_second, others), "")
    yield from experiment.setting
    yield from ("", f"![{experiment.name}]({FIGURE_FILES[0]})", "")
    yield from ("## Means with 95 % intervals", "", *_table(experiment, experiment.cells, results, _mean), "")
    yield from _differences(experiment, results)
    if others:
        yield from _differences(experiment.against_second, others)
    yield "Bold: beyond chance, as the interval and the test say, whose p-value is corrected for the cells."


def _differences(experiment: Experiment, results: Sequence[Finding]) -> Iterator[str]:
    compared = [finding for finding in results if finding.differences]
    yield from (f"## Differences from {experiment.baseline}, on the same {experiment.places}", "")
    yield from (*_table(experiment, experiment.cells[1:], compared, _difference), "")


def _table(experiment: Experiment, cells: Sequence[str], results: Sequence[Finding], text: Any) -> Iterator[str]:
    yield f"| {experiment.factor} | {' | '.join(map(_heading, results))} |"
    yield "| --- " * (1 + len(results)) + "|"
    for cell in cells:
        yield f"| {cell} | {' | '.join(text(finding, cell) for finding in results)} |"


def _heading(finding: Finding) -> str:
    return axis_text(finding.measure)


def axis_text(measure: Measure) -> str:
    """Return the label of a measure with its unit."""
    return f"{measure.label} ({measure.unit})" if measure.unit and measure.unit not in measure.label else measure.label


def _mean(finding: Finding, cell: str) -> str:
    mean = {name: number_text(value, finding.measure) for name, value in finding.means[cell].items()}
    tail = f", p90 {mean['p90']}" if finding.measure.unit and "p90" in mean else ""
    return f"{mean['value']} [{mean['low']}, {mean['high']}]{tail}"


def _difference(finding: Finding, cell: str) -> str:
    difference = finding.differences[cell]
    text = difference_text(finding.measure, difference)
    return text if difference.verdict == UNDECIDED else f"**{text}**"


def record(experiment: Experiment, results: Sequence[Finding], others: Sequence[Finding] = ()) -> dict[str, Any]:
    """Return the content of the artifact's report.json."""
    second = {"against": experiment.second, **_content(experiment.against_second, others)} if others else None
    return {
        "experiment": experiment.name,
        "question": experiment.question,
        "baseline": experiment.cells[0],
        "cells": list(experiment.cells),
        "setting": [line for line in experiment.setting if line],
        **_content(experiment, results),
        **({"second": second} if second else {}),
    }


def _content(experiment: Experiment, results: Sequence[Finding]) -> dict[str, Any]:
    return {
        "conclusion": conclusion(experiment, results),
        "measures": {finding.measure.name: _values(finding) for finding in results},
    }


def _values(finding: Finding) -> dict[str, Any]:
    differences = {cell: asdict(each) for cell, each in finding.differences.items()}
    return {"means": finding.means, "differences": differences}


def figures(experiment: Experiment, results: Sequence[Finding]) -> dict[str, bytes]:
    """Return the figure by file name: a panel for each measure, its cells with their intervals."""
    rows = -(-len(results) // _COLUMNS)

    def paint(figure: "Figure") -> None:
        panels = list(figure.subplots(rows, min(_COLUMNS, len(results)), squeeze=False).flat)
        for axes, finding in zip(panels, results, strict=False):
            _panel(axes, experiment, finding)
        for axes in panels[len(results) :]:
            axes.set_axis_off()

    size = (3.4 * min(_COLUMNS, len(results)), 2.9 * rows)
    return {name: charts.image(paint, *size, kind=name.rpartition(".")[2]) for name in FIGURE_FILES}


def _panel(axes: "Axes", experiment: Experiment, finding: Finding) -> None:
    means: Sequence[Mapping[str, float]] = [finding.means[cell] for cell in experiment.cells]
    values = [mean["value"] for mean in means]
    below = [max(0.0, mean["value"] - mean["low"]) for mean in means]
    above = [max(0.0, mean["high"] - mean["value"]) for mean in means]
    places = range(len(means))
    axes.errorbar(places, values, [below, above], fmt="o", color=_COLOUR, elinewidth=1.2, capsize=3, markersize=5)
    is_wide = sum(map(len, experiment.cells)) > _LABEL_CHARS
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if is_wide else {}
    axes.set_xticks(places, experiment.cells, **slanted)
    axes.set_xlim(-0.5, len(means) - 0.5)
    axes.set_ylim(0, 1.1 * max(*(mean["high"] for mean in means), 0.01))
    axes.yaxis.set_major_formatter(lambda value, _: charts.short(value))
    axes.set_xlabel(experiment.factor)
    axes.set_title(axis_text(finding.measure))
    axes.grid(visible=False, axis="x")
