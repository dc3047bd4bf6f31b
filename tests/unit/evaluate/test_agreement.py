"""The agreement of metrics with correctness, against a peer and by its properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from infill.evaluate.agreement import agreement, auc, concordance

outcomes = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=40)


@given(outcomes)
def test_the_area_is_that_of_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    values, passed = [value for value, _ in pairs], [each for _, each in pairs]
    if len(set(passed)) == 1:
        assert math.isnan(auc(values, passed))
        return
    assert auc(values, passed) == pytest.approx(roc_auc_score(passed, values))
    assert auc([-value for value in values], passed) == pytest.approx(1 - auc(values, passed))


def test_a_metric_that_decides_is_distinguished_from_one_that_says_nothing() -> None:
    rng = np.random.default_rng(0)
    passed = (rng.random(400) < 0.3).tolist()
    scores = {"decides": [float(each) for each in passed], "nothing": rng.random(400).tolist()}
    result = agreement(scores, passed, resamples=200, seed=0)
    assert result["decides"] == {"value": 1, "low": 1, "high": 1}
    assert result["nothing"]["low"] < 0.5 < result["nothing"]["high"]
    assert math.isnan(agreement(scores, [True] * 400, resamples=10, seed=0)["nothing"]["value"])


@given(st.lists(st.booleans(), max_size=30), st.floats(0, 1))
def test_a_metric_that_is_always_the_same_says_nothing(passed: list[bool], value: float) -> None:
    area = auc([value] * len(passed), passed)
    assert area == 0.5 or (math.isnan(area) and len(set(passed)) < 2)
    result = agreement({"same": [value] * len(passed)}, passed, resamples=5, seed=0)["same"]
    assert math.isnan(result["value"]) == math.isnan(area)
    assert result["low"] == result["high"] == 0.5 or math.isnan(result["low"])


def test_concordance_counts_pairs_of_one_group_and_halves_ties() -> None:
    groups = [
        ([1.0, 0.5, 0.0], [0.9, 0.6, 0.1]),
        ([0.2, 0.8], [0.8, 0.2]),
        ([0.5, 0.5], [0.3, 0.4]),
        ([1.0, 1.0], [2.0, 2.0]),
    ]
    result = concordance(groups, resamples=200, seed=0)
    assert result["pairs"] == 5  # 3 alike, 1 reversed, 1 that one judge ties; what both tie is left out
    assert result["value"] == (3 + 0 + 0.5) / 5
    low, high = result["low"], result["high"]
    assert low is not None
    assert high is not None
    assert low <= result["value"] <= high
    assert concordance([([1.0], [1.0])], resamples=10, seed=0)["value"] is None
    assert concordance([], resamples=10, seed=0)["pairs"] == 0


@given(st.lists(st.tuples(st.lists(st.floats(0, 1), min_size=3, max_size=3)), min_size=1, max_size=5))
def test_a_judge_agrees_with_itself(groups: list[tuple[list[float]]]) -> None:
    assert concordance([(one, one) for (one,) in groups], resamples=20, seed=0)["value"] in (1.0, None)
