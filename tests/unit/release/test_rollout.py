"""Tests of deployments to KServe: what serves, what remains, what MLflow records; and each way to fail."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill import cli, manifest, storage
from infill.cluster.api import Api, ClusterRefusedError
from infill.errors import InfillError, InputError, ServiceError
from infill.release import deploy, frame, readiness, registry, rollout, route, smoke
from infill.release.readiness import RolloutPatience
from infill.release.rollout import DeployError
from tests.kube.apiserver import Server
from tests.unit.release import kserve
from tests.unit.release.cluster import CONFIG, Namespace, Trained, api, engine, model, namespace, server, upload, url

__all__ = ["api", "engine", "model", "namespace", "server", "url"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Obstacles are believed at once, and the pods are looked at each second."""
    monkeypatch.setattr(readiness, "RolloutPatience", lambda: RolloutPatience(tick=1, grace=0.0, outage=5.0))


def test_the_first_deployment_serves_and_is_reported(
    namespace: Namespace, mlflow_store: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Trained(mlflow_store, model, "one")
    figures = run.deploy()
    said = capsys.readouterr().err
    assert [word for word in ("is applied", "is ready", "points to", "removed") if word in said] == [
        "is applied",
        "is ready",
        "points to",
    ]
    assert figures["deployed"] == 1.0
    assert figures["smoke_prompts"] == len(smoke.GOLDEN)
    (name,) = namespace.services
    assert namespace.services == {name: run.uri}
    assert (namespace.route.active, namespace.route.previous) == (name, "")
    assert run.tags[registry.DEPLOYED] == f"{namespace.api.namespace}/{name}"
    assert run.tags[registry.DEPLOYED_BEFORE] == "none"
    assert float(run.tags["infill.smoke_max_ms"]) >= float(run.tags["infill.smoke_p50_ms"]) > 0
    served = namespace.api.get("inferenceservices", name)
    assert served is not None
    assert served["metadata"]["annotations"][frame.DIGEST] == manifest.digest_of(run.uri)
    record = served["metadata"]["annotations"][frame.DEPLOYMENT]
    assert storage.read_json(record)["model_uri"] == run.uri


def test_deployments_follow_each_other_and_go_back(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    runs = [Trained(mlflow_store, model, "one", 0.5)]
    runs[0].deploy()
    names = [namespace.route.active]
    for label, score in (("two", 0.6), ("three", 0.7)):
        runs.append(Trained(mlflow_store, model, label, score))
        runs[-1].deploy()
        names.append(namespace.route.active)
    first, second, third = names
    assert set(namespace.services) == {second, third}, "the previous one stands by, older ones are gone"
    assert runs[2].tags[registry.DEPLOYED_BEFORE] == second

    back = rollout.rollback(namespace.api, "infill", "infill")
    assert (back["active"], back["left"], back["model_uri"]) == (second, third, runs[1].uri)
    assert (namespace.route.active, namespace.route.previous) == (second, "")
    assert registry.ROLLED_BACK in runs[2].tags
    champion = registry.champion("infill")
    assert champion is not None
    assert champion.model_uri == runs[1].uri
    with pytest.raises(InputError, match="no previous InferenceService to return to"):
        rollout.rollback(namespace.api, "infill", "infill")
    with pytest.raises(InputError, match="which now has version 2 as its champion"):
        runs[2].deploy()
    assert namespace.route.active == second

    assert runs[1].deploy()["removed"] == 0.0, "what serves already is left as it is"
    assert set(namespace.services) == {second, third}
    assert first not in namespace.kserve.seen[1:]


def test_what_was_created_in_the_same_second_or_later_is_not_older() -> None:
    created = {"a": "2026-11-27T02:38:01Z", "b": "2026-11-27T02:38:02Z", "c": "2026-11-27T02:38:02Z"}
    assert rollout.older(created, route.Route(active="c")) == ["a"]
    assert rollout.older(created, route.Route(active="a")) == []
    assert rollout.older(created, route.Route(active="b", previous="a")) == []
    assert rollout.older(created, route.Route(active="gone", previous="a")) == ["b", "c"]


def test_a_changed_chart_is_a_new_inference_service(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    run = Trained(mlflow_store, model, "one")
    run.deploy()
    first = namespace.route.active
    engines = json.loads((namespace.api.get("configmaps", "infill-deploy") or {})["data"][frame.FILE])["engines"]
    engines["embedded"]["spec"]["transformer"]["containers"][0]["resources"]["limits"]["cpu"] = "3"
    namespace.change_frame(engines=engines)
    run.deploy()
    assert namespace.route.active != first
    assert namespace.route.previous == first
    rollout.rollback(namespace.api, "infill", "infill")
    assert namespace.route.active == first
    assert registry.ROLLED_BACK not in run.tags, "the same model serves: there is nothing wrong with it"


@pytest.mark.parametrize(("gib", "predictor"), [(1.0, "embedded"), (0.0, "vllm")])
def test_the_engine_follows_the_size_of_the_weights(
    namespace: Namespace, mlflow_store: Path, model: Path, gib: float, predictor: str
) -> None:
    namespace.change_frame(embedded_max_gib=gib)
    Trained(mlflow_store, model, "one").deploy()
    served = namespace.api.get("inferenceservices", namespace.route.active)
    assert served is not None
    by_runtime = served["spec"]["predictor"].get("model", {})
    assert by_runtime.get("runtime", "infill-embedded") == f"infill-{predictor}"


def test_weights_that_do_not_fit_are_reported(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    engines = json.loads((namespace.api.get("configmaps", "infill-deploy") or {})["data"][frame.FILE])["engines"]
    engines["embedded"]["spec"]["predictor"]["containers"][0]["resources"]["limits"]["memory"] = "1k"
    namespace.change_frame(engines=engines)
    with pytest.raises(
        InputError, match=r"the predictor has 0.0: raise predictor.embedded.resources of release infill"
    ):
        Trained(mlflow_store, model, "one").deploy()
    assert namespace.services == {}


# -- What fails leaves the old one serving -----------------------------------------------------------------------------


def fails(namespace: Namespace, mlflow_store: Path, model: Path, sentence: str, kind: type[InfillError]) -> Trained:
    """A second deployment fails with that sentence; clients and MLflow see what they must."""
    second = Trained(mlflow_store, model, "two", 0.6)
    before, services = namespace.route, namespace.services
    with pytest.raises(kind, match=sentence):
        second.deploy()
    assert (namespace.route, namespace.services) == (before, services), "nothing half-made is left"
    return second


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"smoke_latency_ms": 0}, r"took \d+ ms, more than the 0 ms of deploy.smokeLatency"),
        ({"url": "http://127.0.0.1:9"}, "no Infill transformer answers"),
    ],
    ids=["slow", "unreachable"],
)
def test_a_failed_smoke_test_leaves_the_old_one(
    namespace: Namespace, mlflow_store: Path, model: Path, change: dict[str, Any], sentence: str, quick_smoke: None
) -> None:
    Trained(mlflow_store, model, "one").deploy()
    namespace.change_frame(**change)
    run = fails(
        namespace,
        mlflow_store,
        model,
        rf"(?s){sentence}.*is removed, {namespace.route.active} continues to serve",
        DeployError,
    )
    assert "is not deployed" in run.tags[registry.FAILED]
    assert registry.DEPLOYED not in run.tags


@pytest.fixture
def quick_smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer that does not answer at once is given up."""
    check = smoke.check
    monkeypatch.setattr(smoke, "check", lambda *given, **named: check(*given, **named, settle_s=0.0))


def test_what_does_not_become_ready_is_removed_and_can_be_deployed_later(
    namespace: Namespace, mlflow_store: Path, model: Path
) -> None:
    Trained(mlflow_store, model, "one").deploy()
    namespace.kserve.behaviour = kserve.cannot_pull
    run = fails(namespace, mlflow_store, model, "an image cannot be pulled .*check its name and digest", DeployError)
    assert "an image cannot be pulled" in run.tags[registry.FAILED]
    namespace.kserve.behaviour = kserve.becomes_ready
    namespace.kserve.seen.clear()
    for pod in namespace.api.list("pods")["items"]:
        namespace.api.delete("pods", pod["metadata"]["name"])
    run.deploy()
    assert namespace.services[namespace.route.active] == run.uri
    assert run.tags[registry.FAILED] == ""


def test_the_first_deployment_that_fails_leaves_nothing(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    namespace.kserve.behaviour = kserve.crashes
    fails(namespace, mlflow_store, model, "still points to nothing", DeployError)


def test_a_full_quota_is_reported(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    namespace.limit(0)
    fails(namespace, mlflow_store, model, r"the namespace's quota is full .*exceeded quota", DeployError)


def without_chart(namespace: Namespace) -> None:
    namespace.api.delete("configmaps", "infill-deploy")


def old_chart(namespace: Namespace) -> None:
    namespace.change_frame(engines={})


def without_service(namespace: Namespace) -> None:
    namespace.api.delete("services", "infill-active")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_chart, "has no ConfigMap infill-deploy: install charts/infill-serving there as release infill"),
        (old_chart, "of another version of charts/infill-serving"),
        (without_service, "has no Service infill-active"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_namespace_that_cannot_take_it_is_reported_before_anything_is_made(
    namespace: Namespace, mlflow_store: Path, model: Path, damage: Callable[[Namespace], None], sentence: str
) -> None:
    run = Trained(mlflow_store, model, "one")
    damage(namespace)
    with pytest.raises(InfillError, match=sentence):
        run.deploy()
    assert namespace.services == {}


def uninstall(server: Server) -> None:
    server.installed.discard("inferenceservices")


def forbid(server: Server) -> None:
    server.forbidden.add(("patch", "services"))


def wrong_token(server: Server) -> None:
    server.token = "another"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (uninstall, "has no resource inferenceservices .*install KServe"),
        (forbid, r"this account is not allowed to patch services in namespace ml: install charts/infill-platform"),
        (wrong_token, "rejects our token"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_cluster_that_cannot_take_it_is_reported_before_anything_is_made(
    server: Server,
    namespace: Namespace,
    mlflow_store: Path,
    model: Path,
    damage: Callable[[Server], None],
    sentence: str,
) -> None:
    run = Trained(mlflow_store, model, "one")
    damage(server)
    with pytest.raises(InfillError, match=sentence):
        run.deploy()
    assert [method for method, path in server.requests if "inferenceservices/" in path] == []


def test_a_model_on_a_disk_is_not_deployed(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    version = registry.Version(name="infill", version="1", model_uri=str(model), model_digest="", tags={})
    with pytest.raises(InputError, match="which no pod of the cluster can read"):
        rollout.deploy(namespace.api, "infill", rollout.RolloutTarget(version=version, record="memory://record"))


# -- Kills and conflicts -----------------------------------------------------------------------------------------------

STEPS: list[tuple[Any, str]] = [
    (Api, "apply"),
    (readiness, "wait"),
    (smoke, "check"),
    (route, "shift"),
    (Api, "delete"),
    (registry, "set_tags"),
]


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("home", "step"), STEPS, ids=[step for _, step in STEPS])
def test_killed_and_repeated_it_ends_as_if_undisturbed(
    namespace: Namespace, mlflow_store: Path, model: Path, home: Any, step: str, done: bool
) -> None:
    version = registry.register("infill", model_uri="", tags={registry.MODEL_DIGEST: "0"})
    targets = []
    for label in ("one", "two", "three") if step == "delete" else ("two", "three"):
        uri = upload(model, f"memory://{mlflow_store.name}/{label}", mlflow_store)
        created = registry.Version(name="infill", version=version.version, model_uri=uri, model_digest=label, tags={})
        targets.append(rollout.RolloutTarget(version=created, record=f"{uri}/deployment.json"))
    *before, last = targets
    for target in before:
        rollout.deploy(namespace.api, "infill", target)
    second = namespace.route.active
    real = getattr(home, step)

    def killed(*arguments: Any, **named: Any) -> Any:
        if done:
            real(*arguments, **named)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rollout.deploy(namespace.api, "infill", last)
    assert namespace.services[namespace.route.active] in (before[-1].version.model_uri, last.version.model_uri)
    rollout.deploy(namespace.api, "infill", last)
    third = namespace.route.active
    assert namespace.route == route.Route(active=third, previous=second, smoke=namespace.route.smoke)
    assert namespace.route.smoke["smoke_prompts"] == len(smoke.GOLDEN)
    assert set(namespace.services) == {second, third}
    reported = registry.find("infill", "0")
    assert reported is not None
    assert reported.tags[registry.DEPLOYED] == f"{namespace.api.namespace}/{third}"


@pytest.mark.parametrize("step", ["shift", "find", "rollback", "set_tags"])
def test_a_rollback_that_was_killed_is_ended_by_the_next(
    namespace: Namespace, mlflow_store: Path, model: Path, step: str
) -> None:
    runs = [Trained(mlflow_store, model, label, score) for label, score in (("one", 0.5), ("two", 0.6))]
    for number, run in enumerate(runs, start=1):
        version = registry.find("infill", manifest.digest_of(run.uri))
        assert version is not None
        assert version.version == str(number)
        rollout.deploy(namespace.api, "infill", rollout.RolloutTarget(version=version, record="memory://record"))
    first = namespace.route.previous
    home: Any = route if step == "shift" else registry
    real = getattr(home, step)

    def killed(*arguments: Any, **named: Any) -> Any:
        if step != "find":
            real(*arguments, **named)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, step, killed)
        with pytest.raises(KeyboardInterrupt):
            rollout.rollback(namespace.api, "infill", "infill")
    assert namespace.route.active == first
    if step in ("shift", "find"):
        assert rollout.rollback(namespace.api, "infill", "infill")["active"] == first
    champion = registry.champion("infill")
    assert champion is not None
    assert champion.model_uri == runs[0].uri
    assert registry.ROLLED_BACK in runs[1].tags


def test_a_previous_one_that_is_not_ready_is_not_gone_back_to(
    namespace: Namespace, mlflow_store: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, score in (("one", 0.5), ("two", 0.6)):
        Trained(mlflow_store, model, label, score).deploy()
    before = namespace.route
    namespace.kserve.status(before.previous, conditions=[{"type": "Ready", "status": "False", "message": "no pods"}])
    monkeypatch.setattr(rollout, "ROLLBACK_S", 0.0)
    with pytest.raises(ServiceError, match="is not ready after 0 s"):
        rollout.rollback(namespace.api, "infill", "infill")
    namespace.api.delete("inferenceservices", before.previous)
    with pytest.raises(InputError, match="which served before, is gone: deploy its model again"):
        rollout.rollback(namespace.api, "infill", "infill")
    assert namespace.route == before


def test_another_change_of_the_service_is_not_an_obstacle(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, others = route.read, iter(["first", "second"])

    def meanwhile(api: Api, service: str) -> tuple[route.Route, dict[str, Any]]:
        now = read(api, service)
        for label in itertools.islice(others, 1):
            api.merge("services", service, {"metadata": {"labels": {"team": label}}})
        return now

    with monkeypatch.context() as patch:
        patch.setattr(route, "read", meanwhile)
        route.shift(namespace.api, "infill-active", route.Route(), route.Route(active="green"))
    assert next(others, "") == "", "both changes came in between"
    assert namespace.route.active == "green"


def test_a_route_that_somebody_else_has_moved_is_left_alone(
    namespace: Namespace, mlflow_store: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trained(mlflow_store, model, "one")
    check = smoke.check

    def meanwhile(*given: Any, **named: Any) -> dict[str, float]:
        namespace.api.merge("services", "infill-active", route.change(route.Route(active="theirs")))
        return check(*given, **named)

    monkeypatch.setattr(smoke, "check", meanwhile)
    with pytest.raises(
        DeployError, match=r"(?s)was pointed to theirs by someone else.*is removed, theirs continues to serve"
    ):
        run.deploy()
    assert namespace.services == {}


def test_a_shift_whose_answer_is_lost_counts(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    real = Api.merge

    def lost(self: Api, resource: str, name: str, body: dict[str, Any], **named: Any) -> dict[str, Any]:
        real(self, resource, name, body, **named)
        if resource == "services":
            raise ClusterRefusedError(409, "the object has been modified")
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "merge", lost)
        Trained(mlflow_store, model, "one").deploy()
    assert namespace.route.active in namespace.services


# -- What must agree before anything is made ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["model", "record", "evaluation", "rolled back"])
def test_what_was_not_evaluated_is_not_deployed(
    namespace: Namespace, mlflow_store: Path, model: Path, what: str
) -> None:
    run = Trained(mlflow_store, model, "one")
    evaluation = run.evaluations["sft"]
    if what == "model":
        storage.write_bytes(f"{run.uri}/manifest.json", storage.read_bytes(f"{run.models['dpo']}/manifest.json"))
    elif what == "record":
        value = storage.read_json(f"{evaluation}/record.json") | {"model_digest": "f" * 64}
        storage.write_json(f"{evaluation}/record.json", value)
    elif what == "evaluation":
        other = storage.read_json(f"{run.evaluations['dpo']}/manifest.json")
        storage.write_json(f"{evaluation}/manifest.json", other | {"uri": evaluation})
    else:
        version = registry.champion("infill")
        assert version is not None
        registry.set_tags(version, {registry.ROLLED_BACK: "today"})
    with pytest.raises(InputError, match=r"evaluate and register it again|was rolled back on today"):
        run.deploy()
    assert namespace.services == {}
    assert not storage.exists(run.output)


# -- The command line's ways -------------------------------------------------------------------------------------------


def test_a_version_without_an_evaluation_is_not_deployed(mlflow_store: Path, model: Path) -> None:
    tags = {registry.MODEL_DIGEST: manifest.digest_of(str(model))}
    registry.promote(registry.register("infill", model_uri=str(model), tags=tags))
    with pytest.raises(InputError, match="infill version 1 has no evaluation"):
        deploy.decision_of_champion("infill")


def test_the_champion_is_deployed_by_the_decision_that_registered_it(mlflow_store: Path, model: Path) -> None:
    with pytest.raises(InputError, match="has no champion"):
        deploy.decision_of_champion("infill")
    run = Trained(mlflow_store, model, "one")
    assert deploy.decision_of_champion("infill") == run.decision
    (Path(run.decision) / "decision.json").write_text("{}")
    with pytest.raises(InputError, match="infill version 1 was not registered by the decision at"):
        deploy.decision_of_champion("infill")


def test_a_dry_run_shows_manifests_and_differences_and_changes_nothing(
    namespace: Namespace, mlflow_store: Path, model: Path
) -> None:
    first = Trained(mlflow_store, model, "one")
    text = first.plan()
    assert f"infill.dev/model-uri: {first.uri}" in text
    assert "+++ InferenceService/infill-" in text
    assert "# Would be removed: nothing" in text
    assert (namespace.services, namespace.route.active) == ({}, "")
    assert not storage.exists(first.output)
    first.deploy()
    second = Trained(mlflow_store, model, "two", 0.6)
    before = namespace.route
    lines = second.plan().splitlines()
    assert f"-    infill.dev/model-uri: {first.uri}" in lines
    assert f"+    infill.dev/model-uri: {second.uri}" in lines
    assert f"-    serving.kserve.io/inferenceservice: {before.active}" in lines
    assert namespace.route == before
    second.deploy()
    assert "# InferenceService/" + namespace.route.active + ": no change" in second.plan()


COLLECTED_S = 60.0
"""Within which a real garbage collector has removed what has lost its owner."""


def limits(service: dict[str, Any]) -> dict[str, Any]:
    containers = service["spec"]["transformer"]["containers"]
    containers[0]["resources"]["limits"]["cpu"] = "7"
    return {"spec": {"transformer": {"containers": containers}}}


def another_image(service: dict[str, Any]) -> dict[str, Any]:
    containers = service["spec"]["predictor"]["containers"]
    containers[0]["image"] = "example/other"
    return {"spec": {"predictor": {"containers": containers}}}


DRIFTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "nothing": lambda _: {},
    "a limit": limits,
    "an image": another_image,
    "a label": lambda _: {"metadata": {"labels": {frame.MANAGER_LABEL: "someone"}}},
    "an annotation": lambda _: {"metadata": {"annotations": {frame.DIGEST: None}}},
    "its owner, as an earlier version made none": lambda _: {"metadata": {"ownerReferences": None}},
}


@pytest.mark.parametrize("change", DRIFTS.values(), ids=DRIFTS)
def test_what_a_dry_run_shows_of_a_drift_is_what_the_deployment_mends(
    namespace: Namespace,
    mlflow_store: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    run = Trained(mlflow_store, model, "one")
    run.deploy()
    route, right = namespace.route, namespace.active
    namespace.api.merge("inferenceservices", route.active, change(namespace.active))
    drifted = namespace.active
    shown = differences(run.plan())
    assert namespace.active == drifted
    capsys.readouterr()
    run.deploy()
    said = capsys.readouterr().err
    mended = [*rollout.diff(drifted, namespace.active), "# Service/infill-active: no change"]
    assert shown == mended
    assert ("differed from release infill: corrected" in said) is (change is not DRIFTS["nothing"])
    assert rollout.diff(right, namespace.active) == [f"# InferenceService/{route.active}: no change"]
    assert namespace.route == route


def differences(plan: str) -> list[str]:
    """What a dry run shows against what is live."""
    lines = plan.split("\n")
    return lines[lines.index("# Against what is live") + 1 : -1]


def test_a_correction_that_does_not_become_ready_keeps_the_route(
    namespace: Namespace, mlflow_store: Path, model: Path
) -> None:
    run = Trained(mlflow_store, model, "one")
    run.deploy()
    route = namespace.route
    namespace.api.merge("inferenceservices", route.active, limits(namespace.active))
    namespace.kserve.status(route.active, conditions=[{"type": "Ready", "status": "False"}])
    kserve.cannot_pull(namespace.kserve, route.active)
    with pytest.raises(DeployError, match=f"(?s)an image cannot be pulled.*{route.active} continues to serve"):
        run.deploy()
    assert namespace.route == route
    assert namespace.services == {route.active: run.uri}


def test_an_active_one_that_is_gone_is_made_again_as_the_dry_run_shows(
    namespace: Namespace, mlflow_store: Path, model: Path
) -> None:
    run = Trained(mlflow_store, model, "one")
    run.deploy()
    name = namespace.route.active
    namespace.api.delete("inferenceservices", name)
    namespace.kserve.seen.clear()
    shown = differences(run.plan())
    run.deploy()
    assert shown[: len(rollout.diff({}, namespace.active))] == rollout.diff({}, namespace.active)
    assert namespace.route.active == name


def test_uninstalling_the_release_removes_what_it_serves(namespace: Namespace, mlflow_store: Path, model: Path) -> None:
    for label, score in (("one", 0.5), ("two", 0.6)):
        Trained(mlflow_store, model, label, score).deploy()
    assert len(namespace.services) == 2
    namespace.api.delete("services", "infill-active")  # as `helm uninstall` does; the garbage collector does the rest
    until = time.monotonic() + COLLECTED_S
    while namespace.services and time.monotonic() < until:
        time.sleep(0.2)
    assert namespace.services == {}


def test_a_dry_run_on_one_machine_says_what_would_be_recorded(mlflow_store: Path, model: Path) -> None:
    run = Trained(mlflow_store, model, "one")
    text = run.plan(type(CONFIG)())
    assert f"{run.output}/deployment.json would name {run.uri}" in text
    assert not storage.exists(run.output)


def test_the_command_line_deploys_tests_and_goes_back(
    namespace: Namespace, mlflow_store: Path, model: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    for label, score in (("one", 0.5), ("two", 0.6)):
        run = Trained(mlflow_store, model, label, score)
        command = ["deploy", "--preset", "debug", "--decision", run.decision, "--output", run.output]
        assert cli.main([*command, "--release", "infill", "--dry-run"]) == 0
        assert f"infill.dev/model-uri: {run.uri}" in capsys.readouterr().out
        assert cli.main([*command, "--release", "infill"]) == 0
        assert json.loads(capsys.readouterr().out)["uri"] == run.output
    second = namespace.route.active
    assert cli.main(["smoke", "--url", url, "--model", str(model)]) == 0
    assert json.loads(capsys.readouterr().out)["smoke_prompts"] == len(smoke.GOLDEN)
    assert cli.main(["smoke", "--url", url]) == 2
    assert "--url needs --model" in capsys.readouterr().err
    assert cli.main(["rollback", "--release", "infill"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == second
    assert cli.main(["rollback", "--release", "infill"]) == 2
    assert "has no previous InferenceService to return to" in capsys.readouterr().err
    store = ["--preset", "debug", "--champion", "infill", "--store", f"memory://{mlflow_store.name}/store"]
    assert cli.main(["deploy", *store, "--release", "other"]) == 2
    assert "has no ConfigMap other-deploy" in capsys.readouterr().err
