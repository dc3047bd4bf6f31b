"""The check, before a training starts, that it fits in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PretrainedConfig

from infill import model
from infill.config import PRESETS, ModelConfig, TrainConfig
from infill.errors import TrainingError
from infill.text import read_text, split_lines
from infill.train import adapter
from infill.train.engine import precision

GROUP: Final = Path("/sys/fs/cgroup")
"""Folder with the memory limit of this container (cgroup v2)."""


def available(device: torch.device, sharing: int = 1) -> float:
    """Return the free bytes on `device` for each of `sharing` workers."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0]) / sharing
    lines = split_lines(read_text("/proc/meminfo"))
    fields = {name: float(rest.split()[0]) * 1_024 for name, _, rest in (line.partition(":") for line in lines)}
    return min(fields["MemAvailable"], _left_in_group()) / sharing


def _left_in_group() -> float:
    """Return the bytes left below the container's limit; infinite without a limit."""
    limit, used = GROUP / "memory.max", GROUP / "memory.current"
    if not limit.exists() or not used.exists() or read_text(limit).strip() == "max":
        return float("inf")
    return float(read_text(limit)) - float(read_text(used))


def shape_of(settings: PretrainedConfig) -> tuple[ModelConfig, int]:
    """Return shape and vocabulary size of a Hugging Face decoder that is built like Llama."""
    shape = ModelConfig(
        layers=settings.num_hidden_layers,
        width=settings.hidden_size,
        mlp_width=settings.intermediate_size,
        heads=settings.num_attention_heads,
        kv_heads=getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads,
        context_length=settings.max_position_embeddings,
        tie_embeddings=bool(getattr(settings, "tie_word_embeddings", False)),
    )
    return shape, settings.vocab_size


def needed(shape: ModelConfig, vocab_size: int, train: TrainConfig, device: torch.device, workers: int) -> float:
    """Return an estimate of the bytes that a worker needs for `train`."""
    return model.training_bytes(
        shape,
        vocab_size,
        micro_batch_tokens=train.micro_batch_tokens,
        itemsize=precision(train, device).itemsize,
        workers=workers,
        recompute=train.recompute,
        sharded=train.launcher == "ray",
        device="cuda" if device.type == "cuda" else "cpu",
        trained=adapter.count(shape, train) if train.lora_rank else None,
    )


def check(
    stage: str, settings: PretrainedConfig, train: TrainConfig, device: torch.device, workers: int, free: float
) -> None:
    """Raise TrainingError when a worker needs more than `free` bytes; the message suggests settings that fit."""
    shape, vocab_size = shape_of(settings)
    wanted = needed(shape, vocab_size, train, device, workers)
    if wanted <= free:
        return
    where = "the GPU" if device.type == "cuda" else "this machine"
    raise TrainingError(
        f"{stage} needs about {_gb(wanted)} of memory per worker, but {where} has {_gb(free)} free for it; "
        f"{_advice(stage, train, free, device, lambda changed: needed(shape, vocab_size, changed, device, workers))}"
    )


def _advice(stage: str, train: TrainConfig, free: float, device: torch.device, cost: Any) -> str:
    leaner = replace(train, recompute=True)
    if not train.recompute and cost(leaner) <= free:
        return f"set {stage}.train.recompute=true, which needs {_gb(cost(leaner))}"
    presets = {name: make() for name, make in PRESETS.items()}

    def size_of(name: str) -> int:
        return model.parameters(presets[name].pretrain.model, presets[name].tokenizer.vocab_size)

    for name in sorted(presets, key=size_of, reverse=True):
        preset = presets[name]
        own: TrainConfig = replace(getattr(preset, stage).train, launcher=train.launcher, workers=1, min_workers=0)
        size = needed(preset.pretrain.model, preset.tokenizer.vocab_size, own, device, 1)
        if size <= free:
            return f"choose the preset {name}, which needs {_gb(size)}, or lower {stage}.train.micro_batch_tokens"
    return "no preset fits: use a machine with more memory"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
