"""Tests of waiting for an InferenceService: every reason for which it does not become ready, in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest

from infill.cluster.api import Api
from infill.release import readiness
from infill.release.readiness import NotReadyError, RolloutPatience
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.conftest import api, server
from tests.unit.release import kserve
from tests.unit.release.kserve import Behaviour, KServe

__all__ = ["api", "server"]

QUICK = RolloutPatience(tick=1, grace=0.0, outage=2.0)
NAME = "completions-0123456789"


@pytest.fixture
def name(api: Api) -> str:
    """An InferenceService that nobody has looked at yet."""
    predictor = {"model": {"modelFormat": {"name": "infill"}}}
    container = {"name": "kserve-container", "args": ["--model=m", f"--predictor_host={NAME}-predictor.infill:80"]}
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": NAME}}
    spec = {"predictor": predictor, "transformer": {"containers": [container]}}
    api.create("inferenceservices", {**body, "spec": spec})
    return NAME


REASONS: list[tuple[Behaviour, str, str]] = [
    (kserve.cannot_pull, "image", r"an image cannot be pulled \(ImagePullBackOff in pod .*-predictor-1.*not found"),
    (kserve.crashes, "crash", r"exits repeatedly \(kserve-container of pod .*Error, exit code 2\)"),
    (kserve.lacks_memory, "memory", r"out of memory \(kserve-container of pod .*OOMKilled, exit code 137\)"),
    (kserve.lacks_a_secret, "missing", r"does not exist \(CreateContainerConfigError .*secret \"s3\" not found\)"),
    (kserve.is_not_admitted, "refused", r"does not admit its pods .*violates PodSecurity"),
    (kserve.cannot_fetch, "storage", r"the model cannot be fetched .*403 Forbidden: bucket infill\): check its URI"),
    (kserve.finds_no_node, "unschedulable", r"no node accepts it .*3 Insufficient nvidia.com/gpu"),
    (kserve.exceeds_quota, "quota", r"the namespace's quota is full .*exceeded quota: infill"),
    (kserve.is_refused, "invalid", r"KServe refuses it \(RuntimeNotRecognized no ServingRuntime"),
    (
        kserve.has_headless_services,
        "port",
        r"calls .*-predictor.infill:80, KServe's Services have port 8080\): set kserve.port .* to that port",
    ),
    (kserve.cannot_name_it, "reconcile", r"cannot create its objects \(failed creating host name: invalid domain name"),
    (kserve.is_deleted, "gone", "deleted by someone else"),
    (kserve.leaves_the_transformer_out, "deadline", r"not ready after 0 s \(TransformerReady: False\)"),
    (kserve.goes_on_loading, "deadline", r"not ready after 0 s \(PredictorReady: Deployment is not available\)"),
    (kserve.says_nothing, "deadline", "check that its controller is running"),
]


@pytest.mark.parametrize(("behaviour", "kind", "sentence"), REASONS, ids=[case[0].__name__ for case in REASONS])
def test_each_reason_is_reported(api: Api, name: str, behaviour: Behaviour, kind: str, sentence: str) -> None:
    behaviour(KServe(api, behaviour), name)
    with pytest.raises(NotReadyError, match=sentence) as caught:
        readiness.wait(api, name, seconds=0.0, patience=QUICK)
    assert caught.value.kind == kind


def test_every_sentence_has_a_test() -> None:
    assert {kind for _, kind, _ in REASONS} == set(readiness.SENTENCES)


def test_the_last_lines_of_a_container_that_crashes_are_reported(server: Server, api: Api, name: str) -> None:
    kserve.crashes(KServe(api, kserve.crashes), name)
    server.say(f"{name}-predictor-1", "predictor: the model is not what was evaluated", "2026-11-22T12:00:00Z")
    with pytest.raises(NotReadyError, match=r"\n  \| .*the model is not what was evaluated"):
        readiness.wait(api, name, seconds=5.0, patience=QUICK)
    assert server.log_requests[-1]["previous"] == "true"


def test_ready_is_ready_through_drops_and_forgotten_versions(server: Server, api: Api, name: str) -> None:
    server.faults.append(Fault("GET", "watch=true", drop=True))
    with KServe(api, kserve.becomes_ready).running():
        readiness.wait(api, name, seconds=10.0, patience=QUICK)


def test_an_obstacle_that_goes_away_in_time_does_not_end_the_wait(api: Api, name: str) -> None:
    actor = KServe(api, kserve.becomes_ready)
    kserve.cannot_pull(actor, name)
    pod = f"{name}-predictor-1"

    def recover(each: KServe, obstacle: str) -> None:
        each.api.delete("pods", pod)
        kserve.becomes_ready(each, obstacle)

    actor.behaviour = recover
    with actor.running():
        readiness.wait(api, name, seconds=10.0, patience=RolloutPatience(tick=1, grace=5.0, outage=2.0))


Thing = dict[str, Any]


@pytest.mark.parametrize(
    ("true", "transformer", "expected"),
    [
        ((), False, False),
        (("Ready", "PredictorReady"), False, True),
        (("Ready", "PredictorReady"), True, False),
        (("TransformerReady", "PredictorReady"), True, False),
        (kserve.READY, True, True),
    ],
)
def test_ready_is_what_kserve_says_of_predictor_and_transformer(
    true: tuple[str, ...], transformer: bool, expected: bool
) -> None:
    spec: dict[str, Any] = {"predictor": {}, **({"transformer": {}} if transformer else {})}
    status = {"conditions": kserve.conditions(*true), "observedGeneration": 1}
    assert readiness.ready({"metadata": {"generation": 3}, "spec": spec, "status": status}) is expected


@pytest.mark.parametrize(
    "change",
    [
        lambda each: each.update(restartCount=0, state={"running": {}}, lastState={}),
        lambda each: each.update(lastState={"terminated": {"exitCode": 0, "reason": "Completed"}}),
    ],
    ids=["runs", "ended well"],
)
def test_a_container_that_does_not_crash_is_not_an_obstacle(change: Callable[[Thing], None]) -> None:
    container = kserve.waiting("CrashLoopBackOff", restartCount=4, lastState={"terminated": {"exitCode": 1}})
    pod = {"metadata": {"name": "pod"}, "status": {"containerStatuses": [container]}}
    assert readiness.obstacle({}, [pod], []) is not None
    change(container)
    assert readiness.obstacle({}, [pod], []) is None
