"""Cluster settings of a step: resources, configuration, secrets, nodes, retries. The local runner ignores them all.

The names are those of charts/infill-platform. `INFILL_VALUES` may name the file of values (YAML) with which the chart
was installed; it is read when the pipeline is compiled.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Final

import yaml
from kfp import dsl, kubernetes

from infill import storage
from infill.api_key import KEY_VARIABLE
from infill.cluster import job_settings
from infill.errors import InputError
from infill.release import signature
from infill.stages import RAY_STAGES, RUN, STAGES
from infill.text import read_text

VALUES: Final = "INFILL_VALUES"
CONFIG_MAPS: Final[Mapping[str, tuple[str, ...]]] = {
    "infill-environment": ("INFILL_STORE", "MLFLOW_TRACKING_URI", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
    "infill-cluster": (job_settings.VARIABLE,),
}
"""The chart's ConfigMaps with their keys, each an environment variable. All are optional, since preflight reports what
is missing in a sentence, while a pod that cannot start reports nothing."""
CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
LOGIN: Final = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""Keys of the Secrets, each an environment variable. They are optional, as a cluster may have other ways to log in."""
KEYS: Final[Mapping[str, str]] = {"register": signature.SIGNING_KEY, "deploy": signature.VERIFY_KEY}
"""The key that a step takes from the gate's Secret: one signs the decision, the other requires that signature."""
RUN_LABEL: Final = "metadata.labels['pipeline/runid']"
"""KFP's label with the run's id on every pod. If the id were a parameter, each run would miss KFP's cache."""
USER: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Room:
    """Requests and limits of a step's pod."""

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str


WAITS: Final = Room(cpu_request="200m", cpu_limit="1", memory_request="1Gi", memory_limit="2Gi")
"""For steps that ask for something and wait."""
WORKS: Final = Room(cpu_request="1", cpu_limit="4", memory_request="2Gi", memory_limit="8Gi")
"""For stages that run in the step."""


@dataclass(frozen=True, kw_only=True)
class PodPlacement:
    """The settings of pods in the chart's values."""

    secret: str = "infill-object-store"
    login: str = "infill-mlflow-client"
    client: str = "infill-client"
    gate: str = "infill-gate"
    pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)


@cache
def place() -> PodPlacement:
    """Return the settings in the file of values, else the chart's defaults. Raises InputError for an invalid file."""
    file = os.environ.get(VALUES, "")
    if not file:
        return PodPlacement()
    try:
        values = yaml.safe_load(read_text(storage.local_path(file))) or {}
        jobs = values.get("jobs") or {}
        return PodPlacement(
            secret=(values.get("objectStore") or {}).get("secretName", PodPlacement.secret),
            login=((values.get("mlflow") or {}).get("auth") or {}).get("clientSecret", PodPlacement.login),
            gate=(values.get("gate") or {}).get("secretName", PodPlacement.gate),
            client=(values.get("client") or {}).get("secretName", PodPlacement.client),
            pull_secrets=tuple(values.get("imagePullSecrets") or ()),
            node_selector=dict(jobs.get("nodeSelector") or {}),
            tolerations=tuple(jobs.get("tolerations") or ()),
            claims=dict(jobs.get("claims") or {}),
        )
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is not a file of values of charts/infill-platform ({error}): check INFILL_VALUES"
        ) from error


def on_cluster(task: dsl.PipelineTask, *, retries: int = 2) -> dsl.PipelineTask:
    """Add to `task` what a cluster needs to run it; return the same task."""
    where, name = place(), task.component_spec.name
    room = WORKS if name in STAGES and name not in RAY_STAGES else WAITS
    # Each of KFP's setters reads the sources of all calling modules (`inspect.stack`): seconds for the whole pipeline.
    task.container_spec.resources = dsl.structures.ResourceSpec(**asdict(room))
    if retries:
        # KubeRay itself retries a stage; this covers the step: a lost node, an update of the API server.
        task.set_retry(num_retries=retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    for config_map, names in CONFIG_MAPS.items():
        kubernetes.use_config_map_as_env(task, config_map, {key: key for key in names}, optional=True)
    for secret, keys in ((where.secret, CREDENTIALS), (where.login, LOGIN), (where.client, (KEY_VARIABLE,))):
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    if name in KEYS:
        kubernetes.use_secret_as_env(task, where.gate, {KEYS[name]: KEYS[name]}, optional=True)
    kubernetes.use_field_path_as_env(task, RUN, RUN_LABEL)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="1Gi")
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    for key, value in where.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for claim, path in where.claims.items():
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
    if where.tolerations:
        kubernetes.add_toleration_json(task, [dict(toleration) for toleration in where.tolerations])
    if where.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(where.pull_secrets))
    return task
