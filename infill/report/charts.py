"""The report's plots, as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from infill.text import decode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from infill.report.artifact_contents import ArtifactContents

COLOURS: Final = {"base": "#8a94a3", "sft": "#2f6fab", "dpo": "#d9762b", "champion": "#3f8f5b"}
"""Colours that readers with red-green colour blindness can distinguish."""
QUALITY: Final = ("kk", "exact_match", "edit_similarity", "chrf")
STOPPING: Final = ("eot_rate", "over_generation", "under_generation", "suffix_echo")

_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": "#9aa3af",
    "axes.grid": True,
    "axes.labelcolor": "#4b5563",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.family": ["sans-serif"],
    "font.size": 9,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "infill",
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
}


def losses(contents: "ArtifactContents") -> str:
    """Return the plot of loss over tokens seen, one panel per training, with the validation loss if it was measured."""
    names = {
        "pretrain": ("Pre-training", "base"),
        "sft": ("Fine-tuning (SFT)", "sft"),
        "dpo": ("Preferences (DPO)", "dpo"),
    }

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, (name, (title, colour)) in zip(panels, names.items(), strict=True):
            axes.set_title(title)
            _loss(axes, contents.histories[name], COLOURS[colour])
        panels[0].set_ylabel("loss")

    return _svg(paint, 10, 2.9)


def _loss(axes: "Axes", rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    if not rows:
        axes.text(0.5, 0.5, "imported, not trained", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.plot(
        [row["tokens"] for row in rows], [row["loss"] for row in rows], color=colour, linewidth=1.4, label="train"
    )
    held_out = [row for row in rows if row.get("validation_loss") is not None]
    if held_out:
        axes.plot(
            [row["tokens"] for row in held_out],
            [row["validation_loss"] for row in held_out],
            "o--",
            color="#111827",
            linewidth=0.8,
            markersize=3.5,
            label="held out",
        )
        axes.legend()
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("tokens seen")


def short(value: float) -> str:
    """Return a count with about three digits and a unit: 950, 12k, 3.4M, 1.2G."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"


def evaluation(contents: "ArtifactContents") -> str:
    """Return the plot of the models' metrics with 95 % intervals: quality of completions, and stopping in time."""

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        left.set_title("How good (higher is better)")
        right.set_title("Stopping (end of text: higher; the others: lower)")
        for axes, metrics in ((left, QUALITY), (right, STOPPING)):
            _bars(axes, metrics, {name: record["metrics"] for name, record in contents.records.items()})
        left.legend(loc="upper left", ncols=3)

    return _svg(paint, 10, 3.4)


def _bars(axes: "Axes", metrics: Sequence[str], models: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    width = 0.8 / len(models)
    for place, (name, figures) in enumerate(models.items()):
        known = [(number, figures[metric]) for number, metric in enumerate(metrics) if metric in figures]
        values = [figure["value"] for _, figure in known]
        below = [max(0.0, figure["value"] - figure["low"]) for _, figure in known]
        above = [max(0.0, figure["high"] - figure["value"]) for _, figure in known]
        at = [number + (place - (len(models) - 1) / 2) * width for number, _ in known]
        axes.bar(at, values, width * 0.92, color=COLOURS[name], label=name, zorder=2)
        axes.errorbar(at, values, [below, above], fmt="none", ecolor="#1f2937", elinewidth=1, capsize=2.5, zorder=3)
    axes.set_xticks(range(len(metrics)), [metric.replace("_", " ") for metric in metrics])
    highest = max((figure["high"] for figures in models.values() for figure in figures.values()), default=1.0)
    axes.set_ylim(0, 1.2 * max(highest, 0.05))  # leaves room for the legend
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= min(1.0, axes.get_ylim()[1])])
    axes.grid(visible=False, axis="x")


def _svg(paint: Any, width: float, height: float) -> str:
    """Return the SVG that `paint` draws on a figure of `width` x `height` inches."""
    return decode(image(paint, width, height, kind="svg"))


def image(paint: Any, width: float, height: float, *, kind: str) -> bytes:
    """Return what `paint` draws on a figure of `width` x `height` inches; equal drawings give equal bytes.

    `kind` is "svg", with a transparent background, or "png".
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")  # without pyplot: no window, no global state
        paint(figure)
        content = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(content, format=kind, metadata=metadata, transparent=kind == "svg", dpi=150)
    return content.getvalue()
