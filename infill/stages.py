"""The table of stages, and how one is run: its address in the store, its MLflow run, its manifest.

A step of the pipeline (`infill.pipeline_step`), the driver of a RayJob and the command line call `execute`. A stage's
bytes live at `{store}/{stage}/{key}`; what travels between steps is the manifest.
"""

import contextlib
import fcntl
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from infill import manifest, storage, tracking
from infill.errors import InputError
from infill.manifest import Manifest

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
