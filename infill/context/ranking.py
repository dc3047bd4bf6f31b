"""Infill's ranking, the default: it selects blocks that the missing code probably needs and the file does not show.

1. Windows are scored by the identifiers and lines that they share with the text around the caret: rare and near ones
   count for more, and files that are near, imported or recently opened get a bonus.
2. The best windows determine which identifiers to expect: those in many of them, and in the best of them.
3. Blocks are chosen one by one, each for the expected identifiers per token that neither the current file nor an
   earlier block has. So no room is spent on what is already known.
"""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from infill.context.caret import HEAD_CHARS, Query
from infill.context.index import ProjectIndex
from infill.prompt import ContextItem

if TYPE_CHECKING:
    from infill.context.index_arrays import Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights of the ranking, tuned on four projects, tested on six others (benchmark `context`, docs/log.md)."""

    lines_before: int = 60
    lines_after: int = 40
    """Lines before and after the caret whose terms are searched for."""
    decay_lines: float = 16.0
    """Distance from the caret, in lines, at which a line's weight is 1 / e."""
    after: float = 1.2
    """Weight of text after the caret; text before it has 1."""
    whole_line: float = 0.3
    """Weight of a whole line; an identifier has 1."""
    imported_name: float = 0.1
    """Minimum weight of names in the imports."""
    asking: float = 0.1
    """Identifiers and lines in more than this share of the blocks (and more than 10) are not searched for."""
    idf_power: int = 2
    """Power of the idf in a term's weight."""
    least: float = 0.04
    """Terms with less than this share of the highest weight are skipped: it saves time and hardly affects coverage."""
    size_power: float = 0.5
    """A window's sum is divided by this power of the number of its distinct identifiers."""
    near: float = 0.25
    """Bonus for a file in the same folder; it falls with e**(-hops / 2)."""
    imported: float = 0.2
    """Bonus for a file that an import names, divided by the square root of the number of files of that name."""
    recent: float = 0.25
    """Bonus for the file opened last; half of it for the one before, and so on."""
    definition: float = 0.003
    """Relevance of a block that defines a name of the nearest lines, divided among the defining blocks; the best
    window's is 1. A higher value reduced coverage; this one includes definitions if there is room."""
    definition_lines: int = 8
    """Lines before the caret, and half as many after it, whose names' definitions count."""
    windows: int = 200
    """Number of best windows that determine the expected identifiers."""
    sharpness: int = 5
    """A window's relevance is the ratio of its score to the best one's, to this power."""
    half: float = 1.4
    """Sum of relevance at which an identifier's worth is one half."""
    known: float = 0.02
    """Factor of the worth of an identifier that the current file already has."""
    common: float = 0.03
    """Identifiers in more than this share of the blocks (and more than 10) are worth nothing."""
    cost_power: float = 0.9
    relevance_power: float = 0.02
    """Blocks are chosen by gain * relevance**relevance_power / tokens**cost_power; a higher power of relevance reduced
    coverage."""
    heading_tokens: int = 12
    """Tokens that a block costs besides its text, unless it continues a chosen one."""

    @cached_property
    def arrays(self) -> "tuple[Array, Array, Array, Array]":
        """The weights as `scoring.rank` takes them.

        After the weights come the factors of a window by its number of identifiers, of a block by its tokens, and of a
        file by its distance from the caret's.
        """
        from infill.context import scoring

        values = {each.name: getattr(self, each.name) for each in fields(self)}
        settings = np.array([tuple(values.values())], [(name, type(value)) for name, value in values.items()])
        sizes = np.maximum(np.arange(scoring.SIZES), 1.0)
        by_size, by_cost = sizes**-self.size_power, sizes**-self.cost_power
        by_size[0] = by_cost[0] = 0  # no window with identifiers starts there
        return settings, by_size, by_cost, 1 + self.near * np.exp(-np.arange(_HOPS) / 2)


WEIGHTS: Final = Weights()
_SEEN_CHARS: Final = 200_000
"""Number of characters of the current file that are read on each side of the caret, besides its imports."""
_WORD: Final = re.compile(r"\w+")
_SPACED: Final = bytes(byte if _WORD.match(chr(byte)) else ord(" ") for byte in range(128)).ljust(256)
"""A blank for each character that is in no word, and the others, in ASCII."""
_HOPS: Final = 128
"""Distances between folders, in hops; longer ones count as this one."""


def rank_infill(index: ProjectIndex, query: Query, k: int, weights: Weights = WEIGHTS) -> list[ContextItem]:
    """Return at most `k` items, best first; a score is the worth of the identifiers that earlier items do not have.

    A keystroke in a word that no file has changes nothing of what the ranking depends on; then it is the last one.
    """
    seen, imports = _seen(index, query, weights)
    key = (query.path, query.recent, imports, k, weights, seen.tobytes())
    return [*index.remembered(key, lambda: _ranked(index, query, k, weights, seen, imports))]


def _ranked(
    index: ProjectIndex, query: Query, k: int, weights: Weights, seen: "Array", imports: bytes
) -> list[ContextItem]:
    from infill.context import scoring

    table, paths = index.table, index.project_paths
    folders, (around, depth) = paths.folders, paths.around(query.path)
    current = index.files.get(query.path)
    rows, scores = scoring.rank(
        *(*weights.arrays, k, seen),
        *(folders.depths, folders.ends, folders.of_files, paths.ranks, around, depth),
        *(*_lifts(index, query, imports, weights), -1 if current is None else current.number),
        *(table.live_blocks, table.block_end, table.starts, table.lengths, table.pool, table.notes, table.terms),
        *(table.local, table.file, table.line, table.byte, table.size, table.term_starts, table.tokens),
        *(table.window_tokens, table.sums, table.relevance),
    )
    return index.parts(rows.tolist(), scores.tolist(), "infill")


def _seen(index: ProjectIndex, query: Query, weights: Weights) -> "tuple[Array, bytes]":
    """Return the terms of the file with the caret, as `kernels.surroundings` does, and the lines of its imports."""
    from infill.context import kernels

    before, table = query.prefix, index.table
    head = min(len(before), HEAD_CHARS) if before.isascii() else len(before[:HEAD_CHARS].encode(errors="replace"))
    if len(before) > _SEEN_CHARS:
        before = f"{before[:HEAD_CHARS]}\n{before[-_SEEN_CHARS:]}"
    above, below = before.encode(errors="replace"), query.suffix[:_SEEN_CHARS].encode(errors="replace")
    data = b"\n".join((above, below))  # a line feed at the caret keeps the halves of a split name separate
    seen, bounds = kernels.surroundings(
        np.frombuffer(data, np.uint8), len(above), head, weights.lines_before, weights.lines_after, *table.lexer_arrays
    )
    return seen, b"\n".join([data[begin:end] for begin, end in bounds.tolist()])


def _words(imports: bytes) -> list[str]:
    if imports.isascii():  # the same in half the time
        return imports.translate(_SPACED).decode().split()
    return _WORD.findall(imports.decode(errors="replace"))


def _lifts(index: ProjectIndex, query: Query, imports: bytes, weights: Weights) -> "tuple[Array, Array]":
    """Return the numbers of files that are imported or were recently opened, and what this adds to their factors."""
    lifted, lifts = list[int](), list[float]()
    stems = index.project_paths.stems
    for name in stems.keys() & _words(imports):
        files = [number for number in stems[name] if index.paths[number]]
        lifted += files
        lifts += [weights.imported / max(len(files), 1) ** 0.5] * len(files)
    for place, path in enumerate(query.recent):
        if path in index.files:
            lifted.append(index.files[path].number)
            lifts.append(weights.recent / 2**place)
    return np.array(lifted, np.int64), np.array(lifts, np.float64)
