"""Splits: decided by name and seed alone."""

from collections import Counter
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from infill.corpus import splits

NAMES = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=40)
assign = partial(splits.assign, validation_share=0.05, test_share=0.05)


@given(NAMES, st.integers(0, 3))
def test_each_split_has_a_repository_when_there_are_three(names: set[str], seed: int) -> None:
    split_of = assign(names, seed=seed)
    assert set(split_of) == names
    assert set(split_of.values()) == set(splits.PRIORITY[: min(len(names), 3)])


@given(NAMES, st.data())
def test_only_repositories_that_count_fill_a_split(names: set[str], data: st.DataObject) -> None:
    eligible = data.draw(st.sets(st.sampled_from(sorted(names)), min_size=1))
    split_of = assign(names, seed=0, eligible=eligible)
    assert {split_of[name] for name in eligible} >= set(splits.PRIORITY[: min(len(eligible), 3)])


@given(NAMES)
def test_a_split_without_a_share_stays_empty(names: set[str]) -> None:
    assert set(splits.assign(names, seed=0, validation_share=0, test_share=0).values()) == {"train"}


def test_repositories_stay_where_they_are_while_the_corpus_grows() -> None:
    names = [f"repository {number}" for number in range(1000)]
    small, large = assign(names[:500], seed=0), assign(names, seed=0)
    assert all(large[name] == split for name, split in small.items())
    assert 20 < Counter(large.values())["test"] < 80


def test_the_seed_moves_them() -> None:
    names = [f"repository {number}" for number in range(1000)]
    assert assign(names, seed=0) != assign(names, seed=1)
