"""A stage as a KubeRay RayJob: a plain dict, which no client library can change.

The name is a pure function of run, stage and configuration, so that a retried step finds its own job again.
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MAX_NAME: Final = 47
"""The longest name of a RayJob; KubeRay rejects longer ones, while Kueue still keeps their quota (kueue#13413)."""

RUN_LABEL: Final = "infill.dev/run"
STAGE_LABEL: Final = "infill.dev/stage"
JOB_LABEL: Final = "infill.dev/job"
ROLE_LABEL: Final = "infill.dev/role"
HASH_ANNOTATION: Final = "infill.dev/config-hash"
SUSPENDED_ANNOTATION: Final = "infill.dev/suspended"
SUBMITTER: Final = "ray-job-submitter"
CACHE: Final = "/cache"
GIB: Final = 1 << 30

Manifest = dict[str, Any]

RESTRICTED_POD: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# The root file system is read-only, so every library's cache is in an emptyDir. Ray asks for a token if its home
# holds one, but KubeRay sends none unless the job has `authOptions`.
CACHES: Final[Mapping[str, str]] = {
    "HOME": CACHE,
    "HF_HOME": f"{CACHE}/huggingface",
    "MPLCONFIGDIR": f"{CACHE}/matplotlib",
    "NUMBA_CACHE_DIR": f"{CACHE}/numba",
    "TORCH_EXTENSIONS_DIR": f"{CACHE}/torch_extensions",
    "TRITON_CACHE_DIR": f"{CACHE}/triton",
    "XDG_CACHE_HOME": CACHE,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Pods of one size. Requests equal limits, so that no pod is evicted for memory within its limit."""

    replicas: int = 1
    cpu: int = 2
    """Number of cores."""
    memory_gib: int = 8
    gpus: int = 0
    disk_gib: int = 20
    """Limit of the emptyDir at /tmp (Ray's session, spilled objects) and of the one at /cache."""

    def __post_init__(self) -> None:
        _check(min(self.replicas, self.cpu, self.memory_gib, self.disk_gib) > 0, "a group's sizes must be positive")
        _check(self.gpus >= 0, "a group's gpus must not be negative")

    @property
    def shared_memory_gib(self) -> int:
        """Size of /dev/shm: half of the memory, of which Ray's object store takes half, NCCL and loaders the rest."""
        return max(1, self.memory_gib // 2)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The image, environment and nodes of the pods; the same for all groups."""

    image: str
    """Image with its digest (`name@sha256:...`), so that a retry runs the same code."""
    pull_secrets: tuple[str, ...] = ()
    service_account: str = "infill-stage"
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables, so that credentials are never in the entrypoint."""
    config_maps: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    gpu_node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    """Read-only mount point of each PersistentVolumeClaim, for sources and base models."""
    gpu_resource: str = "nvidia.com/gpu"
    priority_class: str = ""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """The description of a RayJob, from which `build` makes it."""

    run: str
    """Identifier of the pipeline run, by whose label `lifecycle.sweep` finds the job."""
    stage: str
    config_hash: str
    """Hash of everything that determines the result: stage version, configuration, inputs' digests, image."""
    entrypoint: tuple[str, ...]
    """Words of the driver's command. Two shells read them on their way to the head, so only plain characters are
    allowed; anything else is passed as an environment variable."""
    driver_gpus: int = 0
    """GPUs that the driver itself uses; it then runs on a worker, not on the head."""
    placement: Placement
    head: Group = field(default_factory=Group)
    workers: tuple[Group, ...] = ()
    ray_version: str = "2.60.0"
    pre_running_deadline: int = 1_800
    """Seconds until the cluster must run; without a limit a job that never fits waits forever (kuberay#1991)."""
    active_deadline: int = 604_800
    """Seconds for each attempt, from the time at which its cluster is requested; after this KubeRay does not retry."""
    retries: int = 2
    """Number of retries, each with a new RayCluster; the stage finds its last checkpoint in the store."""
    ttl: int = 120
    """Seconds for which the finished cluster is kept for its logs."""
    queue: str = ""
    """Kueue LocalQueue; empty to run without Kueue."""
    workload_priority: str = ""
    """Kueue WorkloadPriorityClass."""
    owner: Mapping[str, Any] | None = None
    """Owner reference to the run's workflow, so that deleting the run deletes the job. The step's pod is not the owner,
    since the job must survive a retry of the step."""

    def __post_init__(self) -> None:
        _check(bool(self.entrypoint), "the entrypoint must not be empty")
        odd = [word for word in self.entrypoint if not re.fullmatch(r"[\w@%+=:,./-]+", word, flags=re.ASCII)]
        _check(
            not odd, f"entrypoint words {odd} contain characters that a shell interprets: pass them in placement.env"
        )
        _check(self.head.memory_gib >= 4, "the head needs at least 4 GiB: with 2 its probes fail (kuberay#2305)")
        _check(min(self.pre_running_deadline, self.active_deadline) > 0, "both deadlines must be positive")
        most = max((group.gpus for group in self.workers), default=0)
        _check(0 <= self.driver_gpus <= most, f"the driver asks for {self.driver_gpus} GPUs, a worker has {most}")
        _check(self.retries >= 0 and self.ttl >= 0, "retries and ttl must not be negative")

    @property
    def name(self) -> str:
        """The name of the RayJob."""
        return job_name(self.run, self.stage, self.config_hash)


def label_value(text: str) -> str:
    """Return `text` as a label value of at most 63 allowed characters; different texts give different values."""
    if len(text) <= 63 and re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", text, flags=re.ASCII):
        return text
    return f"{_slug(text)[:52]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def job_name(run: str, stage: str, config_hash: str) -> str:
    """Return a DNS label of at most 47 characters: run and stage, then ten digits of a hash of all three arguments."""
    digest = hashlib.sha256("\0".join((run, stage, config_hash)).encode()).hexdigest()[:10]
    tail = f"-{_slug(stage)[:16]}-{digest}"
    return _slug(run)[: MAX_NAME - len(tail)].rstrip("-") + tail


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    # Services are named after the job, and their names must start with a letter.
    return slug if slug[:1].isalpha() else f"r-{slug}".rstrip("-")


def build(job: StageJob) -> Manifest:
    """Return the RayJob (ray.io/v1) to send to the API server."""
    labels = {RUN_LABEL: label_value(job.run), STAGE_LABEL: label_value(job.stage), JOB_LABEL: job.name}
    labels |= {"app.kubernetes.io/name": "infill", "app.kubernetes.io/managed-by": "infill"}
    kueue = {"kueue.x-k8s.io/queue-name": job.queue, "kueue.x-k8s.io/priority-class": job.workload_priority}
    metadata: Manifest = {
        "name": job.name,
        "labels": labels | {key: value for key, value in kueue.items() if value},
        "annotations": {HASH_ANNOTATION: job.config_hash},
    }
    if job.owner is not None:
        metadata["ownerReferences"] = [dict(job.owner)]
    spec: Manifest = {
        "entrypoint": shlex.join(job.entrypoint),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": job.ttl,
        "backoffLimit": job.retries,
        "preRunningDeadlineSeconds": job.pre_running_deadline,
        "activeDeadlineSeconds": job.active_deadline,
        "submitterConfig": {"backoffLimit": 2},
        "submitterPodTemplate": _submitter(job, labels),
        "rayClusterSpec": {
            "rayVersion": job.ray_version,
            "headGroupSpec": _head(job, labels),
            "workerGroupSpecs": [_workers(job, labels, number, group) for number, group in enumerate(job.workers)],
        },
    }
    if job.driver_gpus:
        spec["entrypointNumGpus"] = job.driver_gpus
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def _head(job: StageJob, labels: Mapping[str, str]) -> Manifest:
    # Ray's parameters are strings. If there are workers, the head runs only the driver, no tasks.
    start = {"dashboard-host": "0.0.0.0"} | _ray_memory(job.head) | ({"num-cpus": "0"} if job.workers else {})
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    container = _container(job, job.head, "ray-head")
    container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    return {"rayStartParams": start, "template": _pod(job, job.head, container, {**labels, ROLE_LABEL: "head"})}


def _workers(job: StageJob, labels: Mapping[str, str], number: int, group: Group) -> Manifest:
    container = _container(job, group, "ray-worker")
    return {
        "groupName": f"{'gpu' if group.gpus else 'cpu'}-{number}",
        "replicas": group.replicas,
        "minReplicas": group.replicas,
        "maxReplicas": group.replicas,
        "rayStartParams": _ray_memory(group),
        "template": _pod(job, group, container, {**labels, ROLE_LABEL: "worker"}),
    }


def _submitter(job: StageJob, labels: Mapping[str, str]) -> Manifest:
    """Return the template of the pod that runs `ray job submit` and prints the driver's log, which the step repeats."""
    small = Group(cpu=1, memory_gib=1, disk_gib=1)
    pod = _pod(job, small, _container(job, small, SUBMITTER), {**labels, ROLE_LABEL: "submitter"})
    pod["spec"]["restartPolicy"] = "Never"
    return pod


def _ray_memory(group: Group) -> dict[str, str]:
    return {"object-store-memory": str(group.shared_memory_gib * GIB // 2)}


def _container(job: StageJob, group: Group, name: str) -> Manifest:
    place = job.placement
    amounts: dict[str, str] = {"cpu": str(group.cpu), "memory": f"{group.memory_gib}Gi"}
    amounts |= {"ephemeral-storage": f"{2 * group.disk_gib}Gi"}
    amounts |= {place.gpu_resource: str(group.gpus)} if group.gpus else {}
    # Kubernetes replaces $(NAME) in values; $$( escapes it.
    env = {name: value.replace("$(", "$$(") for name, value in {**CACHES, **place.env}.items()}
    sources = [{"secretRef": {"name": name}} for name in place.secrets]
    sources += [{"configMapRef": {"name": name}} for name in place.config_maps]
    mounts = {"shm": "/dev/shm", "tmp": "/tmp", "cache": CACHE}
    return {
        "name": name,
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in sorted(env.items())],
        "envFrom": sources,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": dict(RESTRICTED_CONTAINER),
        "volumeMounts": [
            *({"name": key, "mountPath": path} for key, path in mounts.items()),
            *(
                {"name": f"claim-{number}", "mountPath": path, "readOnly": True}
                for number, path in enumerate(place.claims.values())
            ),
        ],
    }


def _pod(job: StageJob, group: Group, container: Manifest, labels: Mapping[str, str]) -> Manifest:
    place = job.placement
    disk = {"sizeLimit": f"{group.disk_gib}Gi"}
    tolerations = [dict(toleration) for toleration in place.tolerations]
    if group.gpus:
        tolerations.append({"key": place.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    spec: Manifest = {
        "serviceAccountName": place.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(RESTRICTED_POD),
        "imagePullSecrets": [{"name": name} for name in place.pull_secrets],
        "nodeSelector": {**place.node_selector, **(place.gpu_node_selector if group.gpus else {})},
        "tolerations": tolerations,
        "containers": [container],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{group.shared_memory_gib}Gi"}},
            {"name": "tmp", "emptyDir": dict(disk)},
            {"name": "cache", "emptyDir": dict(disk)},
            *(
                {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
                for number, claim in enumerate(place.claims)
            ),
        ],
    }
    if place.priority_class:
        spec["priorityClassName"] = place.priority_class
    return {"metadata": {"labels": dict(labels)}, "spec": spec}
