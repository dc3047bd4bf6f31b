"""How quickly the presets train on a device, without a peer: tokens a second, MFU, fine-tuning beside pre-training."""

import statistics
import time
from typing import Any, Final

import torch

from infill import model
from infill.config import PRESETS, Preset
from infill.train import cost, objectives
from infill.train.batch import Batch, pack, plain_item
from infill.train.data import draw
from infill.train.engine import PlainEngine, precision

STEPS: Final = 8
"""Steps that are timed one by one, after WARM ones, in which kernels are compiled; their median counts."""
WARM: Final = 3
MIDDLE: Final = 0.1
"""Share of the tokens that fine-tuning predicts."""


def measure(names: list[str], device: torch.device) -> dict[str, Any]:
    """Figure -> preset -> value.

    `tokens_per_s` of one process on a row of documents as long as the context; `mfu` is the operations of
    `cost.step_flops` a second over the device's peak in `cost.DEVICES`, left out where that is unknown;
    `sft_vs_pretrain` the same rate where MIDDLE of the tokens are predicted, over that where all are.
    """
    found: dict[str, Any] = {"peak": _peak(device), "tokens_per_s": {}, "mfu": {}, "sft_vs_pretrain": {}}
    for name in names:
        preset = PRESETS[name]()
        engine = _engine(preset, device)
        batch = _row(preset, 0.0).to(device)
        seconds = _seconds(engine, batch)
        speed = cost.step_flops(engine.model, [batch]) / seconds
        bf16 = precision(preset.pretrain.train, device).itemsize == 2
        found["tokens_per_s"][name] = round(batch.used / seconds, 1)
        if share := cost.utilisation(speed, cost.device_name(device), 1, bf16=bf16):
            found["mfu"][name] = round(share["mfu"], 4)
        tuned = _row(preset, 1 - MIDDLE).to(device)
        found["sft_vs_pretrain"][name] = round(tuned.used / _seconds(engine, tuned) / (batch.used / seconds), 3)
        print(f"{name} {found['tokens_per_s'][name]:,.0f} tokens/s, {cost.memory(device)}", flush=True)
        del engine
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _peak(device: torch.device) -> str:
    known = cost.find_device(cost.device_name(device))
    return f"{known.bf16_flops:g} FLOP/s in bf16, {known.source}" if known else "unknown"


def _engine(preset: Preset, device: torch.device) -> PlainEngine:
    built = model.build(model.llama_config(preset.pretrain.model, preset.tokenizer.vocab_size), device=str(device))
    return PlainEngine(built, preset.pretrain.train, device)


def _row(preset: Preset, unpredicted: float) -> Batch:
    """A full micro-batch of random documents, of each of which the first part, a share, is not predicted."""
    tokens, vocabulary = preset.pretrain.train.micro_batch_tokens, preset.tokenizer.vocab_size
    length = min(tokens, preset.pretrain.model.context_length)
    documents = [[int(draw(place, row) * vocabulary) for place in range(length)] for row in range(tokens // length)]
    return pack([plain_item(ids, start=int(unpredicted * length), group="any") for ids in documents], tokens)


def _seconds(engine: PlainEngine, batch: Batch) -> float:
    """The median time of a step of one micro-batch."""
    times = []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        engine.backward(objectives.language_model(engine.score(batch), batch).loss / batch.weight)
        engine.step(1e-4)  # returns a number, so all kernels have ended
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM:
            times.append(time.perf_counter() - started)
    return statistics.median(times)
