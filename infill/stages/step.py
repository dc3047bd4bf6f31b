"""A stage in a step of the pipeline, called by the bodies of KFP components.

It runs its stage in this process or, on a cluster, in a RayJob.
"""

import contextlib
import dataclasses
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from infill import config as configuration
from infill import entry, storage, tracking
from infill.cluster import job_settings
from infill.errors import InfillError
from infill.manifest import Manifest
from infill.stages.contract import RUN
from infill.stages.runner import execute
from infill.stages.table import RAY_STAGES, STAGES

RUN_PID: Final = "INFILL_RUN_PID"
"""Process id of the local run that a step belongs to: the step ends itself when that process is gone."""


def step(
    name: str,
    *,
    preset: str,
    settings: str,
    store: str,
    inputs: Mapping[str, str],
    output: str,
    label: str = "",
) -> Manifest:
    """Run a stage, write its manifest to the file `output`, and return it: the body of a KFP component.

    `inputs` maps input names to manifest files; `settings` are overrides of the preset (`config.to_text`). If
    INFILL_CLUSTER is set, a stage that outgrows one pod runs as a RayJob. An error that the user can act on ends the
    process with one sentence instead of a traceback, and with the error's exit code.
    """
    _end_with_the_run()
    with sentence(label or name):
        cluster = job_settings.read()
        _join_the_run(preset)
        if cluster is not None and name in RAY_STAGES:
            from infill.stages import rayjob  # with the kubernetes client

            return rayjob.run(
                name,
                settings=cluster,
                preset=preset,
                overrides=configuration.from_text(settings),
                store=store,
                inputs=inputs,
                output=output,
                label=label,
            )
        resolved = configuration.resolve(preset, configuration.from_text(settings))
        manifest = execute(name, STAGES[name].settings(resolved), inputs, store, label=label)
        storage.write_json(output, dataclasses.asdict(manifest))
    return manifest


@contextlib.contextmanager
def sentence(name: str) -> Iterator[None]:
    """End the process (SystemExit), with one sentence on stderr, for an error in the block that `entry.explain` knows.

    The traceback of an error other than InfillError is printed before it, for the step's log. Libraries log only their
    warnings, since KFP shows everything that they log.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("infill").setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        explanation = entry.explain(error)
        if explanation is None:
            raise
        if not isinstance(error, InfillError):
            traceback.print_exc()
        sys.stderr.write(f"infill: {name}: {explanation}\n")
        raise SystemExit(entry.exit_code(error)) from error


def finish(state: str) -> None:
    """Delete the run's remaining RayJobs and end its MLflow run: the body of the pipeline's exit handler.

    `state` is the run's final state in KFP's terms. On one machine this does nothing.
    """
    with sentence("finish"):
        run = os.environ.get(RUN, "")
        if not run or job_settings.read() is None:
            return
        from infill.cluster import api, lifecycle  # with the kubernetes client

        for name in lifecycle.sweep(api.connect(), run):
            sys.stderr.write(f"[infill] deleted RayJob {name}, which had not ended\n")
        if not os.environ.get("MLFLOW_RUN_ID"):
            tracking.end_run(tracking.parent_run("infill", run), "FINISHED" if state == "SUCCEEDED" else "FAILED")


def _join_the_run(preset: str) -> None:
    """Join the MLflow run that all steps of a cluster's pipeline run share, unless the platform has opened one."""
    run = os.environ.get(RUN, "")
    if run and not os.environ.get(tracking.PARENT_RUN) and not os.environ.get("MLFLOW_RUN_ID"):
        os.environ[tracking.PARENT_RUN] = tracking.parent_run(f"infill-{preset}", run)


def _end_with_the_run() -> None:
    """Exit this process when the local run that started it is gone: nobody would use its result."""
    pid = os.environ.get(RUN_PID)
    if pid is None:
        return

    def watch() -> None:
        while Path(f"/proc/{pid}").exists():
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-the-run", daemon=True).start()
