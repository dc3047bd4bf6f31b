"""Experiment `context-budget`: what more project context is worth, and what it costs in time.

The text around the caret is the same in all cells: what serving would pack into `caret_tokens` without any context.
Context items are added before it, best first, each whole or not at all, until the cell's budget is used up.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from infill import manifest, storage
from infill.artifacts.examples import read_holes, request_of
from infill.config import EvaluateConfig
from infill.context.packing import pack
from infill.errors import InputError
from infill.evaluate.generation import Generator
from infill.evaluate.holes import complete
from infill.evaluate.latency import machine_name
from infill.experiments import experiment_run
from infill.experiments.experiment import Experiment, Measure
from infill.manifest import Manifest
from infill.model import context_length
from infill.prompt import ContextItem, item_texts

NAME: Final = "context-budget"
BUDGETS: Final = (0, 1_024, 2_048, 4_096, 8_192)
MEASURES: Final = (
    Measure(name="edit_similarity", label="edit similarity"),
    Measure(name="chrf", label="chrF"),
    Measure(name="kk", label="KK"),
    Measure(name="exact_match", label="exact match"),
    Measure(name="ms", label="time", unit="ms", higher_is_better=False),
    Measure(name="context_tokens", label="context", unit="tokens", higher_is_better=None),
)
LOOSE: Final = 4
"""A packing budget this many times the prompt cuts nothing from it, whatever the shares of its parts."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ContextBudgetConfig:
    name: str = NAME
    budgets: tuple[int, ...] = BUDGETS
    """Tokens for context items, one cell each; the first is the baseline."""
    holes: int = 200
    """Number of holes, the first in the order of their id."""
    caret_tokens: int = 1_024
    """Maximum tokens of the path and the text around the caret."""
    max_new_tokens: int = 64


def run(config: ContextBudgetConfig, *, examples: str, model: str, output: str) -> Manifest:
    """Write the experiment to the folder `output`; return its manifest.

    Raises InputError when there are no holes, or the model's context has no room for two different budgets.
    """
    uris = {"examples": examples, "model": model}
    inputs = {name: experiment_run.digest(uri) for name, uri in uris.items()}
    return experiment_run.run(lambda: _experiment(config, **uris), config=config, inputs=inputs, output=output)


def _experiment(config: ContextBudgetConfig, examples: str, model: str) -> Experiment:
    holes = read_holes(examples, "test", config.holes).to_pylist()
    if not holes:
        raise InputError(f"{examples} has no test holes; build examples or a benchmark that has some")
    length = context_length(storage.read_json(storage.join(model, "config.json")))
    budgets = _fitting(config, length)
    cells = _BudgetCells(config, model, holes)
    return Experiment(
        name=NAME,
        question="Does more project context make better completions, and how much longer do they take?",
        factor="tokens of context, at most",
        cells=list(budgets),
        baseline=f"{next(iter(budgets))} tokens of context",
        measures=MEASURES,
        holes=[hole["id"] for hole in holes],
        measure=lambda cell, place: cells.measure(budgets[cell], holes[place]),
        setting=_setting(config, cells.generator, holes),
    )


def _fitting(config: ContextBudgetConfig, length: int) -> dict[str, int]:
    """Return the budgets by name; those that the model's context of `length` has no room for become the largest."""
    most = length - config.caret_tokens - config.max_new_tokens
    budgets = [min(budget, most) for budget in config.budgets]
    if most < 0 or len(set(budgets)) < 2:
        raise InputError(
            f"the model's context of {length} tokens has no room for two budgets after {config.caret_tokens} tokens "
            f"around the caret and {config.max_new_tokens} new ones; lower --caret-tokens, or give other --budgets"
        )
    if max(config.budgets) > most:
        log.warning("the model's context has room for %d tokens of context items, so larger budgets are that", most)
    return {f"{budget:,}": budget for budget in dict.fromkeys(budgets)}


def _setting(config: ContextBudgetConfig, generator: Generator, holes: Sequence[Mapping[str, Any]]) -> list[str]:
    languages = ", ".join(sorted({hole["language"] for hole in holes}))
    return [
        f"Each cell completes the same {len(holes)} holes ({languages}) greedily, with at most {config.caret_tokens:,} "
        f"tokens around the caret and at most {config.max_new_tokens} new tokens, one at a time on "
        f"{machine_name(generator)}; at each hole the cells take turns. A time is that of a whole completion with "
        "nothing of its prompt in the cache, so an editor's first in a file, and includes all that the machine did "
        "meanwhile."
    ]


class _BudgetCells:
    """Completes holes within the budgets, with one model."""

    def __init__(self, config: ContextBudgetConfig, model: str, holes: Sequence[Mapping[str, Any]]) -> None:
        self._config, self._model, self._holes = config, model, holes
        most = config.caret_tokens + max(config.budgets)
        self._evaluation = EvaluateConfig(max_prompt_tokens=LOOSE * most, max_new_tokens=config.max_new_tokens)

    @cached_property
    def generator(self) -> Generator:
        """The model, which is warmed up with one completion."""
        generator = Generator(manifest.fetch(self._model))
        complete(self._evaluation, generator, [self._cut(generator, self._holes[0], 0)])
        return generator

    def measure(self, budget: int, hole: Mapping[str, Any]) -> dict[str, Any]:
        """Return the completion of a hole, its scores, its time, and the tokens of its context."""
        cut = self._cut(self.generator, hole, budget)
        start = time.perf_counter()
        (result,) = complete(self._evaluation, self.generator, [cut])
        ms = 1_000 * (time.perf_counter() - start)
        bare = replace(request_of(cut), context=())
        context = result["prompt_tokens"] - len(self.generator.prompt(bare, self._evaluation.max_prompt_tokens))
        scores = {each.name: result[each.name] for each in MEASURES if each.name in result}
        kept = {name: result[name] for name in ("output", "prompt_tokens", "output_tokens")}
        return {**scores, "ms": ms, "context_tokens": float(context), **kept}

    def _cut(self, generator: Generator, hole: Mapping[str, Any], budget: int) -> dict[str, Any]:
        """Return the hole with the text around the caret that is shown, and the items that fit into the budget."""
        request = request_of(hole)
        bare = replace(request, context=())
        layout = pack(generator.format, generator.encoder.encode, bare, budget=self._config.caret_tokens).layout
        room, items = budget, []
        for item in reversed(request.context):
            size = _item_tokens(generator, item)
            if size <= room:
                room -= size
                items.append(vars(item))
        shown = {"prefix": request.prefix[layout.start :], "suffix": layout.suffix}
        return {**hole, **shown, "context": items[::-1]}


def _item_tokens(generator: Generator, item: ContextItem) -> int:
    """Return the number of tokens of a context item in a prompt."""
    heading, text = item_texts(generator.format, item)
    encode = generator.encoder.encode
    return 1 + len(encode(heading)) + len(encode(text))
