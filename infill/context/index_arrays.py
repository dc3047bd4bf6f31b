"""The arrays of the inverted index; only this module resizes and moves them."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infill.context import kernels

Array = NDArray[Any]

SHORTEST: Final = 6
LONGEST: Final = 14
"""Minimum and maximum lines of a block; a window is two blocks, about 20 lines as in RepoCoder (arXiv 2303.12570)."""
_DEFINING_WORDS: Final = b"""
    class def enum fn fun func function interface macro_rules module namespace object record struct trait type
    typedef"""
DEFINING: Final = _DEFINING_WORDS.split()
"""Words that define the name after them; they are the first terms of every index."""
_GARBAGE: Final = 0.5
"""Share of unused places above which a pool is squeezed."""
_PASSING: Final = 8
"""Number of texts that are remembered because they come and go with each query."""
_PASSING_BYTES: Final = 200_000
"""Size above which a text is not remembered."""

_LARGE: Final = 1 << 20
"""Rows above which an array grows by less, since it grows in its place."""

_BY_TERM: Final = {"hashes": "u8", "starts": "i8", "lengths": "i4", "rooms": "i4"}
_TERM_SCRATCH: Final = {"local": "i4"}
_BY_BLOCK: Final = {
    "file": "i4",
    "line": "i4",
    "byte": "i4",
    "size": "i4",
    "term_starts": "i8",
    "term_counts": "i4",
    "tokens": "i4",
    "occurrences": "i4",
    "window_tokens": "i4",
    "window_lines": "i4",
}
_BLOCK_SCRATCH: Final = {"sums": "i4", "relevance": "i8"}
_ENTRIES: Final = {"terms": "i4", "places": "i4"}
_UNLINKED: Final = {"terms": "i4", "entry_notes": "u1"}
"""The arrays by entry before `settle`."""
_POSTINGS: Final = {"pool": "i4", "notes": "u1"}
_SCRATCH: Final = _TERM_SCRATCH | _BLOCK_SCRATCH
_OF_QUERIES: Final = ("file", "occurrences", "window_tokens", "window_lines")
"""The arrays by block that a query reads also where no term leads to."""
_EXACT: Final = ("state", "slots", "free", "counts")
"""Saved arrays without rows to spare."""
_PLACE_BYTES: Final = 4
_POSTING_BYTES: Final = 5
_ALL_BY_TERM: Final = _BY_TERM | _TERM_SCRATCH
_ALL_BY_BLOCK: Final = _BY_BLOCK | _BLOCK_SCRATCH


def _with_spare(size: int) -> int:
    """Return the rows of an array of which `size` are used."""
    return size + size // 8 + 512


class BlockSpan(NamedTuple):
    """Neighbouring blocks: `blocks` of them from number `first` on."""

    first: int
    blocks: int


class Hidden(NamedTuple):
    """Blocks that no query sees, with what the lists and the arrays had of them."""

    span: BlockSpan
    rows: list[Array]
    notes: Array


class Table:
    """The arrays of terms, blocks, entries (the terms of each block) and postings (the blocks of each term).

    By term: its hash, and the start, length and capacity of its list in the pool.
    By block: number of its file (-1 for a free block), its first line (from 0), first byte and number of bytes; the
    start of its entries, their number, and how many of them, the first ones, are identifiers; occurrences of
    identifiers; distinct identifiers and lines of the window that starts with it (0 if there is none).
    By entry: the term, and the place of the posting in its list. Before the first query there are no postings, only
    the note of each entry: `settle` makes all lists at once, in a tenth of the time.
    Scratch arrays of queries: `local` (by term, its number in a query), `sums` and `relevance` are zero between two
    queries.
    """

    hashes: Array
    starts: Array
    lengths: Array
    rooms: Array
    local: Array
    file: Array
    line: Array
    byte: Array
    size: Array
    term_starts: Array
    term_counts: Array
    tokens: Array
    occurrences: Array
    window_tokens: Array
    window_lines: Array
    sums: Array
    relevance: Array
    terms: Array
    entry_notes: Array
    places: Array
    pool: Array
    notes: Array

    def __init__(self) -> None:
        self.classes = kernels.byte_classes()
        self.state = np.array([0, 0, 0], np.int64)
        """Number of terms, end of the pool, unused places in the pool."""
        self.settled = False
        self._hidden = 0
        """Files that are hidden now."""
        self.block_end = self.entry_end = self.entry_waste = self.live_blocks = 0
        self.free: list[BlockSpan] = []
        self._passing: dict[bytes, tuple[Array, Array, Array, Array, Array]] = {}
        """Terms of the texts that were added for one query each, by text; the latest last."""
        self.slots = np.full(1, -1, np.int32)
        for name, kind in (_BY_TERM | _TERM_SCRATCH | _ALL_BY_BLOCK | _UNLINKED | _ENTRIES | _POSTINGS).items():
            setattr(self, name, np.zeros(1, kind))
        self._grow_terms(1024)
        for word in DEFINING:
            self.hashes[self.state[0]] = kernels.occurrences(*self.lexer(word))[1][0]
            self.state[0] += 1
        kernels.rehash(self.hashes, int(self.state[0]), self.slots)

    def lexer(self, data: bytes) -> tuple[Array, Array, Array, Array]:
        """Return the arguments of `kernels.occurrences` and `kernels.whole_lines` for a text."""
        return np.frombuffer(data, np.uint8), *self.lexer_arrays

    @property
    def lexer_arrays(self) -> tuple[Array, Array, Array]:
        """The classes of bytes, the hashes of terms, and the table in which a hash is looked up."""
        return self.classes, self.hashes, self.slots

    def add(self, data: bytes, file: int, *, passing: bool = False) -> BlockSpan:
        """Cut the text `data` (UTF-8) into blocks of file number `file`, add them, and return their numbers.

        A text that is added in `passing` is likely to be dropped and added again soon, so its terms are remembered.
        """
        known = self._passing.pop(data, None)
        lines, bounds, terms, notes, blocks = lexed = known or self._lex(data)
        if passing and len(data) <= _PASSING_BYTES:
            self._passing[data] = lexed
            while len(self._passing) > _PASSING:
                del self._passing[next(iter(self._passing))]
        span = self._take(len(blocks))
        rows, ends = slice(span.first, span.first + span.blocks), blocks[:, 0]
        self.file[rows] = file
        self.line[rows], self.byte[rows], self.size[rows] = lines[:-1], bounds[:-1], bounds[1:] - bounds[:-1]
        self.term_counts[rows] = ends
        self.term_counts[span.first + 1 : span.first + span.blocks] -= ends[:-1]
        self.term_starts[rows] = self.entry_end + ends - self.term_counts[rows]
        for column, values in zip(
            (self.tokens, self.occurrences, self.window_tokens, self.window_lines), blocks.T[1:], strict=True
        ):
            column[rows] = values
        self._link(span.first, ends, terms, notes)
        return span

    def _lex(self, data: bytes) -> tuple[Array, Array, Array, Array, Array]:
        """Return the first lines and bounds of the blocks of a text, and what `kernels.lex` says of them."""
        text = np.frombuffer(data, np.uint8)
        lines, bounds = kernels.cut(text, self.classes, kernels.count_lines(text), SHORTEST, LONGEST)
        self._grow_terms(int(self.state[0]) + len(text) // 2 + len(lines) * LONGEST)
        terms, notes, blocks = kernels.lex(
            text, self.classes, bounds, len(DEFINING), self.hashes, self.slots, self.state
        )
        return lines, bounds, terms, notes, blocks

    def drop(self, span: BlockSpan) -> None:
        """Remove the blocks of a file from all lists."""
        if not span.blocks:
            return
        entries = self._entries(span)
        if self.settled:
            kernels.unlink(
                *(entries.start, entries.stop, self.terms, self.places, self.term_starts, self.term_counts),
                *(self.starts, self.lengths, self.pool, self.notes),
            )
        for name in _BY_BLOCK:
            getattr(self, name)[span.first : span.first + span.blocks] = -1 if name == "file" else 0
        self.live_blocks -= span.blocks
        self.entry_waste += entries.stop - entries.start
        self.free.append(span)

    def hide(self, span: BlockSpan) -> Hidden:
        """Remove the blocks of a file from all lists until `show`, which needs neither its text nor new entries."""
        self.settle()
        blocks, entries = slice(span.first, span.first + span.blocks), self._entries(span)
        notes = kernels.unlink(
            *(entries.start, entries.stop, self.terms, self.places, self.term_starts, self.term_counts),
            *(self.starts, self.lengths, self.pool, self.notes),
        )
        rows = [getattr(self, name)[blocks].copy() for name in _OF_QUERIES]
        for name in _OF_QUERIES:
            getattr(self, name)[blocks] = -1 if name == "file" else 0
        self.live_blocks -= span.blocks
        self._hidden += 1
        return Hidden(span, rows, notes)

    def show(self, hidden: Hidden) -> None:
        """Put the blocks back that `hide` has removed."""
        span, rows, notes = hidden
        blocks, entries = slice(span.first, span.first + span.blocks), self._entries(span)
        for name, row in zip(_OF_QUERIES, rows, strict=True):
            getattr(self, name)[blocks] = row
        self.live_blocks += span.blocks
        self._append(span.first, entries, self.term_counts[blocks].cumsum(dtype=np.int32), self.terms[entries], notes)
        self._hidden -= 1

    def _entries(self, span: BlockSpan) -> slice:
        """Return the entries of the blocks of a file."""
        if not span.blocks:
            return slice(0, 0)
        last = span.first + span.blocks - 1
        return slice(int(self.term_starts[span.first]), int(self.term_starts[last] + self.term_counts[last]))

    def settle(self) -> None:
        """Make the lists of all terms, if there are none yet; from now on each file is linked when it is added."""
        if self.settled:
            return
        self.settled = True
        count, size = int(self.state[0]), _with_spare(self.entry_end - self.entry_waste)
        self._trim()
        self.places = np.empty(len(self.terms), np.int32)
        self.pool, self.notes = np.empty(size, np.int32), np.empty(size, np.uint8)
        self.state[1] = kernels.link_all(
            *(self.block_end, self.term_starts, self.term_counts, self.terms, self.entry_notes, self.places),
            *(self.starts[:count], self.lengths[:count], self.rooms[:count], self.pool, self.notes),
        )
        self.entry_notes = np.zeros(1, np.uint8)

    def squeeze(self) -> None:
        """Rewrite lists and entries without gaps, with an eighth of each list to spare."""
        self.settle()
        count = int(self.state[0])
        lengths = self.lengths[:count]
        if self.state[1] > int((lengths + lengths // 8).sum()):
            size = _with_spare(int(lengths.sum()))
            pool, notes = np.empty(size, np.int32), np.empty(size, np.uint8)
            self.state[1] = kernels.squeeze(
                self.starts, self.lengths, self.rooms, count, self.pool, self.notes, pool, notes
            )
            self.state[2] = 0
            self.pool, self.notes = pool, notes
        self._squeeze_entries()

    @property
    def memory(self) -> int:
        """The bytes of all arrays, also of those that `settle` will make; rows that were never used count too."""
        texts, arrays = list(self._passing.items()), list(vars(self).values())  # a query may change them meanwhile
        passing = sum(len(text) + sum(each.nbytes for each in lexed) for text, lexed in texts)
        lists = 0 if self.settled else len(self.terms) * _PLACE_BYTES + _with_spare(self.entry_end) * _POSTING_BYTES
        return passing + lists + sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    def saved(self) -> dict[str, Array]:
        """Return the arrays that `restored` needs, by name."""
        self.settle()
        used = dict.fromkeys(_BY_TERM, int(self.state[0])) | dict.fromkeys(_BY_BLOCK, self.block_end)
        used |= dict.fromkeys(_ENTRIES, self.entry_end) | dict.fromkeys(_POSTINGS, int(self.state[1]))
        arrays = {name: getattr(self, name)[:size] for name, size in used.items()}
        counts = np.array([self.entry_waste, self.live_blocks, self.block_end, self.entry_end], np.int64)
        free = np.array(self.free, np.int64).reshape(-1)
        return arrays | dict(zip(_EXACT, (self.state, self.slots, free, counts), strict=True))

    @staticmethod
    def room(name: str, size: int) -> int:
        """Return the rows that an array of `saved` should have, when it is restored, to grow without a copy."""
        return size if name in _EXACT else _with_spare(size)

    @classmethod
    def restored(cls, arrays: dict[str, Array]) -> "Table":
        """Return the table whose method `saved` gave `arrays`, which may be longer (see `room`) and are its own now."""
        table = cls()
        table.settled = True
        for name in (*_BY_TERM, *_BY_BLOCK, *_ENTRIES, *_POSTINGS, "state", "slots"):
            setattr(table, name, arrays[name])
        table.entry_waste, table.live_blocks, table.block_end, table.entry_end = map(int, arrays["counts"])
        table.free = [BlockSpan(*map(int, row)) for row in arrays["free"].reshape(-1, 2)]
        for scratch, size in ((_TERM_SCRATCH, len(table.hashes)), (_BLOCK_SCRATCH, len(table.file))):
            for name, kind in scratch.items():
                table._move(name, kind, size)
        return table

    def _squeeze_entries(self) -> None:
        if not self.entry_waste or self._hidden:  # hidden entries stay where they are
            return
        counts, starts = self.term_counts[: self.block_end], self.term_starts[: self.block_end]
        size = int(counts.sum())
        for name in _ENTRIES if self.settled else _UNLINKED:
            old = getattr(self, name)
            new = np.empty(_with_spare(size), old.dtype)
            kernels.squeeze_entries(self.block_end, starts, counts, old, new)
            setattr(self, name, new)
        starts[:] = np.cumsum(counts) - counts
        self.entry_end, self.entry_waste = size, 0

    def _trim(self) -> None:
        """Copy the arrays that have grown in their place, and a sparse table of terms, to others of the right length.

        There they can have large pages of memory, in which a processor finds a place faster; and the table, which had
        room for each file as if all of its words were new, fits into a cache.
        """
        used = ((_ALL_BY_TERM, int(self.state[0])), (_ALL_BY_BLOCK, self.block_end), ({"terms": "i4"}, self.entry_end))
        for names, size in used:
            for name, kind in names.items():
                self._move(name, kind, _with_spare(size))
        if 4 * (size := _with_spare(int(self.state[0]))) < len(self.slots):
            self._rehash(size)

    def _grow(self, names: dict[str, str], size: int) -> None:
        """Give each of these arrays, which have equal lengths, at least `size` rows; new rows are zero.

        An array grows in its place where it can, so that its rows are in memory once.
        """
        rows = len(getattr(self, next(iter(names))))
        if size <= rows:
            return
        self._resize(names, max(size, rows + (rows // 2 if rows < _LARGE else rows // 8)))

    def _resize(self, names: dict[str, str], size: int) -> None:
        for name, kind in names.items():
            try:
                getattr(self, name).resize(size)
            except ValueError:  # someone else reads the array
                self._move(name, kind, size)

    def _move(self, name: str, kind: str, size: int) -> None:
        """Copy an array, or make one that is zero between two queries again, and write to all of its rows.

        Otherwise the first queries would wait for its memory.
        """
        new, old = np.empty(size, kind), getattr(self, name)[: 0 if name in _SCRATCH else size]
        new[: len(old)] = old
        new[len(old) :] = 0
        setattr(self, name, new)

    def _grow_terms(self, size: int) -> None:
        self._grow(_ALL_BY_TERM, size)
        if 3 * size > 2 * len(self.slots):
            self._rehash(size)

    def _rehash(self, size: int) -> None:
        """Make another table of terms, with room for `size` of them."""
        self.slots = np.full(1 << (2 * size).bit_length(), -1, np.int32)
        kernels.rehash(self.hashes, int(self.state[0]), self.slots)

    def _take(self, count: int) -> BlockSpan:
        """Return block numbers for a file: those of a removed file, or new ones."""
        self.live_blocks += count
        for number, span in enumerate(self.free):
            if span.blocks >= count:
                rest = BlockSpan(span.first + count, span.blocks - count)
                self.free[number : number + 1] = [rest] if rest.blocks else []
                return BlockSpan(span.first, count)
        first, self.block_end = self.block_end, self.block_end + count
        self._grow(_ALL_BY_BLOCK, self.block_end + 1)
        return BlockSpan(first, count)

    def _link(self, first: int, ends: Array, terms: Array, notes: Array) -> None:
        self._grow(_ENTRIES if self.settled else _UNLINKED, self.entry_end + len(terms))
        rows = slice(self.entry_end, self.entry_end + len(terms))
        self.terms[rows] = terms
        self.entry_end += len(terms)
        if self.settled:
            self._append(first, rows, ends, terms, notes)
        else:
            self.entry_notes[rows] = notes
        if self.entry_waste > _GARBAGE * self.entry_end + 4096:
            self._squeeze_entries()
        if self.state[2] > _GARBAGE * self.state[1] + 8192:
            self.squeeze()

    def _append(self, first: int, rows: slice, ends: Array, terms: Array, notes: Array) -> None:
        done = 0
        while True:
            done = kernels.link(
                *(first, done, ends, terms, notes, self.places[rows]),
                *(self.starts, self.lengths, self.rooms, self.pool, self.notes, self.state),
            )
            if done == len(terms):
                return
            self._grow(_POSTINGS, len(self.pool) + 8192)
