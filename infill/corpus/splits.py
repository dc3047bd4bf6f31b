"""Which split a repository belongs to: by the hash of its name, so that it never moves while the corpus grows.

A hash below `test_share` is test, below `test_share + validation_share` is validation, the rest trains. With few
repositories that leaves splits empty, or with so little code that no figure measured on it means anything; then the
repositories whose hashes are nearest move over. A large corpus is not touched by that.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPLITS: Final = ("test", "validation", "train")
"""In the order of the hashes."""
PRIORITY: Final = ("train", "test", "validation")
"""Which split is served first when there are fewer names than splits."""

HELD_OUT: Final = ("test", "validation")
ENOUGH: Final = 250_000
"""Bytes of code that make some hundred holes in dozens of files."""
FORK_SHARE: Final = 0.5
"""A repository is a fork of another one when more than this share of its bytes has copies or close documents there."""


def position(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the name and the seed."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(
    code: Mapping[str, int], *, validation_share: float, test_share: float, seed: int, fill: bool = True
) -> dict[str, str]:
    """Name -> "train", "validation" or "test", of the names in `code`, which tells how many bytes of code each holds.

    Without `fill` the hash alone decides, for what is added to a corpus that has its splits. With it:

    Every split with a share above zero holds at least one name with code, if there are as many as splits; with fewer,
    training is served first, then test. What is held out has `ENOUGH` bytes of code, or half its share of a smaller
    corpus, as long as there are names small enough to move there. Where no name has code, all count alike.
    """
    places = {name: position(name, seed) for name in code}
    shares = {"test": test_share, "validation": validation_share, "train": 1.0 - test_share - validation_share}
    bounds = {"test": test_share, "validation": test_share + validation_share, "train": 1.0}
    result = {name: next(split for split in SPLITS if place < bounds[split]) for name, place in places.items()}
    if not fill:
        return result
    counted = sorted([name for name in code if code[name]] or code, key=lambda name: (places[name], name))
    for split in PRIORITY:
        if shares[split] > 0 and all(result[name] != split for name in counted):
            _fill(result, split, counted)
    for split in HELD_OUT:
        _top_up(result, split, {name: code[name] for name in counted}, shares[split] * sum(code.values()))
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


def _top_up(result: dict[str, str], split: str, code: Mapping[str, int], wanted: float) -> None:
    """Move names from training into `split`, in the order of `code`, until it has enough.

    None above twice the split's share moves, and half of all code stays in training.
    """
    held = sum(size for name, size in code.items() if result[name] == split)
    spare = sum(size for name, size in code.items() if result[name] == "train") - sum(code.values()) / 2
    for name, size in code.items():
        if held >= min(ENOUGH, wanted / 2):
            return
        if result[name] == "train" and size <= min(2 * wanted, spare):
            result[name], held, spare = split, held + size, spare - size


# Copies and splits


def families(unit: Array, size: Array, related: Array) -> Array:
    """Return the family of each unit: forks of each other, and what one has vendored from another.

    A family is known by the number of its largest member. `unit` holds the number of each document's unit (a
    repository), `size` its bytes, `related` rows of two documents that are copies of each other or close. A unit joins
    the one that shares most with it, if that is more than FORK_SHARE of its bytes. Sharing less, as a helper that is
    copied everywhere, ties no two repositories.
    """
    count = int(unit.max(initial=-1)) + 1
    whole = np.bincount(unit, weights=size, minlength=count)
    document, other = np.concatenate([related, related[:, ::-1]]).T
    away = unit[document] != unit[other]
    document, other = np.unique(np.stack([document[away], unit[other[away]]]), axis=1)  # one may be close to several
    links, link = np.unique(np.stack([unit[document], other]), axis=1, return_inverse=True)
    common = np.bincount(link.reshape(-1), weights=size[document], minlength=links.shape[1])
    partner: dict[int, int] = {}
    for number in np.lexsort((links[1], -common, links[0])).tolist():
        source, target = links[:, number].tolist()
        if common[number] > FORK_SHARE * whole[source]:
            partner.setdefault(source, target)
    return _joined(whole, partner)


def _joined(whole: Array, partner: Mapping[int, int]) -> Array:
    """Return the largest member of each unit's family, the first of equals; partners are in one family."""
    family = list(range(len(whole)))

    def find(number: int) -> int:
        while family[number] != number:
            family[number] = family[family[number]]
            number = family[number]
        return number

    for one, other in partner.items():
        large, small = sorted((find(one), find(other)), key=lambda number: (-whole[number], number))
        family[small] = large
    return np.array([find(number) for number in range(len(whole))], np.int64)


def crossing(close: Array, split: Array, earlier: int) -> Iterator[tuple[int, int, int]]:
    """Yield what is removed, what is kept, and the number of the pair, for pairs in `close` that lie in two splits.

    `split` counts SPLITS by document. Training gives way to validation, and that to test; a document below `earlier` is
    never removed.
    """
    removed: set[int] = set()
    for number in np.flatnonzero(split[close[:, 0]] != split[close[:, 1]]).tolist():
        pair = close[number].tolist()
        if not removed.isdisjoint(pair):
            continue
        kept = min(pair, key=lambda document: (document >= earlier, split[document]))
        (out,) = set(pair) - {kept}
        removed.add(out)
        yield out, kept, number
