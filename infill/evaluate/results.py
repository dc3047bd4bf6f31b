"""The results of an evaluation: a row per hole, and means with their intervals."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

Interval = dict[str, float]
"""`value`, `low` and `high`, for 95 % confidence."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's results on a set of holes."""

    results: pa.Table
    """One row per hole: id, hole (its digest), kind, unit, language, output, middle, prompt_tokens, output_tokens, and
    one column per metric."""
    metrics: dict[str, Interval]
    by_kind: dict[str, dict[str, Any]]
    """Number of `holes` and their `metrics` by the kinds of the hole's two boundaries ("start to end")."""
    by_unit: dict[str, dict[str, Any]]
    by_language: dict[str, dict[str, Any]]
    latency: dict[str, Any] | None = None
    """The result of `latency.measure`; None if it was not measured."""
    held_back: dict[str, Any] | None = None
    """Number of held-back `holes` and their `exact_match`; None for a benchmark without any."""


def column(table: pa.Table, name: str) -> list[Any]:
    """Return a column as a Python list."""
    return table[name].to_pylist()
