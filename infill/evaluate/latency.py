"""Latency of a model in evaluation: the time of single completions, as one editor would wait for them."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from infill import inference
from infill.evaluate.generation import ENGINE, Generator


def measure(generator: Generator, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> dict[str, Any]:
    """Complete `prompts` one at a time; return the time of a completion in milliseconds, and where it was measured.

    The keys are `p50_ms`, `p90_ms`, `completions` (their number), `engine` and `machine`. The model has nothing of a
    prompt in its cache. The first prompt is completed once more before, since a first completion loads and compiles.
    """
    times = []
    for prompt in [*prompts[:1], *prompts]:
        start = time.perf_counter()
        generator.complete([prompt], max_new_tokens=max_new_tokens)
        times.append(1_000 * (time.perf_counter() - start))
    p50, p90 = np.quantile(times[1:], [0.5, 0.9])
    return {
        "p50_ms": round(float(p50), 1),
        "p90_ms": round(float(p90), 1),
        "completions": len(prompts),
        "engine": ENGINE,
        "machine": machine_name(generator),
    }


def machine_name(generator: Generator) -> str:
    """Return the name of the device on which `generator` runs; of a processor with its number of threads."""
    name = inference.device_name(generator.device)
    return name if generator.device.type == "cuda" else f"{name}, {generator.threads} threads"
