"""Training through Ray Train and DeepSpeed: the same maths, and any death is survived."""

import functools
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from infill import model
from infill.config import TrainConfig, debug
from infill.errors import ServiceError, TrainingError
from infill.train import checkpoint, history, launch, loop, objectives
from infill.train.data import ItemLane, State
from infill.train.engine import Engine
from tests.builders import tiny_tokenizer
from tests.unit.train.runs import Rows

TRAIN = TrainConfig(
    steps=12,
    batch_tokens=6 * 128,
    micro_batch_tokens=128,
    learning_rate=3e-3,
    warmup_steps=2,
    log_every=2,
    checkpoint_every=4,
    keep_checkpoints=9,
    workers=2,
    max_failures=1,
    timeout_s=120,
)


def new_model() -> Any:
    return model.build(model.llama_config(debug().pretrain.model, 512), seed=1)


def work(deaths: str, engine: Engine) -> loop.Work:
    """Batches; where there is a folder `deaths`, the last worker is killed once, in the middle."""

    def open_lane(number: int, state: State | None) -> ItemLane:
        return ItemLane(Rows(), 128, seed=5, lane=number, lanes=6, state=state)

    def objective(log_probs: torch.Tensor, batch: Any) -> objectives.Result:
        mark = Path(deaths) / "dead"
        steps = len(list(Path(deaths).glob("call_*"))) if deaths else 0
        if deaths and engine.rank == engine.world - 1 and not mark.exists():
            (Path(deaths) / f"call_{steps}").touch()
            if steps == 20:
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return objectives.language_model(log_probs, batch)

    return loop.Work(objective=objective, open_lane=open_lane, identity="this")


def job(folder: Path, *, train: TrainConfig = TRAIN, deaths: str = "") -> launch.Job:
    return launch.Job(
        label="test",
        train=train,
        output=str(folder / "out"),
        model=new_model,
        tokenizer=tiny_tokenizer(folder / "tokenizer"),
        work=functools.partial(work, deaths),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "out" / "model.safetensors")


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Path:
    folder = tmp_path_factory.mktemp("two_workers")
    launch.fit(job(folder))
    return folder


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_no_bit(tmp_path: Path, two_workers: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    launch.fit(job(tmp_path, deaths=str(deaths)))
    assert (deaths / "dead").exists()
    expected, found = weights(two_workers), weights(tmp_path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def continued(folder: Path, source: Path, train: TrainConfig) -> list[history.Row]:
    """The history of a training that goes on from step 8 of `source`."""
    at = Path(checkpoint.FOLDER) / "step_00000008"
    shutil.copytree(source / "out" / at, folder / "out" / at)
    shutil.copy(source / "out" / history.FILE_NAME, folder / "out")
    launch.fit(job(folder, train=train))
    return history.read(str(folder / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "launcher"), [(1, "local"), (3, "ray")])
def test_other_workers_go_on_where_two_have_stopped(
    tmp_path: Path, two_workers: Path, workers: int, launcher: str
) -> None:
    from dataclasses import replace

    found = continued(tmp_path, two_workers, replace(TRAIN, workers=workers, launcher=launcher))
    expected = history.read(str(two_workers / "out"))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3)
        assert row["tokens"] == other["tokens"]
    for name, weight in weights(two_workers).items():
        torch.testing.assert_close(weights(tmp_path)[name], weight, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_workers_error_is_told_as_it_is(tmp_path: Path, ray_address: str) -> None:
    bad = functools.partial(launch.Job, label="test", train=TRAIN, output=str(tmp_path / "out"), tokenizer="")
    with pytest.raises(TrainingError, match="this cannot go on"):
        launch.fit(bad(model=raises, work=functools.partial(work, "")))


def raises() -> Any:
    raise TrainingError("this cannot go on")


def test_more_workers_than_cpus_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(TrainingError, match=r"2 workers need as many CPUs, the Ray cluster has 1"):
        launch._trainer(job(tmp_path, train=replace(TRAIN, workers=2)), {"CPU": 1.0})


def test_a_ray_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ServiceError, match="there is no Ray at RAY_ADDRESS"), launch.cluster():
        pass
