"""A stage asked for by a step, run by the driver of a RayJob; its settings; the checks before it."""

import io
import json
from dataclasses import fields
from pathlib import Path

import pytest

from infill import manifest, stages
from infill.cluster import preflight, stage
from infill.cluster.api import Api
from infill.cluster.preflight import problems, quantity
from infill.cluster.settings import VARIABLE, Settings, read
from infill.errors import InputError
from tests.charts.bundle import render
from tests.kube.apiserver import Server
from tests.unit.cluster.conftest import DIGEST, QUICK

SETTINGS = Settings(image=f"infill/train@{DIGEST}", secrets=("infill-object-store",))


def ask(api: Api, tmp_path: Path, inputs: dict[str, str]) -> manifest.Manifest:
    """The pretrain stage of a run on the cluster."""
    return stage.run(
        "pretrain",
        settings=SETTINGS,
        preset="debug",
        overrides={},
        store=str(tmp_path / "store"),
        inputs=inputs,
        output=str(tmp_path / "model.json"),
        api=api,
        out=io.StringIO(),
        patience=QUICK,
    )


def test_a_step_needs_a_run_and_its_inputs(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(stages.RUN, raising=False)
    with pytest.raises(InputError, match="INFILL_RUN is not set"):
        ask(api, tmp_path, {})
    monkeypatch.setenv(stages.RUN, "run-1")
    with pytest.raises(InputError, match="needs corpus, tokenizer"):
        ask(api, tmp_path, {})


def test_the_driver_tells_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, object] = {field.name: "" for field in fields(stage.Request)}
    values |= {"settings": {}, "inputs": {}, "stage": "pretrain", "preset": "debug", "store": str(tmp_path)}
    assert stage.drive({stage.REQUEST: json.dumps(values)}) == 2
    assert "pretrain needs corpus" in capsys.readouterr().err


@pytest.mark.parametrize("values", ["default-values", "queue-values"])
def test_the_charts_settings_are_understood(values: str) -> None:
    (text,) = [
        thing["data"][VARIABLE]
        for thing in render("infill-platform", values).of("ConfigMap")
        if VARIABLE in thing["data"]
    ]
    settings = read({VARIABLE: text})
    assert settings is not None
    assert set(json.loads(text)) == {field.name for field in fields(Settings)}
    assert settings.queue == ("infill" if values.startswith("queue") else "")


def test_settings_that_cannot_be_used_are_told() -> None:
    assert read({}) is None
    image = SETTINGS.image
    for text in ("{", "[]", '{"image": "infill:latest"}', json.dumps({"image": image, "quue": "x"}), "{}"):
        with pytest.raises(InputError, match="INFILL_CLUSTER cannot be used"):
            read({VARIABLE: text})
    with pytest.raises(InputError, match="on_stop"):
        read({VARIABLE: json.dumps({"image": image, "on_stop": "stop"})})


def test_a_cluster_that_has_everything_passes(server: Server, api: Api) -> None:
    assert problems(api, gpus=8) == []


def test_what_is_missing_is_told_before_the_run(server: Server, api: Api) -> None:
    server.installed.discard("inferenceservices")
    server.forbidden.add(("delete", "rayjobs"))
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "team"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "8"}},
    }
    api.create("resourcequotas", quota)
    full = {"hard": {"requests.nvidia.com/gpu": "8"}, "used": {"requests.nvidia.com/gpu": "6"}}
    path = f"/api/v1/namespaces/{api.namespace}/resourcequotas/team/status"
    api._request("PATCH", path, body={"status": full}, content="application/merge-patch+json")
    missing, rights, room = problems(api, gpus=4)
    assert "install KServe" in missing
    assert "delete rayjobs" in rights
    assert "6 of 8" in room
    assert len(problems(api, gpus=2, deploys=False)) == 1


def test_a_wrong_token_is_one_sentence(server: Server, api: Api) -> None:
    server.token = "another"
    (only,) = problems(api)
    assert "refuses our token" in only


def test_quotas_that_we_may_not_read_are_passed_over(server: Server, api: Api) -> None:
    server.forbidden |= {("list", "resourcequotas"), ("list", "rayjobs")}
    assert "list rayjobs" in problems(api, gpus=8)[0]


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("64Gi", 64 * 2.0**30), ("8", 8.0), ("1k", 1_000.0)])
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number
    with pytest.raises(ValueError, match="no quantity"):
        quantity(f"{text}x")
    assert preflight.FACTORS[""] == 1
