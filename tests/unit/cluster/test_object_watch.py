"""Following one object: dropped watches, forgotten versions, outages."""

import time
from itertools import islice

import pytest

from infill.cluster.api import Api, ClusterRefusedError
from infill.cluster.object_watch import follow
from infill.cluster.stage_job import StageJob, build
from infill.errors import ServiceError
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.kuberay import KubeRay


def states(api: Api, job: StageJob, number: int) -> list[str | None]:
    """The next deployment statuses, None for an object that is not there."""
    seen = islice(follow(api, "rayjobs", job.name, tick=1, outage=2.0), number)
    return [None if thing is None else str(thing.get("status", {}).get("jobDeploymentStatus", "")) for thing in seen]


def test_changes_arrive_and_quiet_times_tick(api: Api, kuberay: KubeRay, job: StageJob) -> None:
    assert states(api, job, 1) == [None]
    api.create("rayjobs", build(job))
    following = follow(api, "rayjobs", job.name, tick=1, outage=2.0)
    assert next(following) is not None
    kuberay.status(job.name, "Running")
    changed = next(following)
    assert changed is not None
    assert changed["status"]["jobDeploymentStatus"] == "Running"
    started = time.monotonic()
    assert next(following) is not None
    assert time.monotonic() - started < 3
    api.delete("rayjobs", job.name)
    assert None in islice(following, 3)


def test_a_dropped_watch_misses_nothing(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    server.faults.append(Fault("GET", "watch=true", times=3, drop=True, after=0))
    following = follow(api, "rayjobs", job.name, tick=1, outage=5.0)
    assert next(following) is not None
    for status in ("Initializing", "Running", "Complete"):
        kuberay.status(job.name, status)
    seen = [thing["status"]["jobDeploymentStatus"] for thing in islice(following, 3) if thing]
    assert seen == ["Initializing", "Running", "Complete"]


def test_a_forgotten_version_is_read_again(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    following = follow(api, "rayjobs", job.name, tick=1, outage=2.0)
    next(following)
    kuberay.status(job.name, "Running")
    server.store.compact()
    thing = next(following)
    assert thing is not None
    assert thing["status"]["jobDeploymentStatus"] == "Running"
    assert sum("watch=true" not in path and "fieldSelector" in path for _, path in server.requests) == 2


def test_410_as_a_status_is_read_again(server: Server, api: Api, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    server.faults.append(Fault("GET", "watch=true", status=410))
    assert states(api, job, 2) == ["", ""]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_under_load_is_waited_for(server: Server, api: Api, job: StageJob, status: int) -> None:
    api.create("rayjobs", build(job))
    server.faults.append(Fault("GET", "watch=true", times=2, status=status))
    assert states(api, job, 3) == ["", "", ""]


def test_a_refusal_ends_the_watch(server: Server, api: Api, job: StageJob) -> None:
    server.forbidden.add(("watch", "rayjobs"))
    with pytest.raises(ClusterRefusedError, match="not allowed"):
        states(api, job, 3)


def test_a_long_outage_is_reported(server: Server, api: Api, job: StageJob) -> None:
    server.faults.append(Fault("GET", "watch=true", times=1_000, drop=True, after=0))
    api.create("rayjobs", build(job))
    following = follow(api, "rayjobs", job.name, tick=1, outage=0.5)
    next(following)
    server.faults.append(Fault("GET", "rayjobs", times=1_000, status=503))
    api.merge("rayjobs", job.name, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ServiceError, match="unavailable for"):
        list(islice(following, 10))
