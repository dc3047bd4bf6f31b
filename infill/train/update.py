"""One optimiser step on a batch, refused if its loss or gradient norm is not finite or far above the usual.

Refused batches are recorded: a file per worker in the output's `logs/` has the documents, tokens, losses and norms, so
that people can inspect them or run them again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch

from infill import storage
from infill.train.batch import Batch
from infill.train.engine import Engine
from infill.train.objectives import Objective, Result

FOLDER: Final = "logs/refused"
"""Subfolder of a stage's output; logs stay when the stage is finished, and are not part of an artifact's identity."""


class Bounds(NamedTuple):
    """The maximum loss and gradient norm of a step."""

    loss: float
    norm: float


class UpdateOutcome(NamedTuple):
    why: str
    """Reason why the weights were not updated; empty if they were."""
    loss: float
    norm: float
    """Norm of the gradient before clipping; NaN if the loss was refused before the gradient was computed."""
    results: Sequence[Result]


def attempt(
    engine: Engine, objective: Objective, batches: Sequence[Batch], *, weight: float, rate: float, bounds: Bounds
) -> UpdateOutcome:
    """Try an optimiser step on this worker's `batches`, whose mean is over `weight` on all workers.

    All workers must call it; all get the same `why`, `loss` and `norm`.
    """
    results: list[Result] = []
    loss = float("nan")
    for batch in batches:
        results.append(objective(engine.score(batch), batch))
        if batch is batches[-1]:
            # Judged before the last backward pass: a refused single micro-batch costs no gradient.
            (total,) = engine.sum([float(torch.stack([result.loss.detach() for result in results]).sum())])
            loss = total / weight
            if why := judge("loss", loss, bounds.loss):
                engine.discard()
                return UpdateOutcome(why, loss, float("nan"), results)
        engine.backward(results[-1].loss * (engine.world / weight))
    norm = engine.step(rate, bounds.norm)
    return UpdateOutcome(judge("gradient norm", norm, bounds.norm), loss, norm, results)


def judge(name: str, value: float, bound: float) -> str:
    """Return what is wrong with `value`; empty if it is finite and at most `bound`."""
    if value <= bound and value < float("inf"):
        return ""
    return f"{name} {value:g} is above {bound:g}" if float("inf") > value > bound else f"{name} is not a number"


def record(
    output: str,
    engine: Engine,
    step: int,
    batches: Sequence[Batch],
    outcomes: Sequence[UpdateOutcome],
    about: Mapping[str, Any],
) -> str:
    """Write the refused batches of `step`, and return the URI of this worker's file, which a retry replaces."""
    tries = [{"why": outcome.why, "loss": repr(outcome.loss), "norm": repr(outcome.norm)} for outcome in outcomes]
    value = {
        "step": step,
        "rank": engine.rank,
        "tries": tries,
        **about,
        "micro_batches": [
            {
                "documents": list(batch.names),
                "groups": list(batch.groups),
                "spans": [list(span) for span in batch.spans],
                "loss": repr(float(result.loss.detach())),
                "targets": len(batch.targets),
                "weight": batch.weight,
                "ids": batch.ids[: batch.used].tolist(),
            }
            for batch, result in zip(batches, outcomes[-1].results, strict=True)
        ],
    }
    uri = storage.join(output, FOLDER, f"step_{step:08d}_rank_{engine.rank}.json")
    storage.write_json(uri, value)
    return uri
