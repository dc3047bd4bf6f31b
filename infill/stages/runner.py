"""The runner of a stage: its key and its address in the store, its lock, its MLflow run, its manifest.

A step of the pipeline (`infill.stages.step`), the driver of a RayJob and the command line call `execute`. A stage's
bytes are at `{store}/{stage}/{key}`; only manifests travel between steps.
"""

import contextlib
import dataclasses
import fcntl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infill import manifest, storage, tracking
from infill.errors import InputError
from infill.manifest import Manifest
from infill.stages.contract import Call
from infill.stages.table import STAGES


def call_of(name: str, settings: Any, inputs: Mapping[str, str], store: str, output: str = "") -> Call[Any]:
    """Return the call of stage `name` for `settings` and `inputs`; this is the only place where a key is computed.

    `inputs` maps each of the stage's input names to the URI of a finished artifact or of its manifest. The result's
    folder is `output`, by default its address in `store`. Raises InputError for a missing input.
    """
    stage = STAGES[name]
    if missing := [wanted for wanted in stage.inputs if wanted not in inputs]:
        raise InputError(f"{name} needs {', '.join(missing)}")
    artifacts = {wanted: manifest.load(inputs[wanted]) for wanted in stage.inputs}
    digests = {wanted: artifact.digest for wanted, artifact in artifacts.items()}
    digests |= stage.outside(settings, digests)
    key = manifest.key(name, stage.version, settings, digests)
    return Call(
        stage=name,
        settings=settings,
        inputs={wanted: artifact.uri for wanted, artifact in artifacts.items()},
        digests=digests,
        key=key,
        output=storage.absolute(output or storage.join(store, name, key)),
    )


def address(name: str, settings: Any, inputs: Mapping[str, str], store: str) -> str:
    """Return the URI in `store` for the result of stage `name` with `settings` and `inputs` (URIs by name)."""
    return call_of(name, settings, inputs, store).output


def execute(
    name: str, settings: Any, inputs: Mapping[str, str], store: str, *, output: str = "", label: str = ""
) -> Manifest:
    """Run stage `name`, unless its result exists; return its manifest, with the figures of `apply` among its metrics.

    The arguments are those of `call_of`. `label` names the MLflow run of a stage that runs more than once. Raises
    InputError for an input that is missing or incomplete, or when `output` holds another artifact.
    """
    stage, call = STAGES[name], call_of(name, settings, inputs, store, output)
    if manifest.find(call.output) is None:
        for uri in call.inputs.values():
            manifest.check(manifest.load(uri))
    tags = {"infill.output": call.output}
    with _alone(call.output), tracking.stage_run(label or name, config=settings, tags=tags, key=call.output) as tracker:
        artifact = manifest.once(
            stage=name,
            version=stage.version,
            key=call.key,
            config=settings,
            inputs=call.digests,
            output=call.output,
            body=lambda: stage.body(call),
        )
        artifact = dataclasses.replace(artifact, metrics={**artifact.metrics, **stage.apply(call)})
        tracker.metrics(artifact.metrics)
    return artifact


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
