"""What `infill train status` shows of a running, a dead and a finished run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infill.errors import InputError
from infill.train import card, history
from infill.train.status import status
from tests.builders import tiny_repositories, tiny_tokenizer, write_documents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written = history.History(str(tmp_path), 0)
    for step in (2, 4):
        written.append(
            {
                "step": step,
                "steps": 10,
                "tokens": 100 * step,
                "loss": 3.0,
                "tokens_per_s": 50.0,
                "skipped": 0,
                "lap_s": 2.0,
            }
        )
    return tmp_path


def test_a_running_training_tells_what_is_left(folder: Path) -> None:
    state = status(str(folder))
    assert (state["state"], state["step"], state["seconds_left"]) == ("running", 4, 12.0)


def test_a_silent_one_has_stopped(folder: Path) -> None:
    long_ago = time.time() - 1_000
    os.utime(folder / history.FILE_NAME, (long_ago, long_ago))
    assert status(str(folder))["state"] == "stopped"


def test_a_whole_model_is_finished(folder: Path) -> None:
    (folder / card.FILE_NAME).write_text("# card\n")
    assert status(str(folder))["state"] == "finished"


def test_a_folder_without_a_training_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no training in"):
        status(str(tmp_path))


@pytest.mark.slow
def test_a_real_run_is_reported_while_it_lives_and_after_it_was_killed(tmp_path: Path) -> None:
    write_documents(tmp_path / "corpus", tiny_repositories(8))
    tiny_tokenizer(tmp_path / "tokenizer")
    words = ["train", "pretrain", "--preset", "debug", "--corpus", str(tmp_path / "corpus")]
    words += ["--tokenizer", str(tmp_path / "tokenizer"), "--output", str(tmp_path / "out")]
    words += ["--set", "pretrain.train.launcher=local", "--set", "pretrain.train.steps=100000"]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    run = subprocess.Popen([sys.executable, "-m", "infill.cli", *words], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert awaited(tmp_path, lambda state: state["state"] == "starting")
        running = awaited(tmp_path, lambda state: state["state"] == "running" and state["step"] >= 8)
        assert running["steps"] == 100_000
        assert running["seconds_left"] > 0
        assert running["checkpoints"]
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    words = [sys.executable, "-m", "infill.cli", "train", "status", str(tmp_path / "out")]
    dead = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    assert dead["state"] == "stopped"
    assert dead["step"] >= running["step"]


def awaited(folder: Path, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status that is `wanted`, within two minutes."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        try:
            state = status(str(folder / "out"))
        except InputError:  # it has not come so far as to say that it is there
            state = {"state": ""}
        if wanted(state):
            return state
        time.sleep(0.05)
    raise AssertionError(f"it is still {state}")
