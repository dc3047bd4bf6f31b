"""The report stage: the results of a pipeline run, as one self-contained HTML file and as JSON."""

import os
from collections.abc import Mapping
from typing import Any, Final

from infill import manifest, storage, tracking
from infill.artifacts import decision as decisions
from infill.config import ReportConfig
from infill.report.artifact_contents import ArtifactContents, Artifacts, read
from infill.stages.contract import Call

VERSION: Final = 5

REPORT_FILE: Final = "report.html"
SUMMARY_FILE: Final = "summary.json"


def outside(_config: ReportConfig, _digests: Mapping[str, str]) -> dict[str, str]:
    """Return what the report depends on besides its inputs: the pipeline's MLflow run, which it names."""
    return {"mlflow_run": os.environ.get(tracking.PARENT_RUN, "")}


def body(call: Call[ReportConfig]) -> Mapping[str, float]:
    """Write report.html and summary.json; log the report and the metrics to the pipeline's MLflow run.

    Returns the winner's metrics, `gate_passed`, `documents_kept`, `bytes_per_token`, and `seconds` of all stages.
    """
    from infill.report import report_html

    artifacts: Artifacts = {_stage_of(name): uri for name, uri in call.inputs.items()}
    contents, output = read(artifacts), call.output
    report = storage.join(output, REPORT_FILE)
    tracker = tracking.current()
    run_id = tracker.parent_id or tracker.run_id
    storage.write_bytes(report, report_html.render(call.settings.title, contents, run_id, output).encode())
    storage.write_json(storage.join(output, SUMMARY_FILE), summary(contents, artifacts["register"], output, run_id))
    figures = conclusion(contents)
    tracker.conclude(figures, storage.fetch(report))
    return figures


def _stage_of(name: str) -> str:
    """Return the stage that wrote the input `name`, with its model's name if it runs for several models."""
    return {"base": "pretrain", "decision": "register"}.get(name, name.replace("evaluation_", "evaluate-"))


def read_summary(report: str) -> dict[str, Any]:
    """Return the summary in the report artifact at `report`, with the current URIs of `model` and `report`."""
    value: dict[str, Any] = storage.read_json(storage.join(report, SUMMARY_FILE))
    return value | {name: storage.follow(report, value[name]) for name in ("model", "report")}


def summary(contents: ArtifactContents, register: str, output: str, run_id: str) -> dict[str, object]:
    """Return the content of summary.json in the folder `output`: a run's results, which `infill run` prints last.

    `register` is the artifact with the decision; `tokens` is the tokenizer's estimate for the train split. `model` and
    `report` are paths from `output`, so that the run can be moved; a model in another store is given by its URI.
    """
    decision = contents.decision
    model = manifest.follow(decision, "model", register)
    return {
        "winner": decision["winner"],
        "model": storage.relative(model, output) or model,
        "gate": {
            "passed": decision["passed"],
            "reason": decision["reason"],
            "canary": decisions.on_trial(decision),
        },
        "documents": {"kept": contents.corpus["documents_kept"], "removed": contents.corpus["documents_removed"]},
        "tokens": contents.tokenizer["tokens"],
        "bytes_per_token": contents.tokenizer["bytes_per_token"],
        "stages": {
            name: {"seconds": stage.seconds}
            | {key: stage.metrics[key] for key in ("loss_first", "loss_last") if key in stage.metrics}
            for name, stage in contents.stages.items()
        },
        "evaluation": {name: record["metrics"] for name, record in contents.records.items()},
        "report": REPORT_FILE,
        "mlflow_run_id": run_id,
    }


def conclusion(contents: ArtifactContents) -> dict[str, float]:
    """Return the figures by which pipeline runs are compared with each other."""
    won = contents.records[contents.decision["winner"]]["metrics"]
    return {name: float(figure["value"]) for name, figure in won.items()} | {
        "gate_passed": float(contents.decision["passed"]),
        "documents_kept": float(contents.corpus["documents_kept"]),
        "bytes_per_token": float(contents.tokenizer["bytes_per_token"]),
        "seconds": sum(stage.seconds for stage in contents.stages.values()),
    }
