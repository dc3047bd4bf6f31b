"""Exact search finds what brute force finds, ties included."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex, exact, scoring
from tests.properties import examples
from tests.unit.context import brute


@given(brute.projects, brute.texts, st.integers(1, 8), st.sampled_from(["tokens", "lines"]), brute.paths)
@examples(100)
def test_iou_equals_brute_force(project: dict[str, str], text: str, k: int, kind: exact.Kind, without: str) -> None:
    index = ProjectIndex.from_documents(project.items())
    nearest = exact.top_iou(index, text, k, kind=kind, without=without)
    assert [(brute.place(index, hit.window), hit.score) for hit in nearest] == brute.top_iou(
        index, text, k, kind, without
    )


@pytest.mark.parametrize("kind", ["tokens", "lines"])
def test_iou_equals_brute_force_over_many_windows(kind: exact.Kind) -> None:
    """Enough windows for whole stretches of them to be passed over, the best ones in the file that does not count."""
    draw = random.Random(7)
    words = [f"name{number}" for number in range(60)]
    lines = {f"{file}.py": [" ".join(draw.choices(words, k=3)) for _ in range(400)] for file in range(12)}
    asked = "\n".join(lines["3.py"][100:120])
    index = ProjectIndex.from_documents((path, "\n".join(each)) for path, each in lines.items())
    for k in (1, 2, 5):
        nearest = exact.top_iou(index, asked, k, kind=kind, without="3.py")
        assert [(brute.place(index, hit.window), hit.score) for hit in nearest] == brute.top_iou(
            index, asked, k, kind, "3.py"
        )


@given(brute.projects, brute.texts)
@examples(60)
def test_bm25_equals_brute_force(project: dict[str, str], text: str) -> None:
    index = ProjectIndex.from_documents(project.items())
    nearest = {brute.place(index, hit.window): hit.score for hit in exact.top_bm25(index, text, 1_000)}
    expected = {place: score for place, score in brute.bm25(index, text).items() if score > 0}
    assert nearest == pytest.approx(expected)


def test_ties_go_to_the_lower_path_whatever_the_order_of_arrival() -> None:
    text = "alpha beta\n"
    for order in (["z.py", "b.py", "a.py"], ["a.py", "z.py", "b.py"]):
        index = ProjectIndex.from_documents((path, text) for path in order)
        best = [index.paths[index.table.file[hit.window]] for hit in exact.top_iou(index, "alpha", 2)]
        assert best == ["a.py", "b.py"]


def test_nothing_asked_nothing_found() -> None:
    index = ProjectIndex.from_documents([("a.py", "alpha\n")])
    assert exact.top_iou(index, "", 5) == []
    assert exact.top_iou(index, "alpha", 0) == []
    assert exact.top_bm25(ProjectIndex(), "alpha", 5) == []


@given(st.integers(1, 9_000), st.integers(1, 9), st.sampled_from([2, 9, 10**6]), st.integers(0, 10**6))
def test_the_best_of_weighted_sums_are_those_of_sorting(count: int, k: int, weights: int, seed: int) -> None:
    """Whatever the sizes, files and gaps, and although most windows are skipped."""
    draw = np.random.default_rng(seed)
    sums = (draw.integers(0, weights, count + 1) * (draw.random(count + 1) < draw.random())).astype(np.int32)
    sizes, file = (
        draw.integers(0, draw.choice([2, 40, 300]), count).astype(np.int32),
        np.arange(count, dtype=np.int32) // 50,
    )
    prior, by_size = draw.random(count // 50 + 1), np.append(0.0, np.arange(1.0, 200.0) ** -0.5)
    scores = sums[1:] * by_size[np.minimum(sizes, 199)] * prior[file]
    positive = np.flatnonzero(scores)
    least = np.sort(scores[positive])[::-1][k - 1] if len(positive) >= k else 0.0
    windows, values = scoring._weighted(sums, sizes, by_size, file, prior, k)
    assert windows.tolist() == positive[scores[positive] >= least].tolist()
    assert values.tolist() == scores[windows].tolist()
    assert not sums.any()


@given(st.integers(1, 700), st.integers(1, 90), st.sampled_from([2, 9, 10**6]), st.integers(0, 10**6))
def test_the_best_are_those_of_sorting(count: int, k: int, values: int, seed: int) -> None:
    """Of many windows or few, with many equal scores or none."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, values, count) / values * draw.choice([1e-9, 1.0, 1e9])
    tops = np.array([scores[start : start + scoring.STRETCH].max() for start in range(0, count, scoring.STRETCH)])
    positive = np.flatnonzero(scores)
    least = np.sort(scores[positive])[::-1][: k + 1][k - 1] if len(positive) >= k else 0.0
    assert scoring.best(scores, tops, k).tolist() == positive[scores[positive] >= least].tolist()
