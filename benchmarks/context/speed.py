"""Speed of exact search, ranking, building and updating, against peers on the same windows and queries.

Times are processor time of this process, so that other load on the machine does not count; the peers run in the same
process.
"""

import random
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import bm25s
import numpy as np
import rank_bm25
import tantivy
from numpy.typing import NDArray

from benchmarks.context.coverage import PEER_QUERIES
from infill.context import ProjectIndex, Query, exact, rank
from infill.context.caret import first_lines, last_lines
from infill.context.similarity import iou, token_set
from infill.experiments.needed_names import names

K: Final = 20
ROUND_CARET: Final = 10
"""Lines before and after the caret that exact search compares, together about a window."""
EXACT_QUERIES: Final = 20
SLOW_QUERIES: Final = 10
"""Queries of the peer that scans every window."""
TURNS: Final = 5
"""Turns of each program, of all queries each; they alternate, so that other load affects all of them."""


class Asked(NamedTuple):
    """A query in the forms for the different programs."""

    query: Query
    text: str
    """The lines around the caret that exact search compares."""
    longer: str
    """The lines for which BM25 finds most, used for the peers."""


Body = Callable[[Asked], object]
"""A function that answers one query."""


def milliseconds(body: Callable[[Any], object], arguments: Sequence[Any], warm: int = 5) -> list[float]:
    """Return the processor time of each call in milliseconds, after a few warm-up calls."""
    for argument in arguments[:warm]:
        body(argument)
    times = []
    for argument in arguments:
        started = time.process_time()
        body(argument)
        times.append((time.process_time() - started) * 1000)
    return times


def percentiles(times: "Sequence[float] | NDArray[np.float64]") -> dict[str, float]:
    """Return p50 and p99."""
    return {f"p{share}": round(float(np.percentile(times, share)), 3) for share in (50, 99)}


def build(files: Iterable[tuple[str, str]], chunks: int) -> tuple[ProjectIndex, float, int]:
    """Build an index of at least `chunks` blocks, if the files suffice; return it, its seconds and the bytes read."""
    ProjectIndex.from_documents([("warm.py", "warm = 1\n")])  # loads the compiled loops
    seconds, size, index = 0.0, 0, ProjectIndex()
    for path, text in files:
        started = time.process_time()
        index.update(path, text)
        seconds += time.process_time() - started
        size += len(text.encode(errors="replace"))
        if index.blocks >= chunks:
            break
    started = time.process_time()
    index.table.squeeze()
    return index, seconds + time.process_time() - started, size


def queries(index: ProjectIndex, count: int) -> list[Asked]:
    """Return queries at random lines of random files."""
    draw, asked = random.Random(0), []
    paths = sorted(path for path, file in index.files.items() if file.span.blocks > 1)
    for path in draw.choices(paths, k=count):
        lines = index.text(path).split("\n")
        at = draw.randrange(len(lines))
        query = Query(path=path, prefix="\n".join(lines[:at]) + "\n", suffix="\n".join(lines[at + 3 :]))
        text = f"{last_lines(query.prefix, ROUND_CARET)}\n{first_lines(query.suffix, ROUND_CARET)}"
        before, after = PEER_QUERIES[0]
        longer = f"{last_lines(query.prefix, before)}\n{first_lines(query.suffix, after)}"
        asked.append(Asked(query, text, longer))
    return asked


def update_times(index: ProjectIndex, count: int) -> list[float]:
    """Return the milliseconds of updates by a file with one changed line, for random files."""
    draw, paths = random.Random(1), sorted(index.files)
    changed = []
    for path in draw.choices(paths, k=count):
        lines = index.text(path).split("\n")
        lines.insert(draw.randrange(len(lines) + 1), "changed_name = compute_changed_value(other_name)")
        changed.append((path, "\n".join(lines)))
    return milliseconds(lambda each: index.update(*each), changed, warm=0)


def ours(index: ProjectIndex) -> dict[str, Body]:
    """Return a function per strategy that answers one query."""
    return {
        "iou_exact": lambda each: exact.top_iou(index, each.text, K, without=each.query.path),
        "iou_lines": lambda each: exact.top_iou(index, each.text, K, kind="lines", without=each.query.path),
        "bm25": lambda each: exact.top_bm25(index, each.text, K, without=each.query.path),
        "default": lambda each: rank(index, each.query, "infill", K),
    }


def measure(bodies: Mapping[str, Body], asked: Sequence[Asked]) -> dict[str, list[list[float]]]:
    """Return the times of all queries in each turn, by program."""
    turns = [{name: milliseconds(body, asked) for name, body in bodies.items()} for _ in range(TURNS)]
    return {name: [turn[name] for turn in turns] for name in bodies}


def ratio(mine: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Return the median over turns of the ratio of two programs' medians; below one, the first is faster."""
    pairs = zip(mine, theirs, strict=True)
    return round(float(np.median([np.median(each) / np.median(other) for each, other in pairs])), 3)


def memory_mb() -> float:
    """Return the peak memory of this process in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)


def window_texts(index: ProjectIndex) -> dict[int, str]:
    """Return the text of each window, which the peers search."""
    return {
        window: index.item(window, index.width(window)).text for path in index.files for window in index.windows(path)
    }


def is_exact(index: ProjectIndex, texts: dict[int, str], asked: Sequence[Asked]) -> tuple[bool, list[float]]:
    """Return whether exact search equals a comparison with every window, and the times of the latter."""
    sets = {window: token_set(text.encode()) for window, text in texts.items()}
    ranks, table, times, same = index.project_paths.ranks, index.table, [], True
    for each in asked:
        started = time.process_time()
        tokens = token_set(each.text.encode())
        scores = {window: iou(tokens, held) for window, held in sets.items()}
        times.append((time.process_time() - started) * 1000)
        current = index.files[each.query.path].number
        best = sorted(
            (window for window, score in scores.items() if score > 0 and table.file[window] != current),
            key=lambda window: (-scores[window], ranks[table.file[window]], table.line[window]),
        )[:K]
        hits = exact.top_iou(index, each.text, K, without=each.query.path)
        same = same and [(window, scores[window]) for window in best] == [tuple(hit) for hit in hits]
    return same, times


def peers(texts: Sequence[str]) -> dict[str, Body]:
    """Return a function per program that answers one query, starting from its text, over the same windows.

    The queries are the lines for which BM25 finds most; bm25s also answers the shorter text of exact search, and is
    asked in its faster form, which needs numba. All return numbers of windows, and no texts.
    """
    held = [names(text) for text in texts]
    search, compiled, searcher = _bm25s(held), _bm25s(held, "numba"), _tantivy(held)
    return {
        "bm25s": lambda each: search(each.longer),
        "bm25s_numba": lambda each: compiled(each.longer),
        "bm25s_short": lambda each: search(each.text),
        "tantivy": lambda each: searcher(each.longer),
    }


def slow_peer(texts: Sequence[str], asked: Sequence[Asked]) -> list[float]:
    """Return the times of rank-bm25, which scans every window, for a few queries."""
    search = _rank_bm25([names(text) for text in texts])
    return milliseconds(search, [each.longer for each in asked[:SLOW_QUERIES]], warm=1)


def _distinct(text: str) -> list[str]:
    return list(dict.fromkeys(names(text)))


def _bm25s(held: list[list[str]], backend: str = "numpy") -> Callable[[str], object]:
    search = bm25s.BM25(backend=backend)
    search.index(held, show_progress=False)

    def query(text: str) -> object:
        known = [name for name in _distinct(text) if name in search.vocab_dict]
        return search.retrieve([known], k=K, show_progress=False) if known else None

    return query


def _rank_bm25(held: list[list[str]]) -> Callable[[str], object]:
    search = rank_bm25.BM25Okapi(held)
    return lambda text: np.argpartition(-search.get_scores(_distinct(text)), K)[:K]


def _tantivy(held: list[list[str]]) -> Callable[[str], object]:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", tokenizer_name="whitespace", index_option="freq")
    index = tantivy.Index(builder.build())
    writer = index.writer(num_threads=1)
    for each in held:
        writer.add_document(tantivy.Document(body=" ".join(each)))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher, schema = index.searcher(), index.schema

    def query(text: str) -> object:
        terms = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "body", name)) for name in _distinct(text)]
        return searcher.search(tantivy.Query.boolean_query(terms), K)

    return query
