"""Which split a repository belongs to: by the hash of its name, so that it never moves while the corpus grows.

A hash below `test_share` is test, below `test_share + validation_share` is validation, the rest trains. With few
repositories that leaves splits empty; then the repository whose hash is nearest moves over, so that every split with a
share has one as long as there are enough of them.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

SPLITS: Final = ("test", "validation", "train")
"""In the order of the hashes."""
PRIORITY: Final = ("train", "test", "validation")
"""Which split is served first when there are fewer names than splits."""


def position(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the name and the seed."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(
    names: Iterable[str], *, validation_share: float, test_share: float, seed: int, eligible: Iterable[str] = ()
) -> dict[str, str]:
    """Name -> "train", "validation" or "test".

    Every split with a share above zero holds at least one name of `eligible` (all names when it is empty), if there are
    as many as splits; with fewer, training is served first, then test.
    """
    places = {name: position(name, seed) for name in names}
    shares = {"test": test_share, "validation": validation_share, "train": 1.0 - test_share - validation_share}
    bounds = {"test": test_share, "validation": test_share + validation_share, "train": 1.0}
    result = {name: next(split for split in SPLITS if place < bounds[split]) for name, place in places.items()}
    counted = sorted(set(eligible) or places, key=lambda name: (places[name], name))
    for split in PRIORITY:
        if shares[split] > 0 and all(result[name] != split for name in counted):
            _fill(result, split, counted)
    return result


def _fill(result: dict[str, str], split: str, counted: list[str]) -> None:
    """Move into `split` the name nearest to it, from the largest split that can spare one.

    A split gives its last name only to one that matters more: training before test before validation.
    """
    sizes = {other: sum(result[name] == other for name in counted) for other in SPLITS}
    donors = [other for rank, other in enumerate(PRIORITY) if sizes[other] > (0 if rank > PRIORITY.index(split) else 1)]
    if donors:
        donor = max(donors, key=lambda other: (sizes[other], PRIORITY.index(other)))
        members = [name for name in counted if result[name] == donor]
        result[members[-1] if split == "train" else members[0]] = split
