"""Which documents are copies of others: exact ones by a digest, near ones by MinHash, LSH and their Jaccard similarity.

A document's *signature* holds, for each of 255 permutations, the least hash of its shingles (`infill.corpus.shingles`).
Two documents are compared when all five values of one of 51 bands agree: that happens to 99.5 % of the pairs of
similarity 0.63, and to nearly all above. Signatures that agree about as far as the threshold asks are then compared by
their shingles, exactly, so that no estimate decides. BigCode takes 5-grams, 256 permutations and 0.7 as well, and keeps
its first guess; OpenCoder and datatrove take 5-grams.

Of similar documents the one is kept that comes first in the order of `Catalogue.order`. A document is removed only for
a *kept* one that is similar to itself, never along a chain: where a resembles b, b resembles c, and c does not resemble
a, then c is kept too. So the order decides, not the number of workers nor what was compared first.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infill import storage
from infill.corpus import shingles

Array = NDArray[Any]

SHINGLE_WORDS: Final = 5
"""BigCode, OpenCoder and datatrove: 5-grams. A shorter document has no shingles and only exact copies."""
BANDS: Final = 51
ROWS: Final = 5
PERMUTATIONS: Final = BANDS * ROWS
"""BigCode: 256. A pair of similarity s is compared with probability 1 - (1 - s**ROWS)**BANDS."""
SIGNATURE: Final = pa.binary(2 * PERMUTATIONS)
"""Sixteen bits of each permutation's least hash."""
DEVIATIONS: Final = 3.5
"""A pair is compared exactly when its signatures agree as far as the threshold less this many standard deviations."""
COMPARED: Final = 64
"""Documents of a bucket that the others are compared with; what is left out is looked at again among those kept."""
_BREAK: Final = re.compile(r"\r\n?")


def _permutations() -> tuple[Array, Array]:
    """Odd factors and terms of the permutations `factor * hash + term` of the 32-bit numbers."""
    generator = np.random.Generator(np.random.PCG64(20_241_126))
    factors, terms = generator.integers(0, 2**32, (2, PERMUTATIONS), np.uint32)
    return factors | np.uint32(1), terms


_FACTORS, _TERMS = _permutations()


def same_text(text: str) -> str:
    """Return `text` without what an editor or git changes unasked: the form of line ends, blanks before them and at the
    end of the file, byte order marks."""
    text = text.lstrip("\ufeff")
    if "\r" in text:
        text = _BREAK.sub("\n", text)
    return "\n".join(line.rstrip(" \t\v\f") for line in text.split("\n")).rstrip("\n")


def digest(text: str) -> str:
    """Return the digest by which exact copies are found: SHA-256 of `same_text`."""
    return hashlib.sha256(same_text(text).encode()).hexdigest()


def shingle_set(content: bytes) -> Array:
    """Return the hashes of a text's distinct shingles, sorted."""
    hashes, _ = shingles.words(np.frombuffer(content, np.uint8), shingles.WORD_BYTES)
    every: Array = shingles.ngrams(hashes, SHINGLE_WORDS)
    every.sort()  # np.unique takes seven times as long
    is_first = np.ones(len(every), bool)
    np.not_equal(every[1:], every[:-1], out=is_first[1:])
    return every[is_first]


class Signature(NamedTuple):
    values: bytes | None
    """As SIGNATURE; None for a document without shingles."""
    shingles: int
    """Distinct ones."""


UNSIGNED: Final = Signature(None, 0)


def sign(content: bytes) -> Signature:
    """Return the MinHash signature of a text in UTF-8."""
    distinct = shingle_set(content)
    if not len(distinct):
        return UNSIGNED
    values = np.empty(PERMUTATIONS, np.uint16)
    shingles.sign(distinct, _FACTORS, _TERMS, values)
    return Signature(values.tobytes(), len(distinct))


def jaccard(first: bytes, second: bytes) -> float:
    """Return the Jaccard similarity of two texts' shingles; 0 where neither has any."""
    one, other = shingle_set(first), shingle_set(second)
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(len(one) + len(other) - common, 1)


def exact_copies(digests: Array, order: Array) -> Array:
    """Return the position of the document that is kept in place of each copy, and -1 for the others.

    Of equal `digests` the one is kept that comes first in `order`, a list of positions. It looks across repositories,
    so a text of a test repository never also stands in a training repository.
    """
    _, first, group = np.unique(digests[order], return_index=True, return_inverse=True)
    kept = np.full(len(digests), -1, np.int64)
    kept[order] = order[first[group]]
    return np.where(kept == np.arange(len(kept)), -1, kept)


# Near copies


class Part(NamedTuple):
    """Documents on disk: two parquet files with the same rows, which may be the same file."""

    documents: str
    """Has `content`."""
    signatures: str
    """Has `signature` and `shingles`."""


@dataclass(frozen=True, kw_only=True)
class Near:
    """Which documents are removed as near copies. Positions count the documents of all parts."""

    kept: Array
    """Position of the document that is kept in a near copy's place; -1 for the others."""
    similarity: Array
    """Of a near copy and the kept one; 0 for the others."""
    close: Array
    """Pairs of kept documents that are at least as similar as the lower threshold: rows of two positions."""
    close_similarity: Array


@dataclass(frozen=True, kw_only=True)
class Similar:
    """The pairs of similar documents. A document's number is its place among those that have shingles, best first."""

    positions: Array
    """By number."""
    pairs: Array
    """`first << 32 | second`, by the second; the first is the one worth more."""
    similarity: Array
    """Of each pair."""
    fixed: int
    """Documents with a lower number are kept in any case."""
    threshold: float

    def near(self, excluded: Array) -> Near:
        """Choose what is kept and what is a copy, without the documents marked in `excluded` (by position)."""
        out = excluded[self.positions]
        copies = shingles.elect(self.pairs, self.similarity, out, self.fixed, self.threshold)
        first, second = self.positions[_first(self.pairs)], self.positions[_second(self.pairs)]
        kept, similarity = np.full(len(excluded), -1, np.int64), np.zeros(len(excluded), np.float32)
        removed = np.flatnonzero(copies >= 0)
        kept[self.positions[removed]] = first[copies[removed]]
        similarity[self.positions[removed]] = self.similarity[copies[removed]]
        gone = excluded | (kept >= 0)
        close = ~gone[first] & ~gone[second]
        return Near(
            kept=kept,
            similarity=similarity,
            close=np.stack([first[close], second[close]], axis=1),
            close_similarity=self.similarity[close],
        )


def similar(parts: Sequence[Part], order: Array, *, count: int, fixed: int, threshold: float, lower: float) -> Similar:
    """Find the pairs of documents that are at least `lower` similar.

    `order` holds positions, the document most worth keeping first; `count` is the number of documents in `parts`. Pairs
    among the first `fixed` of `order`, which are kept in any case, are left out. A copy is at least `threshold` similar
    to the kept one.

    Memory grows by some 60 bytes a document in `order` and 24 a pair. Signatures, band keys and the shingles of
    documents that are compared lie in temporary files that are mapped: 918 bytes a document, and 8 a shingle.
    """
    with tempfile.TemporaryDirectory(prefix="infill-dedup-") as folder:
        index = _Index(parts, order, count, Path(folder))
        fixed = int(np.count_nonzero(index.ranks < fixed))
        pairs, similarity = _compare(index, fixed, threshold, lower)
        return Similar(positions=index.order, pairs=pairs, similarity=similarity, fixed=fixed, threshold=threshold)


def _compare(index: "_Index", fixed: int, threshold: float, lower: float) -> tuple[Array, Array]:
    """Return the pairs that are at least `lower` similar, by their second document, and their similarities.

    Buckets that are too full for all their pairs are looked at again among the documents that would be kept.
    """
    none = np.zeros(len(index.order), bool)
    known, pairs, similarity = np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.float64)
    among = np.arange(len(index.order))
    while True:
        candidates, truncated = index.pairs(among, fixed, _agreeing(lower))
        fresh = np.setdiff1d(candidates, known, assume_unique=True)
        known = np.union1d(known, fresh)
        measured = index.similarities(fresh)
        pairs = np.append(pairs, fresh[measured >= lower])
        similarity = np.append(similarity, measured[measured >= lower])
        by_second = np.lexsort((_first(pairs), _second(pairs)))
        pairs, similarity = pairs[by_second], similarity[by_second]
        if not truncated or not len(fresh):
            return pairs, similarity
        among = np.flatnonzero(shingles.elect(pairs, similarity, none, fixed, threshold) < 0)


def _agreeing(lower: float) -> int:
    """Return how many permutations must agree before a pair is compared exactly."""
    deviation = (lower * (1 - lower) / PERMUTATIONS) ** 0.5
    return max(int(PERMUTATIONS * (lower - DEVIATIONS * deviation)), 1)


def _first(pairs: Array) -> Array:
    return (pairs >> np.uint64(32)).astype(np.int64)


def _second(pairs: Array) -> Array:
    return (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


class _Index:
    """The signatures of the documents, by number: their place among those of `order` that have one."""

    def __init__(self, parts: Sequence[Part], order: Array, count: int, folder: Path) -> None:
        self._parts = parts
        self._folder = folder
        self._first = np.cumsum([0, *(_rows(part.signatures) for part in parts)])
        sizes = np.concatenate([np.zeros(0, np.int64), *(_column(part.signatures, "shingles") for part in parts)])
        self.ranks = np.flatnonzero(sizes[order] > 0)
        self.order = order[self.ranks]
        self._sizes = sizes[self.order]
        self._number = np.full(count, -1, np.int64)
        self._number[self.order] = np.arange(len(self.order))
        self._signatures = _mapped(folder / "signatures", np.uint16, (len(self.order), PERMUTATIONS))
        self._keys = _mapped(folder / "keys", np.uint64, (BANDS, len(self.order)))
        self._load()

    def _load(self) -> None:
        for part, first in zip(self._parts, self._first[:-1], strict=True):
            for table, start in row_groups(part.signatures, ["signature"]):
                numbers = self._number[first + start : first + start + table.num_rows]
                present = np.flatnonzero(numbers >= 0)
                column = table["signature"].take(present).to_pylist()
                values = np.frombuffer(b"".join(value or b"" for value in column), np.uint16).reshape(-1, PERMUTATIONS)
                keys = np.empty((BANDS, len(values)), np.uint64)
                shingles.band_keys(values, ROWS, keys)
                self._signatures[numbers[present]] = values
                self._keys[:, numbers[present]] = keys

    def pairs(self, among: Array, fixed: int, agreeing: int) -> tuple[Array, bool]:
        """Return the pairs of documents in `among` that share a band and agree enough, and whether some were left out.

        `among` is sorted.
        """
        pairs, any_truncated = np.empty(0, np.uint64), False
        for band in range(BANDS):
            keys = np.array(self._keys[band])
            order = among[np.argsort(keys[among], kind="stable")]
            found, truncated = shingles.bucket_pairs(keys, order, self._signatures, fixed, agreeing, COMPARED)
            pairs, any_truncated = np.union1d(pairs, found), any_truncated or truncated
        return pairs, any_truncated

    def similarities(self, pairs: Array) -> Array:
        """Return the exact Jaccard similarity of each pair."""
        compared = np.zeros(len(self.order), bool)
        compared[_first(pairs)] = True
        compared[_second(pairs)] = True
        places = np.cumsum(compared) - 1
        offsets = np.cumsum(np.append(0, self._sizes[compared]))
        values = _mapped(self._folder / "shingles", np.uint64, (int(offsets[-1]),))
        for number, content in self._texts(compared):
            place = places[number]
            values[offsets[place] : offsets[place + 1]] = shingle_set(content)
        measured: Array = shingles.similarities(pairs, places, offsets, values)
        return measured

    def _texts(self, wanted: Array) -> Iterator[tuple[int, bytes]]:
        """Yield number and text of each wanted document."""
        for part, first in zip(self._parts, self._first[:-1], strict=True):
            numbers = self._number[first : first + _rows(part.signatures)]
            if not wanted[numbers[numbers >= 0]].any():
                continue
            for table, start in row_groups(part.documents, ["content"]):
                group = numbers[start : start + table.num_rows]
                rows = np.flatnonzero((group >= 0) & wanted[group])
                contents = table["content"].cast(pa.binary()).take(rows).to_pylist()
                yield from zip(group[rows].tolist(), contents, strict=True)


def _mapped(file: Path, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Return an array in a new file; one of no size in memory, since no file of size 0 can be mapped."""
    return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray) if all(shape) else np.empty(shape, dtype)


def _rows(uri: str) -> int:
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _column(uri: str, name: str) -> Array:
    return storage.read_table(uri, [name])[name].to_numpy().astype(np.int64)


def row_groups(uri: str, columns: Sequence[str]) -> Iterator[tuple[pa.Table, int]]:
    """Yield the row groups of a parquet file, each with the row at which it starts."""
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as source:
        parquet, first = pq.ParquetFile(source), 0
        for number in range(parquet.num_row_groups):
            group = parquet.read_row_group(number, columns=list(columns))
            yield group, first
            first += group.num_rows
