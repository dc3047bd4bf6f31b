import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infill import config, manifest, pipeline_step, stages
from infill.errors import InputError
from infill.stages import STAGES
from tests.builders import tiny_repositories, write_documents


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_what_the_table_says(name: str) -> None:
    stage = STAGES[name]
    module = importlib.import_module(stage.module)
    parameters = list(inspect.signature(module.run).parameters)
    assert len(parameters) == 1 + len(stage.inputs) + 1
    assert parameters[-1] == "output"
    assert isinstance(module.VERSION, int)
    assert name == module.STAGE
    assert hasattr(config.debug(), stage.settings)


def test_stage_runs_once_at_its_address(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus", tiny_repositories())
    settings = config.resolve("debug", {"tokenizer.vocab_size": 400}).tokenizer
    store = str(tmp_path / "store")
    made = stages.execute("tokenizer", settings, {"corpus": corpus}, store)
    assert made.uri == stages.address("tokenizer", settings, {"corpus": corpus}, store)
    assert made.uri == f"{store}/tokenizer/{made.key}"
    again = stages.execute("tokenizer", settings, {"corpus": f"{corpus}/manifest.json"}, store)
    assert again == made


def test_step_writes_the_manifest(tmp_path: Path) -> None:
    corpus = write_documents(tmp_path / "corpus", tiny_repositories())
    output = str(tmp_path / "artifact")
    made = pipeline_step.step(
        "tokenizer",
        preset="debug",
        settings='{"tokenizer.vocab_size": 400}',
        store=str(tmp_path / "store"),
        inputs={"corpus": corpus},
        output=output,
    )
    assert manifest.load(output) == made


def test_missing_and_unfinished_inputs_are_named(tmp_path: Path) -> None:
    settings = config.debug()
    with pytest.raises(InputError, match="tokenizer needs corpus"):
        stages.execute("tokenizer", settings.tokenizer, {}, str(tmp_path))
    with pytest.raises(InputError, match="not a finished artifact"):
        stages.execute("tokenizer", settings.tokenizer, {"corpus": str(tmp_path)}, str(tmp_path))


def test_step_ends_with_its_run() -> None:
    """A step whose run was killed does not live on."""
    run = subprocess.Popen(["sleep", "60"])
    code = "import time; from infill.pipeline_step import _end_with_the_run as end; end(); print('up', flush=True); "
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
    code = f"from infill import stages\nwith stages._alone({output!r}): print('in', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    started = time.monotonic()
    other_ends = subprocess.Popen([sys.executable, "-c", f"import time, os; time.sleep(1); os.kill({other.pid}, 9)"])
    with stages._alone(output):
        waited = time.monotonic() - started
    assert waited > 0.5
    other_ends.wait()
    other.communicate()


def test_decision_is_read(tmp_path: Path) -> None:
    (tmp_path / "decision.json").write_text(json.dumps({"passed": True}))
    assert stages.read_decision(str(tmp_path))["passed"] is True
