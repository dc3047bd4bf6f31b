"""The examples as an artifact: a table of holes for each split."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infill import storage
from infill.errors import InputError
from infill.prompt import ContextItem, FimRequest

SPLITS: Final = ("train", "validation", "test")
COUNTS: Final = "counts.json"
"""File with a shard's counts; it is written last, so its presence means that the shard is complete."""
ROWS_AT_ONCE: Final = 256
"""Holes per row group: a reader keeps that many in memory, with their files and context."""

CONTEXT: Final = pa.list_(
    pa.struct(
        [
            ("path", pa.string()),
            ("text", pa.string()),
            ("first_line", pa.int32()),
            ("last_line", pa.int32()),
            ("score", pa.float64()),
            ("strategy", pa.string()),
        ]
    )
)
"""Context items in prompt order, the best last."""
SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "repo", "path", "language", "split", "prefix", "middle", "suffix")),
        *((name, pa.string()) for name in ("kind_start", "kind_end", "unit", "strategy")),
        ("context", CONTEXT),
    ]
)
"""One row per hole; prefix + middle + suffix is the file, character for character."""


def split_name(split: str) -> str:
    """Return the name of the table with the holes of a split, relative to the artifact's folder."""
    return f"examples/{split}.parquet"


def split_file(examples: str, split: str) -> str:
    """Return the URI of the table with the holes of a split."""
    return storage.join(examples, split_name(split))


def read_holes(examples: str, split: str, limit: int) -> pa.Table:
    """Return the first `limit` holes of a split in the order of their id (a hash, so a random sample), as SCHEMA.

    Reads the ids first, then only the row groups with the chosen holes.
    """
    with open_parquet(split_file(examples, split)) as reader:
        ids = reader.read(columns=["id"])["id"].combine_chunks()
        chosen = ids.take(pc.sort_indices(ids)[:limit])
        parts = [SCHEMA.empty_table()]
        for group in range(reader.num_row_groups):
            names = reader.read_row_group(group, columns=["id"])["id"]
            if pc.any(pc.is_in(names, value_set=chosen)).as_py():
                rows = reader.read_row_group(group)
                parts.append(rows.filter(pc.is_in(rows["id"], value_set=chosen)))
    return pa.concat_tables(parts).sort_by("id")


def places(examples: str, split: str) -> set[tuple[str, str]]:
    """Return repository and path of each file of a split that has a hole."""
    with open_parquet(split_file(examples, split)) as reader:
        rows = reader.read(columns=["repo", "path"]).to_pylist()
    return {(row["repo"], row["path"]) for row in rows}


def request_of(row: Mapping[str, Any]) -> FimRequest:
    """Return the request in a row of SCHEMA, given as a dictionary."""
    context = tuple(ContextItem(**item) for item in row["context"])
    return FimRequest(path=row["path"], prefix=row["prefix"], suffix=row["suffix"], context=context)


def write_rows(uri: str, rows: Iterable[Mapping[str, Any] | pa.Table]) -> None:
    """Write rows of SCHEMA, single or in tables, to one parquet file with small row groups."""
    with storage.open_write(uri) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        batch: list[Mapping[str, Any]] = []
        for row in rows:
            if isinstance(row, pa.Table):
                writer.write_table(row)
                continue
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


@contextmanager
def open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    """Open the parquet file at `uri` for reading. Raises InputError when it is missing or damaged."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as reader:
            yield reader
    except FileNotFoundError as error:
        raise InputError(f"{uri} is missing; run the stage that writes it first") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri} is damaged ({error}); delete its folder and run its stage again") from error
