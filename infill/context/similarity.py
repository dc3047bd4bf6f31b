"""The formulas of the three published strategies: IoU of lines, IoU of tokens, distance of paths."""

import re
from collections.abc import Set
from pathlib import PurePosixPath
from typing import Final

IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")
_ONLY_MARKS: Final = re.compile(r"""[\s()\[\]{}<>,;:'"`#/*%!-]*""")


def iou(a: Set[object], b: Set[object]) -> float:
    """|a and b| / |a or b|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def line_set(text: str) -> frozenset[str]:
    """The stripped lines of `text` without blank ones and ones of nothing but brackets, quotes and comment marks.

    The normalisation of code derived from Long Code Arena (`iou_chunk_scorer.py`); the paper's own is not public.
    """
    return frozenset(line for raw in text.splitlines() if not _ONLY_MARKS.fullmatch(line := raw.strip()))


def path_distance(a: str, b: str) -> int:
    """Directory hops between two files: 0 in one directory (JetBrains-Research/lca-baselines)."""
    one, other = PurePosixPath(a).parts[:-1], PurePosixPath(b).parts[:-1]
    common = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        common += 1
    return len(one) + len(other) - 2 * common
