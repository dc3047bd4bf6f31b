"""The tables of a run's summary, which `infill run` prints at its end."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from infill import manifest
from infill.stages import MODELS, STAGES

SHOWN: Final = ("kk", "exact_match", "edit_similarity", "chrf", "over_generation", "under_generation", "eot_rate")
"""The metrics in the table; the report has all."""


def show(summary: Mapping[str, Any], out: Path, console: Console) -> None:
    """Print a run's corpus, stages, evaluation and gate, and where its report and MLflow are."""
    console.print(_corpus(summary, out))
    console.print(_training(summary))
    console.print(_evaluation(summary))
    gate = summary["gate"]
    verdict = "passed" if gate["passed"] else "did not pass"
    console.print(f"winner: {summary['winner']}, which {verdict} the gate: {gate['reason']}", highlight=False)
    console.print(f"model:  {summary['model']}", highlight=False, soft_wrap=True)
    console.print(f"report: {summary['report']}", highlight=False, soft_wrap=True)
    console.print(
        f"MLflow: run {summary['mlflow_run_id']}; make mlflow-ui OUT={shlex.quote(str(out))}",
        highlight=False,
        soft_wrap=True,
    )
    for line in _next(summary, shlex.quote(str(out))):
        console.print(line, highlight=False, soft_wrap=True)


def _next(summary: Mapping[str, Any], out: str) -> list[str]:
    """Return the commands to call next: serve the model, or try it next to the champion and decide."""
    if not summary["gate"]["passed"]:
        return []
    if not summary["gate"]["canary"]:
        return [f"serve:  infill serve --out {out}  # and complete in your browser at http://127.0.0.1:8080/"]
    candidate = shlex.quote(summary["model"])
    return [
        "canary: the model is on trial: the champion stays in use until a canary is decided (infill canary show)",
        f"serve:  infill serve --out {out} --candidate {candidate} --canary-weight 5 --telemetry metrics",
        f"decide: infill canary decide --url http://localhost:8080 --out {out}  # promotes it, or rolls it back",
    ]


def _corpus(summary: Mapping[str, Any], out: Path) -> Table:
    table = Table("what", "figure", title="corpus")
    table.add_row("documents kept", f"{summary['documents']['kept']:,}")
    table.add_row("documents removed", f"{summary['documents']['removed']:,}")
    for reason, count in _removed(out):
        table.add_row(f"  {reason}", f"{count:,.0f}")
    table.add_row("tokens to train on", f"{summary['tokens']:,.0f}")
    table.add_row("bytes per token", f"{summary['bytes_per_token']:.2f}")
    return table


def _removed(out: Path) -> list[tuple[str, float]]:
    """Return the reasons and counts of the documents removed from the run's newest corpus, largest first."""
    corpus = manifest.newest(out / "store", "corpus")
    metrics = manifest.load(corpus).metrics if corpus else {}
    counts = [(name.removeprefix("removed_"), count) for name, count in metrics.items() if name.startswith("removed_")]
    return sorted(((reason.replace("_", " "), count) for reason, count in counts if count), key=lambda item: -item[1])


def _training(summary: Mapping[str, Any]) -> Table:
    table = Table("stage", "seconds", "loss at the start", "at the end", title="stages")
    for name in sorted(summary["stages"], key=_place):
        stage = summary["stages"][name]
        losses = [f"{stage[key]:.3f}" if stage.get(key) is not None else "" for key in ("loss_first", "loss_last")]
        table.add_row(name, f"{stage['seconds']:.1f}", *losses)
    return table


def _place(name: str) -> tuple[int, int]:
    """Return the position of a stage in the table of stages; an evaluation's name ends with its model's."""
    stage, _, model = name.partition("-")
    return list(STAGES).index(stage), [*MODELS, model].index(model)


def _evaluation(summary: Mapping[str, Any]) -> Table:
    models = [name for name in MODELS if name in summary["evaluation"]]
    table = Table("metric", *models, title="held-out holes: percent, with 95 % intervals")
    for metric in SHOWN:
        figures = [summary["evaluation"][model].get(metric) for model in models]
        table.add_row(metric.replace("_", " "), *(_percent(figure) for figure in figures))
    return table


def _percent(figure: Mapping[str, float] | None) -> str:
    """Return a share and its interval in percent, short enough for three in 80 columns."""
    if figure is None:
        return ""
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
