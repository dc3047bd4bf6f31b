"""Coverage of needed names (`infill.experiments.needed_names`) by the strategies, and by BM25 as a peer."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import bm25s
import numpy as np
from numpy.typing import NDArray

from benchmarks.context.projects import Project
from infill.context import CANDIDATES, ContextItem, ProjectIndex, Query, rank
from infill.context.memo import Memo
from infill.experiments.needed_names import STEP, WINDOW, HiddenLines, coverage, fill, names

PEER_QUERIES: Final = ((30, 10), (15, 5))
"""Lines before and after the caret in BM25's queries, whose windows have 40 lines, since shorter ones give worse
results; the better of the two results counts."""

Ranked = Callable[[Query], Iterable[ContextItem]]


def measure(
    project: Project, holes: Sequence[HiddenLines], encode: Callable[[str], list[int]]
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
    for start in range(0, max(len(lines) - STEP, 1), STEP):
        part = lines[start : start + WINDOW]
        yield ContextItem(path=path, text="\n".join(part) + "\n", first_line=start + 1, last_line=start + len(part))


def interval(values: NDArray[np.float64], resamples: int = 2_000) -> dict[str, float]:
    """Return the mean in percentage points with its 95 % bootstrap interval; for differences it is the paired one."""
    draw = np.random.default_rng(0)
    means = values[draw.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {name: round(100 * float(x), 2) for name, x in (("value", values.mean()), ("low", low), ("high", high))}
