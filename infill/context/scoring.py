"""The inner loops of a query: add up what the windows share with it, pick the best, choose what adds something new.

Compiled by numba like `kernels`, whose terms and arrays these functions read. Sums are integers, so that their order,
which depends on the history of the index, cannot change a score.
"""

import math

import numpy as np

from infill.context.compiled import njit
from infill.context.kernels import DEFINED, ONCE, TIMES

WEIGHT_UNIT = 1 << 9
RELEVANCE_UNIT = 1 << 20
"""Weights and relevances are integer multiples of 1 / unit."""
STRETCH = 64
"""Windows whose highest score is known, so that they can be passed over together."""


@njit(cache=True)
def ask(terms, away, scale, after, decay, power, most, blocks, lengths, weight):  # type: ignore[no-untyped-def]
    """Distinct terms, and idf**power of each times the highest weight of its occurrences, in WEIGHT_UNIT.

    An occurrence so many lines `away` from the caret (negative: behind it, where all weigh `after` as much) weighs
    scale * e**(-|lines| / decay). Terms of more than `most` of the `blocks` are passed over, and negative ones.
    `weight` is scratch.
    """
    distinct, count = np.empty(len(terms), np.int64), 0
    for term in terms:
        if term >= 0 and lengths[term] <= most:
            weight[term] = -1.0
    for number in range(len(terms)):
        term = terms[number]
        if term < 0 or lengths[term] > most:
            continue
        if weight[term] < 0:
            distinct[count] = term
            count += 1
        value = scale[number] * math.exp(-max(away[number], -1 - away[number]) / decay)
        weight[term] = max(weight[term], value if away[number] >= 0 else value * after)
    asked = np.empty(count, np.int32)
    for number in range(count):
        term = distinct[number]
        idf = math.log1p((blocks - lengths[term] + 0.5) / (lengths[term] + 0.5))
        asked[number] = int(weight[term] * idf**power * WEIGHT_UNIT)
    return distinct[:count], asked


@njit(cache=True)
def add_up(terms, weights, starts, lengths, pool, sums):  # type: ignore[no-untyped-def]
    """Add the weight of each of the distinct `terms` to the windows that hold it: window w is sums[w + 1]."""
    for number in range(len(terms)):
        term, weight = terms[number], weights[number]
        for place in range(starts[term], starts[term] + lengths[term]):
            posting = pool[place]
            block = posting >> 1
            sums[block + 1] += weight
            sums[block] += weight * (posting & 1)


@njit(cache=True)
def ious(sums, sizes, asked, scores, tops):  # type: ignore[no-untyped-def]
    """Intersection over union, from the number of terms that each window shares with the `asked` ones.

    `sums` is zero afterwards. The highest score of each stretch goes to `tops`.
    """
    sums[0] = 0
    for stretch in range(len(tops)):
        top = 0.0
        for window in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(scores))):
            shared = sums[window + 1]
            sums[window + 1] = 0
            score = shared / (asked + sizes[window] - shared) if shared and sizes[window] else 0.0
            scores[window] = score
            top = max(top, score)
        tops[stretch] = top


@njit(cache=True)
def weighted(sums, sizes, by_size, file, prior, scores, tops):  # type: ignore[no-untyped-def]
    """Sum of weights x a factor by the window's size x the prior of its file.

    `sums` is zero afterwards. The highest score of each stretch goes to `tops`.
    """
    sums[0] = 0
    for stretch in range(len(tops)):
        top = 0.0
        for window in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(scores))):
            total = sums[window + 1]
            sums[window + 1] = 0
            score = 0.0
            if total:
                score = total * by_size[min(sizes[window], len(by_size) - 1)] * prior[file[window]]
            scores[window] = score
            top = max(top, score)
        tops[stretch] = top


@njit(cache=True)
def _sift(heap, score):  # type: ignore[no-untyped-def]
    """Replace the least of a heap by a higher score."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= len(heap):
            break
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = score


@njit(cache=True)
def _least_of_best(scores, tops, k):  # type: ignore[no-untyped-def]
    """The k-th highest score; 0 when fewer are positive."""
    # No more than k - 1 scores are above the k-th of the highest scores of stretches, but one less than that may be.
    enough = np.partition(tops, len(tops) - k)[len(tops) - k] if len(tops) > k else 0.0
    heap = np.full(k, enough)  # heap[0] is the least of the best k, as every parent is of its children
    for stretch in range(len(tops)):
        if tops[stretch] > heap[0]:
            for score in scores[stretch * STRETCH : (stretch + 1) * STRETCH]:
                if score > heap[0]:
                    _sift(heap, score)
    return heap[0]


@njit(cache=True)
def best(scores, tops, k):  # type: ignore[no-untyped-def]
    """Numbers of the `k` highest positive scores, and of all that equal the last of them.

    Stretches whose highest score, in `tops`, is below the k-th so far are skipped as a whole.
    """
    least = max(_least_of_best(scores, tops, k), 1e-300)
    found, count = np.empty(2 * k, np.int64), 0
    for stretch in range(len(tops)):
        if tops[stretch] < least:
            continue
        for number in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(scores))):
            if scores[number] >= least:
                if count == len(found):
                    found = np.append(found, np.empty(count, np.int64))
                found[count] = number
                count += 1
    return found[:count]


@njit(cache=True)
def add_bm25(terms, idf, norms, k1, file, starts, lengths, pool, notes, times, scores):  # type: ignore[no-untyped-def]
    """Add idf * tf * (k1 + 1) / (tf + norm) of each of the distinct `terms` to the windows that hold it.

    `times` is scratch, one entry more than there are windows, zero before and after: the term's occurrences in window w
    at w + 1, a window's being those of its two blocks (each counted to 31).
    """
    for number in range(len(terms)):
        term = terms[number]
        places = range(starts[term], starts[term] + lengths[term])
        for place in places:
            block = pool[place] >> 1
            occurrences = (notes[place] & TIMES) // ONCE
            times[block + 1] += occurrences
            if block and file[block - 1] == file[block]:
                times[block] += occurrences
        for place in places:
            for slot in ((pool[place] >> 1) + 1, pool[place] >> 1):
                if slot and times[slot]:
                    scores[slot - 1] += idf[number] * times[slot] * (k1 + 1) / (times[slot] + norms[slot - 1])
                times[slot] = 0


@njit(cache=True)
def add_definitions(terms, most, starts, lengths, pool, notes, amount, relevance):  # type: ignore[no-untyped-def]
    """Share `amount` among the blocks that define a term, for each of `terms` that at most `most` blocks define.

    Returns the blocks that had no relevance before.
    """
    blocks, count = np.empty(most * len(terms), np.int64), 0
    for term in terms:
        end = starts[term] + lengths[term]
        definitions = 0
        for place in range(starts[term], end):
            definitions += (notes[place] & DEFINED) > 0
        if not 0 < definitions <= most:
            continue
        for place in range(starts[term], end):
            if notes[place] & DEFINED:
                block = pool[place] >> 1
                if not relevance[block]:
                    blocks[count] = block
                    count += 1
                relevance[block] += amount // definitions
    return blocks[:count]


@njit(cache=True)
def spread(windows, shares, file, end, relevance):  # type: ignore[no-untyped-def]
    """Add the share of each window to the relevance of its two blocks; the blocks that had none before."""
    blocks, count = np.empty(2 * len(windows), np.int64), 0
    for number in range(len(windows)):
        window = windows[number]
        for block in (window, window + 1):
            if block < end and file[block] == file[window]:
                if not relevance[block] and shares[number]:
                    blocks[count] = block
                    count += 1
                relevance[block] += shares[number]
    return blocks[:count]


@njit(cache=True)
def expect(blocks, relevance, half, common, term_starts, tokens, terms, lengths, expected, worth):  # type: ignore[no-untyped-def]
    """The worth of each identifier of `blocks`: how much it is to be expected where the caret stands.

    It is sum / (sum + half) with the sum of the relevance of the blocks that hold it, and 0 if more than `common`
    blocks of the project do. `expected` is scratch, zero before and after; `relevance` is zero afterwards.
    """
    room = 0
    for block in blocks:
        room += tokens[block]
    distinct, count = np.empty(room, np.int32), 0
    for block in blocks:
        for entry in range(term_starts[block], term_starts[block] + tokens[block]):
            term = terms[entry]
            if not expected[term]:
                distinct[count] = term
                count += 1
            expected[term] += relevance[block]
        relevance[block] = 0
    for term in distinct[:count]:
        worth[term] = expected[term] / (expected[term] + half) if lengths[term] <= common else 0.0
        expected[term] = 0


@njit(cache=True)
def _gain(block, term_starts, tokens, terms, worth):  # type: ignore[no-untyped-def]
    gain = 0.0
    for entry in range(term_starts[block], term_starts[block] + tokens[block]):
        gain += worth[terms[entry]]
    return gain


@njit(cache=True)
def _side_by_side(one, other, file):  # type: ignore[no-untyped-def]
    return abs(one - other) == 1 and file[one] == file[other]


@njit(cache=True)
def _beside_taken(number, blocks, file, taken):  # type: ignore[no-untyped-def]
    for near in (number - 1, number + 1):
        if 0 <= near < len(blocks) and taken[near] and _side_by_side(blocks[number], blocks[near], file):
            return True
    return False


@njit(cache=True)
def _take(first, blocks, file, ratios, term_starts, tokens, terms, worth):  # type: ignore[no-untyped-def]
    """Nobody gains from the identifiers of a chosen block any more; its neighbours have become cheaper."""
    block = blocks[first]
    for entry in range(term_starts[block], term_starts[block] + tokens[block]):
        worth[terms[entry]] = 0
    ratios[first] = 0
    for near in (first - 1, first + 1):
        if 0 <= near < len(blocks) and ratios[near] > 0 and _side_by_side(block, blocks[near], file):
            ratios[near] = np.inf


@njit(cache=True)
def choose(blocks, file, merits, costs, heading, power, k, term_starts, tokens, terms, worth):  # type: ignore[no-untyped-def]
    """Greedily the blocks with the highest merit x gain / cost**power: positions in `blocks`, and their gains.

    A block gains the worth of the identifiers that no chosen block has; theirs becomes 0 in `worth`. It costs its
    tokens, and a `heading` unless it continues a chosen one. Gains only fall, so a bound is renewed when it comes first
    (lazy greedy, Minoux 1978). Neighbours in a file stand side by side in `blocks`. Ends after `k` blocks, or when
    nothing gains.
    """
    size = len(blocks)
    ratios, gains, fresh, taken = np.empty(size), np.empty(size), np.zeros(size, np.int64), np.zeros(size, np.bool_)
    for number in range(size):
        gains[number] = _gain(blocks[number], term_starts, tokens, terms, worth)
        ratios[number] = merits[number] * gains[number] / (costs[number] + heading) ** power
    chosen = np.empty(min(k, size), np.int64)
    count = 0
    while count < len(chosen):
        first = np.argmax(ratios)
        if ratios[first] <= 0:
            break
        if fresh[first] == count and ratios[first] < np.inf:
            taken[first] = True
            chosen[count] = first
            count += 1
            _take(first, blocks, file, ratios, term_starts, tokens, terms, worth)
            continue
        cost = costs[first] + (0 if _beside_taken(first, blocks, file, taken) else heading)
        gains[first] = _gain(blocks[first], term_starts, tokens, terms, worth)
        ratios[first], fresh[first] = merits[first] * gains[first] / cost**power, count
    return chosen[:count], gains[chosen[:count]]
