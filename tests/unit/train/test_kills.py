"""Killed with -9 at random moments, twice in succession, a training ends with the weights of an undisturbed one."""

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infill.train import trainer
from tests.unit.train import runs

ALONE = replace(runs.TRAIN, workers=1, launcher="local")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A plain process that nothing disturbs: its folder and how long it takes, the start of the server apart."""
    runs.ended(runs.start(int))
    folder = tmp_path_factory.mktemp("alone")
    started = time.monotonic()
    assert runs.ended(runs.start(trainer.fit, runs.job(folder, ALONE))) == 0
    return folder, time.monotonic() - started


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_process(tmp_path: Path, alone: tuple[Path, float], seed: int) -> None:
    folder, seconds = alone
    draw = random.Random(seed)
    training = runs.job(tmp_path, ALONE)
    for _ in range(2):
        process = runs.start(trainer.fit, training)
        time.sleep(draw.uniform(0, seconds))
        runs.kill(process)
    assert runs.ended(runs.start(trainer.fit, training)) == 0
    assert runs.same_bits(folder, tmp_path)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Two DeepSpeed workers that nothing disturbs."""
    folder = tmp_path_factory.mktemp("two")
    started = time.monotonic()
    assert [runs.ended(process) for process in runs.group(runs.job(folder), folder / "met")] == [0, 0]
    return folder, time.monotonic() - started


@pytest.mark.parametrize("seed", range(2))
def test_a_worker_and_then_the_whole_group(tmp_path: Path, two: tuple[Path, float], seed: int) -> None:
    folder, seconds = two
    draw = random.Random(seed)
    training = runs.job(tmp_path)
    for number, victims in enumerate(([draw.randrange(2)], [0, 1])):
        group = runs.group(training, tmp_path / f"met_{number}")
        time.sleep(draw.uniform(seconds / 3, seconds))
        for rank in victims:
            runs.kill(group[rank])
        assert None not in [runs.ended(process, 30) for process in group]
    assert [runs.ended(process) for process in runs.group(training, tmp_path / "met")] == [0, 0]
    assert runs.same_bits(folder, tmp_path)
