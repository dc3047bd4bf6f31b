"""The table of stages, and how one is run: its address in the store, its MLflow run, its manifest.

A step of the pipeline calls `step`, which runs its stage here or, on a cluster, asks for a RayJob; the RayJob's driver
and the command line call `execute`. A stage's bytes live at `{store}/{stage}/{key}`; what travels between steps is the
manifest.
"""

import contextlib
import dataclasses
import fcntl
import importlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from infill import config as configuration
from infill import entry, manifest, storage, tracking
from infill.cluster import settings as cluster_settings
from infill.cluster.sizing import RAY_STAGES
from infill.errors import InfillError, InputError
from infill.manifest import Manifest

RUN_PID: Final = "INFILL_RUN_PID"
"""Process id of the local run that a step belongs to: the step ends itself when that process is gone."""
RUN: Final = "INFILL_RUN"
"""Identifier of the pipeline run on a cluster; the same for all its steps and their retries."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's place in the library and in the data flow."""

    module: str
    """Has `run(config, *inputs, output)`, `STAGE` and `VERSION`; and `external(config)` if it reads more than its
    inputs: names and digests of that."""
    settings: str
    """Its field of a `Preset`."""
    inputs: tuple[str, ...] = ()
    """Names of the artifacts that `run` takes, in order."""
    about: str
    """What it makes, for --help."""


EVALUATED: Final = ("base", "sft", "dpo")
"""The models of a run, in the order in which they are made."""

STAGES: Final[Mapping[str, Stage]] = {
    "corpus": Stage(
        module="infill.corpus.build",
        settings="corpus",
        about="read sources and keep what may be trained on; everything else is kept with the reason for its removal",
    ),
    "tokenizer": Stage(
        module="infill.tokenizer",
        settings="tokenizer",
        inputs=("corpus",),
        about="train a byte-level BPE tokenizer on the corpus, or take that of a base model",
    ),
    "pretrain": Stage(
        module="infill.train.pretrain",
        settings="pretrain",
        inputs=("corpus", "tokenizer"),
        about="train a base model with file-level fill-in-the-middle, or import one",
    ),
    "examples": Stage(
        module="infill.examples",
        settings="examples",
        inputs=("corpus", "tokenizer"),
        about="cut syntactic holes and find their context in the same repository",
    ),
    "sft": Stage(
        module="infill.train.sft",
        settings="sft",
        inputs=("examples", "model"),
        about="fine-tune on the middle of each hole",
    ),
    "preferences": Stage(
        module="infill.preferences.build",
        settings="preferences",
        inputs=("examples", "model"),
        about="sample completions, judge them, and pair the better with the worse",
    ),
    "dpo": Stage(
        module="infill.train.dpo",
        settings="dpo",
        inputs=("preferences", "model"),
        about="prefer the chosen completion over the rejected one (direct preference optimisation)",
    ),
    "evaluate": Stage(
        module="infill.evaluate.stage",
        settings="evaluate",
        inputs=("examples", "model"),
        about="complete the holes of held-out repositories and measure",
    ),
    "register": Stage(
        module="infill.release.stage",
        settings="register",
        inputs=(
            "examples",
            *(f"model_{name}" for name in EVALUATED),
            *(f"evaluation_{name}" for name in EVALUATED),
        ),
        about="choose the winner, compare it with the champion, and register it when the gate lets it through",
    ),
    "deploy": Stage(
        module="infill.release.deploy",
        settings="deploy",
        inputs=("decision",),
        about="write the deployment record that `infill serve` obeys; on a cluster, put the model behind KServe",
    ),
    "report": Stage(
        module="infill.report",
        settings="report",
        inputs=(
            "corpus",
            "tokenizer",
            "base",
            "examples",
            "sft",
            "preferences",
            "dpo",
            *(f"evaluation_{name}" for name in EVALUATED),
            "decision",
        ),
        about="write one HTML file with plots, and the run's summary",
    ),
}


def address(name: str, config: Any, inputs: Mapping[str, str], store: str) -> str:
    """Where stage `name` puts what it makes of `config` and the artifacts `inputs` (name -> URI)."""
    module = _module(name)
    key = manifest.key(module.STAGE, module.VERSION, config, _digests(module, config, inputs))
    return storage.join(store, name, key)


def execute(
    name: str, config: Any, inputs: Mapping[str, str], store: str, *, output: str = "", label: str = ""
) -> Manifest:
    """Run stage `name`, or find that it has been run; return its manifest.

    `inputs` maps each of the stage's input names to the URI of a finished artifact or of its manifest. The result goes
    to `output`, by default to its address in `store`. `label` names the MLflow run where a stage runs more than once.
    Raises InputError for a missing input.
    """
    stage = STAGES[name]
    missing = [wanted for wanted in stage.inputs if wanted not in inputs]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}")
    artifacts = {wanted: manifest.load(inputs[wanted]) for wanted in stage.inputs}
    folders = {wanted: artifact.uri for wanted, artifact in artifacts.items()}
    output = storage.absolute(output or address(name, config, folders, store))
    if manifest.find(output) is None:
        for artifact in artifacts.values():
            manifest.check(artifact)
    tags = {"infill.output": output}
    with _alone(output), tracking.stage_run(label or name, config=config, tags=tags, key=output) as tracker:
        metrics = _module(name).run(config, *folders.values(), output=output)
        tracker.metrics(metrics)
    return manifest.load(output)


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


def read_decision(folder: str) -> dict[str, Any]:
    """The gate's decision in the artifact of the register stage."""
    value: dict[str, Any] = storage.read_json(storage.join(folder, "decision.json"))
    return value


def _module(name: str) -> ModuleType:
    return importlib.import_module(STAGES[name].module)


def _digests(module: ModuleType, config: Any, inputs: Mapping[str, str]) -> dict[str, str]:
    digests = {name: manifest.digest_of(uri) for name, uri in inputs.items()}
    return digests | (module.external(config) if hasattr(module, "external") else {})


@contextlib.contextmanager
def _alone(output: str) -> Iterator[None]:
    """Wait until no other process of this machine works on `output`, and keep others waiting.

    A step whose run was killed may live on for a moment; two writers in one folder would spoil it. On an object store
    the orchestrator sees to it that a step runs once.
    """
    if not storage.is_local(output):
        yield
        return
    lock = Path(f"{storage.local_path(output)}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
