"""A step as a component's body calls it where INFILL_CLUSTER is set: RayJobs, exit codes, one MLflow run."""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill import config, manifest, stages, tracking
from infill.cluster.api import Api
from infill.cluster.job_settings import VARIABLE
from infill.cluster.stage_job import build
from infill.stages import rayjob, sizing
from infill.stages import step as pipeline_step
from tests import builders
from tests.kube.apiserver import Server
from tests.unit.cluster.kuberay import KubeRay
from tests.unit.cluster.test_lifecycle import meanwhile
from tests.unit.cluster.test_rayjob import SETTINGS
from tests.unit.corpus.folders import write_repositories


@pytest.fixture
def step(server: Server, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., manifest.Manifest]:
    """A step of run `run-1` on the cluster of the tests."""
    monkeypatch.setenv(VARIABLE, json.dumps(dataclasses.asdict(SETTINGS)))
    monkeypatch.setenv(stages.RUN, "run-1")

    def call(name: str, inputs: dict[str, str], **settings: Any) -> manifest.Manifest:
        output = str(tmp_path / f"{name}.json")
        store = str(tmp_path / "store")
        return pipeline_step.step(
            name, preset="debug", settings=config.to_text(settings), store=store, inputs=inputs, output=output
        )

    return call


def first_job(api: Api) -> dict[str, Any]:
    """The first RayJob, as soon as there is one."""
    for _ in range(200):
        if jobs := api.list("rayjobs")["items"]:
            return dict(jobs[0])
        time.sleep(0.05)
    raise AssertionError("no job was created")


def operate(api: Api, kuberay: KubeRay) -> Callable[[], None]:
    """KubeRay's part: run the driver of the first job with its own environment, tell how it ended."""

    def operator() -> None:
        job = first_job(api)
        head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        environment = {each["name"]: each["value"].replace("$$(", "$(") for each in head["env"]}
        assert environment["INFILL_PARENT_RUN_ID"] == "abc"
        assert environment["INFILL_IMAGE"] == SETTINGS.image
        assert job["spec"]["entrypoint"] == "python -m infill.stages.rayjob"
        code = rayjob.drive(environment)
        kuberay.status(job["metadata"]["name"], "Failed" if code else "Complete", "FAILED" if code else "SUCCEEDED")

    return operator


def test_a_step_runs_its_stage_as_a_rayjob(
    step: Callable[..., manifest.Manifest],
    api: Api,
    kuberay: KubeRay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INFILL_PARENT_RUN_ID", "abc")
    sources = {"sources": [f"dir:{write_repositories(tmp_path / 'code')}"]}
    with meanwhile(operate(api, kuberay)):
        artifact = step("corpus", {}, **sources)
    assert artifact.stage == "corpus"
    assert manifest.load(artifact.uri).digest == artifact.digest
    assert manifest.load(str(tmp_path / "corpus.json")) == artifact
    (job,) = api.list("rayjobs", labels="infill.dev/run=run-1")["items"]
    assert step("corpus", {}, **sources) == artifact  # a retried step finds the job that succeeded
    assert [each["metadata"]["uid"] for each in api.list("rayjobs")["items"]] == [job["metadata"]["uid"]]
    assert f"attached to RayJob {api.namespace}/{job['metadata']['name']}" in capsys.readouterr().err


def test_a_light_stage_runs_in_the_step_itself(
    step: Callable[..., manifest.Manifest], api: Api, tmp_path: Path
) -> None:
    corpus = builders.write_documents(tmp_path / "corpus", builders.tiny_repositories())
    artifact = step("tokenizer", {"corpus": corpus}, **{"tokenizer.vocab_size": 400})
    assert manifest.load(str(tmp_path / "tokenizer.json")) == artifact
    assert api.list("rayjobs")["items"] == []


def test_a_step_ends_with_the_exit_code_of_the_reason(
    step: Callable[..., manifest.Manifest], api: Api, kuberay: KubeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    def operator() -> None:
        kuberay.status(first_job(api)["metadata"]["name"], "Failed", "", reason="DeadlineExceeded", message="too long")

    with pytest.raises(SystemExit) as ended, meanwhile(operator):
        step("corpus", {})
    assert ended.value.code == 24
    output = capsys.readouterr().err
    assert "infill: corpus: RayJob run-1-corpus-" in output
    assert "the job's deadline passed (too long)" in output


def test_a_full_quota_and_a_wrong_token_have_their_codes(
    step: Callable[..., manifest.Manifest], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.quota["rayjobs"] = 0
    with pytest.raises(SystemExit) as ended:
        step("corpus", {})
    assert ended.value.code == 22
    server.token = "another"
    with pytest.raises(SystemExit) as ended:
        step("corpus", {})
    assert ended.value.code == 2
    assert "rejects our token" in capsys.readouterr().err


def test_settings_that_cannot_be_used_end_the_step(
    step: Callable[..., manifest.Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "{")
    with pytest.raises(SystemExit) as ended:
        step("corpus", {})
    assert ended.value.code == 2


def test_steps_of_a_run_share_one_mlflow_run(
    mlflow_store: Path, step: Callable[..., manifest.Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracking.PARENT_RUN, "")
    corpus = builders.write_documents(tmp_path / "corpus", builders.tiny_repositories())
    parents = set()
    for size in (400, 500):
        monkeypatch.delenv(tracking.PARENT_RUN)  # each step is a process of its own
        step("tokenizer", {"corpus": corpus}, **{"tokenizer.vocab_size": size})
        parents.add(os.environ[tracking.PARENT_RUN])
    (parent,) = parents
    from mlflow import MlflowClient

    client = MlflowClient(tracking.tracking_uri())
    experiment = client.get_run(parent).info.experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len(nested) == 2


@pytest.mark.parametrize(("state", "status"), [("SUCCEEDED", "FINISHED"), ("FAILED", "FAILED")])
def test_the_last_step_sweeps_and_ends_the_run(
    mlflow_store: Path,
    step: Callable[..., manifest.Manifest],
    api: Api,
    capsys: pytest.CaptureFixture[str],
    state: str,
    status: str,
) -> None:
    from mlflow import MlflowClient

    groups = sizing.groups("debug", config.debug(), "sft")
    job = SETTINGS.job(run="run-1", stage="sft", config_hash="0", entrypoint=("true",), env={}, groups=groups)
    api.create("rayjobs", build(job))
    parent = tracking.parent_run("infill-debug", "run-1")
    pipeline_step.finish(state)
    assert api.list("rayjobs")["items"] == []
    assert f"deleted RayJob {job.name}" in capsys.readouterr().err
    assert MlflowClient(tracking.tracking_uri()).get_run(parent).info.status == status


def test_on_one_machine_the_last_step_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    pipeline_step.finish("FAILED")
