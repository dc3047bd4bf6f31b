"""Validation: the loss on data that is never trained on."""

import functools
import math
from collections.abc import Callable

import torch

from infill.train.batch import Batch
from infill.train.engine import Engine


def validation(make: Callable[[], list[Batch]]) -> Callable[[Engine], dict[str, float]]:
    """A function from an engine to `validation_loss` (nats a target) on the batches of `make`, which is called once.

    Where the batches know their text there is `bits_per_byte` too, which models of any vocabulary share.
    """
    made = functools.cache(make)

    def validate(engine: Engine) -> dict[str, float]:
        loss = targets = text_bytes = 0.0
        with torch.no_grad():
            for batch in made()[engine.rank :: engine.world]:
                loss -= float(engine.score(batch.to(engine.device)).double().sum())
                targets += len(batch.targets)
                text_bytes += batch.text_bytes
        loss, targets, text_bytes = engine.sum([loss, targets, text_bytes])
        found = {"validation_loss": loss / targets} if targets else {}
        return {**found, "bits_per_byte": loss / math.log(2) / text_bytes} if text_bytes else found

    return validate
