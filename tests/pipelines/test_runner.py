"""KFP's local runner: whatever a path or a parameter contains arrives as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import dsl

from pipelines import runner

ODD = "python3 -m; $HOME 'q' \"é\" `id` {{$.pipeline_root}} /kfp-workspace 100%20 a::b?#&&\n[x]* \\"


@dsl.component(base_image="python", install_kfp_package=False)
def write(text: str, written: dsl.Output[dsl.Artifact]) -> str:
    with open(written.path, "w", encoding="utf-8") as file:
        file.write(text)
    return text


@dsl.component(base_image="python", install_kfp_package=False)
def read(text: str, written: dsl.Input[dsl.Artifact], copied: dsl.Output[dsl.Artifact]) -> None:
    import json
    import sys

    sys.stdout.write(f"read {text}\n")
    with open(written.path, encoding="utf-8") as file, open(copied.path, "w", encoding="utf-8") as out:
        json.dump([text, file.read(), sys.executable], out)


@dsl.component(base_image="python", install_kfp_package=False)
def fail() -> None:
    raise SystemExit(3)


@dsl.pipeline
def passing_on(text: str) -> None:
    written = write(text=text)
    read(text=written.outputs["Output"], written=written.outputs["written"])


def copied(root: Path) -> list[str]:
    """What the step `read` of the only run below `root` found: its parameter, its artifact and its interpreter."""
    (file,) = root.glob("*/read/copied")
    answer: list[str] = json.loads(file.read_text(encoding="utf-8"))
    return answer


@pytest.mark.parametrize("name", ["python3-demo", "-x", "a b", ODD.replace("/", ":")])
def test_any_path_and_parameter_arrives(name: str, tmp_path: Path) -> None:
    with runner.runner(tmp_path / name):
        passing_on(text=ODD)
    assert copied(tmp_path / name) == [ODD, ODD, sys.executable]
    assert os.listdir(tmp_path) == [name]


def test_the_interpreter_may_be_at_any_path(tmp_path: Path) -> None:
    environment = tmp_path / "my $env's python3"
    environment.symlink_to(sys.prefix)
    python = environment / "bin" / "python"
    code = (
        "import pathlib, sys; from tests.pipelines import test_runner as t\n"
        "with t.runner.runner(pathlib.Path(sys.argv[1])): t.passing_on(text='x')"
    )
    subprocess.run([python, "-c", code, str(tmp_path / "out")], check=True, capture_output=True)
    assert copied(tmp_path / "out") == ["x", "x", str(python)]


def test_a_step_that_fails_fails_the_pipeline(tmp_path: Path) -> None:
    with runner.runner(tmp_path), pytest.raises(RuntimeError, match="fail"):
        fail()


def test_kfp_is_as_before_once_the_runner_is_left(tmp_path: Path) -> None:
    from kfp.local import placeholder_utils, subprocess_task_handler

    with runner.runner(tmp_path):
        pass
    assert placeholder_utils.replace_placeholders.__module__ == placeholder_utils.__name__
    assert subprocess_task_handler.SubprocessTaskHandler.__module__ == subprocess_task_handler.__name__
