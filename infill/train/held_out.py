"""Validation: the loss on data that is never trained on."""

import functools
import math
from collections.abc import Callable

import torch

from infill.train.batch import Batch
from infill.train.engine import Engine


def validation(make: Callable[[], list[Batch]]) -> Callable[[Engine], dict[str, float]]:
    """Return a function from an engine to `validation_loss` (nats per target) on the batches of `make`.

    `make` is called once. If the batches have `text_bytes`, there is also `bits_per_byte`, which can be compared
    between vocabularies.
    """
    batches = functools.cache(make)

    def validate(engine: Engine) -> dict[str, float]:
        loss = targets = text_bytes = 0.0
        with torch.no_grad():
            for batch in batches()[engine.rank :: engine.world]:
                loss -= float(engine.score(batch.to(engine.device)).double().sum())
                targets += len(batch.targets)
                text_bytes += batch.text_bytes
        loss, targets, text_bytes = engine.sum([loss, targets, text_bytes])
        metrics = {"validation_loss": loss / targets} if targets else {}
        return {**metrics, "bits_per_byte": loss / math.log(2) / text_bytes} if text_bytes else metrics

    return validate
