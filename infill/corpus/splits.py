"""Assign repositories to splits by the hash of their name, so that none changes its split when the corpus grows.

A hash below `test_share` is test, below `test_share + validation_share` is validation, and the rest is training. With
few repositories, a split may be empty or have too little code for measurements; then the repositories with the nearest
hashes are moved into it. This does not affect a large corpus.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPLITS: Final = ("test", "validation", "train")
"""The splits in the order of the hashes."""
PRIORITY: Final = ("train", "test", "validation")
"""The splits in the order in which they are filled if there are fewer names than splits."""

HELD_OUT: Final = ("test", "validation")
ENOUGH: Final = 250_000
"""Bytes of code that are enough for about a hundred holes in dozens of files of a held-out split."""
FORK_SHARE: Final = 0.5
"""A repository is a fork of another if more than this share of its bytes has copies or close documents in the other."""


def position(name: str, seed: int) -> float:
    """Return a number in [0, 1) that depends only on the name and the seed."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(
    code: Mapping[str, int], *, validation_share: float, test_share: float, seed: int, fill: bool = True
) -> dict[str, str]:
    """Return name -> "train", "validation" or "test" for the names in `code`, which has the bytes of code of each.

    Without `fill`, only the hash decides; this is for additions to a corpus that already has its splits. With `fill`,
    every split with a share above zero has at least one name with code, if there are as many such names as splits;
    with fewer names, training is filled first, then test. A held-out split has `ENOUGH` bytes of code, or half its
    share of a smaller corpus, as long as there are names small enough to move into it. If no name has code, all names
    are equal.
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
    """Move the name nearest to `split` into it, from the largest split that can spare one.

    A split gives its last name only to a split of higher priority.
    """
    sizes = {other: sum(result[name] == other for name in counted) for other in SPLITS}
    donors = [other for rank, other in enumerate(PRIORITY) if sizes[other] > (0 if rank > PRIORITY.index(split) else 1)]
    if donors:
        donor = max(donors, key=lambda other: (sizes[other], PRIORITY.index(other)))
        members = [name for name in counted if result[name] == donor]
        result[members[-1] if split == "train" else members[0]] = split


def _top_up(result: dict[str, str], split: str, code: Mapping[str, int], wanted: float) -> None:
    """Move names from training into `split`, in the order of `code`, until it has enough code.

    `wanted` is the split's share in bytes. A name larger than twice that is not moved, and half of all code remains in
    training.
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
    """Return the family of each unit, as the number of its largest member.

    A unit is a repository; the members of a family are forks of each other, or mostly vendored from each other. `unit`
    has the number of each document's unit, `size` the document's bytes, and `related` rows of two documents that are
    copies of each other or close. A unit joins the unit with which it has most in common, if that is more than
    FORK_SHARE of its bytes. Having less in common, such as one file that is copied everywhere, does not make a family.
    """
    count = int(unit.max(initial=-1)) + 1
    total = np.bincount(unit, weights=size, minlength=count)
    document, other = np.concatenate([related, related[:, ::-1]]).T
    away = unit[document] != unit[other]
    document, other = np.unique(
        np.stack([document[away], unit[other[away]]]), axis=1
    )  # a document may be close to several
    links, link = np.unique(np.stack([unit[document], other]), axis=1, return_inverse=True)
    common = np.bincount(link.reshape(-1), weights=size[document], minlength=links.shape[1])
    partner: dict[int, int] = {}
    for number in np.lexsort((links[1], -common, links[0])).tolist():
        source, target = links[:, number].tolist()
        if common[number] > FORK_SHARE * total[source]:
            partner.setdefault(source, target)
    return _joined(total, partner)


def _joined(total: Array, partner: Mapping[int, int]) -> Array:
    """Return the largest member, by `total` bytes, of each unit's family; of equally large members the first.

    A unit and its `partner` are in the same family.
    """
    family = list(range(len(total)))

    def find(number: int) -> int:
        while family[number] != number:
            family[number] = family[family[number]]
            number = family[number]
        return number

    for one, other in partner.items():
        large, small = sorted((find(one), find(other)), key=lambda number: (-total[number], number))
        family[small] = large
    return np.array([find(number) for number in range(len(total))], np.int64)


def crossing(close: Array, split: Array, earlier: int) -> Iterator[tuple[int, int, int]]:
    """Yield (removed document, kept document, index of the pair) for the pairs in `close` across two splits.

    `split` has the index in SPLITS of each document's split. Of a pair, the document in training is removed rather than
    that in validation, and that rather than the one in test; a document below `earlier` is never removed.
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
