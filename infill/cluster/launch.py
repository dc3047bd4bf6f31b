"""A stage run as a RayJob: create or attach, follow, explain, stop, sweep.

What a step of the pipeline calls is `launch`; what the pipeline's exit handler calls is `sweep`.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from types import FrameType
from typing import TextIO

from infill.cluster.api import Api, Manifest, RefusedError
from infill.cluster.failure import Failure, JobFailedError, diagnose, obstacle
from infill.cluster.job import (
    HASH_ANNOTATION,
    JOB_LABEL,
    RUN_LABEL,
    SUSPENDED_ANNOTATION,
    StageJob,
    build,
    label_value,
)
from infill.cluster.logs import Tail
from infill.cluster.settings import POLICIES
from infill.cluster.watch import follow
from infill.errors import InputError, ServiceError


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the launcher waits for what; seconds."""

    tick: int = 15
    """Between two looks at the pods when nothing changes."""
    grace: float = 40.0
    """For an obstacle (image, quota) to go away by itself before the job is given up."""
    outage: float = 600.0
    """For the API server to come back."""
    removal: float = 180.0
    """For an object to be gone after it was deleted."""
    drain: float = 15.0
    """For the rest of the log after the job has ended."""

    def __post_init__(self) -> None:
        if self.tick < 1 or min(self.grace, self.outage, self.removal, self.drain) < 0:
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
    tail = Tail(api, job.name, out, pause=min(2.0, waits.tick))
    try:
        with _interruptible():
            _create_or_attach(api, job, waits, out)
            tail.start()
            failure = _await_end(api, job.name, tail, waits)
    except Interrupted:
        _stop(api, job.name, on_stop, out)
        raise SystemExit(128 + signal.SIGTERM) from None
    if failure is not None:
        raise JobFailedError(job.name, failure)
    return job.name


def sweep(api: Api, run: str) -> list[str]:
    """Deletes every RayJob of the pipeline run that has not ended, its cluster and pods with it; returns their names.

    One that has ended holds nothing any more but its story; it goes with the run's workflow, which owns it.
    """
    found = api.list("rayjobs", labels=f"{RUN_LABEL}={label_value(run)}")["items"]
    names = sorted(str(item["metadata"]["name"]) for item in found if _state(item) not in ("Complete", "Failed"))
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
    """Whether the job was created; False when one of that name exists."""
    name = body["metadata"]["name"]
    try:
        api.create("rayjobs", body)
    except RefusedError as error:
        if error.status == 409:
            return False
        if "exceeded quota" in error.message:
            raise JobFailedError(name, Failure(kind="quota", detail=error.message)) from error
        if error.status == 422:
            raise JobFailedError(name, Failure(kind="invalid", detail=error.message)) from error
        raise
    return True


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
        blocked = obstacle(job, _pods(api, name), _events(api, job))
        blocked_since = (blocked_since or time.monotonic()) if blocked else 0.0
        if blocked and time.monotonic() - blocked_since >= waits.grace:
            api.delete("rayjobs", name)
            return blocked
    raise AssertionError("the watch does not end by itself")


def _explain(api: Api, job: Manifest, tail: Tail, waits: Patience) -> Failure:
    pods, events = _pods(api, job["metadata"]["name"]), _events(api, job)  # before the cluster is torn down
    tail.finish(waits.drain)
    return diagnose(job, pods, events, list(tail.last))


def _pods(api: Api, name: str) -> list[Manifest]:
    return list(api.list("pods", labels=f"{JOB_LABEL}={name}")["items"])


def _events(api: Api, job: Manifest) -> list[Manifest]:
    """What happened to the job and its cluster in the last minute; an older event may be about a quota since freed."""
    names = [job["metadata"]["name"], job.get("status", {}).get("rayClusterName", "")]
    found = [api.list("events", fields=f"involvedObject.name={name}")["items"] for name in names if name]
    since = datetime.now(UTC) - timedelta(minutes=1)
    return [event for event in chain.from_iterable(found) if _time(event) >= since]


def _time(event: Manifest) -> datetime:
    stamp = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(str(stamp)) if stamp else datetime.now(UTC)


def _stop(api: Api, name: str, policy: str, out: TextIO) -> None:
    out.write(f"[infill] SIGTERM: {policy} RayJob {name}\n")
    if policy == "delete":
        api.delete("rayjobs", name)
    elif policy == "suspend":
        change = {"metadata": {"annotations": {SUSPENDED_ANNOTATION: "true"}}, "spec": {"suspend": True}}
        try:
            api.merge("rayjobs", name, change)
        except RefusedError as error:
            if error.status != 404:
                raise


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
