"""Tests of a canary on a cluster: the candidate next to the champion, and both ends."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill import cli
from infill.cluster.api import Api
from infill.errors import InputError
from infill.release import canary_decision, frame, readiness, registry, rollout
from infill.release.canary_decision import CanaryFigures, SideFigures
from infill.release.readiness import RolloutPatience
from infill.release.rollout import DeployError
from serving.transformer.__main__ import _parser, read_config
from tests.unit.release import kserve
from tests.unit.release.cluster import Namespace, Trained, api, engine, model, namespace, server, url

__all__ = ["api", "engine", "model", "namespace", "server", "url"]

SIDE = SideFigures(requests=1_000, failed=0, seconds=0.1, accepted=300, rejected=100)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstacles are believed at once, and the pods are looked at each second."""
    monkeypatch.setattr(readiness, "RolloutPatience", lambda: RolloutPatience(tick=1, grace=0.0, outage=5.0))


@pytest.fixture
def runs(namespace: Namespace, mlflow_store: Path, model: Path) -> tuple[Trained, Trained]:
    """The champion, which serves, and a candidate."""
    first = Trained(mlflow_store, model, "one", 0.5)
    first.deploy()
    time.sleep(1.0)  # times of creation are whole seconds, and only what is older is removed
    return first, Trained(mlflow_store, model, "two", 0.6, canary=True)


def decide(monkeypatch: pytest.MonkeyPatch, candidate: Trained, *reasons: str) -> int:
    """The exit code of the command that reads these figures from the transformer."""
    digests = frozenset({candidate.tags[registry.MODEL_DIGEST]})
    figures = CanaryFigures(stable=SIDE, candidate=SIDE, digests=digests, weight=5.0, reasons=reasons)
    monkeypatch.setattr(canary_decision, "read", lambda _: figures)
    return cli.main(["canary", "decide", "--url", "http://transformer", "--release", "infill"])


def arguments(namespace: Namespace) -> list[str]:
    (container,) = namespace.active["spec"]["transformer"]["containers"]
    return list(container["args"])


def test_a_candidate_is_tried_next_to_the_champion(namespace: Namespace, runs: tuple[Trained, Trained]) -> None:
    first, second = runs
    stable = namespace.route.active
    plan = second.plan()
    assert f"infill.dev/canary-of: {stable}" in plan
    second.deploy()
    route, where = namespace.route, namespace.api.namespace
    trial = route.active
    assert (route.stable, route.previous) == (stable, "")
    assert namespace.services == {stable: first.uri, trial: second.uri}
    assert second.tags[registry.DEPLOYED] == f"{where}/{trial}"
    given, _ = _parser().parse_known_args(arguments(namespace))
    config = read_config(vars(given))
    assert (config.model, config.candidate_model, config.canary_weight) == (first.uri, second.uri, 5.0)
    assert config.candidate_predictor == f"http://{trial}-predictor.{where}:80"
    assert f"--predictor_host={stable}-predictor.{where}:80" in arguments(namespace)
    assert f"--model={second.uri}" in namespace.active["spec"]["predictor"]["containers"][0]["args"]
    second.deploy()
    assert (namespace.route, set(namespace.services)) == (route, {stable, trial}), "a repeated step changes nothing"


def test_a_promoted_candidate_serves_everybody_and_the_champion_stands_by(
    namespace: Namespace, runs: tuple[Trained, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = runs
    stable = namespace.route.active
    second.deploy()
    trial = namespace.route.active
    time.sleep(1.0)
    assert decide(monkeypatch, second) == 0
    route = namespace.route
    assert (route.previous, route.stable) == (stable, "")
    assert set(namespace.services) == {route.active, stable}
    assert namespace.services[route.active] == second.uri
    assert trial not in namespace.services
    assert not any(each.startswith("--candidate") for each in arguments(namespace))
    champion = registry.champion("infill")
    assert champion is not None
    assert (champion.model_uri, champion.tags[registry.CANARY]) == (second.uri, "promoted")
    assert registry.candidate("infill") is None
    assert rollout.rollback(namespace.api, "infill", "infill")["active"] == stable


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed"])
def test_a_candidate_that_is_rolled_back_leaves_the_champion_as_it_was(
    namespace: Namespace, runs: tuple[Trained, Trained], monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    _, second = runs
    before, services = namespace.route, namespace.services
    second.deploy()
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(Api, "delete", kills)
            assert decide(monkeypatch, second, "acceptance") == 130
        assert registry.candidate("infill") is not None
    assert decide(monkeypatch, second, "acceptance") == 0
    assert (namespace.route.active, namespace.route.previous) == (before.active, before.previous)
    assert namespace.route.stable == ""
    assert namespace.services == services
    assert registry.candidate("infill") is None
    assert registry.ROLLED_BACK in second.tags


def kills(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_rollback_in_an_emergency_ends_the_canary(namespace: Namespace, runs: tuple[Trained, Trained]) -> None:
    first, second = runs
    stable = namespace.route.active
    second.deploy()
    trial = namespace.route.active
    back = rollout.rollback(namespace.api, "infill", "infill")
    assert (back["active"], back["left"], back["model_uri"]) == (stable, trial, first.uri)
    assert (namespace.route.active, namespace.route.stable) == (stable, "")
    assert registry.ROLLED_BACK not in first.tags
    version = registry.candidate("infill")
    assert version is not None
    with pytest.raises(InputError, match="does not serve the model of infill version 2: deploy it with infill deploy"):
        rollout.promote(namespace.api, "infill", version)


def test_the_next_candidate_is_compared_with_the_champion_and_not_with_the_last_one(
    namespace: Namespace, mlflow_store: Path, model: Path, runs: tuple[Trained, Trained]
) -> None:
    _, second = runs
    stable = namespace.route.active
    second.deploy()
    trial = namespace.route.active
    time.sleep(1.0)
    third = Trained(mlflow_store, model, "three", 0.7, canary=True)
    with pytest.raises(InputError, match="which now has version 1 as its champion"):
        second.deploy()
    third.deploy()
    assert (namespace.route.stable, namespace.services[namespace.route.active]) == (stable, third.uri)
    assert trial not in namespace.services
    assert f"--predictor_host={stable}-predictor.{namespace.api.namespace}:80" in arguments(namespace)


def without_champion(namespace: Namespace) -> None:
    namespace.api.merge("services", "infill-active", {"spec": {"selector": None}})


def crashing(namespace: Namespace) -> None:
    namespace.kserve.behaviour = kserve.crashes


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_champion, "points to no champion next to which a candidate could be tried: deploy it first"),
        (crashing, "a container exits repeatedly"),
    ],
    ids=["no champion", "crash"],
)
def test_a_canary_that_cannot_begin_leaves_the_route_as_it_is(
    namespace: Namespace, runs: tuple[Trained, Trained], damage: Callable[[Namespace], None], sentence: str
) -> None:
    _, second = runs
    damage(namespace)
    before, services = namespace.route, namespace.services
    with pytest.raises((InputError, DeployError), match=sentence):
        second.deploy()
    assert (namespace.route, namespace.services) == (before, services)
    assert registry.candidate("infill") is not None


def test_the_frame_of_an_older_chart_is_reported(namespace: Namespace, runs: tuple[Trained, Trained]) -> None:
    stored = namespace.api.get("configmaps", "infill-deploy")
    assert stored is not None
    text = stored["data"][frame.FILE].replace('"canary":', '"unknown":', 1)
    namespace.api.merge("configmaps", "infill-deploy", {"data": {frame.FILE: text}})
    with pytest.raises(InputError, match="of another version of charts/infill-serving"):
        runs[1].deploy()
