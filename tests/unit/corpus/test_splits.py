"""Splits: decided by name and seed alone."""

import random
from collections import Counter
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infill.corpus import splits

NAMES = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=40)
SIZES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 2_000_000), min_size=1, max_size=40)
assign = partial(splits.assign, validation_share=0.05, test_share=0.05)


@given(NAMES, st.integers(0, 3))
def test_each_split_has_a_repository_when_there_are_three(names: set[str], seed: int) -> None:
    split_of = assign(dict.fromkeys(names, 1), seed=seed)
    assert set(split_of) == names
    assert set(split_of.values()) == set(splits.PRIORITY[: min(len(names), 3)])


@given(SIZES)
def test_only_repositories_with_code_fill_a_split(code: dict[str, int]) -> None:
    split_of = assign(code, seed=0)
    eligible = {name for name, size in code.items() if size} or set(code)
    assert {split_of[name] for name in eligible} >= set(splits.PRIORITY[: min(len(eligible), 3)])


@given(SIZES, st.integers(0, 3))
def test_what_is_held_out_has_enough_code_where_training_can_spare_it(code: dict[str, int], seed: int) -> None:
    split_of, total = assign(code, seed=seed), sum(code.values())
    held = {split: sum(code[name] for name in code if split_of[name] == split) for split in splits.SPLITS}
    for split in splits.HELD_OUT:
        most = min(0.1 * total, held["train"] - total / 2)
        spare = [name for name, size in code.items() if split_of[name] == "train" and 0 < size <= most]
        assert held[split] >= min(splits.ENOUGH, 0.025 * total) or not spare


@given(NAMES)
def test_a_split_without_a_share_stays_empty(names: set[str]) -> None:
    code = dict.fromkeys(names, 1)
    assert set(splits.assign(code, seed=0, validation_share=0, test_share=0).values()) == {"train"}


def test_repositories_stay_where_they_are_while_the_corpus_grows() -> None:
    names = [f"repository {number}" for number in range(1000)]
    small, large = (assign(dict.fromkeys(part, 100_000), seed=0) for part in (names[:500], names))
    assert all(large[name] == split for name, split in small.items())
    assert 20 < Counter(large.values())["test"] < 80


def test_the_seed_moves_them() -> None:
    code = {f"repository {number}": 1 for number in range(1000)}
    assert assign(code, seed=0) != assign(code, seed=1)


def test_a_held_out_split_of_tiny_repositories_gets_some_of_a_useful_size() -> None:
    code = {f"repository {number}": 1_000 if number % 2 else 200_000 for number in range(36)}
    for seed in range(20):
        split_of = assign(code, seed=seed)
        for split in splits.HELD_OUT:
            assert sum(size for name, size in code.items() if split_of[name] == split) >= 90_000


def families(unit: list[int], size: list[int], related: list[tuple[int, int]]) -> list[int]:
    rows = np.array(related, np.int64).reshape(-1, 2)
    return list(splits.families(np.array(unit, np.int64), np.array(size, np.int64), rows))


def test_a_fork_goes_with_the_largest_of_its_family() -> None:
    assert families([0, 0, 1, 1, 1], [5, 5, 5, 5, 5], [(0, 2), (1, 3)]) == [1, 1]
    assert families([0, 0, 1, 1], [5, 5, 5, 5], [(0, 2), (1, 3)]) == [0, 0]


def test_half_a_repository_makes_no_fork_and_a_shared_file_ties_no_two() -> None:
    assert families([0, 0, 1, 1], [5, 5, 5, 5], [(0, 2)]) == [0, 1]
    assert families([0, 0, 1, 1, 2], [5, 5, 5, 5, 1], [(0, 4), (2, 4)]) == [0, 1, 0]
    assert families([0, 1], [5, 5], []) == [0, 1]
    assert families([], [], []) == []


def test_a_document_that_is_close_to_several_counts_once() -> None:
    assert families([0] * 3 + [1] * 5, [4] * 8, [(0, 3), (0, 4)]) == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30), st.integers(0, 9), st.randoms())
def test_no_pair_is_left_in_two_splits(pairs: list[tuple[int, int]], earlier: int, shuffler: random.Random) -> None:
    rows = [(first, second) for first, second in pairs if first != second and max(first, second) >= earlier]
    split = np.array([shuffler.randrange(3) for _ in range(10)])
    entries = list(splits.crossing(np.array(rows, np.int64).reshape(-1, 2), split, earlier))
    removed = {out for out, _, _ in entries}
    for first, second in rows:
        assert split[first] == split[second] or not removed.isdisjoint((first, second))
    for out, kept, number in entries:
        assert set(rows[number]) == {out, kept}
        assert out >= earlier
        assert kept < earlier or split[kept] < split[out]  # test before validation before training
