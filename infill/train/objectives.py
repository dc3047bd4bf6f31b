"""The three objectives: functions from log-probabilities and a batch to a summed loss and the values to log.

    N = targets, S = segments, P = pairs

Pre-training and SFT have the same objective with different targets: pre-training predicts every token, SFT only the
middle and the end of text; the data decides (`batch.picks`).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from infill.train.batch import Batch


class Result(NamedTuple):
    loss: Tensor
    """Sum over the batch; the loop divides by the weight of the whole step."""
    counts: Mapping[str, tuple[Tensor, float | Tensor]]
    """Values to log: sums, and the numbers to divide them by. They stay on their device, so that no step waits."""


Objective = Callable[[Tensor, Batch], Result]
"""A function from the log-probability of each target, [N], and its batch to the result."""


def language_model(log_probs: Tensor, batch: Batch) -> Result:
    """Return the negative log-likelihood of all targets, in nats; it is also logged by group."""
    loss = -log_probs.sum()
    if len(set(batch.groups)) <= 1:
        return Result(loss, {f"loss/{name}": (loss.detach(), batch.weight) for name in batch.groups[:1]})
    names = sorted(set(batch.groups))
    group = torch.tensor([names.index(name) for name in batch.groups], device=log_probs.device)[batch.segments]
    sums = torch.zeros(len(names), device=log_probs.device).index_add_(0, group, -log_probs.detach().float())
    sizes = torch.zeros_like(sums).index_add_(0, group, torch.ones_like(sums[group]))
    return Result(loss, {f"loss/{name}": (sums[k], sizes[k]) for k, name in enumerate(names)})


def dpo(beta: float, sft_weight: float = 0.0, *, length_normalised: bool = False) -> Objective:
    """Return the objective of DPO (arXiv 2305.18290, eq. 7): the sum of -log sigmoid(beta (chosen - rejected)).

    `chosen` and `rejected` are the completions' log-probabilities under the model minus those under the reference
    (`batch.numbers`), each divided by its number of tokens if `length_normalised` (arXiv 2411.15124, section 5.1; TRL's
    `sigmoid_norm`). `sft_weight` adds the mean negative log-likelihood of the chosen completion's tokens.
    """

    def objective(log_probs: Tensor, batch: Batch) -> Result:
        sums = segment_sums(log_probs, batch)  # [S]
        lengths = torch.bincount(batch.segments, minlength=len(batch.groups)).clamp(min=1)  # [S]
        ratio = (sums - batch.numbers) / (lengths if length_normalised else 1)
        margin = beta * (ratio[0::2] - ratio[1::2])  # [P]
        loss = -logsigmoid(margin).sum()
        if sft_weight:
            loss = loss - sft_weight * (sums / lengths)[0::2].sum()
        pairs = batch.weight
        with torch.no_grad():
            counts = {
                "accuracy": ((margin > 0).float().sum(), pairs),
                "margin": (margin.sum(), pairs),
                "reward_chosen": (beta * ratio[0::2].sum(), pairs),
                "reward_rejected": (beta * ratio[1::2].sum(), pairs),
            }
        return Result(loss, counts)

    return objective


def segment_sums(log_probs: Tensor, batch: Batch) -> Tensor:
    """Return the log-probability of each segment, [S]."""
    zeros = torch.zeros(len(batch.groups), device=log_probs.device, dtype=log_probs.dtype)
    return zeros.index_add(0, batch.segments, log_probs)
