"""A stage asked for by a step, run by the driver of a RayJob; its settings; the checks before it."""

import io
import json
from dataclasses import fields
from pathlib import Path

import pytest

from infill import manifest, stages
from infill.cluster.api import Api
from infill.cluster.job_settings import VARIABLE, JobSettings, read
from infill.errors import InputError
from infill.stages import rayjob
from tests.charts.bundle import render
from tests.unit.cluster.conftest import DIGEST, QUICK

SETTINGS = JobSettings(image=f"infill/train@{DIGEST}", secrets=("infill-object-store",))


def ask(api: Api, tmp_path: Path, inputs: dict[str, str]) -> manifest.Manifest:
    """The pretrain stage of a run on the cluster."""
    return rayjob.run(
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
    with pytest.raises(InputError, match="needs the inputs corpus, tokenizer"):
        ask(api, tmp_path, {})


def test_the_driver_tells_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, object] = {field.name: "" for field in fields(rayjob.Request)}
    values |= {"settings": {}, "inputs": {}, "stage": "pretrain", "preset": "debug", "store": str(tmp_path)}
    assert rayjob.drive({rayjob.REQUEST: json.dumps(values)}) == 2
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
    assert set(json.loads(text)) == {field.name for field in fields(JobSettings)}
    assert settings.queue == ("infill" if values.startswith("queue") else "")


def test_settings_that_cannot_be_used_are_reported() -> None:
    assert read({}) is None
    image = SETTINGS.image
    for text in ("{", "[]", '{"image": "infill:latest"}', json.dumps({"image": image, "quue": "x"}), "{}"):
        with pytest.raises(InputError, match="INFILL_CLUSTER cannot be used"):
            read({VARIABLE: text})
    with pytest.raises(InputError, match="on_stop"):
        read({VARIABLE: json.dumps({"image": image, "on_stop": "stop"})})
