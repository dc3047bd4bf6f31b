"""The worth of retrieved context at hidden lines: the needed names that it covers, and the completion with it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from infill import manifest
from infill.config import EvaluateConfig
from infill.context.memo import Memo
from infill.evaluate.generation import Generator
from infill.evaluate.holes import complete
from infill.evaluate.latency import machine_name
from infill.experiments.experiment import Measure
from infill.experiments.needed_names import HiddenLines, coverage, fill
from infill.file_kinds import language_of
from infill.prompt import ContextItem

MEASURES: Final = (
    Measure(name="coverage", label="coverage"),
    Measure(name="edit_similarity", label="edit similarity"),
    Measure(name="chrf", label="chrF"),
    Measure(name="exact_match", label="exact match"),
)
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """The settings that experiments on retrieval share."""

    holes: int = 60
    """Number of holes."""
    context_tokens: int = 4_096
    """Tokens of context in which names are looked for."""
    max_prompt_tokens: int = 1_024
    """Maximum tokens of the model's prompt."""
    max_new_tokens: int = 64


class ContextScorer:
    """Scores the context of holes, with one model."""

    def __init__(self, config: RetrievalConfig, model: str) -> None:
        self._config, self._model = config, model
        self._evaluation = EvaluateConfig(
            max_prompt_tokens=config.max_prompt_tokens, max_new_tokens=config.max_new_tokens
        )

    @cached_property
    def generator(self) -> Generator:
        """The model."""
        return Generator(manifest.fetch(self._model))

    @cached_property
    def _memo(self) -> Memo:
        return Memo(self.generator.encoder.encode)

    def score(self, hole: HiddenLines, items: Sequence[ContextItem]) -> dict[str, Any]:
        """Return the scores of a hole with context items, best first, as serving packs them; and the completion."""
        filled = fill(items, lambda text: len(self._memo(text)), self._config.context_tokens)
        row = {
            **{name: getattr(hole.query, name) for name in ("path", "prefix", "suffix")},
            "id": hole_id(hole),
            "middle": hole.middle,
            "language": language_of(hole.query.path),
            "context": [vars(item) for item in reversed(items)],
            **dict.fromkeys(("kind_start", "kind_end", "unit"), "line"),
        }
        (result,) = complete(self._evaluation, self.generator, [row])
        scores = {each.name: result[each.name] for each in MEASURES if each.name in result}
        kept = {name: result[name] for name in ("output", "prompt_tokens", "output_tokens")}
        return {"coverage": coverage(hole.wanted, filled), **scores, **kept}

    def setting(self) -> str:
        """Return the sentences of the report on how context is scored."""
        config = self._config
        return (
            "Coverage is the share of the identifiers that the hidden lines need, that are defined elsewhere in the "
            f"project and occur nowhere else in the file, among {config.context_tokens:,} tokens of context. Each "
            f"cell completes the same hidden lines (1 to 8) greedily, with a prompt of at most "
            f"{config.max_prompt_tokens:,} tokens, packed as in serving, and at most {config.max_new_tokens} new ones, "
            f"on {machine_name(self.generator)}."
        )


def hole_id(hole: HiddenLines) -> str:
    """Return the name of a hole in its project: path and line."""
    return f"{hole.query.path}:{hole.query.prefix.count(chr(10)) + 1}"
