"""Causes of a failed RayJob: a table of kinds with their exit codes, and the diagnosis from status, pods and events.

Everything here is a pure function of dicts from the API server.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

from infill.errors import ServiceError

Manifest = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of failure."""

    exit_code: int
    sentence: str
    """The cause and what to do; `{detail}` is the cluster's own message."""


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
        sentence="out of memory ({detail}): give the group more memory, or reduce the micro-batch",
    ),
    "deadline": Kind(
        exit_code=24,
        sentence="the job's deadline passed ({detail}): raise active_deadline; the next attempt resumes from the last "
        "checkpoint",
    ),
    "never-started": Kind(
        exit_code=25,
        sentence="the Ray cluster did not start in time ({detail}): check free nodes, GPUs and tolerations, or raise "
        "pre_running_deadline",
    ),
    "invalid": Kind(
        exit_code=26, sentence="KubeRay rejects the job ({detail}): this is a defect in Infill or its settings"
    ),
    "submission": Kind(
        exit_code=27, sentence="the driver could not be submitted ({detail}): see the submitter's lines below"
    ),
    "unreachable": Kind(
        exit_code=28,
        sentence="KubeRay lost contact with the Ray cluster ({detail}): allow the operator to reach the head on port "
        "8265 (NetworkPolicy), and check whether the head was evicted",
    ),
    "gone": Kind(
        exit_code=29, sentence="the RayJob was deleted by someone else ({detail}): retry the step to start again"
    ),
    "stopped": Kind(
        exit_code=30, sentence="the Ray job was stopped from outside ({detail}): retry the step to resume it"
    ),
    "missing": Kind(
        exit_code=32,
        sentence="the pods need something that does not exist ({detail}): create it, or correct its name in the values "
        "of charts/infill-platform",
    ),
    "refused": Kind(
        exit_code=33,
        sentence="the cluster does not admit the job's pods ({detail}): change that policy, limit range or webhook, or "
        "the pods' sizes in infill/stages/sizing.py",
    ),
    "crash": Kind(exit_code=34, sentence="a container fails repeatedly ({detail})"),
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
"""Our kind for each JobFailedReason of KubeRay."""

IMAGE_WAITS: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CRASH_WAITS: Final = ("RunContainerError", "CreateContainerError", "StartError", "PostStartHookError")
EPOCH: Final = datetime.fromtimestamp(0, UTC)
MEMORY: Final = re.compile(
    r"OutOfMemoryError|CUDA out of memory|OOMKilled|Workers \(tasks / actors\) killed due to memory"
)
CRASHES: Final = 2
"""Restarts after which a container is considered to fail each time."""
REFERENCE: Final = r"secrets?|configmaps?|serviceaccounts?|service account|persistentvolumeclaims?|resourceclaims?"
CAUSES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("quota", re.compile(r"exceeded quota")),
    (
        "missing",
        re.compile(
            rf"\b({REFERENCE}|\w+class(es)?)\b.*\b(not found|was found|does not exist)\b"
            r"|couldn't find key|references? non-existent",
            re.IGNORECASE,
        ),
    ),
    (
        "refused",
        re.compile(
            r"is forbidden|admission webhook|denied the request|failed calling webhook|ValidatingAdmissionPolic"
            r"|\bis invalid\b|runAsNonRoot|disallowed by"
        ),
    ),
)
"""Kinds of failure that waiting does not cure, each with the messages of API server, kubelet and operators. The first
match counts, since quotas and missing classes are reported as forbidden, too."""
SHOWN: Final = ("application", "submission", "memory", "unknown")
"""Kinds for which the last lines of the log help."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The diagnosis of a failed job."""

    kind: str
    detail: str
    lines: tuple[str, ...] = ()
    """The last lines of the driver or of `container`, if they help."""
    pod: str = ""
    container: str = ""
    """The container of `pod` whose last lines explain the failure; empty if there is none."""

    @property
    def sentence(self) -> str:
        """The cause and what to do."""
        return KINDS[self.kind].sentence.format(detail=self.detail)


class JobFailedError(ServiceError):
    """The error of a RayJob that did not succeed; `exit_code` depends on the kind of failure."""

    def __init__(self, job: str, failure: Failure) -> None:
        text = f"RayJob {job}: {failure.sentence}"
        super().__init__("\n".join((text, *(f"  | {line}" for line in failure.lines))))
        self.failure = failure
        self.exit_code = KINDS[failure.kind].exit_code


def obstacle(job: Manifest, pods: Iterable[Manifest], events: Iterable[Manifest]) -> Failure | None:
    """Return what prevents the job, or another owner of pods, from starting and will not pass; None if nothing does."""
    pods = list(pods)
    return next(chain(_stuck(pods), _crashes(pods), _refusals(job, pods, events)), None)


def cause(message: str) -> str:
    """Return the kind of failure that a message of the cluster reports; empty for one that may pass."""
    return next((kind for kind, words in CAUSES if words.search(message)), "")


def unstarted(pods: Iterable[Manifest]) -> list[str]:
    """Return the names of pods without a sandbox, whose events say why."""
    return [pod["metadata"]["name"] for pod in pods if not _has_sandbox(pod)]


def diagnose(job: Manifest, pods: Sequence[Manifest], events: Sequence[Manifest], lines: Sequence[str]) -> Failure:
    """Return the deepest cause that the cluster still shows of a job whose deployment status is Failed.

    `lines` are the last lines of the driver's log.
    """
    status = job.get("status", {})
    reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    kind = REASONS.get(reason, "unknown")
    detail = message or reason or "no reason given"
    killed = next(_killed(pods), None)
    if killed is not None and kind in ("application", "submission", "unreachable", "unknown"):
        return Failure(kind="memory", detail=f"pod {killed} was OOMKilled", lines=tuple(lines))
    exhausted = next((line for line in reversed(lines) if MEMORY.search(line)), None)
    if exhausted is not None and kind in ("application", "unknown"):
        return Failure(kind="memory", detail=short(exhausted.strip()), lines=tuple(lines))
    blocked = obstacle(job, pods, events)
    if blocked is not None and kind in ("never-started", "deadline", "submission", "unknown"):
        return blocked
    if kind == "never-started":
        detail = next(chain(unschedulable(pods), _warnings(job, pods, events)), detail)
    if kind == "unknown":
        kind = {"STOPPED": "stopped", "FAILED": "application"}.get(str(status.get("jobStatus")), kind)
    return Failure(kind=kind, detail=short(detail), lines=tuple(lines) if kind in SHOWN else ())


def _containers(pod: Manifest) -> Iterator[Manifest]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _stuck(pods: Iterable[Manifest]) -> Iterator[Failure]:
    """Yield a failure for each container that waits in vain, and each pod whose claims do not exist."""
    pods = list(pods)
    for name, reason, message in waiting(pods):
        detail = short(f"{reason} in pod {name}: {message}")
        if reason in IMAGE_WAITS:
            yield Failure(kind="image", detail=detail)
        elif reason == "CreateContainerConfigError":
            yield Failure(kind=cause(message) or "refused", detail=detail)
        elif reason in CRASH_WAITS:
            yield Failure(kind="crash", detail=detail)
    for message in unschedulable(pods):
        if kind := cause(message):
            yield Failure(kind=kind, detail=short(message))


def _crashes(pods: Iterable[Manifest]) -> Iterator[Failure]:
    for pod in pods:
        name = pod["metadata"]["name"]
        for container in _containers(pod):
            ended = _ended(container)
            waits = (container.get("state") or {}).get("waiting") or {}
            again = waits.get("reason") == "CrashLoopBackOff" or int(container.get("restartCount", 0)) >= CRASHES
            if not again or not ended.get("exitCode", 1):
                continue
            why = f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', 'unknown')}"
            details = " ".join(filter(None, [why, str(ended.get("message", ""))]))
            yield Failure(
                kind="memory" if ended.get("reason") == "OOMKilled" else "crash",
                detail=short(f"{container['name']} of pod {name}: {details}"),
                pod=name,
                container=container["name"],
            )


def _ended(container: Manifest) -> Manifest:
    """Return the state in which the container last ended; empty if it never has."""
    states = (container.get(key) or {} for key in ("lastState", "state"))
    return next((state["terminated"] for state in states if state.get("terminated")), {})


def _refusals(job: Manifest, pods: Sequence[Manifest], events: Iterable[Manifest]) -> Iterator[Failure]:
    """Yield a failure for each pod that is not created, from messages of operators, controllers and the kubelet."""
    for message in (*_conditions(job), *_warnings(job, pods, events)):
        if kind := cause(message):
            yield Failure(kind=kind, detail=short(message))


def _warnings(job: Manifest, pods: Sequence[Manifest], events: Iterable[Manifest]) -> Iterator[str]:
    """Yield the warnings that still hold, newest first.

    A warning about a pod holds until the pod has its sandbox. A warning about an owner of pods holds until a later pod
    is created: a refused controller retries, and warns again, before it creates another pod.
    """
    started = {pod["metadata"]["name"] for pod in pods if _has_sandbox(pod)}
    newest = max((moment(thing["metadata"]) for thing in (job, *pods) if "metadata" in thing), default=EPOCH)
    for event in sorted(events, key=moment, reverse=True):
        about = event.get("involvedObject") or {}
        if event.get("type", "Warning") != "Warning":
            continue
        if about.get("name") not in started if about.get("kind") == "Pod" else moment(event) >= newest:
            yield f"{about.get('kind', '')} {about.get('name', '')}: {event.get('message', '')}".strip(": ")


def _has_sandbox(pod: Manifest) -> bool:
    """Return whether the pod's volumes are mounted and its containers may start."""
    status = pod.get("status") or {}
    return status.get("phase", "Pending") != "Pending" or any(
        each.get("type") == "PodReadyToStartContainers" and each.get("status") == "True"
        for each in status.get("conditions") or ()
    )


def moment(thing: Manifest) -> datetime:
    """Return when an event was last seen, or when an object was created; EPOCH if that is unknown."""
    series = thing.get("series") or {}
    stamps = (series.get("lastObservedTime"), thing.get("lastTimestamp"), thing.get("eventTime"))
    stamp = next(filter(None, (*stamps, thing.get("creationTimestamp"))), None)
    stamp = stamp or (thing.get("metadata") or {}).get("creationTimestamp")
    return datetime.fromisoformat(str(stamp)).replace(microsecond=0) if stamp else EPOCH


def waiting(pods: Iterable[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Yield the pod, reason and message of each waiting container."""
    for pod in pods:
        for container in _containers(pod):
            waits = (container.get("state") or {}).get("waiting")
            if waits:
                message = f"{container.get('image', '')} {waits.get('message', '')}".strip()
                yield pod["metadata"]["name"], str(waits.get("reason", "")), message


def _killed(pods: Iterable[Manifest]) -> Iterator[str]:
    for pod in pods:
        for container in _containers(pod):
            for state in (container.get("state", {}), container.get("lastState", {})):
                if state.get("terminated", {}).get("reason") == "OOMKilled":
                    yield pod["metadata"]["name"]


def unschedulable(pods: Iterable[Manifest]) -> Iterator[str]:
    """Yield the scheduler's message for each pod that fits no node."""
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                yield f"pod {pod['metadata']['name']}: {condition.get('message', 'unschedulable')}"


def _conditions(job: Manifest) -> Iterator[str]:
    for condition in job.get("status", {}).get("rayClusterStatus", {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            yield str(condition.get("message", ""))


def short(text: str) -> str:
    """Return the text on one line, cut after 400 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:400]}..."
