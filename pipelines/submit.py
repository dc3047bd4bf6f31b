"""Start a run of the pipeline on Kubeflow Pipelines: upload the compiled pipeline unless it is there, then run it."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from components.images import image
from infill import config
from infill.errors import InputError
from infill.text import DecodeError, read_text
from pipelines.full import compile_pipeline, infill
from pipelines.service import Service

PIPELINE: Final = infill.name
EXPERIMENT: Final = "infill"
PARAMETERS: Final = tuple(infill.component_spec.inputs)


def read_parameters(file: Path) -> dict[str, Any]:
    """The run's parameters in a YAML or JSON file. Raises InputError for a file that holds something else."""
    try:
        given = yaml.safe_load(read_text(file))
    except (OSError, DecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} holds no parameters ({error}); write YAML, as: preset: small") from error
    if not isinstance(given, dict):
        raise InputError(f"{file} holds no parameters; write one a line, as: preset: small")
    return check(given)


def check(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, if the pipeline knows them and the preset knows the settings. Raises InputError otherwise."""
    if unknown := sorted(set(parameters) - set(PARAMETERS)):
        raise InputError(f"the pipeline has no parameter {unknown[0]!r}; it has {', '.join(PARAMETERS)}")
    config.resolve(str(parameters.get("preset", "demo")), settings_in(parameters))
    if "store" in parameters and "://" not in str(parameters["store"]):
        raise InputError(f"store {parameters['store']} is a folder of this machine; a cluster needs s3:// or the like")
    return dict(parameters)


def settings_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among a run's parameters: names and values, or the JSON text as which they travel.

    Raises InputError for anything else.
    """
    settings = parameters.get("settings") or {}
    if isinstance(settings, str):
        return config.from_text(settings)
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must be names and values, as {{sft.train.steps: 10}}, got {settings!r}")
    return dict(settings)


def submit(service: Service, parameters: Mapping[str, Any], *, service_account: str = "") -> dict[str, str]:
    """Start a run; return its `run` (id), its `url`, and the `version` of the `pipeline`, "uploaded" or "reused".

    The version's name holds the digest of its content, so an unchanged pipeline is uploaded once.
    """
    checked = check(parameters)
    if settings := settings_in(checked):
        checked["settings"] = config.to_text(settings)
    if "store" not in checked:
        raise InputError("the run has no store: name an object-store prefix, as --store s3://bucket/infill")
    if "@sha256:" not in image("pipeline"):
        raise InputError(
            f"the images have no digests ({image('pipeline')}), so a cluster could run others than it has cached: push "
            "them by REGISTRY=... images/build.sh, and give --images dist/images.json"
        )
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compile_pipeline(compiled)
        name = f"{PIPELINE}-{hashlib.sha256(compiled.read_bytes()).hexdigest()[:16]}"
        pipeline = service.pipeline(PIPELINE)
        version, uploaded = service.version(pipeline, name, compiled)
    made = service.start(
        {
            "display_name": f"infill-{checked.get('preset', 'demo')}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            "experiment_id": service.experiment(EXPERIMENT),
            "pipeline_version_reference": {"pipeline_id": pipeline, "pipeline_version_id": version},
            "runtime_config": {"parameters": json.loads(json.dumps(checked))},
            "service_account": service_account,
        }
    )
    run = str(made["run_id"])
    return {"run": run, "url": service.page(run), "version": name, "pipeline": "uploaded" if uploaded else "reused"}
