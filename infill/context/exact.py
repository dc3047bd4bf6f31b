"""Exact search over all windows of a project: intersection over union of identifiers or lines, and BM25.

Scores are compared as doubles; ties go to the lower path, then to the lower line. The result is that of brute force.
"""

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from infill.context.index import ProjectIndex

if TYPE_CHECKING:
    from infill.context.index_arrays import Array

Kind = Literal["tokens", "lines"]

K1: Final = 1.2
B: Final = 0.75
"""Robertson's usual values, as in Lucene."""


class Hit(NamedTuple):
    window: int
    score: float


def top_iou(index: ProjectIndex, text: str, k: int, *, kind: Kind = "tokens", without: str = "") -> list[Hit]:
    """Return the `k` windows with the highest IoU with `text`, best first; none with IoU 0, none of file `without`.

    `tokens` compares sets of identifiers, `lines` sets of stripped lines that contain a letter or digit.
    """
    from infill.context import kernels, scoring

    table = index.table
    read = kernels.occurrences if kind == "tokens" else kernels.whole_lines
    terms, values, _ = read(*table.lexer(text.encode(errors="replace")))
    known = np.unique(terms[terms >= 0]).astype(np.int32)
    scoring.add_up(known, np.ones(len(known), np.int32), table.starts, table.lengths, table.pool, table.sums)
    table.sums[1:][_blocks(index, without)] = 0
    sizes = table.window_tokens if kind == "tokens" else table.window_lines
    scores, tops = np.empty(table.block_end), np.zeros(table.block_end // scoring.STRETCH + 1)
    scoring.ious(table.sums, sizes, len(np.unique(values)), scores, tops)
    return _best(index, scores, tops, k)


def top_bm25(index: ProjectIndex, text: str, k: int, *, without: str = "") -> list[Hit]:
    """Return the `k` windows with the highest BM25 score for the distinct identifiers of `text` (Lucene's idf)."""
    from infill.context import kernels, scoring

    table = index.table
    terms, _, _ = kernels.occurrences(*table.lexer(text.encode(errors="replace")))
    known = np.unique(terms[terms >= 0])
    known = known[np.argsort(table.hashes[known])]  # sums of floats must not depend on the index's history
    scores, times = np.zeros(table.block_end), np.zeros(table.block_end + 1, np.int64)
    norms = _bm25_norms(index)
    scoring.add_bm25(
        *(known, index.idf(known), norms, K1, table.file),
        *(table.starts, table.lengths, table.pool, table.notes, times, scores),
    )
    scores[table.window_tokens[: table.block_end] == 0] = 0
    scores[_blocks(index, without)] = 0
    tops = np.maximum.reduceat(scores, np.arange(0, len(scores), scoring.STRETCH)) if len(scores) else scores
    return _best(index, scores, tops, k)


def _blocks(index: ProjectIndex, path: str) -> slice:
    file = index.files.get(path)
    return slice(0, 0) if file is None else slice(file.span.first, file.span.first + file.span.blocks)


def _best(index: ProjectIndex, scores: "Array", tops: "Array", k: int) -> list[Hit]:
    """Return the windows with the `k` highest positive scores, in order."""
    from infill.context import scoring

    if k < 1:
        return []
    windows = scoring.best(scores, tops, k)
    table = index.table
    order = np.lexsort((table.line[windows], index.project_paths.ranks[table.file[windows]], -scores[windows]))[:k]
    return [Hit(int(window), float(scores[window])) for window in windows[order]]


def _bm25_norms(index: ProjectIndex) -> "Array":
    table = index.table
    lengths = table.occurrences[: table.block_end].astype(np.float64)
    file = table.file[: table.block_end]
    paired = np.flatnonzero(file[1:] == file[:-1])
    windows = lengths.copy()
    windows[paired] += lengths[paired + 1]
    whole = windows[table.window_tokens[: table.block_end] > 0]
    mean = whole.mean() if len(whole) else 1.0
    return K1 * (1 - B + B * windows / mean)
