"""Training speed of the presets on a device, without a peer: tokens/s, MFU, fine-tuning against pre-training."""

import statistics
import time
from dataclasses import replace
from typing import Any, Final

import torch

from infill import inference, model
from infill.config import PRESETS, Preset
from infill.errors import InputError
from infill.train import cost, memory, objectives
from infill.train.batch import Batch, pack, plain_item
from infill.train.data import draw
from infill.train.engine import PlainEngine, precision

STEPS: Final = 8
"""Steps that are timed individually, after WARM steps that compile kernels; their median counts."""
WARM: Final = 3
MIDDLE: Final = 0.1
"""Share of the tokens that fine-tuning predicts."""


def measure(names: list[str], device: torch.device) -> dict[str, Any]:
    """Return figures by name and preset.

    `tokens_per_s` is that of one process on documents as long as the context; `mfu` is the operations per second by
    `cost.step_flops` over the device's peak in `cost.DEVICES`, left out for an unknown device; `sft_vs_pretrain` is the
    rate when the share MIDDLE of the tokens is predicted over the rate when all are; `micro_batch` says how the preset
    was changed to fit the device (`fitting`).
    """
    figures: dict[str, Any] = {"peak": _peak(device)}
    figures |= {each: {} for each in ("micro_batch", "tokens_per_s", "mfu", "sft_vs_pretrain")}
    for name in names:
        preset = fitting(PRESETS[name](), device)
        train = preset.pretrain.train
        figures["micro_batch"][name] = {"tokens": train.micro_batch_tokens, "recompute": train.recompute}
        engine = _engine(preset, device)
        batch = _row(preset, 0.0).to(device)
        seconds = _seconds(engine, batch)
        speed = cost.step_flops(engine.model, [batch]) / seconds
        bf16 = precision(preset.pretrain.train, device).itemsize == 2
        figures["tokens_per_s"][name] = round(batch.used / seconds, 1)
        if share := cost.utilisation(speed, inference.device_name(device), 1, bf16=bf16):
            figures["mfu"][name] = round(share["mfu"], 4)
        tuned = _row(preset, 1 - MIDDLE).to(device)
        figures["sft_vs_pretrain"][name] = round(tuned.used / _seconds(engine, tuned) / (batch.used / seconds), 3)
        print(f"{name} {figures['tokens_per_s'][name]:,.0f} tokens/s, {cost.memory(device)}", flush=True)
        del engine
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return figures


def fitting(preset: Preset, device: torch.device) -> Preset:
    """Return the preset for one worker: with the micro-batch it has if memory allows, else with a leaner one.

    Leaner ones are, in this order: a micro-batch of one context, and all activations computed again in the backward
    pass. Raises InputError when none fits.
    """
    shape, train = preset.pretrain.model, replace(preset.pretrain.train, workers=1, min_workers=0, launcher="local")
    short = replace(train, micro_batch_tokens=shape.context_length)
    free = memory.available(device)
    for each in (train, short, replace(train, recompute=True), replace(short, recompute=True)):
        if memory.needed(shape, preset.tokenizer.vocab_size, each, device, 1) <= free:
            return replace(preset, pretrain=replace(preset.pretrain, train=each))
    raise InputError(f"{device} has {free / 1e9:,.1f} GB free, too little for the preset")


def _peak(device: torch.device) -> str:
    known = cost.find_device(inference.device_name(device))
    return f"{known.bf16_flops:g} FLOP/s in bf16, {known.source}" if known else "unknown"


def _engine(preset: Preset, device: torch.device) -> PlainEngine:
    built = model.build(model.llama_config(preset.pretrain.model, preset.tokenizer.vocab_size), device=str(device))
    return PlainEngine(built, preset.pretrain.train, device)


def _row(preset: Preset, unpredicted: float) -> Batch:
    """Return a full micro-batch of random documents; the share `unpredicted` at each one's start is not predicted."""
    tokens, vocabulary = preset.pretrain.train.micro_batch_tokens, preset.tokenizer.vocab_size
    length = min(tokens, preset.pretrain.model.context_length)
    documents = [[int(draw(place, row) * vocabulary) for place in range(length)] for row in range(tokens // length)]
    return pack([plain_item(ids, start=int(unpredicted * length), group="any") for ids in documents], tokens)


def _seconds(engine: PlainEngine, batch: Batch) -> float:
    """Return the median time of a step on one micro-batch."""
    times = []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        engine.backward(objectives.language_model(engine.score(batch), batch).loss / batch.weight)
        engine.step(1e-4)  # returns a number, so all kernels have finished
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM:
            times.append(time.perf_counter() - started)
    return statistics.median(times)
