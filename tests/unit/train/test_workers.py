"""Training with DeepSpeed and through Ray Train: the same maths, and any death is survived."""

import contextlib
import functools
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infill import storage
from infill.errors import InputError, StoppedError, TrainingError
from infill.train import checkpoint, history, objectives, trainer, update, watchdog, workers
from infill.train.batch import Batch
from infill.train.training_job import TrainingJob
from tests.unit.train import runs
from tests.unit.train.runs import TRAIN, job, same_bits, weights

KEPT = replace(TRAIN, keep_checkpoints=9)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed training by two DeepSpeed workers."""
    folder = tmp_path_factory.mktemp("two_workers")
    assert [runs.ended(process) for process in runs.group(job(folder, KEPT), folder / "met")] == [0, 0]
    return folder


@pytest.mark.parametrize(("number", "launcher"), [(1, "local"), (3, "ray")])
def test_other_workers_continue_where_two_have_stopped(
    tmp_path: Path, two_workers: Path, number: int, launcher: str
) -> None:
    """One plain process, or three DeepSpeed workers, continue from step 8: a checkpoint fits any number and engine."""
    training = job(tmp_path, replace(KEPT, workers=number, launcher=launcher))
    at = Path(checkpoint.FOLDER) / "step_00000008"
    shutil.copytree(two_workers / "out" / at, tmp_path / "out" / at)
    shutil.copy(two_workers / "out" / history.FILE_NAME, tmp_path / "out")
    group = [runs.start(trainer.fit, training)] if launcher == "local" else runs.group(training, tmp_path / "met")
    assert [runs.ended(process) for process in group] == [0] * number
    hit, expected = history.read(str(tmp_path / "out")), history.read(str(two_workers / "out"))
    assert [row["step"] for row in hit] == [row["step"] for row in expected]
    for row, other in zip(hit, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3)
        assert row["tokens"] == other["tokens"]
    for name, weight in weights(two_workers).items():
        torch.testing.assert_close(weights(tmp_path)[name], weight, atol=1e-4, rtol=1e-3)


def bad_once(log_probs: torch.Tensor, batch: Batch) -> objectives.Result:
    """No number in the 20th micro-batch of a worker, a gradient far too long in the 32nd: in the middle of steps."""
    bad_once.calls += 1  # type: ignore[attr-defined]
    result = objectives.language_model(log_probs, batch)
    if bad_once.calls == 20:  # type: ignore[attr-defined]
        return result._replace(loss=result.loss * float("nan"))
    if bad_once.calls == 32:  # type: ignore[attr-defined]
        return result._replace(loss=result.loss + 1e6 * (result.loss - result.loss.detach()))
    return result


bad_once.calls = 0  # type: ignore[attr-defined]


def test_deepspeed_forgets_a_refused_batch_and_takes_it_again(tmp_path: Path, two_workers: Path) -> None:
    group = runs.group(job(tmp_path, objective=bad_once), tmp_path / "met")
    assert [runs.ended(process) for process in group] == [0, 0]
    assert len(list((tmp_path / "out" / update.FOLDER).glob("*_rank_*.json"))) == 4
    assert same_bits(two_workers, tmp_path)


class Steps:
    """Steps that a training has made, read from its history."""

    def __init__(self, folder: Path) -> None:
        self.output = str(folder / "out")

    def wait(self, steps: int, seconds: float = 250) -> None:
        end = time.monotonic() + seconds
        while not any(row["step"] >= steps for row in history.read(self.output)):
            assert time.monotonic() < end, "the training does not continue"
            time.sleep(0.02)


def note_pid(folder: Path, log_probs: torch.Tensor, batch: Batch) -> objectives.Result:
    """The objective of a training whose workers tell who they are, and take their time so that they can be killed."""
    (folder / "pids" / f"{os.getpid()}").touch()
    time.sleep(0.15)
    return objectives.language_model(log_probs, batch)


def driver(folder: Path) -> subprocess.Popen[bytes]:
    """The training's driver in a process of its own, which leads its own session."""
    code = (
        "import pathlib, sys; from tests.unit.train import test_workers as tested; "
        "tested.trainer.fit(tested.slow(pathlib.Path(sys.argv[1])))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True)


def slow(folder: Path) -> TrainingJob:
    (folder / "pids").mkdir(exist_ok=True)
    return job(folder, replace(TRAIN, log_every=1, max_failures=1), functools.partial(note_pid, folder))


def living(folder: Path) -> list[int]:
    """The living workers of the training."""
    return [int(path.name) for path in (folder / "pids").iterdir() if Path(f"/proc/{path.name}").exists()]


def parent(pid: int) -> int:
    """The process that has started `pid`; 0 when that is gone."""
    status = Path(f"/proc/{pid}/status")
    try:
        return int(status.read_text().partition("PPid:")[2].split()[0])
    except (OSError, IndexError):
        return 0


def controllers(folder: Path) -> list[int]:
    """The living controllers of Ray Train that share a raylet with the training's workers, and no others."""
    raylets = {parent(pid) for pid in living(folder)} - {0}
    entries = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"TrainController" in path.read_bytes() and parent(int(path.parent.name)) in raylets:
                entries.append(int(path.parent.name))
    return entries


@pytest.mark.long
@pytest.mark.timeout(900)  # four starts of Ray Train's workers
def test_ray_survives_the_death_of_driver_worker_and_controller(
    tmp_path: Path, two_workers: Path, ray_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other, each at a random moment of what is left; at last a worker is asked to go."""
    draw = random.Random(7)
    seen = Steps(tmp_path)
    process = driver(tmp_path)
    try:
        seen.wait(draw.randint(1, 3))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    while living(tmp_path):  # Ray ends what a dead driver has started
        time.sleep(0.1)
    for path in (tmp_path / "pids").iterdir():
        path.unlink()
    killed: list[int] = []

    def murder() -> None:
        deaths = (living, signal.SIGKILL), (controllers, signal.SIGKILL), (living, signal.SIGTERM)
        for number, (victims, death) in enumerate(deaths):
            seen.wait(draw.randint(2, 3) + 3 * number)
            while not (there := victims(tmp_path)):  # what the driver has left reaches to this step
                time.sleep(0.05)
            time.sleep(draw.uniform(0, 0.1))
            killed.append(draw.choice(there))
            os.kill(killed[-1], death)

    murderer = threading.Thread(target=murder)
    murderer.start()
    with caplog.at_level(logging.WARNING, workers.log.name):
        trainer.fit(slow(tmp_path))
    murderer.join()
    assert len(killed) == 3
    assert "were lost" in caplog.text
    assert caplog.messages[-1] == f"test: {workers.PREEMPTED}"
    assert same_bits(two_workers, tmp_path)


def raises() -> Any:
    raise InputError("this cannot go on")


@pytest.mark.slow
def test_a_workers_error_is_reported_as_it_is(tmp_path: Path, ray_address: str) -> None:
    with pytest.raises(InputError, match="this cannot go on"):
        trainer.fit(replace(job(tmp_path, replace(TRAIN, workers=1)), model=raises))


@pytest.mark.slow
def test_one_node_is_not_waited_for(ray_address: str) -> None:
    """It becomes no larger: the four processors of this Ray are for three workers, and for no nine."""
    assert workers.room(replace(TRAIN, workers=3)) == (1, 3, False)
    started = time.monotonic()
    with pytest.raises(TrainingError, match="9 workers need 9 CPUs, but the Ray cluster has 4"):
        workers.room(replace(TRAIN, workers=9, batch_tokens=9 * 128, micro_batch_tokens=128))
    assert time.monotonic() - started < TRAIN.timeout_s / 2


class Failed(Exception):  # noqa: N818
    """What Ray Train raises, as far as we look at it."""

    def __init__(self, *causes: Exception) -> None:
        super().__init__("training failed\nno more is known")
        self.worker_failures = dict(enumerate(causes))


def test_what_a_new_start_would_not_heal_is_raised(tmp_path: Path) -> None:
    lost = RuntimeError("Connection closed by peer [127.0.0.1]")
    with pytest.raises(InputError, match="bad data"):
        workers.reason(Failed(lost, InputError("bad data")), str(tmp_path))
    with pytest.raises(Failed):
        workers.reason(Failed(ZeroDivisionError()), str(tmp_path))
    assert workers.reason(Failed(lost), str(tmp_path)) == "the workers were lost (no more is known)"
    assert workers.reason(Failed(lost, StoppedError("asked")), str(tmp_path)) == workers.PREEMPTED
    storage.write_json(str(tmp_path / watchdog.HANG_FILE), {"message": "worker 1 of the training hung"})
    assert workers.reason(Failed(), str(tmp_path)) == "worker 1 of the training hung"


@pytest.mark.parametrize(
    ("resources", "least", "expected"),
    [
        ({"CPU": 4}, 0, (3, False)),
        ({"CPU": 8, "GPU": 3}, 0, (3, True)),
        ({"CPU": 8, "GPU": 2}, 1, (2, True)),
        ({"CPU": 2}, 2, (2, False)),
    ],
)
def test_as_many_workers_start_as_there_is_room_for(
    resources: dict[str, int], least: int, expected: tuple[int, bool]
) -> None:
    assert workers.possible(replace(TRAIN, workers=3, min_workers=least), resources) == expected


@pytest.mark.parametrize(
    ("least", "message"), [(0, "3 workers need 3 GPUs, but the Ray cluster has 1"), (2, "2 workers")]
)
def test_fewer_workers_than_allowed_are_refused(least: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        workers.possible(replace(TRAIN, workers=3, min_workers=least), {"CPU": 8, "GPU": 1})
