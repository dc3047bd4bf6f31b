"""Stage: what a pipeline run came to, as one self-contained HTML file and as JSON."""

import os
from collections.abc import Mapping
from typing import Any, Final

from infill import manifest, storage, tracking
from infill.config import ReportConfig
from infill.report.found import Artifacts, Found, read

STAGE: Final = "report"
VERSION: Final = 2

REPORT_FILE: Final = "report.html"
SUMMARY_FILE: Final = "summary.json"


def external(_: ReportConfig) -> dict[str, str]:
    """What the report depends on besides its inputs: the pipeline's run in MLflow, to which it points."""
    return {"mlflow_run": os.environ.get(tracking.PARENT_RUN, "")}


def run(
    config: ReportConfig,
    corpus: str,
    tokenizer: str,
    base: str,
    examples: str,
    sft: str,
    preferences: str,
    dpo: str,
    evaluation_base: str,
    evaluation_sft: str,
    evaluation_dpo: str,
    decision: str,
    *,
    output: str,
) -> dict[str, float]:
    """Write report.html and summary.json; both also go to MLflow, to the pipeline's run.

    Metrics: the winner's metrics, `gate_passed`, and `seconds` of all stages.
    """
    given = {
        "corpus": corpus,
        "tokenizer": tokenizer,
        "base": base,
        "examples": examples,
        "sft": sft,
        "preferences": preferences,
        "dpo": dpo,
        "evaluation_base": evaluation_base,
        "evaluation_sft": evaluation_sft,
        "evaluation_dpo": evaluation_dpo,
        "decision": decision,
    }
    artifacts: Artifacts = {_made_by(name): uri for name, uri in given.items()}
    inputs = {name: manifest.digest_of(uri) for name, uri in given.items()} | external(config)

    def body() -> Mapping[str, float]:
        from infill.report import page

        found = read(artifacts)
        report = storage.join(output, REPORT_FILE)
        tracker = tracking.current()
        run_id = tracker.parent_id or tracker.run_id
        storage.write_bytes(report, page.render(config.title, found, run_id, output).encode())
        storage.write_json(storage.join(output, SUMMARY_FILE), summary(found, artifacts["register"], output, run_id))
        figures = conclusion(found)
        tracker.conclude(figures, storage.fetch(report))
        return figures

    return manifest.once(stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body)


def _made_by(name: str) -> str:
    """The stage that made the input of that name, with its model's name where it runs for several."""
    return {"base": "pretrain", "decision": "register"}.get(name, name.replace("evaluation_", "evaluate-"))


def read_summary(report: str) -> dict[str, Any]:
    """Return the summary in the report artifact at `report`, with `model` and `report` where these are now."""
    value: dict[str, Any] = storage.read_json(storage.join(report, SUMMARY_FILE))
    return value | {name: storage.follow(report, value[name]) for name in ("model", "report")}


def summary(found: Found, register: str, output: str, run_id: str) -> dict[str, object]:
    """Return what summary.json in the folder `output` holds: what a run came to, which `infill run` prints last.

    `register` is the artifact with the decision; `tokens` is the tokenizer's estimate for the train split. `model` and
    `report` are paths from `output`, so that the run may be moved; a model in another store is named by its URI.
    """
    decision = found.decision
    model = manifest.follow(decision, "model", register)
    return {
        "winner": decision["winner"],
        "model": storage.relative(model, output) or model,
        "gate": {"passed": decision["passed"], "reason": decision["reason"]},
        "documents": {"kept": found.corpus["documents_kept"], "removed": found.corpus["documents_removed"]},
        "tokens": found.tokenizer["tokens"],
        "bytes_per_token": found.tokenizer["bytes_per_token"],
        "stages": {
            name: {"seconds": made.seconds}
            | {key: made.metrics[key] for key in ("loss_first", "loss_last") if key in made.metrics}
            for name, made in found.stages.items()
        },
        "evaluation": {name: record["metrics"] for name, record in found.records.items()},
        "report": REPORT_FILE,
        "mlflow_run_id": run_id,
    }


def conclusion(found: Found) -> dict[str, float]:
    """The few figures by which pipeline runs are compared with each other."""
    won = found.records[found.decision["winner"]]["metrics"]
    return {name: float(figure["value"]) for name, figure in won.items()} | {
        "gate_passed": float(found.decision["passed"]),
        "documents_kept": float(found.corpus["documents_kept"]),
        "bytes_per_token": float(found.tokenizer["bytes_per_token"]),
        "seconds": sum(made.seconds for made in found.stages.values()),
    }
