"""The preferences as an artifact: one table of pairs."""

from typing import Final

import pyarrow as pa

from infill import storage
from infill.artifacts.examples import CONTEXT

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


def pairs_file(folder: str) -> str:
    """Return the URI of the table of pairs in the artifact at `folder`, or in a chunk of it."""
    return storage.join(folder, "pairs.parquet")


def read_pairs(folder: str) -> pa.Table:
    """Return the pairs in `folder`."""
    return storage.read_table(pairs_file(folder))


def write_pairs(folder: str, pairs: pa.Table) -> None:
    """Write the pairs into `folder`."""
    storage.write_table(pairs_file(folder), pairs)
