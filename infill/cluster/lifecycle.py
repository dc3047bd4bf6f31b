"""The life of a RayJob: create or attach, follow, explain, stop, sweep.

A step of the pipeline calls `launch`; the pipeline's exit handler calls `sweep`.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final, TextIO

from infill.cluster.answers import ClusterApiError, ClusterRefusedError, ClusterUnreachableError
from infill.cluster.api import Api, Manifest
from infill.cluster.failure import Failure, JobFailedError, cause, diagnose, obstacle, unstarted
from infill.cluster.job_settings import POLICIES
from infill.cluster.logs import LogTail, last_lines
from infill.cluster.object_watch import follow
from infill.cluster.stage_job import (
    HASH_ANNOTATION,
    JOB_LABEL,
    RUN_LABEL,
    SUSPENDED_ANNOTATION,
    StageJob,
    build,
    label_value,
)
from infill.errors import InputError, ServiceError

ASKED_PODS: Final = 4
"""Pods whose events are read at a time: what prevents one of a group from starting usually prevents the others."""
FAILED: Final = ("Failed", "ValidationFailed")
"""Deployment statuses that KubeRay never leaves, of a job that has not succeeded. It enforces no deadline on a job that
it rejects."""


@dataclass(frozen=True, kw_only=True)
class LauncherPatience:
    """The launcher's waiting times, in seconds."""

    tick: int = 15
    """Interval between two looks at the pods while nothing changes."""
    grace: float = 40.0
    """Time for an obstacle (image, quota, Secret) to pass before the job is given up; also for a refusal by an API
    server that may be restarting."""
    outage: float = 600.0
    """Time for the API server to come back."""
    stop: float = 10.0
    """Time for the API server to come back after SIGTERM; Kubernetes gives a pod 30 s to end."""
    removal: float = 180.0
    """Time for a deleted object to disappear."""
    drain: float = 15.0
    """Time for the rest of the log after the job has ended."""

    def __post_init__(self) -> None:
        if self.tick < 1 or min(self.grace, self.outage, self.stop, self.removal, self.drain) < 0:
            raise ValueError("patience: tick must be at least 1 s, and the other times must not be negative")


class Interrupted(BaseException):
    """SIGTERM arrived. This is a BaseException, so that no error handler treats it as a failure."""


def launch(
    api: Api,
    job: StageJob,
    *,
    on_stop: str = "delete",
    out: TextIO | None = None,
    patience: LauncherPatience | None = None,
) -> str:
    """Run a RayJob to its end and return its name; write its log to `out`, by default stderr.

    An existing job of that name is followed if it waits or runs, used if it succeeded, and replaced if it failed. On
    SIGTERM the job is deleted, suspended (a later launch resumes it) or left alone, as `on_stop` says, and
    SystemExit(143) is raised. Raises JobFailedError (with an exit code per kind of failure), RefusedError, ServiceError
    or InputError.
    """
    if on_stop not in POLICIES:
        raise InputError(f"unknown on_stop {on_stop!r}; choose one of {', '.join(POLICIES)}")
    if on_stop == "suspend" and job.queue:
        raise InputError("on_stop='suspend' does not work with a Kueue queue, which resumes jobs itself: use 'delete'")
    waits, out = patience or LauncherPatience(), out or sys.stderr
    api = replace(api, outage=waits.outage, grace=waits.grace)
    tail = LogTail(api, job.name, out, pause=min(2.0, waits.tick))
    try:
        with _interruptible():
            _create_or_attach(api, job, waits, out)
            tail.start()
            with _naming(api, job.name):
                failure = _await_end(api, job.name, tail, waits)
    except Interrupted:
        _stop(replace(api, timeout=min(api.timeout, 5.0), outage=waits.stop, grace=waits.stop), job.name, on_stop, out)
        raise SystemExit(128 + signal.SIGTERM) from None
    if failure is not None:
        raise JobFailedError(job.name, failure)
    return job.name


def sweep(api: Api, run: str) -> list[str]:
    """Delete every RayJob of the pipeline run that has not ended, with its cluster and pods; return their names.

    A job that has ended uses no resources; it is deleted with the run's workflow, which owns it.
    """
    waits = LauncherPatience()
    api = replace(api, outage=waits.outage, grace=waits.grace)
    jobs = api.list("rayjobs", labels=f"{RUN_LABEL}={label_value(run)}")["items"]
    names = sorted(str(item["metadata"]["name"]) for item in jobs if _state(item) not in ("Complete", "Failed"))
    return [name for name in names if api.delete("rayjobs", name)]


def owner_of(api: Api, pod: str) -> Manifest | None:
    """Return a reference to the workflow that owns the step's pod, as the owner of RayJobs; None if there is none."""
    owners = (api.get("pods", pod) or {}).get("metadata", {}).get("ownerReferences") or ()
    for owner in owners:
        if owner.get("kind") == "Workflow":
            reference = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
            return reference | {"controller": False, "blockOwnerDeletion": False}
    return None


def _create_or_attach(api: Api, job: StageJob, waits: LauncherPatience, out: TextIO) -> None:
    """Create the job, or attach to the one that an earlier attempt of the same step created."""
    body = build(job)
    until = time.monotonic() + waits.removal
    while time.monotonic() < until:
        existing = api.get("rayjobs", job.name)
        if existing is None:
            if _create(api, body):
                out.write(f"[infill] created RayJob {api.namespace}/{job.name}\n")
                return
            continue  # another process was faster: look again
        _check_same(existing, job)
        if existing["metadata"].get("deletionTimestamp"):
            time.sleep(min(1.0, waits.tick))
        elif _state(existing) in FAILED:
            out.write(f"[infill] replacing RayJob {job.name}, which failed in an earlier attempt\n")
            api.delete("rayjobs", job.name)
        else:
            _resume(api, existing)
            out.write(f"[infill] attached to RayJob {api.namespace}/{job.name}\n")
            return
    raise ServiceError(f"RayJob {job.name} is still being deleted after {waits.removal:.0f} s: check its finalizers")


def _create(api: Api, body: Manifest) -> bool:
    """Create the job; return False if one of that name exists."""
    name = body["metadata"]["name"]
    try:
        with _naming(api, name, only=ClusterUnreachableError):
            api.create("rayjobs", body)
    except ClusterRefusedError as error:
        if error.status == 409:
            return False
        if kind := _verdict(error):
            raise JobFailedError(name, Failure(kind=kind, detail=error.message)) from error
        raise
    return True


def _verdict(error: ClusterRefusedError) -> str:
    """Return the kind of failure of a refusal; empty for one that says what to do (rights, operators)."""
    if cause(error.message) == "quota":
        return "quota"
    invalid = error.status in (400, 422) or "admission webhook" in error.message
    return "invalid" if invalid and error.message else ""


@contextmanager
def _naming(api: Api, name: str, only: type[ClusterApiError] = ClusterApiError) -> Iterator[None]:
    """Add to an error of the API server that the job may still run, since we have lost contact with it."""
    try:
        yield
    except only as error:
        error.args = (
            f"{error}; RayJob {name} may still run: retry this step to attach to it, or {_removal(api, name)}",
        )
        raise


def _removal(api: Api, name: str) -> str:
    return f"end it with `kubectl delete rayjob {name} --namespace {api.namespace}`"


def _check_same(existing: Manifest, job: StageJob) -> None:
    annotations, labels = existing["metadata"].get("annotations") or {}, existing["metadata"].get("labels") or {}
    if annotations.get(HASH_ANNOTATION) != job.config_hash or labels.get(RUN_LABEL) != label_value(job.run):
        raise InputError(
            f"RayJob {job.name} exists but does not belong to run {job.run!r}: delete it, or rename the run"
        )


def _resume(api: Api, job: Manifest) -> None:
    """Resume a job that was suspended after SIGTERM; leave one that Kueue suspended to Kueue."""
    if SUSPENDED_ANNOTATION in (job["metadata"].get("annotations") or {}):
        change = {"metadata": {"annotations": {SUSPENDED_ANNOTATION: None}}, "spec": {"suspend": False}}
        api.merge("rayjobs", job["metadata"]["name"], change)


def _state(job: Manifest) -> str:
    return str(job.get("status", {}).get("jobDeploymentStatus", ""))


def _await_end(api: Api, name: str, tail: LogTail, waits: LauncherPatience) -> Failure | None:
    """Wait for the job to end; return its failure, None after success. A job that cannot start is deleted."""
    blocked_since = 0.0
    last = ""
    for job in follow(api, "rayjobs", name, tick=waits.tick, outage=waits.outage):
        if job is None:
            return Failure(kind="gone", detail=f"last seen {last or 'before it started'}")
        last = _state(job)
        status = job.get("status", {})
        if last == "Complete" and status.get("jobStatus") in ("SUCCEEDED", None, ""):
            tail.finish(waits.drain)
            return None
        if last == "Complete" or last in FAILED:
            return _explain(api, job, tail, waits)
        if status.get("jobStatus") in ("RUNNING", "SUCCEEDED") or job.get("spec", {}).get("suspend"):
            blocked_since = 0.0
            continue
        pods = _pods(api, name)
        blocked = obstacle(job, pods, _events(api, job, pods))
        blocked_since = (blocked_since or time.monotonic()) if blocked else 0.0
        if blocked and time.monotonic() - blocked_since >= waits.grace:
            lines = last_lines(api, blocked.pod, blocked.container) if blocked.pod else []
            api.delete("rayjobs", name)
            return replace(blocked, lines=tuple(lines))
    raise AssertionError("the watch ended, which it must not")


def _explain(api: Api, job: Manifest, tail: LogTail, waits: LauncherPatience) -> Failure:
    pods = _pods(api, job["metadata"]["name"])  # before the cluster is deleted
    events = _events(api, job, pods)
    tail.finish(waits.drain)
    return diagnose(job, pods, events, list(tail.last))


def _pods(api: Api, name: str) -> list[Manifest]:
    return list(api.list("pods", labels=f"{JOB_LABEL}={name}")["items"])


def _events(api: Api, job: Manifest, pods: list[Manifest]) -> list[Manifest]:
    """Return the events of the job, its cluster, its submitter (a Job of the same name), and pods that do not start."""
    names = [job["metadata"]["name"], job.get("status", {}).get("rayClusterName", ""), *unstarted(pods)[:ASKED_PODS]]
    return [
        event for name in names if name for event in api.list("events", fields=f"involvedObject.name={name}")["items"]
    ]


def _stop(api: Api, name: str, policy: str, out: TextIO) -> None:
    """Apply the policy to the job; print a message if it keeps running, also because the server does not answer."""
    out.write(f"[infill] SIGTERM: {policy} RayJob {name}\n")
    try:
        if policy == "delete":
            api.delete("rayjobs", name)
        elif policy == "suspend":
            change = {"metadata": {"annotations": {SUSPENDED_ANNOTATION: "true"}}, "spec": {"suspend": True}}
            api.merge("rayjobs", name, change)
    except ClusterApiError as error:
        if isinstance(error, ClusterRefusedError) and error.status == 404:
            return
        out.write(f"[infill] {policy} failed ({error}): RayJob {name} keeps running; {_removal(api, name)}\n")
    if policy == "leave":
        out.write(f"[infill] RayJob {name} keeps running; {_removal(api, name)}\n")
    out.flush()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM raise Interrupted (only in the main thread; elsewhere Python allows no handlers)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
