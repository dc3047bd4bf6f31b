"""The formulas of the published strategies: IoU of sets, lines of a file, distance of paths."""

import re
from collections.abc import Set
from typing import Final

IDENTIFIER: Final = re.compile(rb"(?<![0-9A-Za-z_\x80-\xff])[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*")
"""Letters, digits, underscores and everything beyond ASCII, not starting with a digit; in UTF-8."""
_WORDED: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]")
_BLANK: Final = b" \t\r\v\f"


def iou(a: Set[object], b: Set[object]) -> float:
    """Return |a and b| / |a or b|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def token_set(data: bytes) -> frozenset[bytes]:
    """Return the distinct identifiers of a text in UTF-8."""
    return frozenset(IDENTIFIER.findall(data))


def line_set(data: bytes) -> frozenset[bytes]:
    """Return the distinct lines, stripped of blanks, that contain a letter or a digit.

    This follows code derived from Long Code Arena (`iou_chunk_scorer.py`), which drops blank lines and lines of only
    brackets, quotes and comment marks; the paper's normalisation is not public.
    """
    return frozenset(line.strip(_BLANK) for line in data.split(b"\n") if _WORDED.search(line))
