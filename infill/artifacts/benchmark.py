"""A frozen benchmark as an artifact: holes with their answers, holes with only a hash of theirs, and a card.

The holes with answers are in `examples/test.parquet`, so whatever reads the test holes of the examples reads them too.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from infill import storage
from infill.artifacts.examples import SCHEMA

CARD_FILE: Final = "CARD.md"
HELD_BACK_FILE: Final = "held_back.parquet"
ORIGINS_FILE: Final = "origins.parquet"
HELD_BACK: Final = pa.schema(
    [
        *(SCHEMA.field(name) for name in SCHEMA.names if name != "middle"),
        *(pa.field(name, pa.string()) for name in ("salt", "answer")),
    ]
)
"""One row per hole; `answer` is `answer_hash(middle, salt)`."""
ORIGINS: Final = pa.schema([(name, pa.string()) for name in ("id", "repo", "path", "commit", "parent", "date")])
"""The commit and file that each hole is from, also those that are held back."""


def answer_hash(middle: str, salt: str) -> str:
    """Return the hash that stands for a middle which is held back."""
    return hashlib.sha256(f"{salt}\0{middle}".encode(errors="surrogatepass")).hexdigest()


def is_answer(output: str, row: Mapping[str, Any]) -> bool:
    """Return whether `output` is the middle of a row of HELD_BACK, character for character."""
    return hmac.compare_digest(answer_hash(output, row["salt"]), row["answer"])


def write_held_back(folder: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of HELD_BACK, sorted by id."""
    table = pa.Table.from_pylist(list(rows), HELD_BACK)
    storage.write_table(storage.join(folder, HELD_BACK_FILE), table.sort_by("id"))


def read_held_back(folder: str, limit: int) -> pa.Table:
    """Return the first `limit` held-back holes in the order of their id; empty for an artifact without any."""
    file = storage.join(folder, HELD_BACK_FILE)
    return storage.read_table(file).slice(0, limit) if storage.exists(file) else HELD_BACK.empty_table()


def write_origins(folder: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of ORIGINS, sorted by id."""
    table = pa.Table.from_pylist(list(rows), ORIGINS)
    storage.write_table(storage.join(folder, ORIGINS_FILE), table.sort_by("id"))


def read_origins(folder: str) -> list[dict[str, str]]:
    """Return the rows of ORIGINS of a benchmark from history. Raises InputError if there is none."""
    rows: list[dict[str, str]] = storage.read_table(storage.join(folder, ORIGINS_FILE)).to_pylist()
    return rows
