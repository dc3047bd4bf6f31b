import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infill.cluster.api import Api, connect
from infill.cluster.lifecycle import LauncherPatience
from infill.cluster.stage_job import Placement, StageJob
from tests.kube.apiserver import Server
from tests.kube.namespace import fresh
from tests.unit.cluster.kuberay import KubeRay

DIGEST = "sha256:" + "1" * 64
QUICK = LauncherPatience(tick=1, grace=0.5, outage=3.0, removal=3.0, drain=3.0)


@pytest.fixture
def server() -> Iterator[Server]:
    """The test's own API server; a test that asks for it can make it misbehave."""
    with Server().running() as started:
        yield started


@pytest.fixture
def api(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The real API server of KUBECONFIG when INFILL_CLUSTER_TESTS=1 and the test needs no faults, else the test's own.

    A real one gets a namespace for each test. It needs the CRDs but no running operators: the tests write what KubeRay
    and KServe would.
    """
    if os.environ.get("INFILL_CLUSTER_TESTS") == "1" and "server" not in request.fixturenames:
        with fresh(tmp_path) as kubeconfig:
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
            yield replace(connect(), outage=3.0, grace=0.5)
        return
    server: Server = request.getfixturevalue("server")
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    yield replace(connect(), outage=3.0, grace=0.5)


@pytest.fixture
def kuberay(api: Api) -> KubeRay:
    return KubeRay(api)


@pytest.fixture
def job(request: pytest.FixtureRequest, api: Api) -> Iterator[StageJob]:
    """A small job with a name of its own; it is deleted afterwards."""
    run = f"test-{abs(hash(request.node.nodeid)) % 10**8}"
    placement = Placement(image=f"infill/train@{DIGEST}", secrets=("infill-object-store",))
    training = StageJob(run=run, stage="sft", config_hash="c0ffee", entrypoint=("python", "-V"), placement=placement)
    yield training
    api.delete("rayjobs", training.name) if "server" not in request.fixturenames else None
