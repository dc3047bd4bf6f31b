"""Spans of secrets and personal data in a text, and the choice among spans that overlap."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from infill.config import SENSITIVE_KINDS

KINDS: Final = SENSITIVE_KINDS
"""All kinds; of two overlapping spans of equal length, the kind that comes first here is chosen."""
SECRETS: Final = frozenset({"private_key", "token", "password"})


class PrivateSpan(NamedTuple):
    """A secret or personal data of a kind in KINDS, from character `start` up to, but not including, `end`."""

    start: int
    end: int
    kind: str


def settle(spans: Iterable[PrivateSpan]) -> list[PrivateSpan]:
    """Return the spans in order and without overlaps: secrets win over personal data, then longer spans over shorter.

    For example, a password in a URL, followed by the host, looks like an e-mail address.
    """
    chosen: list[PrivateSpan] = []
    for span in sorted(set(spans), key=_rank):
        if all(span.end <= other.start or other.end <= span.start for other in chosen):
            chosen.append(span)
    return sorted(chosen)


def _rank(span: PrivateSpan) -> tuple[bool, int, int, int]:
    return (span.kind not in SECRETS, span.start - span.end, KINDS.index(span.kind), span.start)


def places(text: str, literal: str) -> Iterator[int]:
    """Yield the offsets of a literal in a text, which is many times faster than a pattern."""
    place = text.find(literal)
    while place >= 0:
        yield place
        place = text.find(literal, place + 1)
