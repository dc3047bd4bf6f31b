"""What `infill train status` tells of a running, a dead and a finished run."""

import os
import time
from pathlib import Path

import pytest

from infill.errors import InputError
from infill.train import export, history
from infill.train.status import status


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
                "seconds": step,
            }
        )
    return tmp_path


def test_a_running_training_tells_what_is_left(folder: Path) -> None:
    found = status(str(folder))
    assert (found["state"], found["step"], found["seconds_left"]) == ("running", 4, 12.0)


def test_a_silent_one_has_stopped(folder: Path) -> None:
    long_ago = time.time() - 1_000
    os.utime(folder / history.FILE_NAME, (long_ago, long_ago))
    assert status(str(folder))["state"] == "stopped"


def test_a_whole_model_is_finished(folder: Path) -> None:
    (folder / export.CARD).write_text("# card\n")
    assert status(str(folder))["state"] == "finished"


def test_a_folder_without_a_training_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no training in"):
        status(str(tmp_path))
