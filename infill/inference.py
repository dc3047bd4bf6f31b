"""Inference settings and sampling, shared by evaluation, preferences, samples and serving.

Legend: B = sequences, V = vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infill import machine, model, onednn
from infill.errors import InputError


def choose_device(device: str = "auto") -> torch.device:
    """Return the device named by `device`: `cuda`, `cpu`, or `auto` for CUDA if it is available.

    Raises InputError for `cuda` on a machine without it.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise InputError("there is no usable CUDA device; use --device cpu")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def device_name(device: torch.device) -> str:
    """Return the name that its maker gives the device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return machine.cpu_info("model name") or "CPU"


def precision(device: torch.device) -> torch.dtype:
    """Return the type of weights for `device`: bf16 on a GPU, fp32 on a CPU, many of which emulate bf16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def load(folder: Path, device: torch.device) -> Any:
    """Return the causal language model in `folder`, ready to run on `device`. Raises InputError as `model.load_any`."""
    decoder = model.load_any(folder, precision(device)).to(device).eval()
    if device.type == "cpu":
        onednn.use(decoder)
    return decoder


def choose(logits: Tensor, temperatures: Sequence[float], uniform: Sequence[float], top_p: float = 1.0) -> list[int]:
    """Return the next token of each row of `logits` (B, V): the most probable one, or one drawn at random.

    A row with temperature 0 is greedy. For other rows `uniform`, one number in [0, 1) per row, selects a token by
    cumulative probability, so that the same number gives the same token on every device. `top_p` keeps the most
    probable tokens that together reach it (nucleus sampling, Holtzman et al. 2020), at least one. Every temperature and
    top_p from 0 on gives a token. NaN logits are chosen only if a row has no others.
    """
    logits = torch.nan_to_num(logits, nan=-torch.inf, neginf=-torch.inf)
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    usable = logits.isfinite().any(dim=-1).tolist()
    sampled = [row for row, temperature in enumerate(temperatures) if temperature > 0 and usable[row]]
    if not sampled:
        return tokens
    rows = logits[sampled].double()
    heat = torch.tensor([temperatures[row] for row in sampled], dtype=torch.float64, device=logits.device)
    # Subtract the maximum first: a difference divided by a tiny temperature becomes -inf, a probability of 0.
    shares, order = torch.softmax((rows - rows.amax(dim=-1, keepdim=True)) / heat[:, None], dim=-1).sort(
        dim=-1, descending=True, stable=True
    )
    through = shares.cumsum(dim=-1)
    total = torch.where(through - shares < top_p, through, 0.0).amax(dim=-1, keepdim=True)
    drawn = torch.tensor([uniform[row] for row in sampled], dtype=torch.float64, device=logits.device)
    place = torch.searchsorted(through, drawn[:, None] * total, right=True).clamp(max=order.shape[1] - 1)
    for row, token in zip(sampled, order.gather(1, place)[:, 0].tolist(), strict=True):
        tokens[row] = token
    return tokens


def only(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return a copy of `logits` (V) in which no other token than `tokens` is possible."""
    kept = torch.full_like(logits, -torch.inf)
    kept[list(tokens)] = logits[list(tokens)]
    return kept
