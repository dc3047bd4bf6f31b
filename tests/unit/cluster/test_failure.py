"""Reading status, pods and events: which cause wins."""

from typing import Any

import pytest

from infill.cluster.failure import KINDS, Failure, JobFailedError, diagnose, obstacle


def job(reason: str = "", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "j"}, "status": {"reason": reason, **status}}


def pod(container: dict[str, Any] | None = None, *, init: bool = False, **status: Any) -> dict[str, Any]:
    statuses = {"initContainerStatuses" if init else "containerStatuses": [container] if container else []}
    return {"metadata": {"name": "p"}, "status": {**statuses, **status}}


def waiting(reason: str) -> dict[str, Any]:
    return {"image": "img", "state": {"waiting": {"reason": reason, "message": "m"}}}


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
@pytest.mark.parametrize("init", [False, True])
def test_images_that_cannot_be_pulled_are_an_obstacle(reason: str, init: bool) -> None:
    result = obstacle(job(), [pod(), pod(waiting(reason), init=init)], [])
    assert result is not None
    assert result.kind == "image"


def test_a_container_that_is_being_made_is_not_an_obstacle() -> None:
    assert obstacle(job(), [pod(waiting("ContainerCreating"))], [{"message": "Pulling image"}]) is None


def test_a_quota_that_was_full_once_is_not_an_obstacle() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}
    full = job(rayClusterStatus={"conditions": [condition]})
    reason = obstacle(full, [], [])
    assert reason is not None
    assert reason.kind == "quota"
    condition["status"] = "False"
    assert obstacle(full, [], []) is None


def test_a_deadline_before_the_start_names_the_deeper_cause() -> None:
    late = job("PreRunningDeadlineExceeded", message="timed out")
    assert diagnose(late, [pod(waiting("ErrImagePull"))], [], []).kind == "image"
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    diagnosis = diagnose(late, [pod(conditions=[unschedulable])], [], [])
    assert diagnosis.kind == "never-started"
    assert message in diagnosis.sentence
    assert diagnose(late, [], [], []).detail == "timed out"


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
    ],
)
def test_memory_is_recognised_in_the_log(line: str) -> None:
    diagnosis = diagnose(job("AppFailed"), [], [], ["start", line, "Traceback"])
    assert diagnosis.kind == "memory"
    assert line in diagnosis.sentence
    assert diagnosis.lines[-1] == "Traceback"


def test_jobs_stopped_or_failed_without_a_reason() -> None:
    assert diagnose(job(jobStatus="STOPPED"), [], [], []).kind == "stopped"
    assert diagnose(job(jobStatus="FAILED"), [], [], []).kind == "application"
    assert diagnose(job(), [], [], []).detail == "no reason given"


def test_every_kind_makes_one_sentence() -> None:
    for kind, entry in KINDS.items():
        error = JobFailedError("j", Failure(kind=kind, detail="d" * 1_000))
        assert str(error).startswith("RayJob j: ")
        assert error.exit_code == entry.exit_code
        assert "\n" not in str(error)


def test_long_messages_are_cut() -> None:
    assert len(diagnose(job("AppFailed", message="x" * 5_000), [], [], []).detail) < 500
