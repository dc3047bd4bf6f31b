"""Find documents that are copies of others: exact copies by a digest, near copies by MinHash, LSH and exact similarity.

A document's *signature* has, for each of 255 permutations, the minimum hash of its shingles (`infill.corpus.shingles`).
Two documents are candidates if all five values of one of 51 bands agree, which is true of 99.5 % of the pairs with
similarity 0.63 and of nearly all pairs above. If the signatures of a pair agree well enough, the exact Jaccard
similarity of its shingles is computed, so no decision depends on an estimate. BigCode also uses 5-grams, 256
permutations and a threshold of 0.7, but decides by the estimate; OpenCoder and datatrove use 5-grams.

Of similar documents, the first in the order of `Catalogue.order` is kept. A document is removed only if it is similar
to a *kept* one, never along a chain: if a is similar to b, and b to c, but c is not similar to a, then c is kept too.
So the result depends on this order alone, not on the number of workers or the order of comparisons.
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
from infill.artifacts.corpus_tables import SIGNATURE_VALUES
from infill.corpus import shingles

Array = NDArray[Any]

SHINGLE_WORDS: Final = 5
"""As in BigCode, OpenCoder and datatrove. A document of fewer words has no shingles, so only exact copies are found."""
PERMUTATIONS: Final = SIGNATURE_VALUES
ROWS: Final = 5
BANDS: Final = PERMUTATIONS // ROWS
"""BigCode: 256 permutations. A pair of similarity s is compared with probability 1 - (1 - s**ROWS)**BANDS."""
DEVIATIONS: Final = 3.5
"""A pair is compared exactly if its estimate is at most this many standard deviations below the threshold."""
COMPARED: Final = 64
"""Number of documents of a bucket with which the others are compared; the kept ones are then compared again."""
_BREAK: Final = re.compile(r"\r\n?")


def _permutations() -> tuple[Array, Array]:
    """Return odd factors, and terms, of the permutations `factor * hash + term` of the 32-bit numbers."""
    generator = np.random.Generator(np.random.PCG64(20_241_126))
    factors, terms = generator.integers(0, 2**32, (2, PERMUTATIONS), np.uint32)
    return factors | np.uint32(1), terms


_FACTORS, _TERMS = _permutations()


def same_text(text: str) -> str:
    """Return `text` without differences that editors and Git introduce.

    These are the kind of line end, blanks at the end of lines and of the file, and a byte order mark.
    """
    text = text.lstrip("\ufeff")
    if "\r" in text:
        text = _BREAK.sub("\n", text)
    return "\n".join(line.rstrip(" \t\v\f") for line in text.split("\n")).rstrip("\n")


def digest(text: str) -> str:
    """Return the digest that exact copies have in common: the SHA-256 of `same_text`."""
    return hashlib.sha256(same_text(text).encode()).hexdigest()


def shingle_set(content: bytes) -> Array:
    """Return the sorted hashes of the distinct shingles of a text in UTF-8."""
    hashes, _ = shingles.words(np.frombuffer(content, np.uint8), shingles.WORD_BYTES)
    return _distinct(shingles.ngrams(hashes, SHINGLE_WORDS))


def _distinct(values: Array) -> Array:
    """Return the distinct values in order, and sort `values` in place; np.unique takes seven times as long."""
    values.sort()
    is_first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=is_first[1:])
    return values[is_first]


class Signature(NamedTuple):
    values: bytes | None
    """In the format of `corpus_tables.SIGNATURE`; None for a document without shingles."""
    shingles: int
    """Number of distinct shingles."""


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
    """Return the Jaccard similarity of two texts' shingles; 0 if neither has any."""
    one, other = shingle_set(first), shingle_set(second)
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(len(one) + len(other) - common, 1)


def exact_copies(digests: Array, order: Array) -> Array:
    """Return, for each document, the position of the document that is kept in its place; -1 if it is not a copy.

    Of documents with equal `digests`, the first in `order` (positions) is kept. Copies are found across repositories,
    so a text of a test repository is never in a training repository too.
    """
    _, first, group = np.unique(digests[order], return_index=True, return_inverse=True)
    kept = np.full(len(digests), -1, np.int64)
    kept[order] = order[first[group]]
    return np.where(kept == np.arange(len(kept)), -1, kept)


# Near copies


class DocumentsPart(NamedTuple):
    """URIs of two Parquet files with the same documents in their rows; they may be the same file."""

    documents: str
    """The file with the column `content`."""
    signatures: str
    """The file with the columns `signature` and `shingles`."""


@dataclass(frozen=True, kw_only=True)
class Near:
    """The documents that are removed as near copies. A position is an index into the documents of all parts."""

    kept: Array
    """By position: that of the document that is kept in place of a near copy; -1 for other documents."""
    similarity: Array
    """By position: similarity of a near copy and the document kept in its place; 0 for other documents."""
    close: Array
    """Rows of two positions: the pairs of kept documents whose similarity reaches the lower threshold."""
    close_similarity: Array
    """Similarity of each pair in `close`."""


@dataclass(frozen=True, kw_only=True)
class Similar:
    """The pairs of similar documents. A document's number is its rank among the documents with shingles, best first."""

    positions: Array
    """Position of each document, by number."""
    pairs: Array
    """Numbers of each pair as `first << 32 | second`, first < second, sorted by the second."""
    similarity: Array
    """Similarity of each pair."""
    fixed: int
    """Documents with a lower number than this are always kept."""
    threshold: float
    """Minimum similarity of a near copy and the document kept in its place."""

    def near(self, excluded: Array) -> Near:
        """Return which documents are near copies, ignoring those that `excluded` (by position) marks."""
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


def similar(
    parts: Sequence[DocumentsPart], order: Array, *, count: int, fixed: int, threshold: float, lower: float
) -> Similar:
    """Return the pairs of documents whose similarity is at least `lower`.

    `order` has positions, that of the document most worth keeping first; `count` is the number of documents in `parts`.
    Pairs among the first `fixed` of `order`, which are always kept, are left out. A near copy has at least the
    similarity `threshold` to the document kept in its place.

    Memory grows by about 60 bytes per document in `order` and 24 bytes per pair. Signatures, band keys and the shingles
    of compared documents are in memory-mapped temporary files: 918 bytes per document and 8 bytes per shingle.
    """
    with tempfile.TemporaryDirectory(prefix="infill-dedup-") as folder:
        index = _Index(parts, order, count, Path(folder))
        fixed = int(np.count_nonzero(index.ranks < fixed))
        pairs, similarity = _compare(index, fixed, threshold, lower)
        return Similar(positions=index.order, pairs=pairs, similarity=similarity, fixed=fixed, threshold=threshold)


def _compare(index: "_Index", fixed: int, threshold: float, lower: float) -> tuple[Array, Array]:
    """Return the pairs with at least the similarity `lower`, sorted by second document, and their similarities.

    Buckets that are too large for comparing all pairs are searched again, with only the documents that would be kept.
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
    """Return the number of permutations that must agree for a pair to be compared exactly."""
    deviation = (lower * (1 - lower) / PERMUTATIONS) ** 0.5
    return max(int(PERMUTATIONS * (lower - DEVIATIONS * deviation)), 1)


def _first(pairs: Array) -> Array:
    return (pairs >> np.uint64(32)).astype(np.int64)


def _second(pairs: Array) -> Array:
    return (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


class _Index:
    """The signatures of the documents, by number: the rank in `order` among the documents that have a signature."""

    def __init__(self, parts: Sequence[DocumentsPart], order: Array, count: int, folder: Path) -> None:
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
        """Return the candidate pairs among the documents `among` (sorted), and whether some pairs were not examined.

        A candidate pair has a band in common, and at least `agreeing` equal values in its signatures.
        """
        pairs, any_truncated = np.empty(0, np.uint64), False
        for band in range(BANDS):
            keys = np.array(self._keys[band])
            order = among[np.argsort(keys[among], kind="stable")]
            of_band, truncated = shingles.bucket_pairs(keys, order, self._signatures, fixed, agreeing, COMPARED)
            pairs, any_truncated = _distinct(np.concatenate([pairs, of_band])), any_truncated or truncated
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
        """Yield number and text (UTF-8) of each document that `wanted` (by number) marks."""
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
    """Return an array in a new memory-mapped file; an empty array in memory, since an empty file cannot be mapped."""
    return np.memmap(file, dtype, "w+", shape=shape).view(np.ndarray) if all(shape) else np.empty(shape, dtype)


def _rows(uri: str) -> int:
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def _column(uri: str, name: str) -> Array:
    return storage.read_table(uri, [name])[name].to_numpy().astype(np.int64)


def row_groups(uri: str, columns: Sequence[str]) -> Iterator[tuple[pa.Table, int]]:
    """Yield the row groups of a Parquet file, each with the number of its first row."""
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as source:
        parquet, first = pq.ParquetFile(source), 0
        for number in range(parquet.num_row_groups):
            group = parquet.read_row_group(number, columns=list(columns))
            yield group, first
            first += group.num_rows
