"""Errors of the API server as sentences; the few requests as they go over the wire."""

from dataclasses import replace
from pathlib import Path

import pytest

from infill.cluster.api import Api, ClusterRefusedError, ClusterUnreachableError, connect
from infill.cluster.stage_job import StageJob, build
from infill.errors import InputError
from tests.kube.apiserver import Fault, Server


def test_a_wrong_token_is_reported(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config", token="wrong")))
    with pytest.raises(ClusterRefusedError, match="rejects our token"):
        connect().list("rayjobs")


def test_no_cluster_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="set KUBECONFIG"):
        connect()


def test_a_server_that_is_down_is_reported(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.url = "http://127.0.0.1:9"
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
    with pytest.raises(ClusterUnreachableError, match="does not answer"):
        replace(connect(), outage=0.1).reachable()


def test_a_slow_answer_is_asked_for_again(server: Server, api: Api) -> None:
    server.faults.append(Fault("GET", "/version", wait=1.0))
    assert replace(api, timeout=0.2).reachable() == "v1.37.0-test"


def test_a_dropped_answer_is_asked_for_again(server: Server, api: Api) -> None:
    server.faults.append(Fault("GET", "/version", drop=True))
    assert api.reachable() == "v1.37.0-test"


def test_a_server_under_load_is_asked_a_few_times(server: Server, api: Api) -> None:
    server.faults.append(Fault("GET", "/version", times=10, status=503))
    with pytest.raises(ClusterRefusedError, match="503"):
        replace(api, outage=0.1).reachable()
    assert sum(path == "/version" for _, path in server.requests) == 2


def test_unknown_fields_are_refused_by_the_server(api: Api, job: StageJob) -> None:
    body = build(job)
    body["spec"]["entryPoint"] = "typo"
    with pytest.raises(ClusterRefusedError, match=r"entryPoint.*unknown|unknown.*entryPoint"):
        api.create("rayjobs", body)


def test_a_taken_name_is_a_conflict(api: Api, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    with pytest.raises(ClusterRefusedError) as caught:
        api.create("rayjobs", build(job))
    assert caught.value.status == 409


def test_apply_creates_and_changes(api: Api, job: StageJob) -> None:
    body = build(job)
    assert api.apply("rayjobs", job.name, body, manager="infill")["spec"]["backoffLimit"] == job.retries
    body["spec"]["backoffLimit"] = 3
    assert api.apply("rayjobs", job.name, body, manager="infill")["spec"]["backoffLimit"] == 3


def test_a_missing_object_is_none_and_its_deletion_nothing(api: Api) -> None:
    assert api.get("rayjobs", "missing") is None
    assert api.delete("rayjobs", "missing") is False


def test_rights_are_reviewed(server: Server, api: Api) -> None:
    server.forbidden.add(("delete", "rayjobs"))
    assert api.review("create", "rayjobs") is True
    assert api.review("delete", "rayjobs") is False
