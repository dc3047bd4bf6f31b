import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.evaluate.statistics import bootstrap, detectable, holes_needed, interval, mcnemar, paired_interval, wilson


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


def test_paired_interval_refuses_unequal_or_no_holes() -> None:
    with pytest.raises(ValueError, match="equal numbers of values"):
        paired_interval([1.0], [1.0, 0.0], resamples=10, seed=0)
    with pytest.raises(ValueError, match="equal numbers of values"):
        paired_interval([], [], resamples=10, seed=0)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a = [1.0] * 8 + [0.0] * 2 + [1.0] * 5
    b = [0.0] * 8 + [1.0] * 2 + [1.0] * 5
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar([1, 0], [1, 0]) == 1


@given(st.floats(0.001, 1), st.floats(0.01, 1))
def test_the_holes_needed_for_a_difference_detect_it(difference: float, disagree: float) -> None:
    holes = holes_needed(difference, disagree)
    assert detectable(holes, disagree) <= difference + 1e-12
    assert holes == 1 or detectable(holes - 1, disagree) > difference - 1e-12


def test_mcnemar_finds_the_detectable_difference_four_times_out_of_five() -> None:
    rng, holes, disagree = np.random.default_rng(0), 1_000, 0.1
    difference = detectable(holes, disagree)
    better, worse = (disagree + difference) / 2, (disagree - difference) / 2
    seen = 0
    for _ in range(300):
        a, b, _rest = rng.multinomial(holes, [better, worse, 1 - better - worse])
        seen += mcnemar([1.0] * a + [0.0] * b, [0.0] * a + [1.0] * b) < 0.05
    assert 0.68 < seen / 300 < 0.88  # the exact test is a little weaker than the formula's
