"""Novel-identifier coverage: the share of identifiers that the missing code needs and the packed context contains.

One to eight lines of a file are hidden. A hole's coverage is the share that the context contains of the hidden lines'
identifiers that occur nowhere else in the file and are defined elsewhere in the project. An identifier counts if it has
more than three letters and occurs in less than 2 % of the windows. The context is filled with a strategy's items, best
first, each whole or not at all, up to a budget of tokens.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import bm25s
import numpy as np
from numpy.typing import NDArray

from benchmarks.context.projects import Project
from infill.context import CANDIDATES, ContextItem, ProjectIndex, Query, rank
from infill.context.memo import Memo
from infill.context.similarity import IDENTIFIER

BUDGET: Final = 4_096
COMMON: Final = 0.02
MAX_LINES: Final = 8
PEER_WINDOW, PEER_STEP = 40, 20
"""Lines of the windows that BM25 searches; shorter ones give worse results."""
PEER_QUERIES: Final = ((30, 10), (15, 5))
"""Lines before and after the caret in BM25's queries; the better of the two results counts."""
_DEFINITION: Final = re.compile(
    r"\b(?:class|const|def|define|enum|fn|fun|func|function|interface|let|mod|namespace|object|static|struct|trait|type"
    r"|typedef|using|val|var)\s+\*?\s*([^\W\d]\w*)"
    r"|([^\W\d]\w*)\s*\([^()]*\)[^;{}()]*\{"
    r"|^\s*(?:self\.|this\.|[\w<>\[\],: ]+\s)?([^\W\d]\w*)\s*[:=](?!=)",
    re.MULTILINE,
)
"""A name after a keyword, before a parameter list and a brace, or before a colon or an equals sign."""


class Hole(NamedTuple):
    """Hidden lines with the identifiers to find."""

    query: Query
    middle: str
    wanted: frozenset[str]


Ranked = Callable[[Query], Iterable[ContextItem]]


def names(text: str) -> list[str]:
    """Return the identifiers of a text, in order."""
    return [name.decode() for name in IDENTIFIER.findall(text.encode())]


def holes(project: Project, count: int, seed: str) -> list[Hole]:
    """Return at most `count` holes with identifiers to find, the same ones for the same seed."""
    lines = {path: text.split("\n") for path, text in sorted(project.items())}
    named = {path: [names(line) for line in each] for path, each in lines.items()}
    rare, defined = _rare(named), _defined(project)
    draw, chosen = random.Random(seed), list[Hole]()
    paths, weights = list(lines), [len(each) for each in lines.values()]
    for _ in range(200 * count):
        (path,) = draw.choices(paths, weights)
        size = draw.randint(1, MAX_LINES)
        if len(lines[path]) < size + 5:
            continue
        start = draw.randrange(len(lines[path]) - size)
        hidden, rest = _split(named[path], start, start + size)
        wanted = {name for name in hidden - rest if name in rare and defined[name] - {path}}
        if wanted:
            before, after = "\n".join(lines[path][:start]) + "\n", "\n".join(lines[path][start + size :])
            middle = "\n".join(lines[path][start : start + size]) + "\n"
            chosen.append(Hole(Query(path=path, prefix=before, suffix=after), middle, frozenset(wanted)))
        if len(chosen) == count:
            break
    return chosen


def _split(named: Sequence[Sequence[str]], start: int, stop: int) -> tuple[set[str], set[str]]:
    hidden = {name for line in named[start:stop] for name in line if len(name) > 3}
    return hidden, {name for line in [*named[:start], *named[stop:]] for name in line}


def _rare(named: Mapping[str, Sequence[Sequence[str]]]) -> set[str]:
    """Return the identifiers that occur in less than the share COMMON of the windows."""
    counts, total = Counter[str](), 0
    for each in named.values():
        for start in range(0, max(len(each) - PEER_STEP, 1), PEER_STEP):
            total += 1
            counts.update({name for line in each[start : start + PEER_WINDOW] for name in line})
    return {name for name, count in counts.items() if count < COMMON * total}


def _defined(project: Project) -> dict[str, set[str]]:
    """Return the paths of the files that define each name."""
    paths = defaultdict[str, set[str]](set)
    for path, text in project.items():
        for match in _DEFINITION.finditer(text):
            paths[match[match.lastindex or 1]].add(path)
    return paths


def fill(items: Iterable[ContextItem], size: Callable[[str], int]) -> list[ContextItem]:
    """Return the items that fit into the budget, best first, each whole or skipped."""
    room, taken = BUDGET, []
    for item in items:
        cost = 1 + size(f"{item.path}\n") + size(item.text)
        if cost <= room:
            room -= cost
            taken.append(item)
    return taken


def coverage(wanted: frozenset[str], items: Iterable[ContextItem]) -> float:
    """Return the share of the wanted identifiers that occur in the items."""
    return len(wanted.intersection(name for item in items for name in names(item.text))) / len(wanted)


def measure(
    project: Project, holes: Sequence[Hole], encode: Callable[[str], list[int]]
) -> dict[str, NDArray[np.float64]]:
    """Return the coverage of each hole by strategy."""
    memo = Memo(encode)

    def size(text: str) -> int:
        return len(memo(text))

    index = ProjectIndex.from_documents(sorted(project.items()), encode)
    ours: dict[str, Ranked] = {
        name: lambda query, name=name: rank(index, query, name, CANDIDATES)  # type: ignore[misc]
        for name in ("infill", "iou_exact", "rag", "iou", "path_distance")
    }
    results = {
        name: np.array([coverage(hole.wanted, fill(ranked(hole.query), size)) for hole in holes])
        for name, ranked in ours.items()
    }
    peer = Bm25(project)
    tries = [
        np.array([coverage(hole.wanted, fill(peer.rank(hole.query, *lines), size)) for hole in holes])
        for lines in PEER_QUERIES
    ]
    return results | {"bm25": max(tries, key=lambda each: float(each.mean()))}


class Bm25:
    """The library bm25s over line windows; a window that shares a line with a better one is skipped."""

    def __init__(self, project: Project) -> None:
        self._items = [item for path, text in sorted(project.items()) for item in _windows(path, text)]
        self._search = bm25s.BM25()
        self._search.index([names(item.text) for item in self._items], show_progress=False)

    def rank(self, query: Query, before: int, after: int) -> Iterator[ContextItem]:
        """Yield the windows by BM25 score, best first."""
        text = "\n".join([*query.prefix.split("\n")[-before - 1 :], *query.suffix.split("\n")[:after]])
        known = [name for name in dict.fromkeys(names(text)) if name in self._search.vocab_dict]
        if not known:
            return
        count = min(len(self._items), 6 * CANDIDATES)
        numbers, scores = self._search.retrieve([known], k=count, show_progress=False)
        taken = defaultdict[str, set[int]](set)
        for number, score in zip(numbers[0].tolist(), scores[0].tolist(), strict=True):
            item = self._items[number]
            lines = set(range(item.first_line, item.last_line + 1))
            if score > 0 and item.path != query.path and taken[item.path].isdisjoint(lines):
                taken[item.path] |= lines
                yield item


def _windows(path: str, text: str) -> Iterator[ContextItem]:
    lines = text.split("\n")
    for start in range(0, max(len(lines) - PEER_STEP, 1), PEER_STEP):
        part = lines[start : start + PEER_WINDOW]
        yield ContextItem(path=path, text="\n".join(part) + "\n", first_line=start + 1, last_line=start + len(part))


def interval(values: NDArray[np.float64], resamples: int = 2_000) -> dict[str, float]:
    """Return the mean in percentage points with its 95 % bootstrap interval; for differences it is the paired one."""
    draw = np.random.default_rng(0)
    means = values[draw.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {name: round(100 * float(x), 2) for name, x in (("value", values.mean()), ("low", low), ("high", high))}
