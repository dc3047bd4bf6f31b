"""A deployment while the API server restarts: it waits, and leaves nothing that nobody uses."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infill.cluster.api import Api
from infill.errors import ServiceError
from infill.release import readiness, registry, rollout, route, smoke
from infill.release.readiness import RolloutPatience
from infill.release.rollout import DeployError, RolloutTarget
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.test_outages import PASSING
from tests.unit.release import kserve
from tests.unit.release.cluster import Namespace, api, engine, model, namespace, server, upload, url
from tests.unit.release.kserve import KServe

__all__ = ["api", "engine", "model", "namespace", "server", "url"]

PATIENT = RolloutPatience(tick=1, grace=5.0, outage=10.0)
RESTART_S = 1.0

Put = Callable[[str], RolloutTarget]


@pytest.fixture
def put(namespace: Namespace, mlflow_store: Path, model: Path) -> Put:
    """Deploys the model of that label, the first having been deployed before."""

    def target(label: str) -> RolloutTarget:
        uri = upload(model, f"memory://{mlflow_store.name}/{label}", mlflow_store)
        version = registry.register("infill", model_uri=uri, tags={registry.MODEL_DIGEST: label})
        return RolloutTarget(version=version, record=f"{uri}/deployment.json")

    rollout.deploy(namespace.api, "infill", target("one"), patience=PATIENT)
    return target


def deploy(namespace: Namespace, target: RolloutTarget, patience: RolloutPatience = PATIENT) -> None:
    rollout.deploy(namespace.api, "infill", target, patience=patience)


STEPS: list[tuple[Any, str]] = [
    (rollout, "denials"),
    (Api, "apply"),
    (readiness, "wait"),
    (smoke, "check"),
    (route, "shift"),
]


@pytest.mark.parametrize(("home", "step"), STEPS, ids=[step for _, step in STEPS])
def test_a_deployment_survives_a_restart_at_each_step(
    server: Server, namespace: Namespace, put: Put, monkeypatch: pytest.MonkeyPatch, home: Any, step: str
) -> None:
    before, real = namespace.route.active, getattr(home, step)

    def restarted(*arguments: Any, **named: Any) -> Any:
        server.restart(RESTART_S)
        return real(*arguments, **named)

    monkeypatch.setattr(home, step, restarted)
    deploy(namespace, put("two"))
    assert (namespace.route.previous, set(namespace.services)) == (before, {before, namespace.route.active})


REQUESTS = [
    ("GET", "/inferenceservices$"),
    ("GET", "/inferenceservices/"),
    ("GET", r"/inferenceservices\?fieldSelector=metadata.name%3D"),
    ("GET", "/configmaps/"),
    ("GET", "/services/"),
    ("PATCH", "/inferenceservices/"),
    ("GET", "watch=true"),
    ("PATCH", "/services/"),
    ("POST", "/selfsubjectaccessreviews"),
]


KINDS = ("roles not loaded", "token not checked", "too many requests", "bad gateway", "reset")
"""Of the answers of test_outages: one of each kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployment_survives_every_answer_that_passes(
    server: Server, namespace: Namespace, put: Put, kind: str
) -> None:
    def ready_when_watched(actor: KServe, name: str) -> None:
        while any(fault.times for fault in server.faults if "watch" in fault.path):
            time.sleep(0.05)
        kserve.becomes_ready(actor, name)

    namespace.kserve.behaviour = ready_when_watched
    target = put("two")
    server.faults += [replace(PASSING[kind], method=method, path=path, times=1) for method, path in REQUESTS]
    deploy(namespace, target)
    assert [fault for fault in server.faults if fault.times] == []
    assert namespace.services[namespace.route.active] == target.version.model_uri


@pytest.mark.parametrize(("home", "step"), STEPS[2:], ids=[step for _, step in STEPS[2:]])
def test_a_failure_during_a_restart_leaves_nothing(
    server: Server, namespace: Namespace, put: Put, monkeypatch: pytest.MonkeyPatch, home: Any, step: str
) -> None:
    before, services = namespace.route, namespace.services

    def fail(*_: Any, **__: Any) -> None:
        server.restart(RESTART_S)
        raise ServiceError("it does not work")

    monkeypatch.setattr(home, step, fail)
    with pytest.raises(DeployError, match=f"(?s)it does not work.*is removed, {before.active} continues to serve"):
        deploy(namespace, put("two"))
    assert (namespace.route, namespace.services) == (before, services)


def test_what_cannot_be_removed_is_named_with_the_command(
    server: Server, namespace: Namespace, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        server.faults += [Fault(method, times=1_000, drop=True) for method in ("GET", "DELETE")]
        raise ServiceError("it does not work")

    target = put("two")
    monkeypatch.setattr(readiness, "wait", fail)
    remedy = r"run `kubectl delete inferenceservice infill-\w{10} --namespace ml`"
    with pytest.raises(DeployError, match=f"(?s)could not be removed .*unavailable for .*{remedy}"):
        deploy(namespace, target, replace(PATIENT, outage=1.0))
