"""The job of a training, and what each worker runs: memory, model, last checkpoint, engine, loop, export."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PretrainedConfig

from infill import prompt, storage
from infill.config import TrainConfig
from infill.errors import TrainingError
from infill.train import adapter, checkpoint, export, loop, memory, watchdog
from infill.train.engine import Engine, load_weights, precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The description of a training for its workers, which receive it pickled."""

    label: str
    train: TrainConfig
    output: str
    settings: Callable[[], PretrainedConfig]
    """Returns the Hugging Face configuration of the model, for the estimate of its memory."""
    model: Callable[[], Any]
    """Returns the Hugging Face model from which training starts."""
    tokenizer: str
    """Folder with the tokenizer for the model folder."""
    work: Callable[[Engine], loop.Work]
    base: str = ""
    """The model folder from which training starts, the base of an adapter; empty means `tokenizer`."""


class WorkerPlace(NamedTuple):
    """A worker's place among all workers."""

    rank: int = 0
    workers: int = 1
    sharing: int = 1
    """Workers that share this one's device or machine."""


def run(
    job: TrainingJob,
    engine_of: Callable[[Any, TrainConfig, torch.device], Engine],
    device: torch.device,
    place: WorkerPlace,
    asked: Callable[[], bool] = watchdog.asked,
) -> None:
    """Run one worker: check memory, load the model and the last checkpoint, train, and export the model.

    Raises TrainingError when memory is too small or training fails, StoppedError when it was `asked` to stop.
    """
    with watchdog.watched(job.train.timeout_s, job.output, place.rank):
        free = memory.available(device, place.sharing)
        memory.check(job.label, job.settings(), job.train, device, place.workers, free)
        model = without_dropout(job.model())
        adapted = None
        if job.train.lora_rank:
            adapted = adapter.adapt(model, job.train, prompt.load_format(storage.fetch(job.tokenizer)))
        resumed = checkpoint.latest(job.output)
        if resumed is not None:
            load_weights(model, resumed.tensors)
            log.info("%s continues from step %d", job.label, resumed.step)
        engine = engine_of(model, job.train, device)
        step = resumed.step if resumed else 0
        if engine.sum([step])[0] != step * engine.world:
            raise TrainingError(
                "the workers see different checkpoints; make sure that all of them reach the same store"
            )
        watchdog.alive()
        loop.train(engine, job.work(engine), job.train, job.output, resumed, watchdog.alive, asked)
        if engine.rank == 0:
            if adapted is not None:
                adapter.save(adapted, job.base or job.tokenizer, job.output)
                engine.model = adapted.merge_and_unload()
            export.save(engine.model, job.tokenizer, job.output, dtype=precision(job.train, engine.device))


def without_dropout(model: Any) -> Any:
    """Set every dropout rate of `model` to zero and return it: a resumed run must give the same result."""
    for module in model.modules():
        for name in ("p", "attention_dropout", "residual_dropout", "embedding_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model
