"""Trainings in processes of their own, which tests kill: forked from a server that has PyTorch and DeepSpeed loaded.

A process starts in a moment and leads its own session, so that all of it can be killed.
"""

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import LlamaConfig

from infill import model
from infill.config import TrainConfig, debug
from infill.train import loop, objectives
from infill.train.batch import Item, plain_item
from infill.train.data import ItemLane, Listed, State, draw
from infill.train.engine import Engine
from infill.train.training_job import TrainingJob, WorkerPlace, run
from infill.train.zero import DeepSpeedEngine
from tests.builders import tiny_tokenizer

LANES = 6
TRAIN = TrainConfig(
    steps=12,
    batch_tokens=LANES * 128,
    micro_batch_tokens=128,
    learning_rate=3e-3,
    warmup_steps=2,
    log_every=2,
    checkpoint_every=2,
    workers=2,
    max_failures=3,
    timeout_s=120,
)


class Rows(Listed):
    what = "rows"

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Item | None:
        length = int(10 + 30 * draw("length", index))
        return plain_item(
            [(index + 7 * place) % 50 for place in range(length)], group="ab"[index % 2], name=f"r{index}"
        )


def settings() -> LlamaConfig:
    return model.llama_config(debug().pretrain.model, 512)


def new_model() -> Any:
    return model.build(settings(), seed=1)


def work(objective: objectives.Objective, _engine: Engine) -> loop.Work:
    def open_lane(number: int, state: State | None) -> ItemLane:
        return ItemLane(Rows(), 128, seed=5, lane=number, lanes=LANES, state=state)

    return loop.Work(objective=objective, open_lane=open_lane, identity="this")


def job(
    folder: Path, train: TrainConfig = TRAIN, objective: objectives.Objective = objectives.language_model
) -> TrainingJob:
    return TrainingJob(
        label="test",
        train=train,
        output=str(folder / "out"),
        settings=settings,
        model=new_model,
        tokenizer=tiny_tokenizer(folder / "tokenizer"),
        work=functools.partial(work, objective),
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "out" / "model.safetensors")


def same_bits(first: Path, second: Path) -> bool:
    expected, hit = weights(first), weights(second)
    return expected.keys() == hit.keys() and all(torch.equal(hit[name], expected[name]) for name in expected)


def start(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """A process that calls `target`, which must be importable, and leads its own session."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.train.preload"])
    process = context.Process(target=_lead, args=(target, arguments))
    process.start()
    return process


def _lead(target: Callable[..., object], arguments: Sequence[Any]) -> None:
    os.setsid()
    torch.set_num_threads(1)
    target(*arguments)


def kill(process: BaseProcess) -> None:
    """SIGKILL to all of the process's session; fine when it has ended."""
    assert process.pid is not None
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not yet begun a session of its own
            process.kill()
    process.join()


def ended(process: BaseProcess, seconds: float = 60) -> int | None:
    """The exit code of a process that is given this time to end."""
    process.join(seconds)
    code = process.exitcode
    kill(process)
    return code


def rank(training: TrainingJob, number: int, rendezvous: Path) -> None:
    """What one of `training.train.workers` DeepSpeed workers does; they meet at the file `rendezvous`."""
    world = training.train.workers
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=world)
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(world), LOCAL_SIZE=str(world))
    run(training, DeepSpeedEngine, torch.device("cpu"), WorkerPlace(number, world, world))
    torch.distributed.destroy_process_group()


def group(training: TrainingJob, rendezvous: Path) -> list[BaseProcess]:
    """All workers of `training`, started; `rendezvous` must not exist."""
    return [start(rank, training, number, rendezvous) for number in range(training.train.workers)]
