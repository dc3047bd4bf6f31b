"""The metadata of all documents as arrays: first the documents of earlier corpora, then the candidates.

They take about 60 bytes of memory per document, plus the names of the repositories.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infill import file_kinds, manifest, storage
from infill.artifacts.corpus import DOCUMENTS, SIGNATURES, in_order
from infill.corpus import dedup, opt_out, splits
from infill.corpus.dedup import Array, DocumentsPart
from infill.corpus.opt_out import OptOuts
from infill.errors import InputError

_COLUMNS: Final = ("repo", "path", "language", "bytes", "copy_digest")
_NO_DOCUMENT: Final = tuple(np.empty(0, kind) for kind in ("i4", "i8", "?", "i1", "i4", "S16", "?"))
_CODE: Final = pa.array(sorted(file_kinds.CODE))


class Catalogue:
    """Arrays indexed by position: documents of earlier corpora first, then candidates, both in corpus order."""

    def __init__(
        self, candidates: Sequence[str], earlier: Sequence[str] = (), opt_outs: OptOuts = opt_out.NONE
    ) -> None:
        """Read the candidates' files and the artifacts `earlier`, whose documents `opt_outs` may cover since."""
        before = [part for uri in earlier for part in earlier_parts(uri)]
        self._opt_outs = opt_outs
        self.entries: dict[int, str] = {}
        """The entry that covers a document of an earlier corpus, by position."""
        self.parts = [*before, *(DocumentsPart(uri, uri) for uri in candidates)]
        self._numbers: dict[str, int] = {}
        columns: list[tuple[Array, ...]] = []
        for number, part in enumerate(self.parts):
            columns.append(self._read(part, sum(len(each[0]) for each in columns), is_earlier=number < len(before)))
        self.sizes = [len(each[0]) for each in columns]
        """Number of documents in each part."""
        self.earlier = sum(self.sizes[: len(before)])
        """Number of documents of earlier corpora."""
        self.repo, self.bytes, self.is_code, self.split, self.depth, self.digests, self.opted_out = (
            np.concatenate(parts) for parts in zip(_NO_DOCUMENT, *columns, strict=True)
        )
        self.repositories = list(self._numbers)
        """`repo` has indices into this list, `split` indices into `splits.SPLITS` (-1: not decided yet)."""

    def __len__(self) -> int:
        return len(self.repo)

    def _read(self, part: DocumentsPart, first: int, *, is_earlier: bool) -> tuple[Array, ...]:
        table = storage.read_table(part.signatures, [*_COLUMNS, "split" if is_earlier else "opted_out"])
        repo = table["repo"].combine_chunks().dictionary_encode()
        numbers = [self._numbers.setdefault(str(name), len(self._numbers)) for name in repo.dictionary.to_pylist()]
        digests = bytes.fromhex("".join(map(str, table["copy_digest"].to_pylist())))
        split = table["split"].to_pylist() if is_earlier else []
        return (
            np.array(numbers, np.int32)[repo.indices.to_numpy()],
            table["bytes"].to_numpy(),
            pc.is_in(table["language"], value_set=_CODE).to_numpy(),
            np.array([splits.SPLITS.index(name) for name in split] or np.full(table.num_rows, -1), np.int8),
            pc.count_substring(table["path"], "/").to_numpy(),
            np.frombuffer(digests, "S32").astype("S16"),
            self._covered(table, first) if is_earlier else table["opted_out"].is_valid().to_numpy(),
        )

    def _covered(self, table: pa.Table, first: int) -> Array:
        """Return which documents of an earlier corpus the opt-outs cover, and enter their entries from `first` on."""
        covered = np.zeros(table.num_rows, bool)
        names = [name for name in map(str, table["repo"].unique().to_pylist()) if self._opt_outs.concern(name)]
        for row in np.flatnonzero(pc.is_in(table["repo"], value_set=pa.array(names, pa.string()))).tolist():
            if entry := self._opt_outs.of(*(str(table[name][row]) for name in ("repo", "path"))):
                self.entries[first + row], covered[row] = entry, True
        return covered

    def order(self) -> Array:
        """Return the positions, those of the documents most worth keeping first.

        A document of an earlier corpus comes before a new one, then one that is left out on request before its copies,
        then one in fewer folders before one in more (a vendored copy is deeper than the original), then they are in the
        order of the names of repository and file.
        """
        position = np.arange(len(self))
        return np.lexsort((position, self.depth, ~self.opted_out, position >= self.earlier))

    def names(self, wanted: Iterable[int]) -> dict[int, str]:
        """Return position -> "repository/path" for the documents at the positions `wanted`."""
        sorted_positions = np.unique(np.fromiter(wanted, np.int64))
        names: dict[int, str] = {}
        for first, part, size in self._placed():
            positions = sorted_positions[(sorted_positions >= first) & (sorted_positions < first + size)]
            if len(positions):
                rows = storage.read_table(part.signatures, ["repo", "path"]).take(positions - first)
                names |= zip(positions.tolist(), map(name, rows.to_pylist()), strict=True)
        return names

    def contents(self, wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield position and text (UTF-8) of the documents at the positions `wanted`, in order of position."""
        positions = np.unique(np.fromiter(wanted, np.int64))
        for first, part, size in self._placed():
            if not np.any((positions >= first) & (positions < first + size)):
                continue
            for table, start in dedup.row_groups(part.documents, ["content"]):
                rows = positions - first - start
                rows = rows[(rows >= 0) & (rows < table.num_rows)]
                for row, text in zip(rows.tolist(), table["content"].take(rows).to_pylist(), strict=True):
                    yield first + start + row, str(text).encode()

    def _placed(self) -> Iterator[tuple[int, DocumentsPart, int]]:
        first = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            yield first, part, size
            first += size


def name(row: dict[str, Any]) -> str:
    """Return the document's name, "repository/path"."""
    return f"{row['repo']}/{row['path']}"


def earlier_parts(uri: str) -> list[DocumentsPart]:
    """Return the files of an earlier corpus. Raises InputError if it is not a corpus, or has no signatures."""
    artifact = manifest.load(uri)
    signatures = [file for file in artifact.files if file.startswith(f"{SIGNATURES}/")]
    if not signatures:
        raise InputError(
            f"corpus.earlier: {uri} is not a corpus with signatures; build it again with this version, or leave it out"
        )
    names = in_order(file.partition("/")[2] for file in signatures)
    folders = [storage.join(artifact.uri, folder) for folder in (DOCUMENTS, SIGNATURES)]
    return [DocumentsPart(*(storage.join(folder, file) for folder in folders)) for file in names]
