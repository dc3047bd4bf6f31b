"""The compiled pipeline on one machine: KFP's local runner, one Ray, MLflow on sqlite.

KFP makes a new folder for each run. A killed run resumes by the store, whose addresses are hashes of what made each
artifact.
"""

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from infill import config as configuration
from infill import manifest, ray_session, storage, tracking
from infill.artifacts import deployment
from infill.errors import InfillError, InputError
from infill.report import SUMMARY_FILE, read_summary
from infill.stages.step import RUN_PID
from infill.text import read_text
from pipelines.console import Console
from pipelines.full import compile_pipeline
from pipelines.run_table import step_names

ROUND: Final = "INFILL_ROUND"
"""Environment variable that tells runs with equal settings apart in MLflow: `infill loop` sets it to what is new."""


def run(preset: str, settings: Mapping[str, Any], out: Path, *, budget: float | None = None) -> dict[str, Any]:
    """Run the whole pipeline with all files below `out`; return the run's summary, also written to `summary.json`.

    `budget` (GPU-hours) replaces the pipeline's default. Called again with the same arguments, it resumes a killed run.
    Raises InputError for invalid settings, InfillError when a step fails.
    """
    settings = configuration.absolute_settings(settings)
    configuration.resolve(preset, settings)  # report a user's mistake before anything starts
    out = Path(storage.absolute(str(out)))
    if not configuration.is_text(str(out)):
        raise InputError(f"the name of a run's folder must be UTF-8, got {str(out)!a}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"writing all files below {out}, and the full log to {out / 'run.log'}\n")
    compiled = out / "pipeline.yaml"
    compile_pipeline(compiled)
    arguments: dict[str, Any] = {
        "store": str(out / "store"),
        "preset": preset,
        "settings": configuration.to_text(settings),
    }
    if budget is not None:
        arguments["budget"] = budget
    with _environment(out, preset, settings), _ray():
        report = _run_compiled(compiled, arguments, out)
        summary = read_summary(report.uri)
    storage.write_json(str(out / SUMMARY_FILE), summary)
    return summary


@contextlib.contextmanager
def _environment(out: Path, preset: str, settings: Mapping[str, Any]) -> Iterator[None]:
    """Set the variables that the steps, which are separate processes, read; open the run's parent in MLflow."""
    # The steps may run in another folder, so a relative path in the user's own URI is made absolute too.
    os.environ["MLFLOW_TRACKING_URI"] = tracking.tracking_uri() or tracking.local_store(str(out))
    resolved = configuration.resolve(preset, settings)
    # The key contains everything that is logged to the run, so that a changed preset or default starts another run.
    own = filter(None, [os.environ.get(ROUND)])
    key = json.dumps([str(out), preset, tracking.flatten(resolved), *own], sort_keys=True)
    parent = tracking.parent_run(f"infill-{preset}", key, tags={"infill.preset": preset}, config=resolved)
    os.environ["INFILL_PARENT_RUN_ID"] = parent
    os.environ[RUN_PID] = str(os.getpid())
    with tracking.open_run(parent):
        yield


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Run one Ray for all steps, as starting it takes longer than a small training; its address is in RAY_ADDRESS."""
    if "RAY_ADDRESS" in os.environ:
        yield
        return
    with ray_session.session():
        os.environ["RAY_ADDRESS"] = ray_session.address()
        try:
            yield
        finally:
            del os.environ["RAY_ADDRESS"]


def _run_compiled(compiled: Path, arguments: Mapping[str, Any], out: Path) -> manifest.Manifest:
    """Run the compiled file under KFP's local runner; return the manifest of its output, the report."""
    from kfp import components

    from pipelines.runner import runner

    pipeline = components.load_component_from_text(without_retries(read_text(compiled)))
    log = out / "run.log"
    with contextlib.closing(Console(log, sys.stderr, step_names())) as console:
        try:
            with runner(out / "kfp"), contextlib.redirect_stdout(console), warnings.catch_warnings():
                # KFP warns, for each task, of every setting that only a cluster uses.
                warnings.filterwarnings("ignore", module=r"kfp\.local")
                pipeline(**arguments)
        except RuntimeError as error:
            raise InfillError(console.error or f"a step failed ({error}); see the end of {log}") from error
    return report_of(out / "kfp")


def without_retries(compiled: str) -> str:
    """Return the compiled pipeline without retries, since on one machine a step fails for a lasting reason."""
    documents = list(yaml.safe_load_all(compiled))
    for component in (documents[0]["root"], *documents[0]["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def report_of(root: Path) -> manifest.Manifest:
    """Return the manifest of the report of the newest run below KFP's local root."""
    newest = max(root.glob("*/report/report"), key=lambda path: path.stat().st_mtime)
    return manifest.load(str(newest))


def deployment_of(out: Path) -> str:
    """Return the newest deployment record below a run's folder. Raises InputError with the reason if there is none."""
    record = deployment.newest(out / "store")
    if record is None:
        raise InputError(_why_not_deployed(out))
    return record


def _why_not_deployed(out: Path) -> str:
    """Return why the folder `out` holds no deployed model, as a sentence for the user."""
    if not out.exists():
        return f"folder {out} does not exist: name the --out of a finished infill run"
    if not (out / "store").is_dir():
        return f"{out} is not the folder of a run: it has no store; name the --out of an infill run"
    if any((out / "store" / "register").glob(f"*/{manifest.FILE_NAME}")):
        return f"{out} has no deployment: no model passed the gate; see the report there"
    return f"{out} has no deployment: the run has not reached the gate; continue it with infill run --out {out}"


def served_limits(out: Path) -> configuration.DeployConfig:
    """Return the limits of the deployed model of the run in the folder `out`. Raises InputError if there is none."""
    served = storage.read_json(deployment_of(out))
    return configuration.DeployConfig(**{name: served[name] for name in ("max_prompt_tokens", "max_new_tokens")})


def new_deployment(out: Path, why: str) -> str:
    """Return a new folder for a deployment record of the run in the folder `out`; its name begins with `why`."""
    return str(out / "store" / "deploy" / f"{why}-{time.time_ns()}")


def examples_of(out: Path) -> str:
    """Return the newest examples below a run's folder. Raises InputError if there are none."""
    examples = manifest.newest(out / "store", "examples")
    if examples is None:
        raise InputError(f"{out} has no examples; run the pipeline first: infill run --out {out}")
    return storage.parent(examples)
