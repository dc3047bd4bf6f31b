"""Engines, which turn gradients into weights: the interface for the loop, and the engine without DeepSpeed.

Weights and moments are fp32 on every device; on a GPU the model computes in bf16 under autocast.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from infill.config import TrainConfig
from infill.train.batch import Batch
from infill.train.scorer import Scorer, score

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
"""AdamW's state, without the number of updates."""


class Engine(Protocol):
    rank: int
    world: int
    device: torch.device
    model: Any
    """The Hugging Face model."""

    def score(self, batch: Batch) -> Tensor:
        """Return the log-probability of each target, [N]."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, which is this worker's share of a mean over all of them."""

    def step(self, learning_rate: float, limit: float = float("inf")) -> float:
        """Clip the gradients, update the weights and discard the gradients; return the norm before clipping.

        If the norm is not finite, or above `limit`, the weights are unchanged.
        """

    def discard(self) -> None:
        """Discard the gradients."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over the workers."""

    def union(self, names: Sequence[str]) -> list[str]:
        """Return the names of all workers, sorted."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield weights and moments, whole, by name, in the same order on every worker; all workers must iterate."""

    def load_moments(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Load the moments in `tensors`, those after `updates` updates; weights are loaded before the engine exists."""


def precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Return the type of matrix products: `auto` means bf16 on a GPU and fp32 on a CPU."""
    if config.precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights that training changes, by name: with LoRA few, otherwise all."""
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW for the trained weights of `model`, with decay on matrices only."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    fused = weights[0].device.type != "meta"  # which is used for counting, and has no fused kernel
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8, fused=fused)


class PlainEngine:
    """The engine of one process, with PyTorch only."""

    rank = 0
    world = 1

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        self.device = device
        self.model = model.to(device)
        self.scorer = Scorer(self.model, recompute=config.recompute)
        self.dtype = precision(config, device)
        self.max_grad_norm = config.max_grad_norm
        self.optimizer = adamw(self.model, config)

    def score(self, batch: Batch) -> Tensor:
        if self.dtype == torch.float32:
            return score(self.scorer, batch)
        with torch.autocast(self.device.type, self.dtype):
            return score(self.scorer, batch)

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(loss)

    def step(self, learning_rate: float, limit: float = float("inf")) -> float:
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm))
        if norm <= limit and norm < float("inf"):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.discard()
        return norm

    def discard(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def union(self, names: Sequence[str]) -> list[str]:
        return sorted(names)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in trained(self.model):
            yield f"weight/{name}", weight.detach()
            for moment in MOMENTS:
                kept = self.optimizer.state.get(weight, {}).get(moment)
                yield f"{moment}/{name}", torch.zeros_like(weight) if kept is None else kept

    def load_moments(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        for name, weight in trained(self.model):
            moments = {moment: tensors[f"{moment}/{name}"].to(self.device, copy=True) for moment in MOMENTS}
            step = torch.tensor(float(updates), device=self.device if self.device.type == "cuda" else "cpu")
            self.optimizer.state[weight] = {"step": step, **moments}


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the weights of a checkpoint into `model`."""
    with torch.no_grad():
        for name, weight in trained(model):
            weight.copy_(tensors[f"weight/{name}"])
