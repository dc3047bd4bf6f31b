"""Start a run of the pipeline on Kubeflow Pipelines, after uploading the compiled pipeline if it is new."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from components.images import image
from infill import config
from infill.errors import InputError
from infill.text import DecodeError, read_text
from pipelines.full import compile_pipeline, infill
from pipelines.service import KfpClient

PIPELINE: Final = infill.name
EXPERIMENT: Final = "infill"
PARAMETERS: Final = tuple(infill.component_spec.inputs)


def read_parameters(file: Path) -> dict[str, Any]:
    """Return the run's parameters in a YAML or JSON file. Raises InputError for an invalid file."""
    try:
        parameters = yaml.safe_load(read_text(file))
    except (OSError, DecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} is not a file of parameters ({error}); write YAML such as: preset: small") from error
    if not isinstance(parameters, dict):
        raise InputError(f"{file} is not a file of parameters; write one per line, such as: preset: small")
    return check(parameters)


def check(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run. Raises InputError for an unknown parameter or setting, or a local store."""
    if unknown := sorted(set(parameters) - set(PARAMETERS)):
        raise InputError(f"unknown parameter {unknown[0]!r}; choose from {', '.join(PARAMETERS)}")
    config.resolve(str(parameters.get("preset", "demo")), settings_in(parameters))
    if "store" in parameters and "://" not in str(parameters["store"]):
        raise InputError(f"store must be the URI of an object store, such as s3://bucket, got {parameters['store']}")
    return dict(parameters)


def settings_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a run's parameters, which may be an object or the text of a JSON object.

    Raises InputError for anything else.
    """
    settings = parameters.get("settings") or {}
    if isinstance(settings, str):
        return config.from_text(settings)
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must be an object such as {{sft.train.steps: 10}}, got {settings!r}")
    return dict(settings)


@dataclass(frozen=True, kw_only=True)
class RunTemplate:
    """The parts of a request that starts a run, now or by a schedule."""

    body: dict[str, Any]
    """Fields of KFP's request that runs and recurring runs have in common."""
    preset: str
    version: str
    """Name of the pipeline's version; it contains the digest of its content."""
    uploaded: bool
    """Whether that version is new to KFP."""


def prepare(service: KfpClient, parameters: Mapping[str, Any], *, service_account: str = "") -> RunTemplate:
    """Upload the compiled pipeline if it is new; return what starts a run of it with `parameters`.

    Raises InputError for invalid parameters, a missing store, or images without digests.
    """
    checked = check(parameters)
    if settings := settings_in(checked):
        checked["settings"] = config.to_text(settings)
    if "store" not in checked:
        raise InputError("the run has no store: name an object-store prefix, such as --store s3://bucket/infill")
    if "@sha256:" not in image("pipeline"):
        raise InputError(
            f"the images have no digests ({image('pipeline')}), so a cluster might run outdated ones: push them with "
            "REGISTRY=... images/build.sh, and give --images dist/images.json"
        )
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compile_pipeline(compiled)
        name = f"{PIPELINE}-{hashlib.sha256(compiled.read_bytes()).hexdigest()[:16]}"
        pipeline = service.pipeline(PIPELINE)
        version, uploaded = service.version(pipeline, name, compiled)
    body = {
        "experiment_id": service.experiment(EXPERIMENT),
        "pipeline_version_reference": {"pipeline_id": pipeline, "pipeline_version_id": version},
        "runtime_config": {"parameters": json.loads(json.dumps(checked))},
        "service_account": service_account,
    }
    return RunTemplate(body=body, preset=str(checked.get("preset", "demo")), version=name, uploaded=uploaded)


def submit(service: KfpClient, parameters: Mapping[str, Any], *, service_account: str = "") -> dict[str, str]:
    """Start a run; return its id as `run`, its `url`, the pipeline's `version`, and `pipeline`: uploaded or reused.

    The version's name contains the digest of its content, so that an unchanged pipeline is uploaded once. Raises the
    errors of `prepare`.
    """
    template = prepare(service, parameters, service_account=service_account)
    name = f"infill-{template.preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    run = str(service.start({"display_name": name, **template.body})["run_id"])
    state = "uploaded" if template.uploaded else "reused"
    return {"run": run, "url": service.page(run), "version": template.version, "pipeline": state}
