"""What an evaluation came to: a row per hole, and means with their intervals."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

Interval = dict[str, float]
"""`value`, `low` and `high`, for 95 % confidence."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model made of a set of holes."""

    results: pa.Table
    """One row a hole: id, kind, language, output, middle, prompt_tokens, and a float column a metric."""
    metrics: dict[str, Interval]
    by_kind: dict[str, dict[str, Any]]
    """By the kinds of the hole's two boundaries ("start to end"): number of `holes` and their `metrics`."""
    by_language: dict[str, dict[str, Any]]


def column(table: pa.Table, name: str) -> list[Any]:
    """A column as a Python list."""
    return table[name].to_pylist()
