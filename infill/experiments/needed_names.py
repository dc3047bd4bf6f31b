"""Needed names: hidden lines whose identifiers are defined elsewhere in the project, and the share that context covers.

One to eight lines of a file are hidden. A hole's coverage is the share that the context contains of the hidden lines'
identifiers that occur nowhere else in the file and are defined elsewhere in the project. An identifier counts if it has
more than three letters and occurs in less than 2 % of the windows. The context is filled with a strategy's items, best
first, each whole or not at all, up to a budget of tokens.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from infill.context import ContextItem, ProjectIndex, Query
from infill.context.similarity import IDENTIFIER
from infill.file_kinds import CODE, language_of

if TYPE_CHECKING:
    from infill.context.index_arrays import Array

BUDGET: Final = 4_096
COMMON: Final = 0.02
MAX_LINES: Final = 8
DEFINERS: Final = 1_000
"""Blocks with a name in which its definition is looked for, in an index."""
WINDOW, STEP = 40, 20
"""Lines of the windows in which names are counted, and the distance of their starts."""
_DEFINITION: Final = re.compile(
    r"\b(?:class|const|def|define|enum|fn|fun|func|function|interface|let|mod|namespace|object|static|struct|trait|type"
    r"|typedef|using|val|var)\s+\*?\s*([^\W\d]\w*)"
    r"|([^\W\d]\w*)\s*\([^()]*\)[^;{}()]*\{"
    r"|^\s*(?:self\.|this\.|[\w<>\[\],: ]+\s)?([^\W\d]\w*)\s*[:=](?!=)",
    re.MULTILINE,
)
"""A name after a keyword, before a parameter list and a brace, or before a colon or an equals sign."""


class HiddenLines(NamedTuple):
    """Lines of a file that are hidden, with the identifiers to find."""

    query: Query
    middle: str
    wanted: frozenset[str]


def names(text: str) -> list[str]:
    """Return the identifiers of a text, in order."""
    return [name.decode() for name in IDENTIFIER.findall(text.encode(errors="replace"))]


def holes(project: Mapping[str, str], count: int, seed: str) -> list[HiddenLines]:
    """Return at most `count` holes in a project (text by path), the same ones for the same seed."""
    named = {path: [names(line) for line in text.split("\n")] for path, text in sorted(project.items())}
    rare, defined = _rare(named), _defined(project)

    def is_wanted(name: str, path: str) -> bool:
        return name in rare and bool(defined[name] - {path})

    weights = [len(lines) for lines in named.values()]
    return _drawn(project.__getitem__, [*named], weights, is_wanted, count, random.Random(seed))


def holes_of_index(index: ProjectIndex, count: int, seed: str) -> list[HiddenLines]:
    """Return at most `count` holes in source code of an index, which may have millions of blocks.

    Names are counted in the windows of the index, and looked for in at most DEFINERS of its blocks each.
    """
    paths = sorted(path for path in index.files if language_of(path) in CODE)
    weights = [index.files[path].data.count(b"\n") + 1 for path in paths]

    def is_wanted(name: str, path: str) -> bool:
        blocks = _blocks_of(index, name)
        if not 0 < 2 * len(blocks) < COMMON * index.table.live_blocks:
            return False
        elsewhere = blocks[index.table.file[blocks] != index.files[path].number][:DEFINERS]
        return any(name in _definitions(index.item(block, 1).text) for block in elsewhere.tolist())

    return _drawn(index.text, paths, weights, is_wanted, count, random.Random(seed))


def _blocks_of(index: ProjectIndex, name: str) -> "Array":
    """Return the blocks of an index in which a name occurs, in order."""
    from infill.context import kernels

    table = index.table
    terms, _, _ = kernels.occurrences(*table.lexer(name.encode(errors="replace")))
    if len(terms) != 1 or terms[0] < 0:
        return table.pool[:0]
    start = int(table.starts[terms[0]])
    return np.sort(table.pool[start : start + int(table.lengths[terms[0]])] >> 1)


def _drawn(
    text: Callable[[str], str],
    paths: Sequence[str],
    weights: Sequence[int],
    is_wanted: Callable[[str, str], bool],
    count: int,
    draw: random.Random,
) -> list[HiddenLines]:
    chosen, starts = list[HiddenLines](), set[tuple[str, int]]()
    for _ in range(200 * count if paths else 0):
        (path,) = draw.choices(paths, weights)
        size = draw.randint(1, MAX_LINES)
        lines = text(path).split("\n")
        if len(lines) < size + 5:
            continue
        start = draw.randrange(len(lines) - size)
        if (path, start) in starts:
            continue
        before, middle = (
            "".join(f"{line}\n" for line in part) for part in (lines[:start], lines[start : start + size])
        )
        after = "\n".join(lines[start + size :])
        hidden = {name for name in names(middle) if len(name) > 3} - {*names(before), *names(after)}
        wanted = frozenset(name for name in sorted(hidden) if is_wanted(name, path))
        if wanted:
            starts.add((path, start))
            chosen.append(HiddenLines(Query(path=path, prefix=before, suffix=after), middle, wanted))
        if len(chosen) == count:
            break
    return chosen


def _rare(named: Mapping[str, Sequence[Sequence[str]]]) -> set[str]:
    """Return the identifiers that occur in less than the share COMMON of the windows."""
    counts, total = Counter[str](), 0
    for each in named.values():
        for start in range(0, max(len(each) - STEP, 1), STEP):
            total += 1
            counts.update({name for line in each[start : start + WINDOW] for name in line})
    return {name for name, count in counts.items() if count < COMMON * total}


def _defined(project: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the paths of the files that define each name."""
    paths = defaultdict[str, set[str]](set)
    for path, text in project.items():
        for name in _definitions(text):
            paths[name].add(path)
    return paths


def _definitions(text: str) -> set[str]:
    return {match[match.lastindex or 1] for match in _DEFINITION.finditer(text)}


def fill(items: Iterable[ContextItem], size: Callable[[str], int], budget: int = BUDGET) -> list[ContextItem]:
    """Return the items that fit into the budget of tokens, best first, each whole or skipped."""
    room, taken = budget, []
    for item in items:
        cost = 1 + size(f"{item.path}\n") + size(item.text)
        if cost <= room:
            room -= cost
            taken.append(item)
    return taken


def coverage(wanted: frozenset[str], items: Iterable[ContextItem]) -> float:
    """Return the share of the wanted identifiers that occur in the items."""
    return len(wanted.intersection(name for item in items for name in names(item.text))) / len(wanted)
