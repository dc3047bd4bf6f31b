"""Infill's own ranking, the default: choose what the missing code is likely to need and the file does not show.

1. The identifiers and lines round the caret ask for windows that hold the same: rarer and nearer ones count for more,
   and files that are near, imported or lately opened get a little extra.
2. The best windows say which identifiers to expect: those that stand in many of them, and in the best of them.
3. Blocks are chosen one by one, each for the expected identifiers per token that neither the current file nor a block
   chosen before has. So no room goes to what is known already.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from infill.context.caret import Query, first_lines, imports, last_lines
from infill.context.index import ProjectIndex
from infill.prompt import ContextItem

if TYPE_CHECKING:
    from infill.context.table import Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Found on five projects, checked on six others; the benchmark `context` measures them, docs/log.md tells how."""

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
"""Windows of more identifiers than this count as having so many."""
_DEFINERS: Final = 2
"""A name that more blocks define tells little."""
_COMMON_DEFINED: Final = 200
"""A name in more blocks is not looked up."""
_WORD: Final = re.compile(r"\w+")


class Asked(NamedTuple):
    """What the text round the caret asks for, and what the file has already."""

    terms: "Array"
    weights: "Array"
    known: "Array"
    imports: str


def rank_infill(index: ProjectIndex, query: Query, k: int, weights: Weights = WEIGHTS) -> list[ContextItem]:
    """At most `k` items, best first; a score is the worth of the identifiers that an item adds to those before it."""
    from infill.context import scoring

    table = index.table
    asked = _ask(index, query, weights)
    blocks = _relevant(index, query, asked, weights)
    if not len(blocks) or k < 1:
        table.relevance[blocks] = 0
        return []
    merits = table.relevance[blocks] ** weights.relevance_power
    scoring.expect(
        *(blocks, table.relevance, weights.half * scoring.RELEVANCE_UNIT, _most(index, weights.common)),
        *(table.term_starts, table.tokens, table.terms, table.lengths, table.expected, table.worth),
    )
    table.worth[asked.known] *= weights.known
    chosen, gains = scoring.choose(
        *(blocks, table.file, merits, table.size[blocks] / BYTES_PER_TOKEN, weights.heading_tokens),
        *(weights.cost_power, k, table.term_starts, table.tokens, table.terms, table.worth),
    )
    return _items(index, blocks[chosen], gains)


def _ask(index: ProjectIndex, query: Query, weights: Weights) -> Asked:
    """The terms round the caret with their weights, each at its highest."""
    from infill.context import kernels, scoring

    # A line feed at the caret keeps the halves of a split name apart.
    known, _, _ = kernels.occurrences(*index.table.lexer(f"{query.prefix}\n{query.suffix}".encode(errors="replace")))
    before, after = last_lines(query.prefix, weights.lines_before), first_lines(query.suffix, weights.lines_after)
    near = index.table.lexer(f"{before}\n{after}".encode(errors="replace"))
    caret = before.count("\n")
    found = [np.empty(0, np.int64)], [np.empty(0)]
    for read, scale in ((kernels.occurrences, 1.0), (kernels.whole_lines, weights.whole_line)):
        terms, _, lines = read(*near)
        distance = np.where(lines <= caret, caret - lines, lines - caret - 1)
        found[0].append(terms)
        found[1].append(
            np.where(lines <= caret, scale, scale * weights.after) * np.exp(-distance / weights.decay_lines)
        )
    imported = imports(query.prefix)
    names, _, _ = kernels.occurrences(*index.table.lexer(imported.encode(errors="replace")))
    terms = np.concatenate([*found[0], names])
    values = np.concatenate([*found[1], np.full(len(names), weights.imported_name)])
    asking = (terms >= 0) & (index.table.lengths[terms] <= _most(index, weights.asking))
    distinct, place = np.unique(terms[asking], return_inverse=True)
    highest = np.zeros(len(distinct))
    np.maximum.at(highest, place, values[asking])
    units = highest * index.idf(distinct) ** weights.idf_power * scoring.WEIGHT_UNIT
    return Asked(distinct, units.astype(np.int32), known[known >= 0], imported)


def _relevant(index: ProjectIndex, query: Query, asked: Asked, weights: Weights) -> "Array":
    """The blocks that have to do with what was asked for, by path and line; how much, stands in `table.relevance`."""
    from infill.context import scoring

    table, end = index.table, index.table.block_end
    scoring.add_up(asked.terms, asked.weights, table.starts, table.lengths, table.pool, table.sums)
    by_size = np.maximum(np.arange(_SIZES), 1.0) ** -weights.size_power
    prior = _prior(index, query, asked.imports, weights)
    scoring.weighted(table.sums, table.window_tokens, by_size, table.file, prior, table.scores[:end])
    best = scoring.best(table.scores[:end], weights.windows)
    shares = (table.scores[best] / table.scores[best].max(initial=0)) ** weights.sharpness * scoring.RELEVANCE_UNIT
    blocks = np.concatenate(
        [
            scoring.spread(best, shares.astype(np.int64), table.file, end, table.relevance),
            _defining(index, query, weights),
        ]
    )
    current = index.files.get(query.path)
    if current is not None:
        table.relevance[current.span.first : current.span.first + current.span.blocks] = 0
    blocks = np.unique(blocks[table.relevance[blocks] > 0])
    return blocks[np.lexsort((table.line[blocks], index.layout.ranks[table.file[blocks]]))]


def _defining(index: ProjectIndex, query: Query, weights: Weights) -> "Array":
    """The blocks that define names of the nearest lines; they get a little relevance."""
    from infill.context import kernels, scoring

    table = index.table
    near = last_lines(query.prefix, weights.definition_lines), first_lines(query.suffix, weights.definition_lines // 2)
    terms, _, _ = kernels.occurrences(*table.lexer("\n".join(near).encode(errors="replace")))
    terms = np.unique(terms[terms >= 0])
    found: Array = scoring.add_definitions(
        *(terms[table.lengths[terms] <= _COMMON_DEFINED], _DEFINERS, table.starts, table.lengths),
        *(table.pool, table.notes, int(weights.definition * scoring.RELEVANCE_UNIT), table.relevance),
    )
    return found


def _most(index: ProjectIndex, share: float) -> int:
    """So many blocks, a share of all, are not yet common."""
    return max(_FEW, int(share * index.table.live_blocks))


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
    gain = dict(zip(blocks.tolist(), gains.tolist(), strict=True))
    file = index.table.file
    items = []
    for block in blocks.tolist():
        if block not in gain:
            continue
        first = last = block
        while first - 1 in gain and file[first - 1] == file[block]:
            first -= 1
        while last + 1 in gain and file[last + 1] == file[block]:
            last += 1
        score = sum(gain.pop(each) for each in range(first, last + 1))
        items.append(index.item(first, last - first + 1, score=score, strategy="infill"))
    return items
