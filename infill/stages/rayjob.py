"""A stage as a RayJob: the pipeline's step requests it (`run`), the driver on the Ray head executes it (`drive`).

The request is passed as an environment variable, the answer (the manifest) as a small file in the store. The step
itself imports no stage, so its image needs neither torch nor Ray.
"""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TextIO

from infill import config as configuration
from infill import manifest, storage
from infill.cluster.api import Api, connect
from infill.cluster.job_settings import JobSettings
from infill.cluster.lifecycle import LauncherPatience, launch, owner_of
from infill.errors import InfillError, InputError
from infill.manifest import Manifest
from infill.stages import sizing
from infill.stages.contract import RUN
from infill.stages.runner import execute
from infill.stages.table import STAGES

REQUEST: Final = "INFILL_STAGE_REQUEST"
PASSED: Final = ("INFILL_PARENT_RUN_ID", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
"""Environment variables that a job's driver needs to log to the step's MLflow run."""
ENTRYPOINT: Final = ("python", "-m", "infill.stages.rayjob")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A stage to execute, as passed to the driver."""

    stage: str
    preset: str
    settings: Mapping[str, Any]
    """Overrides of the preset."""
    store: str
    inputs: Mapping[str, str]
    """URI of each input's finished artifact."""
    label: str
    result: str
    """URI of the file to which the driver writes the manifest."""


def _load_inputs(name: str, inputs: Mapping[str, str]) -> dict[str, Manifest]:
    """Return the artifact of each input of a stage. Raises InputError for one that is missing."""
    required = STAGES[name].inputs
    if missing := [each for each in required if each not in inputs]:
        raise InputError(f"stage {name} needs the inputs {', '.join(missing)}")
    return {each: manifest.load(inputs[each]) for each in required}


def run(
    name: str,
    *,
    settings: JobSettings,
    preset: str,
    overrides: Mapping[str, Any],
    store: str,
    inputs: Mapping[str, str],
    output: str,
    label: str = "",
    api: Api | None = None,
    out: TextIO | None = None,
    patience: LauncherPatience | None = None,
) -> Manifest:
    """Run the stage as a RayJob, write its manifest to the file `output`, and return it.

    `inputs` holds the file of each input's manifest. Raises what `launch` raises, and InputError for a missing input,
    an unknown setting, or a step outside a pipeline run.
    """
    identity = os.environ.get(RUN, "")
    if not identity:
        raise InputError(f"{RUN} is not set: a stage on a cluster needs the identifier of its pipeline run")
    api = api or connect()
    overrides = {**overrides, **sizing.on_ray(preset, name)}
    resolved = configuration.resolve(preset, overrides)
    loaded = _load_inputs(name, inputs)
    digests = {each: artifact.digest for each, artifact in loaded.items()}
    config = dataclasses.asdict(STAGES[name].settings(resolved))
    key = _digest([name, label, config, digests, settings.image])
    result = storage.join(store, "steps", f"{_digest([identity, key])[:16]}.json")
    uris = {each: artifact.uri for each, artifact in loaded.items()}
    request = Request(
        stage=name, preset=preset, settings=overrides, store=store, inputs=uris, label=label, result=result
    )
    job = settings.job(
        run=identity,
        stage=label or name,
        config_hash=key,
        entrypoint=ENTRYPOINT,
        env=_environment(request) | {"INFILL_IMAGE": settings.image},
        groups=sizing.groups(preset, resolved, name),
        driver_gpus=sizing.driver_gpus(preset, resolved, name),
        owner=_owner(api),
    )
    launch(api, job, on_stop=settings.on_stop, out=out or sys.stderr, patience=patience)
    artifact = manifest.load(result)
    storage.write_json(output, dataclasses.asdict(artifact))
    return artifact


def _environment(request: Request) -> dict[str, str]:
    env = {name: os.environ[name] for name in PASSED if name in os.environ}
    return env | {REQUEST: configuration.to_text(dataclasses.asdict(request))}


def _owner(api: Api) -> Mapping[str, Any] | None:
    pod = os.environ.get("HOSTNAME", "")
    return owner_of(api, pod) if pod else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def drive(environment: Mapping[str, str]) -> int:
    """Execute the requested stage on the Ray head; return the exit code, 2 for an error, which goes to stderr."""
    try:
        request = Request(**json.loads(environment[REQUEST]))
        resolved = configuration.resolve(request.preset, request.settings)
        config = STAGES[request.stage].settings(resolved)
        artifact = execute(request.stage, config, request.inputs, request.store, label=request.label)
        storage.write_json(request.result, dataclasses.asdict(artifact))
    except InfillError as error:
        sys.stderr.write(f"infill: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(drive(os.environ))
