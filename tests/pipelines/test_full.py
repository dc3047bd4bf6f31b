"""The compiled pipeline: its parameters and its text are promises."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.full import compile_pipeline
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


def test_compiled_pipeline_is_the_golden_one(compiled: Path) -> None:
    assert compiled.read_text() == GOLDEN.read_text(), "run: infill pipeline compile --to tests/golden/pipeline.yaml"


def test_parameters_are_frozen(spec: Any) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: value["parameterType"] for name, value in parameters.items()} == {
        "preset": "STRING",
        "settings": "STRUCT",
        "store": "STRING",
    }


def test_conditions_see_booleans_only(compiled: Path, spec: Any) -> None:
    release = spec["components"]["comp-infill-release"]["dag"]["tasks"]["condition-1"]
    channel = "inputs.parameter_values['pipelinechannel--register-Output']"
    assert release["triggerPolicy"]["condition"] == f"{channel} == true"
    outputs = spec["components"]["comp-register"]["outputDefinitions"]["parameters"]
    assert outputs["Output"]["parameterType"] == "BOOLEAN"
    assert compiled.read_text().count("triggerPolicy") == 1


def test_nothing_is_installed_at_run_time(compiled: Path) -> None:
    assert "pip install" not in compiled.read_text()
