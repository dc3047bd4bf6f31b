"""A worker that hangs is ended with a reason; one that is asked to go leaves a checkpoint."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infill.errors import StoppedError
from infill.train import checkpoint, objectives, trainer, watchdog
from tests.unit.train import runs

ALONE = replace(runs.TRAIN, workers=1, launcher="local")


def stuck(_log_probs: torch.Tensor, _batch: Any) -> objectives.Result:
    time.sleep(600)
    raise AssertionError


def test_a_hang_ends_the_process_with_its_stacks_as_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = replace(ALONE, timeout_s=2.0)
    process = runs.start(trainer.fit, runs.job(tmp_path, config, stuck))
    assert runs.ended(process, 30) == watchdog.HUNG
    content = (tmp_path / "out" / "logs" / "hang_rank_0.txt").read_text()
    assert content.startswith("worker 0 of the training hung (no progress for 2 s")
    assert "in stuck" in content


def test_what_calls_in_time_is_left_alone(tmp_path: Path) -> None:
    before = threading.active_count()
    with watchdog.watched(1.0, str(tmp_path)):
        for _ in range(12):
            time.sleep(0.1)
            watchdog.alive()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def asked_to_go(folder: Path) -> None:
    """Trains and gets SIGTERM in its fifth step; tells what was raised."""
    calls = iter(range(1, 10_000))

    def objective(log_probs: torch.Tensor, batch: Any) -> objectives.Result:
        if next(calls) == 4 * runs.LANES + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return objectives.language_model(log_probs, batch)

    with pytest.raises(StoppedError) as caught:
        trainer.fit(runs.job(folder, ALONE, objective))
    (folder / "told").write_text(str(caught.value))


def test_sigterm_makes_a_checkpoint_and_ends_the_training(tmp_path: Path) -> None:
    """With a step in between: the signal is seen when the next one begins."""
    assert runs.ended(runs.start(asked_to_go, tmp_path)) == 0
    assert "stopped on request at step 6" in (tmp_path / "told").read_text()
    latest = checkpoint.latest(str(tmp_path / "out"))
    assert latest is not None
    assert latest.step == 6


def test_the_handler_of_before_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with watchdog.obedient():
        os.kill(os.getpid(), signal.SIGTERM)
        assert watchdog.asked()
    assert signal.getsignal(signal.SIGTERM) is before
    with watchdog.obedient():
        assert not watchdog.asked()
