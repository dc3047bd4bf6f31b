"""The agreement of metrics with correctness, against a peer and by its properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from infill.evaluate.agreement import agreement, auc

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
