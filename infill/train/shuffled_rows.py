"""Rows of a parquet file in a shuffled order, read one row group at a time."""

import functools
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infill.artifacts.examples import open_parquet
from infill.train.data import order

WINDOW: Final = 4_096
"""Number of rows in memory at once, within which rows are shuffled."""


class Rows:
    """The rows of the parquet file `uri` by number; two windows of them are kept in memory.

    Raises InputError when the file is missing or damaged.
    """

    def __init__(self, uri: str, window: int = WINDOW) -> None:
        self.uri = uri
        sizes = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        self.groups: list[list[int]] = [[]]
        """Row groups of each window."""
        self.starts = [0]
        """The first row of each window, and the end of the last one."""
        held = 0
        for group, size in enumerate(sizes):
            if held + size > window and held:
                self.groups.append([])
                self.starts.append(self.starts[-1] + held)
                held = 0
            self.groups[-1].append(group)
            held += size
        self.starts.append(self.starts[-1] + held)
        self.window = functools.lru_cache(maxsize=2)(self._read)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        row: dict[str, Any] = self.window(number).slice(index - self.starts[number], 1).to_pylist()[0]
        return row

    def order(self, *key: object) -> NDArray[np.int64]:
        """Return a permutation of the rows that depends only on `key`: of windows, and of the rows in each."""
        windows = [
            self.starts[window] + np.array(order(self.starts[window + 1] - self.starts[window], *key, window), np.int64)
            for window in order(len(self.groups), *key)
        ]
        return np.concatenate(windows)

    @functools.cached_property
    def _metadata(self) -> pq.FileMetaData:
        with open_parquet(self.uri) as file:
            return file.metadata

    def _read(self, window: int) -> pa.Table:
        with open_parquet(self.uri) as file:
            return file.read_row_groups(self.groups[window], use_threads=False)
