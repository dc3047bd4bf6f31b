"""Infill's ranking, the default: it selects blocks that the missing code probably needs and the file does not show.

1. Windows are scored by the identifiers and lines that they share with the text around the caret: rare and near ones
   count for more, and files that are near, imported or recently opened get a bonus.
2. The best windows determine which identifiers to expect: those in many of them, and in the best of them.
3. Blocks are chosen one by one, each for the expected identifiers per token that neither the current file nor an
   earlier block has. So no room is spent on what is already known.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from infill.context.caret import Query, first_lines, imports, last_lines
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
    idf_power: float = 2.0
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
    sharpness: float = 5.0
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


WEIGHTS: Final = Weights()
BYTES_PER_TOKEN: Final = 3.6
_FEW: Final = 10
"""A term in at most this many blocks is never common."""
_SIZES: Final = 4_096
"""Windows of more identifiers, and blocks of more tokens, count as having this many."""
_DEFINERS: Final = 2
"""Maximum number of blocks that define a name; more definitions say little."""
_COMMON_DEFINED: Final = 200
"""Definitions of names in more blocks than this are not searched for."""
_SEEN_CHARS: Final = 200_000
"""Number of characters of the current file that are read on each side of the caret."""
_WORD: Final = re.compile(r"\w+")


class Seen(NamedTuple):
    """The identifiers of the current file, in order, and the caret's line."""

    terms: "Array"
    """Terms of the identifiers that other files have."""
    lines: "Array"
    """Line of each identifier."""
    caret: int
    """Line of the caret; the rest of the line after the caret counts as one more line."""


def rank_infill(index: ProjectIndex, query: Query, k: int, weights: Weights = WEIGHTS) -> list[ContextItem]:
    """Return at most `k` items, best first; a score is the worth of the identifiers that earlier items do not have.

    A keystroke in a word that no file has changes nothing of what the ranking depends on; then it is the last one.
    """
    seen, imported = _seen(index, query), imports(query.prefix)
    asked = _ask(index, query, seen, imported, weights)
    near = seen.terms[_near(seen, weights.definition_lines, weights.definition_lines // 2 + 1)]
    terms = (array.tobytes() for array in (*asked, near, seen.terms))
    key = (query.path, query.recent, imported, k, weights, *terms)
    return [*index.remembered("ranking", key, lambda: _ranked(index, query, k, weights, seen, imported, asked, near))]


def _ranked(
    index: ProjectIndex,
    query: Query,
    k: int,
    weights: Weights,
    seen: Seen,
    imported: str,
    asked: tuple["Array", "Array"],
    near: "Array",
) -> list[ContextItem]:
    from infill.context import scoring

    table = index.table
    blocks = _relevant(index, query, imported, weights, asked, near)
    merits = table.relevance[blocks] ** weights.relevance_power
    expected = scoring.expect(
        *(blocks, table.relevance, weights.half * scoring.RELEVANCE_UNIT, _most(index, weights.common)),
        *(seen.terms, weights.known, table.term_starts, table.tokens, table.terms, table.lengths, table.local),
    )
    chosen, gains = scoring.choose(
        *(blocks, table.file, merits, table.size, BYTES_PER_TOKEN, weights.heading_tokens),
        *(_by_size(weights.cost_power), k, *expected),
    )
    return _items(index, blocks[chosen], gains)


def _seen(index: ProjectIndex, query: Query) -> Seen:
    from infill.context import kernels

    before, after = query.prefix[-_SEEN_CHARS:], query.suffix[:_SEEN_CHARS]
    # A line feed at the caret keeps the halves of a split name separate.
    terms, _, lines = kernels.occurrences(*index.table.lexer(f"{before}\n{after}".encode(errors="replace")))
    known = (terms >= 0) & (index.table.lengths[terms] > 0)
    return Seen(terms[known], lines[known], before.count("\n"))


def _ask(index: ProjectIndex, query: Query, seen: Seen, imported: str, weights: Weights) -> tuple["Array", "Array"]:
    """Return the distinct terms around the caret, and the weight of each, in scoring.WEIGHT_UNIT."""
    from infill.context import kernels, scoring

    table = index.table
    before, after = last_lines(query.prefix, weights.lines_before), first_lines(query.suffix, weights.lines_after)
    whole, _, lines = kernels.whole_lines(*table.lexer(f"{before}\n{after}".encode(errors="replace")))
    names, _, _ = kernels.occurrences(*table.lexer(imported.encode(errors="replace")))
    near = _near(seen, weights.lines_before, weights.lines_after + 1)
    asked: tuple[Array, Array] = scoring.ask(
        *(seen.terms[near], seen.caret - seen.lines[near], whole, before.count("\n") - lines, names),
        *(np.array([1.0, weights.whole_line, weights.imported_name]), weights.after, weights.decay_lines),
        *(weights.idf_power, weights.least, _most(index, weights.asking)),
        *(table.live_blocks, table.lengths, table.local),
    )
    return asked


def _near(seen: Seen, before: int, after: int) -> slice:
    """Return the range of the identifiers from `before` lines before the caret's line to `after` lines after it."""
    return slice(*np.searchsorted(seen.lines, (seen.caret - before, seen.caret + after + 1)))


def _relevant(
    index: ProjectIndex,
    query: Query,
    imported: str,
    weights: Weights,
    asked: tuple["Array", "Array"],
    near: "Array",
) -> "Array":
    """Return the blocks that are relevant to the text around the caret, by path and line.

    Their relevance, in scoring.RELEVANCE_UNIT, is in `table.relevance`.
    """
    from infill.context import scoring

    table, end = index.table, index.table.block_end
    scoring.add_up(*asked, table.starts, table.lengths, table.pool, table.sums)
    key = (query.path, query.recent, imported, weights)
    prior = index.remembered("prior", key, lambda: _prior(index, query, imported, weights))
    best, scores = scoring.weighted(
        *(table.sums[: end + 1], table.window_tokens, _by_size(weights.size_power), table.file, prior, weights.windows)
    )
    defining = scoring.add_definitions(
        *(near, _COMMON_DEFINED, _DEFINERS, table.starts, table.lengths),
        *(table.pool, table.notes, int(weights.definition * scoring.RELEVANCE_UNIT), table.relevance, table.local),
    )
    spread = scoring.spread(best, scores, weights.sharpness, table.file, end, table.relevance)
    current = index.files.get(query.path)
    if current is not None:
        table.relevance[current.span.first : current.span.first + current.span.blocks] = 0
    blocks = np.concatenate([spread, defining])
    blocks = blocks[table.relevance[blocks] > 0]
    by_place: Array = blocks[np.argsort((index.project_paths.ranks[table.file[blocks]] << 32) + table.line[blocks])]
    return by_place


def _most(index: ProjectIndex, share: float) -> int:
    """Return the maximum number of blocks of a term that is not common, from the share of all blocks."""
    return max(_FEW, int(share * index.table.live_blocks))


@cache
def _by_size(power: float) -> "Array":
    """Return size**-power, the factor of a window by its number of identifiers, or of a block by its tokens."""
    factors: Array = np.maximum(np.arange(_SIZES), 1.0) ** -power
    factors[0] = 0  # no window with identifiers starts there
    return factors


def _prior(index: ProjectIndex, query: Query, imported: str, weights: Weights) -> "Array":
    """Return a factor by file number: at least 1, with bonuses for its location; 0 for the current file."""
    paths = index.project_paths
    prior = (1 + weights.near * np.exp(-paths.folder_distances(query.path) / 2))[paths.folders.of_files]
    for name in set(_WORD.findall(imported)):
        files = [number for number in paths.stems.get(name, ()) if index.paths[number]]
        for number in files:
            prior[number] += weights.imported / len(files) ** 0.5
    for place, path in enumerate(query.recent):
        if path in index.files:
            prior[index.files[path].number] += weights.recent / 2**place
    if query.path in index.files:
        prior[index.files[query.path].number] = 0
    return prior


def _items(index: ProjectIndex, blocks: "Array", gains: "Array") -> list[ContextItem]:
    """Return the chosen blocks as items; neighbours become one item, at the first one's place, with all their gains."""
    numbers = blocks.tolist()
    gain = dict(zip(numbers, gains.tolist(), strict=True))
    file = dict(zip(numbers, index.table.file[blocks].tolist(), strict=True))
    items = []
    for block in numbers:
        if block not in gain:
            continue
        first = last = block
        while file.get(first - 1) == file[block]:
            first -= 1
        while file.get(last + 1) == file[block]:
            last += 1
        score = sum(gain.pop(each) for each in range(first, last + 1))
        items.append(index.item(first, last - first + 1, score=score, strategy="infill"))
    return items
