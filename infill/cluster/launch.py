"""A stage run as a RayJob: create or attach, follow, explain, stop, sweep.

What a step of the pipeline calls is `launch`; what the pipeline's exit handler calls is `sweep`.
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

from infill.cluster.answers import ApiError, RefusedError, UnreachableError
from infill.cluster.api import Api, Manifest
from infill.cluster.failure import Failure, JobFailedError, cause, diagnose, obstacle, unstarted
from infill.cluster.job import (
    HASH_ANNOTATION,
    JOB_LABEL,
    RUN_LABEL,
    SUSPENDED_ANNOTATION,
    StageJob,
    build,
    label_value,
)
from infill.cluster.logs import Tail, last_lines
from infill.cluster.settings import POLICIES
from infill.cluster.watch import follow
from infill.errors import InputError, ServiceError

ASKED_PODS: Final = 4
"""Pods whose events are read at each look: what keeps one of a group from starting keeps the others, too."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the launcher waits for what; seconds."""

    tick: int = 15
    """Between two looks at the pods when nothing changes."""
    grace: float = 40.0
    """For an obstacle (image, quota, Secret) to go away by itself before the job is given up; also for a refusal by an
    API server that may be restarting."""
    outage: float = 600.0
    """For the API server to come back."""
    stop: float = 10.0
    """For the same once SIGTERM has arrived: Kubernetes gives a pod 30 s to end."""
    removal: float = 180.0
    """For an object to be gone after it was deleted."""
    drain: float = 15.0
    """For the rest of the log after the job has ended."""

    def __post_init__(self) -> None:
        if self.tick < 1 or min(self.grace, self.outage, self.stop, self.removal, self.drain) < 0:
            raise ValueError("patience: tick is at least 1 s, the other waits are not negative")


class Interrupted(BaseException):
    """SIGTERM arrived. A BaseException, so that no handler of errors takes it for a failure."""


def launch(
    api: Api, job: StageJob, *, on_stop: str = "delete", out: TextIO | None = None, patience: Patience | None = None
) -> str:
    """The name of the RayJob once it has succeeded; its log goes to `out`, else to stderr.

    A job of that name which waits or runs is attached to, one that succeeded counts, one that failed is replaced. On
    SIGTERM the job is deleted, suspended (a later launch resumes it) or left, as `on_stop` says, and SystemExit(143) is
    raised. Raises JobFailedError (with an exit code per kind of failure), RefusedError, ServiceError or InputError.
    """
    if on_stop not in POLICIES:
        raise InputError(f"on_stop={on_stop!r} is none of {', '.join(POLICIES)}")
    if on_stop == "suspend" and job.queue:
        raise InputError("on_stop='suspend' does not go with a Kueue queue, which resumes jobs itself: use 'delete'")
    waits, out = patience or Patience(), out or sys.stderr
    api = replace(api, outage=waits.outage, grace=waits.grace)
    tail = Tail(api, job.name, out, pause=min(2.0, waits.tick))
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
    """Deletes every RayJob of the pipeline run that has not ended, its cluster and pods with it; returns their names.

    One that has ended holds nothing any more but its story; it goes with the run's workflow, which owns it.
    """
    waits = Patience()
    api = replace(api, outage=waits.outage, grace=waits.grace)
    jobs = api.list("rayjobs", labels=f"{RUN_LABEL}={label_value(run)}")["items"]
    names = sorted(str(item["metadata"]["name"]) for item in jobs if _state(item) not in ("Complete", "Failed"))
    return [name for name in names if api.delete("rayjobs", name)]


def owner_of(api: Api, pod: str) -> Manifest | None:
    """The reference to the workflow that owns the step's pod, or None: the owner that a RayJob should have."""
    found = api.get("pods", pod)
    owners = (found or {}).get("metadata", {}).get("ownerReferences") or ()
    for owner in owners:
        if owner.get("kind") == "Workflow":
            kept = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
            return kept | {"controller": False, "blockOwnerDeletion": False}
    return None


def _create_or_attach(api: Api, job: StageJob, waits: Patience, out: TextIO) -> None:
    """Afterwards the job exists, by us or by an earlier attempt of the same step."""
    body = build(job)
    until = time.monotonic() + waits.removal
    while time.monotonic() < until:
        found = api.get("rayjobs", job.name)
        if found is None:
            if _create(api, body):
                out.write(f"[infill] created RayJob {api.namespace}/{job.name}\n")
                return
            continue  # somebody was faster: look again
        _check_same(found, job)
        if found["metadata"].get("deletionTimestamp"):
            time.sleep(min(1.0, waits.tick))
        elif _state(found) == "Failed":
            out.write(f"[infill] replacing RayJob {job.name}, which failed in an earlier attempt\n")
            api.delete("rayjobs", job.name)
        else:
            _resume(api, found)
            out.write(f"[infill] attached to RayJob {api.namespace}/{job.name}\n")
            return
    raise ServiceError(f"RayJob {job.name} is still being deleted after {waits.removal:.0f} s: see its finalizers")


def _create(api: Api, body: Manifest) -> bool:
    """Return whether the job was created; False when one of that name exists."""
    name = body["metadata"]["name"]
    try:
        with _naming(api, name, only=UnreachableError):
            api.create("rayjobs", body)
    except RefusedError as error:
        if error.status == 409:
            return False
        if kind := _verdict(error):
            raise JobFailedError(name, Failure(kind=kind, detail=error.message)) from error
        raise
    return True


def _verdict(error: RefusedError) -> str:
    """Return the kind of failure that a refusal is; empty for one that says itself what to do: rights, operators."""
    if cause(error.message) == "quota":
        return "quota"
    invalid = error.status in (400, 422) or "admission webhook" in error.message
    return "invalid" if invalid and error.message else ""


@contextmanager
def _naming(api: Api, name: str, only: type[ApiError] = ApiError) -> Iterator[None]:
    """Add to an error of the API server what becomes of the job, which is out of our sight then."""
    try:
        yield
    except only as error:
        error.args = (
            f"{error}; RayJob {name} may still run: retry this step to attach to it, or {_removal(api, name)}",
        )
        raise


def _removal(api: Api, name: str) -> str:
    return f"end it with `kubectl delete rayjob {name} --namespace {api.namespace}`"


def _check_same(found: Manifest, job: StageJob) -> None:
    annotations, labels = found["metadata"].get("annotations") or {}, found["metadata"].get("labels") or {}
    if annotations.get(HASH_ANNOTATION) != job.config_hash or labels.get(RUN_LABEL) != label_value(job.run):
        raise InputError(f"RayJob {job.name} exists and is not of run {job.run!r}: delete it, or rename the run")


def _resume(api: Api, found: Manifest) -> None:
    """Sets a job going again that our own SIGTERM had suspended; one that Kueue suspends is Kueue's."""
    if SUSPENDED_ANNOTATION in (found["metadata"].get("annotations") or {}):
        change = {"metadata": {"annotations": {SUSPENDED_ANNOTATION: None}}, "spec": {"suspend": False}}
        api.merge("rayjobs", found["metadata"]["name"], change)


def _state(job: Manifest) -> str:
    return str(job.get("status", {}).get("jobDeploymentStatus", ""))


def _await_end(api: Api, name: str, tail: Tail, waits: Patience) -> Failure | None:
    """None after success. A job that cannot start is deleted before its failure is returned."""
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
        if last in ("Complete", "Failed"):
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
    raise AssertionError("the watch does not end by itself")


def _explain(api: Api, job: Manifest, tail: Tail, waits: Patience) -> Failure:
    pods = _pods(api, job["metadata"]["name"])  # before the cluster is torn down
    events = _events(api, job, pods)
    tail.finish(waits.drain)
    return diagnose(job, pods, events, list(tail.last))


def _pods(api: Api, name: str) -> list[Manifest]:
    return list(api.list("pods", labels=f"{JOB_LABEL}={name}")["items"])


def _events(api: Api, job: Manifest, pods: list[Manifest]) -> list[Manifest]:
    """What happened to the job, its cluster, its submitter (a Job of the same name), and pods that do not start."""
    names = [job["metadata"]["name"], job.get("status", {}).get("rayClusterName", ""), *unstarted(pods)[:ASKED_PODS]]
    return [
        event for name in names if name for event in api.list("events", fields=f"involvedObject.name={name}")["items"]
    ]


def _stop(api: Api, name: str, policy: str, out: TextIO) -> None:
    """Do what the policy says; a server that does not answer in time leaves the job running, which is said."""
    out.write(f"[infill] SIGTERM: {policy} RayJob {name}\n")
    try:
        if policy == "delete":
            api.delete("rayjobs", name)
        elif policy == "suspend":
            change = {"metadata": {"annotations": {SUSPENDED_ANNOTATION: "true"}}, "spec": {"suspend": True}}
            api.merge("rayjobs", name, change)
    except ApiError as error:
        if isinstance(error, RefusedError) and error.status == 404:
            return
        out.write(f"[infill] {policy} failed ({error}): RayJob {name} runs on; {_removal(api, name)}\n")
    if policy == "leave":
        out.write(f"[infill] RayJob {name} runs on; {_removal(api, name)}\n")
    out.flush()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Inside, SIGTERM raises Interrupted (in the main thread; elsewhere Python allows no handlers)."""
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
