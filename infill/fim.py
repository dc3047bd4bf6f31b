"""Fill-in-the-middle splits: random spans for pre-training, syntactic holes for fine-tuning.

A hole is a pair of character offsets, so prefix + middle + suffix is the file by construction.
"""

import random
import re
from dataclasses import dataclass
from typing import Final

from tree_sitter import Node

from infill import syntax

KINDS: Final = ("block", "line_start", "line_middle", "token_middle")
"""The boundary kinds of the Mellum paper (arXiv 2510.05788)."""

_WORD: Final = re.compile(r"\w{2,}")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    start: tuple[tuple[str, float], ...] = (
        ("block", 0.4),
        ("line_start", 0.2),
        ("line_middle", 0.2),
        ("token_middle", 0.2),
    )
    """Boundary kinds of the start with their probabilities; the paper's are unknown, these are ours."""
    end: tuple[tuple[str, float], ...] = (
        ("block", 0.6),
        ("line_start", 0.25),
        ("line_middle", 0.1),
        ("token_middle", 0.05),
    )
    """Boundary kinds of the end with their probabilities."""
    max_middle_chars: int = 700
    """The longest middle (Mellum: 700 characters)."""

    def __post_init__(self) -> None:
        for name, table in (("start", self.start), ("end", self.end)):
            kinds = dict(table)
            if not set(kinds) <= set(KINDS) or min(kinds.values(), default=-1) < 0 or sum(kinds.values()) <= 0:
                raise ValueError(f"split.{name} must give probabilities to kinds of {', '.join(KINDS)}")
        if self.max_middle_chars < 1:
            raise ValueError("split.max_middle_chars must be at least 1")


@dataclass(frozen=True)
class Hole:
    start: int
    """Offset of the first character of the middle."""
    end: int
    """Offset behind its last character."""
    kind_start: str
    """Boundary kind of the start, one of KINDS."""
    kind_end: str
    """Boundary kind of the end, one of KINDS."""
    unit: str
    """The syntactic unit that the hole is, or lies in."""


def _rng(seed: int, epoch: int, document: str) -> random.Random:
    return random.Random(f"{seed}/{epoch}/{document}")


def random_span(text: str, *, seed: int, epoch: int, document: str) -> tuple[int, int]:
    """Start and end of the middle when `text` is cut into three parts at two uniformly drawn characters.

    The middle is never only whitespace, unless the text is: then it is the whole text.
    """
    rng = _rng(seed, epoch, document)
    for _ in range(32):
        start, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        if text[start:end].strip():
            return start, end
    return 0, len(text)


def is_sound(text: str, language: str) -> bool:
    """Whether `text` parses without errors. Raises InputError where there is no grammar."""
    return not syntax.parse(text.encode("utf-8", "surrogatepass"), language).root_node.has_error


def syntactic_holes(
    text: str, language: str, config: SplitConfig, *, seed: int, epoch: int, document: str, n: int
) -> list[Hole]:
    """At most `n` distinct holes, a function of the text, the configuration and (seed, epoch, document).

    Raises InputError where there is no grammar for the language.
    """
    rng = _rng(seed, epoch, document)
    root = syntax.parse(text.encode("utf-8", "surrogatepass"), language).root_node
    offsets = _char_offsets(text)
    holes: dict[Hole, None] = {}
    for _ in range(4 * n):
        if len(holes) == n or not text.strip():
            break
        hole = _draw(text, root, offsets, config, rng)
        if hole is not None:
            holes[hole] = None
    return list(holes)


def _char_offsets(text: str) -> list[int]:
    """Byte offset of the UTF-8 form -> character offset."""
    offsets: list[int] = []
    for index, char in enumerate(text):
        offsets.extend([index] * len(char.encode("utf-8", "surrogatepass")))
    return [*offsets, len(text)]


def _draw(text: str, root: Node, offsets: list[int], config: SplitConfig, rng: random.Random) -> Hole | None:
    """One attempt at a hole: a unit round a random byte, its ends moved to boundaries of the drawn kinds."""
    byte = rng.randrange(len(offsets))
    units: list[tuple[int, int, str]] = []
    node: Node | None = root
    while node is not None:
        start, end = offsets[node.start_byte], offsets[node.end_byte]
        if node.is_error:
            return None
        if 0 < end - start <= config.max_middle_chars and not node.has_error and node.is_named:
            units.append((start, end, node.type))
        node = next((child for child in node.children if child.start_byte <= byte < child.end_byte), None)
    if not units:
        return None
    start, end, unit = rng.choice(units)
    kind_start = rng.choices([k for k, _ in config.start], [p for _, p in config.start])[0]
    kind_end = rng.choices([k for k, _ in config.end], [p for _, p in config.end])[0]
    starts = _boundaries(text, start, end, kind_start)
    left = start if kind_start == "block" else rng.choice(starts) if starts else None
    ends = [] if left is None else [b for b in _boundaries(text, start, end, kind_end) if b > left]
    right = end if kind_end == "block" else rng.choice(ends) if ends else None
    if left is None or right is None or not text[left:right].strip():
        return None
    return Hole(left, right, kind_start, kind_end, unit)


def _boundaries(text: str, start: int, end: int, kind: str) -> list[int]:
    """Offsets of the boundaries of a kind in text[start:end]."""
    if kind == "line_start":
        return [m.end() for m in re.compile(r"[\r\n][ \t]*").finditer(text, start, end) if m.end() < end]
    if kind == "line_middle":
        return [m.start() for m in re.compile(r"(?<=[^\s])[ \t]*\b\w").finditer(text, start + 1, end)]
    return [m.start() + 1 for m in _WORD.finditer(text, start, end)]
