"""The inner loops of deduplication and decontamination: words, n-grams, MinHash signatures, Jaccard similarity.

A *word* is a run of letters, digits, underscores and non-ASCII bytes, as BigCode splits code (`[^A-Za-z_0-9]`), so that
layout and punctuation make no difference. Words, and *n-grams*, which are runs of n words, are represented by 64-bit
hashes. The *shingles* of a document are its distinct 5-grams, sorted.

The functions are compiled by numba at the first call and cached on disk, or ahead of time (`infill.context.compiled`).
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infill.context.compiled import njit

Array = NDArray[Any]

# Constants of public mixers: Fibonacci hashing and MurmurHash3's finaliser.
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_MOST = np.uint32(0xFFFFFFFF)


def _word_bytes() -> Array:
    is_word = np.zeros(256, np.uint8)
    is_word[[ord(char) for char in "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"]] = 1
    is_word[128:] = 1
    return is_word


WORD_BYTES: Final = _word_bytes()
"""For each of the 256 bytes: 1 if it can be part of a word, else 0."""


@njit(cache=True)
def _mixed(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> np.uint64(33))) * _MIX
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return value ^ (value >> np.uint64(33))


@njit(cache=True)
def words(data, is_word):  # type: ignore[no-untyped-def]
    """Return the hashes of the words of `data` (bytes), and the offsets of the start and the end of each word."""
    count, before = 0, 0
    for position in range(len(data)):
        inside = is_word[data[position]]
        count += inside & (before ^ 1)
        before = inside
    hashes, bounds = np.empty(count, np.uint64), np.empty((count, 2), np.int64)
    number, position = 0, 0
    while number < count:
        while not is_word[data[position]]:
            position += 1
        bounds[number, 0] = position
        value = _PRIME
        while position < len(data) and is_word[data[position]]:
            value = (value ^ np.uint64(data[position])) * _PRIME
            value ^= value >> np.uint64(29)
            position += 1
        bounds[number, 1] = position
        hashes[number] = _mixed(value)
        number += 1
    return hashes, bounds


@njit(cache=True)
def ngrams(hashes, size):  # type: ignore[no-untyped-def]
    """Return the hash of each run of `size` words, in order; empty if there are fewer words."""
    count = max(len(hashes) - size + 1, 0)
    result = np.empty(count, np.uint64)
    power, value = np.uint64(1), np.uint64(0)
    for place in range(min(size, len(hashes))):
        value = value * _PRIME + hashes[place]
        power *= _PRIME
    for first in range(count):
        result[first] = _mixed(value)
        if first + 1 < count:
            value = value * _PRIME + hashes[first + size] - hashes[first] * power
    return result


@njit(cache=True)
def sign(shingles, factors, terms, result):  # type: ignore[no-untyped-def]
    """Write the low 16 bits of the minimum `factor * shingle + term` of each permutation into `result`."""
    count = len(factors)
    least = np.full(count, _MOST, np.uint32)
    for shingle in shingles:
        value = np.uint32(shingle >> np.uint64(32))
        for number in range(count):
            hashed = np.uint32(factors[number] * value + terms[number])
            least[number] = min(least[number], hashed)
    for number in range(count):
        result[number] = np.uint16(least[number])


@njit(cache=True)
def band_keys(signatures, rows, result):  # type: ignore[no-untyped-def]
    """Write the key of each band of `rows` permutations of each signature into `result` (bands x signatures)."""
    for document in range(len(signatures)):
        for band in range(len(result)):
            value = np.uint64(band)
            for row in range(rows):
                value = value * _PRIME + np.uint64(signatures[document, band * rows + row])
                value ^= value >> np.uint64(29)
            result[band, document] = _mixed(value)


@njit(cache=True)
def bucket_pairs(keys, order, signatures, fixed, agreeing, most):  # type: ignore[no-untyped-def]
    """Return the pairs of documents with equal keys whose signatures agree in at least `agreeing` permutations.

    `order` lists the documents sorted by key, then by number. A pair is `first << 32 | second`, with first < second.
    Pairs of two documents below `fixed` are left out. Each document of a bucket is compared with the first `most` of
    the bucket only; the second returned value is whether pairs were left out because of that.
    """
    pairs, count, truncated = np.empty(1_024, np.uint64), 0, False
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and keys[order[stop]] == keys[order[start]]:
            stop += 1
        truncated |= stop - start > most + 1
        for later in range(start + 1, stop):
            second = order[later]
            if second < fixed:
                continue
            for earlier in range(start, min(later, start + most)):
                first, equal = order[earlier], 0
                for number in range(signatures.shape[1]):
                    equal += signatures[first, number] == signatures[second, number]
                if equal < agreeing:
                    continue
                if count == len(pairs):
                    larger = np.empty(2 * count, np.uint64)
                    larger[:count] = pairs
                    pairs = larger
                pairs[count] = np.uint64(first) << np.uint64(32) | np.uint64(second)
                count += 1
        start = stop
    return pairs[:count].copy(), truncated


@njit(cache=True)
def similarities(pairs, places, offsets, shingles):  # type: ignore[no-untyped-def]
    """Return the Jaccard similarity of each pair.

    `places` maps a document's number to its index in `offsets`; its `shingles` are those from that offset to the next.
    """
    result = np.empty(len(pairs), np.float64)
    for number in range(len(pairs)):
        first = places[np.int64(pairs[number] >> np.uint64(32))]
        second = places[np.int64(pairs[number] & np.uint64(0xFFFFFFFF))]
        one, one_end = offsets[first], offsets[first + 1]
        other, other_end = offsets[second], offsets[second + 1]
        total, common = one_end - one + other_end - other, 0
        while one < one_end and other < other_end:
            left, right = shingles[one], shingles[other]
            common += left == right
            one += left <= right
            other += right <= left
        result[number] = common / (total - common)
    return result


@njit(cache=True)
def elect(pairs, similarity, excluded, fixed, threshold):  # type: ignore[no-untyped-def]
    """Return, for each document, the index of its pair with the document that is kept in its place, or -1.

    A document is a copy if its similarity to a kept document before it is at least `threshold`; the most similar one is
    kept in its place, and of equally similar ones the first. `pairs` are sorted by their second document. Documents
    below `fixed` are kept. Documents that `excluded` marks are neither kept nor copies.
    """
    copies = np.full(len(excluded), -1, np.int64)
    for number in range(len(pairs)):
        first = np.int64(pairs[number] >> np.uint64(32))
        second = np.int64(pairs[number] & np.uint64(0xFFFFFFFF))
        if second < fixed or copies[first] >= 0 or similarity[number] < threshold:
            continue
        if excluded[first] or excluded[second]:
            continue
        best = copies[second]
        if best < 0 or similarity[number] > similarity[best]:
            copies[second] = number
    return copies


@njit(cache=True)
def marked(values, bits, wanted):  # type: ignore[no-untyped-def]
    """Return the index in `wanted` (sorted) of each of `values`, or -1 if it is not wanted.

    `bits`, whose length is a power of two, has a 1 at the index that the low bits of each wanted value form.
    """
    mask = np.uint64(len(bits) - 1)
    result = np.full(len(values), -1, np.int64)
    for number in range(len(values)):
        value = values[number]
        if bits[np.int64(value & mask)]:
            place = np.searchsorted(wanted, value)
            if place < len(wanted) and wanted[place] == value:
                result[number] = place
    return result
