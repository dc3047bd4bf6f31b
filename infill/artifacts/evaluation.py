"""The evaluation as an artifact: its record, and a row per hole."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from infill import storage

if TYPE_CHECKING:
    import pyarrow as pa

RECORD_FILE: Final = "record.json"
"""Metrics with intervals, and the digests of model and benchmark."""
_RESULTS_FILE: Final = "results.parquet"
_HELD_BACK_FILE: Final = "held_back_results.parquet"


def write(folder: str, record: Mapping[str, Any], results: "pa.Table") -> None:
    """Write the record and the rows of an evaluation into the artifact at `folder`."""
    storage.write_table(results_file(folder), results)
    storage.write_json(storage.join(folder, RECORD_FILE), record)


def read_record(folder: str) -> dict[str, Any]:
    """Return the record in the evaluation at `folder`."""
    value: dict[str, Any] = storage.read_json(storage.join(folder, RECORD_FILE))
    return value


def results_file(folder: str) -> str:
    """Return the URI of the table of results in the evaluation at `folder`."""
    return storage.join(folder, _RESULTS_FILE)


def read_results(folder: str, columns: Sequence[str]) -> "pa.Table":
    """Return columns of the rows in the evaluation at `folder`. Raises ValueError when one is missing."""
    return storage.read_table(results_file(folder), list(columns))


def write_held_back(folder: str, results: "pa.Table") -> None:
    """Write the rows of the held-back holes into the evaluation at `folder`."""
    storage.write_table(held_back_file(folder), results)


def held_back_file(folder: str) -> str:
    """Return the URI of the table of held-back holes in the evaluation at `folder`, which it may lack."""
    return storage.join(folder, _HELD_BACK_FILE)
