"""The plots of an evaluation, as PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from infill.evaluate.results import Evaluation

Figures = Mapping[str, Mapping[str, float]]
"""`value`, `low` and `high` by name."""


def draw(evaluation: "Evaluation") -> dict[str, bytes]:
    """Return PNG plots by file name: metrics with intervals, KK by boundary kinds, and output against true length."""
    results = evaluation.results
    lengths = [[len(str(text)) for text in results[name].to_pylist()] for name in ("middle", "output")]
    kinds = {kind: group["metrics"]["kk"] for kind, group in evaluation.by_kind.items()}
    return {
        "metrics.png": _png("Mean with 95 % interval", lambda axes: _bars(axes, evaluation.metrics)),
        "kk_by_kind.png": _png("KK by the kinds of the hole's boundaries", lambda axes: _bars(axes, kinds)),
        "lengths.png": _png("Length of the completion", lambda axes: _lengths(axes, *lengths)),
    }


def _png(title: str, paint: "Callable[[Axes], None]") -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    paint(axes)
    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})  # without pyplot: no window, no global state
    return image.getvalue()


def _bars(axes: "Axes", figures: Figures) -> None:
    names = list(figures)
    values = [figures[name]["value"] for name in names]
    below = [max(0.0, figures[name]["value"] - figures[name]["low"]) for name in names]
    above = [max(0.0, figures[name]["high"] - figures[name]["value"]) for name in names]
    axes.barh(names, values, xerr=[below, above], color="#4878a8", ecolor="#333333", capsize=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)


def _lengths(axes: "Axes", middles: Sequence[int], outputs: Sequence[int]) -> None:
    longest = max([*middles, *outputs, 1])
    axes.plot([0, longest], [0, longest], color="#bbbbbb", linewidth=1)
    axes.scatter(middles, outputs, s=12, color="#4878a8", alpha=0.6)
    axes.set_xlabel("characters of the true middle")
    axes.set_ylabel("characters of the output")
