"""The price of fresh context: reuse of the KV cache against coverage, along the price of computing a token again.

A price of 0 replaces an item whenever the ranking does; an infinite one never does. Between them a server may choose by
how long its engine takes for a prompt.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.context.projects import Project
from benchmarks.context.replay import Step, replay
from infill.context.packing import RULES, PackingRules
from infill.experiments.needed_names import HiddenLines
from infill.prompt import Encode

PRICES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, RULES.prefill_price, 1.2, 2.4, math.inf)
HIGHEST: Final = 1e9
"""Stands for an infinite price, of which 0 times would not be a number."""


def curve(
    project: Project, holes: Sequence[HiddenLines], sessions: int, budget: int, encode: Encode
) -> list[dict[str, Any]]:
    """Return a point for each of PRICES: share of reused tokens, new tokens of a prompt, points of coverage lost."""
    rules = [PackingRules(prefill_price=min(price, HIGHEST)) for price in PRICES]
    turns = replay(project, holes, sessions, budget, encode, *rules)
    prices = [price if price < math.inf else None for price in PRICES]
    return [{"price": price, **point(steps)} for price, steps in zip(prices, turns, strict=True)]


def point(steps: Sequence[Step]) -> dict[str, float]:
    """Return what a replay kept and lost."""
    tokens, new = sum(step.tokens for step in steps), [step.tokens - step.shared for step in steps]
    lost = [step.lost for step in steps if step.lost is not None]
    return {
        "share": round(sum(step.shared for step in steps) / tokens, 5),
        "new_tokens_mean": round(float(np.mean(new)), 1),
        "new_tokens_p99": float(np.percentile(new, 99)),
        "coverage_loss": round(100 * float(np.mean(lost)), 3),
        "steps": len(steps),
    }


def plot(curves: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draw a line for each project, from price 0 on the right to an infinite price on the left, as SVG or PNG."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        x, y = [each["new_tokens_mean"] for each in points], [each["coverage_loss"] for each in points]
        axes.plot(x, y, marker=".", linestyle=("-", "--", ":")[number // 10 % 3], linewidth=1, label=name)
        usual = next(each for each in points if each["price"] == RULES.prefill_price)
        axes.plot(usual["new_tokens_mean"], usual["coverage_loss"], "k+")
    axes.set_xscale("log")
    axes.set_xlabel("tokens computed again for three typed characters, on average")
    axes.set_ylabel("coverage lost to a fresh prompt (percentage points)")
    axes.set_title(f"Fresh context against the KV cache (+: the price of {RULES.prefill_price:g})")
    figure.legend(fontsize="small", loc="outside right upper")
    axes.grid(alpha=0.3)
    figure.savefig(file)
