"""A step of the pipeline: what the bodies of KFP components call.

It runs its stage in this process or, on a cluster, asks for a RayJob. Besides `preflight` and `release` no other module
knows `infill.cluster`.
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
from infill.cluster import settings as cluster_settings
from infill.cluster.sizing import RAY_STAGES
from infill.errors import InfillError
from infill.manifest import Manifest
from infill.stages import RUN, STAGES, execute

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
    """What a KFP component's body calls: run a stage and write its manifest to the file `output`.

    `inputs` maps input names to manifest files; `settings` are overrides of the preset (`config.to_text`). Where
    INFILL_CLUSTER is set, a stage that outgrows one pod runs as a RayJob. A mistake that the user can mend ends the
    process with one sentence instead of a traceback, and with the error's exit code.
    """
    _end_with_the_run()
    with sentence(label or name):
        cluster = cluster_settings.read()
        _join_the_run(preset)
        if cluster is not None and name in RAY_STAGES:
            from infill.cluster import stage  # with the kubernetes client

            return stage.run(
                name,
                settings=cluster,
                preset=preset,
                overrides=configuration.from_text(settings),
                store=store,
                inputs=inputs,
                output=output,
                label=label,
            )
        config = getattr(configuration.resolve(preset, configuration.from_text(settings)), STAGES[name].settings)
        made = execute(name, config, inputs, store, label=label)
        storage.write_json(output, dataclasses.asdict(made))
    return made


@contextlib.contextmanager
def sentence(name: str) -> Iterator[None]:
    """Inside, an error that `entry.explain` knows ends the process (SystemExit) with its sentence on stderr.

    Other errors than InfillError show their traceback before it, which stands in the step's log. Libraries log their
    warnings only, since KFP shows what each of them has to say.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("infill").setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        told = entry.explain(error)
        if told is None:
            raise
        if not isinstance(error, InfillError):
            traceback.print_exc()
        sys.stderr.write(f"infill: {name}: {told}\n")
        raise SystemExit(entry.exit_code(error)) from error


def finish(state: str) -> None:
    """What the pipeline's exit handler calls: sweep what is left of the run, and end its MLflow run.

    `state` is the run's, as KFP names it. On one machine there is nothing to do.
    """
    with sentence("finish"):
        run = os.environ.get(RUN, "")
        if not run or cluster_settings.read() is None:
            return
        from infill.cluster import api, launch  # with the kubernetes client

        for name in launch.sweep(api.connect(), run):
            sys.stderr.write(f"[infill] deleted RayJob {name}, which had not ended\n")
        if not os.environ.get("MLFLOW_RUN_ID"):
            tracking.end_run(tracking.parent_run("infill", run), "FINISHED" if state == "SUCCEEDED" else "FAILED")


def _join_the_run(preset: str) -> None:
    """On a cluster: the MLflow run that all steps of the pipeline run share, unless the platform has opened one."""
    run = os.environ.get(RUN, "")
    if run and not os.environ.get(tracking.PARENT_RUN) and not os.environ.get("MLFLOW_RUN_ID"):
        os.environ[tracking.PARENT_RUN] = tracking.parent_run(f"infill-{preset}", run)


def _end_with_the_run() -> None:
    """End this process when the local run that started it is gone: nobody would use what it makes."""
    pid = os.environ.get(RUN_PID)
    if pid is None:
        return

    def watch() -> None:
        while Path(f"/proc/{pid}").exists():
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-the-run", daemon=True).start()
