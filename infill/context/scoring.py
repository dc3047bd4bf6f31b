"""The inner loops of a query: score the windows, find the best, choose blocks that add something new.

They are compiled like `kernels`, whose terms and arrays they read. Sums are integers, so that the order of addition,
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
"""Number of windows with a common highest score, so that they can be skipped together."""
_BINS = 512
_GROUP = 8
"""Number of candidates with a common highest ratio, and of groups of candidates."""
_SMALL = 128
"""Number of sizes of windows, each with the sum that it needs; larger ones have more identifiers than most."""
_LIKELY = 16
"""Stretches that are searched first, at least."""
_TINY = 1e-300
"""No positive score is lower."""
BYTES_PER_TOKEN = 3.6
SIZES = 4_096
"""Windows of more identifiers, and blocks of more tokens, count as having this many."""
FEW = 10
"""A term in at most this many blocks is never common."""
_DEFINERS = 2
"""Maximum number of blocks that define a name; more definitions say little."""
_COMMON_DEFINED = 200
"""Definitions of names in more blocks than this are not searched for."""


@njit(cache=True)
def _decays(away, others, decay):  # type: ignore[no-untyped-def]
    """Return e**(-distance / decay) by distance in lines, for all distances in the two arrays."""
    most = 0
    for lines in away:
        most = max(most, lines, -1 - lines)
    for lines in others:
        most = max(most, lines, -1 - lines)
    decays = np.empty(most + 1)
    for distance in range(most + 1):
        decays[distance] = math.exp(-distance / decay)
    return decays


@njit(cache=True)
def _ask(terms, away, whole, whole_away, names, scale, after, decay, power, least, most, blocks, lengths, local):  # type: ignore[no-untyped-def]
    """Return distinct terms, and idf**power of each times the highest weight of its occurrences, in WEIGHT_UNIT.

    The terms are identifiers (`terms`; `away` is their distance before the caret in lines, negative after it), lines
    (`whole` with `whole_away`) and imported `names`. An occurrence weighs scale * e**(-|lines| / decay), with the
    `scale` of its kind, times `after` if it is after the caret; imported names weigh their scale. Skipped are negative
    terms, terms in none or in more than `most` of the `blocks`, and terms with less than the share `least` of the
    highest weight. `local` is scratch, zero before and after.
    """
    room, decays = len(terms) + len(whole) + len(names), _decays(away, whole_away, decay)
    distinct, weights, count = np.empty(room, np.int64), np.empty(room), 0
    for number in range(room):
        if number < len(terms):
            term, lines, value = terms[number], away[number], scale[0]
        elif number < len(terms) + len(whole):
            term, lines, value = whole[number - len(terms)], whole_away[number - len(terms)], scale[1]
        else:
            term, lines, value = names[number - len(terms) - len(whole)], 0, scale[2]
        if term < 0 or not 0 < lengths[term] <= most:
            continue
        value *= decays[max(lines, -1 - lines)]
        if lines < 0:
            value *= after
        own = local[term]
        if own == 0:
            distinct[count], weights[count] = term, value
            count += 1
            local[term] = count
        else:
            weights[own - 1] = max(weights[own - 1], value)
    asked, highest = np.empty(count, np.int32), 0
    for number in range(count):
        length = lengths[distinct[number]]
        idf = math.log1p((blocks - length + 0.5) / (length + 0.5))
        asked[number] = int(weights[number] * idf**power * WEIGHT_UNIT)
        local[distinct[number]] = 0
        highest = max(highest, asked[number])
    kept = 0
    for number in range(count):
        if asked[number] >= least * highest:
            distinct[kept], asked[kept] = distinct[number], asked[number]
            kept += 1
    return distinct[:kept], asked[:kept]


@njit(cache=True)
def add_up(terms, weights, starts, lengths, pool, sums):  # type: ignore[no-untyped-def]
    """Add the weight of each of the distinct `terms` to the windows that contain it: window w is sums[w + 1]."""
    for number in range(len(terms)):
        term, weight = terms[number], weights[number]
        for posting in pool[starts[term] : starts[term] + lengths[term]]:
            block = np.uint64(posting >> 1)  # unsigned: no test for an index from the end
            sums[block + np.uint64(1)] += weight
            sums[block] += weight * np.int32(posting & 1)


@njit(cache=True)
def ious(sums, sizes, asked, scores, tops):  # type: ignore[no-untyped-def]
    """Write the IoU of each window to `scores`; `sums` has the number of terms that it shares with the `asked` ones.

    `sums` is zero afterwards. The highest score of each stretch is written to `tops`.
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
def _bin(value, low, scale):  # type: ignore[no-untyped-def]
    """Return the bin of a value; without a sign it needs no test for a place from the end."""
    return np.uint32(np.int64((value - low) * scale))


@njit(cache=True)
def _kth_highest(values, k, low, high):  # type: ignore[no-untyped-def]
    """Return the k-th highest of at least k `values` between `low` and `high`: by a histogram, then within its bin."""
    if low >= high:
        return low
    counts, scale = np.zeros(_BINS + 1, np.int64), _BINS / (high - low)
    for value in values:
        counts[_bin(value, low, scale)] += 1
    place, above = _BINS, 0
    while above + counts[place] < k:
        above += counts[place]
        place -= 1
    inside, count = np.empty(counts[place] + 1), 0
    for value in values:  # each is written, and the next one in its place unless it belongs there
        inside[count] = value
        count += _bin(value, low, scale) == place
    inside = inside[:count]
    inside.sort()
    return inside[count - (k - above)]


@njit(cache=True)
def best(scores, tops, k):  # type: ignore[no-untyped-def]
    """Return the numbers of the `k` highest positive scores, and of all that equal the last of them.

    Stretches whose highest score, in `tops`, is below the k-th highest of these are skipped as a whole.
    """
    highest, room = 0.0, 0
    for top in tops:
        highest = max(highest, top)
    # The k-th highest of the stretches' highest scores is a lower bound: at least k scores reach it.
    least = max(_kth_highest(tops, k, 0.0, highest) if len(tops) > k else 0.0, 1e-300)
    for top in tops:
        room += STRETCH * (top >= least)
    numbers, values, count = np.empty(room, np.int64), np.empty(room), 0
    for stretch in range(len(tops)):
        if tops[stretch] >= least:
            for number in range(stretch * STRETCH, min((stretch + 1) * STRETCH, len(scores))):
                if scores[number] >= least:
                    numbers[count], values[count] = number, scores[number]
                    count += 1
    return _first(numbers[:count], values[:count], k, least, highest)[0]


@njit(cache=True)
def _first(numbers, values, k, low, high):  # type: ignore[no-untyped-def]
    """Return the `k` numbers with the highest of the values, between `low` and `high`, and all that equal the last."""
    least, kept = _kth_highest(values, k, low, high) if len(values) > k else low, 0
    for place in range(len(values)):
        value = values[place]
        numbers[kept], values[kept] = numbers[place], value
        kept += value >= least
    return numbers[:kept], values[:kept]


@njit(cache=True)
def _bound(sums, sizes, by_size):  # type: ignore[no-untyped-def]
    """Return at least the highest sum of weights x factor by size of windows next to each other.

    Written so that processors compare several windows at once: one loop, one type, no branches.
    """
    highest, smallest, none = np.int32(0), np.int32(len(by_size) - 1), np.int32(1 << 30)
    for window in range(len(sizes)):
        total, size = sums[window], sizes[window]
        size = size if size > 0 else none  # no window starts there
        highest = total if total > highest else highest
        smallest = size if size < smallest else smallest
    return highest * by_size[smallest]


@njit(cache=True)
def _bounds(sums, sizes, by_size, prior):  # type: ignore[no-untyped-def]
    """Return at least the highest score of each stretch."""
    bounds, most = np.empty((len(sums) - 2) // STRETCH + 1), prior.max() if len(prior) else 0.0
    for stretch in range(len(bounds)):
        first, end = stretch * STRETCH, min((stretch + 1) * STRETCH, len(sums) - 1)
        bounds[stretch] = _bound(sums[first + 1 : end + 1], sizes[first:end], by_size) * most
    return bounds


@njit(cache=True)
def _collect(bounds, lowest, least, sums, sizes, by_size, file, prior):  # type: ignore[no-untyped-def]
    """Return the windows whose score is at least `least` in stretches whose bound is at least `lowest`, and the scores.

    Each is written, and the next one in its place unless its score suffices: no branch that is guessed wrong.
    """
    room = STRETCH * (bounds >= lowest).sum() + 1
    numbers, values, count, most = np.empty(room, np.int64), np.empty(room), 0, np.uint32(len(by_size) - 1)
    for stretch in range(len(bounds)):
        if bounds[stretch] < lowest:
            continue
        first, end = stretch * STRETCH, min((stretch + 1) * STRETCH, len(sums) - 1)
        totals, own_sizes, files = sums[first + 1 : end + 1], sizes[first:end], file[first:end]
        for place in range(len(totals)):
            score = totals[place] * by_size[min(np.uint32(own_sizes[place]), most)] * prior[files[place]]
            numbers[count], values[count] = first + place, score
            count += score >= least
    return numbers[:count], values[:count]


@njit(cache=True)
def _least_sums(least, by_size, most):  # type: ignore[no-untyped-def]
    """Return, by size of a window, the sum that it needs at least for a score of `least`; no prior is above `most`."""
    sums = np.empty(min(_SMALL, len(by_size)), np.int64)
    sums[0] = np.iinfo(np.int64).max  # no window starts there
    for size in range(1, len(sums)):
        sums[size] = max(int(least / (by_size[size] * most)) - 1, 1)
    return sums


@njit(cache=True)
def _collect_few(bounds, least, sums, sizes, by_size, file, prior):  # type: ignore[no-untyped-def]
    """Return what `_collect` does, faster where most windows have too low a sum for their size."""
    room, least_sums = STRETCH * (bounds >= least).sum() + 1, _least_sums(least, by_size, prior.max())
    numbers, values, count, small = np.empty(room, np.int64), np.empty(room), 0, np.uint32(len(least_sums) - 1)
    for stretch in range(len(bounds)):
        if bounds[stretch] < least:
            continue
        first, end = stretch * STRETCH, min((stretch + 1) * STRETCH, len(sums) - 1)
        totals, own_sizes = sums[first + 1 : end + 1], sizes[first:end]
        for place in range(len(totals)):
            numbers[count] = first + place
            count += totals[place] >= least_sums[min(np.uint32(own_sizes[place]), small)]
    kept, most = 0, np.uint32(len(by_size) - 1)
    for window in numbers[:count]:
        score = sums[window + 1] * by_size[min(np.uint32(sizes[window]), most)] * prior[file[window]]
        numbers[kept], values[kept] = window, score
        kept += score >= least
    return numbers[:kept], values[:kept]


@njit(cache=True)
def _weighted(sums, sizes, by_size, file, prior, k):  # type: ignore[no-untyped-def]
    """Return the `k` windows with the highest positive scores, and all that equal the last, with their scores.

    A window's score is sums[window + 1] x by_size[its size], which falls with the size, x prior of its file. The k-th
    highest score in the stretches that promise most is one that at least `k` windows reach, so stretches that cannot,
    as their highest sum and their smallest window show, are skipped. `sums` is zero afterwards.
    """
    sums[0] = 0
    bounds = _bounds(sums, sizes, by_size, prior)
    highest, likely, lowest = bounds.max() if len(bounds) else 0.0, _LIKELY + len(bounds) // 32, _TINY
    if len(bounds) > 4 * likely:
        lowest = max(_kth_highest(bounds, likely, 0.0, highest), _TINY)
    numbers, values = _collect(bounds, lowest, _TINY, sums, sizes, by_size, file, prior)
    numbers, values = _first(numbers, values, k, _TINY, highest)
    if lowest > _TINY:
        least = values.min() if len(values) >= k else _TINY
        numbers, values = _collect_few(bounds, least, sums, sizes, by_size, file, prior)
        numbers, values = _first(numbers, values, k, least, highest)
    sums[:] = 0
    return numbers, values


@njit(cache=True)
def add_bm25(terms, idf, norms, k1, file, starts, lengths, pool, notes, times, scores):  # type: ignore[no-untyped-def]
    """Add idf * tf * (k1 + 1) / (tf + norm) of each of the distinct `terms` to the windows that contain it.

    `times` is scratch with one entry more than there are windows, zero before and after: entry w + 1 counts the term's
    occurrences in the two blocks of window w (each up to 31).
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
def _add_definitions(names, longest, most, starts, lengths, pool, notes, amount, relevance, local):  # type: ignore[no-untyped-def]
    """Divide `amount` among the blocks that define a name, for each distinct one of the `names`.

    Names that more than `most` blocks define, or that are in more than `longest` blocks, are skipped. Returns the
    blocks that had no relevance before. `local` is scratch, zero before and after.
    """
    blocks, count = np.empty(most * len(names), np.int64), 0
    for term in names:
        end = starts[term] + lengths[term]
        definitions, again = 0, local[term] > 0
        local[term] = 1
        if lengths[term] <= longest and not again:
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
    for term in names:
        local[term] = 0
    return blocks[:count]


@njit(cache=True)
def _spread(windows, scores, sharpness, file, end, relevance):  # type: ignore[no-untyped-def]
    """Add (score / best score)**sharpness of each of the windows to the relevance of its two blocks.

    Returns the blocks that had no relevance before.
    """
    blocks, count, top = np.empty(2 * len(windows), np.int64), 0, 0.0
    for score in scores:
        top = max(top, score)
    for number in range(len(windows)):
        window = windows[number]
        share = int((scores[number] / top) ** sharpness * RELEVANCE_UNIT)
        for block in (window, window + 1):
            if block < end and file[block] == file[window]:
                if not relevance[block] and share:
                    blocks[count] = block
                    count += 1
                relevance[block] += share
    return blocks[:count]


@njit(cache=True)
def _numbered(blocks, relevance, term_starts, tokens, terms, local):  # type: ignore[no-untyped-def]
    """Return the identifiers of `blocks`: (ends, names, distinct, sums).

    Block i has names[ends[i] : ends[i + 1]], which are indices in `distinct`, from 1, and in `sums`, the relevance of
    all blocks with the identifier; so the next steps read about a thousand adjacent entries instead of all the
    project's identifiers. `local` is the index of each term afterwards; `relevance` is zero.
    """
    room = 1
    for block in blocks:
        room += tokens[block]
    ends, names = np.zeros(len(blocks) + 1, np.int64), np.empty(room, np.int32)
    distinct, sums = np.empty(room + 1, np.int32), np.zeros(room + 1, np.int64)
    count, end = np.int32(0), np.uint64(0)  # unsigned: no test for an index from the end
    for number in range(len(blocks)):
        block = blocks[number]
        amount, begin, relevance[block] = relevance[block], term_starts[block], 0
        for term in terms[begin : begin + tokens[block]]:
            own = local[np.uint32(term)]
            distinct[np.uint32(count + 1)] = term
            count += np.int32(own == 0)
            own = count if own == 0 else own  # a choice and no branch, of which one in five would be guessed wrong
            local[np.uint32(term)] = own
            sums[np.uint32(own)] += amount
            names[end] = own
            end += np.uint64(1)
        ends[number + 1] = end
    return ends, names, distinct[: count + 1], sums


@njit(cache=True)
def _first_gains(ends, names, worth):  # type: ignore[no-untyped-def]
    """Return the worth of each block's names, and leave those out that are worth nothing."""
    gains, begin, end = np.empty(len(ends) - 1), 0, np.uint64(0)
    for number in range(len(gains)):
        gain = 0.0
        for place in range(begin, ends[number + 1]):
            name = names[np.uint64(place)]
            value = worth[np.uint32(name)]
            names[end] = name
            end += np.uint64(value > 0)
            gain += value
        gains[number] = gain
        begin, ends[number + 1] = ends[number + 1], end
    return gains


@njit(cache=True)
def _expect(blocks, relevance, half, common, seen, known, term_starts, tokens, terms, lengths, local):  # type: ignore[no-untyped-def]
    """Return the identifiers of `blocks` and how much each is expected at the caret: (ends, names, worth).

    Block i has names[ends[i] : ends[i + 1]], which are indices in `worth`. Worth is sum / (sum + half), where sum is
    the relevance of the blocks with the identifier; it is multiplied by `known` for the `seen` terms.
    Identifiers in more than `common` blocks of the project are worth nothing. `local` is scratch, zero before and
    after; `relevance` is zero afterwards.
    """
    ends, names, distinct, sums = _numbered(blocks, relevance, term_starts, tokens, terms, local)
    factor, worth = np.ones(len(distinct)), np.zeros(len(distinct))
    for term in seen:
        factor[np.uint32(local[term])] = known  # the first one is that of all other terms
    for own in range(1, len(distinct)):
        term = np.uint32(distinct[own])
        local[term] = 0
        value = sums[own] / (sums[own] + half) * factor[own]
        worth[own] = value if lengths[term] <= common else 0.0
    return ends, names, worth


@njit(cache=True)
def _gain(number, ends, names, worth):  # type: ignore[no-untyped-def]
    gain = 0.0
    for place in range(ends[number], ends[number + 1]):
        gain += worth[np.uint32(names[np.uint64(place)])]
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
def _place(values, first, count):  # type: ignore[no-untyped-def]
    """Return the first place of the highest of `count` values, without a branch."""
    top, place = np.int64(-1), first
    for number in range(first, first + count):
        value = values[np.uint64(number)]
        higher = value > top
        top, place = value if higher else top, number if higher else place
    return place


@njit(cache=True)
def _mark(place, bits, tops, highest):  # type: ignore[no-untyped-def]
    """Note the highest value and its first place in the group of the changed one, and in its group of groups.

    The values are ratios, not negative, as the integers with the same bits: these have the same order and are faster to
    compare.
    """
    group = place // _GROUP
    top = _place(bits, group * _GROUP, _GROUP)
    tops[0, group], tops[1, group] = bits[top], top
    first = _place(tops[0], group // _GROUP * _GROUP, _GROUP)
    highest[0, group // _GROUP], highest[1, group // _GROUP] = tops[0, first], tops[1, first]


@njit(cache=True)
def _take(first, blocks, file, ratios, tops, highest, ends, names, worth):  # type: ignore[no-untyped-def]
    """Set the worth of a chosen block's identifiers to 0, and mark its neighbours, which are cheaper now."""
    for name in names[ends[first] : ends[first + 1]]:
        worth[name] = 0
    ratios[first] = 0
    for near in (first - 1, first + 1):
        if 0 <= near < len(blocks) and ratios[near] > 0 and _side_by_side(blocks[first], blocks[near], file):
            ratios[near] = np.inf
            _mark(near, ratios.view(np.int64), tops, highest)


@njit(cache=True)
def _choose(blocks, file, merits, sizes, per_token, heading, by_cost, k, ends, names, worth):  # type: ignore[no-untyped-def]
    """Choose blocks greedily by merit x gain x by_cost[cost]; return their positions in `blocks`, and their gains.

    A block's gain is the worth of its identifiers that no chosen block has. Its cost is its tokens, of `per_token`
    bytes each, plus `heading` unless it continues a chosen block. Gains only fall, so an old value is an upper bound,
    which is computed again when it comes first (lazy greedy, Minoux 1978). `ends`, `names` and `worth` are those of
    `_expect`, and are changed. Neighbours in a file must be adjacent in `blocks`. The choice ends after `k` blocks,
    or when nothing gains.
    """
    size = len(blocks)
    groups = size // _GROUP**2 + 1
    highest, tops, ratios = (
        np.zeros((2, groups), np.int64),
        np.zeros((2, groups * _GROUP), np.int64),
        np.zeros(groups * _GROUP**2),
    )
    bits, taken, chosen, count = ratios.view(np.int64), np.zeros(size, np.bool_), np.empty(min(k, size), np.int64), 0
    costs, gains, fresh = np.empty(size, np.int64), _first_gains(ends, names, worth), np.zeros(size, np.int64)
    for number in range(size):
        costs[number] = 1 + int(sizes[blocks[number]] / per_token)
        ratios[number] = merits[number] * gains[number] * by_cost[min(costs[number] + heading, len(by_cost) - 1)]
    for group in range(groups * _GROUP):
        _mark(group * _GROUP, bits, tops, highest)
    while count < len(chosen):
        first = highest[1, _place(highest[0], 0, groups)]
        if ratios[first] <= 0:
            break
        if fresh[first] == count and ratios[first] < np.inf:
            taken[first], chosen[count] = True, first
            count += 1
            _take(first, blocks, file, ratios, tops, highest, ends, names, worth)
        else:
            cost = costs[first] + (0 if _beside_taken(first, blocks, file, taken) else heading)
            gains[first], fresh[first] = _gain(first, ends, names, worth), count
            ratios[first] = merits[first] * gains[first] * by_cost[min(cost, len(by_cost) - 1)]
        _mark(first, bits, tops, highest)
    return chosen[:count], gains[chosen[:count]]


@njit(cache=True)
def _priors(by_hops, depths, ends, of_files, around, depth, lifted, lifts, current):  # type: ignore[no-untyped-def]
    """Return the factor of each file: by_hops[its distance from the caret's], plus `lifts`; 0 for the current one.

    The folder of the caret has `depth` folders `around` it, as far as the index has them, the outermost first.
    """
    common = np.zeros(len(depths), np.int64)
    for size in range(len(around)):
        common[around[size] : ends[around[size]]] = size + 1
    priors = np.empty(len(of_files))
    for file in range(len(of_files)):
        folder = of_files[file]
        priors[file] = by_hops[min(depth + depths[folder] - 2 * common[folder], len(by_hops) - 1)]
    for number in range(len(lifted)):
        priors[lifted[number]] += lifts[number]
    if current >= 0:
        priors[current] = 0
    return priors


@njit(cache=True)
def _nearest(terms, away, before, after):  # type: ignore[no-untyped-def]
    """Return the terms that are at most `before` lines before the caret, or `after` lines after it."""
    first = last = 0
    while first < len(terms) and away[first] > before:
        first += 1
    last = first
    while last < len(terms) and away[last] >= -after:
        last += 1
    return terms[first:last]


@njit(cache=True)
def _relevant(block, relevance, current, file):  # type: ignore[no-untyped-def]
    """Return whether a block has relevance, and take it from one in the `current` file."""
    if file[block] == current:
        relevance[block] = 0
    return relevance[block] != 0


@njit(cache=True)
def _in_order(some, others, relevance, current, file, ranks):  # type: ignore[no-untyped-def]
    """Return the blocks of both arrays that have relevance and are not in the `current` file, by path and line.

    The others are few, and most often the first ones are in order.
    """
    keys, count, ascending = np.empty(len(some) + len(others), np.int64), 0, True
    for block in some:
        if _relevant(block, relevance, current, file):
            keys[count] = ranks[file[block]] << 32 | block  # lines of a file are in the order of its blocks
            ascending = ascending and (count == 0 or keys[count - 1] < keys[count])
            count += 1
    if not ascending:
        keys[:count].sort()
    for block in others:
        if _relevant(block, relevance, current, file):
            key, place = ranks[file[block]] << 32 | block, count
            while place > 0 and keys[place - 1] > key:
                keys[place] = keys[place - 1]
                place -= 1
            keys[place] = key
            count += 1
    return keys[:count] & 0xFFFFFFFF


@njit(cache=True)
def _joined(blocks, chosen, gains, file, byte, size, line, end):  # type: ignore[no-untyped-def]
    """Return file, first byte, end, line, and end line of each item, and its score: chosen neighbours are one item.

    It is in the place of the first one that was chosen, and has the gains of all. Its lines are numbered from 0; the
    end line is -1 at the end of a file. There are `end` blocks.
    """
    gain, items, scores, count = np.full(len(blocks), -1.0), np.empty((len(chosen), 5), np.int64), gains.copy(), 0
    for number in range(len(chosen)):
        gain[chosen[number]] = gains[number]
    for place in chosen:
        if gain[place] < 0:
            continue
        first = last = place
        while first > 0 and gain[first - 1] >= 0 and _side_by_side(blocks[first - 1], blocks[first], file):
            first -= 1
        while last + 1 < len(blocks) and gain[last + 1] >= 0 and _side_by_side(blocks[last], blocks[last + 1], file):
            last += 1
        block, final, item = blocks[first], blocks[last], items[count]
        item[0], item[1], item[2], item[3] = file[block], byte[block], byte[final] + size[final], line[block]
        item[4] = line[final + 1] if final + 1 < end and file[final + 1] == file[final] else -1
        scores[count] = 0
        for each in range(first, last + 1):
            scores[count] += gain[each]
            gain[each] = -1
        count += 1
    return items[:count], scores[:count]


@njit(cache=True)
def _similar(weights, near, away, whole, whole_away, names, live, starts, lengths, pool, local, sums):  # type: ignore[no-untyped-def]
    """Add up the weights of the terms around the caret in `sums`."""
    scale = np.array([1.0, weights.whole_line, weights.imported_name])
    most = max(FEW, int(weights.asking * live))
    terms, asking = _ask(
        *(near, away, whole, whole_away, names, scale, weights.after, weights.decay_lines, weights.idf_power),
        *(weights.least, most, live, lengths, local),
    )
    add_up(terms, asking, starts, lengths, pool, sums)


@njit(cache=True)
def _parts(seen):  # type: ignore[no-untyped-def]
    """Return (terms, away, whole, whole_away, names) of the array that `kernels.surroundings` returns."""
    near, whole = 3 + seen[0] + seen[1], 3 + 2 * seen[0] + seen[1]
    away, names = whole + seen[2], whole + 2 * seen[2]
    return seen[3:near], seen[near:whole], seen[whole:away], seen[away:names], seen[names:]


@njit(cache=True)
def rank(  # type: ignore[no-untyped-def]
    settings, by_size, by_cost, by_hops, k, surroundings,
    depths, ends, of_files, ranks, around, depth, lifted, lifts, current,
    live, end, starts, lengths, pool, notes, terms, local,
    file, line, byte, size, term_starts, tokens, window_tokens, sums, relevance,
):  # fmt: skip
    """Return file, first byte, end, line and end line of at most `k` items, the best first, and their scores.

    One function for a whole query (see `ranking`), since a call from Python costs as much as a step.
    """
    weights = settings[0]
    seen, away, whole, whole_away, names = _parts(surroundings)
    near = seen[: len(away)]
    _similar(weights, near, away, whole, whole_away, names, live, starts, lengths, pool, local, sums)
    prior = _priors(by_hops, depths, ends, of_files, around, depth, lifted, lifts, current)
    windows, scores = _weighted(sums[: end + 1], window_tokens, by_size, file, prior, weights.windows)
    defining = _add_definitions(
        _nearest(near, away, weights.definition_lines, weights.definition_lines // 2 + 1),
        *(_COMMON_DEFINED, _DEFINERS, starts, lengths, pool, notes, int(weights.definition * RELEVANCE_UNIT)),
        *(relevance, local),
    )
    similar = _spread(windows, scores, weights.sharpness, file, end, relevance)
    blocks = _in_order(similar, defining, relevance, current, file, ranks)
    merits = relevance[blocks] ** weights.relevance_power
    most = max(FEW, int(weights.common * live))
    bounds, known, worth = _expect(
        *(blocks, relevance, weights.half * RELEVANCE_UNIT, most, seen, weights.known),
        *(term_starts, tokens, terms, lengths, local),
    )
    chosen, gains = _choose(
        *(blocks, file, merits, size, BYTES_PER_TOKEN, weights.heading_tokens, by_cost, k, bounds, known, worth)
    )
    return _joined(blocks, chosen, gains, file, byte, size, line, end)
