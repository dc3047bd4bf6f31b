import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infill.evaluate.statistics import (
    bootstrap,
    compare,
    detectable,
    holes_needed,
    holm,
    interval,
    mcnemar,
    paired_interval,
    wilcoxon,
    wilson,
)

pairs = st.lists(st.tuples(*[st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0])] * 2), min_size=1, max_size=10)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_stays_in_bounds(case: tuple[int, int]) -> None:
    successes, n = case
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


def test_wilson_against_published_values() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_of_a_constant_is_the_constant_and_of_nothing_is_nan() -> None:
    assert bootstrap([0.25] * 9, resamples=50, seed=1) == (0.25, 0.25)
    assert all(math.isnan(end) for end in bootstrap([], resamples=50, seed=1))


def test_bootstrap_is_deterministic_and_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap(values, resamples=4_000, seed=7)
    assert (low, high) == bootstrap(values, resamples=4_000, seed=7)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=3e-3)


def test_interval_takes_wilson_for_shares_only() -> None:
    share = interval("exact_match", [1, 0, 1, 1], resamples=10, seed=0)
    assert (share["low"], share["high"]) == wilson(3, 4)
    assert share["value"] == 0.75
    graded = interval("kk", [0.5] * 4, resamples=10, seed=0)
    assert graded == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_paired_interval_sees_a_difference_that_single_intervals_hide() -> None:
    noise = np.random.default_rng(0).random(200)
    difference, low, high = paired_interval(noise + 0.01, noise, resamples=200, seed=0)
    assert difference == pytest.approx(0.01)
    assert 0 < low <= high
    assert paired_interval(noise, noise, resamples=20, seed=0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([1.0], [1.0, 0.0], "equal numbers of values, got 1 and 2"),
        ([], [], "at least one value"),
        ([1.0, math.nan], [1.0, 0.0], "finite values"),
        ([1.0, 0.0], [1.0, math.inf], "finite values"),
    ],
)
def test_a_comparison_refuses_unequal_or_no_holes_and_what_is_not_finite(
    a: list[float], b: list[float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        paired_interval(a, b, resamples=10, seed=0)
    with pytest.raises(ValueError, match=words):
        compare("kk", a, b, resamples=10, seed=0)


def _by_all_signs(difference: list[float]) -> float:
    """The signed-rank test's p-value by its definition: over all signs of the differences' ranks."""
    sizes = [abs(value) for value in difference if value]
    ranks = np.array([sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes])
    centre, observed = ranks.sum() / 2, sum(r for r, d in zip(ranks, filter(None, difference), strict=True) if d > 0)
    sums = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=len(ranks))])
    return float(np.mean(np.abs(sums - centre) >= abs(observed - centre) - 1e-9))


@settings(deadline=None)
@given(pairs)
def test_the_signed_rank_test_is_exact_with_ties_and_equal_pairs(values: list[tuple[float, float]]) -> None:
    a, b = zip(*values, strict=True)
    expected = _by_all_signs([round(x - y, 12) for x, y in values])
    assert wilcoxon(a, b) == pytest.approx(expected)
    assert wilcoxon(b, a) == pytest.approx(expected)


def test_the_signed_rank_test_of_equal_pairs_or_none_says_nothing() -> None:
    assert wilcoxon([0.5] * 20, [0.5] * 20) == 1
    assert wilcoxon([], []) == 1
    assert wilcoxon([0.1 + 0.2] * 60, [0.3] * 60) == 1, "a rounding error is no difference"


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 60))
def test_for_shares_the_comparison_has_both_tests(first: list[bool], shift: int) -> None:
    a = [float(each) for each in first]
    b = a[shift % len(a) :] + a[: shift % len(a)]
    share, graded = (compare(name, a, b, resamples=20, seed=0) for name in ("exact_match", "kk"))
    assert share.mcnemar == mcnemar(a, b)
    assert graded.mcnemar is None
    assert 0 <= share.wilcoxon <= 1
    assert (share.wilcoxon, share.mcnemar) == (1, 1) or a != b


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a = [1.0] * 8 + [0.0] * 2 + [1.0] * 5
    b = [0.0] * 8 + [1.0] * 2 + [1.0] * 5
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar([1, 0], [1, 0]) == mcnemar([], []) == 1
    assert mcnemar([1] * 20_000, [0] * 20_000) < 1e-300


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_corrects_for_the_number_of_tests(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= min(1, p * len(p_values)) for p, q in zip(p_values, corrected, strict=True))
    assert [q for _, q in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)


def test_holm_against_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.floats(0.001, 1), st.floats(0.01, 1))
def test_the_holes_needed_for_a_difference_detect_it(difference: float, disagree: float) -> None:
    holes = holes_needed(difference, disagree)
    assert detectable(holes, disagree) <= difference + 1e-12
    assert holes == 1 or detectable(holes - 1, disagree) > difference - 1e-12


@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_no_difference_is_larger_than_the_share_of_holes_that_differ(holes: int, disagree: float) -> None:
    difference = detectable(holes, disagree)
    assert 0 < difference <= 1
    if difference > disagree:
        assert difference == 1 or detectable(holes, difference) == pytest.approx(difference)


@pytest.mark.parametrize("difference", [0.0, -0.01, 1.5, math.nan])
def test_the_holes_of_an_impossible_difference_are_refused(difference: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        holes_needed(difference)


def test_mcnemar_finds_the_detectable_difference_four_times_out_of_five() -> None:
    rng, holes, disagree = np.random.default_rng(0), 1_000, 0.1
    difference = detectable(holes, disagree)
    better, worse = (disagree + difference) / 2, (disagree - difference) / 2
    seen = 0
    for _ in range(300):
        a, b, _rest = rng.multinomial(holes, [better, worse, 1 - better - worse])
        seen += mcnemar([1.0] * a + [0.0] * b, [0.0] * a + [1.0] * b) < 0.05
    assert 0.68 < seen / 300 < 0.88  # the exact test is a little weaker than the formula's
