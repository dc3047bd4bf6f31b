"""The main job, as a user starts it: other people's code on disk in, a registered model and a report out."""

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infill import tracking
from infill.stages import STAGES
from tests import builders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

MIT = """MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


ODD = 'python3\'s "é"; $HOME 100% a::b?c {{$}}'
"""A name that a file system allows, with what shells, URIs, Python's and KFP's templates take for their own."""
TITLE = 'Größe "2", it\'s python3 {{$.pipeline_root}} $HOME'
SETTINGS = (
    "sft.train.steps=3",
    "pretrain.train.learning_rate=1e-3",
    "pretrain.train.betas=[0.8, 0.9]",
    f"report.title={TITLE}",
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories under MIT, one of them empty, one with a file that is not text."""
    folder = tmp_path_factory.mktemp("code") / ODD
    folder.mkdir()
    for repo, files in builders.tiny_repositories(count=7, files=4, unlike=True).items():
        (folder / repo).mkdir()
        (folder / repo / "LICENSE").write_text(MIT)
        for path, text in files.items():
            (folder / repo / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / repo / path).write_text(f"# {repo}\n{text}")
    (folder / "repo_0" / "broken.py").write_bytes(b"x = '\xff\xfe'\n")
    (folder / "empty").mkdir()
    return folder


def command(code: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "infill.cli",
        "run",
        "--preset",
        "debug",
        "--source",
        f"dir:{code}",
        "--seed",
        "3",
        *(word for setting in SETTINGS for word in ("--set", setting)),
        "--out",
        str(out),
    ]


def run(code: Path, out: Path) -> dict[str, Any]:
    done = subprocess.run(command(code, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


@pytest.fixture(scope="module")
def undisturbed(code: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("undisturbed") / ODD
    return out, run(code, out)


def test_summary_has_everything(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = undisturbed
    keys = {"winner", "model", "gate", "documents", "tokens", "bytes_per_token"}
    assert set(summary) == keys | {"stages", "evaluation", "report", "mlflow_run_id"}
    assert summary["winner"] in {"base", "sft", "dpo"}
    assert Path(summary["model"]).is_dir()
    assert set(summary["gate"]) == {"passed", "reason", "canary"}
    assert summary["documents"]["kept"] > 20
    assert summary["documents"]["removed"] >= 1
    assert set(summary["evaluation"]) == {"base", "sft", "dpo"}
    for metrics in summary["evaluation"].values():
        assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in metrics.values())
    for name in ("pretrain", "sft", "dpo"):
        assert {"seconds", "loss_first", "loss_last"} <= set(summary["stages"][name])
    assert "<html" in Path(summary["report"]).read_text()
    assert list((out / "store" / "deploy").glob("*/deployment.json"))


def test_settings_arrive_with_their_types(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = undisturbed
    configs = {}
    for file in out.glob("store/*/*/manifest.json"):
        configs[file.parts[-3]] = json.loads(file.read_text(encoding="utf-8"))["config"]
    assert repr(configs["sft"]["train"]["steps"]) == "3"
    assert (configs["pretrain"]["train"]["learning_rate"], configs["pretrain"]["train"]["betas"]) == (1e-3, [0.8, 0.9])
    assert configs["report"]["title"] == TITLE
    seeds = {repr(config["train"]["seed"]) for name, config in configs.items() if name in ("pretrain", "sft", "dpo")}
    assert seeds | {repr(configs["corpus"]["seed"])} == {"3"}
    assert TITLE in html.unescape(Path(summary["report"]).read_text(encoding="utf-8"))


def test_each_artifact_is_at_the_address_that_its_manifest_tells(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    """The key is computed before a stage runs, and by the stage: both must agree, and neither forget an input."""
    out, _ = undisturbed
    files = list(out.glob("store/*/*/manifest.json"))
    assert {file.parts[-3] for file in files} == set(STAGES)
    for file in files:
        answer = json.loads(file.read_text())
        assert (answer["stage"], answer["key"]) == file.parts[-3:-1]
        assert set(STAGES[answer["stage"]].inputs) <= set(answer["inputs"])


def test_all_is_below_the_folder_of_the_run(code: Path, undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = undisturbed
    assert [path.name for folder in (code, out) for path in folder.parent.iterdir()] == [ODD, ODD]
    assert all(Path(summary[name]).is_relative_to(out) for name in ("model", "report"))


def test_mlflow_has_a_parent_and_a_run_per_stage(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    out, summary = undisturbed
    client = MlflowClient(tracking.local_store(str(out)))
    parent = client.get_run(summary["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    experiment = parent.info.experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    names = {child.info.run_name for child in children}
    assert {"corpus", "pretrain", "sft", "dpo", "evaluate-base", "evaluate-sft", "evaluate-dpo", "register"} <= names
    pretrain = next(child for child in children if child.info.run_name == "pretrain")
    steps = [metric.step for metric in client.get_metric_history(pretrain.info.run_id, "loss")]
    assert len(steps) > 1
    assert steps == sorted(steps)
    assert client.get_model_version_by_alias("infill", "champion")


@pytest.mark.long
def test_killed_three_times_it_ends_the_same(
    code: Path, undisturbed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Killed in corpus, in pretrain and in dpo, with all that it started or without."""
    for stage, everything in (("corpus", True), ("pretrain", False), ("dpo", True)):
        kill_in(stage, command(code, tmp_path / "out"), tmp_path / "out", everything=everything)
    summary = run(code, tmp_path / "out")
    _, expected = undisturbed
    assert summary["winner"] == expected["winner"]
    assert summary["evaluation"] == expected["evaluation"]
    assert weights(Path(summary["model"])) == weights(Path(expected["model"]))


def kill_in(stage: str, arguments: list[str], out: Path, *, everything: bool) -> None:
    """Start the command and, once `stage` has begun to write, kill -9 it: its whole process group, or it alone."""
    devnull = subprocess.DEVNULL
    process = subprocess.Popen(arguments, stdout=devnull, stderr=devnull, start_new_session=True)
    deadline = time.monotonic() + 900
    while not list(out.glob(f"store/{stage}/*/*")):
        assert process.poll() is None, f"the run ended before {stage}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    # A corpus this small may have been finished in the meantime.
    assert stage == "corpus" or not list(out.glob(f"store/{stage}/*/manifest.json"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_sources_without_permissive_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "code" / "repo").mkdir(parents=True)
    (tmp_path / "code" / "repo" / "a.py").write_text("x = 1\n")
    done = subprocess.run(command(tmp_path / "code", tmp_path / "out"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "licence" in done.stderr + done.stdout
    shutil.rmtree(tmp_path / "out")
