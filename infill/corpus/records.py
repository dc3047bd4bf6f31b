"""The tables of a finished corpus, read without the texts; those of older versions lack some columns."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from infill import manifest, storage
from infill.artifacts import corpus as artifact
from infill.errors import InputError
from infill.manifest import Manifest

NEAREST: Final = 3
"""Names that an error suggests."""
_VERSION: Final = re.compile(r"([-_~@]|==)v?\d[\w.+]*$")


def load(uri: str) -> Manifest:
    """Return the manifest of the corpus at `uri`. Raises InputError when another artifact is there, or none."""
    corpus = manifest.load(uri)
    if corpus.stage != "corpus":
        raise InputError(f"{uri} is not a corpus but the result of {corpus.stage}; name a corpus")
    return corpus


def tables(corpus: Manifest, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of each file in a folder of `corpus`; a column that this version does not have is null.

    Raises InputError for a file that is missing or damaged.
    """
    for name in artifact.in_order(file for file in corpus.files if file.startswith(f"{folder}/")):
        uri = storage.join(corpus.uri, name)
        try:
            with storage.open_read(uri) as file:
                parquet = pq.ParquetFile(file)
                present = [column for column in columns if column in parquet.schema_arrow.names]
                table = parquet.read(columns=present)
        except pa.ArrowException as error:
            raise InputError(f"{uri} is damaged ({error}); build the corpus again") from error
        for place, column in enumerate(columns):
            if column not in present:
                table = table.add_column(place, column, pa.nulls(table.num_rows, pa.string()))
        yield table


def rows(corpus: Manifest, folder: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a folder of `corpus`, as `tables` does."""
    for table in tables(corpus, folder, columns):
        for batch in table.to_batches(max_chunksize=10_000):
            yield from batch.to_pylist()


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean A or B?" with the names most like `name`; empty where none is like it."""
    short = _short(name)
    distinct = sorted(set(known))
    same_end = [each for each in distinct if _short(each) == short]
    lower = {each.lower(): each for each in distinct}
    alike = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, NEAREST, 0.6)]
    ends = {_short(each): each for each in distinct}
    like_end = [ends[each] for each in difflib.get_close_matches(short, ends, NEAREST, 0.7)]
    chosen = list(dict.fromkeys([*same_end[:NEAREST], *alike, *like_end]))[:NEAREST]
    return f"; did you mean {' or '.join(chosen)}?" if chosen else ""


def _short(name: str) -> str:
    """Return the last part of a name in lower case, without a version."""
    return _VERSION.sub("", name.rpartition("/")[2].lower())
