"""Preferences from history, from people's ratings, and from completions that are made up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infill import storage
from infill.artifacts import rating
from infill.artifacts.examples import read_holes
from infill.artifacts.preferences import read_pairs
from infill.config import ExamplesConfig, PreferencesConfig
from infill.edits.benchmark_build import BenchmarkConfig, build
from infill.errors import InputError
from infill.preferences.rated import learn
from infill.rating.rating_items import RatingConfig, of_pairs
from tests import builders
from tests.builders import run_stage
from tests.unit.edits import histories
from tests.unit.rating import rating_sets

CONFIG = PreferencesConfig(
    holes=6, temperatures=(0.5,), samples=1, max_new_tokens=8, min_margin=0.01, max_prompt_tokens=160
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    splits = {"repo_0": "train", "repo_1": "train", "repo_2": "test"}
    corpus = builders.write_documents(folder / "corpus", builders.tiny_repositories(count=3), splits)
    model = builders.tiny_model(folder / "model")
    run_stage(
        "examples",
        ExamplesConfig(holes=12, validation_holes=0, test_holes=4),
        corpus,
        model,
        output=str(folder / "examples"),
    )
    return str(folder / "examples"), model


def _history(folder: Path, name: str, **settings: Any) -> str:
    repository = folder / f"{name}.git"
    if not repository.exists():
        histories.build(repository)
    config = BenchmarkConfig(sources=(f"git:{repository}",), after="2025-01-01", holes=8, **settings)
    output = str(folder / f"{name}-{len(list(folder.iterdir()))}")
    build(config, output)
    return output


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_pairs(str(folder)).to_pylist()
    return rows


def test_what_a_developer_wrote_is_better_than_what_the_model_writes(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    history = _history(tmp_path, "widgets", train=True, before="2027-01-01")
    config = replace(CONFIG, history=history, hard_negatives=1)
    metrics = run_stage("preferences", config, *inputs, output=str(tmp_path / "preferences"))
    holes = {hole["id"]: hole for hole in read_holes(history, "train", 100).to_pylist()}
    pairs = [row for row in _rows(tmp_path / "preferences") if row["kind"] == "history"]
    assert pairs
    assert metrics["pairs_history"] == len(pairs)
    for row in pairs:
        hole = holes[row["id"].removesuffix("-history")]
        assert row["chosen"] == hole["middle"] != row["rejected"]
        assert (row["judge"], row["context"]) == ("rules", hole["context"])
    report = storage.read_json(str(tmp_path / "preferences" / "report.json"))
    assert report["length_bias"]["history"]["pairs"] == len(pairs)
    assert report["length_bias"]["all"]["pairs"] == report["pairs"] == sum(report["kinds"].values())
    assert sum(report["kinds"].get(kind, 0) for kind in ("stub", "over", "echo", "wrong_name")) >= 6
    assert report["margin"]["p05"] >= 0
    assert report["reasons"]["made up"] >= 6
    assert "in the judge's own words" not in report["reasons"]


def test_sources_that_are_still_empty_change_nothing(inputs: tuple[str, str], tmp_path: Path) -> None:
    """A schedule is set up before users have given feedback, and a rating set is built before anybody rates."""
    run_stage("preferences", CONFIG, *inputs, output=str(tmp_path / "first"))
    ratings = str(tmp_path / "set")
    of_pairs(RatingConfig(items=3), str(tmp_path / "first"), ratings)
    config = replace(CONFIG, feedback=str(tmp_path / "feedback of tomorrow"), ratings=ratings)
    run_stage("preferences", config, *inputs, output=str(tmp_path / "second"))
    assert _rows(tmp_path / "second") == _rows(tmp_path / "first")
    report = storage.read_json(str(tmp_path / "second" / "report.json"))
    assert report["feedback"] == {"rows": 0}
    assert report["ratings"] == {"not rated": 3}


def test_holes_of_held_out_repositories_are_never_learned_from(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    history = _history(tmp_path, "repo_2", train=True, before="2027-01-01")
    assert {hole["repo"] for hole in read_holes(history, "train", 100).to_pylist()} == {"repo_2"}
    run_stage("preferences", replace(CONFIG, history=history), *inputs, output=str(tmp_path / "preferences"))
    assert not [row for row in _rows(tmp_path / "preferences") if row["kind"] == "history"]
    counts = storage.read_json(str(tmp_path / "preferences" / "report.json"))["counts"]
    assert counts["history holes of held-out repositories or files"] == 6


def test_holes_to_measure_on_are_refused_and_those_of_a_benchmark_left_out(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    benchmark = _history(tmp_path, "widgets")
    with pytest.raises(InputError, match="holds no holes to learn from"):
        run_stage("preferences", replace(CONFIG, history=benchmark), *inputs, output=str(tmp_path / "preferences"))
    with pytest.raises(InputError, match="must not be those that you measure on"):
        _history(tmp_path, "widgets", train=True)
    rest = _history(tmp_path, "widgets", train=True, without=(benchmark,))
    commits = [{row["commit"] for row in _origins(folder)} for folder in (benchmark, rest)]
    assert commits[0]
    assert commits[1]
    assert not commits[0] & commits[1]
    assert storage.read_json(f"{rest}/report.json")["held_back"] == 0
    early = _history(tmp_path, "widgets", train=True, before="2025-01-05")
    assert max(row["date"] for row in _origins(early)) < "2025-01-05"
    assert "there to learn from" in storage.read_bytes(f"{early}/CARD.md").decode()


def _origins(folder: str) -> list[dict[str, str]]:
    from infill.artifacts.benchmark import read_origins

    return read_origins(folder)


def _vote(folder: str, votes: dict[str, list[str]]) -> None:
    items = rating.read_items(folder)
    for rater, choices in votes.items():
        file = rating.RatingsFile(Path(folder), rater)
        for item, choice in zip(items, choices, strict=False):
            file.add({"item": item["id"], "left": rating.FIRST, "choice": choice, "seconds": 1.0})


def test_people_overrule_the_judge(inputs: tuple[str, str], tmp_path: Path) -> None:
    run_stage("preferences", CONFIG, *inputs, output=str(tmp_path / "first"))
    before = {row["id"]: row for row in _rows(tmp_path / "first")}
    of_pairs(RatingConfig(), str(tmp_path / "first"), str(tmp_path / "rating"))
    judged = [item["judged"] for item in rating.read_items(str(tmp_path / "rating"))]
    second = rating.OTHER[judged[1]]
    votes = {
        "ada": [judged[0], second, rating.EQUAL, rating.FIRST, rating.SKIP],
        "bob": [judged[0], second, rating.EQUAL, rating.SECOND],
    }
    _vote(str(tmp_path / "rating"), votes)
    config = replace(CONFIG, ratings=str(tmp_path / "rating"))
    run_stage("preferences", config, *inputs, output=str(tmp_path / "second"))
    after = _rows(tmp_path / "second")
    rated = {row["id"].removesuffix("-rated"): row for row in after if row["kind"] == "rated"}
    items = [item["id"] for item in rating.read_items(str(tmp_path / "rating"))]
    finished = [before[name]["rejected_finished"] for name in items]
    assert set(rated) == {items[0], *items[1:2][: finished[1]]}
    assert rated[items[0]]["chosen"] == before[items[0]]["chosen"]
    assert rated[items[0]]["judge"] == "raters"
    kept = {row["id"] for row in after if row["kind"] != "rated"}
    assert kept == set(before) - {items[1], items[2]}
    counts = storage.read_json(str(tmp_path / "second" / "report.json"))["ratings"]
    assert (counts["confirmed"], counts["reversed"], counts["equally good"]) == (1, 1, 1)
    assert (counts["without a majority"], counts["not rated"]) == (1, len(items) - 4)


def test_ratings_of_evaluations_are_not_trained_on() -> None:
    item = {"id": "a", "origin": rating.EVALUATIONS}
    with pytest.raises(InputError, match="held out and must not be trained on"):
        learn([item], [])


def test_a_reversed_pair_chooses_the_second_text() -> None:
    item = {
        **dict.fromkeys(("repo", "path", "language", "prefix", "suffix"), "x"),
        "id": "a",
        "origin": rating.PAIRS,
        "context": [],
        "first": "pass",
        "second": "return 1",
        "judged": "first",
        "finished_first": True,
        "finished_second": True,
    }
    votes = [
        {"item": "a", "rater": rater, "choice": choice}
        for rater, choice in zip("abc", ("second", "second", "first"), strict=True)
    ]
    result = learn([item], votes)
    ((hole, pair),) = result.pairs
    assert (pair.chosen, pair.rejected) == ("return 1", "pass")
    assert pair.score_chosen == pytest.approx(2 / 3)
    assert not result.allow({**hole, "chosen": "pass", "rejected": "return 1"})
    assert result.allow({**hole, "chosen": "return 1", "rejected": "pass"})
    assert json.loads(json.dumps(result.counts)) == {"reversed": 1}


def test_people_alone_give_pairs_without_a_sample(inputs: tuple[str, str], tmp_path: Path) -> None:
    ratings = rating_sets.build(tmp_path)
    alone = replace(CONFIG, holes=0, ratings=str(ratings))
    with pytest.raises(InputError, match="neither feedback nor ratings give a pair yet"):
        run_stage("preferences", alone, *inputs, output=str(tmp_path / "none"))
    item = rating.read_items(str(ratings))[0]
    rating.RatingsFile(ratings, "ada").add({"item": item["id"], "left": "first", "choice": "second"})
    metrics = run_stage("preferences", alone, *inputs, output=str(tmp_path / "one"))
    assert (metrics["pairs"], metrics["samples"]) == (1, 0)
    assert [(row["kind"], row["chosen"]) for row in _rows(tmp_path / "one")] == [("rated", item["second"])]
    with pytest.raises(ValueError, match="holes must be positive"):
        replace(CONFIG, holes=0)
