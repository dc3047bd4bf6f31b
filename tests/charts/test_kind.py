"""The assertions of `make kind-test` and `make cluster-test`, against the tests' API server and a real transformer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.kind import check
from infill import config, tracking
from infill.cluster.api import Api
from infill.cluster.stage_job import build
from infill.release import readiness, registry
from infill.release.readiness import RolloutPatience
from infill.stages import RAY_STAGES
from infill.stages.sizing import groups
from tests.kube.apiserver import Server
from tests.unit.cluster.conftest import kuberay
from tests.unit.cluster.kuberay import KubeRay
from tests.unit.cluster.test_rayjob import SETTINGS
from tests.unit.release.cluster import RELEASE, Namespace, Trained, api, engine, model, namespace, server, url

__all__ = ["api", "engine", "kuberay", "model", "namespace", "server", "url"]

RUN = "0b1f"


@pytest.fixture
def ran(api: Api, kuberay: KubeRay, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A run of the pipeline as it stands afterwards: RayJobs (stage -> name) and MLflow runs."""
    jobs = {}
    parent = tracking.parent_run("infill-debug", RUN)
    monkeypatch.setenv(tracking.PARENT_RUN, parent)
    for stage in (*RAY_STAGES, "register"):
        with tracking.stage_run(stage if stage != "evaluate" else "evaluate-base", config={}, key=stage):
            pass
        if stage == "register":
            continue
        job = SETTINGS.job(
            run=RUN,
            stage=stage,
            config_hash="0",
            entrypoint=("true",),
            env={},
            groups=groups("debug", config.debug(), stage),
        )
        api.create("rayjobs", build(job))
        kuberay.status(job.name, "Complete", "SUCCEEDED")
        jobs[stage] = job.name
    tracking.end_run(parent, "FINISHED")
    return jobs


@pytest.fixture
def asked(mlflow_store: Path, url: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command; its exit code and what it printed."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        place = ["--mlflow", tracking.tracking_uri(), "--release", RELEASE, "--wait", "0"]
        code = check.main([*words, *place])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_two_runs_a_deployment_each_and_a_rollback(
    ran: dict[str, str],
    asked: Callable[..., tuple[int, str]],
    namespace: Namespace,
    mlflow_store: Path,
    model: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "RolloutPatience", lambda: RolloutPatience(tick=1, grace=0.0, outage=5.0))
    look = ("assert", "--run", RUN, "--url", url)
    code, line = asked(*look)
    assert (code, line) == (1, "model infill is not registered, or has no champion\n")
    Trained(mlflow_store, model, "one").deploy()
    assert asked(*look) == (0, "")
    assert asked("rollback") == (1, f"Service {RELEASE}-active has no previous InferenceService to return to\n")
    Trained(mlflow_store, model, "two", 0.6).deploy()
    second = namespace.route.active
    assert asked(*look) == (0, "")
    assert asked("rollback") == (0, "")
    assert namespace.route.left == second
    assert asked("assert", "--url", url) == (0, "")
    champion = registry.champion("infill")
    assert champion is not None
    assert champion.version == "1"


def test_what_does_not_serve_the_champion_is_reported(
    asked: Callable[..., tuple[int, str]], namespace: Namespace, mlflow_store: Path, model: Path
) -> None:
    Trained(mlflow_store, model, "one").deploy()
    Trained(mlflow_store, model, "two", 0.6)  # registered, not deployed
    code, line = asked("assert")
    assert code == 1
    assert "the champion (version 2) is another model" in line
    namespace.api.delete("inferenceservices", namespace.route.active)
    assert asked("assert") == (1, f"release {RELEASE} serves nothing\n")


def test_jobs_that_failed_are_missing_or_left_are_reported(
    ran: dict[str, str], api: Api, kuberay: KubeRay, asked: Callable[..., tuple[int, str]]
) -> None:
    assert list(check.rayjobs(api, RUN)) == list(check.mlflow(RUN)) == []
    kuberay.status(ran["dpo"], "Failed", "FAILED")
    kuberay.pod(ran["dpo"], "worker", "worker", run=RUN)
    api.delete("rayjobs", ran["corpus"])
    entries = list(check.rayjobs(api, RUN))
    assert entries[0] == f"stage corpus: no RayJob of run {RUN}"
    assert ran["dpo"] in entries[1]
    assert entries[2:] == ["pod worker of a Ray cluster still runs"]
    assert len(list(check.rayjobs(api, "another", ("sft",)))) == 1


def test_runs_that_mlflow_does_not_have_are_reported(mlflow_store: Path) -> None:
    assert "has no run of pipeline run x" in next(check.mlflow("x"))
    tracking.parent_run("infill-debug", "x")
    entries = list(check.mlflow("x", ("sft",)))
    missing = [f"MLflow has no run of stage {stage}" for stage in ("sft", "register")]
    assert entries == ["the MLflow run of pipeline run x is RUNNING", *missing]


def test_a_server_that_is_not_a_transformer_is_reported(url: str) -> None:
    assert list(check.completion(url)) == []
    assert check.settled(lambda: check.completion(f"{url}/none"), 0.0)[0].endswith("HTTP Error 404: Not Found")


def test_a_cluster_that_refuses_us_is_one_sentence(
    server: Server, namespace: Namespace, asked: Callable[..., tuple[int, str]]
) -> None:
    server.token = "another"
    code, line = asked("rollback")
    assert code == 1
    assert "rejects our token" in line
    assert line.count("\n") == 1
