"""The compiled pipeline: its parameters and its text are promises."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import NAMES
from infill.errors import InputError
from infill.stages import STAGES
from pipelines import cluster, local
from pipelines.full import compile_pipeline
from tests.charts.bundle import render
from tests.components.test_components import COMPONENTS
from tests.golden import FOLDER

GOLDEN = FOLDER / "pipeline.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(file)
    return file


@pytest.fixture(scope="module")
def spec(compiled: Path) -> Any:
    return next(iter(yaml.safe_load_all(compiled.read_text())))


@pytest.fixture(scope="module")
def pods(compiled: Path) -> dict[str, Any]:
    """What the second document says about each executor's pod."""
    platform = list(yaml.safe_load_all(compiled.read_text()))[1]
    result: dict[str, Any] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return result


def steps(spec: Any) -> dict[str, Any]:
    """Every task of the pipeline that is a step, whichever DAG it is in."""
    components = {**spec["components"], "root": spec["root"]}
    tasks = {name: task for part in components.values() for name, task in part.get("dag", {}).get("tasks", {}).items()}
    return {name: task for name, task in tasks.items() if "executorLabel" in components[task["componentRef"]["name"]]}


def test_compiled_pipeline_is_the_golden_one(compiled: Path) -> None:
    assert compiled.read_text() == GOLDEN.read_text(), "run: infill pipeline compile --to tests/golden/pipeline.yaml"


def test_parameters_are_frozen(spec: Any) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: value["parameterType"] for name, value in parameters.items()} == {
        "budget": "NUMBER_DOUBLE",
        "preset": "STRING",
        "settings": "STRING",
        "store": "STRING",
    }


def test_conditions_see_booleans_only(compiled: Path, spec: Any) -> None:
    release = spec["components"]["comp-infill-release"]["dag"]["tasks"]["condition-1"]
    channel = "inputs.parameter_values['pipelinechannel--register-Output']"
    assert release["triggerPolicy"]["condition"] == f"{channel} == true"
    outputs = spec["components"]["comp-register"]["outputDefinitions"]["parameters"]
    assert outputs["Output"]["parameterType"] == "BOOLEAN"
    assert compiled.read_text().count("condition: ") == 1


def test_nothing_is_installed_at_run_time(compiled: Path) -> None:
    assert "pip install" not in compiled.read_text()


def test_every_step_has_its_settings_secrets_and_room(spec: Any, pods: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"]
    assert set(pods) == set(executors)
    assert {name.removeprefix("exec-").removesuffix("-2").removesuffix("-3") for name in pods} == {
        *COMPONENTS,
        "finish",
        "preflight",
    }
    for name, pod in pods.items():
        assert [each["configMapName"] for each in pod["configMapAsEnv"]] == ["infill-environment", "infill-cluster"]
        secrets = {each["secretName"]: each["keyToEnv"] for each in pod["secretAsEnv"]}
        keys = [each["secretKey"] for each in secrets.pop("infill-gate", ())]
        assert keys == {"exec-register": ["INFILL_SIGNING_KEY"], "exec-deploy": ["INFILL_VERIFY_KEY"]}.get(name, [])
        assert list(secrets) == ["infill-object-store", "infill-mlflow-client", "infill-client"]
        assert all(each["optional"] for each in (*pod["secretAsEnv"], *pod["configMapAsEnv"]))
        assert pod["fieldPathAsEnv"] == [{"name": "INFILL_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}]
        assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
        assert pod["securityContext"]["runAsNonRoot"]
        room = executors[name]["container"]["resources"]
        assert {"resourceCpuRequest", "resourceMemoryRequest", "resourceCpuLimit", "resourceMemoryLimit"} <= set(room)
    assert not [name for name in pods if executors[name]["container"].get("env")]


def test_config_maps_have_the_keys_that_steps_ask_for() -> None:
    asked = {key for keys in cluster.CONFIG_MAPS.values() for key in keys}
    given = {
        key
        for values in ("default-values", "external-values")
        for thing in render("infill-platform", values).of("ConfigMap")
        if thing["metadata"]["name"] in cluster.CONFIG_MAPS
        for key in thing["data"]
    }
    assert given <= asked
    assert asked - given <= {"AWS_ENDPOINT_URL"}


def test_steps_are_retried_and_cached_unless_they_are_about_more_than_their_inputs(spec: Any) -> None:
    always = ("preflight", "register", "deploy", "finish")
    for name, task in steps(spec).items():
        assert ("retryPolicy" in task) == (name != "preflight"), name
        assert task["cachingOptions"].get("enableCache", False) == (name not in always), name


def test_what_a_stage_reads_besides_artifacts_is_in_the_cache_key(spec: Any) -> None:
    train = spec["components"]["comp-infill-train"]["dag"]["tasks"]
    readers = [name for name in train if name in STAGES and STAGES[name].reads_outside]
    assert len(readers) == 5
    for name in readers:
        assert train[name]["inputs"]["parameters"]["content"] == {"componentInputParameter": "content"}
    (dag,) = [part for part in spec["components"].values() if "preflight" in part.get("dag", {}).get("tasks", {})]
    content = dag["dag"]["tasks"]["infill-train"]["inputs"]["parameters"]["content"]
    assert content["taskOutputParameter"]["producerTask"] == "preflight"


def test_whatever_happens_the_run_is_swept(spec: Any) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    assert tasks["finish"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert set(tasks) == {"finish", "exit-handler-1"}


def compile_with(tmp_path: Path, **environment: str) -> tuple[Any, Any]:
    """Both documents of a pipeline that is compiled in a process of its own."""
    file = tmp_path / "pipeline.yaml"
    code = (
        f"from pathlib import Path; from pipelines.full import compile_pipeline; compile_pipeline(Path({str(file)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
    spec, platform = yaml.safe_load_all(file.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_values_and_images_of_the_installation_are_heeded(tmp_path: Path) -> None:
    images = {name: f"registry.example/infill-{name}@sha256:{'1' * 64}" for name in NAMES}
    (tmp_path / "images.json").write_text(json.dumps(images))
    values = {
        "imagePullSecrets": ["registry"],
        "objectStore": {"secretName": "team-bucket"},
        "jobs": {
            "nodeSelector": {"pool": "ml"},
            "tolerations": [{"key": "ml", "operator": "Exists"}],
            "claims": {"code": "/sources"},
        },
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    files = {"INFILL_IMAGES": str(tmp_path / "images.json"), "INFILL_VALUES": str(tmp_path / "values.yaml")}
    spec, pods = compile_with(tmp_path, **files)
    assert {each["container"]["image"] for each in spec["deploymentSpec"]["executors"].values()} == {images["pipeline"]}
    for pod in pods.values():
        assert [each["secretName"] for each in pod["imagePullSecret"]] == ["registry"]
        assert pod["secretAsEnv"][0]["secretName"] == "team-bucket"
        assert pod["nodeSelector"]["labels"] == {"pool": "ml"}
        (claim,) = pod["pvcMount"]
        assert (claim["constant"], claim["mountPath"]) == ("code", "/sources")
        assert pod["tolerations"] == [{"key": "ml", "operator": "Exists"}]


def test_values_that_are_none_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("[1", "[]", "objectStore: 3"):
        (tmp_path / "values.yaml").write_text(text)
        monkeypatch.setenv(cluster.VALUES, str(tmp_path / "values.yaml"))
        cluster.place.cache_clear()
        if text == "[]":
            assert cluster.place() == cluster.PodPlacement()
            continue
        with pytest.raises(InputError, match="is not a file of values"):
            cluster.place()
    cluster.place.cache_clear()


def test_local_runner_does_not_repeat_what_fails_for_good(compiled: Path) -> None:
    before = compiled.read_text()
    after = local.without_retries(before)
    assert "retryPolicy" in before
    assert "retryPolicy" not in after
    assert set(steps(next(yaml.safe_load_all(after)))) == set(steps(next(yaml.safe_load_all(before))))
