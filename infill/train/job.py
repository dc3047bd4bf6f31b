"""A training, and the life of one of its workers: memory, model, last checkpoint, engine, loop, export."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PretrainedConfig

from infill import prompt, storage
from infill.config import TrainConfig
from infill.errors import TrainingError
from infill.train import adapter, checkpoint, export, loop, memory, watch
from infill.train.engine import Engine, load_weights, precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs to know; it travels pickled."""

    label: str
    train: TrainConfig
    output: str
    settings: Callable[[], PretrainedConfig]
    """The Hugging Face configuration of the model, from which the memory that it needs is estimated."""
    model: Callable[[], Any]
    """Makes the Hugging Face model that training starts from."""
    tokenizer: str
    """Folder with the tokenizer that goes into the model folder."""
    work: Callable[[Engine], loop.Work]
    base: str = ""
    """The model folder that training starts from, to which an adapter belongs; empty is `tokenizer`."""


class Place(NamedTuple):
    """Where a worker stands."""

    rank: int = 0
    workers: int = 1
    sharing: int = 1
    """Workers that share this one's device or machine."""


def run(
    job: Job,
    engine_of: Callable[[Any, TrainConfig, torch.device], Engine],
    device: torch.device,
    place: Place,
    asked: Callable[[], bool] = watch.asked,
) -> None:
    """A worker's life: memory, model, last checkpoint, engine, loop, export."""
    with watch.watched(job.train.timeout_s, job.output, place.rank):
        free = memory.available(device, place.sharing)
        memory.check(job.label, job.settings(), job.train, device, place.workers, free)
        model = without_dropout(job.model())
        adapted = None
        if job.train.lora_rank:
            adapted = adapter.adapt(model, job.train, prompt.load_format(storage.fetch(job.tokenizer)))
        resumed = checkpoint.latest(job.output)
        if resumed is not None:
            load_weights(model, resumed.tensors)
            log.info("%s goes on from step %d", job.label, resumed.step)
        engine = engine_of(model, job.train, device)
        found = resumed.step if resumed else 0
        if engine.sum([found])[0] != found * engine.world:
            raise TrainingError("the workers see different checkpoints; do all of them reach the same store?")
        watch.alive()
        loop.train(engine, job.work(engine), job.train, job.output, resumed, watch.alive, asked)
        if engine.rank == 0:
            if adapted is not None:
                adapter.save(adapted, job.base or job.tokenizer, job.output)
                engine.model = adapted.merge_and_unload()
            export.save(engine.model, job.tokenizer, job.output, dtype=precision(job.train, engine.device))


def without_dropout(model: Any) -> Any:
    """`model` with every dropout rate at zero: published configurations differ, and a resumed run must be the same."""
    for module in model.modules():
        for name in ("p", "attention_dropout", "residual_dropout", "embedding_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model
