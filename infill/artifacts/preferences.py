"""The preferences as an artifact: a table of pairs, and one of the verdicts that they are made from."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from infill import storage
from infill.artifacts.examples import CONTEXT

_VERDICTS_FILE: Final = "verdicts.parquet"
SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "repo", "path", "language", "prefix", "suffix")),
        ("context", CONTEXT),
        *((name, pa.string()) for name in ("chosen", "rejected", "kind", "reason", "judge")),
        ("rejected_finished", pa.bool_()),
        ("score_chosen", pa.float32()),
        ("score_rejected", pa.float32()),
    ]
)
"""One row per pair; `id` is the hole's id and the pair's kind."""

_VERDICT: Final[Mapping[str, pa.DataType]] = {
    **dict.fromkeys(("hole", "text", "judge", "defects"), pa.string()),
    "finished": pa.bool_(),
    "temperature": pa.float32(),
    **dict.fromkeys(("score", "rules"), pa.float64()),
    "orders": pa.list_(pa.float64()),
}
VERDICTS: Final = pa.schema(_VERDICT)
"""One row per judged completion: the judge's `score`, that of the `rules`, and, for a language model, the scores in
each order of the candidates."""


def pairs_file(folder: str) -> str:
    """Return the URI of the table of pairs in the artifact at `folder`, or in a chunk of it."""
    return storage.join(folder, "pairs.parquet")


def read_pairs(folder: str) -> pa.Table:
    """Return the pairs in `folder`."""
    return storage.read_table(pairs_file(folder))


def write_pairs(folder: str, pairs: pa.Table) -> None:
    """Write the pairs into `folder`."""
    storage.write_table(pairs_file(folder), pairs)


def read_verdicts(folder: str) -> pa.Table:
    """Return the verdicts in `folder`."""
    return storage.read_table(storage.join(folder, _VERDICTS_FILE))


def write_verdicts(folder: str, verdicts: pa.Table) -> None:
    """Write the verdicts into `folder`."""
    storage.write_table(storage.join(folder, _VERDICTS_FILE), verdicts)
