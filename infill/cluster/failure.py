"""Why a RayJob failed: a table of kinds with their exit codes, and the reading of status, pods and events.

Everything here is a pure function of dicts that the API server gave.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill.errors import ServiceError

Manifest = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    exit_code: int
    sentence: str
    """What was wrong and what to do; `{detail}` is the cluster's own words."""


KINDS: Final[Mapping[str, Kind]] = {
    "application": Kind(exit_code=20, sentence="the stage failed ({detail}): its last lines follow"),
    "image": Kind(
        exit_code=21,
        sentence="an image cannot be pulled ({detail}): check its name and digest, and the pull secret",
    ),
    "quota": Kind(
        exit_code=22,
        sentence="the namespace's quota is full ({detail}): end other jobs, raise the quota, or set a Kueue queue",
    ),
    "memory": Kind(
        exit_code=23,
        sentence="out of memory ({detail}): give the group more memory, or make the micro-batch smaller",
    ),
    "deadline": Kind(
        exit_code=24,
        sentence="the job's deadline passed ({detail}): raise active_deadline; the next attempt resumes from the last "
        "checkpoint",
    ),
    "never-started": Kind(
        exit_code=25,
        sentence="the Ray cluster was not up in time ({detail}): check free nodes, GPUs and tolerations, or raise "
        "pre_running_deadline",
    ),
    "invalid": Kind(
        exit_code=26, sentence="KubeRay refuses the job ({detail}): this is a defect of Infill or its settings"
    ),
    "submission": Kind(
        exit_code=27, sentence="the driver could not be submitted ({detail}): see the submitter's lines below"
    ),
    "unreachable": Kind(
        exit_code=28,
        sentence="KubeRay lost sight of the Ray cluster ({detail}): allow the operator to reach the head on port 8265 "
        "(NetworkPolicy), and see whether the head was evicted",
    ),
    "gone": Kind(
        exit_code=29, sentence="the RayJob was deleted by someone else ({detail}): retry the step to start again"
    ),
    "stopped": Kind(
        exit_code=30, sentence="the Ray job was stopped from outside ({detail}): retry the step to resume it"
    ),
    "unknown": Kind(exit_code=31, sentence="the RayJob failed ({detail}): see `kubectl describe rayjob`"),
}

REASONS: Final[Mapping[str, str]] = {
    "AppFailed": "application",
    "DeadlineExceeded": "deadline",
    "PreRunningDeadlineExceeded": "never-started",
    "SubmissionFailed": "submission",
    "ValidationFailed": "invalid",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "unreachable",
    "JobStatusCheckTimeoutExceeded": "unreachable",
}
"""KubeRay's JobFailedReason -> our kind."""

IMAGE_WAITS: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
MEMORY: Final = re.compile(
    r"OutOfMemoryError|CUDA out of memory|OOMKilled|Workers \(tasks / actors\) killed due to memory"
)
SHOWN: Final = ("application", "submission", "memory", "unknown")
"""Kinds whose last lines help."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    kind: str
    detail: str
    lines: tuple[str, ...] = ()
    """The last lines of the driver, where they help."""

    @property
    def sentence(self) -> str:
        return KINDS[self.kind].sentence.format(detail=self.detail)


class JobFailedError(ServiceError):
    """A RayJob ended otherwise than in success; `exit_code` tells the kinds apart."""

    def __init__(self, job: str, failure: Failure) -> None:
        text = f"RayJob {job}: {failure.sentence}"
        super().__init__("\n".join((text, *(f"  | {line}" for line in failure.lines))))
        self.failure = failure
        self.exit_code = KINDS[failure.kind].exit_code


def obstacle(job: Manifest, pods: Iterable[Manifest], events: Iterable[Manifest]) -> Failure | None:
    """What keeps the job from starting and will not go away by waiting: an image that is not there, a full quota."""
    for name, reason, message in waiting(pods):
        if reason in IMAGE_WAITS:
            return Failure(kind="image", detail=_short(f"{reason} in pod {name}: {message}"))
    for message in (*_conditions(job), *(str(event.get("message", "")) for event in events)):
        if "exceeded quota" in message:
            return Failure(kind="quota", detail=_short(message))
    return None


def diagnose(job: Manifest, pods: Sequence[Manifest], events: Sequence[Manifest], lines: Sequence[str]) -> Failure:
    """Why a job whose deployment status is Failed failed; the deepest cause that the cluster still shows."""
    status = job.get("status", {})
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    kind = REASONS.get(reason, "unknown")
    detail = message or reason or "no reason given"
    killed = next(_killed(pods), None)
    if killed is not None and kind in ("application", "submission", "unreachable", "unknown"):
        return Failure(kind="memory", detail=f"pod {killed} was OOMKilled", lines=tuple(lines))
    found = next((line for line in reversed(lines) if MEMORY.search(line)), None)
    if found is not None and kind in ("application", "unknown"):
        return Failure(kind="memory", detail=_short(found.strip()), lines=tuple(lines))
    blocked = obstacle(job, pods, events)
    if blocked is not None and kind in ("never-started", "deadline", "submission", "unknown"):
        return blocked
    if kind == "never-started":
        detail = next(_unschedulable(pods), detail)
    if kind == "unknown":
        kind = {"STOPPED": "stopped", "FAILED": "application"}.get(str(status.get("jobStatus")), kind)
    return Failure(kind=kind, detail=_short(detail), lines=tuple(lines) if kind in SHOWN else ())


def _containers(pod: Manifest) -> Iterator[Manifest]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def waiting(pods: Iterable[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Pod, reason and message of each container that waits."""
    for pod in pods:
        for container in _containers(pod):
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                message = f"{container.get('image', '')} {waiting.get('message', '')}".strip()
                yield pod["metadata"]["name"], str(waiting.get("reason", "")), message


def _killed(pods: Iterable[Manifest]) -> Iterator[str]:
    for pod in pods:
        for container in _containers(pod):
            for state in (container.get("state", {}), container.get("lastState", {})):
                if state.get("terminated", {}).get("reason") == "OOMKilled":
                    yield pod["metadata"]["name"]


def _unschedulable(pods: Iterable[Manifest]) -> Iterator[str]:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                yield f"pod {pod['metadata']['name']}: {condition.get('message', 'unschedulable')}"


def _conditions(job: Manifest) -> Iterator[str]:
    for condition in job.get("status", {}).get("rayClusterStatus", {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            yield str(condition.get("message", ""))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:400]}..."
