"""The same answers as the index gives, by comparing everything with everything; and texts to ask about."""

import math
from collections import Counter

from hypothesis import strategies as st

from infill.context import ProjectIndex
from infill.context.similarity import IDENTIFIER, iou, line_set, token_set

WORDS = [
    "class",
    "def",
    "return",
    "alpha",
    "beta",
    "gamma",
    "delta",
    "x1",
    "_y",
    "naïve",
    "12",
    "(",
    ")",
    "{",
    "}",
    "=",
    ".",
]
lines = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
indented = st.tuples(st.sampled_from(["", "    ", "\t"]), lines).map("".join)
texts = st.tuples(st.lists(indented, max_size=60), st.sampled_from(["\n", "\r\n"]), st.booleans()).map(
    lambda parts: parts[1].join(parts[0]) + (parts[1] if parts[2] else "")
)
paths = st.sampled_from(["a.py", "b.py", "lib/a.py", "lib/b.py", "lib/deep/c.py", "z.py"])
projects = st.dictionaries(paths, texts, max_size=6)

Place = tuple[str, int, int]
"""Path, first and last line of a window."""


def windows(index: ProjectIndex) -> dict[Place, bytes]:
    """The text of every window."""
    by_name = {}
    for path in index.files:
        for window in index.windows(path):
            item = index.item(window, index.width(window))
            by_name[item.path, item.first_line, item.last_line] = item.text.encode()
    return by_name


def place(index: ProjectIndex, window: int) -> Place:
    item = index.item(window, index.width(window))
    return item.path, item.first_line, item.last_line


def top_iou(index: ProjectIndex, text: str, k: int, kind: str, without: str) -> list[tuple[Place, float]]:
    """`exact.top_iou` by intersecting sets."""
    of = token_set if kind == "tokens" else line_set
    asked = of(text.encode())
    scores = {key: iou(asked, of(data)) for key, data in windows(index).items() if key[0] != without}
    best = sorted((key for key in scores if scores[key] > 0), key=lambda key: (-scores[key], key))
    return [(key, scores[key]) for key in best[:k]]


def bm25(index: ProjectIndex, text: str) -> dict[Place, float]:
    """BM25 of every window; how many blocks hold a term, and how often it occurs in one, is counted on the text."""
    blocks = [
        index.item(block, 1).text.encode()
        for file in index.files.values()
        for block in range(file.span.first, file.span.first + file.span.blocks)
    ]
    holding = Counter(term for data in blocks for term in token_set(data))
    counts = {key: Counter(IDENTIFIER.findall(data)) for key, data in windows(index).items()}
    lengths = {key: count.total() for key, count in counts.items() if count}
    mean = sum(lengths.values()) / max(1, len(lengths))
    scores = {}
    for key, length in lengths.items():
        norm = 1.2 * (0.25 + 0.75 * length / mean)
        scores[key] = sum(
            math.log1p((len(blocks) - holding[term] + 0.5) / (holding[term] + 0.5))
            * (counts[key][term] * 2.2 / (counts[key][term] + norm))
            for term in token_set(text.encode())
        )
    return scores


def contents(index: ProjectIndex) -> dict[Place, tuple[int, ...]]:
    """What the postings hold, by block: the sorted hashes of its terms. Checks that all places agree with them."""
    table = index.table
    held: dict[int, list[int]] = {}
    for term in range(int(table.state[0])):
        start, length = int(table.starts[term]), int(table.lengths[term])
        for place_in_list, posting in enumerate(table.pool[start : start + length].tolist()):
            held.setdefault(posting >> 1, []).append(int(table.hashes[term]))
            rows = slice(
                table.term_starts[posting >> 1], table.term_starts[posting >> 1] + table.term_counts[posting >> 1]
            )
            assert place_in_list in table.places[rows][table.terms[rows] == term]
    places = {}
    for file in index.files.values():
        for block in range(file.span.first, file.span.first + file.span.blocks):
            item = index.item(block, 1)
            places[item.path, item.first_line, item.last_line] = tuple(sorted(held.pop(block, [])))
    assert not held, "postings of blocks that are gone"
    return places


def path_distance(a: str, b: str) -> int:
    """Return the directory hops between two files: 0 in one directory (JetBrains-Research/lca-baselines)."""
    one, other = a.split("/")[:-1], b.split("/")[:-1]
    common = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        common += 1
    return len(one) + len(other) - 2 * common
