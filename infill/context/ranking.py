"""Infill's own ranking, the default: choose what the missing code is likely to need and the file does not show.

1. The identifiers and lines round the caret ask for windows that hold the same: rarer and nearer ones count for more,
   and files that are near, imported or recently opened get a little extra.
2. The best windows say which identifiers to expect: those that stand in many of them, and in the best of them.
3. Blocks are chosen one by one, each for the expected identifiers per token that neither the current file nor a block
   chosen before has. So no room goes to what is known already.
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
    from infill.context.table import Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Found on four projects, checked on six others; the benchmark `context` measures them, docs/log.md tells how."""

    lines_before: int = 60
    lines_after: int = 40
    """Lines round the caret that ask."""
    decay_lines: float = 16.0
    """A line so far from the caret weighs 1 / e."""
    after: float = 1.2
    """Weight of what stands behind the caret, beside 1 for what stands before it."""
    whole_line: float = 0.3
    """Weight of a line as a whole, beside 1 for an identifier."""
    imported_name: float = 0.1
    """Least weight of the names in the imports."""
    asking: float = 0.1
    """An identifier or line in more than this share of the blocks (and more than 10) does not ask."""
    idf_power: float = 2.0
    least: float = 0.04
    """What asks for less than this share of the most is passed over: for speed, coverage hardly knows it."""
    size_power: float = 0.5
    """A window's sum is divided by this power of its distinct identifiers."""
    near: float = 0.25
    """Extra for a file of the same folder; it falls with e**(-hops / 2)."""
    imported: float = 0.2
    """Extra for a file whose name an import holds, divided by the root of the number of files of that name."""
    recent: float = 0.25
    """Extra for the file opened last; half as much for the one before, and so on."""
    definition: float = 0.003
    """Relevance of the block that defines a name of the nearest lines, shared if there are two; the best window's is 1.
    No more, since this took coverage away; but a definition comes along where there is room."""
    definition_lines: int = 8
    """Lines before the caret, and half as many after it, whose definitions count."""
    windows: int = 200
    """So many best windows say what to expect."""
    sharpness: float = 5.0
    """Relevance of a window: its score by the best one's, to this power."""
    half: float = 1.4
    """Sum of relevance that makes an identifier's worth one half."""
    known: float = 0.02
    """Worth of an identifier that the current file has already, beside 1 for a new one."""
    common: float = 0.03
    """An identifier in more than this share of the blocks (and more than 10) is worth nothing."""
    cost_power: float = 0.9
    relevance_power: float = 0.02
    """Blocks are chosen by gain * relevance**relevance_power / tokens**cost_power; more of relevance cost coverage."""
    heading_tokens: int = 12
    """What a block costs besides its text unless it continues a chosen one."""


WEIGHTS: Final = Weights()
BYTES_PER_TOKEN: Final = 3.6
_FEW: Final = 10
"""Nothing is common in so few blocks."""
_SIZES: Final = 4_096
"""Windows of more identifiers, or blocks of more tokens, count as having so many."""
_DEFINERS: Final = 2
"""A name that more blocks define tells little."""
_COMMON_DEFINED: Final = 200
"""A name in more blocks is not looked up."""
_SEEN_CHARS: Final = 200_000
"""So much of the current file on each side of the caret is looked at."""
_WORD: Final = re.compile(r"\w+")


class Seen(NamedTuple):
    """The identifiers of the current file, in order, and where the caret stands."""

    terms: "Array"
    """Only those that the index knows."""
    lines: "Array"
    caret: int
    """The caret's line; what stands behind the caret in it counts as one more line."""


def rank_infill(index: ProjectIndex, query: Query, k: int, weights: Weights = WEIGHTS) -> list[ContextItem]:
    """At most `k` items, best first; a score is the worth of the identifiers that an item adds to those before it."""
    from infill.context import scoring

    table = index.table
    seen, imported = _seen(index, query), imports(query.prefix)
    blocks = _relevant(index, query, seen, imported, weights)
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
    # A line feed at the caret keeps the halves of a split name apart.
    terms, _, lines = kernels.occurrences(*index.table.lexer(f"{before}\n{after}".encode(errors="replace")))
    return Seen(terms[terms >= 0], lines[terms >= 0], before.count("\n"))


def _ask(index: ProjectIndex, query: Query, seen: Seen, imported: str, weights: Weights) -> tuple["Array", "Array"]:
    """What stands round the caret: distinct terms, and how much each asks for, in scoring.WEIGHT_UNIT."""
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
    """The identifiers of so many lines before the caret's and after it."""
    return slice(*np.searchsorted(seen.lines, (seen.caret - before, seen.caret + after + 1)))


def _relevant(index: ProjectIndex, query: Query, seen: Seen, imported: str, weights: Weights) -> "Array":
    """The blocks that have to do with what stands round the caret, by path and line.

    How much, in scoring.RELEVANCE_UNIT, is in `table.relevance`.
    """
    from infill.context import scoring

    table, end = index.table, index.table.block_end
    terms, asking = _ask(index, query, seen, imported, weights)
    scoring.add_up(terms, asking, table.starts, table.lengths, table.pool, table.sums)
    prior = _prior(index, query, imported, weights)
    scores, tops = table.scores[:end], np.zeros(end // scoring.STRETCH + 1)
    scoring.weighted(table.sums, table.window_tokens, _by_size(weights.size_power), table.file, prior, scores, tops)
    best = scoring.best(scores, tops, weights.windows)
    near = _near(seen, weights.definition_lines, weights.definition_lines // 2 + 1)
    defining = scoring.add_definitions(
        *(np.unique(seen.terms[near]), _COMMON_DEFINED, _DEFINERS, table.starts, table.lengths),
        *(table.pool, table.notes, int(weights.definition * scoring.RELEVANCE_UNIT), table.relevance),
    )
    spread = scoring.spread(best, scores, weights.sharpness, table.file, end, table.relevance)
    current = index.files.get(query.path)
    if current is not None:
        table.relevance[current.span.first : current.span.first + current.span.blocks] = 0
    blocks = np.concatenate([spread, defining])
    blocks = blocks[table.relevance[blocks] > 0]
    order = np.lexsort((table.line[blocks], index.layout.ranks[table.file[blocks]]))
    by_place: Array = blocks[order]
    return by_place


def _most(index: ProjectIndex, share: float) -> int:
    """So many blocks, a share of all, are not yet common."""
    return max(_FEW, int(share * index.table.live_blocks))


@cache
def _by_size(power: float) -> "Array":
    """The factor of a window by the number of its identifiers, or of a block by its tokens: size**-power."""
    factors: Array = np.maximum(np.arange(_SIZES), 1.0) ** -power
    factors[0] = 0  # no window starts there, or none with an identifier
    return factors


def _prior(index: ProjectIndex, query: Query, imported: str, weights: Weights) -> "Array":
    """By number of the file: a factor for where it lies; 0 for the current one."""
    prior = 1 + weights.near * np.exp(-index.layout.distances(query.path) / 2)
    for name in set(_WORD.findall(imported)):
        files = index.layout.stems.get(name, ())
        for number in files:
            prior[number] += weights.imported / len(files) ** 0.5
    for place, path in enumerate(query.recent):
        if path in index.files:
            prior[index.files[path].number] += weights.recent / 2**place
    if query.path in index.files:
        prior[index.files[query.path].number] = 0
    return prior


def _items(index: ProjectIndex, blocks: "Array", gains: "Array") -> list[ContextItem]:
    """Neighbouring blocks become one item, which stands where the first of them was chosen and has all their gains."""
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
