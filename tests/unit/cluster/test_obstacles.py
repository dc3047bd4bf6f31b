"""What waiting does not cure ends a job after the grace, in the cluster's own words; what passes does not end it."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infill.cluster.api import Api
from infill.cluster.failure import KINDS, obstacle
from infill.cluster.lifecycle import launch
from infill.cluster.stage_job import StageJob
from tests.unit.cluster.conftest import QUICK
from tests.unit.cluster.kuberay import KubeRay
from tests.unit.cluster.test_lifecycle import meanwhile, run_to_failure, started

Thing = dict[str, Any]
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def stamp(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


def event(kind: str, name: str, message: str, at: float = 0, **more: Any) -> Thing:
    return {
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "message": message,
        "lastTimestamp": stamp(at),
        "metadata": {"name": "e"},
        **more,
    }


def job(created: float = -60) -> Thing:
    return {"metadata": {"name": "j", "creationTimestamp": stamp(created)}, "status": {"rayClusterName": "c"}}


def pod(*, created: float = -50, container: Thing | None = None, **status: Any) -> Thing:
    statuses = {"containerStatuses": [{"name": "ray-head", "image": "i", **container}]} if container else {}
    metadata = {"name": "p", "creationTimestamp": stamp(created)}
    return {"metadata": metadata, "status": {"phase": "Pending", **statuses, **status}}


def waiting(reason: str, message: str = "") -> Thing:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


REFUSED = 'Failed to create head Pod ml/c-head, pods "c-head" is forbidden: '
EVENTS = [
    ("RayCluster", "quota", REFUSED + "exceeded quota: team, requested: limits.cpu=4, used: limits.cpu=8"),
    (
        "RayCluster",
        "missing",
        REFUSED + 'error looking up service account ml/infill-stage: serviceaccount "infill-stage" not found',
    ),
    ("RayCluster", "missing", REFUSED + "no PriorityClass with name urgent was found"),
    ("RayCluster", "missing", REFUSED + 'pod rejected: RuntimeClass "gvisor" not found'),
    ("RayCluster", "refused", REFUSED + 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'),
    ("RayCluster", "refused", REFUSED + "[maximum memory usage per Container is 1Gi, but limit is 16Gi]"),
    ("RayCluster", "refused", REFUSED + "minimum cpu usage per Pod is 8, but request is 4"),
    (
        "RayCluster",
        "refused",
        'Failed to create head Pod: admission webhook "validate.kyverno.svc" denied the request: labels',
    ),
    (
        "RayCluster",
        "refused",
        'Failed to create worker Pod: Internal error occurred: failed calling webhook "x": connection refused',
    ),
    (
        "RayCluster",
        "refused",
        REFUSED + "ValidatingAdmissionPolicy 'images' with binding 'all' denied request: registry",
    ),
    (
        "RayCluster",
        "refused",
        'Failed to create head Pod: Pod "c" is invalid: spec.containers[0].resources: Invalid value',
    ),
    (
        "RayJob",
        "refused",
        'Failed to create RayCluster ml/c: rayclusters.ray.io is forbidden: User "operator" cannot create',
    ),
    ("Job", "missing", 'Error creating: pods "j-x" is forbidden: no PriorityClass with name urgent was found'),
    ("Pod", "missing", 'MountVolume.SetUp failed for volume "cert" : secret "cert" not found'),
    ("Pod", "missing", 'MountVolume.SetUp failed for volume "conf" : configmap "conf" not found'),
    ("Pod", "missing", 'MountVolume.SetUp failed for volume "conf" : references non-existent secret key: ca.crt'),
]
NAMES = {"RayCluster": "c", "RayJob": "j", "Job": "j", "Pod": "p"}


@pytest.mark.parametrize(("about", "kind", "message"), EVENTS, ids=[f"{each[0]}-{each[2][-30:]}" for each in EVENTS])
def test_what_operators_and_kubelet_say_is_understood(about: str, kind: str, message: str) -> None:
    reason = obstacle(job(), [pod()], [event(about, NAMES[about], message)])
    assert reason is not None
    assert reason.kind == kind
    assert message[-20:] in reason.sentence
    assert "\n" not in reason.sentence


CONTAINERS = [
    (waiting("CreateContainerConfigError", 'secret "infill-object-store" not found'), "missing"),
    (waiting("CreateContainerConfigError", 'configmap "infill-environment" not found'), "missing"),
    (waiting("CreateContainerConfigError", "couldn't find key token in Secret ml/infill"), "missing"),
    (waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), "refused"),
    (waiting("RunContainerError", 'exec: "ray": executable file not found in $PATH'), "crash"),
    (waiting("CreateContainerError", "context deadline exceeded"), "crash"),
    (waiting("ImagePullBackOff", "not found"), "image"),
    (waiting("ErrImageNeverPull", "not present"), "image"),
    (waiting("CrashLoopBackOff") | {"restartCount": 3, "lastState": {"terminated": {"exitCode": 1}}}, "crash"),
    (
        {"restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}},
        "crash",
    ),
    (
        waiting("CrashLoopBackOff")
        | {"restartCount": 3, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
        "memory",
    ),
]


@pytest.mark.parametrize(("container", "kind"), CONTAINERS)
def test_what_a_container_waits_for_is_understood(container: Thing, kind: str) -> None:
    reason = obstacle(job(), [pod(container=container)], [])
    assert reason is not None
    assert reason.kind == kind


def test_a_claim_that_does_not_exist_is_missing_and_a_full_cluster_is_waited_for() -> None:
    def unschedulable(message: str) -> Thing:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return pod(conditions=[condition])

    reason = obstacle(job(), [unschedulable('persistentvolumeclaim "sources" not found')], [])
    assert reason is not None
    assert reason.kind == "missing"
    assert obstacle(job(), [unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")], []) is None
    assert obstacle(job(), [unschedulable("pod has unbound immediate PersistentVolumeClaims")], []) is None


QUOTA = EVENTS[0][2]
MOUNT = EVENTS[-3][2]
SANDBOX = {"type": "PodReadyToStartContainers", "status": "True"}
PASSED: dict[str, tuple[Thing, list[Thing], list[Thing]]] = {
    "of an earlier job of that name": (job(created=10), [], [event("RayCluster", "c", QUOTA, at=0)]),
    "before a pod was made after all": (job(), [pod(created=5)], [event("RayCluster", "c", QUOTA, at=0)]),
    "a mount that succeeded": (job(), [pod(conditions=[SANDBOX])], [event("Pod", "p", MOUNT)]),
    "a pod that runs": (job(), [pod(phase="Running")], [event("Pod", "p", MOUNT)]),
    "no warning": (job(), [], [event("RayJob", "j", QUOTA, type="Normal")]),
    "a cluster that is being made": (job(), [], [event("RayJob", "j", 'rayclusters.ray.io "c" not found')]),
    "a conflict": (
        job(),
        [],
        [event("RayCluster", "c", "Operation cannot be fulfilled: the object has been modified")],
    ),
    "an image without credentials": (
        job(),
        [pod()],
        [event("Pod", "p", "Unable to retrieve some image pull secrets (registry); pulling may not succeed.")],
    ),
    "a container that is made": (job(), [pod(container=waiting("ContainerCreating"))], []),
    "a container that ended once": (
        job(),
        [pod(container={"restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}})],
        [],
    ),
    "a container that ended well": (
        job(),
        [pod(container={"restartCount": 4, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}})],
        [],
    ),
}


@pytest.mark.parametrize(("owner", "pods", "events"), PASSED.values(), ids=PASSED)
def test_what_passes_or_has_passed_is_not_an_obstacle(owner: Thing, pods: list[Thing], events: list[Thing]) -> None:
    assert obstacle(owner, pods, events) is None


# -- Through the launcher ----------------------------------------------------------------------------------------------


def no_account(kuberay: KubeRay, name: str) -> None:
    kuberay.event(f"{name}-c", "RayCluster", "FailedToCreateHeadPod", EVENTS[1][2])


def no_submitter(kuberay: KubeRay, name: str) -> None:
    kuberay.event(name, "Job", "FailedCreate", EVENTS[12][2])


def no_volume(kuberay: KubeRay, name: str) -> None:
    kuberay.pod(name, f"{name}-head", "head", "Pending")
    kuberay.event(f"{name}-head", "Pod", "FailedMount", MOUNT)


def no_secret(kuberay: KubeRay, name: str) -> None:
    statuses = [{"name": "ray-head", "image": "i", "restartCount": 0, **CONTAINERS[0][0]}]
    kuberay.pod(name, f"{name}-head", "head", "Pending", containerStatuses=statuses)


def policy(kuberay: KubeRay, name: str) -> None:
    kuberay.event(f"{name}-c", "RayCluster", "FailedToCreateHeadPod", EVENTS[4][2])


def crash(kuberay: KubeRay, name: str) -> None:
    statuses = [{"name": "ray-head", "image": "i", **CONTAINERS[8][0]}]
    kuberay.pod(name, f"{name}-head", "head", "Running", containerStatuses=statuses)


CASES: list[tuple[Callable[[KubeRay, str], None], str]] = [
    (no_account, "missing"),
    (no_submitter, "missing"),
    (no_volume, "missing"),
    (no_secret, "missing"),
    (policy, "refused"),
    (crash, "crash"),
]


@pytest.mark.parametrize(("cause", "kind"), CASES, ids=[each[0].__name__ for each in CASES])
def test_a_job_that_cannot_start_ends_after_the_grace(
    api: Api, kuberay: KubeRay, job: StageJob, cause: Callable[[KubeRay, str], None], kind: str
) -> None:
    def end() -> None:
        kuberay.status(job.name, "Initializing", rayClusterName=f"{job.name}-c")
        cause(kuberay, job.name)

    error = run_to_failure(api, kuberay, job, end)
    assert error.exit_code == KINDS[kind].exit_code
    assert api.get("rayjobs", job.name) is None


def test_a_cause_that_goes_away_within_the_grace_does_not_end_the_job(
    api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    def operator() -> None:
        started(api, job)
        kuberay.status(job.name, "Initializing", rayClusterName=f"{job.name}-c")
        no_account(kuberay, job.name)
        time.sleep(1.5)  # times of the API server have seconds
        kuberay.pod(job.name, f"{job.name}-head", "head")
        kuberay.status(job.name, "Initializing", rayClusterName=f"{job.name}-c", message="again")
        time.sleep(3.5)
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    with meanwhile(operator):
        launch(api, job, out=io.StringIO(), patience=replace(QUICK, grace=3.0))
