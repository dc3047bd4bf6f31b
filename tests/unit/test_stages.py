import importlib
import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infill import config, manifest, stages, storage
from infill.errors import InputError
from infill.stages import STAGES, runner
from infill.stages import step as pipeline_step
from tests.builders import once, tiny_repositories, write_documents
from tests.unit.corpus.folders import write_repositories


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_what_the_table_says(name: str) -> None:
    stage = STAGES[name]
    assert stage.version >= 1
    assert list(inspect.signature(stage.body).parameters) == ["call"]
    assert stage.settings(config.debug())


def artifact(folder: Path, name: str) -> str:
    """A finished artifact of one file."""

    def body() -> dict[str, float]:
        storage.write_json(str(folder / "file.json"), name)
        return {}

    return once(stage=name, output=str(folder), body=body).uri


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_one_key(name: str, tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address, the call of the body and the manifest tell one key, whatever the stage reads."""
    code = write_repositories(tmp_path / "code", 1)
    settings = STAGES[name].settings(config.resolve("debug", {"sources": [f"dir:{code}"]}))
    inputs = {wanted: artifact(tmp_path / wanted, wanted) for wanted in STAGES[name].inputs}
    module = importlib.import_module(STAGES[name].module)
    calls: list[stages.Call[Any]] = []

    def body(call: stages.Call[Any]) -> dict[str, float]:
        calls.append(call)
        return {}

    monkeypatch.setattr(module, "body", body)
    monkeypatch.setattr(module, "apply", lambda _: {}, raising=False)
    address = stages.address(name, settings, inputs, str(tmp_path / "store"))
    done = stages.execute(name, settings, inputs, str(tmp_path / "store"))
    assert stages.execute(name, settings, inputs, str(tmp_path / "store")) == done
    (call,) = calls
    assert {done.key, call.key, address.rpartition("/")[2], call.output.rpartition("/")[2]} == {done.key}
    assert done.inputs == call.digests
    assert done.inputs.keys() >= inputs.keys()
    assert bool(done.inputs.keys() - inputs.keys()) <= STAGES[name].reads_outside


def test_only_the_runner_computes_a_key() -> None:
    """The key of a stage; benchmarks, ratings, experiments and exported bases are artifacts outside the pipeline."""
    files = (Path(stages.__file__).parents[1]).rglob("*.py")
    names = sorted(file.name for file in files if "manifest.key(" in file.read_text(encoding="utf-8"))
    assert names == [
        "adapter.py",
        "benchmark_build.py",
        "experiment_run.py",
        "pair_choice.py",
        "rating_items.py",
        "runner.py",
    ]


def test_the_models_of_a_run_are_listed_once() -> None:
    root = Path(stages.__file__).parents[2]
    listed = re.compile(r'"base",\s*"sft",\s*"dpo"')
    files = (file for name in ("infill", "components", "pipelines", "serving") for file in (root / name).rglob("*.py"))
    assert [file.name for file in files if listed.search(file.read_text(encoding="utf-8"))] == ["table.py"]


def test_stage_runs_once_at_its_address(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus", tiny_repositories())
    settings = config.resolve("debug", {"tokenizer.vocab_size": 400}).tokenizer
    store = str(tmp_path / "store")
    created = stages.execute("tokenizer", settings, {"corpus": corpus}, store)
    assert created.uri == stages.address("tokenizer", settings, {"corpus": corpus}, store)
    assert created.uri == f"{store}/tokenizer/{created.key}"
    again = stages.execute("tokenizer", settings, {"corpus": f"{corpus}/manifest.json"}, store)
    assert again == created


def test_step_writes_the_manifest(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus", tiny_repositories())
    output = str(tmp_path / "artifact")
    created = pipeline_step.step(
        "tokenizer",
        preset="debug",
        settings='{"tokenizer.vocab_size": 400}',
        store=str(tmp_path / "store"),
        inputs={"corpus": corpus},
        output=output,
    )
    assert manifest.load(output) == created


def test_missing_and_unfinished_inputs_are_named(tmp_path: Path) -> None:
    settings = config.debug()
    with pytest.raises(InputError, match="tokenizer needs corpus"):
        stages.execute("tokenizer", settings.tokenizer, {}, str(tmp_path))
    with pytest.raises(InputError, match="not a finished artifact"):
        stages.execute("tokenizer", settings.tokenizer, {"corpus": str(tmp_path)}, str(tmp_path))


def test_step_ends_with_its_run() -> None:
    """A step whose run was killed does not live on."""
    run = subprocess.Popen(["sleep", "60"])
    code = "import time; from infill.stages.step import _end_with_the_run as end; end(); print('up', flush=True); "
    code += "time.sleep(60)"
    environment = {**os.environ, pipeline_step.RUN_PID: str(run.pid)}
    step = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert step.stdout is not None
    assert step.stdout.readline() == b"up\n"
    run.kill()
    run.wait()
    assert step.wait(timeout=10) == 1
    step.stdout.close()


def test_second_writer_waits(tmp_path: Path) -> None:
    output = str(tmp_path / "artifact")
    code = f"from infill.stages import runner\nwith runner._alone({output!r}): print('in', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    started = time.monotonic()
    other_ends = subprocess.Popen([sys.executable, "-c", f"import time, os; time.sleep(1); os.kill({other.pid}, 9)"])
    with runner._alone(output):
        waited = time.monotonic() - started
    assert waited > 0.5
    other_ends.wait()
    other.communicate()
