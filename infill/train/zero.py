"""The engine of several workers: DeepSpeed's ZeRO. This is the only module of `train` that uses DeepSpeed."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from infill.config import TrainConfig
from infill.train.batch import Batch
from infill.train.engine import MOMENTS, adamw, precision, trained
from infill.train.scorer import Scorer, score


def load_deepspeed() -> Any:
    """Import and return the module `deepspeed`, which the driver does not need (ray#50406).

    MLflow is hidden from it: only its autotuner uses MLflow, whose import takes 4 of the 5 seconds.
    """
    hidden = {name: None for name in ("mlflow",) if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        import deepspeed
    finally:
        for name in hidden:
            del sys.modules[name]
    return deepspeed


class DeepSpeedEngine:
    """The engine of ZeRO stage 1: every worker has all weights and its own share of the moments."""

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        deepspeed = load_deepspeed()
        # A shared-memory all-reduce for inference on CPUs, whose first use compiles for 44 s; training does not use it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.device = device
        self.model = model.to(device)
        self.dtype = precision(config, device)
        self.names = [name for name, _ in trained(model)]
        self.weights = [weight for _, weight in trained(model)]
        self.engine, *_ = deepspeed.initialize(
            model=Scorer(self.model, recompute=config.recompute),
            optimizer=adamw(self.model, config),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "managed_gradient_accumulation": False,
                "gradient_clipping": config.max_grad_norm,
                "zero_optimization": {"stage": 1},
                "torch_autocast": {
                    "enabled": self.dtype != torch.float32,
                    "dtype": str(self.dtype).removeprefix("torch."),
                },
            },
        )
        self._link_moments()
        self.norm, self.limit = 0.0, float("inf")
        self._judge_norms()
        self.rank: int = torch.distributed.get_rank()
        self.world: int = torch.distributed.get_world_size()

    def score(self, batch: Batch) -> Tensor:
        return score(self.engine, batch)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float, limit: float = float("inf")) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.limit = limit
        self.engine.step()
        return self.norm

    def _judge_norms(self) -> None:
        """Let DeepSpeed skip an update whose norm is above the limit, as it skips one whose norm is not finite (-1)."""
        zero = self.engine.optimizer
        norm_of = zero.scaled_global_norm

        def judged(norm_type: int = 2) -> Tensor:
            norm: Tensor = norm_of(norm_type)
            self.norm = float(norm) if float(norm) >= 0 else float("nan")
            return norm if self.norm <= self.limit else torch.full_like(norm, -1.0)

        zero.scaled_global_norm = judged

    def discard(self) -> None:
        self.engine.zero_grad()

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def union(self, names: Sequence[str]) -> list[str]:
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, list(names))
        return sorted({name for some in gathered for name in some})

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, weight in zip(self.names, self.weights, strict=True):
            yield f"weight/{name}", safe_get_full_fp32_param(weight)
            for moment in MOMENTS:
                yield f"{moment}/{name}", safe_get_full_optimizer_state(weight, moment)

    def _link_moments(self) -> None:
        """Create the moments now: at the first step, DeepSpeed 0.19 links only those of the first parameter group."""
        zero = self.engine.optimizer
        for group in zero.optimizer.param_groups:
            for flat in group["params"]:  # this worker's share of all weights of the group, in one piece
                moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
                zero.optimizer.state[flat] = {"step": torch.tensor(0.0, device=self.device), **moments}
        zero._lazy_init_hp_params_optimizer_state()

    def load_moments(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        for state in self.engine.optimizer.optimizer.state.values():
            state["step"].fill_(float(updates))
        for name, weight in zip(self.names, self.weights, strict=True):
            for moment in MOMENTS:
                safe_set_full_optimizer_state(weight, tensors[f"{moment}/{name}"].to(self.device), moment)
