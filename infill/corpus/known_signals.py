"""Find the stored signals of an earlier corpus that a shard of a new one may need.

Both corpora have their files in the order of repository and path, so a shard's files can only be in the few parts of
the earlier corpus that cover the same range of names, whatever was added or removed before them. The ranges are in the
footers of the earlier tables; no row is read.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from infill import storage
from infill.artifacts import corpus as artifact
from infill.corpus import signals
from infill.errors import InputError

Name = tuple[str, str]
"""A repository and a path in it."""
_LAST_PATH: Final = "\U0010ffff"
_TABLES: Final = (artifact.DOCUMENTS, artifact.REMOVED)


class NameRange(NamedTuple):
    """The range of names of a part of a corpus."""

    first: Name
    last: Name


class KnownSignals:
    """The signals of a finished corpus, by range of names; of no corpus where `folder` is empty."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        numbered = list(_spans(folder)) if folder else []
        self._numbers = [number for number, _ in numbered]
        self._first = [span.first for _, span in numbered]
        self._last = [span.last for _, span in numbered]

    def parts(self, first: Name, last: Name) -> tuple[str, ...]:
        """Return the files with the signals of all names from `first` to `last`."""
        start, end = bisect_left(self._last, first), bisect_right(self._first, last)
        return tuple(signals.part(self.folder, number) for number in self._numbers[start:end])


NOTHING: Final = KnownSignals("")


def _spans(folder: str) -> Iterator[tuple[int, NameRange]]:
    """Yield number and range of each part, in order; a part that cannot be read costs a measurement, nothing else."""
    for number in range(len(artifact.documents(folder))):
        try:
            bounds = [_bounds(artifact.part(folder, table, number)) for table in _TABLES]
        except (InputError, pa.ArrowException):
            continue
        if present := [each for each in bounds if each is not None]:
            yield number, NameRange(min(each.first for each in present), max(each.last for each in present))


def _bounds(uri: str) -> NameRange | None:
    """Return the range of a table by the statistics of its columns; None for a table without repositories.

    Where it has several repositories, the last one is taken as a whole. Files of no repository come last and have no
    signals, so they are left out.
    """
    with storage.open_read(uri) as file:
        metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    repositories = [_statistics(group, "repo") for group in groups]
    names = [name for pair in repositories for name in pair if name]
    if not names:
        return None
    first, last = min(names), max(names)
    if first != last or "" in {name for pair in repositories for name in pair}:
        return NameRange((first, ""), (last, _LAST_PATH))
    paths = [path for group in groups for path in _statistics(group, "path")]
    return NameRange((first, min(paths)), (last, max(paths)))


def _statistics(group: "pq.RowGroupMetaData", name: str) -> Sequence[str]:
    """Return the least and the greatest value of a column in a row group; nothing for an empty one."""
    columns = (group.column(number) for number in range(group.num_columns))
    statistics = next(column.statistics for column in columns if column.path_in_schema == name)
    return [str(statistics.min), str(statistics.max)] if statistics is not None and statistics.has_min_max else []
