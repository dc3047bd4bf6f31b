"""Launching against an API server over HTTP: attach, replace, fail with a reason, stop, sweep."""

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from infill.cluster.api import Api, ClusterRefusedError
from infill.cluster.failure import KINDS, JobFailedError
from infill.cluster.lifecycle import LauncherPatience, launch, owner_of, sweep
from infill.cluster.stage_job import SUSPENDED_ANNOTATION, StageJob, build
from infill.errors import InputError, ServiceError
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.conftest import QUICK
from tests.unit.cluster.kuberay import KubeRay


def started(api: Api, job: StageJob) -> dict[str, Any]:
    """The job as soon as it is there."""
    for _ in range(200):
        stored = api.get("rayjobs", job.name)
        if stored is not None and not stored["metadata"].get("deletionTimestamp"):
            return stored
        time.sleep(0.02)
    raise AssertionError("the job was not created")


@contextmanager
def meanwhile(script: Callable[[], None]) -> Iterator[None]:
    """Runs the operator's part in a thread; its error is the test's."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            script()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def test_a_job_is_created_followed_and_succeeds(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    def operator() -> None:
        started(api, job)
        kuberay.status(job.name, "Initializing")
        kuberay.status(job.name, "Running", "RUNNING")
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    out = io.StringIO()
    with meanwhile(operator):
        assert launch(api, job, out=out, patience=QUICK) == job.name
    assert f"created RayJob {api.namespace}/{job.name}" in out.getvalue()


def test_a_retried_step_attaches_and_never_duplicates(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    kuberay.status(job.name, "Running", "RUNNING")
    out = io.StringIO()
    with meanwhile(lambda: kuberay.status(job.name, "Complete", "SUCCEEDED")):
        launch(api, job, out=out, patience=QUICK)
    assert "attached" in out.getvalue()
    again = io.StringIO()
    launch(api, job, out=again, patience=QUICK)
    assert "attached" in again.getvalue()
    assert len(api.list("rayjobs", labels=f"infill.dev/run={job.run}")["items"]) == 1


def test_two_launchers_at_once_share_one_job(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    outs = [io.StringIO(), io.StringIO()]
    threads = [threading.Thread(target=launch, args=(api, job), kwargs={"out": o, "patience": QUICK}) for o in outs]
    for thread in threads:
        thread.start()
    started(api, job)
    kuberay.status(job.name, "Complete", "SUCCEEDED")
    for thread in threads:
        thread.join()
    assert sorted("created" in out.getvalue() for out in outs) == [False, True]


@pytest.mark.parametrize(("deployment", "reason"), [("Failed", "AppFailed"), ("ValidationFailed", "ValidationFailed")])
def test_a_failed_job_is_replaced_by_the_next_attempt(
    api: Api, kuberay: KubeRay, job: StageJob, deployment: str, reason: str
) -> None:
    first = api.create("rayjobs", build(job))
    kuberay.status(job.name, deployment, "", reason=reason)

    def operator() -> None:
        while started(api, job)["metadata"]["uid"] == first["metadata"]["uid"]:
            time.sleep(0.05)
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    out = io.StringIO()
    with meanwhile(operator):
        launch(api, job, out=out, patience=QUICK)
    assert "replacing" in out.getvalue()


def test_a_job_of_another_run_is_left_alone(api: Api, job: StageJob) -> None:
    body = build(job)
    body["metadata"]["annotations"]["infill.dev/config-hash"] = "other"
    api.create("rayjobs", body)
    with pytest.raises(InputError, match="does not belong to run"):
        launch(api, job, patience=QUICK)


def test_an_object_stuck_in_deletion_is_reported(server: Server, api: Api, job: StageJob) -> None:
    body = build(job)
    body["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
    api.create("rayjobs", body)
    api.delete("rayjobs", job.name)
    with pytest.raises(ServiceError, match="finalizers"):
        launch(api, job, patience=replace(QUICK, removal=1.0))


def run_to_failure(api: Api, kuberay: KubeRay, job: StageJob, end: Callable[[], object]) -> JobFailedError:
    """The error of a launch during which the operator does `end`."""

    def operator() -> None:
        started(api, job)
        end()

    with pytest.raises(JobFailedError) as caught, meanwhile(operator):
        launch(api, job, out=io.StringIO(), patience=QUICK)
    return caught.value


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("AppFailed", "application"),
        ("DeadlineExceeded", "deadline"),
        ("PreRunningDeadlineExceeded", "never-started"),
        ("SubmissionFailed", "submission"),
        ("ValidationFailed", "invalid"),
        ("JobStatusCheckTimeoutExceeded", "unreachable"),
        ("SomethingNew", "unknown"),
    ],
)
def test_each_reason_has_its_exit_code(api: Api, kuberay: KubeRay, job: StageJob, reason: str, kind: str) -> None:
    status = {"reason": reason, "message": f"it was {reason}"}
    deployment = (
        reason if reason == "ValidationFailed" else "Failed"
    )  # KubeRay never gives a rejected job the other one
    error = run_to_failure(api, kuberay, job, lambda: kuberay.status(job.name, deployment, "", **status))
    assert error.failure.kind == kind
    assert error.exit_code == KINDS[kind].exit_code
    assert f"it was {reason}" in str(error)


def test_exit_codes_are_distinct() -> None:
    codes = [kind.exit_code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))
    assert not {0, 1, 2} & set(codes)


def test_an_application_error_shows_the_last_fifty_lines(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    def end() -> None:
        kuberay.pod(job.name, "submitter", "submitter")
        for number in range(80):
            stamp = f"2026-11-22T20:{number // 60:02d}:{number % 60:02d}.000000000Z"
            server.say("submitter", f"line {number}", stamp)
        server.hush("submitter")
        kuberay.status(job.name, "Failed", "FAILED", reason="AppFailed", message="exit code 1")

    error = run_to_failure(api, kuberay, job, end)
    assert error.exit_code == 20
    assert str(error).count("  | line") == 50
    assert "  | line 79" in str(error)
    assert "  | line 29" not in str(error)


def test_an_image_that_does_not_exist_ends_the_job(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    waiting = {
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
        "image": "no/such@sha256:1",
    }

    def end() -> None:
        kuberay.status(job.name, "Initializing")
        kuberay.pod(job.name, "head", "head", "Pending", containerStatuses=[{"name": "ray-head", **waiting}])

    error = run_to_failure(api, kuberay, job, end)
    assert error.exit_code == 21
    assert "no/such@sha256:1" in str(error)
    assert api.get("rayjobs", job.name) is None


def test_a_full_quota_ends_the_job(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    message = 'pods "head" is forbidden: exceeded quota: infill, requested: limits.cpu=4, used: 8, limited: 8'

    def end() -> None:
        kuberay.status(job.name, "Initializing", rayClusterName="cluster-x")
        kuberay.event("cluster-x", "RayCluster", "FailedToCreateHeadPod", message)

    error = run_to_failure(api, kuberay, job, end)
    assert error.exit_code == 22
    assert "limits.cpu=4" in str(error)
    assert api.get("rayjobs", job.name) is None


def test_a_quota_on_rayjobs_is_reported_at_once(server: Server, api: Api, job: StageJob) -> None:
    server.quota["rayjobs"] = 0
    with pytest.raises(JobFailedError, match="quota is full") as caught:
        launch(api, job, patience=QUICK)
    assert caught.value.exit_code == 22


def test_memory_is_recognised_in_the_pod(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    def end() -> None:
        killed = {"name": "ray-worker", "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
        kuberay.pod(job.name, "worker-3", "worker", containerStatuses=[killed])
        kuberay.status(job.name, "Failed", "FAILED", reason="AppFailed", message="exit code 1")

    error = run_to_failure(api, kuberay, job, end)
    assert error.exit_code == 23
    assert "worker-3" in str(error)


def test_a_deleted_job_is_reported(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    error = run_to_failure(api, kuberay, job, lambda: bool(api.delete("rayjobs", job.name)))
    assert error.exit_code == KINDS["gone"].exit_code


def test_a_suspended_job_waits_without_limit_for_kueue(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    def operator() -> None:
        started(api, job)
        api.merge("rayjobs", job.name, {"spec": {"suspend": True}})
        kuberay.status(job.name, "Suspended")
        time.sleep(1.5)
        api.merge("rayjobs", job.name, {"spec": {"suspend": False}})
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    with meanwhile(operator):
        launch(api, replace(job, queue="team"), out=io.StringIO(), patience=QUICK)


@pytest.mark.parametrize("policy", ["delete", "suspend", "leave"])
def test_sigterm_follows_the_policy(api: Api, kuberay: KubeRay, job: StageJob, policy: str) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        started(api, job)
        kuberay.status(job.name, "Running", "RUNNING")
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    out = io.StringIO()
    with pytest.raises(SystemExit) as caught, meanwhile(stop):
        launch(api, job, on_stop=policy, out=out, patience=QUICK)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    left = api.get("rayjobs", job.name)
    assert (left is None) == (policy == "delete")
    assert bool(left and left["spec"].get("suspend")) == (policy == "suspend")


def test_a_suspended_job_is_resumed_by_the_next_attempt(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    body = build(job)
    body["metadata"]["annotations"][SUSPENDED_ANNOTATION] = "true"
    body["spec"]["suspend"] = True
    api.create("rayjobs", body)

    def operator() -> None:
        while started(api, job)["spec"]["suspend"]:
            time.sleep(0.05)
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    with meanwhile(operator):
        launch(api, job, out=io.StringIO(), patience=QUICK)
    assert SUSPENDED_ANNOTATION not in started(api, job)["metadata"]["annotations"]


def test_policies_that_cannot_work_are_refused(api: Api, job: StageJob) -> None:
    with pytest.raises(InputError, match="one of delete, suspend, leave"):
        launch(api, job, on_stop="stop")
    with pytest.raises(InputError, match="Kueue"):
        launch(api, replace(job, queue="team"), on_stop="suspend")
    with pytest.raises(ValueError, match="tick"):
        LauncherPatience(tick=0)


def test_sweep_deletes_what_is_left_of_one_run(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    mine = [replace(job, stage=stage) for stage in ("sft", "dpo")]
    other, ended = replace(job, run=f"{job.run}-other"), replace(job, stage="corpus")
    for each in (*mine, other, ended):
        api.create("rayjobs", build(each))
    kuberay.status(mine[0].name, "Running", "RUNNING")
    kuberay.status(ended.name, "Complete", "SUCCEEDED")
    try:
        assert sweep(api, job.run) == sorted(each.name for each in mine)
        assert sweep(api, job.run) == []
        assert api.get("rayjobs", other.name) is not None
        assert api.get("rayjobs", ended.name) is not None
    finally:
        for each in (other, ended):
            api.delete("rayjobs", each.name)


def test_the_owner_is_the_workflow_of_the_step(server: Server, api: Api) -> None:
    owners = [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "u", "controller": True}]
    for name, references in (("step", owners), ("alone", [])):
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": references}}
        api.create("pods", body)
    owner = owner_of(api, "step")
    assert owner is not None
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Workflow", "run", "u", False)
    assert owner_of(api, "alone") is None
    assert owner_of(api, "missing") is None


def test_a_cluster_without_kuberay_is_reported(server: Server, api: Api, job: StageJob) -> None:
    server.installed.discard("rayjobs")
    with pytest.raises(ClusterRefusedError, match="install KubeRay"):
        launch(api, job, patience=QUICK)


def test_missing_rights_are_reported(server: Server, api: Api, job: StageJob) -> None:
    server.forbidden.add(("create", "rayjobs"))
    with pytest.raises(ClusterRefusedError, match="install charts/infill-platform"):
        launch(api, job, patience=QUICK)


def test_a_job_that_the_server_finds_invalid_is_reported(server: Server, api: Api, job: StageJob) -> None:
    server.faults.append(Fault("POST", "rayjobs", status=422))
    with pytest.raises(JobFailedError) as caught:
        launch(api, job, patience=QUICK)
    assert caught.value.exit_code == KINDS["invalid"].exit_code


def test_a_create_whose_answer_is_lost_does_not_fail(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    """The first POST is answered late and broken, the second finds the name taken: the job is attached to."""
    server.faults.append(Fault("POST", "rayjobs", status=503))

    def operator() -> None:
        started(api, job)
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    with meanwhile(operator):
        launch(api, job, out=io.StringIO(), patience=QUICK)


def test_a_launch_survives_everything_at_once(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    server.faults += [
        Fault("GET", "rayjobs/", status=503),
        Fault("GET", "watch=true", drop=True, after=1),
        Fault("GET", "watch=true", drop=True, after=0),
        Fault("GET", "pods", wait=0.3),
        Fault("GET", "events", drop=True),
    ]

    def operator() -> None:
        started(api, job)
        for _ in range(3):
            kuberay.status(job.name, "Initializing", rayClusterName="c")
            time.sleep(0.2)
        server.store.compact()
        kuberay.status(job.name, "Running", "RUNNING")
        time.sleep(0.3)
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    with meanwhile(operator):
        assert launch(api, job, out=io.StringIO(), patience=QUICK) == job.name
