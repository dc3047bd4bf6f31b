"""The context strategies by name: the paper's three, as far as they are known, exact search, and our own.

`iou`: files of the same directory, by IoU of their lines with the prefix's. `path_distance`: files by directory hops,
nearest first. `rag`: line windows of the nearest files and of recently opened ones, by IoU of BPE tokens with the lines
around the caret. Only a summary of these rules is public (docs/context.md); window sizes and limits are ours.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from infill.context import exact
from infill.context.caret import Query, first_lines, last_lines
from infill.context.index import ProjectIndex
from infill.context.ranking import rank_infill
from infill.context.similarity import iou, line_set
from infill.errors import InputError
from infill.prompt import ContextItem

NEAREST_FILES: Final = 50
"""Candidates of `rag` and `path_distance`, besides recent files."""
MAX_FILE_LINES: Final = 200
"""Maximum lines of a file in a strategy that ranks whole files; of a longer file, the first lines are used."""
CARET_LINES: Final = 10
"""Lines before and after the caret that similar windows are searched for: together about a window."""
BM25_LINES: Final = (30, 10)
"""Lines before and after the caret for BM25, which benefits from more."""

Rank = Callable[[ProjectIndex, Query, int], list[ContextItem]]


def rank(index: ProjectIndex, query: Query, strategy: str, k: int = 8) -> list[ContextItem]:
    """Return at most `k` items by `strategy`, best first; no line of a file twice, none of the current file.

    Raises InputError for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown context strategy {strategy!r}: use one of {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](index, query, k)


def _none(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:  # noqa: ARG001
    return []


def _iou(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    lines = line_set(query.prefix.encode(errors="replace"))
    hops = index.project_paths.distances(query.path)
    beside = [path for path, file in index.files.items() if path != query.path and hops[file.number] == 0]
    scores = {path: iou(lines, line_set(index.files[path].data)) for path in beside}
    best = sorted(beside, key=lambda path: (-scores[path], path))[:k]
    return [_head(index, path, scores[path], "iou") for path in best]


def _path_distance(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    hops = index.project_paths.distances(query.path)
    return [
        _head(index, path, -float(hops[index.files[path].number]), "path_distance")
        for path in _nearest(index, query, k)
    ]


def _rag(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    """Rank windows by IoU of BPE tokens if the index has a tokenizer, otherwise of identifiers."""
    recent = [path for path in query.recent if path in index.files and path != query.path]
    wanted = index.token_set(round_caret(query, CARET_LINES, CARET_LINES).encode(errors="replace"))
    hits = []
    for path in dict.fromkeys([*recent, *_nearest(index, query, NEAREST_FILES)]):
        for window, score in zip(index.windows(path), index.window_ious(path, wanted).tolist(), strict=True):
            if score > 0:
                hits.append((-score, path, window))
    return _windows(index, (exact.Hit(window, -score) for score, _, window in sorted(hits)), k, "rag")


def _iou_exact(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    text = round_caret(query, CARET_LINES, CARET_LINES)
    return _windows(index, exact.top_iou(index, text, 3 * k, without=query.path), k, "iou_exact")


def _iou_lines(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    text = round_caret(query, CARET_LINES, CARET_LINES)
    return _windows(index, exact.top_iou(index, text, 3 * k, kind="lines", without=query.path), k, "iou_lines")


def _bm25(index: ProjectIndex, query: Query, k: int) -> list[ContextItem]:
    text = round_caret(query, *BM25_LINES)
    return _windows(index, exact.top_bm25(index, text, 3 * k, without=query.path), k, "bm25")


def round_caret(query: Query, before: int, after: int) -> str:
    """Return the lines around the caret, with a line feed in its place."""
    return f"{last_lines(query.prefix, before)}\n{first_lines(query.suffix, after)}"


def _nearest(index: ProjectIndex, query: Query, k: int) -> list[str]:
    """Return the `k` files with the fewest directory hops, ties in alphabetical order."""
    hops = index.project_paths.distances(query.path)
    others = (path for path in index.files if path != query.path)
    return sorted(others, key=lambda path: (hops[index.files[path].number], path))[:k]


def _head(index: ProjectIndex, path: str, score: float, strategy: str) -> ContextItem:
    """Return a file, up to MAX_FILE_LINES, as an item."""
    lines = index.text(path).split("\n", MAX_FILE_LINES)
    if len(lines) > MAX_FILE_LINES:
        lines[MAX_FILE_LINES] = ""
    text = "\n".join(lines)
    last = text.count("\n") + (not text.endswith("\n"))
    return ContextItem(path=path, text=text, last_line=last, score=score, strategy=strategy)


def _windows(index: ProjectIndex, hits: Iterable[exact.Hit], k: int, strategy: str) -> list[ContextItem]:
    """Return the first `k` windows that share no block with an earlier one."""
    return list(_apart(index, hits, k, strategy))


def _apart(index: ProjectIndex, hits: Iterable[exact.Hit], k: int, strategy: str) -> Iterator[ContextItem]:
    taken: set[int] = set()
    for window, score in hits:
        blocks = range(window, window + index.width(window))
        if k < 1:
            return
        if taken.isdisjoint(blocks):
            taken.update(blocks)
            k -= 1
            yield index.item(window, len(blocks), score=score, strategy=strategy)


STRATEGIES: Final[dict[str, Rank]] = {
    "infill": rank_infill,
    "iou": _iou,
    "path_distance": _path_distance,
    "rag": _rag,
    "iou_exact": _iou_exact,
    "iou_lines": _iou_lines,
    "bm25": _bm25,
    "none": _none,
}
"""Strategies by name, the default first."""
