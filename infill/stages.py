"""The table of stages, and the runner of a stage: its address in the store, its MLflow run, its manifest.

A step of the pipeline (`infill.pipeline_step`), the driver of a RayJob and the command line call `execute`. A stage's
bytes are at `{store}/{stage}/{key}`; only manifests travel between steps.
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
"""Environment variable with the identifier of a pipeline run on a cluster, the same for all steps and retries."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A row of the table of stages."""

    module: str
    """Module with `run(config, *inputs, output)`, `STAGE` and `VERSION`; and with `external(config)`, which returns
    names and digests, if the stage reads more than its inputs."""
    settings: str
    """Name of the stage's field in a `Preset`."""
    inputs: tuple[str, ...] = ()
    """Names of the artifacts that `run` takes, in order."""
    about: str
    """Description of the stage for --help."""


EVALUATED: Final = ("base", "sft", "dpo")
"""The models of a run, in the order of their training."""

STAGES: Final[Mapping[str, Stage]] = {
    "corpus": Stage(
        module="infill.corpus.build",
        settings="corpus",
        about="read sources, keep the files that may be trained on, and record why each other file was removed",
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
        about="write the deployment record that `infill serve` reads; on a cluster, serve the model by KServe",
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
    """Return the URI in `store` for the result of stage `name` with `config` and `inputs` (URIs by name)."""
    module = _module(name)
    key = manifest.key(module.STAGE, module.VERSION, config, _digests(module, config, inputs))
    return storage.join(store, name, key)


def execute(
    name: str, config: Any, inputs: Mapping[str, str], store: str, *, output: str = "", label: str = ""
) -> Manifest:
    """Run stage `name`, unless its result exists; return its manifest.

    `inputs` maps each of the stage's input names to the URI of a finished artifact or of its manifest. The result is
    written to `output`, by default its address in `store`. `label` names the MLflow run of a stage that runs more than
    once. Raises InputError for a missing input.
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
    """Return the gate's decision from the artifact of the register stage."""
    value: dict[str, Any] = storage.read_json(storage.join(folder, "decision.json"))
    return value


def _module(name: str) -> ModuleType:
    return importlib.import_module(STAGES[name].module)


def _digests(module: ModuleType, config: Any, inputs: Mapping[str, str]) -> dict[str, str]:
    digests = {name: manifest.digest_of(uri) for name, uri in inputs.items()}
    return digests | (module.external(config) if hasattr(module, "external") else {})


@contextlib.contextmanager
def _alone(output: str) -> Iterator[None]:
    """Hold a lock on the local folder `output`, so that no other process of this machine writes to it.

    A step of a killed run may live on for a moment; two writers would damage the folder. On an object store, the
    orchestrator ensures that a step runs once.
    """
    if not storage.is_local(output):
        yield
        return
    lock = Path(f"{storage.local_path(output)}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
