"""The inner loops that maintain an inverted index: cut a text into blocks, find its terms, link and unlink postings.

They are compiled by numba at the first call, or ahead of time (see `compiled`). Other modules import this one only when
they create or query an index, since importing numba takes half a second.

A *term* is an identifier, or a line stripped of blanks. It is identified by a 64-bit hash; the probability that any two
of a million terms share a hash is 3e-8. A *block* has about ten lines, a *window* is two neighbouring blocks of a file
(or the only one). A *posting* of a term is `block << 1 | first`; `first` means that the window that starts one block
earlier gets the term from this block: the block has a predecessor in its file, which lacks the term. Each posting has a
*note*: `first` again, how often the term occurs in the block, and whether it is defined there.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infill.context.compiled import njit

Array = NDArray[Any]

# Constants of public mixers: Fibonacci hashing, MurmurHash3's finaliser, and two odd seeds.
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_LINE_SEED = np.uint64(0xC4CEB9FE1A85EC53)
_TOKEN_SEED = np.uint64(0x2545F4914F6CDD1D)

FIRST, ONCE, TIMES, DEFINED = np.uint8(1), np.uint8(2), np.uint8(62), np.uint8(64)
"""Parts of a note: the flag `first`, one occurrence, the bits that count occurrences (up to 31), and the definition."""

_AHEAD = 128
"""Entries that are looked up ahead."""

# Classes of bytes.
_BLANK, _MARK, _DIGIT, _LETTER, _NEWLINE, _CLOSER = 0, 1, 2, 3, 4, 5

_ONE = np.uint64(1)
"""A position without a sign needs no test for one from the end."""

_SPACE, _TAB, _LINE_FEED, _DOUBLE, _SINGLE, _BRACKET, _E, _M = (ord(char) for char in " \t\n\"'(em")
_STARTS = [b"import ", b"from ", b"use ", b"pub use ", b"using ", b"package ", b"#include", b"# include", b"require"]
"""Beginnings of lines that import something, after the indentation; as in `caret.imports`."""
_START_BYTES = np.frombuffer(b"".join(_STARTS), np.uint8)
_START_ENDS = np.cumsum([len(start) for start in _STARTS])
_FROM, _REQUIRE = np.frombuffer(b" from ", np.uint8), np.frombuffer(b"require", np.uint8)
"""Texts before a quote, and before a bracket, that make any line an import."""


def byte_classes() -> Array:
    """Return the class of each of 256 bytes: blank, mark, digit, letter (with `_` and non-ASCII), line feed, closer."""
    classes = np.full(256, _MARK, np.uint8)
    classes[[ord(char) for char in " \t\r\v\f"]] = _BLANK
    classes[[ord(char) for char in "0123456789"]] = _DIGIT
    classes[[ord(char) for char in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"]] = _LETTER
    classes[128:] = _LETTER
    classes[ord("\n")] = _NEWLINE
    classes[[ord(char) for char in ")]}"]] = _CLOSER
    return classes


@njit(cache=True)
def _and(value, byte):  # type: ignore[no-untyped-def]
    """Return the unfinished hash of some bytes and one more."""
    value = (value ^ np.uint64(byte)) * _PRIME
    return value ^ (value >> np.uint64(29))


@njit(cache=True)
def _finished(value):  # type: ignore[no-untyped-def]
    value = (value ^ (value >> np.uint64(32))) * _MIX
    return value ^ (value >> np.uint64(29))


@njit(cache=True)
def _hash(data, start, stop, seed):  # type: ignore[no-untyped-def]
    value = seed
    for position in range(start, stop):
        value = _and(value, data[position])
    return _finished(value)


@njit(cache=True)
def count_lines(data):  # type: ignore[no-untyped-def]
    """Return the number of lines of `data`: one per line feed, and one more for text after the last line feed."""
    count = 0
    for byte in data:
        count += byte == 10
    return count + (len(data) > 0 and data[-1] != 10)


@njit(cache=True)
def cut(data, classes, lines, shortest, longest):  # type: ignore[no-untyped-def]
    """Return the first line (from 0) and the first byte of each block; one more entry ends the last block.

    A block has `shortest` to `longest` lines (the last one may have fewer). It preferably starts at a line with little
    indentation that follows a blank line and is neither blank nor a closing bracket.
    """
    starts = np.zeros(lines + 1, np.int64)
    price = np.full(lines + 1, 99, np.int32)
    line, begin, blank_before = 0, 0, True
    while line < lines:
        starts[line] = begin
        position, width = begin, 0
        while position < len(data) and classes[data[position]] == _BLANK:
            width += 4 if data[position] == 9 else 1
            position += 1
        blank = position == len(data) or data[position] == 10
        if not blank:
            closing = classes[data[position]] == _CLOSER
            price[line] = min(width, 24) + (12 if closing else 0) + (0 if blank_before else 4)
        while position < len(data) and data[position] != 10:
            position += 1
        blank_before = blank
        begin = position + 1
        line += 1
    starts[lines] = len(data)
    firsts = np.zeros(lines // shortest + 2, np.int64)
    count, first = 0, 0
    while first < lines:
        firsts[count] = first
        count += 1
        if lines - first <= longest:
            break
        best = first + shortest
        for candidate in range(first + shortest, first + longest + 1):
            if price[candidate] < price[best]:
                best = candidate
        first = best
    firsts[count] = lines
    return firsts[: count + 1], starts[firsts[: count + 1]]


@njit(cache=True)
def _find(hashes, slots, value):  # type: ignore[no-untyped-def]
    """Return the term with hash `value`, or -1 - slot for the slot that it would take."""
    mask = np.uint64(len(slots) - 1)
    slot = value & mask
    while True:
        term = slots[slot]
        if term < 0:
            return -1 - np.int64(slot)
        if hashes[term] == value:
            return np.int64(term)
        slot = (slot + np.uint64(1)) & mask


@njit(cache=True)
def rehash(hashes, count, slots):  # type: ignore[no-untyped-def]
    """Insert the first `count` terms into the empty table `slots` (all -1; its length is a power of two)."""
    for term in range(count):
        slots[-1 - _find(hashes, slots, hashes[term])] = term


@njit(cache=True)
def _worded(kind):  # type: ignore[no-untyped-def]
    return kind == _LETTER or kind == _DIGIT  # noqa: PLR1714 (one comparison each, faster to compile)


@njit(cache=True)
def _terms(values, hashes, slots):  # type: ignore[no-untyped-def]
    """Return the term of each hash, -1 for one that is not in the index."""
    terms = np.empty(len(values), np.int64)
    for number in range(len(values)):
        terms[number] = max(_find(hashes, slots, values[number]), -1)
    return terms


@njit(cache=True)
def _word(data, position, end, classes):  # type: ignore[no-untyped-def]
    """Return the end of the word at `position`, and its hash."""
    value = _TOKEN_SEED
    while position < end and _worded(classes[data[position]]):
        value = _and(value, data[position])
        position += _ONE
    return position, _finished(value)


@njit(cache=True)
def _words(data, begin, end, classes, values, lines, count):  # type: ignore[no-untyped-def]
    """Append hash and line (from 0) of each identifier in a part of `data`; return the new count."""
    line, position, end = 0, np.uint64(begin), np.uint64(end)
    while position < end:
        kind = classes[data[position]]
        line += kind == _NEWLINE
        if not _worded(kind):
            position += _ONE
            continue
        lines[count] = line
        position, values[count] = _word(data, position, end, classes)
        count += kind == _LETTER
    return count


@njit(cache=True)
def _stripped(data, begin, end, classes, values, lines, count):  # type: ignore[no-untyped-def]
    """Append hash and number (from 0) of each line with a letter or digit, stripped of blanks; return the new count."""
    line, position, end = 0, np.uint64(begin), np.uint64(end)
    while position < end:
        while position < end and classes[data[position]] == _BLANK:
            position += _ONE
        value = last = _LINE_SEED
        worded = False
        while position < end and data[position] != _LINE_FEED:
            kind = classes[data[position]]
            value = _and(value, data[position])
            last = last if kind == _BLANK else value
            worded |= (kind == _LETTER) | (kind == _DIGIT)  # no branch
            position += _ONE
        values[count], lines[count] = _finished(last), line
        count += worded
        line += 1
        position += _ONE
    return count


@njit(cache=True)
def occurrences(data, classes, hashes, slots):  # type: ignore[no-untyped-def]
    """Return term (-1 if it is not in the index), hash, and line (from 0) of each identifier in `data`."""
    room = len(data) // 2 + 1
    values, lines = np.empty(room, np.uint64), np.empty(room, np.int64)
    count = _words(data, 0, len(data), classes, values, lines, 0)
    return _terms(values[:count], hashes, slots), values[:count], lines[:count]


@njit(cache=True)
def whole_lines(data, classes, hashes, slots):  # type: ignore[no-untyped-def]
    """Return term (-1 if unknown), hash, and number of each line with a letter or digit, stripped of blanks."""
    room = len(data) // 2 + 1
    values, lines = np.empty(room, np.uint64), np.empty(room, np.int64)
    count = _stripped(data, 0, len(data), classes, values, lines, 0)
    return _terms(values[:count], hashes, slots), values[:count], lines[:count]


@njit(cache=True)
def _ends_with(data, stop, word):  # type: ignore[no-untyped-def]
    """Return whether `word` is what `data` has before `stop`."""
    same = stop >= len(word)
    for back in range(1, len(word) + 1):
        same = same and data[stop - back] == word[len(word) - back]
    return same


@njit(cache=True)
def _imports_next(data, position):  # type: ignore[no-untyped-def]
    """Return whether what ends here is `require` before a bracket, or `from` before a string."""
    if data[position] == _BRACKET:
        return _ends_with(data, position, _REQUIRE)
    return _ends_with(data, position + 1, _FROM) and (data[position + 1] == _DOUBLE or data[position + 1] == _SINGLE)


@njit(cache=True)
def _starts_import(data, begin, end):  # type: ignore[no-untyped-def]
    """Return whether a line begins as one that imports something."""
    while begin < end and (data[begin] == _SPACE or data[begin] == _TAB):
        begin += 1
    letter = 0
    for stop in _START_ENDS:
        place = begin
        while letter < stop and place < end and data[place] == _START_BYTES[letter]:
            letter += 1
            place += 1
        if letter == stop:
            return True
        letter = stop
    return False


@njit(cache=True)
def _read(data, head, classes, values, lines, starts, imports):  # type: ignore[no-untyped-def]
    """Write the hash and line of each identifier, and the first byte of each line; return their numbers.

    `imports` becomes true for lines that import something in the first `head` bytes, but not at their start.
    """
    count, line, position, end = 0, 0, np.uint64(0), np.uint64(len(data))
    starts[0] = 0
    while position < end:
        kind = classes[data[position]]
        if not _worded(kind):
            position += _ONE
            starts[line + 1] = position  # again and again, until the line ends there
            line += kind == _NEWLINE
            continue
        lines[count] = line
        position, values[count] = _word(data, position, end, classes)
        count += kind == _LETTER
        last, byte = data[position - _ONE], data[position] if position < end else np.uint8(0)
        # The last letters of `require(` and of `from '`, together, so that there is one branch, hardly ever taken.
        if (position < np.uint64(head)) & (((last == _E) & (byte == _BRACKET)) | ((last == _M) & (byte == _SPACE))):
            imports[line] |= _imports_next(data, np.int64(position))
    return count, line + 1


@njit(cache=True)
def _known(values, hashes, slots):  # type: ignore[no-untyped-def]
    """Return the terms of the hashes that are in the index."""
    terms, count = np.empty(len(values), np.int64), 0
    for value in values:
        term = _find(hashes, slots, value)
        if term >= 0:
            terms[count] = term
            count += 1
    return terms[:count]


@njit(cache=True)
def _known_lines(values, lines, caret, hashes, slots):  # type: ignore[no-untyped-def]
    """Return the terms of the hashes that are in the index, and how many lines they are before line `caret`."""
    terms, away, count = np.empty(len(values), np.int64), np.empty(len(values), np.int64), 0
    for number in range(len(values)):
        term = _find(hashes, slots, values[number])
        if term >= 0:
            terms[count], away[count] = term, caret - lines[number]
            count += 1
    return terms[:count], away[:count]


@njit(cache=True)
def _of_lines(values, lines, some):  # type: ignore[no-untyped-def]
    """Return the values that are in one of some lines, which are in order, as are `lines`."""
    kept, count = np.empty(len(values), values.dtype), 0
    for line in some:
        for place in range(np.searchsorted(lines, line), np.searchsorted(lines, line, "right")):
            kept[count] = values[place]
            count += 1
    return kept[:count]


@njit(cache=True)
def _import_lines(data, head, starts, imports):  # type: ignore[no-untyped-def]
    """Return the lines that import something in the first `head` bytes."""
    kept, count = np.empty(len(starts), np.int64), 0
    for line in range(np.searchsorted(starts, head)):
        kept[count] = line
        count += imports[line] or _starts_import(data, starts[line], head)
    return kept[:count]


@njit(cache=True)
def _bounds(data, head, starts, imports):  # type: ignore[no-untyped-def]
    """Return the first and the last byte of each of some lines, as far as they are in the first `head` bytes."""
    bounds = np.empty((len(imports), 2), np.int64)
    for row in range(len(imports)):
        line = imports[row]
        end = starts[line + 1] - 1 if line + 1 < len(starts) else len(data)
        bounds[row, 0], bounds[row, 1] = starts[line], min(end, head)
    return bounds


@njit(cache=True)
def surroundings(data, caret, head, before, after, classes, hashes, slots):  # type: ignore[no-untyped-def]
    """Return the terms of the file with the caret in one array, and the bounds of its imports.

    `data` is the file with one line feed more, at the `caret`; its imports are in the first `head` bytes. The `near`
    identifiers and the `whole` lines are at most `before` lines before the caret's and `after` lines after it, where
    the rest of the caret's line counts as one more; `away` is their distance before the caret, negative after it. The
    `far` identifiers are all others, and `names` are those of the imports. The array has the numbers of near, far and
    whole ones, and then near, far, away, whole, whole_away and names: a call from Python costs less than with six.
    """
    room = len(data) // 2 + 2
    values, lines = np.empty(room, np.uint64), np.empty(room, np.int64)
    starts, imports = np.empty(len(data) + 2, np.int64), np.zeros(head + 1, np.bool_)
    count, line_count = _read(data, head, classes, values, lines, starts, imports)
    values, lines, starts = values[:count], lines[:count], starts[:line_count]
    line = np.searchsorted(starts, caret, "right") - 1
    top, bottom = max(line - before, 0), line + after + 2
    first, last = np.searchsorted(lines, top), np.searchsorted(lines, bottom)
    near, away = _known_lines(values[first:last], lines[first:last], line, hashes, slots)
    end = starts[bottom] if bottom < line_count else len(data)
    whole, whole_lines = np.empty(bottom - top, np.uint64), np.empty(bottom - top, np.int64)
    count = _stripped(data, starts[top], end, classes, whole, whole_lines, 0)
    whole, whole_away = _known_lines(whole[:count], whole_lines[:count], line - top, hashes, slots)
    imported = _import_lines(data, head, starts, imports)
    names = _known(_of_lines(values, lines, imported), hashes, slots)
    far = _known(np.concatenate((values[:first], values[last:])), hashes, slots)
    bounds = _bounds(data, head, starts, imported)
    sizes = np.array([len(near), len(far), len(whole)])
    return np.concatenate((sizes, near, far, away, whole, whole_away, names)), bounds


@njit(cache=True)
def _enter(value, hashes, slots, state):  # type: ignore[no-untyped-def]
    """Return the term with hash `value`, a new one if there is none; state[0] counts the terms."""
    term = _find(hashes, slots, value)
    if term < 0:
        slots[-1 - term] = state[0]
        term = state[0]
        hashes[term] = value
        state[0] += 1
    return term


@njit(cache=True)
def _own(values, slots, distinct):  # type: ignore[no-untyped-def]
    """Write the distinct `values` of a file to `distinct`, and their numbers there in their places; return the count.

    `slots` is an empty table for them (see `rehash`). Most identifiers of a file occur in it again, so the table of the
    index, which no processor's cache holds, is asked once for each.
    """
    count = 0
    for place in range(len(values)):
        number = _find(distinct, slots, values[place])
        if number < 0:
            slots[-1 - number] = count
            distinct[count] = values[place]
            number = count
            count += 1
        values[place] = np.uint64(number)
    return count


@njit(cache=True)
def _collect(numbers, block, keywords, own, seen, place, terms, notes, count):  # type: ignore[no-untyped-def]
    """Append the distinct terms of a block (from 1) after the first `count` terms; `own` has the terms by number.

    A term that follows one of the first `keywords` terms is defined here. Returns the new count, and how many of the
    terms are also in the previous block.
    """
    shared, previous = 0, keywords
    for each in numbers:
        number = np.int64(each)
        term = own[number]
        defined = DEFINED if previous < keywords else 0
        previous = term
        if seen[number] == block:
            here = place[number]
            notes[here] = (notes[here] if notes[here] & TIMES == TIMES else notes[here] + ONCE) | defined
            continue
        in_previous = block > 1 and seen[number] == block - 1
        shared += in_previous
        seen[number], place[number] = block, count
        terms[count] = term
        notes[count] = ONCE | defined | (0 if in_previous or block == 1 else FIRST)
        count += 1
    return count, shared


@njit(cache=True)
def lex(data, classes, bounds, keywords, hashes, slots, state):  # type: ignore[no-untyped-def]
    """Return the distinct terms of each block of a file: (terms, notes, blocks).

    `blocks` has one row per block: end of its terms; number of identifiers among them; occurrences of identifiers;
    distinct identifiers and distinct lines of the window that starts with the block (0 if there is none).
    """
    room, size = len(data) + len(bounds) + 1, len(bounds) - 1
    values, lines = np.empty(room, np.uint64), np.empty(room, np.int32)
    ends, end = np.empty((size, 2), np.int64), 0
    for block in range(size):
        ends[block, 0] = _words(data, bounds[block], bounds[block + 1], classes, values, lines, end)
        end = ends[block, 1] = _stripped(data, bounds[block], bounds[block + 1], classes, values, lines, ends[block, 0])
    width = 1
    while width < 2 * end:
        width *= 2
    distinct = np.empty(end, np.uint64)
    count = _own(values[:end], np.full(width, -1, np.int32), distinct)
    own = np.empty(count, np.int32)
    for number in range(count):
        own[number] = _enter(distinct[number], hashes, slots, state)
    return _by_block(values, ends, keywords, own)


@njit(cache=True)
def _by_block(numbers, ends, keywords, own):  # type: ignore[no-untyped-def]
    """Return what `lex` returns, from the numbers of identifiers and lines, whose `ends` are given for each block."""
    size = len(ends)
    room = ends[-1, 1] if size else 0
    terms, notes, blocks = np.empty(room, np.int32), np.empty(room, np.uint8), np.zeros((size, 5), np.int32)
    seen, place = np.zeros(len(own), np.int32), np.empty(len(own), np.int32)
    begin = start = count = 0
    for block in range(size):
        middle, end = ends[block]
        begin = count
        count, shared_tokens = _collect(
            numbers[start:middle], block + 1, keywords, own, seen, place, terms, notes, count
        )
        tokens = count - begin
        count, shared_lines = _collect(numbers[middle:end], block + 1, 0, own, seen, place, terms, notes, count)
        blocks[block, 0], blocks[block, 1], blocks[block, 2] = count, tokens, middle - start
        blocks[block, 3], blocks[block, 4] = tokens, count - begin - tokens
        if block:
            blocks[block - 1, 3] += tokens - shared_tokens
            blocks[block - 1, 4] += count - begin - tokens - shared_lines
        start = end
    if size > 1:
        blocks[size - 1, 3:] = 0
    return terms[:count].copy(), notes[:count].copy(), blocks


@njit(cache=True)
def _append(term, posting, note, starts, lengths, rooms, pool, pool_notes, state):  # type: ignore[no-untyped-def]
    """Append a posting to the list of `term`; return its place there, or -1 if the list is full and cannot move.

    state[1] is the end of the used part of the pool; state[2] counts the places that moved lists have left unused.
    """
    length = lengths[term]
    if length == rooms[term]:
        room = length + length // 2 + 2
        old, new = starts[term], state[1]
        if new + room > len(pool):
            return -1
        pool[new : new + length] = pool[old : old + length]
        pool_notes[new : new + length] = pool_notes[old : old + length]
        state[2] += rooms[term]
        starts[term], rooms[term] = new, room
        state[1] += room
    pool[starts[term] + length] = posting
    pool_notes[starts[term] + length] = note
    lengths[term] = length + 1
    return length


@njit(cache=True)
def link(first, done, ends, terms, notes, places, starts, lengths, rooms, pool, pool_notes, state):  # type: ignore[no-untyped-def]
    """Append the blocks of a file, numbered from `first`, to the lists of their terms, from term number `done` on.

    `ends[i]` is the end of the terms of block first + i. `places` receives the place of each posting in its list.
    Returns the number of terms that are done, which is less than all if the pool is too small.
    """
    block = 0
    for number in range(done, len(terms)):
        while number >= ends[block]:
            block += 1
        posting = (first + block) << 1 | (notes[number] & FIRST)
        place = _append(terms[number], posting, notes[number], starts, lengths, rooms, pool, pool_notes, state)
        if place < 0:
            return number
        places[number] = place
    return len(terms)


@njit(cache=True)
def _look_up(begin, end, terms, places, term_starts, starts, lengths, pool, pool_notes):  # type: ignore[no-untyped-def]
    """Read what `unlink` will, without a branch, so that a processor waits for many places of memory at once."""
    total = 0
    for number in range(begin, end):
        term = terms[number]
        gap = starts[term] + places[number]
        last = starts[term] + lengths[term] - 1
        total += terms[term_starts[pool[last] >> 1]] + pool[gap] + pool_notes[gap] + pool_notes[last]
    return total


@njit(cache=True)
def unlink(begin, end, terms, places, term_starts, term_counts, starts, lengths, pool, pool_notes):  # type: ignore[no-untyped-def]
    """Remove the postings of entries `begin` to `end` of `terms` from their lists; return their notes.

    The last posting of a list fills the gap.
    """
    notes = np.empty(end - begin, np.uint8)
    for number in range(begin, end):
        if (number - begin) % _AHEAD == 0:
            stop = min(number + _AHEAD, end)
            if _look_up(number, stop, terms, places, term_starts, starts, lengths, pool, pool_notes) < 0:
                break  # never: it is asked so that it is not left out
        term = terms[number]
        gap = starts[term] + places[number]
        notes[number - begin] = pool_notes[gap]
        last = starts[term] + lengths[term] - 1
        lengths[term] -= 1
        if gap == last:
            continue
        pool[gap], pool_notes[gap] = pool[last], pool_notes[last]
        moved = pool[gap] >> 1
        for entry in range(term_starts[moved], term_starts[moved] + term_counts[moved]):
            if terms[entry] == term:
                places[entry] = places[number]
                break
    return notes


@njit(cache=True)
def link_all(blocks, term_starts, term_counts, terms, notes, places, starts, lengths, rooms, pool, pool_notes):  # type: ignore[no-untyped-def]
    """Write the lists of all terms, each with an eighth to spare, and the `places` of the postings in them.

    The terms of the first `blocks` blocks are counted, and then each block's postings are put in order into lists that
    never have to move. The entries' `notes` are those of `link`. `lengths` is zero before. Returns the end of the pool.
    """
    for block in range(blocks):
        for term in terms[term_starts[block] : term_starts[block] + term_counts[block]]:
            lengths[term] += 1
    end = 0
    for term in range(len(lengths)):
        starts[term], rooms[term] = end, lengths[term] + lengths[term] // 8
        end += rooms[term]
        lengths[term] = 0
    for block in range(blocks):
        for entry in range(term_starts[block], term_starts[block] + term_counts[block]):
            term = terms[entry]
            place = lengths[term]
            pool[starts[term] + place] = block << 1 | (notes[entry] & FIRST)
            pool_notes[starts[term] + place] = notes[entry]
            places[entry] = place
            lengths[term] = place + 1
    return end


@njit(cache=True)
def squeeze_entries(blocks, term_starts, term_counts, entries, squeezed):  # type: ignore[no-untyped-def]
    """Copy the entries of the first `blocks` blocks to another array, without gaps."""
    end = 0
    for block in range(blocks):
        start, count = term_starts[block], term_counts[block]
        squeezed[end : end + count] = entries[start : start + count]
        end += count


@njit(cache=True)
def squeeze(starts, lengths, rooms, count, pool, pool_notes, new_pool, new_notes):  # type: ignore[no-untyped-def]
    """Copy the lists of the first `count` terms to a new pool, each with an eighth to spare; return the used length."""
    end = 0
    for term in range(count):
        length, old = lengths[term], starts[term]
        new_pool[end : end + length] = pool[old : old + length]
        new_notes[end : end + length] = pool_notes[old : old + length]
        starts[term] = end
        rooms[term] = length + length // 8
        end += rooms[term]
    return end
