"""Find the holes whose answer a training corpus has.

A corpus has an answer if one of its documents has 12 consecutive words of the middle or, if the middle has fewer, the
middle with the words around it, 12 together. Words are those of `infill.corpus.shingles`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from infill import manifest
from infill.artifacts import corpus as corpora
from infill.artifacts.examples import open_parquet
from infill.corpus import shingles
from infill.corpus.benchmarks import NGRAM_WORDS, Benchmarks
from infill.errors import InputError

_AROUND_CHARS: Final = 1_000
"""Text before and after a middle in which its neighbouring words are looked for."""


def runs(prefix: str, middle: str, suffix: str) -> set[int]:
    """Return the hashes of the runs of words by which an answer is recognised; empty in a text of fewer words."""
    before, inside = (text.encode(errors="replace") for text in (prefix[-_AROUND_CHARS:], middle))
    data = before + inside + suffix[:_AROUND_CHARS].encode(errors="replace")
    hashes, bounds = shingles.words(np.frombuffer(data, np.uint8), shingles.WORD_BYTES)
    touching = np.flatnonzero((bounds[:, 1] > len(before)) & (bounds[:, 0] < len(before) + len(inside)))
    if not len(touching) or len(hashes) < NGRAM_WORDS:
        return set()
    first, last = int(touching[0]), int(touching[-1]) + 1
    if missing := max(0, NGRAM_WORDS - (last - first)):
        first = min(max(0, first - (missing + 1) // 2), len(hashes) - NGRAM_WORDS)
        last = first + NGRAM_WORDS
    return {int(value) for value in shingles.ngrams(hashes[first:last], NGRAM_WORDS)}


def known_to(corpora_uris: Sequence[str], wanted: Mapping[str, set[int]]) -> set[str]:
    """Return the names in `wanted` (name -> runs of its answer) whose answer a document of the corpora has.

    Raises InputError if one of the addresses is not a finished corpus.
    """
    owners: dict[int, list[str]] = defaultdict(list)
    for name, values in wanted.items():
        for value in values:
            owners[value].append(name)
    ordered = np.array(sorted(owners), np.uint64)
    table = Benchmarks(ngrams=ordered, owners=np.zeros(len(ordered), np.int64), tasks=[""])
    names = set[str]()
    for uri in corpora_uris if owners else ():
        for content in _contents(uri):
            for place in table.overlap(content):
                names.update(owners[int(ordered[place])])
    return names


def _contents(uri: str) -> Iterator[bytes]:
    corpus = manifest.load(uri)
    if corpus.stage != "corpus":
        raise InputError(f"{uri} holds the result of the stage {corpus.stage}; name a finished corpus")
    for file in corpora.documents(corpus.uri):
        with open_parquet(file) as reader:
            for group in range(reader.num_row_groups):
                for content in reader.read_row_group(group, columns=["content"])["content"]:
                    yield content.as_py().encode(errors="replace")
